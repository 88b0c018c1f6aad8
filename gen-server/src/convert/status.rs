//! The one table from errors to gRPC status codes, with details where a caller can act on them. The
//! reasons in `ErrorInfo` never change, so that programs may compare them.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{BadRequest, ErrorDetails, FieldViolation, StatusExt as _};

use crate::{error::RequestError, request::EngineFailure, swap::ReloadError};

/// A queue of thousands of short answers has room again within about this.
const RETRY_WHEN_FULL: Duration = Duration::from_millis(500);
/// A restart takes longer than a full queue.
const RETRY_WHEN_DRAINING: Duration = Duration::from_secs(5);
/// The `domain` of every `ErrorInfo`.
const ERROR_DOMAIN: &str = "genserver.v1";

/// Code and reason.
fn request_kind(error: &RequestError) -> (Code, &'static str) {
    match error {
        RequestError::Invalid(_) => (Code::InvalidArgument, "INVALID_REQUEST"),
        RequestError::Length { .. } => (Code::InvalidArgument, "PROMPT_LENGTH"),
        RequestError::DuplicateId(_) => (Code::AlreadyExists, "DUPLICATE_REQUEST_ID"),
        RequestError::QueueFull { .. } => (Code::ResourceExhausted, "QUEUE_FULL"),
        RequestError::Draining => (Code::Unavailable, "DRAINING"),
        RequestError::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        RequestError::Aborted => (Code::Cancelled, "ABORTED"),
        RequestError::Engine(EngineFailure::Stopped) => (Code::Unavailable, "ENGINE_STOPPED"),
        RequestError::Engine(EngineFailure::NotFinite) => (Code::Internal, "NOT_FINITE"),
        RequestError::Engine(EngineFailure::Step(_)) => (Code::Internal, "STEP_FAILED"),
        RequestError::Internal(_) => (Code::Internal, "INTERNAL"),
    }
}

pub(crate) fn request_code(error: &RequestError) -> Code {
    request_kind(error).0
}

pub(crate) fn request_status(error: &RequestError) -> Status {
    let (code, reason) = request_kind(error);
    let mut details = ErrorDetails::new();
    let mut metadata = HashMap::new();
    match error {
        RequestError::Invalid(violations) => {
            let violations: Vec<FieldViolation> = violations
                .iter()
                .map(|each| FieldViolation::new(each.field.clone(), each.problem.clone()))
                .collect();
            details.set_bad_request(BadRequest::new(violations).field_violations);
        }
        RequestError::Length {
            num_tokens, max, ..
        } => {
            details.add_bad_request_violation("prompt", error.to_string());
            metadata.insert("num_tokens".to_owned(), num_tokens.to_string());
            metadata.insert("max_tokens".to_owned(), max.to_string());
        }
        RequestError::QueueFull { .. } => {
            details.set_retry_info(Some(RETRY_WHEN_FULL));
        }
        RequestError::Draining => {
            details.set_retry_info(Some(RETRY_WHEN_DRAINING));
        }
        _ => {}
    }
    details.set_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(code, error.to_string(), details)
}

pub(crate) fn reload_status(error: &ReloadError) -> Status {
    let mut details = ErrorDetails::new();
    let (code, reason) = match error {
        ReloadError::Name { .. } => {
            details.add_bad_request_violation("checkpoint", error.to_string());
            (Code::InvalidArgument, "CHECKPOINT_NAME")
        }
        ReloadError::KeyReused { .. } => (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED"),
        ReloadError::Missing { .. } => (Code::NotFound, "CHECKPOINT_MISSING"),
        ReloadError::NoRoot => (Code::FailedPrecondition, "NO_CHECKPOINT_ROOT"),
        ReloadError::Manifest { .. } => (Code::FailedPrecondition, "CHECKPOINT_MANIFEST"),
        ReloadError::OtherArchitecture { .. } => (Code::FailedPrecondition, "OTHER_ARCHITECTURE"),
        ReloadError::Refused { .. } => (Code::FailedPrecondition, "CHECKPOINT_REFUSED"),
        ReloadError::Busy => (Code::Aborted, "RELOAD_UNDER_WAY"),
        ReloadError::Draining => {
            details.set_retry_info(Some(RETRY_WHEN_DRAINING));
            (Code::Unavailable, "DRAINING")
        }
        ReloadError::EngineStopped => (Code::Unavailable, "ENGINE_STOPPED"),
        ReloadError::Interrupted(_) => (Code::Internal, "INTERNAL"),
    };
    details.set_error_info(reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, error.to_string(), details)
}
