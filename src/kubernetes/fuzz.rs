//! Entry points for [`crate::fuzzing`].

use std::time::Duration;

use jiff::Timestamp;

use super::answers::{conflict, failure, rivals};
use super::api::{Call, Kind};
use super::election::{Election, LONGEST, Verdict};
use super::lease::Lease;
use super::secret;
use crate::failure::Failure;
use crate::http::Answer;

/// Everything that an answer about a Secret is taken for.
pub(crate) fn secret_failures(answer: &Answer) -> Vec<Failure> {
    let call = Call { verb: "patch", kind: Kind::Secret, namespace: "shop", name: "orders" };
    let mut failures = vec![failure(answer, &call, "the API")];
    let rivals = rivals(answer);
    failures.extend((!rivals.is_empty()).then(|| conflict(&call, &rivals)));
    failures.extend(secret::read(answer, &call).err());
    failures
}

/// The same for a Lease. One that can be read is judged, and taken.
///
/// # Panics
/// It is waited for longer than any, or what would be written of it does not say who holds it.
pub(crate) fn lease_failure(answer: &Answer) -> Result<(), Failure> {
    let call = Call { verb: "update", kind: Kind::Lease, namespace: "shop", name: "writer" };
    let lease = Lease::parsed(answer, &call)?;
    let seen = lease.seen();
    if let Verdict::Wait(time) = Election::new("me".to_owned()).judge(seen, Duration::MAX / 2) {
        assert!(time <= LONGEST, "{time:?}");
    }
    let taken = lease.with(Some("me"), Timestamp::UNIX_EPOCH);
    assert_eq!(taken["spec"]["holderIdentity"], "me", "{taken}");
    assert!(taken["spec"]["leaseTransitions"].as_u64().is_some_and(|count| i32::try_from(count).is_ok()), "{taken}");
    Ok(())
}
