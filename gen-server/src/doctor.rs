//! `gen-server doctor`: whether this machine can serve on a GPU. Every check says what it found, and what to
//! do where it failed; the rates it measures are what all others are to be held against.

mod model;
mod rates;

use std::path::PathBuf;

use clap::Parser;
use cuda::Device;

const EXAMPLES: &str = "\
Examples:
  gen-server doctor
  gen-server doctor --gpu 1 --json
";

/// The command line of `gen-server doctor`.
#[derive(Debug, Clone, Parser)]
#[command(name = "gen-server doctor", about = "Checks whether this machine can serve on a GPU", after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Number of the GPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub gpu: usize,

    /// Where to put the small model of the last check [default: the system's folder for such files]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,

    /// One JSON object a check
    #[arg(long)]
    pub json: bool,
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    /// What was found, or what is wrong and what to do.
    pub outcome: Result<String, String>,
}

impl std::fmt::Display for Check {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.outcome {
            Ok(found) => write!(formatter, "ok      {}: {found}", self.name),
            Err(problem) => write!(formatter, "FAILED  {}: {problem}", self.name),
        }
    }
}

impl Check {
    fn new(name: &'static str, outcome: Result<String, impl std::fmt::Display>) -> Self {
        let outcome = outcome.map_err(|problem| problem.to_string());
        Self { name, outcome }
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let (ok, text) = match &self.outcome {
            Ok(found) => (true, found),
            Err(problem) => (false, problem),
        };
        let (name, text) = (self.name, text.escape_default());
        format!(r#"{{"what":"doctor","check":"{name}","ok":{ok},"found":"{text}"}}"#)
    }
}

/// Runs all checks and hands each to `tell` as soon as it is done; false if one failed. Without a GPU that opens
/// there is but one.
pub fn examine(args: &DoctorArgs, mut tell: impl FnMut(&Check)) -> bool {
    let mut all_ok = true;
    let mut check = |check: Check| {
        all_ok &= check.outcome.is_ok();
        tell(&check);
    };
    let opened = Device::open(args.gpu);
    let found = opened.as_ref().map_err(Clone::clone).and_then(describe);
    check(Check::new("driver, GPU, kernels", found));
    if let Ok(device) = opened {
        check(Check::new("memory bandwidth", rates::copy(&device)));
        check(Check::new("bf16 products", rates::product(&device)));
        check(Check::new("launches", rates::launches(&device)));
        let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
        check(Check::new(
            "GPU against CPU",
            model::agrees(args.gpu, &scratch),
        ));
    }
    all_ok
}

fn describe(device: &Device) -> cuda::Result<String> {
    let (major, minor) = device.compute_capability()?;
    let (free, total) = device.memory()?;
    let gib = |bytes: usize| bytes as f64 / (1_u64 << 30) as f64;
    Ok(format!(
        "{}, compute capability {major}.{minor}, {} multiprocessors, {:.1} of {:.1} GiB free; cublasLt \
         is there, the kernels load",
        device.name()?,
        device.num_multiprocessors()?,
        gib(free),
        gib(total),
    ))
}
