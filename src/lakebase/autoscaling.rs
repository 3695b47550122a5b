//! Autoscaling projects, their branches and endpoints: the Postgres API (databricks-sdk-go, service/postgres).

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Page};
use super::classify::About;
use super::{DatabaseInfo, State, Target};
use crate::failure::Failure;
use crate::http::Answer;

/// The longest life that can be requested, in seconds.
const LONGEST: u32 = 3600;

/// An endpoint; only the fields that are used here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    pub(super) name: String,
    status: EndpointStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointStatus {
    current_state: Option<String>,
    endpoint_type: Option<String>,
    disabled: bool,
    hosts: Hosts,
}

/// Hosts without a pooler; the pooler's hosts do not accept tokens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Hosts {
    host: Option<String>,
    read_only_host: Option<String>,
}

impl Endpoint {
    pub(super) fn state(&self) -> State {
        match self.status.current_state.as_deref() {
            _ if self.status.disabled => State::Disabled,
            Some("ACTIVE") => State::Available,
            Some("IDLE") => State::Idle,
            Some("INIT") => State::Starting,
            Some("DEGRADED") => State::Degraded,
            _ => State::Unknown,
        }
    }

    pub(super) fn only_reads(&self) -> bool {
        self.status.endpoint_type.as_deref() == Some("ENDPOINT_TYPE_READ_ONLY")
    }

    pub(super) fn has_host(&self, host: &str) -> bool {
        let Hosts { host: own, read_only_host } = &self.status.hosts;
        [own, read_only_host].into_iter().flatten().any(|own| own.eq_ignore_ascii_case(host))
    }

    pub(super) fn into_found(self) -> DatabaseInfo {
        let state = self.state();
        DatabaseInfo {
            target: Target::Endpoint(self.name),
            host: self.status.hosts.host.filter(|host| !host.is_empty()),
            read_only_host: self.status.hosts.read_only_host.filter(|host| !host.is_empty()),
            state,
            found_at: Timestamp::now(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Endpoints {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    next_page_token: Option<String>,
}

impl Page for Endpoints {
    type Item = Endpoint;

    fn into_parts(self) -> (Vec<Endpoint>, Option<String>) {
        (self.endpoints, self.next_page_token)
    }
}

/// A branch; only its name is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Branch {
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct Branches {
    #[serde(default)]
    branches: Vec<Branch>,
    next_page_token: Option<String>,
}

impl Page for Branches {
    type Item = Branch;

    fn into_parts(self) -> (Vec<Branch>, Option<String>) {
        (self.branches, self.next_page_token)
    }
}

/// A project; only the fields that are used here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Project {
    pub(super) name: String,
    status: ProjectStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ProjectStatus {
    default_branch: Option<String>,
    display_name: Option<String>,
}

impl Project {
    /// Whether this is its id or its display name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.strip_prefix("projects/") == Some(name) || self.status.display_name.as_deref() == Some(name)
    }

    /// The resource name of its default branch. The API may return it in full or only its last part.
    pub(super) fn default_branch(&self) -> String {
        match self.status.default_branch.as_deref() {
            Some(whole) if whole.starts_with("projects/") => whole.to_owned(),
            Some(id) => format!("{}/branches/{id}", self.name),
            None => format!("{}/branches/production", self.name),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Projects {
    #[serde(default)]
    projects: Vec<Project>,
    next_page_token: Option<String>,
}

impl Page for Projects {
    type Item = Project;

    fn into_parts(self) -> (Vec<Project>, Option<String>) {
        (self.projects, self.next_page_token)
    }
}

#[derive(Deserialize)]
struct Credential {
    token: Option<SecretString>,
    expire_time: Option<String>,
}

/// The path segments of a resource, or of a collection below it.
fn path<'a>(resource: &'a str, below: Option<&'a str>) -> Vec<&'a str> {
    ["api", "2.0", "postgres"].into_iter().chain(resource.split('/')).chain(below).collect()
}

impl Api<'_> {
    pub(super) async fn endpoint(&self, name: &str) -> Result<Endpoint, Failure> {
        let about = About { verb: "look at", object: format!("endpoint {name}") };
        self.get(&path(name, None), &[], &about).await
    }

    pub(super) async fn project(&self, name: &str) -> Result<Project, Failure> {
        let about = About { verb: "look at", object: format!("project {name}") };
        self.get(&["api", "2.0", "postgres", "projects", name], &[], &about).await
    }

    pub(super) async fn projects(&self, wanted: impl FnMut(Project) -> bool) -> Result<(), Failure> {
        let about = About { verb: "list", object: "projects".to_owned() };
        self.pages::<Projects>(&["api", "2.0", "postgres", "projects"], &about, wanted).await
    }

    pub(super) async fn branches_of(&self, project: &str, wanted: impl FnMut(Branch) -> bool) -> Result<(), Failure> {
        let about = About { verb: "list", object: format!("branches of {project}") };
        self.pages::<Branches>(&path(project, Some("branches")), &about, wanted).await
    }

    pub(super) async fn endpoints_of(&self, branch: &str, wanted: impl FnMut(Endpoint) -> bool) -> Result<(), Failure> {
        let about = About { verb: "list", object: format!("endpoints of {branch}") };
        self.pages::<Endpoints>(&path(branch, Some("endpoints")), &about, wanted).await
    }

    pub(super) async fn mint_for_endpoint(
        &self,
        name: &str,
        ttl: Option<u32>,
    ) -> Result<(Option<SecretString>, Option<String>, Answer), Failure> {
        let about = About { verb: "mint a credential for", object: format!("endpoint {name}") };
        // A protobuf duration.
        let body = json!({"endpoint": name, "ttl": format!("{}s", ttl.unwrap_or(LONGEST))});
        let path = ["api", "2.0", "postgres", "credentials"];
        let (credential, answer): (Credential, Answer) = self.post(&path, &body, &about).await?;
        Ok((credential.token, credential.expire_time, answer))
    }
}
