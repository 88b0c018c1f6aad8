//! Making all the attempts that a plan asks for, and keeping each one on disk the moment it is
//! there. Evaluation and bootstrapping are two plans over this one loop.
//!
//! A plan looks at one question and at its attempts so far and says what to ask next. So resuming is
//! no case of its own: the attempts of the log are the attempts so far.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use data::{
    append_log::{AppendLog, FlushPolicy},
    question::Question,
    record::{Attempt, Verdict},
};

use crate::{
    error::ClientError,
    files,
    generate::{Bulk, BulkCounts, Outcome},
    manifest::Manifest,
    session::{Ask, Context, Questions, Session},
};

/// The log of a run's attempts.
pub const ATTEMPTS_FILE: &str = "attempts.jsonl";
/// The settings of a run, written before its first attempt.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The attempts of one run, in memory and on disk.
#[derive(Debug)]
pub struct AttemptStore {
    log: AppendLog,
    by_question: HashMap<String, Vec<Attempt>>,
    /// Attempts that an earlier run of the same command made.
    pub num_resumed: u64,
}

impl AttemptStore {
    /// Opens the folder of a run: a new one gets the manifest, an old one must have the same
    /// settings.
    pub fn open(folder: &Path, manifest: &Manifest) -> Result<Self, ClientError> {
        files::create_folder(folder)?;
        let manifest_path = folder.join(MANIFEST_FILE);
        match files::read_json::<Manifest>(&manifest_path)? {
            None => files::write_json(&manifest_path, manifest)?,
            Some(earlier) => {
                if let Some(difference) = earlier.differences(manifest).into_iter().next() {
                    return Err(ClientError::OtherSettings {
                        path: folder.to_owned(),
                        field: difference.field.to_owned(),
                        expected: difference.left,
                        found: difference.right,
                    });
                }
            }
        }
        let (log, attempts) = AppendLog::open_and_read::<Attempt>(
            &folder.join(ATTEMPTS_FILE),
            FlushPolicy::default(),
        )?;
        if let Some(torn) = log.repaired() {
            tracing::warn!(?torn, "the log ended in half a line; it was moved aside");
        }
        let mut keys = HashSet::new();
        let mut by_question: HashMap<String, Vec<Attempt>> = HashMap::new();
        let mut num_resumed = 0;
        for attempt in attempts {
            if keys.insert(attempt.key()) {
                num_resumed += 1;
                by_question
                    .entry(attempt.question_id.clone())
                    .or_default()
                    .push(attempt);
            }
        }
        Ok(Self {
            log,
            by_question,
            num_resumed,
        })
    }

    /// The attempts for a question, in the order they were made.
    pub fn of(&self, question: &Question) -> &[Attempt] {
        self.by_question
            .get(&question.id)
            .map_or(&[], Vec::as_slice)
    }

    /// All attempts, in the order of the questions.
    pub fn all(&self, questions: &[Question]) -> Vec<Attempt> {
        questions
            .iter()
            .flat_map(|question| self.of(question))
            .cloned()
            .collect()
    }

    fn add(&mut self, attempt: Attempt) -> Result<(), ClientError> {
        self.log.append(&attempt)?;
        self.by_question
            .entry(attempt.question_id.clone())
            .or_default()
            .push(attempt);
        Ok(())
    }

    /// Forces everything to disk.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        Ok(self.log.flush()?)
    }
}

/// What a run of [`collect`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    pub num_made: u64,
    pub num_resumed: u64,
    pub num_generated_tokens: u64,
    pub elapsed: Duration,
    pub counts: BulkCounts,
}

impl Collected {
    /// This and what the same run did afterwards.
    #[must_use]
    pub(crate) fn followed_by(self, later: Self) -> Self {
        Self {
            num_made: self.num_made + later.num_made,
            num_resumed: self.num_resumed,
            num_generated_tokens: self.num_generated_tokens + later.num_generated_tokens,
            elapsed: self.elapsed + later.elapsed,
            counts: self.counts + later.counts,
        }
    }
}

/// Says what to ask next about a question.
pub trait Plan {
    /// The asks that need not wait for another, given the attempts so far; asks under way may be
    /// among them. Empty when nothing is left to be made.
    fn next(&self, question: &Question, attempts: &[Attempt]) -> Vec<Ask>;

    /// Whether an answer, right or wrong, is one that this plan can work with.
    fn can_use(&self, attempt: &Attempt) -> bool {
        attempt.verdict.is_judged()
    }
}

/// Makes every attempt that the plan asks for.
///
/// # Errors
/// Everything made so far is in the log, whatever the error.
pub async fn collect(
    context: &Context,
    session: &Session,
    questions: &Questions,
    store: &mut AttemptStore,
    (label, plan): (&str, &impl Plan),
) -> Result<Collected, ClientError> {
    let mut run = Run {
        session,
        plan,
        bulk: Bulk::new(context.server.clone(), context.limits.clone()),
        asked: HashMap::new(),
        open: HashMap::new(),
        collected: Collected {
            num_resumed: store.num_resumed,
            ..Collected::default()
        },
        failed: None,
        num_right: 0,
    };
    for (index, question) in questions.list.iter().enumerate() {
        run.ask_next(question, index, store)?;
    }
    let total = questions.list.len() as u64;
    let mut progress = context
        .progress
        .start(label, total, total - run.num_open_questions());
    let started = Instant::now();
    let ended = loop {
        let finished = tokio::select! {
            biased;
            () = context.interrupt.wait() => break Err(ClientError::Interrupted),
            finished = run.bulk.next() => finished,
        };
        match finished {
            Ok(Some(finished)) => {
                if let Err(error) = run.settle(finished, questions, store) {
                    break Err(error);
                }
            }
            Ok(None) => break run.failures(),
            Err(error) => break Err(error),
        }
        progress.set_note(run.note());
        progress.set_done(total - run.num_open_questions());
    };
    // First the disk, then the verdict: an error must not cost finished work.
    store.flush()?;
    ended?;
    progress.finish();
    Ok(Collected {
        elapsed: started.elapsed(),
        counts: run.bulk.counts(),
        ..run.collected
    })
}

struct Run<'a, P> {
    session: &'a Session,
    plan: &'a P,
    bulk: Bulk,
    /// By request id: which question (its place in the list) and which attempt.
    asked: HashMap<String, (usize, Ask)>,
    /// What is under way of each question that is not done.
    open: HashMap<usize, HashSet<Ask>>,
    collected: Collected,
    /// How many requests failed for good, and the first reason.
    failed: Option<(usize, &'static str, String)>,
    num_right: u64,
}

impl<P: Plan> Run<'_, P> {
    fn num_open_questions(&self) -> u64 {
        self.open.len() as u64
    }

    fn ask_next(
        &mut self,
        question: &Question,
        index: usize,
        store: &AttemptStore,
    ) -> Result<(), ClientError> {
        let mut under_way = self.open.remove(&index).unwrap_or_default();
        for ask in self.plan.next(question, store.of(question)) {
            if under_way.insert(ask) {
                let item = self.session.item(question, ask)?;
                self.asked.insert(item.request_id.clone(), (index, ask));
                self.bulk.submit(item);
            }
        }
        if !under_way.is_empty() {
            self.open.insert(index, under_way);
        }
        Ok(())
    }

    fn settle(
        &mut self,
        finished: crate::generate::Finished,
        questions: &Questions,
        store: &mut AttemptStore,
    ) -> Result<(), ClientError> {
        let Some((index, ask)) = self.asked.remove(&finished.request_id) else {
            return Ok(());
        };
        let question = &questions.list[index];
        match finished.outcome {
            Outcome::Answer(answer) => {
                if let Some(under_way) = self.open.get_mut(&index) {
                    under_way.remove(&ask);
                }
                let attempt = self.session.attempt(question, ask, answer)?;
                self.collected.num_made += 1;
                self.collected.num_generated_tokens += u64::from(attempt.num_tokens);
                self.num_right += u64::from(attempt.verdict == Verdict::Right);
                store.add(attempt)?;
                self.ask_next(question, index, store)
            }
            // It stays under way, so that it is not asked again in this run.
            Outcome::Failed { code, message } => {
                let failed = self.failed.get_or_insert((0, code, message));
                failed.0 += 1;
                Ok(())
            }
        }
    }

    fn note(&self) -> String {
        let made = self.collected.num_made.max(1);
        format!(
            "{:.1} % of {made} answers right",
            self.num_right as f64 * 100.0 / made as f64
        )
    }

    fn failures(&mut self) -> Result<(), ClientError> {
        match self.failed.take() {
            None => Ok(()),
            Some((count, code, message)) => Err(ClientError::ItemsFailed {
                count,
                code: code.to_owned(),
                message,
            }),
        }
    }
}
