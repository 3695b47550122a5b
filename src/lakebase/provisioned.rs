//! Provisioned instances: the Database API (databricks-sdk-go, service/database).

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Page};
use super::classify::About;
use super::{DatabaseInfo, State, Target};
use crate::failure::Failure;
use crate::http::Answer;

/// An instance; only the fields that are used here. A reply may lack the name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Instance {
    pub(super) name: Option<String>,
    pub(super) uid: Option<String>,
    state: Option<String>,
    effective_stopped: bool,
    pub(super) read_write_dns: Option<String>,
    read_only_dns: Option<String>,
}

impl Instance {
    pub(super) fn state(&self) -> State {
        match self.state.as_deref() {
            Some("STOPPED") => State::Stopped,
            Some("AVAILABLE") if self.effective_stopped => State::Stopped,
            Some("AVAILABLE") => State::Available,
            Some("STARTING") => State::Starting,
            Some("UPDATING") => State::Updating,
            Some("FAILING_OVER") => State::FailingOver,
            Some("DELETING") => State::Deleting,
            _ => State::Unknown,
        }
    }

    /// The result. Its name is `asked_for` if the reply lacks one.
    pub(super) fn into_found(self, asked_for: &str) -> DatabaseInfo {
        let state = self.state();
        let name = self.name.unwrap_or_else(|| asked_for.to_owned());
        DatabaseInfo {
            target: Target::Instance(name),
            host: self.read_write_dns.filter(|host| !host.is_empty()),
            read_only_host: self.read_only_dns.filter(|host| !host.is_empty()),
            state,
            found_at: Timestamp::now(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Instances {
    #[serde(default)]
    database_instances: Vec<Instance>,
    next_page_token: Option<String>,
}

impl Page for Instances {
    type Item = Instance;

    fn into_parts(self) -> (Vec<Instance>, Option<String>) {
        (self.database_instances, self.next_page_token)
    }
}

#[derive(Deserialize)]
struct Credential {
    token: Option<SecretString>,
    expiration_time: Option<String>,
}

impl Api<'_> {
    pub(super) async fn instance(&self, name: &str) -> Result<Instance, Failure> {
        let about = About { verb: "look at", object: format!("instance {name}") };
        self.get(&["api", "2.0", "database", "instances", name], &[], &about).await
    }

    pub(super) async fn instance_by_uid(&self, uid: &str) -> Result<Instance, Failure> {
        let about = About { verb: "look at", object: format!("instance with uid {uid}") };
        self.get(&["api", "2.0", "database", "instances:findByUid"], &[("uid", uid)], &about).await
    }

    pub(super) async fn instances(&self, wanted: impl FnMut(Instance) -> bool) -> Result<(), Failure> {
        let about = About { verb: "list", object: "instances".to_owned() };
        self.pages::<Instances>(&["api", "2.0", "database", "instances"], &about, wanted).await
    }

    /// One credential for all of these instances.
    pub(super) async fn mint_for_instances(
        &self,
        names: &[&str],
    ) -> Result<(Option<SecretString>, Option<String>, Answer), Failure> {
        let plural = if names.len() == 1 { "instance" } else { "instances" };
        let about = About { verb: "mint a credential for", object: format!("{plural} {}", names.join(", ")) };
        let body = json!({"instance_names": names, "request_id": request_id()});
        let path = ["api", "2.0", "database", "credentials"];
        let (credential, answer): (Credential, Answer) = self.post(&path, &body, &about).await?;
        Ok((credential.token, credential.expiration_time, answer))
    }
}

/// A random UUID (RFC 9562, section 5.4), by which the workspace recognises a repeated request.
fn request_id() -> String {
    let random = fastrand::u128(..);
    let id = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{id:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_random_uuid() {
        for _ in 0..100 {
            let id = request_id();
            let parts: Vec<&str> = id.split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
            assert!(parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]), "{id}");
        }
        assert_ne!(request_id(), request_id());
    }

    #[test]
    fn a_state_is_read_with_what_stops_it() {
        let state = |text: &str| serde_json::from_str::<Instance>(text).unwrap().state();
        assert_eq!(state(r#"{"state":"AVAILABLE"}"#), State::Available);
        assert_eq!(state(r#"{"state":"AVAILABLE","effective_stopped":true}"#), State::Stopped);
        assert_eq!(state(r#"{"state":"STARTING","effective_stopped":true}"#), State::Starting);
        assert_eq!(state(r#"{"state":"HIBERNATING"}"#), State::Unknown);
        assert_eq!(state("{}"), State::Unknown);
    }
}
