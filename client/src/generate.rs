//! Bulk generation: many prompts over one batch stream, each ending in exactly one outcome.
//!
//! [`Bulk`] owns the whole state, so nothing runs beside the caller: `submit` adds work at any time
//! and `next` gives the next outcome. A refused item waits a jittered while and is asked again; a
//! broken stream is opened anew and every unanswered item goes out again under its own request id.

mod backoff;
mod counts;
mod credits;
mod link;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};
use tonic::Code;

pub use backoff::Backoff;
pub(crate) use backoff::splitmix64;
pub use counts::BulkCounts;
use credits::Credits;
use link::{Link, Signal};

use crate::{
    connection::{Reply, Server, ServerInfo, code_name},
    error::ClientError,
    request::{Answer, Item},
};

/// Timers may fire a hair early; a wake-up must find that its time has come.
const WAKE_MARGIN: Duration = Duration::from_millis(1);
/// How long a server that sends no answers may take to say how busy it is.
const LOAD_TIME_LIMIT: Duration = Duration::from_secs(20);

/// Bounds of a bulk generation.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkLimits {
    /// Items on the stream at a time.
    pub max_in_flight: usize,
    /// Longest time without any answer before the whole run gives up.
    pub patience: Duration,
    /// Longest silence on an open stream before it is opened anew.
    pub stall: Duration,
    /// Tries of an item that keeps failing for a reason of its own. A full queue or an absent
    /// server does not count: those end with `patience`.
    pub max_tries: u32,
    pub backoff: Backoff,
}

impl Default for BulkLimits {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            // A server that loads a 3B model from a cold network file system needs minutes.
            patience: Duration::from_mins(10),
            stall: Duration::from_mins(5),
            max_tries: 4,
            backoff: Backoff::default(),
        }
    }
}

/// Four steps' worth of sequences: the server always has the next ones at hand, and its queue keeps
/// room for others.
pub fn default_in_flight(server: &ServerInfo) -> usize {
    let wanted = server.max_num_seqs.saturating_mul(4).max(64);
    wanted.min(server.max_queued_requests.max(1)) as usize
}

/// How one item ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Answer(Answer),
    Failed { code: &'static str, message: String },
}

/// An item's one outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    pub request_id: String,
    pub outcome: Outcome,
}

/// A bulk generation under way.
#[derive(Debug)]
pub struct Bulk {
    server: Server,
    limits: BulkLimits,
    /// Not sent, in order.
    waiting: VecDeque<Tracked>,
    /// Sent, unanswered.
    in_flight: HashMap<String, Tracked>,
    /// Refused for now: when each may go out again.
    put_off: BTreeMap<u64, Tracked>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    link: Link,
    /// What may be sent on the link.
    credits: Credits,
    /// Streams that broke since the last answer.
    num_breaks: u32,
    last_answer: Instant,
    /// Tokens that the server had computed when it was last asked for a sign of life.
    last_work: (u64, u64),
    last_cause: String,
    next_ticket: u64,
    counts: BulkCounts,
}

#[derive(Debug)]
struct Tracked {
    item: Item,
    /// Order of submission, so that a resend keeps it.
    ticket: u64,
    num_own_failures: u32,
    num_refusals: u32,
}

enum Event {
    Link(Signal),
    RetryDue,
    Stalled,
}

impl Bulk {
    pub fn new(server: Server, limits: BulkLimits) -> Self {
        Self {
            server,
            limits,
            waiting: VecDeque::new(),
            in_flight: HashMap::new(),
            put_off: BTreeMap::new(),
            due: BinaryHeap::new(),
            link: Link::Closed,
            credits: Credits::Uncounted,
            num_breaks: 0,
            last_answer: Instant::now(),
            last_work: (0, 0),
            last_cause: "the server is silent".to_owned(),
            next_ticket: 0,
            counts: BulkCounts::default(),
        }
    }

    /// Adds an item. Its request id must not be that of an unfinished one.
    pub fn submit(&mut self, item: Item) {
        if self.num_unfinished() == 0 {
            // Silence only counts while somebody waits.
            self.last_answer = Instant::now();
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push_back(Tracked {
            item,
            ticket,
            num_own_failures: 0,
            num_refusals: 0,
        });
    }

    pub fn num_unfinished(&self) -> usize {
        self.waiting.len() + self.in_flight.len() + self.put_off.len()
    }

    pub fn counts(&self) -> BulkCounts {
        self.counts
    }

    /// The next outcome, in the order of completion; `None` when everything submitted is finished.
    /// Dropping the future loses nothing: call it again.
    ///
    /// # Errors
    /// [`ClientError::GaveUp`] when nothing was answered for `patience`.
    pub async fn next(&mut self) -> Result<Option<Finished>, ClientError> {
        loop {
            if self.num_unfinished() == 0 {
                self.link = Link::Closed;
                return Ok(None);
            }
            if self.last_answer.elapsed() > self.limits.patience {
                return Err(ClientError::GaveUp {
                    seconds: self.limits.patience.as_secs(),
                    unfinished: self.num_unfinished(),
                    cause: self.last_cause.clone(),
                });
            }
            self.take_back_due(Instant::now());
            self.open_where_closed();
            self.fill();
            match self.wait().await {
                Event::Link(Signal::Opened(server)) => {
                    self.credits.opened(&server);
                    self.server = *server;
                }
                Event::Link(Signal::Message(message)) => {
                    self.credits.add(message.num_credits);
                    let settled = message.reply.and_then(|(id, reply)| self.settle(id, reply));
                    if let Some(finished) = settled {
                        return Ok(Some(finished));
                    }
                }
                Event::Link(Signal::Broken(cause)) => self.broken(cause),
                Event::Stalled => {
                    if !self.has_progressed().await {
                        self.broken(format!("no answer for {} s", self.limits.stall.as_secs()));
                    }
                }
                Event::RetryDue => {}
            }
        }
    }

    /// Long answers of a slow server are no stall: whether it has computed since the last time. Then
    /// the wait begins anew.
    async fn has_progressed(&mut self) -> bool {
        let Ok(Ok(load)) = timeout(LOAD_TIME_LIMIT, self.server.load()).await else {
            return false;
        };
        let work = (
            load.num_prompt_tokens_total,
            load.num_generated_tokens_total,
        );
        if work == self.last_work {
            return false;
        }
        self.last_work = work;
        self.last_answer = Instant::now();
        true
    }

    fn open_where_closed(&mut self) {
        if !matches!(self.link, Link::Closed) {
            return;
        }
        let (server, capacity) = (self.server.clone(), self.limits.max_in_flight);
        self.link = if self.num_breaks == 0 {
            Link::open(server, capacity)
        } else {
            let delay = self
                .limits
                .backoff
                .delay(self.num_breaks, self.counts.num_streams);
            Link::reopen(server, capacity, delay)
        };
        self.credits = Credits::at_start(&self.server);
        self.counts.num_streams += 1;
    }

    /// Sends up to the limit, as far as the server has granted room. The channel has room for `max_in_flight`, so a refusal means that the
    /// stream is gone; waiting on it says why.
    fn fill(&mut self) {
        while self.in_flight.len() < self.limits.max_in_flight && self.credits.is_some() {
            let Some(tracked) = self.waiting.pop_front() else {
                return;
            };
            if !self.link.try_send(&tracked.item) {
                self.waiting.push_front(tracked);
                return;
            }
            self.credits.take();
            self.in_flight
                .insert(tracked.item.request_id.clone(), tracked);
        }
    }

    async fn wait(&mut self) -> Event {
        let now = Instant::now();
        let stalled_at = now + self.limits.stall;
        let retry_at = self.due.peek().map(|Reverse((at, _))| *at);
        let give_up_at = self.last_answer + self.limits.patience;
        let wake_at = retry_at.unwrap_or(give_up_at).min(give_up_at) + WAKE_MARGIN;
        tokio::select! {
            signal = self.link.next() => Event::Link(signal),
            () = sleep_until(wake_at) => Event::RetryDue,
            // With nothing in flight only put-off items are left: silence is expected.
            () = sleep_until(stalled_at), if !self.in_flight.is_empty() => Event::Stalled,
        }
    }

    fn settle(&mut self, request_id: String, reply: Reply) -> Option<Finished> {
        // Unknown: answered before a resend, or never asked. Either way it has its outcome.
        let mut tracked = self.in_flight.remove(&request_id)?;
        self.num_breaks = 0;
        match reply {
            Reply::Answer(answer) => {
                self.last_answer = Instant::now();
                self.counts.num_answered += 1;
                Some(Finished {
                    request_id,
                    outcome: Outcome::Answer(answer),
                })
            }
            Reply::Failed { code, message } => {
                let retry = match kind_of_failure(code) {
                    Failure::ServerBusy => true,
                    Failure::MayPass => {
                        tracked.num_own_failures += 1;
                        tracked.num_own_failures < self.limits.max_tries
                    }
                    Failure::Final => false,
                };
                if retry {
                    self.last_cause = format!("{}: {message}", code_name(code));
                    self.put_off(tracked);
                    return None;
                }
                self.last_answer = Instant::now();
                self.counts.num_failed += 1;
                let outcome = Outcome::Failed {
                    code: code_name(code),
                    message,
                };
                Some(Finished {
                    request_id,
                    outcome,
                })
            }
        }
    }

    fn put_off(&mut self, mut tracked: Tracked) {
        tracked.num_refusals += 1;
        self.counts.num_retries += 1;
        let delay = self
            .limits
            .backoff
            .delay(tracked.num_refusals, tracked.ticket);
        self.due
            .push(Reverse((Instant::now() + delay, tracked.ticket)));
        self.put_off.insert(tracked.ticket, tracked);
    }

    fn take_back_due(&mut self, now: Instant) {
        while let Some(Reverse((at, ticket))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            if let Some(tracked) = self.put_off.remove(&ticket) {
                self.waiting.push_front(tracked);
            }
        }
    }

    fn broken(&mut self, cause: String) {
        self.link = Link::Closed;
        self.num_breaks = self.num_breaks.saturating_add(1);
        self.take_back_in_flight();
        tracing::warn!(%cause, unfinished = self.num_unfinished(), "batch stream broke");
        self.last_cause = cause;
    }

    fn take_back_in_flight(&mut self) {
        let mut unanswered: Vec<Tracked> = self.in_flight.drain().map(|(_, item)| item).collect();
        unanswered.sort_by_key(|tracked| Reverse(tracked.ticket));
        self.counts.num_resent += unanswered.len() as u64;
        for tracked in unanswered {
            self.waiting.push_front(tracked);
        }
    }
}

enum Failure {
    /// The server has no room or is not up: wait, however often.
    ServerBusy,
    /// May be this item's own doing: a few tries.
    MayPass,
    Final,
}

fn kind_of_failure(code: Code) -> Failure {
    match code {
        // ALREADY_EXISTS: the same item of a stream that broke a moment ago still runs there.
        Code::Unavailable | Code::ResourceExhausted | Code::AlreadyExists => Failure::ServerBusy,
        Code::Internal | Code::Unknown | Code::Aborted => Failure::MayPass,
        // CANCELLED among them: somebody ended the item on purpose.
        _ => Failure::Final,
    }
}

#[cfg(test)]
mod tests;
