//! Families that occur in the test split only: neither the base model nor the training split knows
//! them, so they show what carries over.

use super::super::{
    story::{Story, Told},
    words,
};

/// Rows of plants that bear fruit.
pub(super) fn garden(mut story: Story) -> Option<Told> {
    let gardener = words::person(story.rng).name;
    let plant = story.rng.pick(&["tomato", "pepper", "bean", "rose"]);
    let (rows, each) = (story.rng.between(3, 12), story.rng.between(3, 12));
    story.say(format!(
        "{gardener} plants {rows} rows of {plant} plants, {each} to a row."
    ));
    let mut count = story.multiply("That makes", (rows, each), "plants")?;
    let mut asked = format!("How many plants does {gardener} have?");
    if story.steps_left() > 0 {
        let died = story.rng.between(2, 20);
        story.say(format!("A storm kills {died} of them."));
        count = story.subtract("That leaves", (count, died), "plants")?;
        "How many plants are left?".clone_into(&mut asked);
    }
    if story.steps_left() > 0 {
        let fruit = story.rng.between(2, 9);
        story.say(format!("Every plant left bears {fruit} fruits."));
        count = story.multiply("They bear", (count, fruit), "fruits")?;
        "How many fruits do the plants bear?".clone_into(&mut asked);
    }
    while story.steps_left() > 0 {
        let taken = story.rng.between(5, 60);
        let thief = story.rng.pick(&["Birds", "Neighbours", "Snails"]);
        story.say(format!("{thief} take {taken} of the fruits."));
        count = story.subtract("That leaves", (count, taken), "fruits")?;
        "How many fruits are left?".clone_into(&mut asked);
    }
    story.ask(asked)
}

/// A theatre sells two kinds of tickets.
pub(super) fn tickets(mut story: Story) -> Option<Told> {
    let (adults, full) = (story.rng.between(10, 60), story.rng.between(4, 12));
    story.say(format!(
        "A theatre sells {adults} adult tickets at ${full} each."
    ));
    let mut money = story.multiply("The adult tickets bring", (adults, full), "dollars")?;
    if story.steps_left() >= 2 {
        let (children, half) = (story.rng.between(5, 40), story.rng.between(2, 6));
        story.say(format!(
            "It also sells {children} child tickets at ${half} each."
        ));
        let more = story.multiply("The child tickets bring", (children, half), "dollars")?;
        money = story.add("Together that is", (money, more), "dollars")?;
    }
    while story.steps_left() > 0 {
        let cost = story.rng.between(10, 90);
        let on = story
            .rng
            .pick(&["lights", "costumes", "the actors", "cleaning"]);
        story.say(format!("It pays ${cost} for {on}."));
        money = story.subtract("That leaves", (money, cost), "dollars")?;
    }
    story.ask("How much money does the theatre keep?")
}

/// A tank that fills and leaks.
pub(super) fn tank(mut story: Story) -> Option<Told> {
    let mut litres = story.rng.between(20, 200);
    story.say(format!("A tank holds {litres} litres of water."));
    while story.steps_left() > 0 {
        let fills = story.rng.chance(50);
        if story.steps_left() >= 2 {
            let (rate, minutes) = (story.rng.between(2, 12), story.rng.between(3, 12));
            let verb = if fills { "A pipe adds" } else { "A leak loses" };
            story.say(format!(
                "{verb} {rate} litres a minute for {minutes} minutes."
            ));
            let moved = story.multiply("That is", (rate, minutes), "litres")?;
            litres = if fills {
                story.add("The tank then holds", (litres, moved), "litres")?
            } else {
                story.subtract("The tank then holds", (litres, moved), "litres")?
            };
        } else {
            let used = story.rng.between(5, 40);
            story.say(format!("A gardener uses {used} litres."));
            litres = story.subtract("The tank then holds", (litres, used), "litres")?;
        }
    }
    story.ask("How many litres does the tank hold in the end?")
}
