//! config.toml and the vendor's profile file, read as the program reads them.

use std::path::Path;

use crate::config::{Config, ConfigError, Overrides};
use crate::os::dirs::Environment;

/// A client secret, which must not be in any text of ours.
const SECRET: &str = "dose0f1e2d3c4b5a69788796a5b4c3d2e1f0";

thread_local! {
    /// A home directory with only the files that an input puts there.
    static HOME: tempfile::TempDir = tempfile::tempdir().unwrap();
}

fn load(home: &Path, file: Option<&Path>, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment: Environment = variables.iter().copied().collect();
    let overrides = Overrides { config: file.map(Path::to_owned), ..Overrides::default() };
    Config::load_in(environment.with("HOME", home), &overrides)
}

/// Everything that a person may see of it, whether it loaded or not.
fn shown(loaded: &Result<Config, ConfigError>) -> String {
    match loaded {
        Ok(config) => {
            let settings = config.settings().iter().map(|setting| format!("{} {}", setting.key, setting.value));
            let mut all: Vec<String> = settings.chain(config.warnings().iter().cloned()).collect();
            all.push(config.summary());
            for connection in config.connections() {
                // Everything that is accepted can be written into a password file.
                assert!(connection.key().is_none_or(|key| key.host().bytes().all(|byte| byte.is_ascii_graphic())));
            }
            all.join("\n")
        }
        Err(error) => error.to_string(),
    }
}

pub fn config(data: &[u8]) {
    HOME.with(|home| {
        let file = home.path().join("config.toml");
        std::fs::write(&file, data).unwrap();
        let variables = [("DATABRICKS_CLIENT_SECRET", SECRET), ("DATABRICKS_CLIENT_ID", "an-application")];
        let loaded = load(home.path(), Some(&file), &variables);
        if !spells_it(data) {
            assert!(!shown(&loaded).contains(SECRET), "a secret is shown");
        }
    });
}

pub fn databrickscfg(data: &[u8]) {
    HOME.with(|home| {
        let text = [data, format!("\n[PROD]\nclient_secret = {SECRET}\n").as_bytes()].concat();
        std::fs::write(home.path().join(".databrickscfg"), &text).unwrap();
        for profile in ["PROD", "DEFAULT", ""] {
            let variables = [("DATABRICKS_CONFIG_PROFILE", profile), ("DATABRICKS_PG_HOST", "db.example")];
            let loaded = load(home.path(), None, &variables);
            if !spells_it(data) {
                assert!(!shown(&loaded).contains(SECRET), "a secret is shown");
            }
        }
    });
}

/// Whether an input contains the beginning of the secret itself, in any case: host names become lower case.
fn spells_it(data: &[u8]) -> bool {
    let start = &SECRET.as_bytes()[..6];
    data.windows(start.len()).any(|window| window.eq_ignore_ascii_case(start))
}
