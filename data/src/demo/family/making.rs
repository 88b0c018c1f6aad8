//! Making things: a bakery, a hen house.

use super::super::{
    story::{Story, Told},
    words,
};

/// Trays of baked goods: some are eaten, the rest packed and sold.
pub(super) fn baking(mut story: Story) -> Option<Told> {
    let baker = words::person(story.rng);
    let (name, subject) = (baker.name, baker.subject);
    let goods = story.rng.pick(words::BAKED);
    let (trays, each) = (story.rng.between(3, 12), story.rng.between(4, 12));
    story.say(format!(
        "{name} bakes {trays} trays of {goods} with {each} on each tray."
    ));
    let mut count = story.multiply(&format!("{name} bakes"), (trays, each), goods)?;
    let mut asked = format!("How many {goods} does {name} bake?");
    if story.steps_left() > 0 {
        let burnt = story.rng.between(2, 20);
        let phrasing = story.rng.between(0, 1);
        story.say(match phrasing {
            0 => format!("{burnt} of the {goods} burn."),
            _ => format!("{subject} eats {burnt} of the {goods}."),
        });
        count = story.subtract("That leaves", (count, burnt), goods)?;
        asked = format!("How many {goods} are left?");
    }
    if story.steps_left() > 1 {
        let size = story.rng.between(2, 10);
        story.say(format!("{subject} packs the rest in boxes of {size}."));
        let boxes = story.divide("That makes", (count, size), "boxes")?;
        let price = story.rng.between(2, 12);
        story.say(format!("Each box sells for ${price}."));
        count = story.multiply("The boxes bring", (boxes, price), "dollars")?;
        asked = format!("How much money do the {goods} bring?");
    } else if story.steps_left() == 1 {
        let price = story.rng.between(2, 6);
        story.say(format!("{subject} sells the rest for ${price} each."));
        count = story.multiply("They bring", (count, price), "dollars")?;
        asked = format!("How much money do the {goods} bring?");
    }
    while story.steps_left() > 0 {
        let cost = story.rng.between(3, 40);
        let on = story
            .rng
            .pick(&["flour", "sugar", "a new oven door", "butter"]);
        story.say(format!("{subject} spends ${cost} of it on {on}."));
        count = story.subtract(&format!("{name} keeps"), (count, cost), "dollars")?;
        asked = format!("How much money does {name} keep?");
    }
    story.ask(asked)
}

/// Hens lay eggs; some are eaten, the rest go to market.
pub(super) fn hens(mut story: Story) -> Option<Told> {
    let farmer = words::person(story.rng);
    let (name, subject) = (farmer.name, farmer.subject);
    let (hens, eggs) = (story.rng.between(4, 30), story.rng.between(2, 6));
    story.say(format!(
        "{name} has {hens} hens and each lays {eggs} eggs a week."
    ));
    let mut count = story.multiply("The hens lay", (hens, eggs), "eggs")?;
    let mut asked = "How many eggs do the hens lay in a week?".to_owned();
    let packs = story.steps_left() >= 2;
    while story.steps_left() > if packs { 2 } else { 0 } {
        count = match story.rng.between(0, 2) {
            0 => {
                let eaten = story.rng.between(2, 20);
                story.say(format!("The family eats {eaten} of the eggs."));
                story.subtract("That leaves", (count, eaten), "eggs")?
            }
            1 => {
                story.say(format!("{subject} gives half of the eggs to a school."));
                story.divide("That leaves", (count, 2), "eggs")?
            }
            _ => {
                let bought = story.rng.between(2, 30);
                story.say(format!("{subject} buys {bought} eggs from a neighbour."));
                story.add("That makes", (count, bought), "eggs")?
            }
        };
        asked = format!("How many eggs does {name} have then?");
    }
    if packs {
        let size = [4, 6, 10, 12][story.rng.between(0, 3) as usize];
        let price = story.rng.between(2, 9);
        story.say(format!(
            "{subject} sells the eggs in boxes of {size} for ${price} a box."
        ));
        let boxes = story.divide("That makes", (count, size), "boxes")?;
        story.multiply("The boxes bring", (boxes, price), "dollars")?;
        asked = format!("How much does {name} earn with the eggs?");
    }
    story.ask(asked)
}
