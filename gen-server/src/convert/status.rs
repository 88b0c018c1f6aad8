//! The one table from errors to gRPC status codes, with details where a caller can act on them.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{BadRequest, ErrorDetails, FieldViolation, StatusExt as _};

use crate::{error::RequestError, request::EngineFailure, swap::ReloadError};

/// A queue of thousands of short answers has room again within about this.
const RETRY_WHEN_FULL: Duration = Duration::from_millis(500);
/// A restart takes longer than a full queue.
const RETRY_WHEN_DRAINING: Duration = Duration::from_secs(5);

pub(crate) fn request_code(error: &RequestError) -> Code {
    match error {
        RequestError::Invalid(_) => Code::InvalidArgument,
        RequestError::DuplicateId(_) => Code::AlreadyExists,
        RequestError::QueueFull { .. } => Code::ResourceExhausted,
        RequestError::Draining | RequestError::Engine(EngineFailure::Stopped) => Code::Unavailable,
        RequestError::DeadlineExceeded => Code::DeadlineExceeded,
        RequestError::Engine(EngineFailure::NotFinite | EngineFailure::Step(_))
        | RequestError::Internal(_) => Code::Internal,
    }
}

pub(crate) fn request_status(error: &RequestError) -> Status {
    let mut details = ErrorDetails::new();
    match error {
        RequestError::Invalid(violations) => {
            let violations: Vec<FieldViolation> = violations
                .iter()
                .map(|each| FieldViolation::new(each.field.clone(), each.problem.clone()))
                .collect();
            details.set_bad_request(BadRequest::new(violations).field_violations);
        }
        RequestError::QueueFull { .. } => {
            details.set_retry_info(Some(RETRY_WHEN_FULL));
        }
        RequestError::Draining => {
            details.set_retry_info(Some(RETRY_WHEN_DRAINING));
        }
        _ => {}
    }
    Status::with_error_details(request_code(error), error.to_string(), details)
}

pub(crate) fn reload_status(error: &ReloadError) -> Status {
    let code = match error {
        ReloadError::Name { .. } => {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation("checkpoint", error.to_string());
            let message = error.to_string();
            return Status::with_error_details(Code::InvalidArgument, message, details);
        }
        ReloadError::KeyReused { .. } => Code::InvalidArgument,
        ReloadError::Missing { .. } => Code::NotFound,
        ReloadError::NoRoot
        | ReloadError::Manifest { .. }
        | ReloadError::OtherArchitecture { .. }
        | ReloadError::Refused { .. } => Code::FailedPrecondition,
        ReloadError::Busy => Code::Aborted,
        ReloadError::Draining | ReloadError::EngineStopped => Code::Unavailable,
        ReloadError::Interrupted(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
