//! Who issues certificates, and where they are served.
