//! Counting what people have: one collection through changes, several compared, ages.

use super::super::{
    story::{Story, Told},
    words,
};

/// One person's collection grows and shrinks.
pub(super) fn collection(mut story: Story) -> Option<Told> {
    let items = story.rng.pick(words::COLLECTED);
    let owner = words::person(story.rng);
    let (name, subject) = (owner.name, owner.subject);
    let mut count = story.rng.between(6, 80);
    let phrasing = story.rng.between(0, 1);
    story.say(match phrasing {
        0 => format!("{name} has {count} {items}."),
        _ => format!("{name} starts with {count} {items}."),
    });
    while story.steps_left() > 0 {
        count = collection_event(&mut story, (name, subject, items), count)?;
    }
    let question = match story.rng.between(0, 1) {
        0 => format!("How many {items} does {name} have now?"),
        _ => format!("How many {items} does {name} have in the end?"),
    };
    story.ask(question)
}

/// One change of the collection: its sentence, its step or two, the new count.
fn collection_event(
    story: &mut Story,
    (name, subject, items): (&str, &str, &str),
    count: i64,
) -> Option<i64> {
    let other = words::person(story.rng).name;
    let kind = story
        .rng
        .between(0, if story.steps_left() >= 2 { 6 } else { 4 });
    match kind {
        0 => {
            let more = story.rng.between(3, 60);
            let verb = story.rng.pick(&["finds", "buys", "gets"]);
            story.say(format!("{subject} {verb} {more} more {items}."));
            story.add(&format!("{name} now has"), (count, more), items)
        }
        1 | 2 => {
            let fewer = story.rng.between(2, 50);
            story.say(match kind {
                1 => format!("{subject} gives {fewer} {items} to {other}."),
                _ => format!("{subject} loses {fewer} {items}."),
            });
            story.subtract("That leaves", (count, fewer), items)
        }
        3 => {
            story.say(format!("{subject} gives half of the {items} to {other}."));
            story.divide("That leaves", (count, 2), items)
        }
        4 => {
            let factor = story.rng.between(2, 4);
            let word = ["doubles", "triples", "quadruples"][factor as usize - 2];
            story.say(format!(
                "Then {other} {word} the number of {items} {name} has."
            ));
            story.multiply(&format!("{name} now has"), (count, factor), items)
        }
        5 => {
            let (bags, each) = (story.rng.between(2, 9), story.rng.between(2, 12));
            story.say(format!(
                "{subject} buys {bags} bags with {each} {items} in each."
            ));
            let bought = story.multiply("The bags hold", (bags, each), items)?;
            story.add(&format!("{name} now has"), (count, bought), items)
        }
        _ => {
            let parts = [3, 4, 5][story.rng.between(0, 2) as usize];
            let fraction = words::fraction(parts);
            story.say(format!("{subject} sells {fraction} of the {items}."));
            let sold = story.divide(&format!("{name} sells"), (count, parts), items)?;
            story.subtract("That leaves", (count, sold), items)
        }
    }
}

/// Several people, each compared with one before.
pub(super) fn comparison(mut story: Story) -> Option<Told> {
    let items = story.rng.pick(words::COLLECTED);
    let names: Vec<&str> = words::people(story.rng, 6)
        .iter()
        .map(|person| person.name)
        .collect();
    // Two endings: all together (one sum per comparison), or how many more the last one has.
    let wanted = story.steps_left();
    let together = wanted.is_multiple_of(2) && story.rng.chance(60);
    let comparisons = if together {
        wanted / 2
    } else {
        (wanted - 1).max(1)
    };
    let mut counts = vec![story.rng.between(4, 40)];
    story.say(format!("{} has {} {items}.", names[0], counts[0]));
    for index in 1..=comparisons {
        let count = compare(
            &mut story,
            (names[index], names[index - 1], items),
            counts[index - 1],
        )?;
        counts.push(count);
    }
    if together {
        let mut total = counts[0];
        for count in &counts[1..] {
            total = story.add("Together that is", (total, *count), items)?;
        }
        let asked = format!("How many {items} do they have together?");
        return story.ask(asked);
    }
    let (first, last) = (names[0], names[comparisons]);
    if story.steps_left() == 0 {
        let asked = format!("How many {items} does {last} have?");
        return story.ask(asked);
    }
    story.subtract("The difference is", (counts[comparisons], counts[0]), items)?;
    let asked = format!("How many more {items} does {last} have than {first}?");
    story.ask(asked)
}

fn compare(story: &mut Story, (name, other, items): (&str, &str, &str), count: i64) -> Option<i64> {
    let lead = format!("{name} has");
    match story.rng.between(0, 4) {
        0 | 1 => {
            let more = story.rng.between(2, 40);
            story.say(format!("{name} has {more} more {items} than {other}."));
            story.add(&lead, (count, more), items)
        }
        2 => {
            let fewer = story.rng.between(2, 30);
            story.say(format!("{name} has {fewer} fewer {items} than {other}."));
            story.subtract(&lead, (count, fewer), items)
        }
        3 => {
            let factor = story.rng.between(2, 5);
            let times = words::times_as_many(factor);
            story.say(format!("{name} has {times} as many {items} as {other}."));
            story.multiply(&lead, (count, factor), items)
        }
        _ => {
            story.say(format!("{name} has half as many {items} as {other}."));
            story.divide(&lead, (count, 2), items)
        }
    }
}

/// Ages in a family, and years that pass.
pub(super) fn ages(mut story: Story) -> Option<Told> {
    let names: Vec<&str> = words::people(story.rng, 6)
        .iter()
        .map(|person| person.name)
        .collect();
    let mut age = story.rng.between(3, 24);
    story.say(format!("{} is {age} years old.", names[0]));
    let relations = if story.steps_left() > 1 {
        story.steps_left() - 1
    } else {
        1
    };
    for index in 1..=relations {
        let (name, other) = (names[index.min(5)], names[index - 1]);
        let lead = format!("{name} is");
        age = match story.rng.between(0, 3) {
            0 | 1 => {
                let older = story.rng.between(2, 25);
                story.say(format!("{name} is {older} years older than {other}."));
                story.add(&lead, (age, older), "years old")?
            }
            2 => {
                let younger = story.rng.between(1, 12);
                story.say(format!("{name} is {younger} years younger than {other}."));
                story.subtract(&lead, (age, younger), "years old")?
            }
            _ => {
                let factor = story.rng.between(2, 3);
                let times = words::times_as_many(factor);
                story.say(format!("{name} is {times} as old as {other}."));
                story.multiply(&lead, (age, factor), "years old")?
            }
        };
    }
    let last = names[relations.min(5)];
    if age > 99 {
        return None;
    }
    if story.steps_left() == 0 {
        return story.ask(format!("How old is {last}?"));
    }
    let years = story.rng.between(2, 20);
    story.add(&format!("Then {last} is"), (age, years), "years old")?;
    story.ask(format!("How old will {last} be in {years} years?"))
}
