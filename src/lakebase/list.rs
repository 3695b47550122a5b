//! The databases that an identity can see.

use super::api::{Api, MOST_OBJECTS};
use super::classify::{About, nonsense};
use super::{DatabaseInfo, Target};
use crate::failure::{Code, Failure};
use crate::model::short_name;

/// One database of a workspace.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// A suitable name for a connection to it.
    pub(crate) name: String,
    pub(crate) found: DatabaseInfo,
}

impl Api<'_> {
    /// All instances and endpoints, by name. If the workspace has only one of the two families, the other counts as empty.
    ///
    /// # Errors
    /// As every call of the API.
    pub(crate) async fn databases(&self) -> Result<Vec<Database>, Failure> {
        let instances = self.instance_databases().await;
        let endpoints = self.endpoint_databases().await;
        let mut all = match (instances, endpoints) {
            (Ok(instances), Ok(endpoints)) => instances.into_iter().chain(endpoints).collect::<Vec<_>>(),
            (Ok(one), Err(failure)) | (Err(failure), Ok(one)) if is_absent(&failure) => one,
            (Err(failure), Err(absent)) | (Err(absent), Err(failure)) if is_absent(&absent) => return Err(failure),
            (Err(failure), _) | (_, Err(failure)) => return Err(failure),
        };
        // An instance that became a project may be listed as both.
        let hosts: Vec<String> =
            all.iter().filter(|one| is_endpoint(one)).filter_map(|one| one.found.host.clone()).collect();
        all.retain(|one| is_endpoint(one) || one.found.host.as_ref().is_none_or(|host| !hosts.contains(host)));
        all.sort_by(|one, other| one.name.cmp(&other.name).then_with(|| one.found.target.cmp(&other.found.target)));
        Ok(all)
    }

    async fn instance_databases(&self) -> Result<Vec<Database>, Failure> {
        let mut all = Vec::new();
        self.instances(|instance| {
            if let Some(name) = instance.name.clone() {
                let found = instance.into_found(&name);
                all.push(Database { name, found });
            }
            true
        })
        .await?;
        Ok(all)
    }

    async fn endpoint_databases(&self) -> Result<Vec<Database>, Failure> {
        let mut projects = Vec::new();
        self.projects(|project| {
            projects.push(project);
            true
        })
        .await?;
        let mut branches = Vec::new();
        for project in projects {
            self.branches_of(&project.name, |branch| {
                branches.push(branch.name);
                true
            })
            .await?;
            self.check_number(branches.len(), "branches")?;
        }
        let mut all = Vec::new();
        for branch in branches {
            self.endpoints_of(&branch, |endpoint| {
                let name = short_name(&endpoint.name);
                all.push(Database { name, found: endpoint.into_found() });
                true
            })
            .await?;
            self.check_number(all.len(), "endpoints")?;
        }
        Ok(all)
    }

    /// That the lists of all projects and branches together end somewhere.
    fn check_number(&self, of: usize, object: &str) -> Result<(), Failure> {
        if of <= MOST_OBJECTS {
            return Ok(());
        }
        let about = About { verb: "list", object: object.to_owned() };
        Err(nonsense(self.http.origin(), &about, "with a list that does not end"))
    }
}

fn is_endpoint(one: &Database) -> bool {
    matches!(one.found.target, Target::Endpoint(_))
}

/// Whether the failure means that the workspace does not have this API.
fn is_absent(failure: &Failure) -> bool {
    failure.code == Code::Configuration
}
