//! The wheel and its modules, by `python/tests`: this sets the stage for pytest, a workspace and a PostgreSQL that lets in exactly the
//! live tokens, and holds it until pytest has ended. `tests/run python` alone, or as a part of `tests/run`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what pytest has said"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Home, Postgres, Relay, Workspace, cache, skip};

/// How long the tokens live that pools connect with: three lives of them are half of the time that all of this takes.
const LIFE: Duration = Duration::from_secs(14);

/// The names in the README of the Python tool, whose examples are carried out as they stand there.
const OLD_WORKSPACE: &str = "workspace.cloud.databricks.com";
const OLD_USER: &str = "user@company.com";

/// A run that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(300);

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The wheel of `dist/build wheels native`, or another one that is named.
fn wheel() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("DBX_ROTATOR_WHEEL") {
        return Some(named.into());
    }
    let files = fs::read_dir(repository().join("target/wheels")).into_iter().flatten().flatten();
    let mut wheels = files.map(|file| file.path()).filter(|path| path.to_string_lossy().ends_with(".whl"));
    wheels.find(|path| path.to_string_lossy().contains("manylinux_2_"))
}

/// `short`, whose tokens die while pytest runs, and `lasting`, whose tokens do not.
fn configure(home: &Home, short: &Workspace, lasting: &Workspace, server: &Postgres) {
    let mut text = String::new();
    for (name, workspace) in [("short", short), ("lasting", lasting)] {
        home.watch(workspace);
        home.write(format!(".config/dbx-rotator/{name}-secret"), workspace.client_secret(), 0o600);
        text += &format!(
            "[[workspace]]\nname = '{name}'\nhost = '{}'\nauth = 'oauth-m2m'\nclient_id = '{}'\n\
             client_secret_file = '{name}-secret'\n",
            workspace.url(),
            workspace.client_id(),
        );
    }
    text += &format!(
        "[[connection]]\nname = 'orders'\nworkspace = 'short'\nhost = 'localhost'\nport = {}\nsslmode = 'verify-full'\n\
         sslrootcert = '{}'\n[[connection]]\nname = 'lasting'\nworkspace = 'lasting'\nhost = 'db.example'\n",
        server.port(),
        server.ca_file().display(),
    );
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
}

#[test]
#[ignore = "a minute, and needs the wheel: tests/run python"]
fn the_python_package_does_what_its_tests_say() {
    const TEST: &str = "the_python_package_does_what_its_tests_say";
    let python = cache::directory().join("python/bin/python");
    let Some(wheel) = wheel() else { return skip(TEST, "there is no wheel: dist/build wheels native") };
    if !python.exists() {
        return skip(TEST, "python/tests/prepare has not been run");
    }
    let short = Workspace::builder().token_life(LIFE).start();
    let lasting = Workspace::builder().known_as(OLD_WORKSPACE).user(OLD_USER).start();
    let server = match Postgres::start(&short, &[short.client_id()]) {
        Ok(server) => server,
        Err(reason) => return skip(TEST, &reason),
    };
    let (home, relay) = (Home::new(), Relay::to(lasting.port()));
    configure(&home, &short, &lasting, &server);
    let authorities: String = [&short, &lasting].map(|one| fs::read_to_string(one.ca_file()).unwrap()).concat();
    let authorities = home.write("authorities.pem", authorities, 0o644);
    let of_the_machine = |name: &str| std::env::var_os(name).unwrap_or_default();

    // Where pip puts it for who has no environment, and what a process of that PYTHONPATH imports.
    let installed = home.path("installed");
    let uv = python.with_file_name("uv");
    let install = ["pip", "install", "--quiet", "--offline", "--no-deps", "--python"];
    home.command(uv).args(install).arg(&python).arg("--target").arg(&installed).arg(&wheel).run().exits(0);

    let mut session = home
        .command(python)
        .args(["-m", "pytest", "--quiet", "--rootdir=.", "--durations=12"])
        .arg(repository().join("python/tests"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SSL_CERT_FILE", authorities)
        .env("DBX_ROTATOR_WHEEL", wheel)
        .env("STAGE_SOURCE", repository())
        .env("STAGE_INSTALLED", &installed)
        .env("PYTHONPATH", &installed)
        .env("STAGE_CACHE", cache::directory().join("python"))
        .env("STAGE_LIFE", LIFE.as_secs().to_string())
        .env("STAGE_USER", short.client_id())
        .env("STAGE_OLD_PROXY", relay.url())
        .env("STAGE_OLD_CLIENT", lasting.client_id())
        .env("STAGE_OLD_SECRET", lasting.client_secret())
        // Where Pythons of other versions are.
        .env("STAGE_HOME", of_the_machine("HOME"))
        .env("STAGE_PATH", of_the_machine("PATH"))
        .patience(PATIENCE);
    for name in ["PIP_CERT", "PIP_INDEX_URL", "UV_INDEX_URL", "PYTEST_ADDOPTS"] {
        if let Some(value) = std::env::var_os(name) {
            session = session.env(name, value);
        }
    }
    let outcome = session.run();
    eprintln!("{}", outcome.stdout);
    outcome.exits(0);
    for line in outcome.stdout.lines().filter_map(|line| line.strip_prefix("SKIPPED ")) {
        skip(TEST, line);
    }
    let refused = server.logins().iter().filter(|login| !login.accepted()).count();
    eprintln!("{refused} logins refused, those of one that keeps its first password");
}
