//! Regenerates the committed generated files: `cargo run -p xtask`. Its tests compare them with what it would write.

use std::path::{Path, PathBuf};

type Problem = Box<dyn std::error::Error>;

fn main() -> Result<(), Problem> {
    let path = workload_api_path();
    std::fs::write(&path, workload_api()?)?;
    println!("wrote {}", path.display());
    Ok(())
}

fn proto_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../harness/src/xds/proto")
}

fn workload_api_path() -> PathBuf {
    proto_dir().join("workload.rs")
}

/// The bindings of the SPIFFE Workload API, from `workload.proto`.
fn workload_api() -> Result<String, Problem> {
    let descriptors = protox::compile(["workload.proto"], [proto_dir()])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure().bytes(".").build_client(false).out_dir(out.path()).compile_fds(descriptors)?;
    // The proto has no package, so prost names the file so.
    Ok(std::fs::read_to_string(out.path().join("_.rs"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_api_bindings_are_those_of_the_proto() {
        let committed = std::fs::read_to_string(workload_api_path()).unwrap();
        assert!(committed == workload_api().unwrap(), "they differ: run `cargo run -p xtask` and commit the result");
    }
}
