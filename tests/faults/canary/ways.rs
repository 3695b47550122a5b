//! The same for every other way to sign in: what each takes is only where somebody has put it, whatever the other side makes of it.

use std::process::Command;

use serde_json::json;

use super::{CONFIG, ENV, Marked, PASSWORDS, PIECE, Seen, Stage, TOKEN, TOLD, repeating, signature, talkative};
use crate::support::workspace::issuers::{Issuer, Policy};
use crate::support::{Endpoint, Instance, Relay, Workspace, skip};

const CLIENT: &str = "0b1c2d3e-0000-4000-8000-00000000cafe";
const TARGET: &str = "target@shop.iam.gserviceaccount.com";

/// Appear nowhere else.
const OF_AZURE: &str = "azure-canary-1d8f~3b.7e-5c9a2f60";
const OF_GOOGLE: [&str; 2] = ["google-canary-secret-92b7d4", "1//google-canary-refresh-6e0a8c3f"];
const OF_METADATA: &str = "metadata-canary-8b2e6f0d4a91";

/// Where each secret is put, if it is put into a file.
const KEPT: &str = "kept";

/// One way to sign in.
struct Way {
    name: &'static str,
    /// In `[[workspace]]`.
    settings: String,
    file: Option<String>,
    environment: Vec<(&'static str, String)>,
    secrets: Vec<String>,
}

impl Way {
    fn by_file(name: &'static str, settings: &str, file: String, secrets: &[&str]) -> Self {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        Way { name, settings: settings.to_owned(), file: Some(file), environment: Vec::new(), secrets }
    }

    fn by_variable(name: &'static str, settings: &str, variable: &'static str, secret: &str) -> Self {
        let environment = vec![(variable, secret.to_owned())];
        Way { name, settings: settings.to_owned(), file: None, environment, secrets: vec![secret.to_owned()] }
    }
}

fn ways(workspace: &Workspace, pem: &str) -> Vec<Way> {
    let issuer = Issuer::new("https://issuer.example");
    workspace.trust(Policy {
        issuer: issuer.clone(),
        subject: "job:7".to_owned(),
        audience: workspace.token_url(),
        client: Some(CLIENT.to_owned()),
        identity: CLIENT.to_owned(),
    });
    let account = "rotator@shop.iam.gserviceaccount.com";
    let key = json!({"type": "service_account", "client_email": account, "private_key": pem}).to_string();
    let person = json!({"type": "authorized_user", "client_id": "gcloud", "client_secret": OF_GOOGLE[0],
                        "refresh_token": OF_GOOGLE[1]});
    let (pat, subject) =
        (workspace.personal_token("ada@example.com"), issuer.token("job:7", &workspace.token_url(), 600));
    // The head of such a token is that of the password, too.
    let signature = signature(&subject);
    let of_key: Vec<&str> = pem.lines().filter(|line| line.len() == 64).collect();
    let azure =
        format!("azure_client_id = '{CLIENT}'\nazure_tenant_id = 'my-tenant'\nazure_workspace_resource_id = '/s'");
    let client = format!("client_id = '{CLIENT}'");
    let in_variable = |name: &'static str, text: &str, secrets: &[&str]| Way {
        secrets: secrets.iter().map(|secret| (*secret).to_owned()).collect(),
        ..Way::by_variable("google-credentials", "", name, text)
    };
    let mut google_id =
        Way::by_file("google-id", &format!("google_service_account = '{TARGET}'"), person.to_string(), &OF_GOOGLE);
    google_id.environment = vec![("GOOGLE_APPLICATION_CREDENTIALS", KEPT.to_owned())];
    let metadata = format!("metadata_service_url = '{}/metadata-service/{OF_METADATA}'", workspace.services_url());
    vec![
        Way::by_file("pat", "token_file = '~/kept'", pat.clone(), &[&pat]),
        Way::by_variable("pat", "", "DATABRICKS_TOKEN", &pat),
        Way::by_file(
            "azure",
            &format!("{azure}\nazure_client_secret_file = '~/kept'"),
            OF_AZURE.to_owned(),
            &[OF_AZURE],
        ),
        Way::by_variable("azure", &azure, "ARM_CLIENT_SECRET", OF_AZURE),
        Way::by_file("google-credentials", "google_credentials_file = '~/kept'", key.clone(), &of_key),
        in_variable("GOOGLE_CREDENTIALS", &key, &of_key),
        google_id,
        Way::by_file(
            "file-oidc",
            &format!("auth = 'file-oidc'\n{client}\noidc_token_filepath = '~/kept'"),
            subject.clone(),
            &[&signature],
        ),
        Way {
            secrets: vec![signature.clone()],
            ..Way::by_variable("env-oidc", &format!("auth = 'env-oidc'\n{client}"), "DATABRICKS_OIDC_TOKEN", &subject)
        },
        Way {
            name: "metadata-service",
            settings: metadata,
            file: None,
            environment: Vec::new(),
            secrets: vec![OF_METADATA.to_owned()],
        },
    ]
}

fn sign_ins(workspace: &Workspace, public: Vec<u8>) {
    workspace.beside(|beside| {
        beside.azure = Some(("my-tenant".to_owned(), CLIENT.to_owned(), OF_AZURE.to_owned()));
        beside.google = Some(("rotator@shop.iam.gserviceaccount.com".to_owned(), public));
        beside.google_person = Some(("gcloud".to_owned(), OF_GOOGLE[0].to_owned(), OF_GOOGLE[1].to_owned()));
        beside.google_target = Some(TARGET.to_owned());
        beside.machine = Some(CLIENT.to_owned());
        beside.azure_resource = Some("/s".to_owned());
    });
}

#[test]
fn what_each_way_to_sign_in_takes_is_only_where_it_belongs() {
    let test = "what_each_way_to_sign_in_takes_is_only_where_it_belongs";
    let openssl =
        |arguments: &[&str]| Command::new("openssl").args(arguments).output().ok().filter(|out| out.status.success());
    let Some(key) = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]) else {
        return skip(test, "no openssl");
    };
    let pem = String::from_utf8(key.stdout).unwrap();
    let stage = Stage::with(Workspace::builder().with_services().start());
    stage.workspace.add_instance(Instance::named("orders"));
    let file = stage.home.write("key.pem", &pem, 0o600);
    let public = openssl(&["rsa", "-in", &file.display().to_string(), "-RSAPublicKey_out", "-outform", "DER"]);
    std::fs::remove_file(file).unwrap();
    sign_ins(&stage.workspace, public.unwrap().stdout);
    stage.home.write("bin/told", TOLD, 0o755);
    let relay = Relay::to(stage.workspace.port());
    let mut leaks = Vec::new();
    for way in ways(&stage.workspace, &pem) {
        let found = leaks_of(&stage, &relay, &way);
        leaks.extend(found.into_iter().map(|leak| format!("{}: {leak}", way.name)));
    }
    assert!(leaks.is_empty(), "{} leaks:\n  {}", leaks.len(), leaks.join("\n  "));
}

fn leaks_of(stage: &Stage, relay: &Relay, way: &Way) -> Vec<String> {
    let config = format!(
        "[[workspace]]\nhost = '{}'\n{}\n[[connection]]\ninstance = 'orders'\ntoken_file = '~/{TOKEN}'\nenv_file = '~/{ENV}'\n\
         on_rotate = ['told']\n",
        stage.workspace.url(),
        way.settings
    );
    stage.home.write(CONFIG, config, 0o600);
    if let Some(text) = &way.file {
        stage.home.write(KEPT, text, 0o600);
    }
    let session = |words: &[&str]| {
        let session = talkative(stage, words).env("HTTPS_PROXY", relay.url()).env("NO_PROXY", "127.0.0.1");
        let session = session.env("DATABRICKS_HOST", stage.workspace.url());
        way.environment.iter().fold(session, |session, (name, value)| {
            let value = if *name == "GOOGLE_APPLICATION_CREDENTIALS" {
                stage.home.path(value).display().to_string()
            } else {
                value.clone()
            };
            session.env(name, value)
        })
    };
    let mut seen = Seen::default();
    seen.outcome("rotate", session(&["rotate", "--retry-for", "0s", "--json"]).run().exits(0));
    // Whoever gets the secret repeats it, as what it takes for its own words.
    for status in [400, 401, 500, 200] {
        stage.workspace.beside(|beside| beside.repeats = Some(status));
        seen.outcome("rotate, which is told the secret", &session(&["rotate", "--retry-for", "0s", "--json"]).run());
        seen.outcome("status after that", &session(&["status", "--json"]).run());
    }
    stage.workspace.beside(|beside| beside.repeats = None);
    // The workspace itself, of what it is shown.
    let endpoint = match way.name {
        "pat" => Some(Endpoint::DatabaseCredentials),
        "file-oidc" | "env-oidc" => Some(Endpoint::Token),
        _ => None,
    };
    for (endpoint, fault) in endpoint
        .into_iter()
        .flat_map(|endpoint| repeating(&way.secrets[0]).into_iter().take(3).map(move |fault| (endpoint, fault)))
    {
        stage.workspace.faults_on(endpoint).next(fault);
        seen.outcome("rotate, which the workspace refuses", &session(&["rotate", "--retry-for", "0s", "--json"]).run());
        seen.outcome("status after that", &session(&["status", "--json"]).run());
    }
    for command in [&["check", "--json"][..], &["config", "show"], &["config", "check"], &["connections"]] {
        seen.outcome(&command.join(" "), &session(command).run());
    }
    seen.files(stage);
    let of_way: fn(&str) -> bool =
        if way.name == "metadata-service" { |place| place == CONFIG } else { |place| place == KEPT };
    let secrets = way.secrets.iter().map(|secret| Marked { secret: secret.clone(), belongs_to: of_way });
    // What was got on the way to the password is nowhere.
    let between = stage.workspace.google_tokens().into_iter().map(|secret| Marked { secret, belongs_to: |_| false });
    let of_stage = stage.workspace.client_secret();
    let own = |secret: &String| way.secrets.contains(secret) || way.file.as_ref() == Some(secret) || secret == of_stage;
    let tokens = stage.workspace.secrets().into_iter().filter(|secret| !own(secret) && secret.len() > PIECE * 2);
    let tokens = tokens.map(|token| Marked {
        secret: signature(&token),
        belongs_to: |place| [PASSWORDS, TOKEN, ENV].contains(&place),
    });
    let marked: Vec<Marked> = secrets.chain(between).chain(tokens).collect();
    let leaks = seen.leaks(&marked);
    let _ = std::fs::remove_file(stage.home.path(KEPT));
    leaks
}
