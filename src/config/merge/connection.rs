//! The connections: the four key fields of each, its workspace and its options.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_spanned::Spanned;

use super::environment::check_texts;
use super::files::Taken;
use super::{DEFAULT_NAME, Merge, Places};
use crate::config::fault::ConfigError;
use crate::config::file::ConnectionTable;
use crate::config::origin::{Origin, Sourced};
use crate::config::paths::Access;
use crate::config::source::ConfigSource;
use crate::model::server::{database_misfit, host_misfit, user_misfit};
use crate::model::short_name;
use crate::model::{Address, Connection, DEFAULT_DATABASE, DatabaseRef, Proxied, Workspace};
use crate::pgpass;

const DEFAULT_PORT: u16 = 5432;

/// libpq's own variables (libpq, "Environment Variables").
const LIBPQ: [&str; 4] = ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER"];

/// What the second entry of a connection with a read-only host is called after the first.
const READ_ONLY: &str = "-ro";

/// The four key fields before validation.
struct Draft {
    host: Option<Sourced<String>>,
    port: Sourced<u16>,
    database: Sourced<String>,
    user: Option<Sourced<String>>,
}

/// The same by libpq's own variables, which Databricks Apps set.
#[derive(Default)]
struct ByLibpq {
    host: Option<Sourced<String>>,
    port: Option<Sourced<u16>>,
    database: Option<Sourced<String>>,
    user: Option<Sourced<String>>,
}

/// A table with its file and its name.
struct Placed<'a> {
    source: &'a ConfigSource,
    name: String,
    table: &'a Spanned<ConnectionTable>,
    /// None where the table does not say it.
    workspace: Option<usize>,
}

impl<'a> Merge<'a> {
    pub(super) fn connections(&mut self, workspaces: &[Option<Workspace>]) -> Result<Vec<Connection>, ConfigError> {
        let tables = self.connection_tables(workspaces)?;
        let ambient = tables.len() <= 1;
        if !ambient {
            self.only_for_one(tables.len(), "connections", self.overrides.connection_flag())?;
            self.note_unused(&["DATABRICKS_PG_HOST", "DATABRICKS_PG_USERNAME"], tables.len(), "connections");
        }
        if tables.is_empty() {
            self.source = self.files.first();
            let table = ConnectionTable::default();
            return Ok(self.connection(DEFAULT_NAME.to_owned(), &table, true, workspaces)?.into_iter().collect());
        }
        let mut all = Vec::with_capacity(tables.len());
        let mut taken: HashSet<String> = tables.iter().map(|one| one.name.clone()).collect();
        let (mut keys, mut ports, mut secrets) = (HashMap::new(), HashMap::new(), HashMap::new());
        for one in tables {
            self.source = Some(one.source);
            let table = one.table;
            self.note_fragment(&format!("connection \"{}\"", one.name), one.source, table);
            let Some(connection) = self.connection(one.name, table.get_ref(), ambient, workspaces)? else { continue };
            if let Some(key) = connection.key.clone()
                && let Some(place) = keys.insert(key.clone(), one.source.place(table))
            {
                let why = format!("two connections have the same host, port, database and user: {key}");
                return Err(self.fault_at(table, why).hint(format!("the other is in {place}")));
            }
            self.check_proxy_port(table.get_ref(), connection.name(), &mut ports)?;
            self.check_secret(table.get_ref(), &connection, &mut secrets)?;
            let second = self.read_only(table, &connection, &mut taken)?;
            all.push(connection);
            all.extend(second);
        }
        Ok(all)
    }

    /// All of them with their files and names. What several files say in the same words of the same workspace is there once.
    fn connection_tables(&mut self, workspaces: &[Option<Workspace>]) -> Result<Vec<Placed<'a>>, ConfigError> {
        let mut all: Vec<Placed<'a>> = Vec::new();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for source in self.files {
            self.source = Some(source);
            let alone = source.file.connection.len() == 1;
            for table in &source.file.connection {
                let written = table.get_ref();
                let name = match default_name(written) {
                    Some(name) if alone && written.name.is_none() => name,
                    _ => self.name(table, written.name.as_ref(), alone, "connection")?,
                };
                match by_name.get(&name).and_then(|index| all.get(*index)) {
                    None => drop(by_name.insert(name.clone(), all.len())),
                    Some(first)
                        if first.source.path != source.path
                            && first.table == table
                            && self.workspace_index(written, workspaces).ok() == first.workspace =>
                    {
                        continue;
                    }
                    Some(Placed { source: first, table: other, .. }) => {
                        let by = Taken { source: first, line: first.line(other) };
                        return Err(self.taken((table, written.name.as_ref()), "connection", &name, &by));
                    }
                }
                let workspace = self.workspace_index(written, workspaces).ok();
                all.push(Placed { source, name, table, workspace });
            }
        }
        Ok(all)
    }

    fn connection(
        &mut self,
        name: String,
        table: &ConnectionTable,
        ambient: bool,
        workspaces: &[Option<Workspace>],
    ) -> Result<Option<Connection>, ConfigError> {
        let workspace = self.workspace_index(table, workspaces)?;
        let of = workspaces.get(workspace).and_then(Option::as_ref);
        // With a group's rights, it is the group's role that logs in.
        let is_of_group = of.is_some_and(|workspace| workspace.group_id.is_some());
        let client_id = of.filter(|_| !is_of_group).and_then(|workspace| Some(workspace.client_id()?.to_owned()));
        let draft = self.draft_of_connection(table, ambient, client_id.clone())?;
        let database_ref = self.database_ref(table, draft.host.as_ref())?;
        if draft.host.is_none() && database_ref.is_none() {
            let flag = ("--pg-host HOST", "DATABRICKS_PG_HOST");
            self.lacks(("the PostgreSQL host", &name), Places::of_connection(flag, "host", ambient));
            return Ok(None);
        }
        if let Some(host) = &draft.host {
            self.refuse_unusable_host(host, workspaces.get(workspace).and_then(Option::as_ref))?;
        }
        if is_of_group && draft.user.is_none() {
            let flag = ("--pg-username USER", "DATABRICKS_PG_USERNAME");
            let what = "the PostgreSQL user, which is the name of the group whose rights are asked for (group_id),";
            self.lacks((what, &name), Places::of_connection(flag, "user", ambient));
            return Ok(None);
        }
        if let Some((user, misfit)) = draft.user.as_ref().and_then(|user| Some((user, user_misfit(&user.value)?))) {
            return Err(self.fault(&user.origin, format!("the user {}", misfit.why)).hint(misfit.hint));
        }
        if let Some(misfit) = database_misfit(&draft.database.value) {
            return Err(self.fault(&draft.database.origin, format!("the database {}", misfit.why)).hint(misfit.hint));
        }
        let section = format!("connection \"{name}\"");
        self.note_place(&section, table);
        let user_is_set = draft.user.as_ref().is_some_and(|user| user.origin != Origin::Default);
        let address = self.address(&name, &section, draft)?;
        let (credential, only_if_found) = self.credential_of(&section, table, database_ref.as_ref())?;
        if let Some(why) = of.and_then(Workspace::is_no_password).filter(|_| !credential.is_minted() && !only_if_found)
        {
            return Err(self.no_password(table, why));
        }
        let ttl = self.ttl_of(&section, table, credential)?;
        // The API need not be asked about a host if its connection gets the workspace's token anyway.
        let database_ref = database_ref.filter(|database_ref| {
            only_if_found || !matches!(database_ref, DatabaseRef::Host(_)) || credential.is_minted()
        });
        let sslrootcert = self.file_beside(&section, "sslrootcert", table.sslrootcert.as_ref(), Access::Reads)?;
        if let (Some(written), Some(None)) = (&table.sslrootcert, sslrootcert.as_deref().map(Path::to_str)) {
            let why = "the directory has a name that is not UTF-8 text, so that clients cannot be told of the file";
            return Err(self.fault_at(written, why).hint("give the path of a file elsewhere"));
        }
        let listing = self.listing(&section, table, database_ref.as_ref());
        let mut connection = Connection {
            name,
            workspace,
            address,
            key: None,
            database_ref,
            read_only: false,
            credential,
            ttl,
            only_if_found,
            verify: self.verify(&section, table)?,
            sslmode: self.sslmode(&section, table)?,
            sslrootcert,
            outputs: self.outputs(&section, table)?,
            proxied: self.proxied(&section, table)?,
            listing,
            last_copy: self.switch(&section, "last_copy", table.last_copy.as_ref()),
            any_identity: self.any_identity(&section, table, ambient),
            chosen_client: client_id.filter(|_| user_is_set),
        };
        self.notes.extend(connection.remark_on_client());
        connection.locate(None, None);
        Ok(Some(connection))
    }

    fn draft_of_connection(
        &self,
        table: &ConnectionTable,
        ambient: bool,
        client_id: Option<String>,
    ) -> Result<Draft, ConfigError> {
        let given = |value: &Option<String>, flag| {
            value.clone().filter(|_| ambient).map(|v| Sourced::new(v, Origin::Flag(flag)))
        };
        let variable = |name: &'static str| ambient.then(|| self.variable(name)).flatten();
        let written = |value: &Option<Spanned<String>>| value.as_ref().and_then(|value| self.written(value));
        let port = self.overrides.pg_port.filter(|_| ambient).map(|port| Sourced::new(port, Origin::Flag("--pg-port")));
        let host = given(&self.overrides.pg_host, "--pg-host")
            .or_else(|| variable("DATABRICKS_PG_HOST"))
            .or_else(|| written(&table.host));
        let last = if host.is_none() && ambient { self.by_libpq()? } else { ByLibpq::default() };
        Ok(Draft {
            host: host.or(last.host),
            port: port
                .or_else(|| self.written(table.port.as_ref()?))
                .or(last.port)
                .unwrap_or(Sourced::new(DEFAULT_PORT, Origin::Default)),
            database: given(&self.overrides.pg_database, "--pg-database")
                .or_else(|| written(&table.database))
                .or(last.database)
                .unwrap_or_else(|| Sourced::new(DEFAULT_DATABASE.to_owned(), Origin::Default)),
            user: given(&self.overrides.pg_username, "--pg-username")
                .or_else(|| variable("DATABRICKS_PG_USERNAME"))
                .or_else(|| written(&table.user))
                .or(last.user)
                .or_else(|| Some(Sourced::new(client_id?, Origin::Default))),
        })
    }

    /// What libpq's own variables say, where the configuration file has no connection: they are one target, so that without PGHOST
    /// none of them counts.
    fn by_libpq(&self) -> Result<ByLibpq, ConfigError> {
        if self.has_connections() || self.environment.get_os("PGHOST").is_none() {
            return Ok(ByLibpq::default());
        }
        check_texts(self.environment, &LIBPQ)?;
        let port = self.variable("PGPORT").map(|port| match port.value.trim().parse() {
            Ok(number) => Ok(Sourced::new(number, port.origin)),
            Err(_) => {
                let why = format!("`{}` is not a port: a number from 1 to 65535", port.value);
                Err(self.fault(&port.origin, why).hint("use --pg-host, --pg-port and so on where PGHOST is for others"))
            }
        });
        Ok(ByLibpq {
            host: self.variable("PGHOST"),
            port: port.transpose()?,
            database: self.variable("PGDATABASE"),
            user: self.variable("PGUSER"),
        })
    }

    /// Validates the key fields that are set; those that are looked up are validated later.
    fn address(&mut self, name: &str, section: &str, draft: Draft) -> Result<Address, ConfigError> {
        let Draft { host, port, database, user } = draft;
        let set = |value: &Option<Sourced<String>>| value.as_ref().map_or_else(|| "x".to_owned(), |v| v.value.clone());
        let key = pgpass::Key::new(set(&host), port.value, &database.value, set(&user)).map_err(|why| {
            let origin = match why.field() {
                "port" => Some(&port.origin),
                "database" => Some(&database.origin),
                "user" => user.as_ref().map(|user| &user.origin),
                _ => host.as_ref().map(|host| &host.origin),
            };
            self.fault(origin.unwrap_or(&Origin::Default), why.to_string())
        })?;
        for sentence in key.portability() {
            self.warnings.push(format!("connection {name}: {sentence}"));
        }
        let found = |by: &str| Sourced::new(format!("found {by}"), Origin::Default);
        let host_value = host.as_ref().map(|host| host.value.clone());
        let user_value = user.as_ref().map(|user| user.value.clone());
        self.note(section, "host", host.unwrap_or_else(|| found("by the API")), String::clone);
        let port = self.note(section, "port", port, u16::to_string);
        let database = self.note(section, "database", database, String::clone);
        self.note(section, "user", user.unwrap_or_else(|| found("when it signs in")), String::clone);
        Ok(Address { host: host_value, port, database, user: user_value })
    }

    /// A second connection that differs from the first only in its host.
    fn read_only(
        &mut self,
        table: &Spanned<ConnectionTable>,
        first: &Connection,
        taken: &mut HashSet<String>,
    ) -> Result<Option<Connection>, ConfigError> {
        let Some(switch) = &table.get_ref().read_only else { return Ok(None) };
        let section = format!("connection \"{}\"", first.name);
        if !self.switch(&section, "read_only", Some(switch)) {
            return Ok(None);
        }
        if first.database_ref.is_none() {
            let why = "the read-only host can be found only where the API knows the database";
            return Err(self.fault_at(switch, why).hint("name it by instance or endpoint instead of by its host"));
        }
        let name = format!("{}{READ_ONLY}", first.name);
        if !taken.insert(name.clone()) {
            let why = format!("its read-only entry would be called `{name}`, as another connection is");
            return Err(self.fault_at(switch, why));
        }
        let address = Address { host: None, ..first.address.clone() };
        // Files and hooks belong to the first one only.
        let outputs = crate::model::Outputs::default();
        let proxied = Proxied { port: None, ..first.proxied.clone() };
        let second = Connection { name, address, key: None, read_only: true, outputs, proxied, ..first.clone() };
        Ok(Some(second))
    }

    pub(super) fn fault_at<T>(&self, at: &Spanned<T>, why: impl Into<String>) -> ConfigError {
        match self.source {
            Some(source) => source.fault(at, why),
            None => ConfigError::new(why),
        }
    }

    pub(super) fn switch(&mut self, section: &str, key: &'static str, written: Option<&Spanned<bool>>) -> bool {
        match written.and_then(|value| self.written(value)) {
            Some(value) => self.note(section, key, value, bool::to_string),
            None => false,
        }
    }

    fn workspace_index(&self, table: &ConnectionTable, workspaces: &[Option<Workspace>]) -> Result<usize, ConfigError> {
        let names = || self.workspace_names();
        match (&table.workspace, self.source) {
            (Some(wanted), Some(source)) => self.by_name.get(wanted.get_ref()).copied().ok_or_else(|| {
                source
                    .fault(wanted, format!("there is no workspace named `{}`", wanted.get_ref()))
                    .hint(format!("the workspaces there are: {}", names().join(", ")))
            }),
            // What a fragment brings changes nothing for the others.
            (None, Some(source)) if self.alone.contains_key(&source.path) => {
                Ok(self.alone.get(&source.path).copied().unwrap_or_default())
            }
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

    /// In their order.
    fn workspace_names(&self) -> Vec<String> {
        let mut names: Vec<(&usize, &String)> = self.by_name.iter().map(|(name, index)| (index, name)).collect();
        names.sort();
        let names = names.into_iter().map(|(_, name)| name.clone());
        names.collect()
    }

    fn refuse_unusable_host(&self, host: &Sourced<String>, of: Option<&Workspace>) -> Result<(), ConfigError> {
        if let Some(misfit) = host_misfit(&host.value) {
            return Err(self.fault(&host.origin, format!("the PostgreSQL host {}", misfit.why)).hint(misfit.hint));
        }
        if of.is_some_and(|workspace| workspace.host.is_named(&host.value)) {
            let why = format!("`{}` is the workspace's own address: no database is there", host.value);
            return Err(self
                .fault(&host.origin, why)
                .hint("`dbx-rotator connections` lists the hosts of its databases"));
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
}

/// The name of a connection without one: that of its database.
fn default_name(table: &ConnectionTable) -> Option<String> {
    let instance = table.instance.as_ref().map(|name| name.get_ref().clone());
    instance.or_else(|| Some(short_name(table.endpoint.as_ref()?.get_ref()))).filter(|name| !name.is_empty())
}
