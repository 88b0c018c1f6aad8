//! `Generation`: one answer, one answer in pieces, thousands of answers.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{Stream, stream};
use proto::genserver::v1::{self as pb, generation_server};
use tonic::{Request, Response, Status, Streaming};

use super::{Delivery, Origin, Shared, batch, call_deadline};
use crate::{admission::IdScope, convert, stream::Generation};

/// Serves `genserver.v1.Generation`.
#[derive(Debug)]
pub(crate) struct GenerationService {
    shared: Arc<Shared>,
    num_batches: AtomicU64,
}

impl GenerationService {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            num_batches: AtomicU64::new(0),
        }
    }
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl generation_server::Generation for GenerationService {
    type GenerateStreamStream = BoxStream<pb::GenerateChunk>;
    type GenerateBatchStream = BoxStream<pb::BatchResponse>;

    async fn generate(
        &self,
        request: Request<pb::GenerateRequest>,
    ) -> Result<Response<pb::GenerateResponse>, Status> {
        let origin = Origin::of(&request, Delivery::Whole);
        let generation = self.shared.start(request.into_inner(), origin).await;
        let generation = generation.map_err(|error| convert::request_status(&error))?;
        let request_id = generation.request_id.clone();
        let whole = generation.whole().await;
        let whole = whole.map_err(|error| convert::request_status(&error))?;
        Ok(Response::new(convert::response(request_id, whole)))
    }

    async fn generate_stream(
        &self,
        request: Request<pb::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let origin = Origin::of(&request, Delivery::Streamed);
        let generation = self.shared.start(request.into_inner(), origin).await;
        let generation = generation.map_err(|error| convert::request_status(&error))?;
        // No task in between: when the client goes, the stream is dropped, and the request with it.
        Ok(Response::new(Box::pin(stream::unfold(
            Some(generation),
            next_chunk,
        ))))
    }

    async fn generate_batch(
        &self,
        request: Request<Streaming<pb::BatchRequest>>,
    ) -> Result<Response<Self::GenerateBatchStream>, Status> {
        let origin = Origin {
            scope: IdScope::Batch(self.num_batches.fetch_add(1, Relaxed)),
            delivery: Delivery::Whole,
            call_deadline: call_deadline(request.metadata()),
        };
        let answers = batch::answers(Arc::clone(&self.shared), request.into_inner(), origin);
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The next message of a stream and what is left of it: nothing after an error.
async fn next_chunk(
    state: Option<Generation>,
) -> Option<(Result<pb::GenerateChunk, Status>, Option<Generation>)> {
    let mut generation = state?;
    match generation.next_message().await {
        Ok(message) => {
            let chunk = convert::chunk(generation.request_id.clone(), message?);
            Some((Ok(chunk), Some(generation)))
        }
        Err(error) => Some((Err(convert::request_status(&error)), None)),
    }
}
