//! Money: shopping, wages, saving up.

use super::super::{
    story::{Story, Told},
    words,
};

/// Things bought at a price each, a coupon or a discount, and the change.
pub(super) fn shopping(mut story: Story) -> Option<Told> {
    let buyer = words::person(story.rng);
    let (name, subject) = (buyer.name, buyer.subject);
    let mut total = purchase(&mut story, name, "buys")?;
    if story.steps_left() >= 2 && story.rng.chance(75) {
        let second = purchase(&mut story, subject, "also buys")?;
        total = story.add("Together they cost", (total, second), "dollars")?;
    }
    if story.steps_left() >= 2 && story.rng.chance(60) {
        let parts = [2, 4, 5, 10][story.rng.between(0, 3) as usize];
        let percent = words::percent(parts);
        story.say(format!("The shop takes {percent}% off the price."));
        let off = story.divide(&format!("{percent}% off is"), (total, parts), "dollars")?;
        total = story.subtract("The price is then", (total, off), "dollars")?;
    }
    if story.steps_left() >= 2 {
        let coupon = story.rng.between(2, 15);
        story.say(format!("{subject} has a coupon for ${coupon} off."));
        total = story.subtract("With the coupon it is", (total, coupon), "dollars")?;
    }
    if story.steps_left() == 0 {
        return story.ask(format!("How much does {name} pay?"));
    }
    let paid = [20, 50, 100, 200, 500][story.rng.between(0, 4) as usize];
    story.say(format!("{subject} pays with ${paid}."));
    story.subtract("The change is", (paid, total), "dollars")?;
    story.ask(format!("How much change does {name} get?"))
}

fn purchase(story: &mut Story, who: &str, verb: &str) -> Option<i64> {
    let items = story.rng.pick(words::BOUGHT);
    let (count, price) = (story.rng.between(2, 12), story.rng.between(2, 15));
    let phrasing = story.rng.between(0, 1);
    story.say(match phrasing {
        0 => format!("{who} {verb} {count} {items} for ${price} each."),
        _ => format!("{who} {verb} {count} {items} that cost ${price} each."),
    });
    story.multiply(&format!("The {items} cost"), (count, price), "dollars")
}

/// Work at an hourly wage, and what becomes of the money.
pub(super) fn wages(mut story: Story) -> Option<Told> {
    let worker = words::person(story.rng);
    let (name, subject) = (worker.name, worker.subject);
    let (hourly, hours) = (story.rng.between(5, 20), story.rng.between(2, 9));
    let job = story
        .rng
        .pick(&["in a garden", "in a shop", "at a library", "on a farm"]);
    story.say(format!("{name} works {job} and earns ${hourly} an hour."));
    story.say(format!("{subject} works {hours} hours a day."));
    let mut money = story.multiply(
        &format!("In a day {name} earns"),
        (hourly, hours),
        "dollars",
    )?;
    let mut asked = format!("How much does {name} earn in a day?");
    if story.steps_left() > 0 {
        let days = story.rng.between(2, 6);
        story.say(format!("{subject} does this for {days} days."));
        money = story.multiply(&format!("In {days} days it is"), (money, days), "dollars")?;
        asked = format!("How much does {name} earn in all?");
    }
    while story.steps_left() > 0 {
        money = spend_or_earn(&mut story, (name, subject), money)?;
        asked = format!("How much money does {name} have in the end?");
    }
    story.ask(asked)
}

/// One change of a purse: its sentence, its step or two, what is in it then.
fn spend_or_earn(story: &mut Story, (name, subject): (&str, &str), money: i64) -> Option<i64> {
    match story
        .rng
        .between(0, if story.steps_left() >= 2 { 3 } else { 2 })
    {
        0 => {
            let spent = story.rng.between(5, 60);
            let on = story.rng.pick(&["food", "a gift", "shoes", "a game"]);
            story.say(format!("{subject} spends ${spent} on {on}."));
            story.subtract(&format!("{name} then has"), (money, spent), "dollars")
        }
        1 => {
            let given = story.rng.between(5, 50);
            story.say(format!("{subject} gets ${given} from an uncle."));
            story.add(&format!("{name} then has"), (money, given), "dollars")
        }
        2 => {
            story.say(format!("{subject} puts half of the money in the bank."));
            story.divide(&format!("{name} keeps"), (money, 2), "dollars")
        }
        _ => {
            let parts = [4, 5, 10][story.rng.between(0, 2) as usize];
            let percent = words::percent(parts);
            story.say(format!("{subject} pays {percent}% of the money as tax."));
            let tax = story.divide("The tax is", (money, parts), "dollars")?;
            story.subtract(&format!("{name} then has"), (money, tax), "dollars")
        }
    }
}

/// Saving for something that has a price.
pub(super) fn savings(mut story: Story) -> Option<Told> {
    let saver = words::person(story.rng);
    let (name, subject) = (saver.name, saver.subject);
    let (weekly, weeks) = (story.rng.between(3, 12), story.rng.between(3, 12));
    let thing = story
        .rng
        .pick(&["bike", "phone", "guitar", "tent", "watch"]);
    story.say(format!("{name} saves ${weekly} a week for {weeks} weeks."));
    let mut saved = story.multiply(&format!("{name} saves"), (weekly, weeks), "dollars")?;
    // The price, and then the weeks still needed, are the last two steps.
    while story.steps_left() > 2 {
        saved = spend_or_earn(&mut story, (name, subject), saved)?;
    }
    if story.steps_left() == 0 {
        return story.ask(format!("How much money does {name} have?"));
    }
    let more = story.rng.between(2, 12);
    let rate = story.rng.between(2, 12);
    let price = saved + more * rate;
    story.say(format!("A {thing} costs ${price}."));
    let missing = story.subtract(&format!("{name} still needs"), (price, saved), "dollars")?;
    if story.steps_left() == 0 {
        return story.ask(format!(
            "How much more money does {name} need for the {thing}?"
        ));
    }
    story.say(format!("From now on {subject} saves ${rate} a week."));
    story.divide("That takes", (missing, rate), "weeks")?;
    story.ask(format!(
        "How many more weeks until {name} can buy the {thing}?"
    ))
}
