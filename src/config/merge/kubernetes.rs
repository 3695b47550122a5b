//! The settings for Kubernetes: the Secret of a connection, the Lease, and where the service account is.

use std::collections::HashMap;

use serde_spanned::Spanned;

use super::Merge;
use crate::config::fault::ConfigError;
use crate::config::file::ConnectionTable;
use crate::config::paths::Access;
use crate::model::{Cluster, Connection, KubernetesSecret, ObjectName};

impl Merge<'_> {
    pub(super) fn cluster(&mut self) -> Result<Cluster, ConfigError> {
        let mut cluster = Cluster::default();
        if let Some(written) = self.head("kubernetes_lease", |file| file.kubernetes_lease.as_ref())? {
            cluster.lease = match written.get_ref().as_str() {
                "" => None,
                name => Some(self.object("kubernetes_lease", written, name)?),
            };
            self.note_written("", "kubernetes_lease", written, |name| name.clone());
        }
        // The token in it is read by this process alone, and sent to no other address than that of the API server.
        let account = self.head("kubernetes_service_account", |file| file.kubernetes_service_account.as_ref())?;
        if let Some(directory) = self.file_beside("", "kubernetes_service_account", account, Access::Reads)? {
            cluster.account = directory;
        }
        Ok(cluster)
    }

    pub(super) fn kubernetes_secret(
        &mut self,
        section: &str,
        table: &ConnectionTable,
    ) -> Result<Option<KubernetesSecret>, ConfigError> {
        let has_uri = self.switch(section, "kubernetes_secret_uri", table.kubernetes_secret_uri.as_ref());
        let Some(written) = &table.kubernetes_secret else {
            return match &table.kubernetes_secret_uri {
                Some(switch) if has_uri => {
                    let why = "kubernetes_secret_uri is about a Secret, and there is none";
                    Err(self.fault_at(switch, why).hint("add kubernetes_secret = \"NAME\", or leave it out"))
                }
                _ => Ok(None),
            };
        };
        let name = self.object("kubernetes_secret", written, written.get_ref())?;
        self.note_written(section, "kubernetes_secret", written, |name| name.clone());
        Ok(Some(KubernetesSecret { name, has_uri }))
    }

    fn object(&self, key: &str, written: &Spanned<String>, name: &str) -> Result<ObjectName, ConfigError> {
        ObjectName::parse(name)
            .map_err(|why| self.fault_at(written, why).hint(format!("write {key} = \"NAME\", or \"NAMESPACE/NAME\"")))
    }

    /// That no two connections have one Secret.
    pub(super) fn check_secret(
        &self,
        table: &ConnectionTable,
        connection: &Connection,
        taken: &mut HashMap<ObjectName, String>,
    ) -> Result<(), ConfigError> {
        let (Some(written), Some(secret)) = (&table.kubernetes_secret, &connection.outputs.kubernetes_secret) else {
            return Ok(());
        };
        match taken.insert(secret.name.clone(), connection.name().to_owned()) {
            Some(other) => {
                let why = format!("{other} has the Secret {} already", secret.name);
                Err(self.fault_at(written, why).hint("give each connection a Secret of its own"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn load(head: &str, connections: &[&str]) -> Result<Config, ConfigError> {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config.toml");
        let mut text = format!("{head}\n[[workspace]]\nhost = 'https://w.example'\nauth = 'databricks-cli'\n");
        for (number, more) in connections.iter().enumerate() {
            text += &format!("[[connection]]\nname = 'c{number}'\nhost = 'h{number}.example'\n{more}\n");
        }
        std::fs::write(&file, text).unwrap();
        let environment = [("HOME", home.path().as_os_str().to_owned())].into_iter().collect();
        Config::load_in(environment, &Overrides { config: Some(file), ..Overrides::default() })
    }

    #[test]
    fn a_secret_has_one_connection_and_a_lease_can_be_left_out() {
        let named = load("", &["kubernetes_secret = 'shop/orders'\nkubernetes_secret_uri = true"]).ok().unwrap();
        let secret = named.connections[0].outputs.kubernetes_secret.clone().unwrap();
        assert_eq!((secret.name.to_string().as_str(), secret.has_uri), ("shop/orders", true));
        assert_eq!(named.cluster, Cluster::default());
        let own = load("kubernetes_lease = ''\nkubernetes_service_account = '/sa'", &[""]).ok().unwrap();
        assert_eq!((own.cluster.lease, own.cluster.account.to_str()), (None, Some("/sa")));
        let lease = load("kubernetes_lease = 'shop/l'", &[""]).ok().unwrap().cluster.lease.unwrap();
        assert_eq!(lease.to_string(), "shop/l");
        let refused = |head: &str, connections: &[&str]| load(head, connections).err().unwrap().sentence();
        for name in ["Orders", "a/b/c", "../x", "", "a_b"] {
            let said = refused("", &[&format!("kubernetes_secret = '{name}'")]);
            assert!(said.contains("is not the name of"), "{said}");
        }
        assert!(refused("kubernetes_lease = 'A'", &[""]).contains("is not the name of an object"));
        assert!(
            refused("", &["kubernetes_secret = 'a'", "kubernetes_secret = 'a'"])
                .contains("c0 has the Secret a already")
        );
        assert!(refused("", &["kubernetes_secret_uri = true"]).contains("there is none"));
    }
}
