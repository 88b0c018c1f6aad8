//! What a request may ask for beside its prompt: several answers, log probabilities, limits that are
//! published and held.

use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::engine::fake::solo_answer;

fn with_sampling(sampling: pb::SamplingParams) -> pb::GenerateRequest {
    pb::GenerateRequest {
        sampling: Some(sampling),
        ..request("a", &[5, 6], 30)
    }
}

fn samples(num_sequences: u32) -> pb::GenerateRequest {
    with_sampling(pb::SamplingParams {
        num_sequences: Some(num_sequences),
        seed: Some(7),
        ..Default::default()
    })
}

/// Several answers to one prompt come in the order of their index, each with its own seed, the first
/// with the request's; asked again they have the same seeds.
#[tokio::test]
async fn several_answers_have_seeds_of_their_own() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let mut all_seeds = Vec::new();
    for _ in 0..2 {
        let answer = client.generate(samples(3)).await.unwrap().into_inner();
        let indices: Vec<u32> = answer.outputs.iter().map(|output| output.index).collect();
        assert_eq!(indices, [0, 1, 2]);
        let seeds = answer.outputs.into_iter().map(|output| {
            assert_eq!(output.token_ids, solo_answer(&[5, 6], 30, 1));
            output.finish.unwrap().seed
        });
        all_seeds.push(seeds.collect::<Vec<u64>>());
    }
    let seeds = &all_seeds[0];
    assert_eq!(*seeds, all_seeds[1]);
    assert!(
        seeds[0] == 7 && seeds[1] != 7 && seeds[2] != seeds[1],
        "{seeds:?}"
    );
    server.stop().await.unwrap();
}

/// A stream carries the parts of all answers under their index, each with one end, and then ends.
#[tokio::test]
async fn streams_carry_several_answers() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let stream = client.generate_stream(samples(5)).await.unwrap();
    let mut stream = stream.into_inner();
    let mut token_ids = vec![Vec::new(); 5];
    let mut ends = vec![0; 5];
    while let Some(chunk) = stream.message().await.unwrap() {
        let output = chunk.output.unwrap();
        let index = output.index as usize;
        token_ids[index].extend(output.token_ids);
        ends[index] += i32::from(output.finish.is_some());
    }
    assert_eq!(ends, [1; 5]);
    assert!(
        token_ids
            .iter()
            .all(|ids| *ids == solo_answer(&[5, 6], 30, 1))
    );
    server.wait_until_idle().await;
    server.stop().await.unwrap();
}

/// A request counts as often as it has answers, and one that is dropped frees all of them.
#[tokio::test]
async fn several_answers_take_room_for_each() {
    let mut server = Setup {
        max_queued_requests: 5,
        ..Setup::gated()
    }
    .start()
    .await;
    let mut client = server.generation().await;
    let stream = client.generate_stream(samples(3)).await.unwrap();
    let again = pb::GenerateRequest {
        request_id: "b".to_owned(),
        ..samples(3)
    };
    let status = client.generate(again.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    drop(stream);
    server.open_gate();
    server.wait_until_idle().await;
    while client.generate(again.clone()).await.is_err() {}
    let status = client.generate(samples(6)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    server.stop().await.unwrap();
}

/// Log probabilities, ranks and candidates stand beside their tokens, whole and streamed alike.
#[tokio::test]
async fn log_probabilities_stand_beside_their_tokens() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let asked = |num_candidates| pb::GenerateRequest {
        response: Some(pb::ResponseOptions {
            output_logprobs: Some(true),
            num_candidates,
        }),
        ..request("", &[9, 8], 40)
    };
    let whole = only(client.generate(asked(Some(3))).await.unwrap().into_inner());
    assert_eq!((whole.logprobs.len(), whole.ranks.len()), (40, 40));
    assert_eq!(whole.candidates.len(), 40);
    assert!(whole.candidates.iter().all(|each| each.tokens.len() == 3));
    let stream = client.generate_stream(asked(None)).await.unwrap();
    let streamed = collected(stream.into_inner()).await.unwrap();
    assert_eq!(
        (streamed.logprobs, streamed.candidates),
        (whole.logprobs, vec![])
    );
    assert_eq!(streamed.token_ids, whole.token_ids);
    let without = only(
        client
            .generate(request("", &[9], 3))
            .await
            .unwrap()
            .into_inner(),
    );
    assert!(without.logprobs.is_empty() && without.ranks.is_empty());
    server.stop().await.unwrap();
}

/// A request that bypasses the prefix cache finds nothing in it; one that does not says what it
/// found. The answers are the same.
#[tokio::test]
async fn the_prefix_cache_can_be_bypassed() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let prompt: Vec<u32> = (0..80).map(|at| at % 90).collect();
    let mut cached = Vec::new();
    for bypass in [false, true, false] {
        let asked = pb::GenerateRequest {
            kv: Some(pb::KvCacheParameters {
                bypass_prefix_cache: Some(bypass),
            }),
            ..request("", &prompt, 4)
        };
        let answer = only(client.generate(asked).await.unwrap().into_inner());
        assert_eq!(answer.token_ids, solo_answer(&prompt, 4, 1));
        cached.push(answer.finish.unwrap().num_cached_tokens);
    }
    assert_eq!(cached, [0, 0, 64]);
    server.stop().await.unwrap();
}

/// A request that asks for so much of a field.
fn with_field(field: &str, count: u32) -> pb::GenerateRequest {
    let mut asked = request("", &[5, 6], 1);
    let mut sampling = pb::SamplingParams::default();
    let mut stopping = pb::StoppingCriteria::default();
    match field {
        "sampling.num_sequences" => sampling.num_sequences = Some(count),
        "sampling.logit_bias" => sampling.logit_bias = (0..count).map(|id| (id, 1.0)).collect(),
        "response.num_candidates" => {
            asked.response = Some(pb::ResponseOptions {
                output_logprobs: None,
                num_candidates: Some(count),
            });
        }
        "stopping.stop_strings" => stopping.stop_strings = vec!["~".to_owned(); count as usize],
        "stopping.stop_strings[0]" => stopping.stop_strings = vec!["~".repeat(count as usize)],
        "stopping.stop_token_ids" => stopping.stop_token_ids = vec![5; count as usize],
        "stopping.min_new_tokens" => stopping.min_new_tokens = Some(count),
        "priority" => asked.priority = Some(i32::try_from(count).unwrap()),
        _ => unreachable!("{field}"),
    }
    asked.sampling = Some(sampling);
    asked.stopping = Some(stopping);
    asked
}

/// Every published limit is the one that is held: at it a request is taken, above it refused, by the
/// field's name.
#[tokio::test]
async fn published_limits_are_held() {
    let server = Setup::default().start().await;
    let mut control = server.control().await;
    let info = control.get_server_info(pb::GetServerInfoRequest {}).await;
    let limits = info.unwrap().into_inner().limits.unwrap();
    let mut client = server.generation().await;
    for (field, max) in [
        ("sampling.num_sequences", limits.max_num_sequences),
        // The fake model has fewer tokens than there may be biases.
        ("sampling.logit_bias", limits.max_logit_biases.min(97)),
        ("response.num_candidates", limits.max_num_candidates),
        ("stopping.stop_strings", limits.max_stop_strings),
        ("stopping.stop_strings[0]", limits.max_stop_string_bytes),
        ("stopping.stop_token_ids", limits.max_stop_token_ids),
        ("stopping.min_new_tokens", limits.default_max_new_tokens),
        ("priority", limits.max_priority.unsigned_abs()),
    ] {
        let taken = client.generate(with_field(field, max)).await;
        taken.unwrap_or_else(|status| panic!("{field}: {status}"));
        let refused = client.generate(with_field(field, max + 1)).await;
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let details = status.get_details_bad_request().unwrap();
        let found = &details.field_violations[0].field;
        assert!(found.starts_with(field), "{field}: {found}");
    }
    let mut low = request("", &[5, 6], 1);
    low.priority = Some(limits.min_priority - 1);
    let status = client.generate(low).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(limits.arrivals_per_priority > 0);
    server.stop().await.unwrap();
}
