//! Compiles `proto/` without `protoc`.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let files = [
        "streamhouse/v1/topic.proto",
        "streamhouse/v1/stream.proto",
        "streamhouse/v1/storage.proto",
        "streamhouse/v1/cluster.proto",
        "streamhouse/v1/groups.proto",
        "streamhouse/internal/v1/raft.proto",
        "streamhouse/internal/v1/node.proto",
    ];
    println!("cargo:rerun-if-changed={}", root.display());
    let set = protox::compile(files, [&root])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").build_transport(true).compile_fds(set)?;
    Ok(())
}
