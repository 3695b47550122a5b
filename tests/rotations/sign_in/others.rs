//! A personal access token, the vendor's metadata service, and a service account at Google.

use std::process::Command;

use super::{CLIENT, Stage, configured};
use crate::support::{Home, Project, Relay, Workspace, skip};

const USER: &str = "ada@example.com";

#[test]
fn a_personal_access_token_mints_and_is_no_password_itself() {
    let Some(stage) =
        Stage::new("a_personal_access_token_mints_and_is_no_password_itself", Workspace::start(), &[USER])
    else {
        return;
    };
    let home = Home::new();
    let token = stage.workspace.personal_token(USER);
    home.write("pat", &token, 0o600);
    let file = format!("token_file = '{}'", home.path("pat").display());
    stage.proves(&home, USER, configured(&home, &stage.workspace, &file, ""));
    assert!(!home.pgpass().contains(&token));
    let in_environment = configured(&home, &stage.workspace, "", "")
        .env("DATABRICKS_TOKEN", &token)
        .env("DATABRICKS_HOST", stage.workspace.url());
    stage.proves(&home, USER, in_environment);
    let as_password = configured(&home, &stage.workspace, &file, "credential = 'workspace-token'\nuser = 'x'");
    as_password.args(["rotate"]).run().exits(78).stderr_has("is no password").stderr_has("credential");
    home.write("pat", "dapi-another-0123456789", 0o600);
    let refused = configured(&home, &stage.workspace, &file, "").args(["rotate", "--retry-for", "0s"]).run();
    refused.exits(77).stderr_has("rejects the access token");
}

#[test]
fn the_metadata_service_of_this_machine_hands_out_tokens() {
    let workspace = Workspace::builder().with_services().start();
    workspace.beside(|beside| beside.machine = Some(CLIENT.to_owned()));
    let Some(stage) = Stage::new("the_metadata_service_of_this_machine_hands_out_tokens", workspace, &[CLIENT]) else {
        return;
    };
    let home = Home::new();
    let address = format!("{}/metadata-service/for-me", stage.workspace.services_url());
    let settings = |address: &str| format!("metadata_service_url = '{address}'");
    stage.proves(&home, CLIENT, configured(&home, &stage.workspace, &settings(&address), ""));
    let rotate = |address: &str| {
        configured(&home, &stage.workspace, &settings(address), "").args(["rotate", "--retry-for", "0s"]).run()
    };
    rotate("https://evil.example/x").exits(78).stderr_has("another machine");
    rotate("http://evil.example/x").exits(78).stderr_has("could be read on the way");
    // Where it is asked is said; what opens it is not.
    let nobody = rotate("http://127.0.0.1:1/what-opens-the-service");
    nobody.exits(69).stderr_has("http://127.0.0.1:1").stderr_lacks("what-opens");
}

#[test]
fn the_key_of_a_service_account_at_google_signs_and_is_never_sent() {
    let name = "the_key_of_a_service_account_at_google_signs_and_is_never_sent";
    let openssl =
        |arguments: &[&str]| Command::new("openssl").args(arguments).output().ok().filter(|out| out.status.success());
    let Some(key) = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]) else {
        return skip(name, "no openssl");
    };
    let pem = String::from_utf8(key.stdout).unwrap();
    let home = Home::new();
    let file = home.write("key.pem", &pem, 0o600).display().to_string();
    let public = openssl(&["rsa", "-in", &file, "-RSAPublicKey_out", "-outform", "DER"]).unwrap().stdout;
    let account = "rotator@shop.iam.gserviceaccount.com";
    let workspace = Workspace::start();
    workspace.beside(|beside| beside.google = Some((account.to_owned(), public)));
    let Some(stage) = Stage::new(name, workspace, &[account]) else { return };
    let relay = Relay::to(stage.workspace.port());
    let json = |uri: &str| {
        serde_json::json!({"type": "service_account", "client_email": account, "private_key": pem, "token_uri": uri})
            .to_string()
    };
    home.write("google.json", json("https://oauth2.googleapis.com/token"), 0o600);
    let settings = format!("google_credentials_file = '{}'", home.path("google.json").display());
    // The workspace itself is reached without the proxy, Google by it.
    let session = || {
        let session = configured(&home, &stage.workspace, &settings, "");
        session.env("HTTPS_PROXY", relay.url()).env("NO_PROXY", "127.0.0.1")
    };
    stage.proves(&home, account, session());
    assert_eq!(relay.asked_for(), ["oauth2.googleapis.com:443"]);
    home.write("google.json", json("https://evil.example/token"), 0o600);
    session().args(["rotate", "--retry-for", "0s"]).run().exits(78).stderr_has("another place");
    home.write("google.json", "{}", 0o600);
    session().args(["rotate", "--retry-for", "0s"]).run().exits(78).stderr_has("service_account");
}

const TARGET: &str = "target@shop.iam.gserviceaccount.com";

/// The files of application default credentials that are known: their names, and their text.
pub(super) fn google_files(pem: &str) -> Vec<(&'static str, serde_json::Value)> {
    use serde_json::json;
    let person = json!({"type": "authorized_user", "client_id": "gcloud", "client_secret": "google-secret-0123456789",
                        "refresh_token": "1//google-refresh-0123456789"});
    let key = json!({"type": "service_account", "client_email": "rotator@shop.iam.gserviceaccount.com", "private_key": pem,
                     "token_uri": "https://oauth2.googleapis.com/token"});
    let between =
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/between@shop.iam.gserviceaccount.com";
    let impersonated = json!({"type": "impersonated_service_account", "source_credentials": person, "delegates": [],
                              "service_account_impersonation_url": format!("{between}:generateAccessToken")});
    vec![("person", person), ("key", key), ("impersonated", impersonated)]
}

/// What they are good for in the stand-in; and a key in PEM form.
pub(super) fn google_stands_in(workspace: &Workspace, home: &Home) -> Option<String> {
    let openssl =
        |arguments: &[&str]| Command::new("openssl").args(arguments).output().ok().filter(|out| out.status.success());
    let key = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?;
    let pem = String::from_utf8(key.stdout).unwrap();
    let file = home.write("google-key.pem", &pem, 0o600).display().to_string();
    let public = openssl(&["rsa", "-in", &file, "-RSAPublicKey_out", "-outform", "DER"])?.stdout;
    workspace.beside(|beside| {
        beside.google = Some(("rotator@shop.iam.gserviceaccount.com".to_owned(), public));
        let person = ["gcloud", "google-secret-0123456789", "1//google-refresh-0123456789"].map(str::to_owned);
        beside.google_person = Some(person.into());
        beside.google_target = Some(TARGET.to_owned());
        beside.machine = Some(CLIENT.to_owned());
    });
    Some(pem)
}

#[test]
fn googles_own_credentials_ask_for_a_token_that_names_another_account() {
    let name = "googles_own_credentials_ask_for_a_token_that_names_another_account";
    let home = Home::new();
    let workspace = Workspace::builder().with_services().start();
    let Some(pem) = google_stands_in(&workspace, &home) else { return skip(name, "no openssl") };
    let Some(stage) = Stage::new(name, workspace, &[TARGET]) else { return };
    let relay = Relay::to(stage.workspace.port());
    let settings = format!("google_service_account = '{TARGET}'");
    let session = || {
        let session = configured(&home, &stage.workspace, &settings, "");
        session.env("HTTPS_PROXY", relay.url()).env("NO_PROXY", "127.0.0.1")
    };
    for (kind, file) in google_files(&pem) {
        let usual = home.write(".config/gcloud/application_default_credentials.json", file.to_string(), 0o600);
        stage.proves(&home, TARGET, session());
        let named = home.write(format!("{kind}.json"), file.to_string(), 0o600);
        std::fs::remove_file(usual).unwrap();
        stage.proves(&home, TARGET, session().env("GOOGLE_APPLICATION_CREDENTIALS", named));
    }
    assert_eq!(relay.asked_for(), ["iamcredentials.googleapis.com:443", "oauth2.googleapis.com:443"]);
    // The account of a machine.
    let services = stage.workspace.services_url();
    let (_, address) = services.split_once("://").unwrap();
    stage.proves(&home, TARGET, session().env("GCE_METADATA_HOST", address));
    what_is_no_credential_of_googles_is_said(&home, &pem, &session);
    stage.workspace.beside(|beside| beside.google_target = None);
    let refused = session().env("GCE_METADATA_HOST", address).args(["rotate", "--retry-for", "0s"]).run();
    refused.exits(77).stderr_has("getOpenIdToken").stderr_has("Identity Token Creator");
}

fn what_is_no_credential_of_googles_is_said<'h>(
    home: &'h Home,
    pem: &str,
    session: &dyn Fn() -> crate::support::Session<'h>,
) {
    let mut files: std::collections::BTreeMap<_, _> = google_files(pem).into_iter().collect();
    files.get_mut("key").unwrap()["token_uri"] = "https://evil.example/token".into();
    files.get_mut("impersonated").unwrap()["service_account_impersonation_url"] =
        "https://evil.example/v1/projects/-/serviceAccounts/a@b:generateAccessToken".into();
    files.get_mut("person").unwrap()["universe_domain"] = "evil.example".into();
    files.insert("external", serde_json::json!({"type": "external_account", "token_url": "https://evil.example"}));
    for (kind, said) in [
        ("key", "another place"),
        ("impersonated", "no place below https://iamcredentials.googleapis.com"),
        ("person", "another cloud"),
        ("external", "file-oidc"),
    ] {
        let file = home.write("bad.json", files[kind].to_string(), 0o600);
        let rotate = session().env("GOOGLE_APPLICATION_CREDENTIALS", file).args(["rotate", "--retry-for", "0s"]);
        rotate.run().exits(78).stderr_has(said);
    }
    let rotate = || session().args(["rotate", "--retry-for", "0s"]);
    rotate().env("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent").run().exits(78).stderr_has("no such file");
    rotate()
        .env("GCE_METADATA_HOST", "127.0.0.1:1")
        .run()
        .exits(69)
        .stderr_has("gcloud auth application-default login");
    rotate().env("GCE_METADATA_HOST", "evil.example").run().exits(78).stderr_has("could be read on the way");
}

#[test]
fn a_credential_lives_as_long_as_it_was_asked_for() {
    let workspace = Workspace::start();
    workspace.add_project(Project::named("shop"));
    let home = Home::new();
    let table = "[[connection]]\nendpoint = 'projects/shop/branches/production/endpoints/primary'\nttl = '10m'\n";
    home.write(".config/dbx-rotator/config.toml", table, 0o600);
    let rotate = || crate::support::dbx_rotator!(&home).signed_in_to(&workspace).args(["rotate", "--json"]).run();
    let rotated = rotate();
    let until =
        rotated.exits(0).json()["connections"][0]["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let left = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((500..=600).contains(&left), "{left}");
    for (written, said) in [("'2m'", "between 5 and 60 minutes"), ("'2h'", "between 5 and 60 minutes")] {
        home.write(".config/dbx-rotator/config.toml", table.replace("'10m'", written), 0o600);
        rotate().exits(78).stderr_has(said);
    }
    home.write(".config/dbx-rotator/config.toml", "[[connection]]\ninstance = 'orders'\nttl = '10m'\n", 0o600);
    rotate().exits(78).stderr_has("no ttl");
}
