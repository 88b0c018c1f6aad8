//! `Generation`: one prompt, one prompt with its answers in pieces, thousands of prompts, and scores.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{Stream, StreamExt as _};
use proto::genserver::v1::{self as pb, generation_server};
use tonic::{Request, Response, Status, Streaming};

use super::{Delivery, Origin, Shared, batch, call_deadline, start::Patience};
use crate::{admission::IdScope, convert};

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
        let started = self
            .shared
            .start(request.into_inner(), origin, Patience::None);
        let generation = started
            .await
            .map_err(|error| convert::request_status(&error))?;
        let request_id = generation.request_id.clone();
        let answers = generation.whole().await;
        let answers = answers.map_err(|error| convert::request_status(&error))?;
        Ok(Response::new(convert::response(request_id, answers)))
    }

    async fn generate_stream(
        &self,
        request: Request<pb::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let origin = Origin::of(&request, Delivery::Streamed);
        let started = self
            .shared
            .start(request.into_inner(), origin, Patience::None);
        let generation = started
            .await
            .map_err(|error| convert::request_status(&error))?;
        let request_id = generation.request_id.clone();
        // No task in between: when the client goes, the stream is dropped, and the request with it.
        let chunks = generation
            .into_messages()
            .map(move |message| match message {
                Ok((index, piece)) => Ok(convert::chunk(request_id.clone(), index, piece)),
                Err(error) => Err(convert::request_status(&error)),
            });
        Ok(Response::new(Box::pin(chunks)))
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

    async fn score(
        &self,
        request: Request<pb::ScoreRequest>,
    ) -> Result<Response<pb::ScoreResponse>, Status> {
        let origin = Origin::of(&request, Delivery::Whole);
        let scored = self.shared.score(request.into_inner(), origin).await;
        scored
            .map(Response::new)
            .map_err(|error| convert::request_status(&error))
    }
}
