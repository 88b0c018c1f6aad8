//! Compiles the contract with `protox`, so that no system protoc is needed, and keeps the
//! descriptor set for server reflection.

use std::{env, fs, path::PathBuf};

use prost::Message;

const CONTRACT: &str = "genserver/v1/genserver.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile([CONTRACT], ["proto"])?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(
        out_dir.join("genserver_descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
