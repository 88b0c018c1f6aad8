//! The end of a score: it has one event, and no use of a part.

use tokio::sync::mpsc;

use super::Deadline;
use crate::{
    admission::Permit,
    error::RequestError,
    request::{EngineFailure, Event, Finished},
};

/// Waits for the scored tokens. Dropping the future cancels the request.
pub(crate) async fn scored(
    mut events: mpsc::Receiver<Event>,
    deadline: Deadline,
    permit: Permit,
) -> Result<Finished, RequestError> {
    loop {
        let event = tokio::select! {
            biased;
            () = permit.aborted() => return Err(RequestError::Aborted),
            event = deadline.bound(events.recv()) => event?,
        };
        match event {
            Some(Event::Finished(finished)) => return Ok(finished),
            Some(Event::Failed(failure)) => return Err(failure.into()),
            None => return Err(EngineFailure::Stopped.into()),
            Some(Event::Tokens { .. }) => {}
        }
    }
}
