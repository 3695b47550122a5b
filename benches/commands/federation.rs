//! A sign-in without a stored secret, beside the two requests that it takes.

use std::path::PathBuf;

use super::measure::{self, Home, Samples, Trial, in_turn, peaks};
use super::table::{Limit, Row};
use super::workspace::issuers::{Issuer, Policy};
use super::workspace::{Instance, Workspace};

use super::{ROUNDS, program};

/// What must hold.
const TO_CURL: f64 = 1.2;

const CLIENT: &str = "0b1c2d3e-0000-4000-8000-00000000cafe";
const SUBJECT: &str = "system:serviceaccount:shop:rotator";
const INSTANCE: &str = "orders";

/// `rotate` with the token of another issuer in a file, and a credential that is minted with what it is exchanged for.
pub(crate) fn federation() -> Vec<Row> {
    eprintln!("timing a sign-in by federation, in turn with curl ...");
    let workspace = Workspace::start();
    let issuer = Issuer::new("https://issuer.example");
    workspace.trust(Policy {
        issuer: issuer.clone(),
        subject: SUBJECT.to_owned(),
        audience: workspace.token_url(),
        client: Some(CLIENT.to_owned()),
        identity: CLIENT.to_owned(),
    });
    workspace.add_instance(Instance::named(INSTANCE));
    let home = Home::new();
    let file = home.write("token", &issuer.token(SUBJECT, &workspace.token_url(), 3_000));
    let settings = format!(
        "[[workspace]]\nhost = '{}'\nauth = 'file-oidc'\nclient_id = '{CLIENT}'\noidc_token_filepath = '{}'\n\
         [[connection]]\ninstance = '{INSTANCE}'\n",
        workspace.url(),
        file.display()
    );
    home.write(".config/dbx-rotator/config.toml", &settings);
    let rotate = home.trial(program(), &["rotate"]).env("SSL_CERT_FILE", workspace.ca_file());
    let others = Home::new();
    let curl = two_requests(&others, &workspace, &file);
    let trials = [curl.as_ref(), Some(&rotate)];
    let mut samples = in_turn(&trials, ROUNDS).into_iter();
    let (curl, rotate) = (samples.next().flatten(), samples.next().flatten().expect("it was timed"));
    let peaks = peaks(&trials, super::PEAK_ROUNDS);
    let limit = Limit { wall: curl.as_ref().map(|curl: &Samples| curl.median().mul_f64(TO_CURL)), peak: None };
    let what = "`rotate` by federation: discovery, the exchange, the instance, the credential, the file synced to disk";
    let mut rows = Vec::new();
    if let Some(curl) = curl {
        rows.push(Row::timed(
            "`curl`: the exchange and the credential alone, on one connection".to_owned(),
            &curl,
            peaks[0],
            None,
        ));
    }
    rows.push(Row::timed(what.to_owned(), &rotate, peaks[1], Some(limit)));
    rows
}

/// The exchange, and the request for a credential with a token that was there before; none without curl.
fn two_requests(home: &Home, workspace: &Workspace, subject: &PathBuf) -> Option<Trial> {
    let curl = measure::installed("curl")?;
    let token = std::fs::read_to_string(subject).expect("the token");
    let exchange = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&scope=all-apis&client_id={CLIENT}\
         &subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token={token}"
    );
    let bearer = format!("Authorization: Bearer {}", workspace.issue(CLIENT, std::time::Duration::from_secs(3_000)));
    let wanted = format!("{{\"instance_names\":[\"{INSTANCE}\"],\"request_id\":\"1\"}}");
    let trial = home.trial(curl, &["-q", "--silent", "--show-error", "--fail", "--output", "exchanged.json"]);
    let trial =
        trial.arg("--cacert").arg(workspace.ca_file()).args(["--data", exchange.as_str()]).arg(workspace.token_url());
    let trial = trial.args(["--next", "--silent", "--show-error", "--fail", "--output", "minted.json"]);
    let trial = trial.arg("--cacert").arg(workspace.ca_file());
    let trial = trial.args([
        "--header",
        bearer.as_str(),
        "--header",
        "Content-Type: application/json",
        "--data",
        wanted.as_str(),
    ]);
    Some(trial.arg(format!("{}/api/2.0/database/credentials", workspace.url())))
}
