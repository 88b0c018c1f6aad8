//! The door.

use super::*;

const ANY: IdScope = IdScope::Batch(1);

/// What is full refuses at once; a permit that goes makes room.
#[test]
fn full_refuses_until_a_permit_goes() {
    let admission = Admission::new(2);
    let first = admission.admit(ANY, "a").unwrap();
    let _second = admission.admit(ANY, "b").unwrap();
    let refused = admission.admit(ANY, "c").unwrap_err();
    assert_eq!(
        refused,
        RequestError::QueueFull {
            max_queued_requests: 2
        }
    );
    drop(first);
    admission.admit(ANY, "c").unwrap();
}

/// An id is refused while it lives in the same scope, and free afterwards; empty ids never collide.
#[test]
fn ids_are_unique_within_their_scope_while_they_live() {
    let admission = Admission::new(9);
    let mut first = admission.admit(ANY, "a").unwrap();
    let refused = admission.admit(ANY, "a").unwrap_err();
    assert_eq!(refused, RequestError::DuplicateId("a".to_owned()));
    let _elsewhere = admission.admit(IdScope::Connection(None), "a").unwrap();
    first.release();
    let _again = admission.admit(ANY, "a").unwrap();
    let _one = admission.admit(ANY, "").unwrap();
    let _two = admission.admit(ANY, "").unwrap();
}

/// While the server drains nothing comes in, and it is idle when the last permit is gone.
#[tokio::test]
async fn draining_refuses_and_ends_when_idle() {
    let admission = Admission::new(2);
    let permit = admission.admit(ANY, "a").unwrap();
    admission.start_draining();
    assert_eq!(
        admission.admit(ANY, "b").unwrap_err(),
        RequestError::Draining
    );
    let idle = admission.idle();
    tokio::pin!(idle);
    assert!(futures::poll!(&mut idle).is_pending());
    assert_eq!(
        admission.admit(ANY, "b").unwrap_err(),
        RequestError::Draining
    );
    assert_eq!(admission.room().await.unwrap_err(), RequestError::Draining);
    drop(permit);
    idle.await;
}
