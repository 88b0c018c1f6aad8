//! From the settings of an experiment to the methods of its stages.

use data::{number::Number, prompt::PromptFormat, record::Decoding};

use super::settings::{PromptMismatch, Settings};
use crate::{
    error::ClientError,
    sampling::Sampling,
    session::{Method, load_prompt},
};

impl Settings {
    /// Greedy, one answer a question.
    pub(super) fn eval_method(&self) -> Result<Method, ClientError> {
        Ok(Method {
            prompt: load_prompt(&self.eval_prompt)?,
            hint_prompt: None,
            format: self.prompt_format,
            decoding: Decoding::greedy(self.max_tokens),
            resampling: None,
            seed: self.seed,
            rule: self.rule,
            sampling: Sampling::only(1),
            iteration: 0,
        })
    }

    /// The first sample of each prompt greedy, the others drawn.
    pub(super) fn bootstrap_method(&self, iteration: u32) -> Result<Method, ClientError> {
        Ok(Method {
            prompt: load_prompt(&self.bootstrap_prompt)?,
            hint_prompt: Some(load_prompt(&self.hint_prompt)?),
            resampling: Some(Decoding {
                temperature: self.resample_temperature,
                top_p: self.resample_top_p,
                ..Decoding::greedy(self.max_tokens)
            }),
            sampling: self.sampling,
            iteration,
            ..self.eval_method()?
        })
    }

    /// What is learned must be what is asked for later: another prompt before the same question
    /// makes the test measure the change of prompt, too. Gives the warning where it is allowed.
    pub(super) fn check_prompts(&self) -> Result<Option<String>, ClientError> {
        let training = load_prompt(&self.training_prompt)?;
        let evaluation = load_prompt(&self.eval_prompt)?;
        // Rendered once, so that a hint prompt in place of a forward one is found now.
        for prompt in [
            &training,
            &evaluation,
            &load_prompt(&self.bootstrap_prompt)?,
        ] {
            prompt.render("", PromptFormat::Chat)?;
        }
        load_prompt(&self.hint_prompt)?.render_hint("", Number::from(0), PromptFormat::Chat)?;
        if training.digest() == evaluation.digest() {
            return Ok(None);
        }
        let sentence = format!(
            "training puts prompt {} before a question, evaluation puts {}: what is measured \
             includes the change of prompt",
            training.name(),
            evaluation.name()
        );
        match self.prompt_mismatch {
            PromptMismatch::Allow => Ok(Some(sentence)),
            PromptMismatch::Refuse => Err(ClientError::Usage(format!(
                "{sentence}. Give --prompt for both, or --allow-prompt-mismatch"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One prompt passes; two are refused by name, or allowed with a warning.
    #[test]
    fn prompts_of_training_and_test_are_compared() {
        let mut settings = Settings::default_preset();
        assert_eq!(settings.check_prompts().unwrap(), None);
        settings.training_prompt = "sft".to_owned();
        let refused = settings.check_prompts().unwrap_err().to_string();
        assert!(
            refused.contains("prompt sft") && refused.contains("puts basic"),
            "{refused}"
        );
        settings.prompt_mismatch = PromptMismatch::Allow;
        assert!(settings.check_prompts().unwrap().is_some());
        assert!(Settings::report().check_prompts().unwrap().is_some());
    }

    /// A hint prompt where a forward one is needed, and the other way round, is found at the start.
    #[test]
    fn hint_prompts_are_where_they_belong() {
        let refused = |settings: Settings| settings.check_prompts().unwrap_err().to_string();
        let mut settings = Settings::default_preset();
        settings.hint_prompt = "basic".to_owned();
        assert!(refused(settings).contains("not a hint prompt"));
        let mut settings = Settings::default_preset();
        settings.bootstrap_prompt = "hint".to_owned();
        assert!(refused(settings).contains("is a hint prompt"));
        assert!(Settings::star().check_prompts().is_ok());
    }
}
