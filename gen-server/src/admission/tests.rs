//! The door.

use super::*;

const ANY: IdScope = IdScope::Batch(1);

fn admit(admission: &Admission, id: &str, num_sequences: u32) -> Result<Permit, RequestError> {
    admission.admit(admission.register(ANY, id)?, num_sequences)
}

/// What is full refuses at once; a permit that goes makes room. A request counts as often as it has
/// sequences.
#[test]
fn full_refuses_until_a_permit_goes() {
    let admission = Admission::new(3);
    let first = admit(&admission, "a", 2).unwrap();
    let _second = admit(&admission, "b", 1).unwrap();
    let refused = admit(&admission, "c", 1).unwrap_err();
    assert_eq!(
        refused,
        RequestError::QueueFull {
            max_queued_requests: 3
        }
    );
    drop(first);
    assert!(admit(&admission, "c", 3).is_err(), "only two are free");
    admit(&admission, "c", 2).unwrap();
}

/// An id is refused while it lives in the same scope, and free afterwards.
#[test]
fn ids_are_unique_within_their_scope_while_they_live() {
    let admission = Admission::new(9);
    let first = admit(&admission, "a", 1).unwrap();
    let refused = admit(&admission, "a", 1).unwrap_err();
    assert_eq!(refused, RequestError::DuplicateId("a".to_owned()));
    let elsewhere = admission.register(IdScope::Connection(None), "a").unwrap();
    assert_eq!(admission.num_unfinished(), 2);
    drop(first);
    let _again = admit(&admission, "a", 1).unwrap();
    drop(elsewhere);
    assert_eq!(admission.num_unfinished(), 1);
}

/// An abort ends every live request with the id, once, and passes over ids that nothing has.
#[tokio::test]
async fn aborts_reach_every_scope() {
    let admission = Admission::new(1);
    let running = admit(&admission, "a", 1).unwrap();
    let waiting = admission.register(IdScope::Connection(None), "a").unwrap();
    let waiting = admission.wait_for_room(waiting, 1);
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    let ids = ["a", "nothing"].map(str::to_owned);
    assert_eq!(admission.abort(&ids), 2);
    running.aborted().await;
    assert_eq!(waiting.await.unwrap_err(), RequestError::Aborted);
    assert_eq!(admission.abort(&ids), 0, "they are ended already");
}

/// While the server drains nothing comes in, and it is idle when the last permit is gone.
#[tokio::test]
async fn draining_refuses_and_ends_when_idle() {
    let admission = Admission::new(2);
    let permit = admit(&admission, "a", 1).unwrap();
    let late = admission.register(ANY, "late").unwrap();
    admission.start_draining();
    let refused = admission.wait_for_room(late, 1).await.unwrap_err();
    assert_eq!(refused, RequestError::Draining);
    let idle = admission.idle();
    tokio::pin!(idle);
    assert!(futures::poll!(&mut idle).is_pending());
    let refused = admit(&admission, "b", 1).unwrap_err();
    assert_eq!(refused, RequestError::Draining);
    drop(permit);
    idle.await;
}
