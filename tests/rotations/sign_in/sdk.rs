//! The vendor's own client for Python signs in to the stand-ins in the same ways: which is why we may trust them. It knows no managed
//! identities (`azure-msi`), and finds Azure's CLI, the vendor's CLI and Google's sign-in by other programs and names.

use std::collections::BTreeMap;

use serde_json::json;

use super::CLIENT;
use crate::support::workspace::issuers::{Issuer, Policy};
use crate::support::{Endpoint, Home, Relay, Workspace, skip, vendor_sdk};

/// A method, who it is then, and the variables.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>);

/// One process for all: who each is, or what went wrong.
const SCRIPT: &str = r#"
import json, os, sys
from databricks.sdk import WorkspaceClient
for case in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(case["environment"])
    try:
        w = WorkspaceClient()
        told = {"method": w.config.auth_type, "who": w.current_user.me().user_name}
    except Exception as error:
        told = {"method": str(error), "who": ""}
    print(json.dumps(told))
"#;

#[test]
fn the_vendors_client_signs_in_to_the_stand_ins_in_the_same_ways() {
    let name = "the_vendors_client_signs_in_to_the_stand_ins_in_the_same_ways";
    let python = match vendor_sdk::python() {
        Ok(python) => python,
        Err(reason) => return skip(name, &reason),
    };
    let (host, subject, user) = ("adb-1.2.azuredatabricks.net", "job:7", "ada@example.com");
    let workspace = Workspace::builder().with_services().custom_url(host).start();
    let relay = Relay::to(workspace.port());
    let issuer = Issuer::new("https://issuer.example");
    for audience in [workspace.token_url(), "api://AzureADTokenExchange".to_owned()] {
        workspace.trust(Policy {
            issuer: issuer.clone(),
            subject: subject.to_owned(),
            audience,
            client: Some(CLIENT.to_owned()),
            identity: CLIENT.to_owned(),
        });
    }
    workspace.beside(|beside| {
        beside.job = Some(("job-token-0123456789".to_owned(), issuer.clone(), subject.to_owned()));
        beside.azure = Some(("my-tenant".to_owned(), CLIENT.to_owned(), "entra-secret-0123456789".to_owned()));
        beside.azure_resource = Some("/subscriptions/s".to_owned());
        beside.machine = Some(CLIENT.to_owned());
    });
    let home = Home::new();
    let token = issuer.token(subject, &workspace.token_url(), 600);
    let file = home.write("token", format!("{token}\n"), 0o600).display().to_string();
    let services = workspace.services_url();
    let (pat, url) = (workspace.personal_token(user), workspace.url());
    let github = format!("{services}/github/token?x=1");
    let (devops, metadata) = (format!("{services}/ado/"), format!("{services}/metadata-service/for-me"));
    let own = ("DATABRICKS_HOST", url.as_str());
    let client = ("DATABRICKS_CLIENT_ID", CLIENT);
    let cases: Vec<Case<'_>> = vec![
        ("pat", user, vec![own, ("DATABRICKS_TOKEN", &pat)]),
        ("file-oidc", CLIENT, vec![own, client, ("DATABRICKS_OIDC_TOKEN_FILEPATH", &file)]),
        ("env-oidc", CLIENT, vec![own, client, ("DATABRICKS_OIDC_TOKEN", &token)]),
        (
            "github-oidc",
            CLIENT,
            vec![
                own,
                client,
                ("ACTIONS_ID_TOKEN_REQUEST_URL", &github),
                ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "job-token-0123456789"),
            ],
        ),
        (
            "azure-devops-oidc",
            CLIENT,
            vec![
                own,
                client,
                ("SYSTEM_ACCESSTOKEN", "job-token-0123456789"),
                ("SYSTEM_TEAMFOUNDATIONCOLLECTIONURI", &devops),
                ("SYSTEM_TEAMPROJECTID", "p"),
                ("SYSTEM_PLANID", "1"),
                ("SYSTEM_JOBID", "2"),
                ("SYSTEM_HOSTTYPE", "build"),
            ],
        ),
        ("metadata-service", CLIENT, vec![own, ("DATABRICKS_METADATA_SERVICE_URL", &metadata)]),
        (
            "azure-client-secret",
            CLIENT,
            vec![
                ("DATABRICKS_HOST", "https://adb-1.2.azuredatabricks.net"),
                ("HTTPS_PROXY", ""),
                ("ARM_CLIENT_ID", CLIENT),
                ("ARM_CLIENT_SECRET", "entra-secret-0123456789"),
                ("ARM_TENANT_ID", "my-tenant"),
                ("DATABRICKS_AZURE_RESOURCE_ID", "/subscriptions/s"),
            ],
        ),
    ];
    let google = super::others::google_stands_in(&workspace, &home).map(|pem| super::others::google_files(&pem));
    let google: Vec<String> = google
        .into_iter()
        .flatten()
        .map(|(kind, file)| home.write(format!("google-{kind}.json"), file.to_string(), 0o600).display().to_string())
        .collect();
    let target = "target@shop.iam.gserviceaccount.com";
    let mut cases = cases;
    cases.extend(google.iter().map(|file| {
        let variables = vec![
            own,
            ("HTTPS_PROXY", ""),
            ("NO_PROXY", "127.0.0.1"),
            ("DATABRICKS_GOOGLE_SERVICE_ACCOUNT", target),
            ("GOOGLE_APPLICATION_CREDENTIALS", file.as_str()),
        ];
        ("google-id", target, variables)
    }));
    let ca = workspace.ca_file().display().to_string();
    let asked: Vec<_> = cases
        .iter()
        .map(|(method, _, variables)| {
            let mut environment: BTreeMap<&str, String> =
                variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            if environment.contains_key("HTTPS_PROXY") {
                environment.insert("HTTPS_PROXY", relay.url());
            }
            environment.insert("DATABRICKS_AUTH_TYPE", (*method).to_owned());
            environment.insert("REQUESTS_CA_BUNDLE", ca.clone());
            environment.insert("HOME", home.path("").display().to_string());
            json!({"environment": environment})
        })
        .collect();
    let script = home.write("sdk.py", SCRIPT, 0o600);
    let outcome = home.command(python).arg(script).stdin(&serde_json::to_string(&asked).unwrap()).run();
    let told: Vec<serde_json::Value> =
        outcome.exits(0).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: Vec<_> = cases.iter().map(|(method, who, _)| json!({"method": method, "who": who})).collect();
    assert_eq!(told, expected, "{outcome}");
    assert!(workspace.requests_to(Endpoint::Token) >= 4);
}
