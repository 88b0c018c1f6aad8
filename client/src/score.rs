//! Texts that are on disk, judged under every rule side by side.

use data::{
    answer::{Rule, extract_all},
    number::Number,
    record::Attempt,
    stats::wilson,
};

use crate::eval::Classes;

/// The table for attempts, with their classes.
pub fn of_attempts(attempts: &[Attempt]) -> String {
    let texts: Vec<(&str, Number)> = attempts
        .iter()
        .filter(|attempt| !attempt.finish_reason.is_cut())
        .map(|attempt| (attempt.text.as_str(), attempt.gold))
        .collect();
    let classes = Classes::count(attempts);
    format!(
        "{}\n{}",
        classes.equation(),
        table(&texts, classes.questions)
    )
}

/// The table for bare texts and their gold numbers.
pub fn of_texts(texts: &[(String, Number)]) -> String {
    let texts: Vec<(&str, Number)> = texts
        .iter()
        .map(|(text, gold)| (text.as_str(), *gold))
        .collect();
    table(&texts, texts.len() as u64)
}

/// Cut texts are left out of `texts` but counted in `total`.
fn table(texts: &[(&str, Number)], total: u64) -> String {
    let mut right = [0_u64; Rule::ALL.len()];
    let mut found = [0_u64; Rule::ALL.len()];
    for (text, gold) in texts {
        for (index, extraction) in extract_all(text).iter().enumerate() {
            right[index] += u64::from(extraction.is_right(*gold));
            found[index] += u64::from(extraction.found_by.is_some());
        }
    }
    let mut lines = vec![format!(
        "{:<12} {:>16}  {:>18}  {:>12}",
        "rule", "right", "95 % Wilson", "answer found"
    )];
    for (index, rule) in Rule::ALL.iter().enumerate() {
        let interval = wilson(right[index], total);
        let share = right[index] as f64 * 100.0 / total.max(1) as f64;
        lines.push(format!(
            "{:<12} {:>16}  {:>18}  {:>12}",
            rule.name(),
            format!("{}/{total} {share:.2} %", right[index]),
            format!(
                "[{:.2}, {:.2}]",
                interval.low * 100.0,
                interval.high * 100.0
            ),
            found[index]
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text without a marker is right by its last number only.
    #[test]
    fn rules_differ_on_the_same_text() {
        let gold = |text: &str| Number::parse(text).unwrap();
        let texts = [
            ("so 18.".to_owned(), gold("18")),
            ("so 5 + 13 = 18\n#### 18".to_owned(), gold("18")),
        ];
        let table = of_texts(&texts);
        let line = |rule: &str| table.lines().find(|line| line.starts_with(rule)).unwrap();
        assert!(line("numeric").contains("2/2 100.00 %"), "{table}");
        assert!(line("openai").contains("1/2 50.00 %"), "{table}");
    }
}
