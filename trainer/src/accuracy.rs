//! Accuracy through a live server: the questions of a file are put to a server that has loaded an
//! epoch's checkpoint, and its answers are judged as an evaluation judges them. Whatever the server
//! does or does not do ends as a value within the time limit; it never stops training.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use data::answer::{Rule, extract};
use data::number::Number;
use data::prompt::{PromptFormat, PromptTemplate};
use data::question::read_questions;
use data::record::{FinishReason, Verdict};
use data::stats::wilson;
use model::tokenizer::ModelTokenizer;
use proto::genserver::v1::{
    self as pb, batch_response::Result as Reply, generate_request::Prompt,
    generation_client::GenerationClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::config::require;
use crate::error::{Result as TrainResult, TrainError};
use crate::notify::{BearerToken, cannot_connect, endpoint_of};
use crate::progress::Event;
use crate::sft::prompt;
use crate::stop::StopFlag;

/// The rule of an evaluation that is told none.
const RULE: Rule = Rule::Numeric;
/// Times that an item is sent which the server has no room for.
const MAX_TRIES: u32 = 6;
/// Doubled with every try.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that hangs is noticed long before the time limit.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// With a smaller window h2 closes a connection on which many small frames wait to be read.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const MAX_REPLY_BYTES: usize = 16 << 20;

/// The questions, ready to be sent.
#[derive(Debug, Clone)]
pub struct AccuracyCheck {
    questions: Vec<Item>,
    max_new_tokens: u32,
    /// The prompt's: an evaluation's answers end there too.
    stop_strings: Vec<String>,
    /// For all questions together.
    time_limit: Duration,
}

#[derive(Debug, Clone)]
struct Item {
    /// The very ids that a training example of the question begins with.
    prompt_ids: Vec<u32>,
    gold: Number,
}

/// A server that has loaded a checkpoint, by the digest it gave.
#[derive(Debug, Clone)]
pub struct Asked {
    pub server: String,
    pub token: Option<BearerToken>,
    pub weights_digest: String,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accuracy {
    pub num_right: u64,
    pub num_questions: u64,
    /// Never right, whatever the text contains.
    pub num_truncated: u64,
    pub max_new_tokens: u32,
}

impl Accuracy {
    pub fn share(&self) -> f64 {
        self.num_right as f64 / self.num_questions as f64
    }

    pub fn event(&self, epoch: u32) -> Event {
        let interval = wilson(self.num_right, self.num_questions);
        Event::Accuracy {
            epoch,
            num_right: self.num_right,
            num_questions: self.num_questions,
            low: interval.low,
            high: interval.high,
            rule: RULE.to_string(),
            max_new_tokens: self.max_new_tokens,
            num_truncated: self.num_truncated,
        }
    }
}

impl AccuracyCheck {
    /// Reads a question file in GSM8K's format.
    pub fn read(
        path: &Path,
        (template, format, tokenizer): (&PromptTemplate, PromptFormat, &ModelTokenizer),
        max_new_tokens: u32,
        time_limit: Duration,
    ) -> TrainResult<Self> {
        require(
            "--accuracy-max-new-tokens",
            max_new_tokens,
            "at least 1",
            |n| n >= 1,
        )?;
        let set = read_questions(path).map_err(|error| TrainError::BadSetting {
            flag: "--accuracy-questions",
            found: path.display().to_string(),
            expected: format!("a question file ({error})"),
        })?;
        let item = |question: &data::question::Question| {
            let prompt = prompt(&template.render(&question.question, format)?);
            Ok(Item {
                prompt_ids: tokenizer.encode_prompt(&prompt)?,
                gold: question.gold,
            })
        };
        Ok(Self {
            questions: set.questions.iter().map(item).collect::<TrainResult<_>>()?,
            max_new_tokens,
            stop_strings: template.stop().to_vec(),
            time_limit,
        })
    }

    /// Puts all questions to the server; the reason where there is no result. Answers of other
    /// weights than the expected ones are none. A raised `stop` ends it.
    pub fn measure(&self, asked: &Asked, stop: &StopFlag) -> Result<Accuracy, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime for the calls: {error}"))?;
        let limit = self.time_limit;
        let outcome = runtime.block_on(async {
            tokio::select! {
                biased;
                () = raised(stop) => Err("the run is being stopped".to_string()),
                () = tokio::time::sleep(limit) => {
                    Err(format!("not measured within {} s", limit.as_secs_f64()))
                }
                outcome = self.ask(asked) => outcome,
            }
        });
        runtime.shutdown_background();
        outcome.map_err(|reason| format!("{}: {reason}", asked.server))
    }

    async fn ask(&self, asked: &Asked) -> Result<Accuracy, String> {
        let num_questions = self.questions.len();
        // Room for all of them: what is sent is bounded by the server's credits.
        let (sender, receiver) = mpsc::channel(num_questions);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        if let Some(token) = &asked.token {
            token.add_to(&mut request);
        }
        let mut client = GenerationClient::new(connect(&asked.server).await?)
            .max_decoding_message_size(MAX_REPLY_BYTES);
        let replies = client
            .generate_batch(request)
            .await
            .map_err(|status| in_words(&status))?;
        let mut replies = replies.into_inner();
        let mut waiting: VecDeque<usize> = (0..num_questions).collect();
        let mut tries = vec![0; num_questions];
        let mut credits = 0;
        let mut num_done = 0;
        let mut accuracy = Accuracy {
            num_questions: num_questions as u64,
            max_new_tokens: self.max_new_tokens,
            ..Accuracy::default()
        };
        while num_done < num_questions {
            let message = replies
                .message()
                .await
                .map_err(|status| in_words(&status))?;
            let message = message.ok_or("the server closed the stream")?;
            credits += message.credits;
            match message.result {
                Some(Reply::Response(response)) => {
                    let index = self.index_of(&message.request_id)?;
                    accuracy.count(self.judge(index, response, asked)?);
                    num_done += 1;
                }
                Some(Reply::Error(error)) => {
                    let index = self.index_of(&message.request_id)?;
                    tries[index] += 1;
                    wait_for_room(&error, tries[index]).await?;
                    waiting.push_front(index);
                }
                None => {}
            }
            while credits > 0
                && let Some(index) = waiting.pop_front()
            {
                if sender.try_send(self.request(index)).is_err() {
                    // The server has gone; the next message says why.
                    break;
                }
                credits -= 1;
            }
        }
        Ok(accuracy)
    }

    fn request(&self, index: usize) -> pb::BatchRequest {
        let ids = self.questions[index].prompt_ids.clone();
        let request = pb::GenerateRequest {
            request_id: index.to_string(),
            prompt: Some(Prompt::TokenIds(pb::TokenIds { ids })),
            sampling: Some(pb::SamplingParams {
                temperature: Some(0.0),
                ..Default::default()
            }),
            stopping: Some(pb::StoppingCriteria {
                max_new_tokens: Some(self.max_new_tokens),
                stop_strings: self.stop_strings.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        pb::BatchRequest {
            request: Some(request),
        }
    }

    fn index_of(&self, request_id: &str) -> Result<usize, String> {
        let index = request_id.parse().ok();
        index
            .filter(|&index: &usize| index < self.questions.len())
            .ok_or_else(|| format!("an answer to {request_id:?}, which was not asked"))
    }

    fn judge(
        &self,
        index: usize,
        response: pb::GenerateResponse,
        asked: &Asked,
    ) -> Result<Verdict, String> {
        let output = response.outputs.into_iter().next();
        let output = output.ok_or("an answer without a text")?;
        let finish = output.finish.ok_or("an answer without an end")?;
        let reason = match finish.reason() {
            pb::FinishReason::Stop => FinishReason::Stop,
            pb::FinishReason::Length => FinishReason::Length,
            pb::FinishReason::TimeLimit => FinishReason::TimeLimit,
            pb::FinishReason::Unspecified => return Err("an answer ended for no reason".into()),
        };
        let weights = finish.weights.ok_or("an answer names no weights")?;
        if weights.digest != asked.weights_digest {
            return Err(format!(
                "it now answers with the weights of {:?}",
                weights.checkpoint
            ));
        }
        let gold = self.questions[index].gold;
        Ok(Verdict::judge(&extract(&output.text, RULE), reason, gold))
    }
}

impl Accuracy {
    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Right => self.num_right += 1,
            Verdict::Truncated => self.num_truncated += 1,
            Verdict::Wrong | Verdict::NoAnswer => {}
        }
    }
}

async fn connect(server: &str) -> Result<Channel, String> {
    endpoint_of(server)?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .connect()
        .await
        .map_err(|error| cannot_connect(&error))
}

/// Waits before an item that the server has no room for goes out again; any other error, and one
/// too many, is final.
async fn wait_for_room(error: &pb::ItemError, num_tries: u32) -> Result<(), String> {
    let may_pass = matches!(
        Code::from_i32(error.code),
        Code::ResourceExhausted | Code::Unavailable
    );
    if !may_pass || num_tries >= MAX_TRIES {
        return Err(format!("refused: {}", error.message));
    }
    tokio::time::sleep(FIRST_RETRY_DELAY * 2_u32.pow(num_tries - 1)).await;
    Ok(())
}

async fn raised(stop: &StopFlag) {
    while !stop.is_raised() {
        tokio::time::sleep(STOP_POLL_INTERVAL).await;
    }
}

fn in_words(status: &tonic::Status) -> String {
    format!("{} ({:?})", status.message(), status.code())
}

#[cfg(test)]
mod tests;
