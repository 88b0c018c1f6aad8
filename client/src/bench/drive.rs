//! One repetition: requests go out when they are due, every one ends in a [`Record`].

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    Arrivals,
    lanes::{Ended, Failure, Lane, Received},
};
use crate::{
    connection::{AnswerCounts, FixedLengthItem},
    error::ClientError,
    interrupt::Interrupt,
};

/// Longest time in which no request ends before all that are under way count as failed.
const PATIENCE: Duration = Duration::from_mins(10);

/// A repetition that is about to start.
pub(super) struct Run {
    pub(super) items: Vec<FixedLengthItem>,
    /// When each item is due after the start.
    pub(super) offsets: Vec<Duration>,
    pub(super) arrivals: Arrivals,
}

/// A finished repetition.
#[derive(Debug)]
pub(super) struct Repetition {
    /// In the order of the items.
    pub(super) records: Vec<Record>,
    /// From the first request to the last end.
    pub(super) wall: Duration,
}

/// What became of one request.
pub type Record = Result<Timeline, Failure>;

/// When an answer's tokens came, counted from the request's arrival (open loop) or sending (closed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// Of messages that carry tokens: when, and how many.
    pub messages: Vec<(Duration, u32)>,
    pub end: Duration,
    pub counts: AnswerCounts,
    pub token_ids: Vec<u32>,
}

impl Run {
    /// Puts everything to the server and waits for the last end.
    ///
    /// # Errors
    /// Only where the user asked to stop.
    pub(super) async fn drive(
        self,
        mut lane: Lane,
        interrupt: &Interrupt,
    ) -> Result<Repetition, ClientError> {
        let count = self.items.len();
        let max_in_flight = self.arrivals.max_in_flight();
        let start = Instant::now();
        let mut last_end = start;
        let mut sent = Vec::with_capacity(count);
        let mut records: Vec<Option<Record>> = vec![None; count];
        let mut num_ended = 0;
        let mut items = self.items.iter();
        while num_ended < count {
            let has_room = sent.len() - num_ended < max_in_flight;
            let due = self.offsets.get(sent.len()).map(|offset| start + *offset);
            match due.filter(|_| has_room) {
                Some(due) if due <= Instant::now() => {
                    let item = items.next().expect("one item for each offset");
                    lane.send(sent.len(), item.clone());
                    sent.push(match self.arrivals {
                        Arrivals::Closed { .. } => Instant::now(),
                        // What waits here because this program is late is part of the measurement.
                        Arrivals::Open { .. } => due,
                    });
                }
                wake => tokio::select! {
                    ended = lane.next(), if sent.len() > num_ended => {
                        last_end = Instant::now();
                        num_ended += settle(ended, &self.items, &sent, &mut records);
                    }
                    () = sleep_until(wake.unwrap_or(start)), if wake.is_some() => {}
                    () = sleep_until(last_end + PATIENCE), if wake.is_none() => {
                        let failure = Failure {
                            code: "SILENCE".to_owned(),
                            message: format!("nothing ended for {} s", PATIENCE.as_secs()),
                        };
                        num_ended += fail_open(&failure, sent.len(), &mut records);
                    }
                    () = interrupt.wait() => return Err(ClientError::Interrupted),
                },
            }
        }
        Ok(Repetition {
            records: records.into_iter().flatten().collect(),
            wall: last_end - start,
        })
    }
}

/// Puts an end on record; gives the number of requests that it ended.
fn settle(
    ended: Ended,
    items: &[FixedLengthItem],
    sent: &[Instant],
    records: &mut [Option<Record>],
) -> usize {
    match (ended.index, ended.answer) {
        (Some(index), answer) => {
            let record = answer.and_then(|received| timeline(received, sent[index], &items[index]));
            usize::from(records[index].replace(record).is_none())
        }
        (None, Err(failure)) => fail_open(&failure, sent.len(), records),
        // An item that is not one of ours, or a second answer.
        (None, Ok(_)) => 0,
    }
}

/// Everything sent and not ended fails alike.
fn fail_open(failure: &Failure, num_sent: usize, records: &mut [Option<Record>]) -> usize {
    let mut num_failed = 0;
    for record in &mut records[..num_sent] {
        if record.is_none() {
            *record = Some(Err(failure.clone()));
            num_failed += 1;
        }
    }
    num_failed
}

fn timeline(received: Received, sent: Instant, item: &FixedLengthItem) -> Record {
    let found = received.counts.num_generated_tokens;
    if found != item.num_tokens || received.token_ids.len() as u32 != found {
        return Err(Failure {
            code: "LENGTH".to_owned(),
            message: format!(
                "expected {} tokens, found {found} by the server's count and {} received",
                item.num_tokens,
                received.token_ids.len()
            ),
        });
    }
    let since = |at: Instant| at.saturating_duration_since(sent);
    Ok(Timeline {
        messages: received
            .messages
            .into_iter()
            .map(|(at, num_tokens)| (since(at), num_tokens))
            .collect(),
        end: since(received.end),
        counts: received.counts,
        token_ids: received.token_ids,
    })
}
