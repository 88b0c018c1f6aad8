//! With feature `image`: compiles every kernel with nvcc, for the GPUs of `TARGETS`, to be embedded.
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

/// A100, H100 and H200 in machine code; newer ones compile the last one's PTX when they start.
const TARGETS: [&str; 3] = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=sm_90",
    "-gencode=arch=compute_90,code=compute_90",
];

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    for variable in ["NVCC", "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let images = if env::var_os("CARGO_FEATURE_IMAGE").is_some() {
        compile(&out).unwrap_or_else(|error| {
            println!("cargo::error={error}");
            Vec::new()
        })
    } else {
        Vec::new()
    };
    let list: String = images
        .iter()
        .map(|image| format!("include_bytes!({:?}), ", image.display().to_string()))
        .collect();
    fs::write(out.join("images.rs"), format!("&[{list}]")).expect("OUT_DIR is writable");
}

fn compile(out: &Path) -> Result<Vec<PathBuf>, String> {
    let nvcc = find_nvcc()?;
    let mut sources: Vec<PathBuf> = fs::read_dir("kernels")
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|error: io::Error| format!("kernels: {error}"))?;
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    sources.sort();
    let num_workers = env::var("NUM_JOBS").map_or(1, |jobs| jobs.parse().unwrap_or(1));
    let mut images = Vec::new();
    for sources in sources.chunks(num_workers) {
        let compiled: Vec<Result<PathBuf, String>> = thread::scope(|scope| {
            let workers: Vec<_> = sources
                .iter()
                .map(|source| scope.spawn(|| compile_one(&nvcc, source, out)))
                .collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join().expect("no panic");
            workers.into_iter().map(join).collect()
        });
        for image in compiled {
            images.push(image?);
        }
    }
    Ok(images)
}

fn compile_one(nvcc: &Path, source: &Path, out: &Path) -> Result<PathBuf, String> {
    let stem = source.file_stem().expect("a file").to_string_lossy();
    let image = out.join(format!("{stem}.fatbin"));
    let output = Command::new(nvcc)
        .args(["-fatbin", "-O3", "-std=c++17"])
        .args(TARGETS)
        .arg(source)
        .arg("-o")
        .arg(&image)
        .output()
        .map_err(|error| format!("{}: {error}", nvcc.display()))?;
    if output.status.success() {
        return Ok(image);
    }
    let message = String::from_utf8_lossy(&output.stderr).replace('\n', "\\n");
    Err(format!("{}: {message}", source.display()))
}

/// `$NVCC`, the PATH, `$CUDA_HOME/bin`, `/usr/local/cuda/bin`.
fn find_nvcc() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let named = env::var_os("NVCC").map(PathBuf::from);
    let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc"));
    let on_path = env::split_paths(&path).map(|folder| folder.join("nvcc"));
    named
        .into_iter()
        .chain(on_path)
        .chain(home)
        .chain([PathBuf::from("/usr/local/cuda/bin/nvcc")])
        .find(|nvcc| nvcc.is_file())
        .ok_or_else(|| {
            "no nvcc in $NVCC, on the PATH, in $CUDA_HOME/bin or /usr/local/cuda/bin; \
             `cuda/toolkit.sh DIR` lays one out, then set CUDA_HOME=DIR"
                .to_owned()
        })
}
