//! Somebody else's gRPC client: Python's grpcio with what the server's reflection tells, and nothing
//! compiled from our contract. Says SKIPPED where Python or its packages cannot be had.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    server::{TestServer, server_of},
    world::write_random_model,
};

const PACKAGES: [&str; 2] = ["grpcio", "grpcio-reflection"];
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A Python that has the packages, or why there is none. It lies below the target folder, so that it
/// is made once.
fn python() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("grpc-client");
    let python = folder.join("bin/python");
    let has_packages = || run(Command::new(&python).args(["-c", "import grpc_reflection, grpc"]));
    if has_packages().is_ok() {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder))?;
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "--timeout",
        "20",
    ];
    run(Command::new(&python).args(install).args(PACKAGES))?;
    has_packages()?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(last_line(&output)),
        Err(error) => Err(error.to_string()),
    }
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.trim().lines().last().unwrap_or("no word").to_owned()
}

/// Every method of every service, by a client that asks the server what there is.
#[test]
fn a_client_by_reflection_calls_every_method() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            eprintln!("SKIPPED: no Python with {PACKAGES:?}: {why}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    write_random_model(&dir.path().join("base"), 32);
    write_random_model(&dir.path().join("next"), 32);
    let token_file = dir.path().join("token");
    fs::write(&token_file, TOKEN).unwrap();
    let server = TestServer::start(
        server_of(&dir.path().join("base"))
            .with("--checkpoint-root", dir.path())
            .with("--auth-token-file", token_file),
    );
    let url = server.url();
    let address = url.strip_prefix("http://").expect("a plain address");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grpc_client.py");
    let output = Command::new(python)
        .arg(script)
        .args([address, TOKEN])
        .output()
        .expect("it ran a moment ago");
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.starts_with("called "), "{told}");
    eprintln!("{}", told.trim());
}
