//! Where a database is, and how it does.

use super::api::Api;
use super::autoscaling::Endpoint;
use super::{Found, Target};
use crate::config::Place;
use crate::failure::{Code, Failure};

impl Api<'_> {
    /// Finds a database. An instance that has meanwhile become an autoscaling project is found there; `known` is what was found
    /// last.
    ///
    /// # Errors
    /// Permanent: it is not there, or may not be seen. Transient: the API cannot say now.
    pub(crate) async fn find(&self, place: &Place, known: Option<&Found>) -> Result<Found, Failure> {
        match place {
            Place::Endpoint(name) => Ok(self.endpoint(name).await?.into_found()),
            Place::Instance(name) => self.find_instance(name, known).await,
            Place::Host(host) => self.find_host(host, known).await,
        }
    }

    async fn find_instance(&self, name: &str, known: Option<&Found>) -> Result<Found, Failure> {
        if let Some(found) = self.find_followed(known).await? {
            return Ok(found);
        }
        match self.instance(name).await {
            Ok(instance) => {
                let moved_to = instance.read_write_dns.clone().filter(|host| is_of_endpoint(host));
                let upgraded = match moved_to {
                    Some(host) => self.upgraded(name, Some(&host)).await?,
                    None => None,
                };
                Ok(upgraded.unwrap_or_else(|| instance.into_found(name)))
            }
            Err(failure) if failure.code == Code::Configuration => {
                // Why it is not there as an instance is what counts where it is no project either.
                let host = known.and_then(|known| known.host.as_deref());
                self.upgraded(name, host).await.ok().flatten().ok_or(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The endpoint that an instance was followed to before; none where there was none, or it is gone.
    async fn find_followed(&self, known: Option<&Found>) -> Result<Option<Found>, Failure> {
        let Some(Found { target: Target::Endpoint(endpoint), .. }) = known else { return Ok(None) };
        match self.endpoint(endpoint).await {
            Ok(endpoint) => Ok(Some(endpoint.into_found())),
            Err(failure) if failure.code == Code::Configuration => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The project of an instance's name, or that has its host.
    async fn upgraded(&self, name: &str, host: Option<&str>) -> Result<Option<Found>, Failure> {
        if let Ok(project) = self.project(name).await
            && let Some(found) = self.main_endpoint(&project.default_branch()).await?
        {
            return Ok(Some(found));
        }
        let mut called_so = None;
        self.projects(|project| {
            called_so = project.is_called(name).then_some(project);
            called_so.is_none()
        })
        .await?;
        if let Some(project) = called_so
            && let Some(found) = self.main_endpoint(&project.default_branch()).await?
        {
            return Ok(Some(found));
        }
        match host {
            Some(host) => Ok(self.endpoint_with(host).await?.map(Endpoint::into_found)),
            None => Ok(None),
        }
    }

    /// The endpoint of a branch that reads and writes.
    async fn main_endpoint(&self, branch: &str) -> Result<Option<Found>, Failure> {
        let mut main = None;
        self.endpoints_of(branch, |endpoint| {
            main = (!endpoint.only_reads()).then_some(endpoint);
            main.is_none()
        })
        .await?;
        Ok(main.map(Endpoint::into_found))
    }

    async fn find_host(&self, host: &str, known: Option<&Found>) -> Result<Found, Failure> {
        if let Some(uid) = uid_of(host) {
            match self.instance_by_uid(uid).await {
                Ok(instance) => {
                    let name = instance.name.clone().or_else(|| instance.uid.clone()).unwrap_or_else(|| uid.to_owned());
                    return Ok(instance.into_found(&name));
                }
                Err(failure) if failure.code == Code::Configuration => {}
                Err(failure) => return Err(failure),
            }
        }
        if let Some(found) = self.find_followed(known).await? {
            return Ok(found);
        }
        let found = self.endpoint_with(host).await?.map(Endpoint::into_found);
        found.ok_or_else(|| {
            let whose = self.line.origin();
            Failure::permanent(
                Code::Configuration,
                format!("no database that can be seen in {whose} has the host {host}"),
            )
            .hint("`dbx-rotator connections` lists those that can be seen")
        })
    }

    /// The endpoint that has this host, of all that can be seen.
    async fn endpoint_with(&self, host: &str) -> Result<Option<Endpoint>, Failure> {
        let mut projects = Vec::new();
        self.projects(|project| {
            projects.push(project.name);
            true
        })
        .await?;
        for project in projects {
            let mut branches = Vec::new();
            self.branches_of(&project, |branch| {
                branches.push(branch.name);
                true
            })
            .await?;
            for branch in branches {
                let mut with = None;
                self.endpoints_of(&branch, |endpoint| {
                    with = endpoint.has_host(host).then_some(endpoint);
                    with.is_none()
                })
                .await?;
                if with.is_some() {
                    return Ok(with);
                }
            }
        }
        Ok(None)
    }
}

/// Whether a host can be asked for: it has the form that Lakebase gives to its own.
pub(crate) fn is_lakebase_host(host: &str) -> bool {
    uid_of(host).is_some() || is_of_endpoint(host)
}

/// Whether a host is an autoscaling endpoint's: `ep-one-two-x.database.REGION.CLOUD`.
fn is_of_endpoint(host: &str) -> bool {
    host.split_once('.').is_some_and(|(label, rest)| label.starts_with("ep-") && rest.starts_with("database."))
}

/// The uid in a provisioned instance's host: `instance-UID.database.CLOUD`, `instance-ro-UID.database.CLOUD`.
fn uid_of(host: &str) -> Option<&str> {
    let (label, rest) = host.split_once('.')?;
    let uid = label.strip_prefix("instance-ro-").or_else(|| label.strip_prefix("instance-"))?;
    (rest.starts_with("database.") && !uid.is_empty()).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_both_families_are_known_by_their_form() {
        let uid = "0b1c2d3e-0000-4000-8000-00000000cafe";
        assert_eq!(uid_of(&format!("instance-{uid}.database.cloud.databricks.com")), Some(uid));
        assert_eq!(uid_of(&format!("instance-ro-{uid}.database.azuredatabricks.net")), Some(uid));
        assert!(is_of_endpoint("ep-quiet-sun-1.database.eu-west-1.cloud.databricks.com"));
        for host in ["db.example", "ep-1.example.com", "instance-.database.x", "localhost", "instance-x"] {
            assert!(!is_lakebase_host(host), "{host}");
        }
    }
}
