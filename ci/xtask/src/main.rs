//! Regenerates the committed generated files: `cargo run -p xtask`. Its tests compare them with what it would write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Problem = Box<dyn std::error::Error>;

/// A file of bindings, and what it is made from; all of it in the directory `proto` of a room.
struct Bindings {
    room: &'static str,
    file: &'static str,
    protos: &'static [&'static str],
    client: bool,
    /// What is handed on as it is shares its buffer; what is read and written once has bytes of its own.
    shared: bool,
}

const ALL: [Bindings; 3] = [
    // Any and Struct are prost-types'; the rest comes by imports.
    Bindings {
        room: "xds",
        file: "envoy.rs",
        protos: &["sds.proto", "lds.proto", "listener.proto", "tls.proto"],
        client: true,
        shared: false,
    },
    Bindings { room: "xds", file: "workload.rs", protos: &["workload.proto"], client: false, shared: true },
    Bindings { room: "remote", file: "relay.rs", protos: &["relay.proto"], client: true, shared: true },
];

fn main() -> Result<(), Problem> {
    for bindings in &ALL {
        std::fs::write(bindings.path(), bindings.text()?)?;
        println!("wrote {}", bindings.path().display());
    }
    Ok(())
}

impl Bindings {
    fn dir(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../base/src").join(self.room).join("proto")
    }

    fn path(&self) -> PathBuf {
        self.dir().join(self.file)
    }

    fn text(&self) -> Result<String, Problem> {
        let descriptors = protox::compile(self.protos, [self.dir()])?;
        let out = tempfile::tempdir()?;
        let config = tonic_prost_build::configure().build_client(self.client).out_dir(out.path());
        let config = if self.shared { config.bytes(".") } else { config };
        config.compile_fds(descriptors)?;
        let mut root = Package::default();
        for file in std::fs::read_dir(out.path())? {
            let path = file?.path();
            // prost names a file as its package, and `_` where there is none.
            let package = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a file without a name")?;
            root.at(package.split('.').filter(|part| *part != "_")).text = std::fs::read_to_string(&path)?;
        }
        Ok(root.modules())
    }
}

/// Packages as modules, nested as prost's paths expect them.
#[derive(Default)]
struct Package {
    text: String,
    inner: BTreeMap<String, Package>,
}

impl Package {
    fn at<'a>(&mut self, path: impl Iterator<Item = &'a str>) -> &mut Self {
        path.fold(self, |package, part| package.inner.entry(part.to_owned()).or_default())
    }

    fn modules(&self) -> String {
        let inner = self.inner.iter().map(|(name, package)| {
            let name = if name == "type" { "r#type" } else { name };
            format!("pub mod {name} {{\n{}}}\n", package.modules())
        });
        self.text.clone() + &inner.collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bindings_are_those_of_the_protos() {
        for bindings in &ALL {
            let committed = std::fs::read_to_string(bindings.path()).unwrap_or_default();
            let file = bindings.file;
            assert!(
                committed == bindings.text().unwrap(),
                "{file} differs: run `cargo run -p xtask` and commit the result"
            );
        }
    }
}
