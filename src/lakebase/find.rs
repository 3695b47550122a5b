//! Where a database is, and its state.

use super::api::Api;
use super::autoscaling::Endpoint;
use super::{DatabaseInfo, Target};
use crate::failure::{Code, Failure};
use crate::model::{DatabaseRef, is_of_endpoint, uid_of};

impl Api<'_> {
    /// Finds a database. An instance that has become an autoscaling project is found there; `known` is the last result.
    ///
    /// # Errors
    /// Permanent: it does not exist, or this identity may not see it. Transient: the API cannot answer now.
    pub(crate) async fn find(
        &self,
        database_ref: &DatabaseRef,
        known: Option<&DatabaseInfo>,
    ) -> Result<DatabaseInfo, Failure> {
        match database_ref {
            DatabaseRef::Endpoint(name) => Ok(self.endpoint(name).await?.into_found()),
            DatabaseRef::Instance(name) => self.find_instance(name, known).await,
            DatabaseRef::Host(host) => self.find_host(host, known).await,
        }
    }

    async fn find_instance(&self, name: &str, known: Option<&DatabaseInfo>) -> Result<DatabaseInfo, Failure> {
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
                // If it is not a project either, the failure of the instance is what counts.
                let host = known.and_then(|known| known.host.as_deref());
                self.upgraded(name, host).await.ok().flatten().ok_or(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The endpoint that the instance had become when it was last found; none if it had not, or the endpoint is gone.
    async fn find_followed(&self, known: Option<&DatabaseInfo>) -> Result<Option<DatabaseInfo>, Failure> {
        let Some(DatabaseInfo { target: Target::Endpoint(endpoint), .. }) = known else { return Ok(None) };
        match self.endpoint(endpoint).await {
            Ok(endpoint) => Ok(Some(endpoint.into_found())),
            Err(failure) if failure.code == Code::Configuration => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The project that has the instance's name or host.
    async fn upgraded(&self, name: &str, host: Option<&str>) -> Result<Option<DatabaseInfo>, Failure> {
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

    /// The read-write endpoint of a branch.
    async fn main_endpoint(&self, branch: &str) -> Result<Option<DatabaseInfo>, Failure> {
        let mut main = None;
        self.endpoints_of(branch, |endpoint| {
            main = (!endpoint.only_reads()).then_some(endpoint);
            main.is_none()
        })
        .await?;
        Ok(main.map(Endpoint::into_found))
    }

    async fn find_host(&self, host: &str, known: Option<&DatabaseInfo>) -> Result<DatabaseInfo, Failure> {
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
            let whose = self.http.origin();
            Failure::permanent(
                Code::Configuration,
                format!("no database that can be seen in {whose} has the host {host}"),
            )
            .hint("`dbx-rotator connections` lists those that can be seen")
        })
    }

    /// The endpoint with this host, among all that can be seen.
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
