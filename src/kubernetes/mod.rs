//! The API of the Kubernetes cluster that this process runs in: a Secret for each connection that wants one, and a Lease, so that of
//! several replicas one alone writes.
//!
//! Invariants: the token of the service account goes to the API server that the pod was told of, and to no other address, and is read
//! anew for each request; a field that somebody else owns is not taken from them; nothing that a Secret holds is in a failure.

mod answers;
mod api;
mod election;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod leadership;
mod lease;
mod secret;

pub(crate) use api::ApiServer;
pub(crate) use leadership::{Leadership, Standing};
pub(crate) use secret::{Found, Wanted};
