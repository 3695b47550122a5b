//! The same settings mean the same to the vendor's own client for Python and to us: host, method and client, or an error on both
//! sides. Where they do not, the table says why that is wanted.
//!
//! Nothing is asked of anybody: what is compared is what has been settled before the first request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod generated;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::table::{ENVIRONMENTS, FILES, FLAGS, REASONS, SECRET, TABLE};
use crate::support::{Home, dbx_rotator, skip, vendor_sdk};

/// One process for all combinations: to import the client takes a second.
const SCRIPT: &str = r#"
import json, os, sys
from databricks.sdk import config, credentials_provider, oauth, oidc_token_supplier

class Cli:
    def __init__(self, cfg): pass
    def token(self): return oauth.Token("x")

config.Config._resolve_host_metadata = lambda self: None
config.Config.databricks_oidc_endpoints = property(lambda self: oauth.OidcEndpoints("x", "x"))
credentials_provider.DatabricksCliTokenSource = Cli

# Nobody answers here: who would be asked is taken to answer.
def github(self, audience):
    return "x" if "ACTIONS_ID_TOKEN_REQUEST_URL" in os.environ and "ACTIONS_ID_TOKEN_REQUEST_TOKEN" in os.environ else None

class Az:
    def is_human_user(self): return True

def az(cfg, resource):
    # As where it is not installed, unless it is asked for.
    if cfg.auth_type != "azure-cli": raise FileNotFoundError("az")
    return Az()

oidc_token_supplier.GitHubOIDCTokenSupplier.get_oidc_token = github
oidc_token_supplier.AzureDevOpsOIDCTokenSupplier.get_oidc_token = lambda self, audience: "x"
credentials_provider.MetadataServiceTokenSource.token = lambda self: oauth.Token("x")
credentials_provider.AzureCliTokenSource.for_resource = staticmethod(az)
config.Config.load_azure_tenant_id = lambda self: None

for case in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(case["environment"])
    try:
        cfg = config.Config(**case["arguments"])
        told = {"host": cfg.host, "method": cfg.auth_type}
        if cfg.auth_type in ("oauth-m2m", "env-oidc", "file-oidc", "github-oidc", "azure-devops-oidc"):
            told["client_id"] = cfg.client_id
        if cfg.auth_type == "azure-client-secret": told["client_id"] = cfg.azure_client_id
    except Exception as error:
        told = {"error": str(error)}
    print(json.dumps(told))
"#;

/// What one side makes of its settings; none: an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Settled {
    error: Option<String>,
    host: Option<String>,
    method: Option<String>,
    client_id: Option<String>,
}

impl Settled {
    fn is_same_as(&self, other: &Settled) -> bool {
        match (&self.error, &other.error) {
            (None, None) => self == other,
            (one, other) => one.is_some() && other.is_some(),
        }
    }
}

/// One combination.
struct Case {
    name: String,
    reason: Option<&'static str>,
    file: Option<String>,
    environment: Vec<(&'static str, String)>,
    flags: &'static [(&'static str, &'static str, &'static str)],
}

fn filled(text: &str) -> String {
    let pair = |id: &str| format!("client_id = id-{id}\nclient_secret = {SECRET}-{id}\n");
    ["a", "d"]
        .iter()
        .fold(text.to_owned(), |text, id| text.replace(&format!("PAIR-{id}\n"), &pair(id)))
        .replace("SECRET", SECRET)
}

fn at_home(text: &str, home: &Home) -> String {
    text.replace("HOME", &home.path("").display().to_string()).replace("SECRET", SECRET)
}

fn named<T: Copy>(table: &'static [(&'static str, T)], name: &str) -> T {
    table.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("the table has {name}, which is nothing")).1
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in TABLE.trim().lines() {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [environment, flags, files, reason] = columns[..] else { panic!("{line}") };
        for file in files.split_whitespace() {
            let text = named(FILES, file);
            cases.push(Case {
                name: format!("{environment} | {flags} | {file}"),
                reason: (!reason.is_empty()).then(|| named(REASONS, reason)),
                file: (file != "none").then(|| filled(text)),
                environment: named(ENVIRONMENTS, environment)
                    .iter()
                    .map(|(name, value)| (*name, filled(value)))
                    .collect(),
                flags: named(FLAGS, flags),
            });
        }
    }
    cases
}

/// What we make of it, as `config show` says it.
fn ours(case: &Case, home: &Home) -> Settled {
    let session = dbx_rotator!(home)
        .args(["config", "show"])
        .env("DATABRICKS_PG_HOST", "ep-a-b-1.database.eu-west-1.cloud.databricks.com");
    let session = session.env("DATABRICKS_PG_USERNAME", "readers");
    let session =
        case.environment.iter().fold(session, |session, (name, value)| session.env(name, at_home(value, home)));
    let flags = case.flags.iter().flat_map(|(flag, _, value)| [(*flag).to_owned(), filled(value)]);
    let outcome = session.args(flags).run();
    if outcome.code != Some(0) {
        assert_eq!(outcome.code, Some(78), "{}\n{outcome}", case.name);
        return Settled { error: Some(outcome.stderr), ..Settled::default() };
    }
    let (_, section) = outcome.stdout.split_once("\nworkspace \"default\"\n").unwrap();
    let section = section.split("\n\n").next().unwrap();
    let value = |key: &str| {
        let line = section.lines().find(|line| line.split_whitespace().next() == Some(key))?;
        line.split_whitespace().nth(1).map(str::to_owned)
    };
    let is_chain = section.contains("oauth-m2m where a client is set, then external-browser or databricks-cli");
    let by_client = if value("client_id").is_some() { "oauth-m2m" } else { "databricks-cli" };
    let method = if is_chain { Some(by_client.to_owned()) } else { value("auth") };
    let client_id = match method.as_deref() {
        Some("azure-client-secret") => value("azure_client_id"),
        _ => value("client_id"),
    };
    Settled { error: None, host: value("host"), method, client_id }
}

#[derive(Serialize)]
struct Asked {
    environment: BTreeMap<String, String>,
    arguments: BTreeMap<&'static str, String>,
}

/// What the vendor's client makes of all of them.
fn theirs(cases: &[Case], homes: &[Home], python: &std::path::Path) -> Vec<Settled> {
    let asked = |(case, home): (&Case, &Home)| {
        let own = [("HOME", home.path("").display().to_string()), ("PATH", "/usr/bin:/bin".to_owned())];
        let set = case.environment.iter().map(|(name, value)| (*name, at_home(value, home)));
        let all = own.into_iter().chain(set);
        Asked {
            environment: all.map(|(name, value)| (name.to_owned(), value)).collect(),
            arguments: case.flags.iter().map(|(_, argument, value)| (*argument, filled(value))).collect(),
        }
    };
    let asked: Vec<Asked> = cases.iter().zip(homes).map(asked).collect();
    let home = Home::new();
    let script = home.write("sdk.py", SCRIPT, 0o600);
    let outcome = home.command(python).arg(script).stdin(&serde_json::to_string(&asked).unwrap()).run();
    outcome.exits(0).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_vendors_client_and_we_settle_on_the_same_host_method_and_client() {
    let python = match vendor_sdk::python() {
        Ok(python) => python,
        Err(reason) => return skip("the_vendors_client_and_we_settle_on_the_same_host_method_and_client", &reason),
    };
    let made = generated::cases();
    assert!(made.len() >= 200, "{}", made.len());
    let reasons_given: BTreeSet<&str> = made.iter().filter_map(|case| case.reason).collect();
    let cases: Vec<Case> = cases().into_iter().chain(made).collect();
    assert!(cases.len() >= 100, "{}", cases.len());
    assert_eq!(cases.iter().map(|case| &case.name).collect::<BTreeSet<_>>().len(), cases.len(), "each once");
    let home = |case: &Case| {
        let home = Home::new();
        home.keep_secret(SECRET);
        home.write("token", "a.b.c", 0o600);
        // Google's own credentials, which the vendor's client opens where a setting of Google's asks for them.
        let google = r#"{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}"#;
        home.write(".config/gcloud/application_default_credentials.json", google, 0o600);
        if let Some(text) = &case.file {
            home.write(".databrickscfg", at_home(text, &home), 0o600);
        }
        home
    };
    let homes: Vec<Home> = cases.iter().map(home).collect();
    let theirs = theirs(&cases, &homes, &python);
    assert_eq!(theirs.len(), cases.len());
    let mut wrong = Vec::new();
    for ((case, home), theirs) in cases.iter().zip(&homes).zip(&theirs) {
        let ours = ours(case, home);
        match case.reason {
            None if !ours.is_same_as(theirs) => {
                wrong.push(format!("{}\n  we: {ours:?}\n  they: {theirs:?}", case.name))
            }
            Some(reason) if ours.is_same_as(theirs) => {
                wrong.push(format!("{}: no difference any more, so this is not true: {reason}", case.name));
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} combinations:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let used: BTreeSet<&str> = cases.iter().filter_map(|case| case.reason).collect();
    assert_eq!(used.len(), REASONS.len() + reasons_given.len(), "each reason is used");
}
