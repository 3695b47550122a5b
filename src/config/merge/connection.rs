//! The connections: each its four key fields, its workspace and its switches.

use std::collections::HashSet;

use toml::Spanned;

use super::{DEFAULT_NAME, Merge, Places};
use crate::config::fault::ConfigError;
use crate::config::file::{ConnectionTable, WorkspaceTable};
use crate::config::origin::{Origin, Sourced};
use crate::config::{Connection, Workspace};
use crate::pgpass;

const DEFAULT_DATABASE: &str = "databricks_postgres";
const DEFAULT_PORT: u16 = 5432;

impl Merge<'_> {
    pub(super) fn connections(
        &mut self,
        workspaces: &[Option<Workspace>],
    ) -> Result<Vec<Option<Connection>>, ConfigError> {
        let tables: &[Spanned<ConnectionTable>] = self.source.map_or(&[], |source| &source.file.connection);
        let ambient = tables.len() <= 1;
        if !ambient {
            self.only_for_one(tables.len(), "connections", self.overrides.connection_flag())?;
            self.note_unused(&["DATABRICKS_PG_HOST", "DATABRICKS_PG_USERNAME"], tables.len(), "connections");
        }
        let mut all = Vec::with_capacity(tables.len().max(1));
        if tables.is_empty() {
            all.push(self.connection(DEFAULT_NAME.to_owned(), None, true, workspaces)?);
        }
        let mut taken = HashSet::new();
        let mut keys = HashSet::new();
        for table in tables {
            let name = self.name(table, table.get_ref().name.as_ref(), ambient, &mut taken, "connection")?;
            let connection = self.connection(name, Some(table), ambient, workspaces)?;
            if let Some(connection) = &connection
                && !keys.insert(connection.key.clone())
            {
                let why = format!("two connections have the same host, port, database and user: {}", connection.key);
                return Err(match self.source {
                    Some(source) => source.fault(table, why),
                    None => ConfigError::new(why),
                });
            }
            all.push(connection);
        }
        Ok(all)
    }

    fn connection(
        &mut self,
        name: String,
        table: Option<&Spanned<ConnectionTable>>,
        ambient: bool,
        workspaces: &[Option<Workspace>],
    ) -> Result<Option<Connection>, ConfigError> {
        let empty = ConnectionTable::default();
        let table = table.map_or(&empty, Spanned::get_ref);
        let given = |value: &Option<String>, flag| {
            value.clone().filter(|_| ambient).map(|v| Sourced::new(v, Origin::Flag(flag)))
        };
        let variable = |name: &'static str| ambient.then(|| self.variable(name)).flatten();
        let written = |value: &Option<Spanned<String>>| value.as_ref().and_then(|value| self.written(value));

        let workspace = self.workspace_index(table, workspaces)?;
        let host = given(&self.overrides.pg_host, "--pg-host")
            .or_else(|| variable("DATABRICKS_PG_HOST"))
            .or_else(|| written(&table.host));
        let port_flag =
            self.overrides.pg_port.filter(|_| ambient).map(|port| Sourced::new(port, Origin::Flag("--pg-port")));
        let port = port_flag
            .or_else(|| self.written(table.port.as_ref()?))
            .unwrap_or(Sourced::new(DEFAULT_PORT, Origin::Default));
        let database = given(&self.overrides.pg_database, "--pg-database")
            .or_else(|| written(&table.database))
            .unwrap_or_else(|| Sourced::new(DEFAULT_DATABASE.to_owned(), Origin::Default));
        let client_id = workspaces.get(workspace).and_then(|w| Some(w.as_ref()?.client.as_ref()?.id.clone()));
        let user = given(&self.overrides.pg_username, "--pg-username")
            .or_else(|| variable("DATABRICKS_PG_USERNAME"))
            .or_else(|| written(&table.user))
            .or_else(|| Some(Sourced::new(client_id?, Origin::Default)));

        if host.is_none() {
            let flag = ("--pg-host HOST", "DATABRICKS_PG_HOST");
            self.lacks(("the PostgreSQL host", &name), Places::of_connection(flag, "host", ambient));
        }
        if user.is_none() {
            let flag = ("--pg-username USER", "DATABRICKS_PG_USERNAME");
            self.lacks(("the PostgreSQL user", &name), Places::of_connection(flag, "user", ambient));
        }
        let (Some(host), Some(user)) = (host, user) else { return Ok(None) };
        self.refuse_unusable_host(&host)?;
        self.verify(table)?;
        let key = pgpass::Key::new(&host.value, port.value, &database.value, &user.value).map_err(|why| {
            let origin = match why.field() {
                "port" => &port.origin,
                "database" => &database.origin,
                "user" => &user.origin,
                _ => &host.origin,
            };
            self.fault(origin, why.to_string())
        })?;
        for sentence in key.portability() {
            self.warnings.push(format!("connection {name}: {sentence}"));
        }
        let section = format!("connection \"{name}\"");
        self.note(&section, "host", host, String::clone);
        self.note(&section, "port", port, u16::to_string);
        self.note(&section, "database", database, String::clone);
        self.note(&section, "user", user, String::clone);
        let last_copy = self.switch(&section, "last_copy", table.last_copy.as_ref());
        let any_identity = self.switch(&section, "any_identity", table.any_identity.as_ref());
        Ok(Some(Connection { name, workspace, key, last_copy, any_identity }))
    }

    fn switch(&mut self, section: &str, key: &'static str, written: Option<&Spanned<bool>>) -> bool {
        match written.and_then(|value| self.written(value)) {
            Some(value) => self.note(section, key, value, bool::to_string),
            None => false,
        }
    }

    fn workspace_index(&self, table: &ConnectionTable, workspaces: &[Option<Workspace>]) -> Result<usize, ConfigError> {
        let names = || self.workspace_names();
        match (&table.workspace, self.source) {
            (Some(wanted), Some(source)) => names().iter().position(|name| name == wanted.get_ref()).ok_or_else(|| {
                source
                    .fault(wanted, format!("there is no workspace named `{}`", wanted.get_ref()))
                    .hint(format!("the workspaces there are: {}", names().join(", ")))
            }),
            _ if workspaces.len() == 1 => Ok(0),
            _ => {
                let error = ConfigError::new("a connection must say which of the workspaces it belongs to")
                    .hint(format!("add workspace = \"NAME\" with one of: {}", names().join(", ")));
                Err(match (self.source, &table.name) {
                    (Some(source), Some(name)) => error.at(&source.path, &source.text, name.span()),
                    _ => error,
                })
            }
        }
    }

    fn workspace_names(&self) -> Vec<String> {
        let tables: &[Spanned<WorkspaceTable>] = self.source.map_or(&[], |source| &source.file.workspace);
        let named = |table: &Spanned<WorkspaceTable>| {
            table.get_ref().name.as_ref().map_or_else(|| DEFAULT_NAME.to_owned(), |name| name.get_ref().clone())
        };
        tables.iter().map(named).collect()
    }

    fn refuse_unusable_host(&self, host: &Sourced<String>) -> Result<(), ConfigError> {
        if host.value.contains("://") {
            let why = format!("`{}` is an address, not a host name", host.value);
            return Err(self.fault(&host.origin, why).hint("leave out the scheme, the port and the path"));
        }
        let port = host.value.rsplit_once(':').filter(|(name, port)| {
            !name.contains(':') && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        if let Some((name, port)) = port {
            let why = format!("`{}` is a host with a port", host.value);
            return Err(self
                .fault(&host.origin, why)
                .hint(format!("give the host as {name} and the port as --pg-port {port}, or port = {port}")));
        }
        let first_label = host.value.split('.').next().unwrap_or_default();
        if first_label.ends_with("-pooler") {
            let why = format!(
                "`{}` is the pooler's host: Lakebase's pooler does not take OAuth tokens as passwords",
                host.value
            );
            return Err(self.fault(&host.origin, why).hint("use the host without `-pooler`"));
        }
        Ok(())
    }

    fn verify(&self, table: &ConnectionTable) -> Result<(), ConfigError> {
        match (&table.verify, self.source) {
            (Some(value), Some(source)) if value.get_ref() != "token" => Err(source
                .fault(value, format!("`{}` is not a way to verify a credential", value.get_ref()))
                .hint("write \"token\"")),
            _ => Ok(()),
        }
    }
}
