//! What a service would not see of the settings in use: a service manager hands on neither the environment of a shell nor the
//! options of a command. `connections --toml` writes it into the configuration; never a secret.

use std::path::Path;

use crate::config::{Config, Origin, Overrides, Setting, vendor_variables};
use crate::foreign;
use crate::generated::is_plain;
use crate::model::{SecretSource, Workspace};
use crate::os::dirs::{CLIENT_SECRET, Environment};
use crate::os::files::read_text;
use crate::proxies::{EXCEPTION_VARIABLES, PROXY_VARIABLES};
use crate::service::absolute;
use crate::typed::shell_path;

/// A table, as it is meant: its keys and their values.
pub(super) type Meant = Vec<(&'static str, String)>;

/// What it is called beside the configuration.
const SECRET_FILE: &str = "client-secret";

/// Settings of the sign-in that a file can give; the secret and the address are judged by themselves.
const OF_WORKSPACE: [&str; 14] = [
    "auth",
    "client_id",
    "profile",
    "cli_path",
    "account_id",
    "group_id",
    "scopes",
    "oidc_token_filepath",
    "oidc_token_env",
    "token_audience",
    "azure_client_id",
    "azure_tenant_id",
    "azure_workspace_resource_id",
    "azure_environment",
];

/// Variables that change how the workspace is reached. The configuration has keys for a proxy only, and its value may hold a password:
/// so a person gives them to the service.
const OF_THE_SHELL: [&str; 7] = [
    PROXY_VARIABLES[0],
    PROXY_VARIABLES[1],
    EXCEPTION_VARIABLES[0],
    EXCEPTION_VARIABLES[1],
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "DATABRICKS_AUTH_STORAGE",
];

/// Variables that set something for this run, besides those that say how to sign in.
const OF_A_RUN: [&str; 7] = [
    "DATABRICKS_CONFIG_PROFILE",
    "DATABRICKS_CONFIG_FILE",
    "DATABRICKS_CLI_PATH",
    "DATABRICKS_PG_HOST",
    "DATABRICKS_PG_USERNAME",
    "PGPASSFILE",
    "DBX_ROTATOR_CONFIG",
];

/// What is to be written beside the connections.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// At the head of the file.
    pub(super) head: Meant,
    /// One `[[workspace]]`.
    pub(super) workspace: Meant,
    /// In each `[[connection]]`.
    pub(super) connection: Meant,
    /// What a person has to do, a line each.
    pub(super) remarks: Vec<String>,
}

impl Needs {
    pub(super) fn of(config: &Config, overrides: &Overrides) -> Self {
        let mut needs = Needs::default();
        let [workspace] = config.workspaces() else { return needs };
        let service = as_service(config);
        needs.workspace = of_workspace(config, workspace, service.as_ref());
        if needs.workspace.iter().any(|(key, value)| (*key, value.as_str()) == ("client_secret_file", SECRET_FILE)) {
            needs.remarks.push(how_to_keep_the_secret(config));
        }
        let passfile = setting(config, "", "password_file").filter(|setting| is_unseen(setting, service.as_ref()));
        match (passfile, config.password_files()) {
            (None, _) => {}
            (Some(setting), [only]) => needs.head.push((setting.key, absolute(&only.display().to_string()))),
            (Some(setting), several) => {
                let list: toml_edit::Array = several.iter().map(|file| absolute(&file.display().to_string())).collect();
                needs.remarks.push(format!("write at the head of the configuration: {} = {list}", setting.key));
            }
        }
        let user = overrides
            .pg_username
            .clone()
            .or_else(|| config.environment.get("DATABRICKS_PG_USERNAME").map(str::to_owned));
        needs.connection.extend(user.map(|user| ("user", user)));
        needs.connection.extend(overrides.pg_database.clone().map(|database| ("database", database)));
        let shell: Vec<&str> =
            OF_THE_SHELL.into_iter().filter(|name| config.environment.get_os(name).is_some()).collect();
        if !shell.is_empty() {
            needs.remarks.push(format!("a service does not see what your shell sets; give it {}", shell.join(", ")));
        }
        for table in [&mut needs.head, &mut needs.workspace, &mut needs.connection] {
            table.retain(|(_, value)| is_plain(value));
        }
        needs.fit_into(config);
        needs
    }

    /// What cannot be appended to the file that is there becomes a remark on it, or on the fragment that it belongs to.
    fn fit_into(&mut self, config: &Config) {
        if let [workspace] = config.workspaces()
            && let Some(place) = config.place_in_fragment(&format!("workspace \"{}\"", workspace.name()), "")
        {
            let all = std::mem::take(&mut self.workspace);
            self.remark(all, "[[workspace]]", place);
        }
        let Some(file) = config.file() else { return };
        let text = read_text(file).unwrap_or_default();
        let Ok(document) = text.parse::<toml_edit::DocumentMut>() else { return };
        let shown = file.display().to_string();
        if document.contains_key("workspace") {
            let all = std::mem::take(&mut self.workspace);
            self.remark(all, "[[workspace]]", &shown);
        }
        if !document.is_empty() {
            let all = std::mem::take(&mut self.head);
            self.remark(all, "the head", &shown);
        }
    }

    fn remark(&mut self, table: Meant, place: &str, file: &str) {
        let lines = table.into_iter().map(|(key, value)| assignment(key, &value));
        let lines: Vec<String> = lines.map(|line| format!("write at {place} of {file}: {line}")).collect();
        self.remarks.splice(0..0, lines);
    }

    /// The remarks as comments.
    pub(super) fn comments(&self) -> String {
        self.remarks.iter().map(|remark| format!("# {}\n", foreign::line(remark))).collect()
    }
}

/// `key = value`, as TOML has it.
pub(super) fn assignment(key: &str, value: &str) -> String {
    format!("{key} = {}", toml_edit::Value::from(value))
}

/// What a service reads of the same file; none where that is not enough for one.
fn as_service(config: &Config) -> Option<Config> {
    let of_a_run = OF_A_RUN.into_iter().chain(vendor_variables());
    let environment = of_a_run.chain(OF_THE_SHELL).fold(config.environment.clone(), Environment::without);
    let overrides = Overrides { config: config.file().map(Path::to_owned), ..Overrides::default() };
    Config::load_workspaces_in(environment, &overrides).ok()
}

fn of_workspace(config: &Config, workspace: &Workspace, service: Option<&Config>) -> Meant {
    let section = format!("workspace \"{}\"", workspace.name());
    let of = |key: &str| setting(config, &section, key);
    let is_lacking = |setting: &&Setting| is_unseen(setting, service) || is_of_another_profile_file(config, setting);
    let mut table = Meant::new();
    let told_id = of("workspace_id").filter(is_lacking).is_some();
    if of("host").filter(is_lacking).is_some() || told_id {
        table.push(("host", workspace.address()));
    }
    for key in OF_WORKSPACE {
        let value = of(key).filter(is_lacking).map(|setting| match key {
            "cli_path" | "oidc_token_filepath" => absolute(&setting.value),
            _ => setting.value.clone(),
        });
        table.extend(value.map(|value| (key, value)));
    }
    let secret = ["client_secret", "client_secret_file"].into_iter().find_map(|key| of(key).filter(is_lacking));
    let is_same = |other: &Workspace| other.shares_identity_with(workspace) && other.client.is_some();
    if secret.is_some() && !service.is_some_and(|seen| seen.workspaces().iter().any(is_same)) {
        let file = match workspace.client.as_ref().map(|client| &client.secret) {
            Some(SecretSource::File(path)) => absolute(&path.display().to_string()),
            _ => SECRET_FILE.to_owned(),
        };
        table.push(("client_secret_file", file));
    }
    table
}

fn setting<'c>(config: &'c Config, section: &str, key: &str) -> Option<&'c Setting> {
    config.settings().iter().find(|setting| setting.section == section && setting.key == key)
}

/// Whether it is gone with this run or this shell, and a service does not find the same elsewhere.
fn is_unseen(wanted: &Setting, service: Option<&Config>) -> bool {
    let is_of_this_run = matches!(wanted.origin, Origin::Flag(_) | Origin::Environment(_));
    let same = |seen: &Setting| seen.value == wanted.value || seen.value == absolute(&wanted.value);
    is_of_this_run && !service.and_then(|seen| setting(seen, &wanted.section, wanted.key)).is_some_and(same)
}

/// Whether it is from a profile in a file that only this shell names.
fn is_of_another_profile_file(config: &Config, setting: &Setting) -> bool {
    let is_named = config.environment.get_os("DATABRICKS_CONFIG_FILE").is_some();
    is_named && matches!(setting.origin, Origin::Profile(..)) && setting.key != "profile"
}

fn how_to_keep_the_secret(config: &Config) -> String {
    let directory = config.file().and_then(std::path::Path::parent).map(std::path::Path::to_owned);
    let usual = || config.environment.own_config_file().parent().map(std::path::Path::to_owned);
    let file = directory.or_else(usual).unwrap_or_default().join(SECRET_FILE);
    let file = shell_path(&file);
    let how = match config.environment.client_secret() {
        Some(_) => format!("(umask 077; printenv {CLIENT_SECRET} > {file})"),
        None => format!("(umask 077; cat > {file}), then paste it and press Ctrl-D"),
    };
    format!("put the client secret into its file before a service starts: {how}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a home with this configuration, or without one.
    fn needs(file: Option<&str>, variables: &[(&str, &str)], overrides: Overrides) -> (tempfile::TempDir, Needs) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let all = variables.iter().map(|(name, value)| (*name, std::ffi::OsString::from(value)));
        let environment: Environment = all.chain([("HOME", home.path().into())]).collect();
        let config = file.is_some().then_some(path);
        let overrides = Overrides { config, ..overrides };
        let config = Config::load_workspaces_in(environment, &overrides).unwrap();
        (home, Needs::of(&config, &overrides))
    }

    fn pairs(table: &Meant) -> Vec<(&str, &str)> {
        table.iter().map(|(key, value)| (*key, value.as_str())).collect()
    }

    const HOST: (&str, &str) = ("DATABRICKS_HOST", "https://dbc-1.example/?o=42");
    const PRINCIPAL: [(&str, &str); 3] = [HOST, ("DATABRICKS_CLIENT_ID", "abc"), (CLIENT_SECRET, "s3cret-0000")];

    #[test]
    fn what_only_the_environment_has_is_written_and_a_secret_is_not() {
        let (_home, needs) = needs(None, &PRINCIPAL, Overrides::default());
        let host = ("host", "https://dbc-1.example/?o=42");
        assert_eq!(pairs(&needs.workspace), [host, ("client_id", "abc"), ("client_secret_file", "client-secret")]);
        assert!(needs.comments().contains("printenv DATABRICKS_CLIENT_SECRET >"), "{needs:?}");
        assert!(!format!("{needs:?}").contains("s3cret"));
    }

    #[test]
    fn what_only_the_command_line_has_is_written() {
        let text = |text: &str| Some(text.to_owned());
        let overrides = Overrides {
            workspace_url: text("dbc-1.example"),
            client_id: text("abc"),
            client_secret_file: Some("/run/secret".into()),
            pgpass_file: vec!["/run/pgpass".into()],
            pg_username: text("group"),
            ..Overrides::default()
        };
        let (_home, needs) = needs(None, &[], overrides);
        let [host, id] = [("host", "https://dbc-1.example"), ("client_id", "abc")];
        assert_eq!(pairs(&needs.workspace), [host, id, ("client_secret_file", "/run/secret")]);
        assert_eq!(pairs(&needs.head), [("password_file", "/run/pgpass")]);
        assert_eq!((pairs(&needs.connection), needs.comments()), (vec![("user", "group")], String::new()));
    }

    #[test]
    fn several_password_files_are_a_remark_with_the_list_to_write() {
        let overrides = Overrides {
            workspace_url: Some("dbc-1.example".to_owned()),
            pgpass_file: vec!["/run/one".into(), "/run/two".into()],
            ..Overrides::default()
        };
        let (_home, needs) = needs(None, &[], overrides);
        assert!(needs.head.is_empty(), "{needs:?}");
        assert!(needs.comments().contains("password_file = [\"/run/one\", \"/run/two\"]"), "{needs:?}");
    }

    #[test]
    fn what_the_file_has_is_not_written_again() {
        let file = "[[workspace]]\nhost = 'dbc-1.example'\nclient_id = 'abc'\nclient_secret_file = 'x'\n";
        assert_eq!(needs(Some(file), &[], Overrides::default()).1, Needs::default());
    }

    #[test]
    fn what_cannot_be_appended_to_the_file_is_a_remark_on_it() {
        let file = "[[workspace]]\nauth = 'databricks-cli'\n";
        let variables = [HOST, ("PGPASSFILE", "/run/pgpass"), ("HTTPS_PROXY", "http://proxy.example")];
        let (_home, appended) = needs(Some(file), &variables, Overrides::default());
        assert!(appended.workspace.is_empty() && appended.head.is_empty(), "{appended:?}");
        let comments = appended.comments();
        for line in
            ["[[workspace]] of ", "host = \"https://dbc-1.example", "head of ", "password_file = ", "HTTPS_PROXY"]
        {
            assert!(comments.contains(line), "{line}\n{comments}");
        }
        assert!(comments.lines().all(|line| line.starts_with("# ")), "{comments}");
        // What a shell makes for `>>` is an empty file.
        let (_home, whole) = needs(Some(""), &variables, Overrides::default());
        assert!(!whole.workspace.is_empty() && !whole.head.is_empty(), "{whole:?}");
    }
}
