//! The vendor's own client takes the stand-in workspace for a real one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{Home, Workspace, skip};

const WHO_AM_I: &str =
    "from databricks.sdk import WorkspaceClient\nprint(WorkspaceClient().current_user.me().user_name)";

#[test]
fn the_vendors_own_client_signs_in() {
    let python = match python_with_the_vendors_client() {
        Ok(python) => python,
        Err(reason) => return skip("the_vendors_own_client_signs_in", &reason),
    };
    let workspace = Workspace::start();
    let home = Home::new();
    let who_am_i = || {
        home.command(&python)
            .args(["-c", WHO_AM_I])
            .signed_in_to(&workspace)
            .env("REQUESTS_CA_BUNDLE", workspace.ca_file())
            .env("DATABRICKS_AUTH_TYPE", "oauth-m2m")
    };

    let outcome = who_am_i().run();
    outcome.exits(0);
    assert_eq!(outcome.stdout.trim(), workspace.client_id());
    assert_eq!(workspace.tokens_issued(), 1);
    let requests = workspace.requests();
    assert!(requests.contains(&"POST /oidc/v1/token".to_owned()), "{requests:?}");
    assert!(requests.contains(&"GET /api/2.0/preview/scim/v2/Me".to_owned()), "{requests:?}");

    who_am_i().env("DATABRICKS_CLIENT_SECRET", "not its secret").run().exits(1).stderr_has("invalid_client");
}

/// A Python that has PyPI's `databricks-sdk`, installed once and kept; or why there is none.
fn python_with_the_vendors_client() -> Result<PathBuf, String> {
    let cache = std::env::var_os("DBX_ROTATOR_TEST_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-cache"), PathBuf::from);
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    // Two test programs at once would install into each other.
    let lock = File::create(cache.join("databricks-sdk.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;

    let environment = cache.join("databricks-sdk");
    let python = environment.join("bin/python");
    let works = || command_works(Command::new(&python).args(["-c", "import databricks.sdk"]));
    if works().is_err() {
        command_works(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        command_works(Command::new(&python).args(["-m", "pip", "install", "--quiet", "databricks-sdk"]))?;
        works()?;
    }
    Ok(python)
}

fn command_works(command: &mut Command) -> Result<(), String> {
    let outcome = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let last_words = String::from_utf8_lossy(&outcome.stderr).lines().last().unwrap_or_default().to_owned();
    if outcome.status.success() { Ok(()) } else { Err(format!("{command:?}: {last_words}")) }
}
