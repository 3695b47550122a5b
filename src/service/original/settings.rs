//! The settings of the original's service as ours: as if they were given by flag and environment, below what is given here and
//! what the configuration says already.
//!
//! Invariant: a client's id and secret are taken only with the workspace that the old service named.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use toml_edit::{DocumentMut, Item, Table};
use zeroize::Zeroizing;

use super::Told;
use crate::config::{Overrides, parse_interval};
use crate::model::WorkspaceHost;
use crate::os::dirs::Environment;

/// Variables that the old service read, or the library that it used.
const AUTHORITIES: [&str; 3] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

/// Variables that say nothing about what is kept alive.
const OF_THE_SHELL: [&str; 9] = ["HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TZ", "VIRTUAL_ENV", "DISPLAY"];

/// The options of the original that take a value.
const OPTIONS: [&str; 10] = [
    "--workspace-url",
    "--client-id",
    "--client-secret",
    "--pg-host",
    "--pg-port",
    "--pg-database",
    "--pg-username",
    "--pgpass-file",
    "--log-file",
    "--interval",
];

/// What the old service kept alive.
#[derive(Default)]
pub(crate) struct OldSettings {
    /// As options of ours.
    pub(crate) given: Overrides,
    /// Proxies, and PATH.
    variables: Vec<(String, String)>,
    /// What is not taken: one sentence each.
    pub(crate) left: Vec<String>,
}

/// What is to be set up with the old settings below the present ones.
pub(crate) struct Filled {
    pub(crate) overrides: Overrides,
    pub(crate) environment: Environment,
    /// What is not taken, as it is set otherwise here: one sentence each.
    pub(crate) left: Vec<String>,
}

impl OldSettings {
    pub(crate) fn of(told: &Told) -> Self {
        let mut old = OldSettings { left: told.left.clone(), ..OldSettings::default() };
        for (name, value) in told.variables.iter().filter(|(_, value)| !value.is_empty()) {
            old.variable(name, value);
        }
        // Its options win over its environment.
        old.options(&told.words);
        if let Some(secret) = &old.given.client_secret {
            crate::foreign::secrets::keep(secret);
        }
        old
    }

    fn variable(&mut self, name: &str, value: &str) {
        let given = &mut self.given;
        match name {
            "DATABRICKS_HOST" => given.workspace_url = Some(value.to_owned()),
            "DATABRICKS_CLIENT_ID" => given.client_id = Some(value.to_owned()),
            "DATABRICKS_CLIENT_SECRET" => given.client_secret = Some(SecretString::from(value)),
            "DATABRICKS_PG_HOST" => given.pg_host = Some(value.to_owned()),
            "DATABRICKS_PG_USERNAME" => given.pg_username = Some(value.to_owned()),
            // The first that the library used wins.
            name if AUTHORITIES.contains(&name) => drop(given.ca_file.get_or_insert(PathBuf::from(value))),
            name if PROXIES.contains(&name) || name == "PATH" => {
                self.variables.push((name.to_owned(), value.to_owned()));
            }
            name if OF_THE_SHELL.contains(&name) => {}
            name if ["PYTHON", "LC_", "XDG_"].iter().any(|start| name.starts_with(start)) => {}
            name => self.left.push(format!("the variable {name}")),
        }
    }

    fn options(&mut self, words: &[Zeroizing<String>]) {
        let mut words = words.iter().map(|word| word.as_str());
        while let Some(word) = words.next() {
            // The program, and what runs it.
            if !word.starts_with("--") {
                continue;
            }
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            // argparse takes an option for one that it begins.
            let mut meant = OPTIONS.iter().filter(|option| option.starts_with(name));
            let option = OPTIONS
                .iter()
                .find(|option| **option == name)
                .or_else(|| meant.next().filter(|_| meant.next().is_none()));
            match option {
                Some(option) => {
                    let Some(value) = value.or_else(|| words.next()) else { continue };
                    self.option(option, value);
                }
                None if name == "--once" => {}
                None => self.left.push(format!("the option {name}")),
            }
        }
    }

    fn option(&mut self, option: &str, value: &str) {
        let given = &mut self.given;
        let text = Some(value.to_owned());
        match option {
            "--workspace-url" => given.workspace_url = text,
            "--client-id" => given.client_id = text,
            "--client-secret" => given.client_secret = Some(SecretString::from(value)),
            "--pg-host" => given.pg_host = text,
            "--pg-database" => given.pg_database = text,
            "--pg-username" => given.pg_username = text,
            "--pgpass-file" => given.pgpass_file = vec![PathBuf::from(value)],
            "--log-file" => given.log_file = Some(PathBuf::from(value)),
            "--pg-port" => match value.parse() {
                Ok(port) => given.pg_port = Some(port),
                Err(_) => self.left.push("--pg-port, which is no port".to_owned()),
            },
            _ => match parse_interval(value) {
                Ok(interval) => given.interval = Some(interval),
                Err(_) => self.left.push("--interval, which is not between a minute and a day".to_owned()),
            },
        }
    }

    /// These settings below those that are given here, and below those of the configuration with this text.
    pub(crate) fn below(mut self, overrides: &Overrides, here: &Environment, written: Option<&str>) -> Filled {
        let written = Written::of(written);
        let (environment, left) = (here.clone(), std::mem::take(&mut self.left));
        let mut filled = Filled { overrides: overrides.clone(), environment, left };
        self.fill_workspace(&mut filled, &written);
        self.fill_connection(&mut filled, &written);
        self.fill_rest(&mut filled, &written);
        filled
    }

    fn fill_workspace(&self, filled: &mut Filled, written: &Written) {
        let here = &filled.environment;
        let host = filled.overrides.workspace_url.clone().or_else(|| here.get("DATABRICKS_HOST").map(str::to_owned));
        let host = host.or_else(|| written.workspace("host"));
        let by_profile = filled.overrides.profile.is_some()
            || here.get("DATABRICKS_CONFIG_PROFILE").is_some()
            || written.workspace("profile").is_some();
        let Some(old) = &self.given.workspace_url else { return };
        if written.workspaces > 1 || host.as_ref().map_or(by_profile, |host| !is_same(host, old)) {
            filled.left.push(format!("the workspace {old}, and the client for it: another one is set here"));
            return;
        }
        let has_client = filled.overrides.client_id.is_some()
            || filled.overrides.client_secret.is_some()
            || filled.overrides.client_secret_file.is_some()
            || here.get("DATABRICKS_CLIENT_ID").is_some()
            || here.client_secret().is_some()
            || written.workspace("client_id").is_some();
        if host.is_none() || !has_client {
            let host = host.as_ref().unwrap_or(old);
            filled.environment = filled.environment.clone().with("DATABRICKS_HOST", host);
        }
        if has_client {
            return;
        }
        if let Some(id) = &self.given.client_id {
            filled.environment = filled.environment.clone().with("DATABRICKS_CLIENT_ID", id);
        }
        if let Some(secret) = &self.given.client_secret {
            filled.environment = filled.environment.clone().with("DATABRICKS_CLIENT_SECRET", secret.expose_secret());
        }
    }

    fn fill_connection(&self, filled: &mut Filled, written: &Written) {
        let given = &mut filled.overrides;
        let here = |name: &str| filled.environment.get(name).map(str::to_owned);
        let host = given.pg_host.clone().or_else(|| here("DATABRICKS_PG_HOST"));
        let is_other = match (&host, &self.given.pg_host) {
            (Some(host), Some(old)) => !host.eq_ignore_ascii_case(old),
            _ => false,
        };
        if written.names_a_database || is_other {
            if let Some(old) = self.given.pg_host.as_ref().filter(|old| !written.has_host(old)) {
                filled.left.push(format!("the database on {old}: another one is set here"));
            }
            return;
        }
        let missing = |name: &str| here(name).is_none();
        if missing("DATABRICKS_PG_HOST") {
            given.pg_host = given.pg_host.take().or_else(|| self.given.pg_host.clone());
        }
        if missing("DATABRICKS_PG_USERNAME") {
            given.pg_username = given.pg_username.take().or_else(|| self.given.pg_username.clone());
        }
        given.pg_port = given.pg_port.or(self.given.pg_port);
        given.pg_database = given.pg_database.take().or_else(|| self.given.pg_database.clone());
    }

    fn fill_rest(&self, filled: &mut Filled, written: &Written) {
        let given = &mut filled.overrides;
        let unsaid = |key: &str| !written.global(key);
        if given.pgpass_file.is_empty() && unsaid("password_file") && filled.environment.get_os("PGPASSFILE").is_none()
        {
            given.pgpass_file.clone_from(&self.given.pgpass_file);
        }
        if unsaid("log_file") {
            given.log_file = given.log_file.take().or_else(|| self.given.log_file.clone());
        }
        if unsaid("interval") {
            given.interval = given.interval.or(self.given.interval);
        }
        if written.workspaces <= 1 && written.workspace("ca_file").is_none() {
            given.ca_file = given.ca_file.take().or_else(|| self.given.ca_file.clone());
        }
        for (name, value) in &self.variables {
            let here = filled.environment.get(name).map(str::to_owned);
            let value = match (name.as_str(), here) {
                // The vendor's CLI may be found only there.
                ("PATH", Some(here)) => format!("{here}:{value}"),
                (_, Some(_)) => continue,
                (name, None) if name.eq_ignore_ascii_case("https_proxy") && written.global("proxy") => continue,
                (name, None) if name.eq_ignore_ascii_case("no_proxy") && written.global("no_proxy") => continue,
                (_, None) => value.clone(),
            };
            filled.environment = filled.environment.clone().with(name, value);
        }
    }
}

/// Whether two addresses are of one workspace.
fn is_same(one: &str, other: &str) -> bool {
    let origin = |text: &str| WorkspaceHost::parse(text).map(|host| host.origin().to_owned());
    matches!((origin(one), origin(other)), (Ok(one), Ok(other)) if one == other)
}

/// What the configuration says already.
struct Written {
    document: DocumentMut,
    workspaces: usize,
    names_a_database: bool,
}

impl Written {
    /// A text that is not TOML is refused later, with its place.
    fn of(text: Option<&str>) -> Self {
        let document: DocumentMut = text.and_then(|text| text.parse().ok()).unwrap_or_default();
        let mut written = Written { document, workspaces: 0, names_a_database: false };
        written.workspaces = written.tables("workspace").len();
        let connections = written.tables("connection");
        let named = |table: &&Table| ["host", "instance", "endpoint"].iter().any(|key| table.contains_key(key));
        written.names_a_database = connections.len() > 1 || connections.iter().any(named);
        written
    }

    fn tables(&self, kind: &str) -> Vec<&Table> {
        let tables = self.document.get(kind).and_then(Item::as_array_of_tables);
        tables.into_iter().flatten().collect()
    }

    fn global(&self, key: &str) -> bool {
        self.document.contains_key(key)
    }

    /// A setting of the only workspace.
    fn workspace(&self, key: &str) -> Option<String> {
        self.tables("workspace").first()?.get(key)?.as_str().map(str::to_owned)
    }

    fn has_host(&self, host: &str) -> bool {
        let hosts = self.tables("connection").into_iter().filter_map(|table| table.get("host")?.as_str());
        hosts.into_iter().any(|known| known.eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PROD: &str = "https://prod.example";

    fn told(line: &str, variables: &[(&str, &str)]) -> Told {
        let words = line.split_whitespace().map(|word| word.to_owned().into()).collect();
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into())).collect();
        Told { words, variables, ..Told::default() }
    }

    fn client() -> Vec<(&'static str, &'static str)> {
        vec![
            ("DATABRICKS_HOST", PROD),
            ("DATABRICKS_CLIENT_ID", "an-id"),
            ("DATABRICKS_CLIENT_SECRET", "a-secret-of-old"),
            ("DATABRICKS_PG_HOST", "db.example"),
            ("DATABRICKS_PG_USERNAME", "ada"),
        ]
    }

    fn below(told: &Told, overrides: &Overrides, here: &[(&str, &str)], written: &str) -> Filled {
        let here: Environment = here.iter().copied().collect();
        OldSettings::of(told).below(overrides, &here, Some(written).filter(|text| !text.is_empty()))
    }

    /// Host, id and secret as they will be used.
    fn identity(filled: &Filled) -> [Option<String>; 3] {
        let text = |name: &str| filled.environment.get(name).map(str::to_owned);
        let secret = filled.environment.client_secret().map(|secret| secret.expose_secret().to_owned());
        [text("DATABRICKS_HOST"), text("DATABRICKS_CLIENT_ID"), secret]
    }

    #[test]
    fn every_option_of_the_original_is_taken_and_wins_over_its_environment() {
        let line = "/usr/bin/python3 /opt/rotator.py --workspace-url=https://prod.example --client-id id --client-secret s3 \
            --pg-host h --pg-port 6432 --pg-data app --pg-username u --pgpass-file /p --log-file ~/l.log --interval 45 \
            --once --colour x";
        let filled = below(&told(line, &client()), &Overrides::default(), &[("PATH", "/bin")], "");
        let given = &filled.overrides;
        assert_eq!(identity(&filled), [Some(PROD.into()), Some("id".into()), Some("s3".into())]);
        assert_eq!(
            (given.pg_host.as_deref(), given.pg_port, given.pg_database.as_deref()),
            (Some("h"), Some(6432), Some("app"))
        );
        assert_eq!((given.pg_username.as_deref(), given.interval), (Some("u"), Some(Duration::from_secs(2_700))));
        assert_eq!(
            (&given.pgpass_file[..], &given.log_file),
            (&[PathBuf::from("/p")][..], &Some(PathBuf::from("~/l.log")))
        );
        assert_eq!(filled.left, ["the option --colour"]);
        assert!(given.client_secret.is_none(), "not as an option, which would be warned about");
    }

    #[test]
    fn what_is_given_here_or_written_already_wins() {
        let old = told("rotator --pg-port 6432 --interval 45 --log-file /old", &client());
        let given = Overrides { interval: Some(Duration::from_secs(60)), ..Overrides::default() };
        let here = [("DATABRICKS_PG_USERNAME", "eve"), ("PATH", "/bin")];
        let filled = below(&old, &given, &here, "log_file = '/new'\n");
        assert_eq!((filled.overrides.interval, &filled.overrides.log_file), (given.interval, &None));
        assert_eq!((filled.overrides.pg_username.as_deref(), filled.overrides.pg_port), (None, Some(6432)));
        let written = "[[connection]]\nname = 'x'\ninstance = 'orders'\n";
        let filled = below(&old, &Overrides::default(), &[], written);
        assert_eq!((filled.overrides.pg_host, filled.overrides.pg_port), (None, None));
        assert!(filled.left[0].contains("db.example"), "{:?}", filled.left);
        // Another database is not given the old one's user.
        let other = Overrides { pg_host: Some("other.example".to_owned()), ..Overrides::default() };
        let filled = below(&old, &other, &[], "");
        assert_eq!((filled.overrides.pg_host.as_deref(), filled.overrides.pg_username), (Some("other.example"), None));
    }

    #[test]
    fn a_secret_goes_only_to_the_workspace_that_the_old_service_named() {
        let old = told("rotator", &client());
        let all = [Some(PROD.to_owned()), Some("an-id".into()), Some("a-secret-of-old".into())];
        let nothing = [None, None, None];
        let flag = |url: &str| Overrides { workspace_url: Some(url.to_owned()), ..Overrides::default() };
        assert_eq!(identity(&below(&old, &flag("prod.example/"), &[], ""))[1..], all[1..]);
        for (given, here, written) in [
            (flag("https://dev.example"), None, ""),
            (Overrides::default(), Some(("DATABRICKS_CONFIG_PROFILE", "dev")), ""),
            (Overrides { profile: Some("dev".to_owned()), ..Overrides::default() }, None, ""),
            (Overrides::default(), None, "[[workspace]]\nhost = 'dev.example'\n"),
            (Overrides::default(), None, "[[workspace]]\nprofile = 'dev'\n"),
            (Overrides::default(), None, "[[workspace]]\nname = 'a'\n[[workspace]]\nname = 'b'\n"),
        ] {
            let here: Vec<_> = here.into_iter().collect();
            let filled = below(&old, &given, &here, written);
            assert_eq!(identity(&filled), nothing, "{given:?} {written}");
            assert!(filled.left[0].contains(PROD) && !filled.left[0].contains("secret-of-old"), "{:?}", filled.left);
        }
        assert_eq!(identity(&below(&old, &Overrides::default(), &[], "")), all);
        // A client that is given here is whole, and not mixed with the old one.
        let here = [("DATABRICKS_CLIENT_ID", "mine"), ("DATABRICKS_CLIENT_SECRET", "my-own")];
        let filled = below(&old, &Overrides::default(), &here, "");
        assert_eq!(identity(&filled), [Some(PROD.into()), Some("mine".into()), Some("my-own".into())]);
        let written = "[[workspace]]\nhost = 'https://prod.example/'\nclient_id = 'x'\n";
        assert_eq!(identity(&below(&old, &Overrides::default(), &[], written)), nothing);
    }

    #[test]
    fn the_way_to_the_network_is_taken_and_what_is_unknown_is_said_without_its_value() {
        let variables = [
            ("HTTPS_PROXY", "http://proxy:1"),
            ("NO_PROXY", "a.example"),
            ("REQUESTS_CA_BUNDLE", "/ca.pem"),
            ("PATH", "/opt/cli:/bin"),
            ("HOME", "/home/ada"),
            ("PYTHONUNBUFFERED", "1"),
            ("API_KEY", "a-secret"),
        ];
        let filled =
            below(&told("rotator", &variables), &Overrides::default(), &[("PATH", "/bin")], "no_proxy = 'x'\n");
        assert_eq!(filled.environment.get("HTTPS_PROXY"), Some("http://proxy:1"));
        assert_eq!(filled.environment.get("NO_PROXY"), None);
        assert_eq!(filled.environment.get("PATH"), Some("/bin:/opt/cli:/bin"));
        assert_eq!(filled.overrides.ca_file, Some(PathBuf::from("/ca.pem")));
        assert_eq!(filled.left, ["the variable API_KEY"]);
    }
}
