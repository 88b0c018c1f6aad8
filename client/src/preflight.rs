//! A look at the first answers of a long run, before the rest is asked: do they end by themselves, and
//! is there an answer in them? Where not, the run would measure the prompt, the token limit or the
//! rule, not the model.
//!
//! The answers that are looked at are the run's own, so looking costs nothing, and a stopped run goes on
//! from them. What need not be looked at: a second BOS, which `model::tokenizer` never writes
//! (text is encoded after what the post-processor or the chat template puts there, once; tested
//! there), and another template or prompt for training than for evaluation, which `star run` compares
//! before it asks anything and `star compare` afterwards, by the manifests.

use std::path::Path;

use data::{
    answer::Flag,
    question::Question,
    record::{Attempt, Source},
    select::Gate,
    stats::{Interval, wilson},
};
use serde::Serialize;

use crate::{
    collect::{AttemptStore, Collected, Plan, collect},
    error::ClientError,
    session::{Ask, Context, Method, Questions, Session},
};

/// Enough to tell a broken set-up from a working one.
pub const NUM_QUESTIONS: usize = 64;
/// Of the answers, so many must be usable: below it an accuracy says much about prompt and rule.
pub(crate) const MIN_USABLE: f64 = 0.9;
/// Of the answers, so many may be cut: above it an accuracy says much about the token limit. Llama-3.2-3B's at 1024 tokens stay below it; at 256 tokens 17 %
/// of them are cut.
pub(crate) const MAX_CUT: f64 = 0.02;

/// What a look that finds trouble does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTrouble {
    Stop,
    Warn,
}

/// What the first answers are like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Look {
    pub num_answers: u64,
    /// Ended by themselves, with an answer that the run can use, right or wrong.
    pub num_usable: u64,
    pub num_cut: u64,
    pub max_tokens: u32,
    pub rule: String,
}

/// Something wrong with the first answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    pub sentence: String,
    /// Not a matter of chance: the 95 % interval lies wholly on the wrong side.
    pub is_certain: bool,
}

/// What the first answers are good for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probe {
    /// To be judged: any answer that the rule finds.
    pub evaluation: Look,
    /// To be trained on: only an answer that bootstrapping would take.
    pub training: Look,
}

/// Asks nothing; judges what is there.
struct Needs(Gate);

impl Plan for Needs {
    fn next(&self, _question: &Question, _attempts: &[Attempt]) -> Vec<Ask> {
        Vec::new()
    }

    fn can_use(&self, attempt: &Attempt) -> bool {
        can_use(attempt, self.0)
    }
}

/// An answer, right or wrong, that a marker points at, or any at all where a guess will do.
pub(crate) fn can_use(attempt: &Attempt, guess: Gate) -> bool {
    let is_guess = attempt.flags.contains(&Flag::Fallback);
    attempt.verdict.is_judged() && !(is_guess && guess == Gate::Reject)
}

/// Puts the first questions to the weights that the server holds, and no others. `folder` keeps the
/// answers; `guess` says whether bootstrapping would learn one that no marker points at.
pub async fn probe(
    context: &Context,
    (method, guess): (Method, Gate),
    questions: &Questions,
    folder: &Path,
) -> Result<Probe, ClientError> {
    let session = Session::open(&context.server, method, questions, "preflight").await?;
    let mut store = AttemptStore::open(folder, session.manifest())?;
    let (any, learnable) = (Needs(Gate::Accept), Needs(guess));
    // The second look finds the first one's answers, and asks nothing.
    let (evaluation, _) = look(context, &session, questions, &mut store, &any).await?;
    let (training, _) = look(context, &session, questions, &mut store, &learnable).await?;
    Ok(Probe {
        evaluation,
        training,
    })
}

impl Probe {
    /// Whether a long run would stop.
    pub fn is_bad(&self) -> bool {
        let troubles = [self.evaluation.troubles(), self.training.troubles()].concat();
        troubles.iter().any(|trouble| trouble.is_certain)
    }

    /// The result as a person reads it.
    pub fn text(&self) -> String {
        format!(
            "to be judged\n{}\nto be trained on\n{}",
            self.evaluation.text(),
            self.training.text()
        )
    }
}

/// Asks the first sample of the first questions, whatever the plan goes on to ask.
struct FirstSamples;

impl Plan for FirstSamples {
    fn next(&self, _question: &Question, attempts: &[Attempt]) -> Vec<Ask> {
        let first = Ask {
            source: Source::Forward,
            sample: 0,
        };
        let is_made = attempts.iter().any(is_first);
        (!is_made).then_some(first).into_iter().collect()
    }
}

fn is_first(attempt: &Attempt) -> bool {
    attempt.source == Source::Forward && attempt.sample == 0
}

/// [`collect`], with a look at the first answers where many are to come.
///
/// # Errors
/// [`ClientError::Preflight`] where they are surely not what they should be and the context says to
/// stop; what was made is kept.
pub(crate) async fn collect_after_look(
    context: &Context,
    session: &Session,
    questions: &Questions,
    store: &mut AttemptStore,
    (label, plan): (&str, &impl Plan),
) -> Result<Collected, ClientError> {
    if questions.list.len() <= 2 * NUM_QUESTIONS {
        return collect(context, session, questions, store, (label, plan)).await;
    }
    let (looked, collected) = look(context, session, questions, store, plan).await?;
    let troubles = looked.troubles();
    let surely = |trouble: &&Trouble| trouble.is_certain;
    if let (OnTrouble::Stop, Some(trouble)) = (context.preflight, troubles.iter().find(surely)) {
        return Err(ClientError::Preflight(format!(
            "{}. What is done is kept; --no-preflight goes on all the same",
            trouble.sentence
        )));
    }
    for trouble in &troubles {
        context
            .progress
            .say(&format!("WARNING: {}", trouble.sentence));
    }
    let rest = collect(context, session, questions, store, (label, plan)).await?;
    Ok(collected.followed_by(rest))
}

/// Makes and judges the first answers.
pub(crate) async fn look(
    context: &Context,
    session: &Session,
    questions: &Questions,
    store: &mut AttemptStore,
    plan: &impl Plan,
) -> Result<(Look, Collected), ClientError> {
    let few = questions.first(NUM_QUESTIONS);
    let labelled = ("preflight", &FirstSamples);
    let collected = collect(context, session, &few, store, labelled).await?;
    let method = session.method();
    let mut look = Look {
        num_answers: 0,
        num_usable: 0,
        num_cut: 0,
        max_tokens: method.decoding.max_tokens,
        rule: method.rule.to_string(),
    };
    let attempts = few.list.iter().flat_map(|question| store.of(question));
    for attempt in attempts.filter(|attempt| is_first(attempt)) {
        look.num_answers += 1;
        look.num_cut += u64::from(attempt.finish_reason.is_cut());
        look.num_usable += u64::from(plan.can_use(attempt));
    }
    Ok((look, collected))
}

impl Look {
    /// What is wrong, worst first: a cut answer is also one that cannot be used.
    pub fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let total = self.num_answers.max(1);
        let (cut, usable) = (wilson(self.num_cut, total), wilson(self.num_usable, total));
        if self.num_cut as f64 > MAX_CUT * total as f64 {
            troubles.push(Trouble {
                sentence: format!(
                    "{} of the first {total} answers were cut at {} tokens ({}); at most {:.0} % are \
                     expected. Allow longer answers (--max-tokens), or use a prompt or --stop after \
                     which they end",
                    self.num_cut,
                    self.max_tokens,
                    percent(self.num_cut, total, cut),
                    MAX_CUT * 100.0
                ),
                is_certain: cut.low > MAX_CUT,
            });
        }
        if (self.num_usable as f64) < MIN_USABLE * total as f64 {
            troubles.push(Trouble {
                sentence: format!(
                    "only {} of the first {total} answers ended by themselves with an answer that can \
                     be used under rule {} ({}); at least {:.0} % are expected. Another prompt, or \
                     another --rule, may find them",
                    self.num_usable,
                    self.rule,
                    percent(self.num_usable, total, usable),
                    MIN_USABLE * 100.0
                ),
                is_certain: usable.high < MIN_USABLE,
            });
        }
        troubles
    }

    /// The result as a person reads it.
    pub fn text(&self) -> String {
        let total = self.num_answers.max(1);
        let row = |name: &str, count: u64, expected: String| {
            let shares = percent(count, total, wilson(count, total));
            format!("{name:<12} {count}/{total} = {shares}; expected {expected}")
        };
        let mut lines = vec![
            row(
                "usable",
                self.num_usable,
                format!("at least {:.0} %", MIN_USABLE * 100.0),
            ),
            row(
                "cut",
                self.num_cut,
                format!("at most {:.0} %", MAX_CUT * 100.0),
            ),
        ];
        for trouble in self.troubles() {
            let word = if trouble.is_certain {
                "FAILED"
            } else {
                "WARNING"
            };
            lines.push(format!("{word:<12} {}", trouble.sentence));
        }
        lines.join("\n")
    }
}

fn percent(count: u64, total: u64, interval: Interval) -> String {
    format!(
        "{:.1} % [{:.1}, {:.1}]",
        count as f64 * 100.0 / total as f64,
        interval.low * 100.0,
        interval.high * 100.0
    )
}

#[cfg(test)]
mod tests;
