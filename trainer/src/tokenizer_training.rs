//! Trains the tokenizer of a small model: byte-level BPE in the manner of Llama 3, with every digit a
//! token of its own (arithmetic on whole digits is far easier to learn for a small model than on
//! merged groups). The result is a pair of files that any Hugging Face tokenizer loads.

use std::path::Path;

use serde_json::json;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, SplitDelimiterBehavior,
    TokenizerBuilder,
};

use crate::error::{Result, TrainError};

pub const BEGIN_OF_TEXT: &str = "<|begin_of_text|>";
pub const END_OF_TEXT: &str = "<|end_of_text|>";
pub const PAD: &str = "<|finetune_right_pad_id|>";

/// Llama 3's split pattern with `\p{N}` in place of `\p{N}{1,3}`.
const SPLIT_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// 256 bytes and three special tokens: below this there is no vocabulary.
pub const MIN_VOCAB_SIZE: usize = 259;

/// Ids of the special tokens of a trained tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    pub bos: u32,
    pub eos: u32,
    pub pad: u32,
}

/// What [`train_tokenizer`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainedTokenizer {
    /// May be less than asked for, where the text has no more pairs to merge.
    pub vocab_size: usize,
    pub special: SpecialIds,
}

/// Trains on `documents` and writes `tokenizer.json` and `tokenizer_config.json` into `dir`.
pub fn train_tokenizer(
    documents: &[String],
    vocab_size: usize,
    dir: &Path,
) -> Result<TrainedTokenizer> {
    crate::config::require("--vocab-size", vocab_size, "at least 259", |size| {
        size >= MIN_VOCAB_SIZE
    })?;
    let broken = |error: tokenizers::Error| TrainError::Tokenizer(error.to_string());
    let special_tokens = [BEGIN_OF_TEXT, END_OF_TEXT, PAD];
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(
            special_tokens
                .map(|token| AddedToken::from(token, true))
                .to_vec(),
        )
        .build();
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
    .with_model(BPE::default())
    .with_normalizer(None)
    .with_pre_tokenizer(Some(pre_tokenizer().map_err(broken)?))
    .with_post_processor(None)
    .with_decoder(Some(DecoderWrapper::ByteLevel(byte_level())))
    .build()
    .map_err(broken)?;
    tokenizer
        .train(&mut trainer, documents.iter())
        .map_err(broken)?;
    let id = |token: &str| {
        let missing = || TrainError::Tokenizer(format!("{token} got no id"));
        tokenizer.token_to_id(token).ok_or_else(missing)
    };
    let special = SpecialIds {
        bos: id(BEGIN_OF_TEXT)?,
        eos: id(END_OF_TEXT)?,
        pad: id(PAD)?,
    };
    let adds_bos = TemplateProcessing::builder()
        .try_single(format!("{BEGIN_OF_TEXT} $A"))
        .and_then(|builder| builder.try_pair(format!("{BEGIN_OF_TEXT} $A {BEGIN_OF_TEXT} $B")))
        .map_err(TrainError::Tokenizer)?
        .special_tokens(vec![(BEGIN_OF_TEXT.to_string(), special.bos)])
        .build()
        .map_err(|error| TrainError::Tokenizer(error.to_string()))?;
    tokenizer.with_post_processor(Some(PostProcessorWrapper::Template(adds_bos)));
    tokenizer
        .save(dir.join("tokenizer.json"), false)
        .map_err(broken)?;
    write_tokenizer_config(dir)?;
    Ok(TrainedTokenizer {
        vocab_size: tokenizer.get_vocab_size(true),
        special,
    })
}

fn byte_level() -> ByteLevel {
    // No own splitting: the pattern above does it. Offsets are not trimmed, so that a token's
    // offsets include its leading space and label borders are exact.
    ByteLevel::new(false, false, false)
}

fn pre_tokenizer() -> tokenizers::Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex(SPLIT_PATTERN.to_string());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(byte_level()),
    ])))
}

fn write_tokenizer_config(dir: &Path) -> Result<()> {
    let path = dir.join("tokenizer_config.json");
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": false,
    });
    let mut text = format!("{config:#}");
    text.push('\n');
    std::fs::write(&path, text).map_err(TrainError::io(&path))
}

#[cfg(test)]
mod tests;
