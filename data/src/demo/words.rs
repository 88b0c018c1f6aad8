//! People and things that the demo's problems are about.

use super::rng::Rng;

#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) name: &'static str,
    /// "He" or "She".
    pub(super) subject: &'static str,
}

const PEOPLE: &[(&str, &str)] = &[
    ("Tom", "He"),
    ("Anna", "She"),
    ("Ben", "He"),
    ("Clara", "She"),
    ("David", "He"),
    ("Emma", "She"),
    ("Felix", "He"),
    ("Grace", "She"),
    ("Henry", "He"),
    ("Ida", "She"),
    ("Jack", "He"),
    ("Kate", "She"),
    ("Leo", "He"),
    ("Mia", "She"),
    ("Noah", "He"),
    ("Olga", "She"),
    ("Paul", "He"),
    ("Rosa", "She"),
    ("Sam", "He"),
    ("Tina", "She"),
];

pub(super) fn person(rng: &mut Rng) -> Person {
    let (name, subject) = PEOPLE[rng.index(PEOPLE.len())];
    Person { name, subject }
}

/// `count` different people.
pub(super) fn people(rng: &mut Rng, count: usize) -> Vec<Person> {
    let mut all: Vec<Person> = PEOPLE
        .iter()
        .map(|&(name, subject)| Person { name, subject })
        .collect();
    rng.shuffle(&mut all);
    all.truncate(count);
    all
}

/// Things that one collects and counts.
pub(super) const COLLECTED: &[&str] = &[
    "marbles", "stickers", "coins", "stamps", "shells", "cards", "beads", "buttons", "stones",
    "pencils",
];

/// Things that one buys: plural.
pub(super) const BOUGHT: &[&str] = &[
    "pens",
    "notebooks",
    "apples",
    "cups",
    "books",
    "shirts",
    "toys",
    "balls",
    "candles",
    "plates",
];

/// Things that one bakes.
pub(super) const BAKED: &[&str] = &["cookies", "muffins", "rolls", "pies", "buns"];

/// What "k times as many" is called.
pub(super) fn times_as_many(factor: i64) -> String {
    match factor {
        2 => "twice".to_owned(),
        _ => format!("{factor} times"),
    }
}

/// "a half", "a third": what dividing by `parts` takes.
pub(super) fn fraction(parts: i64) -> &'static str {
    match parts {
        2 => "half",
        3 => "a third",
        4 => "a quarter",
        5 => "a fifth",
        10 => "a tenth",
        _ => unreachable!("no word for one of {parts} parts"),
    }
}

/// The percentage that dividing by `parts` takes.
pub(super) fn percent(parts: i64) -> i64 {
    100 / parts
}
