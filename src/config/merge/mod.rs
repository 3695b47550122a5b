//! Combines the sources, best first, and remembers where each value came from.
//!
//! All missing settings are reported together; any other fault ends the merge at once.

mod connection;
mod environment;
mod files;
mod identity;
mod kubernetes;
mod local_proxy;
mod options;
mod proxy;
mod sign_in;
mod workspace;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_spanned::Spanned;

use super::Config;
use super::fault::ConfigError;
use super::file::{Interval, OneOrMore};
use super::fragments::{self, Place};
use super::origin::{Origin, Setting, Sourced};
use super::overrides::Overrides;
use super::paths::{self, Access, Clash, Use};
use super::secret::keep_if_no_path;
use super::source::ConfigSource;
use crate::os::dirs::{CLIENT_SECRET, Environment, SYSTEM_DIRECTORY};
use crate::proxies::Proxies;

/// The name of a workspace or connection without one, if it is the only one.
const DEFAULT_NAME: &str = "default";

/// How many password files there may be: each is read at every look.
const MOST_PASSWORD_FILES: usize = 16;

/// How many old log files are kept beside the present one, as `FILE.1` and so on.
const OLD_LOG_FILES: usize = 5;

/// Reads and merges everything.
pub(in crate::config) fn load(
    overrides: &Overrides,
    environment: Environment,
    place: Option<Place>,
    only_workspaces: bool,
) -> Result<Config, ConfigError> {
    environment::check(&environment)?;
    let overrides = &overrides.expanded(&environment)?;
    let place = place.or_else(|| self::place(overrides, &environment));
    let files = place.as_ref().map_or_else(|| Ok(Vec::new()), Place::read)?;
    let merge = Merge {
        overrides,
        environment: &environment,
        only_workspaces,
        by_name: HashMap::new(),
        alone: HashMap::new(),
        files: &files,
        handed_over_to: None,
        source: files.first(),
        place: place.as_ref(),
        of_fragments: BTreeMap::new(),
        settings: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
        aside: Vec::new(),
        uses: Vec::new(),
        missing: Vec::new(),
        hidden: BTreeSet::new(),
        proxies: Proxies::default(),
    };
    merge.config()
}

/// Which configuration is read.
pub(in crate::config) fn place(overrides: &Overrides, environment: &Environment) -> Option<Place> {
    if let Some(path) = overrides.named_config(environment) {
        return Some(Place::new(path, true, environment));
    }
    let candidates = environment.config_files();
    let places: Vec<Place> = candidates.into_iter().map(|file| Place::new(file, false, environment)).collect();
    // The machine's fragments are for whoever has a file there.
    let is_own = |place: &&Place| place.file.parent() != Some(Path::new(SYSTEM_DIRECTORY));
    let own = || places.iter().filter(is_own);
    let found = own().find(|place| place.file.exists()).or_else(|| own().find(|place| place.is_there()));
    found.or_else(|| places.iter().find(|place| place.file.exists())).or(places.first()).cloned()
}

/// The places where a setting may be given.
struct Places {
    flag: &'static str,
    variable: &'static str,
    key: &'static str,
    table: &'static str,
    /// Whether flags and variables count: only if there is just one workspace or connection.
    ambient: bool,
    profile_key: Option<&'static str>,
}

impl Places {
    fn of_workspace(
        (flag, variable): (&'static str, &'static str),
        key: &'static str,
        profile_key: &'static str,
        ambient: bool,
    ) -> Self {
        Places { flag, variable, key, table: "workspace", ambient, profile_key: Some(profile_key) }
    }

    fn of_connection((flag, variable): (&'static str, &'static str), key: &'static str, ambient: bool) -> Self {
        Places { flag, variable, key, table: "connection", ambient, profile_key: None }
    }
}

struct Merge<'a> {
    overrides: &'a Overrides,
    environment: &'a Environment,
    /// Only workspaces are wanted, to list possible connections; settings that connections lack do not matter.
    only_workspaces: bool,
    /// The place of each workspace among all, by name.
    by_name: HashMap<String, usize>,
    /// The only workspace of a file, by the file's path.
    alone: HashMap<Arc<Path>, usize>,
    /// config.toml and its fragments, as far as they are there.
    files: &'a [ConfigSource],
    /// Of these the one with the setting or the table that is looked at.
    source: Option<&'a ConfigSource>,
    /// Of several workspaces the one that a credential without a name belongs to.
    handed_over_to: Option<String>,
    place: Option<&'a Place>,
    of_fragments: BTreeMap<String, String>,
    settings: Vec<Setting>,
    warnings: Vec<String>,
    notes: Vec<String>,
    /// What was ignored about identities. It may explain what is missing.
    aside: Vec<String>,
    /// All files with their roles.
    uses: Vec<Use>,
    missing: Vec<String>,
    /// Variables that hold a secret.
    hidden: BTreeSet<String>,
    /// Once they have been looked at.
    proxies: Proxies,
}

impl Merge<'_> {
    fn config(mut self) -> Result<Config, ConfigError> {
        let password_files = self.password_files()?;
        let log_file = self.log_file()?;
        let interval = self.interval()?;
        let notify_command = self.notify_command()?;
        let cluster = self.cluster()?;
        self.proxies = self.proxies()?;
        let local_proxy = self.local_proxy()?;
        let state = Sourced::new(self.environment.state_dir(), Origin::Default);
        let state_dir = self.note("", "state_directory", state, |path| path.display().to_string());
        let workspaces = self.workspaces()?;
        let connections = if self.only_workspaces { Vec::new() } else { self.connections(&workspaces)? };
        self.report_missing()?;
        let service_file = self.service_file();
        self.use_what_is_not_set(&state_dir, service_file.as_deref());
        paths::check(&self.uses)
            .map_err(|Clash { at, message }| self.fault(&at, message).hint("give each of them a file of its own"))?;
        Ok(Config {
            workspaces: workspaces.into_iter().flatten().collect(),
            connections,
            password_files,
            service_file,
            log_file,
            interval,
            local_proxy,
            notify_command,
            cluster,
            state_dir,
            environment: self.hidden.iter().fold(self.environment.clone(), |all, name| all.hiding(name)),
            file: self.files.iter().find(|source| !source.is_fragment).map(|source| source.path.to_path_buf()),
            fragments: fragments::paths(self.files).iter().map(|path| path.to_path_buf()).collect(),
            fragments_directory: self.place.and_then(|place| place.fragments.clone()),
            of_fragments: self.of_fragments,
            settings: self.settings,
            warnings: self.warnings,
            notes: self.notes,
        })
    }

    // ---- global settings ----

    /// At least one.
    fn password_files(&mut self) -> Result<Vec<PathBuf>, ConfigError> {
        let written = self.written_password_files()?;
        let flags = self.overrides.pgpass_file.iter().cloned();
        let mut files: Vec<Sourced<PathBuf>> =
            flags.map(|path| Sourced::new(path, Origin::Flag("--pgpass-file"))).collect();
        // A variable that names one of the configured files says nothing against the others.
        let other = |path: &PathBuf| written.len() < 2 || written.iter().all(|file| file.value != *path);
        if let Some(path) = self.environment.path("PGPASSFILE").filter(other).filter(|_| files.is_empty()) {
            if written.len() > 1 {
                self.warnings.push(format!(
                    "$PGPASSFILE names the only password file: the {} of the configuration file are ignored",
                    written.len()
                ));
            }
            files.push(Sourced::new(path, Origin::Environment("PGPASSFILE")));
        }
        if files.is_empty() {
            files = written;
        }
        if files.is_empty() {
            let home = self.environment.home().ok_or_else(|| {
                ConfigError::new("no home directory is known, so there is no ~/.pgpass")
                    .hint("set HOME, or use --pgpass-file PATH")
            })?;
            files.push(Sourced::new(home.join(".pgpass"), Origin::Default));
        }
        for file in &files {
            self.use_file("", "password_file", file, Access::Writes);
        }
        let shown = files.iter().map(|file| file.value.display().to_string()).collect::<Vec<_>>().join(", ");
        let origin = files.first().map_or(Origin::Default, |file| file.origin.clone());
        let files = files.into_iter().map(|file| file.value).collect();
        Ok(self.note("", "password_file", Sourced::new(files, origin), |_| shown))
    }

    /// Those of the configuration file, each with its place there.
    fn written_password_files(&mut self) -> Result<Vec<Sourced<PathBuf>>, ConfigError> {
        let Some(setting) = self.head("password_file", |file| file.password_file.as_ref())? else {
            return Ok(Vec::new());
        };
        let paths: Vec<Spanned<String>> = match setting.get_ref() {
            OneOrMore::One(path) => vec![Spanned::new(setting.span(), path.clone())],
            OneOrMore::More(paths) if paths.is_empty() => {
                let why = "password_file is an empty list";
                return Err(self.fault_at(setting, why).hint("name a file, or leave the setting out for ~/.pgpass"));
            }
            OneOrMore::More(paths) if paths.len() > MOST_PASSWORD_FILES => {
                let why = format!("there are {} password files, and at most {MOST_PASSWORD_FILES} may be", paths.len());
                return Err(self.fault_at(setting, why));
            }
            OneOrMore::More(paths) => paths.clone(),
        };
        paths.iter().filter_map(|path| self.written(path)).map(|path| self.path_in_file(path)).collect()
    }

    /// libpq's own rule (fe-connect.c, parseServiceInfo).
    fn service_file(&self) -> Option<PathBuf> {
        let home = || Some(self.environment.home()?.join(".pg_service.conf"));
        self.environment.path("PGSERVICEFILE").or_else(home)
    }

    fn log_file(&mut self) -> Result<Option<PathBuf>, ConfigError> {
        let flag = self.overrides.log_file.clone().map(|path| Sourced::new(path, Origin::Flag("--log-file")));
        let name = self.head("log_file", |file| file.log_file.as_ref())?.and_then(|name| self.written(name));
        let written = name.map(|name| match self.environment.log_file_named(&name.value) {
            Some(usual) => Ok(name.map(|_| usual)),
            None => self.path_in_file(name),
        });
        let Some(path) = flag.or(written.transpose()?) else { return Ok(None) };
        for number in 1..=OLD_LOG_FILES {
            let mut old = path.value.clone().into_os_string();
            old.push(format!(".{number}"));
            let role = format!("the old log file {number}");
            self.uses.push(Use { role, origin: path.origin.clone(), path: old.into(), access: Access::Writes });
        }
        Ok(Some(self.note_file("", "log_file", path, Access::Writes)))
    }

    fn interval(&mut self) -> Result<Option<std::time::Duration>, ConfigError> {
        let flag = self.overrides.interval.map(|interval| Sourced::new(interval, Origin::Flag("--interval")));
        let written = self.head("interval", |file| file.interval.as_ref())?.and_then(|interval| self.written(interval));
        let Some(interval) = flag.or(written.map(|interval| interval.map(|interval| interval.0))) else {
            let (key, value) = ("interval", "20 min before the expiry".to_owned());
            self.settings.push(Setting { section: String::new(), key, value, origin: Origin::Default });
            return Ok(None);
        };
        if !Interval::RANGE.contains(&interval.value) {
            return Err(self.fault(&interval.origin, "the interval must lie between 1 minute and 24 hours"));
        }
        Ok(Some(self.note("", "interval", interval, |value| match value.as_secs() {
            seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
            seconds => format!("{seconds} s"),
        })))
    }

    // ---- helpers ----

    fn variable(&self, name: &'static str) -> Option<Sourced<String>> {
        self.environment.get(name).map(|value| Sourced::new(value.to_owned(), Origin::Environment(name)))
    }

    fn written<T: Clone>(&self, value: &Spanned<T>) -> Option<Sourced<T>> {
        let source = self.source?;
        let origin = Origin::File(Arc::clone(&source.path), source.line(value), value.span());
        Some(Sourced::new(value.get_ref().clone(), origin))
    }

    /// A path in the file: what a shell would have expanded is, a relative one starts at the directory of config.toml, in a fragment,
    /// too, so that a table means the same in each of the files.
    fn path_in_file(&self, text: Sourced<String>) -> Result<Sourced<PathBuf>, ConfigError> {
        let path = self.expanded(text)?;
        Ok(match self.source {
            Some(source) if path.value.is_relative() => path.map(|path| source.base.join(path)),
            _ => path,
        })
    }

    fn expanded(&self, text: Sourced<String>) -> Result<Sourced<PathBuf>, ConfigError> {
        keep_if_no_path(Path::new(&text.value));
        let path = self.environment.expand(Path::new(&text.value)).map_err(|why| self.fault(&text.origin, why))?;
        Ok(text.map(|_| path))
    }

    fn note<T>(&mut self, section: &str, key: &'static str, value: Sourced<T>, show: impl FnOnce(&T) -> String) -> T {
        let shown = show(&value.value);
        self.settings.push(Setting { section: section.to_owned(), key, value: shown, origin: value.origin });
        value.value
    }

    /// Notes a setting that names a file, and how the file is used.
    fn note_file(&mut self, section: &str, key: &'static str, path: Sourced<PathBuf>, access: Access) -> PathBuf {
        self.use_file(section, key, &path, access);
        self.note(section, key, path, |path| path.display().to_string())
    }

    fn use_file(&mut self, section: &str, key: &str, path: &Sourced<PathBuf>, access: Access) {
        let role = if section.is_empty() { key.to_owned() } else { format!("{key} of {section}") };
        self.uses.push(Use { role, origin: path.origin.clone(), path: path.value.clone(), access });
    }

    /// Files that are used without a setting of ours.
    fn use_what_is_not_set(&mut self, state_dir: &Path, service_file: Option<&Path>) {
        let environment = self.environment;
        let by_variable = |name: &'static str| {
            if environment.get_os(name).is_some() { Origin::Environment(name) } else { Origin::Default }
        };
        for source in self.files {
            let (role, origin, path) = if source.is_fragment {
                ("a fragment of the configuration", Origin::Default, source.path.to_path_buf())
            } else {
                ("the configuration file", by_variable("DBX_ROTATOR_CONFIG"), source.path.to_path_buf())
            };
            self.uses.push(Use { role: role.to_owned(), origin, path, access: Access::Reads });
        }
        // Also where another file is read: what is at the usual places counts for whoever names none.
        for file in environment.config_files() {
            let fragments = file.with_file_name(fragments::DIRECTORY);
            for (role, path) in [("the configuration file", file), ("the directory of fragments", fragments)] {
                self.uses.push(Use { role: role.to_owned(), origin: Origin::Default, path, access: Access::Reads });
            }
        }
        let (logins, units) = (Some(environment.logins_dir()), Some(environment.units_dir()));
        let (record, lock) = (Some(state_dir.join("record.json")), Some(state_dir.join("lock")));
        let (password, figures) = (Some(state_dir.join("proxy-password")), Some(state_dir.join("proxy.json")));
        let (mark, proxys_mark) = (Some(state_dir.join("running")), Some(state_dir.join("proxy-running")));
        let google = environment.google_credentials();
        let program = environment.path("DATABRICKS_CLI_PATH").filter(|path| path.is_absolute());
        let authorities = environment.path("SSL_CERT_FILE");
        for (role, path, origin, access) in [
            ("the record", record, by_variable("STATE_DIRECTORY"), Access::Writes),
            ("the lock", lock, by_variable("STATE_DIRECTORY"), Access::Writes),
            ("the proxy's password", password, by_variable("STATE_DIRECTORY"), Access::Writes),
            ("the proxy's figures", figures, by_variable("STATE_DIRECTORY"), Access::Writes),
            ("the daemon's mark", mark, by_variable("STATE_DIRECTORY"), Access::Writes),
            ("the proxy's mark", proxys_mark, by_variable("STATE_DIRECTORY"), Access::Writes),
            ("Google's credentials", google, by_variable("GOOGLE_APPLICATION_CREDENTIALS"), Access::Reads),
            ("the directory of units", units, Origin::Default, Access::Reads),
            ("the place of logins", logins, by_variable("XDG_STATE_HOME"), Access::Writes),
            (
                "the profile file",
                environment.databricks_config_file(),
                by_variable("DATABRICKS_CONFIG_FILE"),
                Access::Reads,
            ),
            ("the logins of the Databricks CLI", environment.databricks_token_cache(), Origin::Default, Access::Reads),
            ("the Databricks CLI", program, by_variable("DATABRICKS_CLI_PATH"), Access::Reads),
            ("SSL_CERT_FILE", authorities, by_variable("SSL_CERT_FILE"), Access::Reads),
            // Written if a connection is listed; nothing else may ever write it.
            (
                "the connection service file",
                service_file.map(Path::to_owned),
                by_variable("PGSERVICEFILE"),
                Access::Writes,
            ),
        ] {
            let role = role.to_owned();
            self.uses.extend(path.map(|path| Use { role, origin, path, access }));
        }
    }

    fn fault(&self, origin: &Origin, why: impl Into<String>) -> ConfigError {
        let why = why.into();
        let text_of = |path: &Path| self.files.iter().find(|source| *source.path == *path);
        match origin {
            Origin::File(path, _, span) => match text_of(path) {
                Some(source) => ConfigError::new(why).at(&source.path, &source.text, span.clone()),
                None => ConfigError::new(format!("{origin}: {why}")),
            },
            Origin::Default => ConfigError::new(why),
            other => ConfigError::new(format!("{other}: {why}")),
        }
    }

    /// Notes that a setting is missing, and where it could be given for `name`.
    fn lacks(&mut self, (what, name): (&str, &str), from: Places) {
        let file = self.file_to_change();
        let mut places = Vec::new();
        if from.ambient {
            places.extend([from.flag.to_owned(), format!("${}", from.variable)]);
            let is_host = (from.table, from.key) == ("connection", "host");
            places.extend((is_host && !self.has_connections()).then(|| "$PGHOST".to_owned()));
        }
        places.push(format!("`{}` in [[{}]] of {file}", from.key, from.table));
        places.extend(from.profile_key.map(|key| format!("`{key}` in a profile of ~/.databrickscfg")));
        if from.key == "host" && from.table == "connection" {
            places.push(
                "`instance` or `endpoint` there, by which it is found: `dbx-rotator connections` lists them".to_owned(),
            );
        }
        let whose = if from.ambient { String::new() } else { format!(" of {} {name}", from.table) };
        self.missing.push(format!("{what}{whose} is not set: give it by one of:"));
        self.missing.extend(places.into_iter().map(|place| format!("    {place}")));
    }

    fn report_missing(&mut self) -> Result<(), ConfigError> {
        if self.missing.is_empty() {
            return Ok(());
        }
        self.missing.append(&mut self.aside);
        Err(ConfigError::missing(self.missing.iter().map(String::as_str)))
    }

    fn only_for_one(&self, count: usize, what: &str, flag: Option<&'static str>) -> Result<(), ConfigError> {
        match flag {
            None => Ok(()),
            Some(flag) => Err(ConfigError::usage(format!("{flag} cannot say which of the {count} {what} it is for"))
                .hint("change the configuration file, or name another with --config PATH")),
        }
    }

    fn note_unused(&mut self, variables: &[&'static str], count: usize, what: &str) {
        for name in variables {
            let is_secret = *name == CLIENT_SECRET && self.environment.client_secret().is_some();
            if is_secret || self.environment.get(name).is_some() {
                self.warnings.push(format!("${name} is ignored: the configuration file has {count} {what}"));
            }
        }
    }
}
