//! Builds the preload library that moves a process's wall clock; `clock/` embeds it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "preload/preload.rs";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(variable("OUT_DIR")).join("preload.so");
    // The toolchain's own linker needs nothing installed. Some distributions ship rustc without it.
    let rust_lld: &[&str] = &["-Clinker=rust-lld", "-Clinker-flavor=ld.lld"];
    let cc: &[&str] = &["-Clinker=cc", "-Clink-arg=-nostdlib", "-Clink-arg=-nostartfiles"];
    let complaints: Vec<String> = [rust_lld, cc].iter().map_while(|linker| compile(&out, linker).err()).collect();
    if complaints.len() == 2 {
        panic!("cannot build the clock's preload library:\n{}", complaints.join("\n"));
    }
}

fn compile(out: &Path, linker: &[&str]) -> Result<(), String> {
    let compiler = Command::new(variable("RUSTC"))
        .args(["--edition=2024", "--crate-type=cdylib", "--crate-name=rotacheck_preload"])
        .args(["-Copt-level=2", "-Cpanic=abort", "-Cstrip=symbols", "-Ctarget-feature=-crt-static"])
        .args(["--target", &variable("TARGET")])
        .args(linker)
        .arg("-o")
        .arg(out)
        .arg(SOURCE)
        // Flags and wrappers for the harness (coverage, sanitizers, a linker of the user's) don't hold for it.
        .env_remove("RUSTC_LINKER")
        .output()
        .map_err(|e| format!("cannot run rustc: {e}"))?;
    if compiler.status.success() {
        return Ok(());
    }
    Err(format!("with {}:\n{}", linker.join(" "), String::from_utf8_lossy(&compiler.stderr)))
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
