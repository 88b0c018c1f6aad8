//! `Control`: what runs, how loaded it is, and which weights it serves.

use std::sync::Arc;

use proto::genserver::v1::{self as pb, control_server};
use tonic::{Request, Response, Status};

use super::Shared;
use crate::{
    convert,
    swap::{ReloadError, ReloadRequest, Swapper},
};

/// Serves `genserver.v1.Control`.
#[derive(Debug)]
pub(crate) struct ControlService {
    shared: Arc<Shared>,
    swapper: Swapper,
}

impl ControlService {
    pub(crate) fn new(shared: Arc<Shared>, swapper: Swapper) -> Self {
        Self { shared, swapper }
    }
}

#[tonic::async_trait]
impl control_server::Control for ControlService {
    async fn get_server_info(
        &self,
        _request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::GetServerInfoResponse>, Status> {
        let limits = self.shared.engine.limits();
        Ok(Response::new(pb::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.shared.instance_id.clone(),
            limits: Some(pb::Limits {
                max_context_tokens: self.shared.limits.max_context_tokens,
                default_max_tokens: self.shared.limits.default_max_tokens,
                max_queued_requests: self.shared.admission.max_queued_requests(),
                max_num_seqs: limits.max_num_seqs as u32,
                max_num_batched_tokens: limits.max_num_batched_tokens as u32,
                max_stop_strings: convert::MAX_STOP_STRINGS as u32,
                max_stop_string_bytes: convert::MAX_STOP_STRING_BYTES as u32,
                max_message_bytes: convert::MAX_MESSAGE_BYTES as u32,
            }),
        }))
    }

    async fn get_model_info(
        &self,
        _request: Request<pb::GetModelInfoRequest>,
    ) -> Result<Response<pb::GetModelInfoResponse>, Status> {
        let (model, tokenizer) = (&self.shared.model, &self.shared.tokenizer);
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Ok(Response::new(pb::GetModelInfoResponse {
            weights: Some(convert::weights_version(&self.shared.engine.live_weights())),
            architecture: model.architecture.clone(),
            num_parameters: model.num_parameters,
            dtype: model.dtype.clone(),
            vocab_size: model.vocab_size,
            max_context_tokens: self.shared.limits.max_context_tokens,
            eos_token_ids: model.eos_token_ids.clone(),
            chat_template_name: text(tokenizer.template_name()),
            chat_template_digest: text(tokenizer.template_digest()),
            chat_template_date: text(tokenizer.template_date()),
        }))
    }

    async fn get_load(
        &self,
        _request: Request<pb::GetLoadRequest>,
    ) -> Result<Response<pb::GetLoadResponse>, Status> {
        let gauges = self.shared.engine.gauges();
        let limits = self.shared.engine.limits();
        let load = gauges.load();
        Ok(Response::new(pb::GetLoadResponse {
            num_running: load.num_running as u32,
            num_waiting: load.num_waiting as u32,
            num_blocks_used: load.num_blocks_used as u32,
            num_blocks_total: limits.num_blocks,
            block_size_tokens: limits.block_size as u32,
            num_generated_tokens_total: gauges.num_generated_tokens_total(),
            num_prompt_tokens_total: gauges.num_prompt_tokens_total(),
            num_preemptions_total: load.num_preemptions_total,
            num_finished_total: gauges.num_finished_total(),
        }))
    }

    async fn reload_checkpoint(
        &self,
        request: Request<pb::ReloadCheckpointRequest>,
    ) -> Result<Response<pb::ReloadCheckpointResponse>, Status> {
        if self.shared.admission.is_draining() {
            return Err(convert::reload_status(&ReloadError::Draining));
        }
        let request = request.into_inner();
        let given = |text: String| (!text.is_empty()).then_some(text);
        let reloaded = self.swapper.reload(ReloadRequest {
            checkpoint: request.checkpoint,
            expected_manifest_sha256: given(request.expected_manifest_sha256),
            idempotency_key: given(request.idempotency_key),
        });
        let reloaded = reloaded
            .await
            .map_err(|error| convert::reload_status(&error))?;
        Ok(Response::new(pb::ReloadCheckpointResponse {
            old_weights: Some(convert::weights_version(&reloaded.old)),
            new_weights: Some(convert::weights_version(&reloaded.new)),
            load_ms: reloaded.load_ms,
            swap_ms: reloaded.swap_ms,
        }))
    }
}
