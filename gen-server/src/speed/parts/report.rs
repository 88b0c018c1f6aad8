//! The parts of a step as a table, and as JSON.

use std::fmt;

use super::Phase;
use crate::ceilings::Ceilings;

/// The parts of a step, beside the step as a whole.
#[derive(Debug, Clone)]
pub struct StepParts {
    pub(super) phase: Phase,
    pub(super) step_us: f64,
    pub(super) ceilings: Ceilings,
    pub(super) parts: Vec<MeasuredPart>,
}

#[derive(Debug, Clone)]
pub(super) struct MeasuredPart {
    pub name: &'static str,
    pub rows: usize,
    /// How often it comes in a step.
    pub count: usize,
    /// Of one of them, as the following.
    pub us: f64,
    pub num_bytes: usize,
    pub num_flops: usize,
    pub least_us: f64,
    /// Which of the two takes longer: `memory` or `products`.
    pub bound: &'static str,
    /// Of a product.
    pub trial: Option<Trial>,
}

/// The fastest of the kernels that cublasLt suggested.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub us: f64,
    /// From 1, which is the one that steps take.
    pub number: usize,
    pub num_suggested: usize,
}

impl StepParts {
    pub(super) fn sum(&self, of: impl Fn(&MeasuredPart) -> f64) -> f64 {
        let all = self.parts.iter().map(|part| part.count as f64 * of(part));
        all.sum()
    }

    /// With the fastest kernel of each product.
    pub(super) fn best_us(&self) -> f64 {
        self.sum(|part| part.trial.map_or(part.us, |trial| trial.us.min(part.us)))
    }

    /// One object a part, and one for all of them together.
    pub fn json(&self) -> Vec<String> {
        let phase = self.phase;
        let mut lines: Vec<String> = self.parts.iter().map(|part| part.json(phase)).collect();
        let (step, sum, best) = (self.step_us, self.sum(|part| part.us), self.best_us());
        let least = self.sum(|part| part.least_us);
        let gb_per_s = self.ceilings.bytes_per_s / 1e9;
        let tflops = self.ceilings.flops_per_s / 1e12;
        lines.push(format!(
            r#"{{"what":"parts","phase":"{phase}","step_us":{step:.3},"sum_us":{sum:.3},"best_us":{best:.3},"least_us":{least:.3},"gb_per_s":{gb_per_s:.3},"tflops":{tflops:.4}}}"#
        ));
        lines
    }
}

impl MeasuredPart {
    fn json(&self, phase: Phase) -> String {
        let Self {
            name,
            rows,
            count,
            us,
            num_bytes,
            num_flops,
            least_us,
            bound,
            trial,
        } = self;
        let trial = trial.map_or_else(String::new, |trial| {
            let Trial {
                us,
                number,
                num_suggested,
            } = trial;
            format!(r#","best_us":{us:.3},"best":{number},"suggested":{num_suggested}"#)
        });
        format!(
            r#"{{"what":"part","phase":"{phase}","part":"{name}","rows":{rows},"us":{us:.3},"count":{count},"bytes":{num_bytes},"flops":{num_flops},"least_us":{least_us:.3},"bound":"{bound}"{trial}}}"#
        )
    }
}

/// A table for people.
impl fmt::Display for StepParts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |least: f64, us: f64| 100.0 * least / us;
        writeln!(
            out,
            "{}, at {:.0} GB/s (a copy) and {:.1} TFLOP/s (a large product) at best:",
            self.phase,
            self.ceilings.bytes_per_s / 1e9,
            self.ceilings.flops_per_s / 1e12
        )?;
        writeln!(
            out,
            "{:<17}{:>6}{:>11}{:>7}{:>12}{:>12}{:>9}  {:<9}best of cublasLt",
            "part", "rows", "us", "times", "together", "least", "reached", "bound by"
        )?;
        for part in &self.parts {
            let count = part.count as f64;
            write!(
                out,
                "{:<17}{:>6}{:>11.2}{:>7}{:>12.1}{:>12.1}{:>7.0} %  {:<9}",
                part.name,
                part.rows,
                part.us,
                part.count,
                count * part.us,
                count * part.least_us,
                percent(part.least_us, part.us),
                part.bound
            )?;
            match part.trial {
                Some(Trial {
                    us,
                    number,
                    num_suggested,
                }) => writeln!(out, "{us:.2} us, number {number} of {num_suggested}")?,
                None => writeln!(out)?,
            }
        }
        let least = self.sum(|part| part.least_us);
        for (what, us) in [
            ("all parts", self.sum(|part| part.us)),
            ("with the best", self.best_us()),
            ("measured step", self.step_us),
        ] {
            let reached = percent(least, us);
            writeln!(out, "{what:<41}{us:>12.1}{least:>12.1}{reached:>7.0} %")?;
        }
        Ok(())
    }
}
