//! Values from the command line or the library's builder: the source that wins over all others.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::fault::ConfigError;
use super::secret::keep_if_no_path;
use crate::os::dirs::Environment;

/// Settings given by flag. Each doc comment is also the flag's help.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Settings"))]
pub struct Overrides {
    /// Workspace address, such as dbc-1234.cloud.databricks.com [env: DATABRICKS_HOST]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "URL"))]
    pub workspace_url: Option<String>,
    /// Client id of a service principal [env: DATABRICKS_CLIENT_ID]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "ID"))]
    pub client_id: Option<String>,
    /// Its OAuth secret; others on this machine can read it here, so prefer --client-secret-file [env: DATABRICKS_CLIENT_SECRET]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "SECRET"))]
    pub client_secret: Option<SecretString>,
    /// File that holds the OAuth secret, mode 0600
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "PATH"))]
    pub client_secret_file: Option<PathBuf>,
    /// Profile of ~/.databrickscfg to take what is missing from [env: DATABRICKS_CONFIG_PROFILE]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "NAME"))]
    pub profile: Option<String>,
    /// PostgreSQL host of the Lakebase database [env: DATABRICKS_PG_HOST]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "HOST"))]
    pub pg_host: Option<String>,
    /// PostgreSQL port [default: 5432]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "PORT", value_parser = port))]
    pub pg_port: Option<u16>,
    /// PostgreSQL database, * for every one [default: databricks_postgres]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "DB"))]
    pub pg_database: Option<String>,
    /// PostgreSQL user: an e-mail, a client id or a group [env: DATABRICKS_PG_USERNAME]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "USER"))]
    pub pg_username: Option<String>,
    /// The PostgreSQL user is a role that other identities may log in as
    #[cfg_attr(feature = "cli", arg(long, global = true))]
    pub any_identity: bool,
    /// Password file to keep fresh; repeat the option for more files [env: PGPASSFILE] [default: ~/.pgpass]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "PATH"))]
    pub pgpass_file: Vec<PathBuf>,
    /// Authorities that are trusted beside the platform's, for one workspace; on the command line there is no such flag
    #[cfg_attr(feature = "cli", arg(skip))]
    pub ca_file: Option<PathBuf>,
    /// Also log to this file (10 MiB, 5 old ones kept)
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "PATH"))]
    pub log_file: Option<PathBuf>,
    /// Rotate this long after a credential was issued, such as 50 (minutes) or 1h [default: 20 minutes before it expires, after 50 minutes at the latest]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "MINUTES", value_parser = super::file::parse_interval))]
    pub interval: Option<Duration>,
    /// Configuration file [env: DBX_ROTATOR_CONFIG] [default: ~/.config/dbx-rotator/config.toml]
    #[cfg_attr(feature = "cli", arg(long, global = true, value_name = "PATH"))]
    pub config: Option<PathBuf>,
}

impl Overrides {
    /// The same with all paths as a shell would have handed them over.
    ///
    /// # Errors
    /// One holds what a shell would have replaced, and nobody can here.
    pub(crate) fn expanded(&self, environment: &Environment) -> Result<Self, ConfigError> {
        let mut new = self.clone();
        let one = [
            ("--client-secret-file", &mut new.client_secret_file),
            ("--log-file", &mut new.log_file),
            ("ca_file", &mut new.ca_file),
            ("--config", &mut new.config),
        ];
        let one = one.into_iter().filter_map(|(flag, path)| Some((flag, path.as_mut()?)));
        for (flag, path) in one.chain(new.pgpass_file.iter_mut().map(|path| ("--pgpass-file", path))) {
            keep_if_no_path(path);
            *path = environment.expand(path).map_err(|why| ConfigError::usage(format!("{flag}: {why}")))?;
        }
        Ok(new)
    }

    /// The first flag given that describes a workspace, if any.
    pub(crate) fn workspace_flag(&self) -> Option<&'static str> {
        given(&self.of_workspace()).next()
    }

    /// The first flag given that describes a connection, if any.
    pub(crate) fn connection_flag(&self) -> Option<&'static str> {
        given(&self.of_connection()).next()
    }

    /// All flags given that are settings.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only commands have flags"))]
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let at_the_head = [
            ("--pgpass-file", !self.pgpass_file.is_empty()),
            ("--log-file", self.log_file.is_some()),
            ("--interval", self.interval.is_some()),
        ];
        given(&self.of_workspace()).chain(given(&self.of_connection())).chain(given(&at_the_head)).collect()
    }

    fn of_workspace(&self) -> [(&'static str, bool); 5] {
        [
            ("--workspace-url", self.workspace_url.is_some()),
            ("--client-id", self.client_id.is_some()),
            ("--client-secret", self.client_secret.is_some()),
            ("--client-secret-file", self.client_secret_file.is_some()),
            ("--profile", self.profile.is_some()),
        ]
    }

    fn of_connection(&self) -> [(&'static str, bool); 5] {
        [
            ("--pg-host", self.pg_host.is_some()),
            ("--pg-port", self.pg_port.is_some()),
            ("--pg-database", self.pg_database.is_some()),
            ("--pg-username", self.pg_username.is_some()),
            ("--any-identity", self.any_identity),
        ]
    }

    /// The configuration file that a person names, if any.
    pub(crate) fn named_config(&self, environment: &Environment) -> Option<PathBuf> {
        self.config.clone().or_else(|| environment.path("DBX_ROTATOR_CONFIG"))
    }
}

#[cfg(feature = "cli")]
pub(crate) fn port(text: &str) -> Result<u16, String> {
    // That 0 is none is said where all ports are looked at.
    text.parse().map_err(|_| format!("`{text}` is not a port: write a number from 1 to 65535"))
}

fn given<'f>(flags: &'f [(&'static str, bool)]) -> impl Iterator<Item = &'static str> + 'f {
    flags.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag)
}
