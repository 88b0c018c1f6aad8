//! Time, distance and shares of a group: reading, travel, a class.

use super::super::{
    story::{Story, Told},
    words,
};

/// A book read at so many pages a day.
pub(super) fn reading(mut story: Story) -> Option<Told> {
    let reader = words::person(story.rng);
    let (name, subject) = (reader.name, reader.subject);
    let (pages, days) = (story.rng.between(5, 40), story.rng.between(2, 10));
    story.say(format!("{name} reads {pages} pages a day for {days} days."));
    let mut read = story.multiply(&format!("{name} reads"), (pages, days), "pages")?;
    while story.steps_left() > 3 || story.steps_left() == 1 {
        let more = story.rng.between(4, 60);
        let when = story
            .rng
            .pick(&["On the weekend", "On a long train ride", "In one night"]);
        story.say(format!(
            "{when} {} reads {more} more pages.",
            subject.to_lowercase()
        ));
        read = story.add("That makes", (read, more), "pages")?;
        if story.steps_left() == 0 {
            return story.ask(format!("How many pages does {name} read in all?"));
        }
    }
    if story.steps_left() == 0 {
        return story.ask(format!("How many pages does {name} read?"));
    }
    let (speed, rest) = (story.rng.between(3, 12), story.rng.between(2, 12));
    let total = read + speed * rest;
    story.say(format!("The book has {total} pages."));
    let left = story.subtract("The pages left are", (total, read), "pages")?;
    story.say(format!(
        "Then {} reads {speed} pages a day.",
        subject.to_lowercase()
    ));
    let more = story.divide("That takes", (left, speed), "days")?;
    if story.steps_left() == 0 {
        return story.ask(format!(
            "How many more days does {name} need to finish the book?"
        ));
    }
    story.add("In all it takes", (days, more), "days")?;
    story.ask(format!(
        "How many days does {name} need for the whole book?"
    ))
}

/// A trip in legs, each at its own speed.
pub(super) fn travel(mut story: Story) -> Option<Told> {
    let driver = words::person(story.rng);
    let (name, they) = (driver.name, driver.subject.to_lowercase());
    let vehicle = story.rng.pick(&["drives", "rides a bus", "takes a train"]);
    let mut total = 0;
    let mut legs = 0;
    while story.steps_left() > 2 || legs == 0 {
        let (speed, hours) = (story.rng.between(10, 80), story.rng.between(2, 6));
        story.say(match legs {
            0 => format!("{name} {vehicle} at {speed} miles an hour for {hours} hours."),
            _ => format!("Then {they} goes on at {speed} miles an hour for {hours} hours."),
        });
        let leg = story.multiply("This part is", (speed, hours), "miles")?;
        total = if legs == 0 {
            leg
        } else {
            story.add("So far that is", (total, leg), "miles")?
        };
        legs += 1;
    }
    if story.steps_left() == 0 {
        return story.ask(format!("How many miles does {name} travel?"));
    }
    let (speed, hours) = (story.rng.between(2, 12), story.rng.between(2, 12));
    let whole = total + speed * hours;
    story.say(format!("The whole way is {whole} miles."));
    let left = story.subtract("The way left is", (whole, total), "miles")?;
    if story.steps_left() == 0 {
        return story.ask("How many miles are left?");
    }
    story.say(format!(
        "The rest is a path that {they} walks at {speed} miles an hour."
    ));
    story.divide("The walk takes", (left, speed), "hours")?;
    story.ask(format!("How many hours does {name} walk?"))
}

/// A group, a share of it, a share of the rest.
pub(super) fn class(mut story: Story) -> Option<Told> {
    let mut count = story.rng.between(4, 40) * [6, 10, 12][story.rng.between(0, 2) as usize];
    let group = story
        .rng
        .pick(&["students", "guests", "workers", "players"]);
    let place = story.rng.pick(&["a school", "a camp", "a club", "a hall"]);
    story.say(format!("There are {count} {group} in {place}."));
    while story.steps_left() > 0 {
        let kind = if story.steps_left() >= 2 {
            story.rng.between(0, 3)
        } else {
            3
        };
        match kind {
            0 | 1 => {
                let parts = [2, 3, 4, 5, 10][story.rng.between(0, 4) as usize];
                let share = match parts {
                    2 | 3 => words::fraction(parts).to_owned(),
                    _ => format!("{}%", words::percent(parts)),
                };
                let leave = story
                    .rng
                    .pick(&["go home", "leave for lunch", "go to the lake"]);
                story.say(format!("Then {share} of the {group} {leave}."));
                let gone = story.divide("The number that goes is", (count, parts), group)?;
                count = story.subtract("That leaves", (count, gone), group)?;
            }
            2 => {
                let (buses, each) = (story.rng.between(2, 6), story.rng.between(4, 12));
                story.say(format!(
                    "{buses} cars come with {each} more {group} in each."
                ));
                let came = story.multiply("The cars bring", (buses, each), group)?;
                count = story.add("That makes", (count, came), group)?;
            }
            _ => {
                let more = story.rng.between(3, 40);
                if story.rng.chance(50) {
                    story.say(format!("{more} more {group} come."));
                    count = story.add("That makes", (count, more), group)?;
                } else {
                    story.say(format!("{more} of the {group} fall ill and leave."));
                    count = story.subtract("That leaves", (count, more), group)?;
                }
            }
        }
    }
    story.ask(format!("How many {group} are there in the end?"))
}
