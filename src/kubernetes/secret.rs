//! One Secret: what it is to hold, whether it does, and how it comes to.
//!
//! It is written by server-side apply, so that only what we apply is ours: other keys, labels and annotations are left alone.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::answers::{self, Rival};
use super::api::{ApiServer, Body, Call, Kind};
use crate::failure::{Code, Failure};
use crate::http::Answer;
use crate::model::ObjectName;

/// Who we are among those who manage fields of an object.
const MANAGER: &str = "dbx-rotator";

/// When the credential expires, for people and programs that look at the Secret.
const EXPIRES_AT: &str = "dbx-rotator.app/expires-at";

const APPLY: &str = "application/apply-patch+yaml";
const ASIDE: &str = "fieldManager=dbx-rotator&fieldValidation=Strict&force=false";
const FORCED: &str = "fieldManager=dbx-rotator&fieldValidation=Strict&force=true";

/// How long it all may take, from the look to the last of several requests.
pub(super) const WHOLE: Duration = Duration::from_secs(20);

/// What a Secret is to hold.
pub(crate) struct Wanted {
    pub(crate) name: ObjectName,
    /// Each key, and what stands there.
    pub(crate) pairs: Vec<(&'static str, Zeroizing<Vec<u8>>)>,
    pub(crate) expires_at: Timestamp,
    /// This program has written it before.
    pub(crate) is_known: bool,
}

/// How it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It holds what it should.
    Current,
    /// It did not, and does now.
    Behind,
}

/// The Secret, as it is sent.
#[derive(Serialize)]
struct Applied<'a> {
    #[serde(rename = "apiVersion")]
    version: &'static str,
    kind: &'static str,
    metadata: AppliedMetadata<'a>,
    r#type: &'static str,
    data: HashMap<&'static str, &'a str>,
}

#[derive(Serialize)]
struct AppliedMetadata<'a> {
    name: &'a str,
    namespace: &'a str,
    annotations: HashMap<&'static str, &'a str>,
}

/// The Secret, as far as it is read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Present {
    metadata: Metadata,
    data: HashMap<String, SecretString>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: HashMap<String, String>,
    #[serde(rename = "managedFields")]
    managed: Vec<Managed>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Managed {
    manager: String,
    operation: String,
}

impl ApiServer {
    /// Makes the Secret hold what is wanted, where it does not, within `limit`.
    ///
    /// # Errors
    /// The first thing that keeps it from being read or written.
    pub(crate) async fn bring(&self, wanted: &Wanted, limit: Duration) -> Result<Found, Failure> {
        tokio::time::timeout(limit.min(WHOLE), self.look_and_write(wanted)).await.unwrap_or_else(|_| {
            let message = format!("cannot write the Secret {}: there was no time left for it", wanted.name);
            Err(Failure::transient(Code::Unavailable, message).hint("it is tried again"))
        })
    }

    /// Whether the Secret holds what is wanted.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn holds(&self, wanted: &Wanted) -> Result<bool, Failure> {
        let namespace = self.namespace_of(&wanted.name)?;
        Ok(self.present(&wanted.call("get", &namespace)).await?.is_some_and(|present| present.holds(wanted)))
    }

    async fn look_and_write(&self, wanted: &Wanted) -> Result<Found, Failure> {
        let namespace = self.namespace_of(&wanted.name)?;
        let present = self.present(&wanted.call("get", &namespace)).await?;
        if present.as_ref().is_some_and(|present| present.holds(wanted)) {
            return Ok(Found::Current);
        }
        let call = wanted.call("patch", &namespace);
        let json = wanted.json(&namespace)?;
        let mut answer = self.apply(&call, &json, ASIDE).await?;
        let rivals = if answer.status == StatusCode::CONFLICT { answers::rivals(&answer) } else { Vec::new() };
        if !rivals.is_empty() {
            let is_ours = wanted.is_known || present.as_ref().is_some_and(Present::is_managed);
            // What somebody has changed by hand in what we had written is put right. What was there before us, or what another
            // program applies, stays theirs.
            if !is_ours || !rivals.iter().all(|rival: &Rival| rival.has_updated) {
                return Err(answers::conflict(&call, &rivals));
            }
            answer = self.apply(&call, &json, FORCED).await?;
        }
        if !answer.status.is_success() {
            return Err(answers::failure(&answer, &call, &self.named()));
        }
        read(&answer, &call)?.holds(wanted).then_some(Found::Behind).ok_or_else(|| {
            let message = format!("{} was written and holds something else now", call.what());
            Failure::permanent(Code::CannotWrite, message).hint("a webhook of the cluster may change what is written")
        })
    }

    async fn present(&self, call: &Call<'_>) -> Result<Option<Present>, Failure> {
        let answer = self.call(call, None, WHOLE).await?;
        match answer.status.as_u16() {
            200 => read(&answer, call).map(Some),
            404 => Ok(None),
            _ => Err(answers::failure(&answer, call, &self.named())),
        }
    }

    async fn apply(&self, call: &Call<'_>, json: &Zeroizing<Vec<u8>>, query: &'static str) -> Result<Answer, Failure> {
        self.call(call, Some(Body { kind: APPLY, json, query }), WHOLE).await
    }
}

impl Wanted {
    fn call<'a>(&'a self, verb: &'static str, namespace: &'a str) -> Call<'a> {
        Call { verb, kind: Kind::Secret, namespace, name: &self.name.name }
    }

    fn json(&self, namespace: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let values: Vec<(&'static str, Zeroizing<String>)> =
            self.pairs.iter().map(|(key, value)| (*key, Zeroizing::new(STANDARD.encode(value)))).collect();
        let expires_at = self.expires_at.to_string();
        let applied = Applied {
            version: "v1",
            kind: "Secret",
            metadata: AppliedMetadata {
                name: &self.name.name,
                namespace,
                annotations: [(EXPIRES_AT, expires_at.as_str())].into_iter().collect(),
            },
            r#type: "Opaque",
            data: values.iter().map(|(key, value)| (*key, value.as_str())).collect(),
        };
        // Growing would leave copies in memory.
        let length: usize = values.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
        let mut json = Zeroizing::new(Vec::with_capacity(length + 2048));
        serde_json::to_writer(&mut *json, &applied).map_err(|_| {
            Failure::permanent(Code::Configuration, format!("the Secret {} cannot be written as JSON", self.name))
        })?;
        Ok(json)
    }
}

impl Present {
    fn holds(&self, wanted: &Wanted) -> bool {
        let is_there = |(key, value): &(&'static str, Zeroizing<Vec<u8>>)| {
            let meant = Zeroizing::new(STANDARD.encode(value));
            self.data.get(*key).is_some_and(|found| found.expose_secret() == meant.as_str())
        };
        self.metadata.annotations.get(EXPIRES_AT) == Some(&wanted.expires_at.to_string())
            && wanted.pairs.iter().all(is_there)
    }

    /// Whether something in it is ours.
    fn is_managed(&self) -> bool {
        self.metadata.managed.iter().any(|one| one.manager == MANAGER && one.operation == "Apply")
    }
}

pub(super) fn read(answer: &Answer, call: &Call<'_>) -> Result<Present, Failure> {
    serde_json::from_slice(&answer.body).map_err(|_| {
        let message = format!("the answer about {} cannot be read", call.what());
        Failure::transient(Code::Unavailable, message).hint("check that KUBERNETES_SERVICE_HOST names the API server")
    })
}
