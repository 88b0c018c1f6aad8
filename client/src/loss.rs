//! The loss of a test set under the weights that a server holds: minus the mean log probability of the
//! solutions' tokens, as the trainer's validation loss is. The lines are the trainer's, and so are the
//! prompts: what is scored has the token ids that it would be trained with.

mod examples;

use std::time::{Duration, Instant};

use data::{
    example::LineFormat,
    prompt::{PromptFormat, PromptTemplate},
    record::WeightsStamp,
};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

pub use examples::{Annotations, Examples};

use crate::{
    connection::Server,
    error::ClientError,
    eval::short,
    manifest::SOFTWARE,
    request::{Score, ScoreItem},
    session::{Context, FormatChoice, choose_format, nonce},
};

/// How examples become prompts, and which are left out.
#[derive(Debug, Clone)]
pub struct LossMethod {
    pub prompt: PromptTemplate,
    pub format: FormatChoice,
    /// Longer examples, in tokens of prompt and solution, are left out. `None`: the server's limit.
    pub max_length: Option<u32>,
}

/// The loss of a file, and what it was measured over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossSummary {
    pub software: String,
    pub path: String,
    pub sha256: String,
    pub line_format: LineFormat,
    /// What became of the calculator annotations of question-and-answer lines.
    #[serde(default = "Annotations::kept")]
    pub annotations: Annotations,
    pub prompt: String,
    pub prompt_digest: String,
    pub prompt_format: PromptFormat,
    pub weights: WeightsStamp,
    pub max_length: Option<u32>,
    /// Mean over all scored tokens, in nats.
    pub loss: f64,
    /// e to the power of the loss.
    pub perplexity: f64,
    /// Scored tokens: of the solutions and their ends.
    pub num_tokens: u64,
    /// `num_scored` and those too long.
    pub num_examples: u64,
    pub num_scored: u64,
    pub too_long: Vec<TooLong>,
    pub seconds: f64,
}

/// An example that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TooLong {
    /// Counted from 1.
    pub line: usize,
    pub num_tokens: u32,
}

/// What became of one example.
enum Outcome {
    Scored(Score),
    TooLong(u32),
}

/// Scores every example, many at a time.
pub async fn measure(
    context: &Context,
    method: &LossMethod,
    examples: &Examples,
) -> Result<LossSummary, ClientError> {
    let start = Instant::now();
    let model = context.server.model().await?;
    let format = choose_format(method.format, &model)?;
    let outcomes = tokio::select! {
        outcomes = score_all(context, method, (examples, format)) => outcomes?,
        () = context.interrupt.wait() => return Err(ClientError::Interrupted),
    };
    let mut too_long = Vec::new();
    let (mut nll, mut num_tokens, mut num_scored) = (0.0_f64, 0_u64, 0_u64);
    // In the order of the file, so that the sum has the same bits each time.
    for (example, outcome) in examples.list.iter().zip(outcomes) {
        match outcome {
            Outcome::Scored(score) => {
                require_weights(&model.weights, &score.weights)?;
                let sum: f64 = score.logprobs.iter().map(|each| f64::from(*each)).sum();
                nll -= sum;
                num_tokens += score.logprobs.len() as u64;
                num_scored += 1;
            }
            Outcome::TooLong(num_tokens) => too_long.push(TooLong {
                line: example.number,
                num_tokens,
            }),
        }
    }
    if num_tokens == 0 {
        return Err(ClientError::BadFile {
            path: examples.path.clone().into(),
            problem: "every example is too long; nothing was scored".to_owned(),
        });
    }
    let loss = nll / num_tokens as f64;
    Ok(LossSummary {
        software: SOFTWARE.to_owned(),
        path: examples.path.clone(),
        sha256: examples.sha256.clone(),
        line_format: examples.format,
        annotations: examples.annotations,
        prompt: method.prompt.name().to_owned(),
        prompt_digest: method.prompt.digest().to_owned(),
        prompt_format: format,
        weights: model.weights,
        max_length: method.max_length,
        loss,
        perplexity: loss.exp(),
        num_tokens,
        num_examples: examples.list.len() as u64,
        num_scored,
        too_long,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The outcomes in the order of the examples.
async fn score_all(
    context: &Context,
    method: &LossMethod,
    (examples, format): (&Examples, PromptFormat),
) -> Result<Vec<Outcome>, ClientError> {
    let nonce = nonce();
    let total = examples.list.len();
    let mut progress = context.progress.start("loss", total as u64, 0);
    let asked = examples.list.iter().enumerate().map(|(index, example)| {
        let items = examples::items(example, &nonce, &method.prompt, format);
        async move {
            let outcome = outcome(context, method.max_length, &items?).await?;
            Ok::<_, ClientError>((index, outcome))
        }
    });
    let mut answered = stream::iter(asked).buffer_unordered(context.limits.max_in_flight.max(1));
    let mut outcomes: Vec<Option<Outcome>> = (0..total).map(|_| None).collect();
    let (mut nll, mut num_tokens) = (0.0_f64, 0_usize);
    while let Some(answer) = answered.next().await {
        let (index, outcome) = answer?;
        if let Outcome::Scored(score) = &outcome {
            nll -= score
                .logprobs
                .iter()
                .map(|each| f64::from(*each))
                .sum::<f64>();
            num_tokens += score.logprobs.len();
            progress.set_note(format!("loss {:.4}", nll / num_tokens as f64));
        }
        outcomes[index] = Some(outcome);
        progress.advance(1);
    }
    progress.finish();
    let all: Option<Vec<Outcome>> = outcomes.into_iter().collect();
    Ok(all.expect("every example was answered, or an error ended it"))
}

/// The score of everything that is learned from one example: its exchanges one after the other.
async fn outcome(
    context: &Context,
    max_length: Option<u32>,
    items: &[ScoreItem],
) -> Result<Outcome, ClientError> {
    let mut whole: Option<Score> = None;
    for item in items {
        let one = match score(context, item).await {
            Ok(one) => one,
            Err(ClientError::TooLong { num_tokens, .. }) => {
                return Ok(Outcome::TooLong(num_tokens));
            }
            Err(error) => return Err(error),
        };
        let num_tokens = one.num_context_tokens + one.logprobs.len() as u32;
        if max_length.is_some_and(|max| num_tokens > max) {
            return Ok(Outcome::TooLong(num_tokens));
        }
        match &mut whole {
            None => whole = Some(one),
            Some(whole) => {
                require_weights(&whole.weights, &one.weights)?;
                whole.logprobs.extend(one.logprobs);
            }
        }
    }
    Ok(Outcome::Scored(whole.expect("an example has an exchange")))
}

/// A score; a server without room, or away for a while, is asked again.
async fn score(context: &Context, item: &ScoreItem) -> Result<Score, ClientError> {
    let start = Instant::now();
    let mut server: Server = context.server.clone();
    let mut num_failures = 0;
    loop {
        let error = match server.score(item).await {
            Ok(score) => return Ok(score),
            Err(error) => error,
        };
        let is_away = matches!(error, ClientError::Unreachable { .. });
        let is_busy = matches!(&error, ClientError::Refused { code, .. }
            if code == "RESOURCE_EXHAUSTED" || code == "UNAVAILABLE");
        if !(is_away || is_busy) || start.elapsed() > context.limits.patience {
            return Err(error);
        }
        num_failures += 1;
        let salt = item
            .request_id
            .bytes()
            .fold(0, |sum, byte| sum * 31 + u64::from(byte) % 31);
        tokio::time::sleep(context.limits.backoff.delay(num_failures, salt)).await;
        if is_away && let Ok(again) = server.reconnect().await {
            server = again;
        }
    }
}

fn require_weights(expected: &WeightsStamp, found: &WeightsStamp) -> Result<(), ClientError> {
    if expected.digest == found.digest {
        return Ok(());
    }
    let name =
        |weights: &WeightsStamp| format!("{} (version {})", weights.checkpoint, weights.version);
    Err(ClientError::WeightsChanged {
        expected: name(expected),
        found: name(found),
    })
}

impl LossSummary {
    /// The result in one line, as an evaluation shows it.
    pub fn line(&self) -> String {
        format!(
            "loss         {:.6} nats per token, perplexity {:.4} ({} of {} gold solutions, {} tokens; \
             annotations: {})",
            self.loss,
            self.perplexity,
            self.num_scored,
            self.num_examples,
            self.num_tokens,
            self.annotations.as_str()
        )
    }

    /// The result as a person reads it.
    pub fn text(&self) -> String {
        let too_long = self.too_long.len();
        let mut lines = vec![
            format!(
                "loss         {:.6} nats per token, perplexity {:.4}",
                self.loss, self.perplexity
            ),
            format!(
                "counts       {} examples = {} scored + {too_long} too long; {} tokens; annotations: {}",
                self.num_examples,
                self.num_scored,
                self.num_tokens,
                self.annotations.as_str()
            ),
            format!(
                "prompt       {}, {}",
                self.prompt,
                self.prompt_format.as_str()
            ),
            format!(
                "weights      {} (version {}, {})",
                self.weights.checkpoint,
                self.weights.version,
                short(&self.weights.digest)
            ),
            format!(
                "work         {:.1} s, {:.1} examples/s",
                self.seconds,
                self.num_scored as f64
                    / Duration::from_secs_f64(self.seconds)
                        .as_secs_f64()
                        .max(1e-9)
            ),
        ];
        for left_out in &self.too_long {
            lines.push(format!(
                "too long     line {}: {} tokens",
                left_out.line, left_out.num_tokens
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
