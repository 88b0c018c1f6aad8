//! The scripted server's batches: one answer for each item, with credits where the test wants them.

use proto::genserver::v1 as pb;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::{Act, Service};

impl Service {
    pub(super) async fn answer_batch(
        self,
        mut items: Streaming<pb::BatchRequest>,
        sender: mpsc::Sender<Result<pb::BatchResponse, Status>>,
    ) {
        let window = self.0.state.lock().unwrap().window;
        let mut num_granted = window;
        if window > 0 {
            let credits = window;
            let first = pb::BatchResponse {
                credits,
                ..Default::default()
            };
            let _ = sender.send(Ok(first)).await;
        }
        let mut num_received = 0;
        while let Ok(Some(item)) = items.message().await {
            num_received += 1;
            if window > 0 && num_received > num_granted {
                self.0.state.lock().unwrap().num_uncovered += 1;
            }
            let request = item.request.unwrap();
            let id = request.request_id.clone();
            let result = match self.act(&request) {
                Act::Say(text) => Ok(self.answer(&id, text, pb::FinishReason::Stop)),
                Act::Cut(text) => Ok(self.answer(&id, text, pb::FinishReason::Length)),
                Act::Refuse(code) => Err(code),
                Act::TooLong => Err(Code::InvalidArgument),
                Act::KeepSilent => continue,
                Act::BreakStream => {
                    let _ = sender
                        .send(Err(Status::unavailable("scripted break")))
                        .await;
                    return;
                }
            };
            let result = match result {
                Ok(response) => pb::batch_response::Result::Response(response),
                Err(code) => pb::batch_response::Result::Error(pb::ItemError {
                    code: code.into(),
                    message: "scripted refusal".to_owned(),
                }),
            };
            let credits = u32::from(window > 0);
            num_granted += credits;
            let response = pb::BatchResponse {
                request_id: id,
                result: Some(result),
                credits,
            };
            if sender.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}
