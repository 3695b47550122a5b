//! A workspace's Lakebase objects: instances of the Database API, projects of the Postgres API.
//!
//! Each object starts with its kind's defaults; a test sets what differs. The JSON field names are those of the
//! vendor's generated client, which also leaves out what is empty.

use serde_json::{Map, Value, json};

use super::super::tokens::random_hex;

const CREATED: &str = "2026-01-02T03:04:05Z";
const CREATOR: &str = "grace@example.com";

/// A database instance (Lakebase Provisioned), with the name that its owner gave it.
#[derive(Clone, Debug)]
pub struct Instance {
    pub name: String,
    pub uid: String,
    pub state: String,
    pub host: Option<String>,
    pub read_only_host: Option<String>,
    pub stopped: bool,
    /// Replies leave out the name.
    pub nameless: bool,
    /// Still listed, but credentials can no longer be minted by its name.
    pub upgraded: bool,
}

impl Instance {
    pub fn named(name: &str) -> Self {
        let uid = random_uuid();
        Self {
            name: name.to_owned(),
            host: Some(format!("instance-{uid}.database.cloud.databricks.com")),
            uid,
            state: "AVAILABLE".to_owned(),
            read_only_host: None,
            stopped: false,
            nameless: false,
            upgraded: false,
        }
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub fn without_host(mut self) -> Self {
        self.host = None;
        self
    }

    /// Readable secondaries, all behind this name.
    pub fn read_only_host(mut self, host: &str) -> Self {
        self.read_only_host = Some(host.to_owned());
        self
    }

    /// AVAILABLE, STARTING, STOPPED, UPDATING, DELETING, FAILING_OVER.
    pub fn state(mut self, state: &str) -> Self {
        state.clone_into(&mut self.state);
        self
    }

    pub fn stopped(mut self) -> Self {
        self.stopped = true;
        self.state("STOPPED")
    }

    pub fn without_name(mut self) -> Self {
        self.nameless = true;
        self
    }

    pub fn json(&self) -> Value {
        let mut json = json!({
            "uid": self.uid,
            "state": self.state,
            "capacity": "CU_1",
            "creation_time": CREATED,
            "creator": CREATOR,
            "pg_version": "PG_VERSION_16",
            "effective_stopped": self.stopped,
            "effective_enable_pg_native_login": false,
            "effective_enable_readable_secondaries": self.read_only_host.is_some(),
            "effective_node_count": if self.read_only_host.is_some() { 2 } else { 1 },
            "effective_retention_window_in_days": 7,
        });
        put(&mut json, "name", (!self.nameless).then_some(&self.name));
        put(&mut json, "read_write_dns", self.host.as_ref());
        put(&mut json, "read_only_dns", self.read_only_host.as_ref());
        json
    }
}

/// A project (Lakebase Autoscaling): `projects/{name}`, with branches that hold endpoints.
#[derive(Clone, Debug)]
pub struct Project {
    pub name: String,
    pub uid: String,
    pub display_name: String,
    pub default_branch: Option<String>,
    pub branches: Vec<Branch>,
}

impl Project {
    /// With the branch `production` and its endpoint `primary`.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: random_uuid(),
            display_name: format!("The {name} project"),
            default_branch: Some("production".to_owned()),
            branches: vec![Branch::named("production")],
        }
    }

    /// Adds a branch, or replaces the one with the same name.
    pub fn branch(mut self, branch: Branch) -> Self {
        self.branches.retain(|known| known.name != branch.name);
        self.branches.push(branch);
        self
    }

    pub fn default_branch(mut self, name: &str) -> Self {
        self.default_branch = Some(name.to_owned());
        self
    }

    pub fn without_default_branch(mut self) -> Self {
        self.default_branch = None;
        self
    }

    /// Changes the endpoint `primary` of the branch `production`.
    pub fn primary(mut self, change: impl FnOnce(ComputeEndpoint) -> ComputeEndpoint) -> Self {
        let primary = self.branches.iter_mut().find_map(|branch| branch.find_mut("primary"));
        let primary = primary.expect("a project whose endpoint primary is there");
        *primary = change(primary.clone());
        self
    }

    pub fn resource(&self) -> String {
        format!("projects/{}", self.name)
    }

    pub fn json(&self) -> Value {
        let mut status = json!({
            "project_id": self.name,
            "display_name": self.display_name,
            "owner": CREATOR,
            "pg_version": 17,
            "enable_pg_native_login": false,
            "history_retention_duration": "604800s",
        });
        let default_branch =
            self.default_branch.as_ref().map(|branch| format!("{}/branches/{branch}", self.resource()));
        put(&mut status, "default_branch", default_branch.as_ref());
        json!({
            "name": self.resource(),
            "project_id": self.name,
            "uid": self.uid,
            "create_time": CREATED,
            "update_time": CREATED,
            "status": status,
        })
    }
}

#[derive(Clone, Debug)]
pub struct Branch {
    pub name: String,
    pub uid: String,
    pub endpoints: Vec<ComputeEndpoint>,
}

impl Branch {
    /// With the endpoint `primary`.
    pub fn named(name: &str) -> Self {
        let uid = format!("br-{}", random_hex(6));
        Self { name: name.to_owned(), uid, endpoints: vec![ComputeEndpoint::named("primary")] }
    }

    pub fn without_endpoints(mut self) -> Self {
        self.endpoints.clear();
        self
    }

    /// Adds an endpoint, or replaces the one with the same name.
    pub fn endpoint(mut self, endpoint: ComputeEndpoint) -> Self {
        self.endpoints.retain(|known| known.name != endpoint.name);
        self.endpoints.push(endpoint);
        self
    }

    fn find_mut(&mut self, endpoint: &str) -> Option<&mut ComputeEndpoint> {
        self.endpoints.iter_mut().find(|known| known.name == endpoint)
    }

    pub fn resource(&self, project: &Project) -> String {
        format!("{}/branches/{}", project.resource(), self.name)
    }

    pub fn json(&self, project: &Project) -> Value {
        json!({
            "name": self.resource(project),
            "branch_id": self.name,
            "parent": project.resource(),
            "uid": self.uid,
            "create_time": CREATED,
            "update_time": CREATED,
            "status": {
                "branch_id": self.name,
                "current_state": "READY",
                "default": project.default_branch.as_ref() == Some(&self.name),
                "is_protected": false,
            },
        })
    }
}

/// What clients connect to: `projects/{p}/branches/{b}/endpoints/{name}`.
#[derive(Clone, Debug)]
pub struct ComputeEndpoint {
    pub name: String,
    pub uid: String,
    pub host: Option<String>,
    pub read_only_host: Option<String>,
    pub state: String,
    pub read_only: bool,
    pub disabled: bool,
}

impl ComputeEndpoint {
    pub fn named(name: &str) -> Self {
        let uid = format!("ep-quiet-meadow-{}", random_hex(4));
        Self {
            name: name.to_owned(),
            host: Some(format!("{uid}.database.eu-west-1.cloud.databricks.com")),
            uid,
            read_only_host: None,
            state: "ACTIVE".to_owned(),
            read_only: false,
            disabled: false,
        }
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// As while it is being made: the pooler's name is missing then, too.
    pub fn without_host(mut self) -> Self {
        self.host = None;
        self
    }

    /// Readable secondaries, with `-ro` after the host's first label.
    pub fn with_secondaries(mut self) -> Self {
        self.read_only_host = self.host.as_deref().map(|host| suffixed(host, "-ro"));
        self
    }

    /// A read-only endpoint, whose two host names are the same.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self.read_only_host = self.host.clone();
        self
    }

    /// ACTIVE, IDLE, INIT, DEGRADED.
    pub fn state(mut self, state: &str) -> Self {
        state.clone_into(&mut self.state);
        self
    }

    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    pub fn json(&self, branch: &Branch, project: &Project) -> Value {
        let mut hosts = json!({});
        put(&mut hosts, "host", self.host.as_ref());
        put(&mut hosts, "read_only_host", self.read_only_host.as_ref());
        let pooler = |host: &Option<String>| host.as_deref().map(|host| suffixed(host, "-pooler"));
        put(&mut hosts, "read_write_pooled_host", pooler(&self.host).filter(|_| !self.read_only).as_ref());
        put(&mut hosts, "read_only_pooled_host", pooler(&self.read_only_host).as_ref());
        let parent = branch.resource(project);
        json!({
            "name": format!("{parent}/endpoints/{}", self.name),
            "endpoint_id": self.name,
            "parent": parent,
            "uid": self.uid,
            "create_time": CREATED,
            "update_time": CREATED,
            "status": {
                "endpoint_id": self.name,
                "endpoint_type": if self.read_only { "ENDPOINT_TYPE_READ_ONLY" } else { "ENDPOINT_TYPE_READ_WRITE" },
                "current_state": self.state,
                "disabled": self.disabled,
                "autoscaling_limit_min_cu": 0.5,
                "autoscaling_limit_max_cu": 4.0,
                "suspend_timeout_duration": "300s",
                "hosts": hosts,
            },
        })
    }
}

fn put(object: &mut Value, field: &str, value: Option<&String>) {
    let object: &mut Map<String, Value> = object.as_object_mut().expect("an object");
    if let Some(value) = value {
        object.insert(field.to_owned(), json!(value));
    }
}

/// The host with this suffix after its first label.
fn suffixed(host: &str, suffix: &str) -> String {
    let (label, domain) = host.split_once('.').expect("a host with a domain");
    format!("{label}{suffix}.{domain}")
}

fn random_uuid() -> String {
    let hex = random_hex(16);
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}
