//! Lakebase in the stand-in workspace: its objects, who may see them, and what was minted.
//!
//! A credential is a token by the workspace's own signer for the identity that asks, with its own life. It opens
//! databases but no API.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::{Endpoint, Workspace};

#[path = "lakebase/answers.rs"]
pub mod answers;
#[path = "lakebase/objects.rs"]
mod objects;

pub use objects::{Branch, ComputeEndpoint, Instance, Project};

/// The most that a list returns at once, whatever is asked for.
pub const LARGEST_PAGE: usize = 100;

/// What happens to an instance that was upgraded to an Autoscaling project. No public source says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// The Database API no longer knows it.
    Gone,
    /// The Database API still lists it, with the new host, but refuses to mint for its name.
    StillListed,
}

#[derive(Clone)]
pub struct Lakebase {
    pub database_api: bool,
    pub postgres_api: bool,
    pub page_size: usize,
    pub credential_life: Duration,
    instances: Vec<Instance>,
    projects: Vec<Project>,
    /// An identity, and the instance or project that it may not see.
    hidden: HashSet<(String, String)>,
    forbidden: HashSet<String>,
    minted: usize,
    requests: Vec<Value>,
}

impl Default for Lakebase {
    fn default() -> Self {
        Self {
            database_api: true,
            postgres_api: true,
            page_size: LARGEST_PAGE,
            credential_life: Duration::from_secs(3600),
            instances: Vec::new(),
            projects: Vec::new(),
            hidden: HashSet::new(),
            forbidden: HashSet::new(),
            minted: 0,
            requests: Vec::new(),
        }
    }
}

impl Lakebase {
    fn speaks(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::DatabaseCredentials | Endpoint::DatabaseInstances | Endpoint::DatabaseInstance => {
                self.database_api
            }
            _ => self.postgres_api,
        }
    }

    fn shows(&self, identity: &str, object: &str) -> bool {
        !self.forbidden.contains(identity) && !self.hidden.contains(&(identity.to_owned(), object.to_owned()))
    }

    fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    fn project(&self, name: &str) -> Option<&Project> {
        self.projects.iter().find(|project| project.name == name)
    }

    fn endpoint_mut(&mut self, resource: &str) -> Option<&mut ComputeEndpoint> {
        let parts: Vec<&str> = resource.split('/').collect();
        let ["projects", project, "branches", branch, "endpoints", endpoint] = parts[..] else { return None };
        let project = self.projects.iter_mut().find(|known| known.name == project)?;
        let branch = project.branches.iter_mut().find(|known| known.name == branch)?;
        branch.endpoints.iter_mut().find(|known| known.name == endpoint)
    }
}

/// A test's set-up of Lakebase, and its view of it.
impl Workspace {
    /// Adds an instance, or replaces the one with the same name.
    pub fn add_instance(&self, instance: Instance) {
        self.lakebase(|lakebase| {
            lakebase.instances.retain(|known| known.name != instance.name);
            lakebase.instances.push(instance);
        });
    }

    pub fn instance(&self, name: &str) -> Instance {
        self.lakebase(|lakebase| lakebase.instance(name).cloned()).expect("an instance of that name")
    }

    pub fn change_instance(&self, name: &str, change: impl FnOnce(Instance) -> Instance) {
        self.lakebase(|lakebase| {
            let known = lakebase.instances.iter_mut().find(|instance| instance.name == name);
            let known = known.expect("an instance of that name");
            *known = change(known.clone());
        });
    }

    pub fn remove_instance(&self, name: &str) {
        self.lakebase(|lakebase| lakebase.instances.retain(|known| known.name != name));
    }

    /// The instance becomes a project with the same name.
    pub fn upgrade_instance(&self, name: &str, upgraded: Upgraded) {
        let mut project = Project::named(name);
        project.uid = self.instance(name).uid;
        let host = project.branches[0].endpoints[0].host.clone();
        match upgraded {
            Upgraded::Gone => self.remove_instance(name),
            Upgraded::StillListed => {
                self.change_instance(name, |instance| Instance { host, upgraded: true, ..instance });
            }
        }
        self.add_project(project);
    }

    /// Adds a project, or replaces the one with the same name.
    pub fn add_project(&self, project: Project) {
        self.lakebase(|lakebase| {
            lakebase.projects.retain(|known| known.name != project.name);
            lakebase.projects.push(project);
        });
    }

    pub fn project(&self, name: &str) -> Project {
        self.lakebase(|lakebase| lakebase.project(name).cloned()).expect("a project of that name")
    }

    pub fn change_project(&self, name: &str, change: impl FnOnce(Project) -> Project) {
        self.lakebase(|lakebase| {
            let known = lakebase.projects.iter_mut().find(|project| project.name == name);
            let known = known.expect("a project of that name");
            *known = change(known.clone());
        });
    }

    pub fn remove_project(&self, name: &str) {
        self.lakebase(|lakebase| lakebase.projects.retain(|known| known.name != name));
    }

    /// By its full name, `projects/shop/branches/production/endpoints/primary`.
    pub fn compute_endpoint(&self, resource: &str) -> ComputeEndpoint {
        self.lakebase(|lakebase| lakebase.endpoint_mut(resource).cloned()).expect("an endpoint of that name")
    }

    pub fn change_endpoint(&self, resource: &str, change: impl FnOnce(ComputeEndpoint) -> ComputeEndpoint) {
        self.lakebase(|lakebase| {
            let known = lakebase.endpoint_mut(resource).expect("an endpoint of that name");
            *known = change(known.clone());
        });
    }

    /// This identity may not see this instance or project.
    pub fn hide_from(&self, identity: &str, object: &str) {
        self.lakebase(|lakebase| lakebase.hidden.insert((identity.to_owned(), object.to_owned())));
    }

    /// This identity may see nothing of Lakebase and mint nothing, until [`Workspace::allow`].
    pub fn forbid(&self, identity: &str) {
        self.lakebase(|lakebase| lakebase.forbidden.insert(identity.to_owned()));
    }

    /// This identity may see everything again.
    pub fn allow(&self, identity: &str) {
        self.lakebase(|lakebase| {
            lakebase.forbidden.remove(identity);
            lakebase.hidden.retain(|(who, _)| who != identity);
        });
    }

    pub fn set_credential_life(&self, life: Duration) {
        self.lakebase(|lakebase| lakebase.credential_life = life);
    }

    /// The number of credentials that both APIs issued.
    pub fn credentials_minted(&self) -> usize {
        self.lakebase(|lakebase| lakebase.minted)
    }

    /// Waits until this many credentials have been issued since the start; false if the time runs out first.
    pub fn wait_for_credentials(&self, n: usize, limit: Duration) -> bool {
        self.shared.wait_until(limit, |state| state.lakebase.minted >= n)
    }

    /// The contents of each readable request for a credential, in order, granted or not.
    pub fn credential_requests(&self) -> Vec<Value> {
        self.lakebase(|lakebase| lakebase.requests.clone())
    }

    fn lakebase<T>(&self, with: impl FnOnce(&mut Lakebase) -> T) -> T {
        with(&mut self.shared.state().lakebase)
    }
}
