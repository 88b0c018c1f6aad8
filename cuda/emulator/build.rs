//! Compiles the kernels and the software GPU with the host's C++ compiler. Where there is none, the
//! tests that need it say so and skip.
#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks through the environment"
)]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

const FLAGS: [&str; 8] = [
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-DEMULATED",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Icpp",
];

fn main() {
    println!("cargo::rerun-if-changed=../kernels");
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-env-changed=CXX");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("cargo::warning=no C++ compiler ({compiler}): no software GPU in the tests");
        println!("cargo::rustc-env=SOFTWARE_GPU=");
        return;
    }
    if let Err(error) = build(&compiler, &out) {
        println!("cargo::error={error}");
    }
    println!("cargo::rustc-env=SOFTWARE_GPU={}", out.display());
}

fn build(compiler: &str, out: &Path) -> Result<(), String> {
    let mut sources = sources_in("../kernels", "cu")?;
    sources.push(PathBuf::from("cpp/threads.cpp"));
    sources.push(PathBuf::from("cpp/driver.cpp"));
    let num_workers = env::var("NUM_JOBS").map_or(1, |jobs| jobs.parse().unwrap_or(1));
    let mut objects = Vec::new();
    for sources in sources.chunks(num_workers) {
        let compiled: Vec<Result<PathBuf, String>> = thread::scope(|scope| {
            let workers: Vec<_> = sources
                .iter()
                .map(|source| scope.spawn(|| compile(compiler, source, out)))
                .collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join().expect("no panic");
            workers.into_iter().map(join).collect()
        });
        for object in compiled {
            objects.push(object?);
        }
    }
    let driver = out.join("libcuda.so");
    let mut link = Command::new(compiler);
    link.args(["-shared", "-Wl,-soname,libcuda.so", "-o"]);
    run(link.arg(&driver).args(objects))?;
    let mut link = Command::new(compiler);
    link.args(FLAGS);
    link.args(["-shared", "-Wl,-soname,libcublasLt.so", "cpp/cublaslt.cpp"]);
    run(link.arg(&driver).arg("-o").arg(out.join("libcublasLt.so")))
}

fn compile(compiler: &str, source: &Path, out: &Path) -> Result<PathBuf, String> {
    let stem = source.file_stem().expect("a file").to_string_lossy();
    let object = out.join(format!("{stem}.o"));
    let mut command = Command::new(compiler);
    command.args(FLAGS).args(["-x", "c++", "-c"]);
    run(command.arg(source).arg("-o").arg(&object))?;
    Ok(object)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).replace('\n', "\\n");
    Err(format!("{command:?}: {message}"))
}

fn sources_in(folder: &str, extension: &str) -> Result<Vec<PathBuf>, String> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|error: io::Error| format!("{folder}: {error}"))?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}
