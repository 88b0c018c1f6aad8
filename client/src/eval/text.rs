//! An evaluation's result as people read it.

use super::{EvalSummary, SampleScores, short};
use crate::{loss::LossSummary, report::plots::AccuracyBar};

impl EvalSummary {
    /// `k/n = 31.2 % [27.3, 35.4]`, of answers where there are several of each question.
    pub fn headline(&self) -> String {
        format!(
            "{}/{} = {:.2} % [{:.2}, {:.2}]",
            self.counts.right,
            self.counts.attempts,
            self.accuracy * 100.0,
            self.interval.low * 100.0,
            self.interval.high * 100.0
        )
    }

    /// As a bar of the accuracy chart.
    pub fn bar(&self, label: &str) -> AccuracyBar {
        AccuracyBar {
            label: label.to_owned(),
            num_right: self.counts.right,
            num_questions: self.counts.attempts,
            low: self.interval.low,
            high: self.interval.high,
        }
    }

    /// The result as a person reads it.
    pub fn text(&self) -> String {
        let manifest = &self.manifest;
        let answers = self.counts.attempts.max(1) as f64;
        let percent = |count: u64| count as f64 * 100.0 / answers;
        let (interval, counted) = match &self.samples {
            None => ("Wilson", "questions"),
            Some(_) => ("clustered by question", "answers"),
        };
        let mut lines = vec![format!(
            "accuracy     {}  (95 % {interval}; rule {}, prompt {}, {})",
            self.headline(),
            manifest.rule,
            manifest.prompt.name,
            manifest.prompt_format.as_str()
        )];
        lines.extend(self.samples.iter().flat_map(SampleScores::text));
        lines.extend([
            format!("counts       {}", self.counts.equation(counted)),
            format!(
                "extraction   {:.2} % of outputs hold an answer; truncation {:.2} % (limit {} tokens)",
                self.extraction_rate * 100.0,
                self.truncation_rate * 100.0,
                manifest.decoding.max_tokens
            ),
            format!(
                "tokens       median {:.0}, p90 {:.0}, p95 {:.0}, p99 {:.0}, max {}",
                self.tokens.median,
                self.tokens.p90,
                self.tokens.p95,
                self.tokens.p99,
                self.tokens.max
            ),
            format!(
                "weights      {} (version {}, {})",
                manifest.weights.checkpoint,
                manifest.weights.version,
                short(&manifest.weights.digest)
            ),
            format!(
                "work         {} answers in {:.1} s, {:.0} tokens/s; {} from an earlier run; {} \
                 retries, {} resent",
                self.work.num_made,
                self.work.seconds,
                self.work.generated_tokens_per_second,
                self.work.num_resumed,
                self.work.num_retries,
                self.work.num_resent
            ),
        ]);
        lines.extend(self.loss.iter().map(LossSummary::line));
        lines.push(
            "rules side by side     right            right, cut ones too   answer found".to_owned(),
        );
        for score in &self.rules {
            lines.push(format!(
                "  {:<12} {:>6} ({:>6.2} %)      {:>6} ({:>6.2} %)     {:>6} ({:>6.2} %)",
                score.rule.name(),
                score.right,
                percent(score.right),
                score.right_with_cut,
                percent(score.right_with_cut),
                score.found,
                percent(score.found)
            ));
        }
        lines.join("\n")
    }
}
