use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::genserver::v1::generation_server::{Generation, GenerationServer};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::*;

/// How the fake answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Question n gets: 0 right, 1 wrong, 2 right but cut, 3 right, 4 nothing, ...
    Well,
    /// With weights that nobody asked for.
    OtherWeights,
    /// Refuses each item once for want of room, then answers well.
    BusyAtFirst,
    /// Refuses for a reason that stays.
    Refusing,
    /// Opens the stream and says nothing.
    Silent,
    /// Hangs up after the first answer.
    Dying,
}

const CREDITS: u32 = 2;

#[derive(Debug, Clone)]
struct FakeServer {
    manner: Manner,
    most_in_flight: Arc<AtomicUsize>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn output(index: usize, manner: Manner) -> pb::SequenceOutput {
    let reason = if index % 5 == 2 {
        pb::FinishReason::Length
    } else {
        pb::FinishReason::Stop
    };
    let text = match index % 5 {
        0 | 2 | 3 => format!("It is {index}.\n#### {index}"),
        1 => "#### 99".to_string(),
        _ => "I do not know.".to_string(),
    };
    let digest = match manner {
        Manner::OtherWeights => "other",
        _ => "expected",
    };
    pb::SequenceOutput {
        text,
        finish: Some(pb::Finish {
            reason: reason.into(),
            weights: Some(pb::WeightsVersion {
                number: 2,
                digest: digest.to_string(),
                checkpoint: "epoch_7".to_string(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn refusal(code: Code) -> pb::batch_response::Result {
    pb::batch_response::Result::Error(pb::ItemError {
        code: code.into(),
        message: "not now".to_string(),
    })
}

/// Answers in pairs, the later item first, so that more than one is under way.
async fn serve(
    fake: FakeServer,
    mut items: Streaming<pb::BatchRequest>,
    answers: mpsc::Sender<Result<pb::BatchResponse, Status>>,
) {
    let message = |request_id: String, result, credits| pb::BatchResponse {
        request_id,
        result,
        credits,
    };
    if fake.manner == Manner::Silent {
        return std::future::pending().await;
    }
    let _ = answers
        .send(Ok(message(String::new(), None, CREDITS)))
        .await;
    let mut refused = Vec::new();
    let mut held: Vec<String> = Vec::new();
    let mut num_answered = 0;
    loop {
        let pause = tokio::time::sleep(Duration::from_millis(20));
        let item = tokio::select! {
            item = items.message() => match item {
                Ok(Some(item)) => Some(item.request.unwrap()),
                _ => return,
            },
            () = pause, if !held.is_empty() => None,
        };
        if let Some(request) = item {
            assert_eq!(request.sampling.unwrap().temperature, Some(0.0));
            let stopping = request.stopping.unwrap();
            assert_eq!(stopping.max_new_tokens, Some(40));
            assert_eq!(stopping.stop_strings, ["Q:"]);
            held.push(request.request_id);
            fake.most_in_flight.fetch_max(held.len(), Ordering::Relaxed);
            continue;
        }
        while let Some(id) = held.pop() {
            let result = match fake.manner {
                Manner::Refusing => refusal(Code::InvalidArgument),
                Manner::BusyAtFirst if !refused.contains(&id) => {
                    refused.push(id.clone());
                    refusal(Code::ResourceExhausted)
                }
                manner => Reply::Response(pb::GenerateResponse {
                    request_id: id.clone(),
                    outputs: vec![output(id.parse().unwrap(), manner)],
                }),
            };
            let _ = answers.send(Ok(message(id, Some(result), 1))).await;
            num_answered += 1;
            if fake.manner == Manner::Dying && num_answered == 1 {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Generation for FakeServer {
    type GenerateStreamStream = Answers<pb::GenerateChunk>;
    type GenerateBatchStream = Answers<pb::BatchResponse>;

    async fn generate_batch(
        &self,
        items: Request<Streaming<pb::BatchRequest>>,
    ) -> Result<Response<Self::GenerateBatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(serve(self.clone(), items.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn generate(
        &self,
        _: Request<pb::GenerateRequest>,
    ) -> Result<Response<pb::GenerateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn generate_stream(
        &self,
        _: Request<pb::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn score(
        &self,
        _: Request<pb::ScoreRequest>,
    ) -> Result<Response<pb::ScoreResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn check(num_questions: usize, time_limit: Duration) -> AccuracyCheck {
    AccuracyCheck {
        questions: (0..)
            .take(num_questions)
            .map(|index| Item {
                prompt_ids: vec![1, 2, 3],
                gold: Number::from(index),
            })
            .collect(),
        max_new_tokens: 40,
        stop_strings: vec!["Q:".to_string()],
        time_limit,
    }
}

/// Puts ten questions to a fake server; gives what came out and the most items it held.
fn measured(manner: Manner, time_limit: Duration) -> (Result<Accuracy, String>, usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let fake = FakeServer {
        manner,
        most_in_flight: Arc::default(),
    };
    let most_in_flight = Arc::clone(&fake.most_in_flight);
    let service = tonic::transport::Server::builder().add_service(GenerationServer::new(fake));
    runtime
        .spawn(service.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));
    let asked = Asked {
        server,
        token: None,
        weights_digest: "expected".to_string(),
    };
    let accuracy = check(10, time_limit).measure(&asked, &StopFlag::default());
    runtime.shutdown_background();
    (accuracy, most_in_flight.load(Ordering::Relaxed))
}

const LONG: Duration = Duration::from_mins(1);

/// Right, wrong, cut and missing answers are told apart, whatever their order; no more questions are
/// under way than the server granted.
#[test]
fn answers_are_judged_and_bounded() {
    let expected = Accuracy {
        num_right: 4,
        num_questions: 10,
        num_truncated: 2,
        max_new_tokens: 40,
    };
    for manner in [Manner::Well, Manner::BusyAtFirst] {
        let (accuracy, most_in_flight) = measured(manner, LONG);
        assert_eq!(accuracy, Ok(expected), "{manner:?}");
        assert!((1..=CREDITS as usize).contains(&most_in_flight));
    }
    let Event::Accuracy { low, high, .. } = expected.event(1) else {
        panic!("an accuracy")
    };
    assert!(
        low > 0.16 && low < 0.4 && high > 0.4 && high < 0.69,
        "{low} {high}"
    );
}

/// Answers of other weights than the checkpoint's are no answers.
#[test]
fn other_weights_are_rejected() {
    let error = measured(Manner::OtherWeights, LONG).0.unwrap_err();
    assert!(error.contains("the weights of \"epoch_7\""), "{error}");
}

/// Whatever else goes wrong is a reason, in words.
#[test]
fn failures_are_reasons() {
    let error = measured(Manner::Refusing, LONG).0.unwrap_err();
    assert!(error.contains("refused: not now"), "{error}");
    let error = measured(Manner::Dying, LONG).0.unwrap_err();
    assert!(error.contains("closed the stream"), "{error}");
    let error = measured(Manner::Silent, Duration::from_millis(200)).0;
    let error = error.unwrap_err();
    assert!(error.contains("not measured within 0.2 s"), "{error}");
}

/// A dead server, and a run that is being stopped.
#[test]
fn nothing_waits_for_a_dead_server() {
    let asked = Asked {
        server: "127.0.0.1:1".to_string(),
        token: None,
        weights_digest: String::new(),
    };
    let stop = StopFlag::default();
    let error = check(1, LONG).measure(&asked, &stop).unwrap_err();
    assert!(error.contains("cannot connect"), "{error}");
    stop.raise();
    let error = check(1, LONG).measure(&asked, &stop).unwrap_err();
    assert!(error.contains("being stopped"), "{error}");
}
