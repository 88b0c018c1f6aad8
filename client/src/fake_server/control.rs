//! What the scripted server says about itself, and its swaps.

use proto::genserver::v1::{self as pb, control_server::Control};
use tonic::{Request, Response, Status};

use super::Service;

#[tonic::async_trait]
impl Control for Service {
    async fn get_server_info(
        &self,
        _request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::GetServerInfoResponse>, Status> {
        Ok(Response::new(pb::GetServerInfoResponse {
            version: "fake".to_owned(),
            instance_id: "one".to_owned(),
            limits: Some(pb::Limits {
                max_context_tokens: 2048,
                default_max_new_tokens: 1024,
                max_queued_requests: 64,
                max_num_seqs: 16,
                max_batch_items_under_way: self.0.state.lock().unwrap().window,
                ..Default::default()
            }),
        }))
    }

    async fn get_model_info(
        &self,
        _request: Request<pb::GetModelInfoRequest>,
    ) -> Result<Response<pb::GetModelInfoResponse>, Status> {
        let state = self.0.state.lock().unwrap();
        Ok(Response::new(pb::GetModelInfoResponse {
            weights: Some(state.version()),
            architecture: "LlamaForCausalLM".to_owned(),
            num_parameters: 1000,
            dtype: "f32".to_owned(),
            vocab_size: 100,
            max_context_tokens: 2048,
            chat_template_name: state.chat_template.clone(),
            ..Default::default()
        }))
    }

    async fn get_load(
        &self,
        _request: Request<pb::GetLoadRequest>,
    ) -> Result<Response<pb::GetLoadResponse>, Status> {
        let mut state = self.0.state.lock().unwrap();
        if state.num_busy_loads > 0 {
            state.num_busy_loads -= 1;
            state.num_generated_tokens += 1;
        }
        Ok(Response::new(pb::GetLoadResponse {
            num_running: 3,
            num_generated_tokens_total: state.num_generated_tokens,
            ..Default::default()
        }))
    }

    async fn abort(
        &self,
        _request: Request<pb::AbortRequest>,
    ) -> Result<Response<pb::AbortResponse>, Status> {
        Err(Status::unimplemented("the client never calls it"))
    }

    async fn drain(
        &self,
        _request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        Err(Status::unimplemented("the client never calls it"))
    }

    async fn reload_checkpoint(
        &self,
        request: Request<pb::ReloadCheckpointRequest>,
    ) -> Result<Response<pb::ReloadCheckpointResponse>, Status> {
        let checkpoint = request.into_inner().checkpoint;
        if checkpoint == "broken" {
            return Err(Status::failed_precondition(
                "config.json: hidden_size differs",
            ));
        }
        let mut state = self.0.state.lock().unwrap();
        let old_weights = Some(state.version());
        state.weights += 1;
        state.checkpoint = checkpoint;
        Ok(Response::new(pb::ReloadCheckpointResponse {
            old_weights,
            new_weights: Some(state.version()),
            load_ms: 2,
            swap_ms: 1,
        }))
    }
}
