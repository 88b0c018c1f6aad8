//! `gen-server speed --parts`: where the time of a step goes on a GPU. Each kernel of a step alone, as often as
//! the step launches it, beside the least time that its bytes and operations take at the rates that this card was
//! measured to reach ([`Ceilings`]); for products also the fastest of the kernels that cublasLt suggests.
//!
//! Runs of a part are recorded in a graph, one after the other, as those of a step are: what lies between two
//! kernels of a graph is in its time. The graph is launched for 5 ms, five times; the median counts.
//!
//! What a step finds in memory and not in the L2 cache (50 MB on an H100) are weights, keys and values: each layer
//! has its own. So a part has several copies of them (see [`operands`]), which its runs take in turn. Activations,
//! and the keys and values that attention over a prompt reads, are in one place, since a step, too, has just
//! written them: a part that moves little else can be faster than memory allows.

mod attention;
mod operands;
mod report;
mod step;

#[cfg(test)]
mod tests;

use cuda::{Device, LinearKernel};
use model::folder::ModelFolder;

pub use self::report::StepParts;
use self::{
    operands::Operands,
    report::{MeasuredPart, Trial},
    step::StepSize,
};
use super::{Measured, Phase};
use crate::{
    backend::{
        cuda::{kv_element, weight_element},
        step_limits,
    },
    ceilings::{Ceilings, sized},
    config::{self, ConfigError, Dtype, Mistake, Precision, ServerConfig},
    engine::scheduler::Limits,
    error::ServerError,
};

/// Long against the gap between two graphs and the clock's grain.
const MIN_SECONDS: f64 = 5e-3;
const NUM_MEASUREMENTS: usize = 5;
/// Kernels in a graph, at most; and launches of it.
const MAX_RUNS: usize = 128;
const MAX_LAUNCHES: f64 = 1000.0;
/// How many of cublasLt's kernels are tried.
const MAX_KERNELS: usize = 16;

/// A part of a step.
struct Part {
    name: &'static str,
    /// Tokens, or rows that logits are wanted for.
    rows: usize,
    /// How often it comes in a step.
    count: usize,
    /// Each weight, activation, key and value that it reads or writes, once.
    num_bytes: usize,
    num_flops: usize,
    /// Copies of the operands that a step would not find in L2.
    num_copies: usize,
    run: Run,
    /// Of a product: what cublasLt suggests, best first.
    kernels: Vec<LinearKernel>,
}

type Run = Box<dyn FnMut(Turn<'_>) -> cuda::Result<()>>;

/// A run of a part.
#[derive(Clone, Copy)]
struct Turn<'a> {
    copy: usize,
    /// Instead of the one that a step would take.
    kernel: Option<&'a LinearKernel>,
}

/// A GPU with random operands in a model's shapes.
#[derive(Debug)]
pub struct PartsBench {
    limits: Limits,
    operands: Operands,
    ceilings: Ceilings,
}

/// What `--parts` cannot be asked for.
pub(super) fn check(config: &ServerConfig) -> Result<(), ConfigError> {
    let problem = if config.device == config::Device::Cpu {
        "expected --device cuda, since it times the kernels of a GPU, found cpu"
    } else if config.precision == Precision::Float(Dtype::F32) {
        "expected --dtype bf16 or --quantize int8, found f32"
    } else {
        return Ok(());
    };
    let mistake = Mistake {
        option: "--parts",
        problem: problem.to_owned(),
    };
    Err(ConfigError {
        mistakes: vec![mistake],
    })
}

impl PartsBench {
    /// For the model that `config` names, of which only the shapes are read. Its memory is to be free.
    pub fn open(config: &ServerConfig) -> Result<Self, ServerError> {
        check(config)?;
        let device = Device::open(config.gpu.ordinal)?;
        let model = ModelFolder::open(&config.model_dir)?.config;
        let elements = (weight_element(config), kv_element(config));
        model::gpu::check_config(&model, elements.0)?;
        Ok(Self {
            limits: step_limits(config, 0),
            ceilings: Ceilings::measure(&device)?,
            operands: Operands::new(&device, &model, elements)?,
        })
    }

    /// The parts of a step that was measured as a whole.
    pub fn measure(&self, step: &Measured) -> Result<StepParts, ServerError> {
        let size = StepSize::new(step.phase, &self.limits);
        let parts = step::parts(&self.operands, &size)?;
        let measured = parts
            .into_iter()
            .map(|part| self.measure_part(part))
            .collect::<cuda::Result<_>>()?;
        Ok(StepParts {
            phase: step.phase,
            step_us: step.ms_per_step * 1e3,
            ceilings: self.ceilings,
            parts: measured,
        })
    }

    fn measure_part(&self, mut part: Part) -> cuda::Result<MeasuredPart> {
        let device = &self.operands.device;
        let us = 1e6 * seconds(device, &mut part, None)?;
        let kernels = std::mem::take(&mut part.kernels);
        let mut trial: Option<Trial> = None;
        for (index, kernel) in kernels.iter().enumerate() {
            let us = match seconds(device, &mut part, Some(kernel)) {
                Ok(seconds) => 1e6 * seconds,
                // Suggested, and not able to.
                Err(cuda::Error::Blas { .. }) => continue,
                Err(error) => return Err(error),
            };
            if trial.is_none_or(|best| us < best.us) {
                trial = Some(Trial {
                    us,
                    number: index + 1,
                    num_suggested: kernels.len(),
                });
            }
        }
        let (least, bound) = self.ceilings.least(part.num_bytes, part.num_flops);
        Ok(MeasuredPart {
            name: part.name,
            rows: part.rows,
            count: part.count,
            us,
            num_bytes: part.num_bytes,
            num_flops: part.num_flops,
            least_us: 1e6 * least,
            bound,
            trial,
        })
    }
}

/// Of one run. See the file's head.
fn seconds(device: &Device, part: &mut Part, kernel: Option<&LinearKernel>) -> cuda::Result<f64> {
    let (num_copies, min_seconds) = (part.num_copies, sized(device, MIN_SECONDS, 0.0));
    let mut runs = |count: usize| {
        (0..count).try_for_each(|run| {
            let copy = run % num_copies;
            (part.run)(Turn { copy, kernel })
        })
    };
    // The first launch loads kernels and chooses products, which a recording must not.
    runs(num_copies)?;
    let once = device.time(|| runs(num_copies))?;
    let rounds = (min_seconds / once).clamp(1.0, (MAX_RUNS / num_copies) as f64);
    let num_runs = num_copies * rounds as usize;
    let mut graph = device.record(|| runs(num_runs))?;
    let mut launches = |count: usize| device.time(|| (0..count).try_for_each(|_| graph.launch()));
    launches(1)?;
    let num_launches = (min_seconds / launches(1)?).clamp(1.0, MAX_LAUNCHES).ceil() as usize;
    let mut times = [0.0; NUM_MEASUREMENTS];
    for time in &mut times {
        *time = launches(num_launches)?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[NUM_MEASUREMENTS / 2] / (num_launches * num_runs) as f64)
}
