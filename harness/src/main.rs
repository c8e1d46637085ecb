//! The executable: all is in the library.

fn main() -> std::process::ExitCode {
    rotacheck::cli::main()
}
