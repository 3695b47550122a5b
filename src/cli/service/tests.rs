//! `service` with a launchd agent: a stand-in for `launchctl` (tests/support/launchctl) starts a job of the test instead of the agent.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::service::Launchd;

const PRINCIPAL: &str = "0b1c2d3e-0000-4000-8000-000000000000";
const OPTIONS: InstallOptions = InstallOptions {
    which: WhichManager { system: false, user: None },
    daemon: false,
    proxy: false,
    linger: false,
    relaxed: false,
    keychain: false,
    yes: true,
    as_original: false,
};

struct Mac {
    scratch: tempfile::TempDir,
    service: Service,
}

impl Mac {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mac = scratch.path().canonicalize().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/launchctl");
        let copied = std::process::Command::new("cp").args([script.as_ref(), mac.as_os_str()]).status();
        assert!(copied.unwrap().success());
        let account = Account { name: "ada".to_owned(), home: mac.join("home") };
        let manager = Box::new(Launchd::with(mac.join("launchctl"), 501, &account));
        let inputs = inputs(Scope::User, &account, &*manager);
        let environment = [("HOME", &account.home)].into_iter().collect();
        Mac {
            scratch,
            service: Service { manager, scope: Scope::User, account, inputs, environment, try_sign_in: |_, _| Ok(()) },
        }
    }

    /// The script that launchd starts: something that looks like a rotation, or does something else.
    fn job(&self, does: &str) {
        let job = self.scratch.path().join("job");
        let text = format!("#!/bin/sh\n{does}\n");
        let written = std::process::Command::new("sh")
            .args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", &text, &job.display().to_string()])
            .status();
        assert!(written.unwrap().success());
    }

    fn rotates(&self) {
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let now = Timestamp::now().as_second();
        let claims = serde_json::json!({"sub": PRINCIPAL, "iat": now, "exp": now + 3_600});
        let token = format!("{}.{}.c2ln", part(serde_json::json!({"alg": "RS256"})), part(claims));
        let file = self.service.account.home.join(".pgpass");
        let entry = format!("db.example:5432:databricks_postgres:{PRINCIPAL}:{token}");
        self.job(&format!("umask 077; echo '{entry}' >'{}'", file.display()));
    }

    fn install(&self, options: &InstallOptions) -> Result<u8, Failure> {
        self.service.install(options, &Self::overrides()).map_err(failure)
    }

    fn overrides() -> Overrides {
        let text = |text: &str| Some(text.to_owned());
        Overrides {
            workspace_url: text("https://dbc-1.cloud.databricks.com"),
            client_id: text(PRINCIPAL),
            client_secret: Some("s3cret".into()),
            pg_host: text("db.example"),
            ..Overrides::default()
        }
    }
}

fn failure(fault: Fault) -> Failure {
    match fault {
        Fault::Failure(failure) => failure,
        Fault::Config(error) => Failure::permanent(Code::Configuration, error.to_string()),
    }
}

#[test]
fn install_writes_settings_secret_and_agent_and_comes_back_when_the_password_is_live() {
    let mac = Mac::new();
    mac.rotates();
    assert_eq!(mac.install(&OPTIONS).unwrap(), 0);
    let home = &mac.service.account.home;
    let agent = fs::read_to_string(home.join("Library/LaunchAgents/app.dbx-rotator.agent.plist")).unwrap();
    assert!(!agent.contains("s3cret"), "{agent}");
    assert_eq!(fs::read_to_string(home.join(".config/dbx-rotator/client-secret")).unwrap(), "s3cret\n");
    let config = fs::read_to_string(home.join(".config/dbx-rotator/config.toml")).unwrap();
    assert!(config.contains("db.example") && !config.contains("s3cret"), "{config}");
    assert_eq!(mac.service.status(false).map_err(failure).unwrap(), 0);
    assert_eq!(mac.service.restart(false).map_err(failure).unwrap(), 0);
    assert_eq!(mac.service.uninstall(true).map_err(failure).unwrap(), 0);
    let left: Vec<_> = ["Library/LaunchAgents", ".config/dbx-rotator"]
        .iter()
        .flat_map(|directory| fs::read_dir(home.join(directory)).unwrap())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_needs_a_person_is_said_before_anything_is_written() {
    let mut mac = Mac::new();
    mac.service.try_sign_in =
        |_, _| Err(Failure::permanent(Code::SignInRefused, "the secret is refused").hint("make a new one"));
    let refused = mac.install(&OPTIONS).unwrap_err();
    assert_eq!(
        (refused.code, refused.hint.as_deref()),
        (Code::SignInRefused, Some("make a new one; nothing was changed"))
    );
    assert!(fs::read_dir(&mac.service.account.home).is_err(), "not even a directory was made");
    // What passes by itself is left to the service.
    mac.service.try_sign_in = |_, _| Err(Failure::transient(Code::Unavailable, "no network"));
    mac.rotates();
    assert_eq!(mac.install(&OPTIONS).unwrap(), 0);
}

/// After a refused secret the usual order would ask the vendor's CLI, which the user's configuration may name.
#[test]
fn what_root_tries_for_another_user_starts_no_program() {
    for (scope, wanted) in [(Scope::User, "Chain"), (Scope::System, "Only(OauthM2m)")] {
        let mut mac = Mac::new();
        mac.service.scope = scope;
        mac.service.try_sign_in =
            |workspace, _| Err(Failure::permanent(Code::SignInRefused, format!("tried {:?}", workspace.auth)));
        let config = mac.service.wanted_config(&Mac::overrides(), &mac.service.environment).unwrap();
        assert_eq!(mac.service.prove(&config).unwrap_err().message, format!("tried {wanted}"));
    }
}

/// For the machine's units; and the same for a user's.
#[test]
fn a_purge_leaves_no_secret_be_it_encrypted_and_without_one_all_of_it_stays() {
    for credential in [Some("etc/ada.client-secret"), None] {
        let mut mac = Mac::new();
        let root = mac.scratch.path().canonicalize().unwrap();
        mac.service.inputs.credential = credential.map(|path| root.join(path));
        let plain = mac.service.inputs.credential.clone();
        let plain = plain.unwrap_or_else(|| mac.service.inputs.config.with_file_name("client-secret"));
        let encrypted = plain.with_file_name(format!("{}.cred", plain.file_name().unwrap().display()));
        let others = plain.with_file_name("bob.client-secret.cred");
        for file in [&mac.service.inputs.config, &plain, &encrypted, &others] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        let there =
            || [&mac.service.inputs.config, &plain, &encrypted, &others].map(|file| file.symlink_metadata().is_ok());
        assert_eq!(mac.service.uninstall(false).map_err(failure).unwrap(), 0);
        assert_eq!(there(), [true; 4], "{credential:?}");
        fs::remove_file(&plain).unwrap();
        std::os::unix::fs::symlink("nowhere", &plain).unwrap();
        assert_eq!(mac.service.uninstall(true).map_err(failure).unwrap(), 0);
        assert_eq!(there(), [false, false, false, true], "{credential:?}");
    }
}

#[test]
fn an_agent_that_ends_at_once_is_said_with_its_exit_code_and_where_it_says_why() {
    let mac = Mac::new();
    mac.job(&format!("echo '78: EX_CONFIG' >'{}'", mac.scratch.path().join("exit").display()));
    let failure = mac.install(&OPTIONS).unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (Code::Configuration, "the first rotation failed (exit code 78)")
    );
    assert!(failure.hint.unwrap().starts_with("log show "));
    assert_eq!(mac.service.status(true).map_err(self::failure).unwrap(), 1);
}

#[cfg(not(target_os = "macos"))]
#[test]
fn where_there_is_no_keychain_nothing_is_written_for_it() {
    let mac = Mac::new();
    let failure = mac.install(&InstallOptions { keychain: true, ..OPTIONS }).unwrap_err();
    assert!(failure.message.contains("only macOS has a keychain"), "{failure}");
    assert!(!mac.service.account.home.exists());
}

#[test]
fn without_a_service_status_is_not_well_in_every_form_and_there_is_nothing_to_remove() {
    let mac = Mac::new();
    for json in [false, true] {
        assert_eq!(mac.service.status(json).map_err(failure), Ok(1));
    }
    assert_eq!(mac.service.uninstall(false).map_err(failure), Ok(0));
    assert_eq!(mac.service.start(false).map_err(failure).unwrap_err().code, Code::Configuration);
}

/// The Python original's agent, with these variables beside the settings of [`Mac::install`].
fn old_agent(mac: &Mac, variables: &str) -> std::path::PathBuf {
    let file = mac.service.account.home.join("Library/LaunchAgents/com.databricks.oauth.rotator.plist");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = format!(
        "<?xml version=\"1.0\"?><plist version=\"1.0\"><dict><key>ProgramArguments</key><array><string>python3</string>\
         <string>--workspace-url</string><string>https://dbc-1.cloud.databricks.com</string>\
         <string>--pg-port</string><string>6432</string></array><key>EnvironmentVariables</key><dict>{variables}</dict></dict></plist>"
    );
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn the_python_originals_agent_gives_its_settings_and_its_secret_and_its_log_goes_on() {
    let mac = Mac::new();
    mac.rotates();
    let variables = format!(
        "<key>DATABRICKS_CLIENT_ID</key><string>{PRINCIPAL}</string>\
         <key>DATABRICKS_CLIENT_SECRET</key><string>s3cret-of-old</string>\
         <key>DATABRICKS_PG_HOST</key><string>db.example</string>"
    );
    let agent = old_agent(&mac, &variables);
    // Its stand-in writes an entry for port 5432.
    let overrides = Overrides { pg_port: Some(5432), ..Overrides::default() };
    assert_eq!(mac.service.install(&OPTIONS, &overrides).map_err(failure).unwrap(), 0);
    let home = &mac.service.account.home;
    let config = fs::read_to_string(home.join(".config/dbx-rotator/config.toml")).unwrap();
    for line in ["host = \"https://dbc-1.cloud.databricks.com\"", PRINCIPAL, "host = \"db.example\"", "port = 5432"] {
        assert!(config.contains(line), "{line}\n{config}");
    }
    let log = home.join(".databricks_oauth_rotator.log");
    assert!(config.contains(&format!("log_file = \"{}\"", log.display())), "{config}");
    assert_eq!(fs::read_to_string(home.join(".config/dbx-rotator/client-secret")).unwrap(), "s3cret-of-old\n");
    assert!(!config.contains("s3cret") && agent.exists());
    let calls = fs::read_to_string(mac.scratch.path().join("calls")).unwrap();
    assert!(calls.contains("disable gui/501/com.databricks.oauth.rotator"), "{calls}");
}

#[test]
fn by_the_originals_name_its_log_goes_on_and_its_interval_is_the_default() {
    let mac = Mac::new();
    mac.rotates();
    assert_eq!(mac.install(&InstallOptions { as_original: true, ..OPTIONS }).unwrap(), 0);
    let config = fs::read_to_string(mac.service.account.home.join(".config/dbx-rotator/config.toml")).unwrap();
    assert!(config.contains(".databricks_oauth_rotator.log\"") && config.contains("interval = \"50m\""), "{config}");
    // By our own, neither.
    let mac = Mac::new();
    mac.rotates();
    assert_eq!(mac.install(&OPTIONS).unwrap(), 0);
    let config = fs::read_to_string(mac.service.account.home.join(".config/dbx-rotator/config.toml")).unwrap();
    assert!(!config.contains("log_file") && !config.contains("interval"), "{config}");
}
