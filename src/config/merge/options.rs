//! The options of a connection besides its key fields: its database, its verification, its outputs.

use std::path::PathBuf;

use serde_spanned::Spanned;

use super::Merge;
use crate::config::fault::ConfigError;
use crate::config::file::{ConnectionTable, FileTable};
use crate::config::origin::{Origin, Sourced};
use crate::config::paths::Access;
use crate::model::SslMode;
use crate::model::is_lakebase_host;
use crate::model::{CredentialKind, DatabaseRef, Listing, Verify};
use crate::model::{Outputs, TemplateFile};

/// How many files one connection may have that are made from templates: each is read at every look.
const MOST_FILES: usize = 16;

/// The mode of such a file, where none is set.
const PRIVATE: u32 = 0o600;

impl Merge<'_> {
    /// How the API identifies the database, from the file or the form of the host.
    pub(super) fn database_ref(
        &self,
        table: &ConnectionTable,
        host: Option<&Sourced<String>>,
    ) -> Result<Option<DatabaseRef>, ConfigError> {
        if let (Some(_), Some(endpoint)) = (&table.instance, &table.endpoint) {
            let why = "a database is known by its instance or by its endpoint, not by both";
            return Err(self.fault_at(endpoint, why).hint("leave out one of the two"));
        }
        if let Some(instance) = &table.instance {
            let name = instance.get_ref();
            if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/') {
                return Err(self
                    .fault_at(instance, format!("`{name}` is not the name of an instance"))
                    .hint("`dbx-rotator connections` lists them"));
            }
            return Ok(Some(DatabaseRef::Instance(name.clone())));
        }
        if let Some(endpoint) = &table.endpoint {
            let name = endpoint.get_ref();
            if !is_endpoint_name(name) {
                return Err(self
                    .fault_at(endpoint, format!("`{name}` is not the name of an endpoint"))
                    .hint("write it as projects/P/branches/B/endpoints/E; `dbx-rotator connections` lists them"));
            }
            return Ok(Some(DatabaseRef::Endpoint(name.clone())));
        }
        Ok(host.filter(|host| is_lakebase_host(&host.value)).map(|host| DatabaseRef::Host(host.value.clone())))
    }

    pub(super) fn note_place(&mut self, section: &str, table: &ConnectionTable) {
        for (key, value) in [("instance", &table.instance), ("endpoint", &table.endpoint)] {
            if let Some(value) = value.as_ref().and_then(|value| self.written(value)) {
                self.note(section, key, value, String::clone);
            }
        }
    }

    /// What is published, and whether a database credential is wanted only if the API knows the host.
    pub(super) fn credential_of(
        &mut self,
        section: &str,
        table: &ConnectionTable,
        database_ref: Option<&DatabaseRef>,
    ) -> Result<(CredentialKind, bool), ConfigError> {
        let Some(written) = &table.credential else {
            return Ok(match database_ref {
                None => (CredentialKind::WorkspaceToken, false),
                Some(database_ref) => {
                    (CredentialKind::DatabaseCredential, matches!(database_ref, DatabaseRef::Host(_)))
                }
            });
        };
        let source = match written.get_ref().as_str() {
            "workspace-token" => CredentialKind::WorkspaceToken,
            "database-credential" if database_ref.is_some() => CredentialKind::DatabaseCredential,
            "database-credential" => {
                let why = "a database credential is minted for an instance or an endpoint, and none is known";
                return Err(self.fault_at(written, why).hint("add instance = \"...\" or endpoint = \"...\""));
            }
            other => {
                return Err(self
                    .fault_at(written, format!("`{other}` is not a kind of credential"))
                    .hint("write \"database-credential\" or \"workspace-token\", or leave it out"));
            }
        };
        self.note_written(section, "credential", written, |source| source.clone());
        Ok((source, false))
    }

    /// How many seconds a credential shall live that is minted.
    pub(super) fn ttl_of(
        &mut self,
        section: &str,
        table: &ConnectionTable,
        credential: CredentialKind,
    ) -> Result<Option<u32>, ConfigError> {
        let Some(ttl) = &table.ttl else { return Ok(None) };
        let (why, hint) = if !credential.is_minted() {
            let why = "ttl is for database credentials, and the workspace's token is published here";
            (why, "leave it out, or set credential = \"database-credential\"")
        } else if table.instance.is_some() {
            let why = "the API of provisioned instances has no ttl: their credentials live for an hour";
            (why, "leave it out; endpoints of projects have it")
        } else {
            self.note_written(section, "ttl", ttl, |ttl| format!("{} min", ttl.0 / 60));
            return Ok(Some(ttl.get_ref().0));
        };
        Err(self.fault_at(ttl, why).hint(hint))
    }

    /// That no token of this sign-in can be what is published.
    pub(super) fn no_password(&self, table: &ConnectionTable, why: &str) -> ConfigError {
        let hint = "name the database by instance or endpoint, so that a database credential is minted for it; or sign in as a service \
                    principal (oauth-m2m) or with the Databricks CLI";
        match &table.credential {
            Some(written) => self.fault_at(written, why),
            None => ConfigError::new(why),
        }
        .hint(hint)
    }

    pub(super) fn verify(&mut self, section: &str, table: &ConnectionTable) -> Result<Verify, ConfigError> {
        let Some(written) = &table.verify else { return Ok(Verify::default()) };
        let verify = match written.get_ref().as_str() {
            "token" => Verify::Token,
            "login" => Verify::Login,
            other => {
                let why = format!("`{other}` is not a way to verify a credential");
                return Err(self.fault_at(written, why).hint("write \"token\" or \"login\""));
            }
        };
        self.note_written(section, "verify", written, String::clone);
        Ok(verify)
    }

    pub(super) fn sslmode(&mut self, section: &str, table: &ConnectionTable) -> Result<Option<SslMode>, ConfigError> {
        let Some(written) = &table.sslmode else { return Ok(None) };
        let Some(mode) = SslMode::parse(written.get_ref()) else {
            let why = format!("`{}` is not a way to speak TLS to Lakebase", written.get_ref());
            return Err(self.fault_at(written, why).hint("write \"require\" or \"verify-full\""));
        };
        self.note_written(section, "sslmode", written, String::clone);
        Ok(Some(mode))
    }

    pub(super) fn any_identity(&mut self, section: &str, table: &ConnectionTable, ambient: bool) -> bool {
        if ambient && self.overrides.any_identity {
            return self.note(
                section,
                "any_identity",
                Sourced::new(true, Origin::Flag("--any-identity")),
                bool::to_string,
            );
        }
        self.switch(section, "any_identity", table.any_identity.as_ref())
    }

    pub(super) fn listing(
        &mut self,
        section: &str,
        table: &ConnectionTable,
        database_ref: Option<&DatabaseRef>,
    ) -> Listing {
        match (&table.service_file, database_ref) {
            (Some(switch), _) if self.switch(section, "service_file", Some(switch)) => Listing::Asked,
            (None, Some(DatabaseRef::Instance(_) | DatabaseRef::Endpoint(_))) => Listing::ByItself,
            _ => Listing::No,
        }
    }

    pub(super) fn outputs(&mut self, section: &str, table: &ConnectionTable) -> Result<Outputs, ConfigError> {
        if let Some(command) = table.on_rotate.as_ref()
            && command.get_ref().first().is_none_or(String::is_empty)
        {
            let why = "on_rotate names no program";
            return Err(self.fault_at(command, why).hint("write it as [\"program\", \"argument\"]"));
        }
        let token_file = self.file_beside(section, "token_file", table.token_file.as_ref(), Access::Writes)?;
        let env_file = self.file_beside(section, "env_file", table.env_file.as_ref(), Access::Writes)?;
        if let Some(command) = table.on_rotate.as_ref() {
            self.note_written(section, "on_rotate", command, |command| command.join(" "));
            let program = self.written(command).map(|command| command.map(|words| words[0].clone()));
            let program = program.map(|program| self.expanded(program)).transpose()?;
            if let Some(program) = program.filter(|program| program.value.is_absolute()) {
                self.use_file(section, "on_rotate", &program, Access::Reads);
            }
        }
        let on_rotate = table.on_rotate.as_ref().map(|command| command.get_ref().clone());
        let files = self.template_files(section, &table.file)?;
        let kubernetes_secret = self.kubernetes_secret(section, table)?;
        Ok(Outputs { token_file, env_file, files, on_rotate, kubernetes_secret })
    }

    /// A command, as `on_rotate` is one.
    pub(super) fn notify_command(&mut self) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(command) = self.head("notify_command", |file| file.notify_command.as_ref())? else { return Ok(None) };
        if command.get_ref().first().is_none_or(String::is_empty) {
            let why = "notify_command names no program";
            return Err(self.fault_at(command, why).hint("write it as [\"program\", \"argument\"]"));
        }
        self.note_written("", "notify_command", command, |command| command.join(" "));
        let program = self.written(command).map(|command| command.map(|words| words[0].clone()));
        let program = program.map(|program| self.expanded(program)).transpose()?;
        if let Some(program) = program.filter(|program| program.value.is_absolute()) {
            self.use_file("", "notify_command", &program, Access::Reads);
        }
        Ok(Some(command.get_ref().clone()))
    }

    fn template_files(
        &mut self,
        connection: &str,
        tables: &[Spanned<FileTable>],
    ) -> Result<Vec<TemplateFile>, ConfigError> {
        if let Some(first) = tables.get(MOST_FILES) {
            let why = format!("there are {} files of one connection, and at most {MOST_FILES} may be", tables.len());
            return Err(self.fault_at(first, why));
        }
        let mut files = Vec::with_capacity(tables.len());
        for (number, table) in (1..).zip(tables) {
            let section = if tables.len() == 1 {
                format!("file of {connection}")
            } else {
                format!("file {number} of {connection}")
            };
            let FileTable { template, path, mode, group } = table.get_ref();
            let lacks = |key: &str, what: &str| {
                let why = format!("a [[connection.file]] lacks {key}, {what}");
                self.fault_at(table, why).hint(format!("add {key} = \"...\""))
            };
            let (Some(_), Some(_)) = (template, path) else {
                return Err(if template.is_none() {
                    lacks("template", "the file that it is made from")
                } else {
                    lacks("path", "the file that is written")
                });
            };
            let (mode, group) = (self.mode(&section, mode.as_ref())?, self.group(&section, group.as_ref())?);
            let template = self.file_beside(&section, "template", template.as_ref(), Access::Reads)?;
            let path = self.file_beside(&section, "path", path.as_ref(), Access::Writes)?;
            files.extend(template.zip(path).map(|(template, path)| TemplateFile { template, path, mode, group }));
        }
        Ok(files)
    }

    /// Never for everybody: a group can be given.
    fn mode(&mut self, section: &str, written: Option<&Spanned<String>>) -> Result<u32, ConfigError> {
        let Some(written) = written else { return Ok(PRIVATE) };
        let text = written.get_ref();
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let is_octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let Some(mode) = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal) else {
            let why = format!("`{text}` is not a mode of a file");
            return Err(self.fault_at(written, why).hint("write it in octal digits, such as mode = \"0640\""));
        };
        if mode & 0o007 != 0 {
            let why = format!("with the mode {text} everybody on this machine has access to a password");
            let hint = "write mode = \"0640\", and group = \"...\" for the group that shall read it";
            return Err(self.fault_at(written, why).hint(hint));
        }
        if mode & !0o660 != 0 || mode & 0o400 == 0 {
            let why = format!("with the mode {text} its owner could not read it, or it could be run as a program");
            return Err(self.fault_at(written, why).hint("write \"0600\", \"0640\", \"0660\", \"0400\" or \"0440\""));
        }
        self.note_written(section, "mode", written, |_| format!("{mode:04o}"));
        Ok(mode)
    }

    fn group(&mut self, section: &str, written: Option<&Spanned<String>>) -> Result<Option<String>, ConfigError> {
        let Some(written) = written else { return Ok(None) };
        let name = written.get_ref();
        if name.is_empty()
            || name.starts_with('-')
            || name.contains(|c: char| c.is_control() || matches!(c, ':' | ' ' | ','))
        {
            return Err(self.fault_at(written, format!("`{name}` is not the name or the number of a group")));
        }
        self.note_written(section, "group", written, String::clone);
        Ok(Some(name.clone()))
    }

    /// A file named in the connection's table.
    pub(super) fn file_beside(
        &mut self,
        section: &str,
        key: &'static str,
        written: Option<&Spanned<String>>,
        access: Access,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let Some(path) = written.and_then(|written| self.written(written)) else { return Ok(None) };
        let path = self.path_in_file(path)?;
        Ok(Some(self.note_file(section, key, path, access)))
    }

    pub(super) fn note_written<T: Clone>(
        &mut self,
        section: &str,
        key: &'static str,
        written: &Spanned<T>,
        show: impl FnOnce(&T) -> String,
    ) {
        let value = self.written(written).unwrap_or_else(|| Sourced::new(written.get_ref().clone(), Origin::Default));
        self.note(section, key, value, show);
    }
}

/// `projects/P/branches/B/endpoints/E`.
fn is_endpoint_name(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let is_id = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    matches!(parts.as_slice(), ["projects", p, "branches", b, "endpoints", e] if [p, b, e].into_iter().all(is_id))
}
