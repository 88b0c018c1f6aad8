//! `Control`: what runs, how loaded it is, and which weights it serves.

use std::{sync::Arc, time::Duration};

use proto::genserver::v1::{self as pb, control_server};
use tonic::{Request, Response, Status};

use super::{Shared, batch, rates::Rates};
use crate::{
    convert,
    engine::{rank::ARRIVALS_PER_PRIORITY, scheduler::WaitReason},
    server::Health,
    swap::{ReloadError, Swapper},
};

/// Serves `genserver.v1.Control`.
#[derive(Debug)]
pub(crate) struct ControlService {
    shared: Arc<Shared>,
    swapper: Swapper,
    health: Health,
    rates: Rates,
}

impl ControlService {
    pub(crate) fn new(shared: Arc<Shared>, swapper: Swapper, health: Health, rates: Rates) -> Self {
        Self {
            shared,
            swapper,
            health,
            rates,
        }
    }

    fn limits(&self) -> pb::Limits {
        let engine = self.shared.engine.limits();
        let limits = &self.shared.limits;
        pb::Limits {
            max_context_tokens: limits.max_context_tokens,
            default_max_new_tokens: limits.default_max_tokens,
            max_queued_requests: self.shared.admission.max_queued_requests(),
            max_num_seqs: engine.max_num_seqs as u32,
            max_num_batched_tokens: engine.max_num_batched_tokens as u32,
            max_stop_strings: convert::MAX_STOP_STRINGS as u32,
            max_stop_string_bytes: convert::MAX_STOP_STRING_BYTES as u32,
            max_message_bytes: convert::MAX_MESSAGE_BYTES as u32,
            max_num_sequences: limits.max_num_sequences,
            max_num_candidates: limits.max_num_candidates,
            max_stop_token_ids: convert::MAX_STOP_TOKEN_IDS as u32,
            max_logit_biases: convert::MAX_LOGIT_BIASES as u32,
            max_request_ids: convert::MAX_REQUEST_IDS as u32,
            max_batch_items_under_way: batch::window(&self.shared) as u32,
            arrivals_per_priority: ARRIVALS_PER_PRIORITY as u32,
            min_priority: convert::MIN_PRIORITY,
            max_priority: convert::MAX_PRIORITY,
        }
    }
}

fn wait_reason(reason: Option<WaitReason>) -> pb::WaitReason {
    match reason {
        None => pb::WaitReason::Unspecified,
        Some(WaitReason::Sequences) => pb::WaitReason::Sequences,
        Some(WaitReason::Blocks) => pb::WaitReason::Blocks,
        Some(WaitReason::Tokens) => pb::WaitReason::Tokens,
        Some(WaitReason::Swap) => pb::WaitReason::Swap,
        Some(WaitReason::Prefix) => pb::WaitReason::Prefix,
    }
}

#[tonic::async_trait]
impl control_server::Control for ControlService {
    async fn get_server_info(
        &self,
        _request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::GetServerInfoResponse>, Status> {
        Ok(Response::new(pb::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.shared.instance_id.clone(),
            limits: Some(self.limits()),
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
        let (load, totals, speed) = (gauges.load(), gauges.totals(), self.rates.speed());
        Ok(Response::new(pb::GetLoadResponse {
            num_running: load.num_running as u32,
            num_waiting: load.num_waiting as u32,
            num_blocks_used: load.num_blocks_used as u32,
            num_blocks_total: limits.num_blocks,
            block_size_tokens: limits.block_size as u32,
            num_generated_tokens_total: totals.num_generated_tokens,
            num_prompt_tokens_total: totals.num_prompt_tokens,
            num_preemptions_total: load.num_preemptions_total,
            num_finished_total: totals.num_finished,
            num_blocks_cached: load.num_blocks_cached as u32,
            num_cached_tokens_total: totals.num_cached_tokens,
            num_draft_tokens_total: totals.num_draft_tokens,
            num_accepted_draft_tokens_total: totals.num_accepted_draft_tokens,
            num_steps_total: load.num_steps_total,
            wait_reason: wait_reason(load.wait_reason) as i32,
            generated_tokens_per_second: speed.generated,
            prompt_tokens_per_second: speed.prompt,
            step_us_total: totals.step_us,
            overhead_us_total: totals.overhead_us,
        }))
    }

    async fn abort(
        &self,
        request: Request<pb::AbortRequest>,
    ) -> Result<Response<pb::AbortResponse>, Status> {
        let ids = convert::parse_abort(request.into_inner());
        let ids = ids.map_err(|error| convert::request_status(&error))?;
        let num_aborted = self.shared.admission.abort(&ids);
        tracing::info!(num_ids = ids.len(), num_aborted, "aborted requests");
        Ok(Response::new(pb::AbortResponse { num_aborted }))
    }

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        let admission = &self.shared.admission;
        let wait = Duration::from_millis(u64::from(request.into_inner().wait_ms.unwrap_or(0)));
        admission.start_draining();
        self.health.not_serving().await;
        tracing::info!(
            num_unfinished = admission.num_unfinished(),
            "asked to drain"
        );
        // Either way the number tells what is left.
        drop(tokio::time::timeout(wait, admission.idle()).await);
        Ok(Response::new(pb::DrainResponse {
            num_unfinished: admission.num_unfinished() as u32,
        }))
    }

    async fn reload_checkpoint(
        &self,
        request: Request<pb::ReloadCheckpointRequest>,
    ) -> Result<Response<pb::ReloadCheckpointResponse>, Status> {
        if self.shared.admission.is_draining() {
            return Err(convert::reload_status(&ReloadError::Draining));
        }
        let asked = convert::parse_reload(request.into_inner());
        let asked = asked.map_err(|error| convert::request_status(&error))?;
        let reloaded = self.swapper.reload(asked);
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
