//! `Score`: log probabilities of given tokens.

use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{convert::Scores, engine::fake::solo_scores};
use pb::score_request::{Completion, Prompt};

/// The tokens themselves, from the second on.
pub(super) fn of_ids(ids: &[u32]) -> pb::ScoreRequest {
    pb::ScoreRequest {
        prompt: Some(Prompt::TokenIds(pb::TokenIds { ids: ids.to_vec() })),
        ..Default::default()
    }
}

fn of_text(prompt: &str, completion: &str, append_eos: Option<bool>) -> pb::ScoreRequest {
    pb::ScoreRequest {
        prompt: Some(Prompt::Text(prompt.to_owned())),
        completion: Some(Completion::CompletionText(completion.to_owned())),
        append_eos,
        ..Default::default()
    }
}

fn check(score: &pb::ScoreResponse, ids: &[u32], from: usize, num_candidates: u32) {
    let expected = Scores::of(solo_scores(ids, from, num_candidates, 1));
    assert_eq!(score.token_ids, ids[from..]);
    assert_eq!(score.num_context_tokens as usize, from);
    assert_eq!(score.logprobs, expected.logprobs);
    assert_eq!(score.ranks, expected.ranks);
    assert_eq!(score.candidates, expected.candidates);
    assert_eq!(score.weights.as_ref().unwrap().number, 1);
}

/// A prompt alone is scored from its second token on, up to the whole context; a completion from its
/// first, whether the two are ids or text.
#[tokio::test]
async fn prompts_and_completions_are_scored() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let ids: Vec<u32> = (0..256).map(|at| (at * 7) % 97).collect();
    let score = client.score(of_ids(&ids)).await.unwrap().into_inner();
    check(&score, &ids, 1, 0);
    assert!(!score.request_id.is_empty());

    let mut asked = of_ids(&ids[..50]);
    asked.completion = Some(Completion::CompletionTokenIds(pb::TokenIds {
        ids: ids[50..90].to_vec(),
    }));
    asked.num_candidates = Some(4);
    let score = client.score(asked).await.unwrap().into_inner();
    check(&score, &ids[..90], 50, 4);

    // BOS, one token for each byte, and the token that ends an answer where it is wanted.
    let without = client.score(of_text("Q: 1+1?", " 2", None)).await;
    let without = without.unwrap().into_inner();
    assert_eq!(
        (without.num_context_tokens, without.token_ids.len()),
        (8, 2)
    );
    let with = client.score(of_text("Q: 1+1?", " 2", Some(true))).await;
    let with = with.unwrap().into_inner();
    assert_eq!((with.num_context_tokens, with.token_ids.len()), (8, 3));
    assert_eq!(with.token_ids[..2], without.token_ids);
    assert_eq!(with.logprobs[..2], without.logprobs);
    let end = client.score(of_text("Q: 1+1?", "", Some(true))).await;
    assert_eq!(end.unwrap().into_inner().token_ids, with.token_ids[2..]);
    server.wait_until_idle().await;
    server.stop().await.unwrap();
}

/// A score of what is cached says so, and says the same.
#[tokio::test]
async fn cached_prefixes_do_not_change_scores() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let ids: Vec<u32> = (0..100).map(|at| (at * 5) % 97).collect();
    let asked = || {
        let mut asked = of_ids(&ids[..60]);
        asked.completion = Some(Completion::CompletionTokenIds(pb::TokenIds {
            ids: ids[60..].to_vec(),
        }));
        asked
    };
    let mut cached = Vec::new();
    for _ in 0..2 {
        let score = client.score(asked()).await.unwrap().into_inner();
        check(&score, &ids, 60, 0);
        cached.push(score.num_cached_tokens);
    }
    assert_eq!(cached[0], 0);
    assert!(cached[1] > 0 && cached[1] < 60, "{cached:?}");
    server.stop().await.unwrap();
}

/// What cannot be scored is refused: too long, too short, wrong ids, an id that is under way.
#[tokio::test]
async fn wrong_scores_are_refused() {
    let server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let status = client.score(of_ids(&vec![1; 4097])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "PROMPT_LENGTH");
    assert_eq!(info.metadata["num_tokens"], "4097");
    for wrong in [
        of_ids(&[1]),
        of_ids(&[]),
        of_ids(&[1, 97]),
        of_text("", "a", Some(true)),
    ] {
        let status = client.score(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let _live = client.generate_stream(request("a", &[1], 5)).await.unwrap();
    let same_id = pb::ScoreRequest {
        request_id: "a".to_owned(),
        ..of_ids(&[1, 2])
    };
    let status = client.score(same_id).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    server.stop().await.unwrap();
}

/// A time limit fails a score that is not done; there is no part of it.
#[tokio::test]
async fn time_limits_fail_scores() {
    let mut server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let limited = pb::ScoreRequest {
        time_limit_ms: Some(50),
        ..of_ids(&[1; 50])
    };
    let status = client.score(limited).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.open_gate();
    server.wait_until_idle().await;
    server.stop().await.unwrap();
}
