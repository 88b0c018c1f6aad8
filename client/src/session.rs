//! One set of weights answering one question set: what is fixed meanwhile, how a question becomes a
//! request and how an answer becomes an attempt on record.

use std::path::Path;

use data::{
    answer::{self, Rule},
    leak::find_leaks,
    prompt::{PromptFormat, PromptTemplate},
    question::Question,
    record::{Attempt, Decoding, PromptStamp, Source, TemplateStamp, Verdict, WeightsStamp},
};

use serde::{Deserialize, Serialize};

use crate::{
    connection::{ModelInfo, Server, ServerInfo},
    dataset::{self, Keys},
    error::ClientError,
    files::sha256_hex,
    generate::{BulkLimits, splitmix64},
    interrupt::Interrupt,
    manifest::{DatasetStamp, Manifest, ModelStamp, SOFTWARE, ServerStamp},
    preflight::OnTrouble,
    progress::ProgressMode,
    request::{Answer, Item},
    sampling::Sampling,
};

/// What every stage needs of the outside.
#[derive(Debug, Clone)]
pub struct Context {
    pub server: Server,
    pub progress: ProgressMode,
    pub interrupt: Interrupt,
    pub limits: BulkLimits,
    /// What happens where the first answers of a long run are not what they should be.
    pub preflight: OnTrouble,
}

/// How the user wants prompts to reach the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatChoice {
    /// Chat where the checkpoint has a chat template, else plain.
    Auto,
    Plain,
    Chat,
}

/// What is asked and how it is judged.
#[derive(Debug, Clone)]
pub struct Method {
    pub prompt: PromptTemplate,
    /// For hint attempts.
    pub hint_prompt: Option<PromptTemplate>,
    pub format: FormatChoice,
    /// Of the first sample of each prompt.
    pub decoding: Decoding,
    /// Of further samples.
    pub resampling: Option<Decoding>,
    pub seed: u64,
    pub rule: Rule,
    pub sampling: Sampling,
    pub iteration: u32,
}

impl Method {
    /// Where the settings name no stop strings, the forward prompt's apply; gives the hint prompt's
    /// own, where it has some, for hint attempts.
    fn use_stop_of_prompt(&mut self) -> Option<Vec<String>> {
        if !self.decoding.stop.is_empty() {
            return None;
        }
        let stop = self.prompt.stop();
        for decoding in std::iter::once(&mut self.decoding).chain(&mut self.resampling) {
            decoding.stop = stop.to_vec();
        }
        let hint_stop = self.hint_prompt.as_ref()?.stop();
        (!hint_stop.is_empty()).then(|| hint_stop.to_vec())
    }
}

/// A prompt by its name, or from a template file.
pub fn load_prompt(name_or_file: &str) -> Result<PromptTemplate, ClientError> {
    let is_name = PromptTemplate::names().any(|name| name == name_or_file);
    let path = Path::new(name_or_file);
    if !is_name && path.is_file() {
        return Ok(PromptTemplate::from_file(path)?);
    }
    Ok(PromptTemplate::by_name(name_or_file)?)
}

/// The questions of a run.
#[derive(Debug, Clone)]
pub struct Questions {
    /// As the user named the file.
    pub path: String,
    /// Of the whole file.
    pub sha256: String,
    /// What its fields are called.
    pub keys: Keys,
    pub list: Vec<Question>,
}

impl Questions {
    /// Reads a file and keeps the first `limit` questions.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, ClientError> {
        Self::read_keys(path, &Keys::default(), limit)
    }

    /// [`Questions::read`] from a file whose fields have other names.
    pub fn read_keys(path: &Path, keys: &Keys, limit: Option<usize>) -> Result<Self, ClientError> {
        let set = dataset::read(path, keys)?;
        let mut list = set.questions;
        list.truncate(limit.unwrap_or(usize::MAX));
        Ok(Self {
            path: path.display().to_string(),
            sha256: set.sha256,
            keys: keys.clone(),
            list,
        })
    }

    /// The first `count` of them; still questions of the same file.
    pub(crate) fn first(&self, count: usize) -> Self {
        Self {
            path: self.path.clone(),
            sha256: self.sha256.clone(),
            keys: self.keys.clone(),
            list: self.list.iter().take(count).cloned().collect(),
        }
    }

    fn stamp(&self) -> DatasetStamp {
        // With the gold answers: another field of the same file may hold others.
        let ids: String = self
            .list
            .iter()
            .map(|question| format!("{} {}\n", question.id, question.gold))
            .collect();
        // Found again from another working folder.
        let path = std::path::absolute(&self.path);
        DatasetStamp {
            path: path.map_or(self.path.clone(), |path| path.display().to_string()),
            keys: self.keys.clone(),
            sha256: self.sha256.clone(),
            selection_sha256: sha256_hex(ids.as_bytes()),
            num_questions: self.list.len() as u64,
        }
    }
}

/// One attempt to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    pub source: Source,
    /// Which of several samples of the same prompt, from 0.
    pub sample: u32,
}

/// A method bound to the weights that a server holds now.
#[derive(Debug, Clone)]
pub struct Session {
    method: Method,
    /// Where hint attempts end, if not where the others do; the hint prompt's digest stands for it.
    hint_stop: Option<Vec<String>>,
    format: PromptFormat,
    template: Option<TemplateStamp>,
    weights: WeightsStamp,
    manifest: Manifest,
    /// In every request id: two processes at one server do not collide.
    nonce: String,
    dataset_sha256: String,
}

impl Session {
    /// Asks the server what it holds and checks that the method fits it.
    pub async fn open(
        server: &Server,
        mut method: Method,
        questions: &Questions,
        kind: &str,
    ) -> Result<Self, ClientError> {
        let model = server.model().await?;
        let info = server.info().await?;
        let format = choose_format(method.format, &model)?;
        for prompt in std::iter::once(&method.prompt).chain(&method.hint_prompt) {
            prompt.require(format)?;
        }
        let hint_stop = method.use_stop_of_prompt();
        let template = (format == PromptFormat::Chat).then(|| TemplateStamp {
            name: model.chat_template_name.clone(),
            digest: model.chat_template_digest.clone(),
            date: model.chat_template_date.clone(),
        });
        let manifest = manifest(
            &method,
            (format, template.clone()),
            (&model, &info),
            questions,
            kind,
        );
        Ok(Self {
            format,
            template,
            weights: model.weights,
            manifest,
            nonce: nonce(),
            dataset_sha256: questions.sha256.clone(),
            method,
            hint_stop,
        })
    }

    /// An error unless the server holds these weights.
    pub fn require_weights(&self, digest: &str) -> Result<(), ClientError> {
        if self.weights.digest == digest {
            return Ok(());
        }
        Err(ClientError::WeightsChanged {
            expected: digest.to_owned(),
            found: format!("{} ({})", self.weights.digest, self.weights.checkpoint),
        })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn weights(&self) -> &WeightsStamp {
        &self.weights
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request for an attempt.
    pub fn item(&self, question: &Question, ask: Ask) -> Result<Item, ClientError> {
        let (text, format) = (&question.question, self.format);
        let asked = match ask.source {
            Source::Forward => self.method.prompt.render(text, format)?,
            Source::Hint => self
                .hint_prompt()?
                .render_hint(text, question.gold, format)?,
        };
        let source = match ask.source {
            Source::Forward => 'f',
            Source::Hint => 'h',
        };
        Ok(Item {
            request_id: format!("{}-{}-{source}{}", self.nonce, question.id, ask.sample),
            prompt: asked.into(),
            decoding: self.decoding(ask),
            seed: self.seed(question, ask),
        })
    }

    /// The attempt that an answer makes.
    ///
    /// # Errors
    /// [`ClientError::WeightsChanged`] where other weights answered than this session's.
    pub fn attempt(
        &self,
        question: &Question,
        ask: Ask,
        answer: Answer,
    ) -> Result<Attempt, ClientError> {
        if answer.weights.digest != self.weights.digest {
            let name = |weights: &WeightsStamp| {
                format!("{} (version {})", weights.checkpoint, weights.version)
            };
            return Err(ClientError::WeightsChanged {
                expected: name(&self.weights),
                found: name(&answer.weights),
            });
        }
        let prompt = match ask.source {
            Source::Forward => &self.method.prompt,
            Source::Hint => self.hint_prompt()?,
        };
        let extraction = answer::extract(&answer.text, self.method.rule);
        let leaks = match ask.source {
            Source::Forward => Vec::new(),
            Source::Hint => find_leaks(&answer.text, question.gold),
        };
        Ok(Attempt {
            dataset_sha256: self.dataset_sha256.clone(),
            question_id: question.id.clone(),
            iteration: self.method.iteration,
            source: ask.source,
            sample: ask.sample,
            weights: answer.weights,
            prompt: stamp(prompt),
            template: self.template.clone(),
            decoding: self.decoding(ask),
            seed: self.seed(question, ask),
            num_tokens: answer.num_generated_tokens,
            finish_reason: answer.finish,
            rule: self.method.rule,
            value: extraction.value,
            gold: question.gold,
            verdict: Verdict::judge(&extraction, answer.finish, question.gold),
            flags: extraction.flags,
            leaks,
            text: answer.text,
        })
    }

    fn hint_prompt(&self) -> Result<&PromptTemplate, ClientError> {
        self.method
            .hint_prompt
            .as_ref()
            .ok_or_else(|| ClientError::Usage("a hint attempt needs a hint prompt".to_owned()))
    }

    fn decoding(&self, ask: Ask) -> Decoding {
        let mut decoding = match &self.method.resampling {
            Some(resampling) if ask.sample > 0 => resampling.clone(),
            _ => self.method.decoding.clone(),
        };
        if let (Source::Hint, Some(stop)) = (ask.source, &self.hint_stop) {
            decoding.stop.clone_from(stop);
        }
        decoding
    }

    /// Differs between the samples of all questions, and is the same in every run.
    fn seed(&self, question: &Question, ask: Ask) -> u64 {
        let id = question.id.bytes().fold(self.method.seed, |seed, byte| {
            splitmix64(seed ^ u64::from(byte))
        });
        splitmix64(id ^ (u64::from(ask.sample) << 1 | u64::from(ask.source == Source::Hint)))
    }
}

/// Plain or chat, for the model that is served.
pub fn choose_format(choice: FormatChoice, model: &ModelInfo) -> Result<PromptFormat, ClientError> {
    match (choice, model.chat_template_name.is_empty()) {
        (FormatChoice::Plain, _) | (FormatChoice::Auto, true) => Ok(PromptFormat::Plain),
        (FormatChoice::Chat | FormatChoice::Auto, false) => Ok(PromptFormat::Chat),
        (FormatChoice::Chat, true) => Err(ClientError::Usage(
            "--prompt-format chat: the served model has no chat template. Use plain, or start the \
             server with --chat-template"
                .to_owned(),
        )),
    }
}

fn manifest(
    method: &Method,
    (format, template): (PromptFormat, Option<TemplateStamp>),
    (model, info): (&ModelInfo, &ServerInfo),
    questions: &Questions,
    kind: &str,
) -> Manifest {
    Manifest {
        software: SOFTWARE.to_owned(),
        kind: kind.to_owned(),
        dataset: questions.stamp(),
        prompt: stamp(&method.prompt),
        hint_prompt: method.hint_prompt.as_ref().map(stamp),
        prompt_format: format,
        template,
        decoding: method.decoding.clone(),
        resampling: method.resampling.clone(),
        seed: method.seed,
        rule: method.rule,
        sampling: method.sampling,
        iteration: method.iteration,
        weights: model.weights.clone(),
        model: ModelStamp::from(model),
        server: ServerStamp::from(info),
    }
}

fn stamp(prompt: &PromptTemplate) -> PromptStamp {
    PromptStamp {
        name: prompt.name().to_owned(),
        digest: prompt.digest().to_owned(),
    }
}

/// Time and process: enough to keep two clients of one server apart.
pub(crate) fn nonce() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos() as u64);
    let mixed = splitmix64(nanos ^ (u64::from(std::process::id()) << 40));
    format!("{:08x}", mixed >> 32)
}

#[cfg(test)]
mod tests;
