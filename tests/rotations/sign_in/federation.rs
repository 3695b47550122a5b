//! Workload identity federation: the token of another issuer, wherever it comes from, is exchanged for the workspace's.

use std::os::unix::fs::symlink;
use std::time::Duration;

use super::{CLIENT, Stage, configured};
use crate::support::workspace::issuers::{Issuer, Policy};
use crate::support::{Endpoint, Home, Instance, Workspace};

const SUBJECT: &str = "system:serviceaccount:shop:rotator";
const LIMIT: Duration = Duration::from_secs(30);

/// A workspace that trusts this issuer's tokens for the service principal.
fn trusting(issuer: &Issuer, client: Option<&str>) -> Workspace {
    let workspace = Workspace::builder().with_services().start();
    workspace.trust(Policy {
        issuer: issuer.clone(),
        subject: SUBJECT.to_owned(),
        audience: workspace.token_url(),
        client: client.map(str::to_owned),
        identity: CLIENT.to_owned(),
    });
    workspace
}

fn issuer() -> Issuer {
    Issuer::new("https://issuer.example")
}

#[test]
fn a_token_in_a_file_becomes_a_login() {
    let issuer = issuer();
    let workspace = trusting(&issuer, Some(CLIENT));
    let Some(stage) = Stage::new("a_token_in_a_file_becomes_a_login", workspace, &[CLIENT]) else { return };
    let home = Home::new();
    let token = issuer.token(SUBJECT, &stage.workspace.token_url(), 600);
    home.keep_secret(&token);
    let file = home.write("run/token", format!("{token}\n"), 0o600);
    let settings = format!("auth = 'file-oidc'\nclient_id = '{CLIENT}'\noidc_token_filepath = '{}'", file.display());
    stage.proves(&home, CLIENT, configured(&home, &stage.workspace, &settings, ""));
    // What the policy must have is said, and no part of the token.
    let check = configured(&home, &stage.workspace, &settings, "").args(["check", "--json"]).run();
    check.stdout_has("https://issuer.example").stdout_has(SUBJECT).stdout_has(&stage.workspace.token_url());
    check.stdout_has(CLIENT).stdout_has("federation policy");
}

#[test]
fn a_token_for_the_whole_account_goes_without_a_client() {
    let issuer = issuer();
    let Some(stage) =
        Stage::new("a_token_for_the_whole_account_goes_without_a_client", trusting(&issuer, None), &[CLIENT])
    else {
        return;
    };
    let home = Home::new();
    let token = issuer.token(SUBJECT, &stage.workspace.token_url(), 600);
    home.keep_secret(&token);
    let session = configured(&home, &stage.workspace, "auth = 'env-oidc'", "").env("DATABRICKS_OIDC_TOKEN", &token);
    stage.proves(&home, CLIENT, session);
    let named = "auth = 'env-oidc'\noidc_token_env = 'MY_TOKEN'";
    stage.proves(&home, CLIENT, configured(&home, &stage.workspace, named, "").env("MY_TOKEN", &token));
}

#[test]
fn a_job_at_github_or_azure_devops_has_a_token_for_the_asking() {
    let issuer = issuer();
    let workspace = trusting(&issuer, Some(CLIENT));
    workspace.trust(Policy {
        issuer: issuer.clone(),
        subject: SUBJECT.to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        client: Some(CLIENT.to_owned()),
        identity: CLIENT.to_owned(),
    });
    workspace
        .beside(|beside| beside.job = Some(("job-token-0123456789".to_owned(), issuer.clone(), SUBJECT.to_owned())));
    let Some(stage) = Stage::new("a_job_at_github_or_azure_devops_has_a_token_for_the_asking", workspace, &[CLIENT])
    else {
        return;
    };
    let home = Home::new();
    home.keep_secret("job-token-0123456789");
    let at = stage.workspace.services_url();
    let client = format!("client_id = '{CLIENT}'");
    let github = |token: &str| {
        configured(&home, &stage.workspace, &client, "")
            .env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{at}/github/token?api-version=2.0"))
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token)
    };
    stage.proves(&home, CLIENT, github("job-token-0123456789"));
    let refused = github("another-token-0123").args(["rotate", "--retry-for", "0s"]).run();
    refused.exits(77).stderr_has("the token of the job is not valid").stderr_has("id-token: write");
    let devops = configured(&home, &stage.workspace, &client, "")
        .env("SYSTEM_ACCESSTOKEN", "job-token-0123456789")
        .env("SYSTEM_TEAMFOUNDATIONCOLLECTIONURI", format!("{at}/ado/"))
        .env("SYSTEM_TEAMPROJECTID", "p")
        .env("SYSTEM_PLANID", "1")
        .env("SYSTEM_JOBID", "2")
        .env("SYSTEM_HOSTTYPE", "build");
    stage.proves(&home, CLIENT, devops);
    let asked = stage.workspace.requests();
    assert!(
        asked.contains(&"POST /ado/p/_apis/distributedtask/hubs/build/plans/1/jobs/2/oidctoken".to_owned()),
        "{asked:?}"
    );
    let nowhere = configured(&home, &stage.workspace, &format!("auth = 'github-oidc'\n{client}"), "");
    nowhere.args(["rotate"]).run().exits(78).stderr_has("ACTIONS_ID_TOKEN_REQUEST_URL");
}

#[test]
fn a_token_that_cannot_be_used_is_told_and_the_live_entry_stays() {
    let issuer = issuer();
    let workspace = trusting(&issuer, Some(CLIENT));
    workspace.add_instance(Instance::named("orders"));
    let home = Home::new();
    let audience = workspace.token_url();
    let good = issuer.token(SUBJECT, &audience, 600);
    let file = home.path("token");
    let settings = format!("auth = 'file-oidc'\nclient_id = '{CLIENT}'\noidc_token_filepath = '{}'", file.display());
    let rotate = || configured(&home, &workspace, &settings, "").args(["rotate", "--retry-for", "0s"]).run();
    home.write("token", &good, 0o600);
    rotate().exits(0);
    let entry = home.pgpass();
    let stranger = Issuer::new("https://stranger.example");
    let impostor = Issuer::new("https://issuer.example");
    for (bytes, code, said, hint) in [
        (issuer.token(SUBJECT, &audience, -600).into_bytes(), 77, "expired 10 min ago", "must write a new one"),
        (issuer.token(SUBJECT, "somebody-else", 600).into_bytes(), 77, "audience", "the audience somebody-else"),
        (issuer.token("mallory", &audience, 600).into_bytes(), 77, "subject", "the subject mallory"),
        (stranger.token(SUBJECT, &audience, 600).into_bytes(), 77, "no federation policy", "stranger.example"),
        (
            impostor.token(SUBJECT, &audience, 600).into_bytes(),
            77,
            "no federation policy",
            "the issuer https://issuer.example",
        ),
        (Vec::new(), 78, "it is empty", "one line"),
        (b"\n \n".to_vec(), 78, "it is empty", "one line"),
        (format!("{good}\n{good}\n").into_bytes(), 78, "more than one line", "one line"),
        (b"not-a-token-at-all-0123".to_vec(), 78, "no signed token", "one line"),
        (vec![0x89, b'P', b'N', b'G', 0, 0], 78, "no text", "one line"),
        (vec![b'a'; 17 * 1024], 78, "larger than 16 KiB", "oidc_token_filepath"),
    ] {
        let before = workspace.requests_to(Endpoint::Token);
        home.write("token", &bytes, 0o600);
        rotate().exits(code).stderr_has(said).stderr_has(hint).stderr_has("token");
        assert_eq!(home.pgpass(), entry, "{said}");
        let asked = workspace.requests_to(Endpoint::Token) - before;
        assert_eq!(
            asked,
            usize::from(code == 77 && !said.contains("expired")),
            "{said}: nothing is sent that is no token"
        );
    }
    std::fs::remove_file(&file).unwrap();
    rotate().exits(78).stderr_has("cannot read the token in").stderr_has("oidc_token_filepath");
    std::fs::create_dir(&file).unwrap();
    rotate().exits(78).stderr_has("cannot read the token in");
    assert_eq!(home.pgpass(), entry);
    let unset = configured(&home, &workspace, "auth = 'env-oidc'", "").args(["rotate"]).run();
    unset.exits(78).stderr_has("$DATABRICKS_OIDC_TOKEN").stderr_has("is not set");
}

#[test]
fn a_token_that_kubernetes_replaces_is_used_at_once() {
    let issuer = issuer();
    let workspace = trusting(&issuer, Some(CLIENT));
    workspace.add_instance(Instance::named("orders"));
    let home = Home::new();
    let audience = workspace.token_url();
    // As the kubelet writes it: the file is a link into a directory that is replaced by a rename of another link.
    let volume = home.path("volume");
    let write = |version: &str, life| {
        home.write(format!("volume/{version}/token"), issuer.token(SUBJECT, &audience, life), 0o600);
        symlink(version, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    write("..one", -60);
    symlink("..data/token", volume.join("token")).unwrap();
    let path = volume.join("token").display().to_string();
    let settings = format!("auth = 'file-oidc'\nclient_id = '{CLIENT}'\noidc_token_filepath = '{path}'");
    let daemon = configured(&home, &workspace, &settings, "").args(["run"]).spawn();
    daemon.says("expired 1 min ago", LIMIT);
    write("..two", 600);
    daemon.says("Successfully updated", LIMIT);
    daemon.terminate().exits(0);
}

#[test]
fn the_rights_of_a_group_are_asked_for_and_its_role_logs_in() {
    let issuer = issuer();
    let workspace = trusting(&issuer, Some(CLIENT));
    workspace.beside(|beside| beside.groups = vec![("4711".to_owned(), "analysts".to_owned())]);
    let name = "the_rights_of_a_group_are_asked_for_and_its_role_logs_in";
    let Some(stage) = Stage::new(name, workspace, &["analysts"]) else { return };
    let home = Home::new();
    home.write("token", issuer.token(SUBJECT, &stage.workspace.token_url(), 600), 0o600);
    let file = home.path("token").display().to_string();
    let of = |group: &str| {
        format!("auth = 'file-oidc'\nclient_id = '{CLIENT}'\noidc_token_filepath = '{file}'\ngroup_id = '{group}'")
    };
    stage.proves(&home, "analysts", configured(&home, &stage.workspace, &of("4711"), "user = 'analysts'"));
    let unnamed = configured(&home, &stage.workspace, &of("4711"), "").args(["rotate"]).run();
    unnamed.exits(78).stderr_has("the name of the group").stderr_has("`user`");
    let other = configured(&home, &stage.workspace, &of("4712"), "user = 'analysts'");
    other.args(["rotate", "--retry-for", "0s"]).run().exits(77).stderr_has("may not assume this group");
    // A client with a secret asks for it in the same way.
    let client = "auth = 'oauth-m2m'\ngroup_id = '4711'";
    let session = configured(&home, &stage.workspace, client, "user = 'analysts'").signed_in_to(&stage.workspace);
    stage.proves(&home, "analysts", session);
    let by_tool =
        configured(&home, &stage.workspace, "auth = 'databricks-cli'\ngroup_id = '4711'", "user = 'analysts'");
    by_tool.args(["rotate"]).run().exits(78).stderr_has("cannot sign in with the rights of a group");
}
