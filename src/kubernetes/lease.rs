//! The Lease as the API has it (coordination.k8s.io/v1): read, created, renewed, given back.
//!
//! It is replaced as a whole, with the version that was read, so that of two who change it at once one fails.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::answers;
use super::api::{ApiServer, Body, Call, Kind, LIMIT};
use super::election::{DURATION, Seen};
use crate::failure::{Code, Failure};
use crate::http::Answer;

const JSON: &str = "application/json";
const QUERY: &str = "fieldManager=dbx-rotator";

/// A Lease that was read.
#[derive(Clone)]
pub(super) struct Lease(Value);

/// What became of a change.
pub(super) enum Changed {
    Done(Lease),
    /// Somebody else was faster.
    Overtaken,
}

impl Lease {
    pub(super) fn parsed(answer: &Answer, call: &Call<'_>) -> Result<Self, Failure> {
        let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
        value.filter(Value::is_object).map(Lease).ok_or_else(|| {
            Failure::transient(Code::Unavailable, format!("the answer about {} cannot be read", call.what()))
        })
    }

    pub(super) fn seen(&self) -> Seen {
        let text = |path: &str| self.0.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let lasts = self.0.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64);
        Seen {
            version: text("/metadata/resourceVersion"),
            holder: text("/spec/holderIdentity"),
            lasts: lasts.map_or(DURATION, Duration::from_secs),
        }
    }

    /// The same as it is to be: held by `me`, or by nobody.
    pub(super) fn with(&self, me: Option<&str>, now: Timestamp) -> Value {
        let before = self.0.get("spec").cloned().unwrap_or_default();
        let is_another = before.get("holderIdentity").and_then(Value::as_str) != me;
        let transitions = before.get("leaseTransitions").and_then(Value::as_u64).unwrap_or(0);
        let gained = me.is_some() && is_another;
        let now = format!("{now:.6}");
        let acquired = match before.get("acquireTime") {
            Some(at) if !is_another && at.is_string() => at.clone(),
            _ => Value::from(now.as_str()),
        };
        let mut changed = self.0.clone();
        changed["spec"] = json!({
            "holderIdentity": me.unwrap_or_default(),
            // What is given back lasts no longer than the shortest that there is, as client-go has it.
            "leaseDurationSeconds": if me.is_some() { DURATION.as_secs() } else { 1 },
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions.saturating_add(u64::from(gained)).min(i32::MAX.unsigned_abs().into()),
        });
        changed
    }
}

/// The calls about one Lease.
pub(super) struct Leases<'a> {
    pub(super) api: &'a ApiServer,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Leases<'_> {
    /// None if it does not exist.
    pub(super) async fn read(&self) -> Result<Option<Lease>, Failure> {
        let call = self.to("get");
        let answer = self.api.call(&call, None, LIMIT).await?;
        match answer.status.as_u16() {
            200 => Lease::parsed(&answer, &call).map(Some),
            404 => Ok(None),
            _ => Err(answers::failure(&answer, &call, &self.api.named())),
        }
    }

    pub(super) async fn create(&self, me: &str) -> Result<Changed, Failure> {
        let empty = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": self.name, "namespace": self.namespace },
        });
        self.put("create", &Lease(empty).with(Some(me), Timestamp::now())).await
    }

    /// Makes it held by `me`, or by nobody.
    pub(super) async fn change(&self, lease: &Lease, me: Option<&str>) -> Result<Changed, Failure> {
        self.put("update", &lease.with(me, Timestamp::now())).await
    }

    async fn put(&self, verb: &'static str, lease: &Value) -> Result<Changed, Failure> {
        let (call, json) = (self.to(verb), Zeroizing::new(lease.to_string().into_bytes()));
        let answer = self.api.call(&call, Some(Body { kind: JSON, json: &json, query: QUERY }), LIMIT).await?;
        match answer.status.as_u16() {
            200 | 201 => Lease::parsed(&answer, &call).map(Changed::Done),
            409 => Ok(Changed::Overtaken),
            _ => Err(answers::failure(&answer, &call, &self.api.named())),
        }
    }

    fn to(&self, verb: &'static str) -> Call<'_> {
        Call { verb, kind: Kind::Lease, namespace: self.namespace, name: self.name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_written_to_it_stays_and_each_new_holder_is_counted() {
        let now = Timestamp::from_second(60).unwrap();
        let empty = Lease(json!({"metadata": {"resourceVersion": "7", "labels": {"a": "b"}}}));
        let taken = Lease(empty.with(Some("me"), now));
        assert_eq!(taken.0["metadata"]["labels"]["a"], "b");
        assert_eq!(taken.0["spec"]["renewTime"], "1970-01-01T00:01:00.000000Z");
        assert_eq!(taken.0["spec"]["leaseTransitions"], 1);
        assert_eq!(taken.seen().version, "7");
        let renewed = Lease(taken.with(Some("me"), Timestamp::from_second(63).unwrap()));
        assert_eq!(renewed.0["spec"]["acquireTime"], taken.0["spec"]["acquireTime"]);
        assert_eq!((&renewed.0["spec"]["leaseTransitions"], renewed.seen().lasts), (&json!(1), DURATION));
        let other = Lease(renewed.with(Some("other"), now));
        assert_eq!(other.0["spec"]["leaseTransitions"], 2);
        let free = Lease(other.with(None, now)).seen();
        assert_eq!((free.holder.as_str(), free.lasts), ("", Duration::from_secs(1)));
        assert_eq!(
            Lease(json!({"spec": {"leaseTransitions": "x", "leaseDurationSeconds": -4}})).seen().lasts,
            DURATION
        );
    }
}
