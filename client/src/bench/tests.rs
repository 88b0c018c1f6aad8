use tonic::Code;

use super::*;
use crate::{
    connection::LoadPrompt,
    fake_server::{Act, FakeServer},
};

fn workload(via: Via, arrivals: Arrivals) -> Workload {
    let prompts = (0..6).map(|index| LoadPrompt::Text(format!("p{index}")));
    Workload {
        prompts: PromptSource::List {
            path: "test".to_owned(),
            prompts: prompts.collect(),
        },
        num_prompts: 6,
        num_tokens: 4,
        arrivals,
        via,
        num_warmup: 0,
        num_repetitions: 2,
        seed: 1,
    }
}

async fn run_on(server: &FakeServer, workload: &Workload) -> Report {
    let server = server.connect().await;
    run(&server, workload, &Interrupt::default()).await.unwrap()
}

/// Both ways, closed and open: every request is answered, its tokens counted, and each repetition
/// asks anew.
#[tokio::test]
async fn all_answers_are_counted() {
    let closed = Arrivals::Closed { concurrency: 2 };
    let open = Arrivals::Open {
        requests_per_s: 2000.0,
    };
    for (via, arrivals) in [
        (Via::Streams, closed),
        (Via::Streams, open),
        (Via::Batch, closed),
        (Via::Batch, open),
    ] {
        // Three words and the end: four tokens.
        let server = FakeServer::start(|_, _| Act::Say("one two three".to_owned())).await;
        let report = run_on(&server, &workload(via, arrivals)).await;
        assert_eq!(server.num_requests(), 12);
        assert_eq!(report.num_failed(), 0);
        for summary in &report.repetitions {
            assert_eq!((summary.num_requests, summary.num_failed), (6, 0));
            assert_eq!(summary.num_generated_tokens, 24);
            assert_eq!(summary.num_prompt_tokens, 42);
            assert_eq!(summary.e2e_ms.unwrap().count, 6);
            let (ttft, itl) = (summary.ttft_ms, summary.itl_ms);
            match via {
                Via::Streams => assert_eq!((ttft.unwrap().count, itl.unwrap().count), (6, 18)),
                Via::Batch => assert_eq!((ttft, itl), (None, None)),
            }
        }
        assert_eq!(report.first_answers.len(), 6);
        assert!(
            report
                .first_answers
                .iter()
                .flatten()
                .all(|ids| ids.len() == 4)
        );
    }
}

/// A closed loop never has more at the server than it may: the silent ones hold their places.
#[tokio::test]
async fn a_closed_loop_keeps_its_limit() {
    let server = FakeServer::start(|_, _| Act::KeepSilent).await;
    let client = server.connect().await;
    let workload = workload(Via::Streams, Arrivals::Closed { concurrency: 2 });
    let interrupt = Interrupt::default();
    let running = run(&client, &workload, &interrupt);
    let stopping = async {
        while server.num_requests() < 2 {
            tokio::task::yield_now().await;
        }
        interrupt.set();
    };
    let (stopped, ()) = tokio::join!(running, stopping);
    assert!(matches!(stopped, Err(ClientError::Interrupted)));
    assert_eq!(server.num_requests(), 2);
}

/// Refused items and answers of another length are failures with their reason; the rest counts.
#[tokio::test]
async fn failures_are_told_apart() {
    for via in [Via::Streams, Via::Batch] {
        let server = FakeServer::start(|text, _| match text {
            "p1" => Act::Refuse(Code::ResourceExhausted),
            "p4" => Act::Say("short".to_owned()),
            _ => Act::Say("one two three".to_owned()),
        })
        .await;
        let report = run_on(&server, &workload(via, Arrivals::Closed { concurrency: 3 })).await;
        let summary = &report.repetitions[0];
        assert_eq!(summary.num_failed, 2);
        assert_eq!(summary.num_generated_tokens, 16);
        assert_eq!(summary.failures["RESOURCE_EXHAUSTED"].count, 1);
        assert_eq!(summary.failures["LENGTH"].count, 1);
        assert_eq!(report.first_answers[1], None);
        assert_eq!(report.num_failed(), 4);
        assert!(
            report
                .text()
                .contains("1 with LENGTH: expected 4 tokens, found 2")
        );
    }
}

/// A broken batch stream ends everything on it as failed, not the program's wait.
#[tokio::test]
async fn a_broken_batch_stream_ends_the_wait() {
    let server = FakeServer::start(|text, _| match text {
        "p3" => Act::BreakStream,
        _ => Act::Say("one two three".to_owned()),
    })
    .await;
    let report = run_on(
        &server,
        &workload(Via::Batch, Arrivals::Closed { concurrency: 6 }),
    )
    .await;
    let summary = &report.repetitions[0];
    assert_eq!(summary.num_requests, 6);
    assert!(summary.failures.contains_key("STREAM_BROKEN"));
}

/// The warm-up and random prompts are token ids of the served vocabulary.
#[tokio::test]
async fn random_prompts_fit_the_vocabulary() {
    let server = FakeServer::start(|ids, _| {
        let ids: Vec<u32> = serde_json::from_str(ids).unwrap();
        assert!(ids.len() == 9 && ids.iter().all(|id| *id < 100));
        Act::Say("one two three".to_owned())
    })
    .await;
    let workload = Workload {
        prompts: PromptSource::Random {
            num_tokens: 9,
            num_shared: 3,
        },
        num_warmup: 2,
        ..workload(Via::Streams, Arrivals::Closed { concurrency: 6 })
    };
    let report = run_on(&server, &workload).await;
    assert_eq!((report.num_failed(), server.num_requests()), (0, 14));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["repetitions"][0]["num_generated_tokens"], 24);
    assert_eq!(json["server"]["dtype"], "f32");
    assert_eq!(json["workload"]["concurrency"], 6);
}
