//! Comparisons as people read them.

use super::{ComparedRuns, Comparison, Example, Examples, Outcome, SampledComparison, p_text};

impl Comparison {
    /// One line for people.
    pub fn text(&self) -> String {
        format!(
            "{} -> {}: {:+.2} points [{:+.2}, {:+.2}], exact McNemar p = {} (both right {}, only \
             first {}, only second {}, both not {})",
            self.first,
            self.second,
            self.difference * 100.0,
            self.interval.low * 100.0,
            self.interval.high * 100.0,
            p_text(self.p_value),
            self.counts.both_right,
            self.counts.only_first,
            self.counts.only_second,
            self.counts.both_wrong
        )
    }
}

impl SampledComparison {
    /// One line for people.
    pub fn text(&self) -> String {
        format!(
            "{} -> {}: {:+.2} points [{:+.2}, {:+.2}], paired by question (mean of each question's \
             samples, standard error {:.2}; {} better, {} worse, {} equal)",
            self.first,
            self.second,
            self.difference * 100.0,
            self.interval.low * 100.0,
            self.interval.high * 100.0,
            self.standard_error * 100.0,
            self.num_better,
            self.num_worse,
            self.num_questions - self.num_better - self.num_worse
        )
    }
}

impl ComparedRuns {
    /// The comparison as a person reads it; what is worse is said first.
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = self
            .differences
            .iter()
            .map(|it| {
                format!(
                    "WARNING: {} differs: {} against {}",
                    it.field, it.left, it.right
                )
            })
            .collect();
        lines.extend(self.warning());
        lines.push(match &self.outcome {
            Outcome::Single(comparison) => comparison.text(),
            Outcome::Sampled(comparison) => comparison.text(),
        });
        let second = self.outcome.names().1;
        self.tell(&format!("fixed by {second}"), &self.fixed, &mut lines);
        self.tell(&format!("broken by {second}"), &self.broken, &mut lines);
        lines.join("\n")
    }

    fn warning(&self) -> Option<String> {
        let (first, second) = self.outcome.names();
        let points = self.outcome.difference().abs() * 100.0;
        let evidence = match &self.outcome {
            Outcome::Single(comparison) => {
                format!("exact McNemar p = {}", p_text(comparison.p_value))
            }
            Outcome::Sampled(comparison) => {
                let high = comparison.interval.high * 100.0;
                format!("the 95 % interval ends at {high:+.2}")
            }
        };
        let how = if self.significant {
            "significantly "
        } else {
            ""
        };
        self.worse.then(|| {
            format!(
                "WARNING: {second} is {how}worse than {first}: {points:.2} points below on the same \
                 questions ({evidence})"
            )
        })
    }

    fn tell(&self, what: &str, examples: &Examples, lines: &mut Vec<String>) {
        if examples.shown.is_empty() {
            return;
        }
        let (first, second) = self.outcome.names();
        let (shown, total) = (examples.shown.len(), examples.total);
        lines.push(format!("{what}: {shown} of {total} questions"));
        for example in &examples.shown {
            let Example {
                question_id,
                question,
                gold,
                ..
            } = example;
            let asked = question.as_deref().unwrap_or_default();
            lines.push(format!("  {question_id} (gold {gold}) {asked}"));
            for (name, output) in [(first, &example.first), (second, &example.second)] {
                lines.push(format!(
                    "    {name}: {}: {}",
                    output.verdict, output.end_of_text
                ));
            }
        }
    }
}
