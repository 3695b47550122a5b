//! A marked client secret and every token of a whole session are searched in every form in everything that the program
//! wrote, printed, reported or started: they may only be where they belong.

mod cluster;
mod ways;

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rustix::process::Signal;

use super::stage::{CONFIG, ENV, FOREIGN_PASSWORDS, PASSWORDS, SECRET, Stage, TOKEN};
use crate::support::person;
use crate::support::workspace::DEFAULT_CLIENT_ID;
use crate::support::{Failure, Fault, Outcome, Running, Session, Workspace, skip};

/// Appears nowhere else, in any form.
const MARK: &str = "canary-5f1e0c9a/7b+3d=2846&e9\"d1";

/// This many consecutive bytes of a form count as the secret: too many for chance.
const PIECE: usize = 16;

const SOON: Duration = Duration::from_secs(30);

const RENEWED: &str = "orders is valid until";

/// A hook that records what it can see of itself and of the program.
const TOLD: &str = "#!/bin/sh\ncat /proc/$$/environ /proc/$$/cmdline /proc/$PPID/cmdline >> ~/seen\n";

/// Everything that was seen, with its place.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

/// A secret, and the places where it belongs.
struct Marked {
    secret: String,
    belongs_to: fn(&str) -> bool,
}

impl Seen {
    fn outcome(&mut self, command: &str, outcome: &Outcome) {
        self.0.push((format!("standard output of {command}"), outcome.stdout.clone().into()));
        self.0.push((format!("standard error of {command}"), outcome.stderr.clone().into()));
    }

    /// Adds every file of the home.
    fn files(&mut self, stage: &Stage) {
        for file in stage.home.files() {
            let name = file.to_string_lossy().into_owned();
            if fs::symlink_metadata(stage.home.path(&file)).is_ok_and(|there| there.is_file()) {
                let bytes = fs::read(stage.home.path(&file)).expect("read a file");
                self.0.push((format!("the name of {name}"), name.clone().into()));
                self.0.push((name, bytes));
            }
        }
    }

    /// Where a form of a secret is that does not belong there.
    fn leaks(&self, marked: &[Marked]) -> Vec<String> {
        let mut pieces: HashMap<&[u8], Vec<&str>> = HashMap::new();
        for (place, bytes) in &self.0 {
            for piece in bytes.windows(PIECE) {
                let places = pieces.entry(piece).or_default();
                if places.last() != Some(&place.as_str()) {
                    places.push(place);
                }
            }
        }
        let mut leaks = Vec::new();
        for Marked { secret, belongs_to } in marked {
            for (form, text) in forms(secret) {
                let found = text.as_bytes().windows(PIECE).filter_map(|piece| pieces.get(piece)).flatten();
                leaks.extend(found.filter(|place| !belongs_to(place)).map(|place| format!("{form} in {place}")));
            }
        }
        leaks.sort();
        leaks.dedup();
        leaks
    }
}

/// The forms in which the secret may appear: a piece of any of these is a piece of the secret.
fn forms(secret: &str) -> Vec<(String, String)> {
    let bytes = secret.as_bytes();
    let each = |form: fn(&u8) -> String| bytes.iter().map(form).collect::<String>();
    let mut forms = vec![
        ("plain".to_owned(), secret.to_owned()),
        ("percent-encoded".to_owned(), percent_encoded(secret)),
        ("percent-encoded".to_owned(), percent_encoded(secret).to_lowercase()),
        ("all percent-encoded".to_owned(), each(|byte| format!("%{byte:02X}"))),
        ("hex".to_owned(), each(|byte| format!("{byte:02x}"))),
        ("HEX".to_owned(), each(|byte| format!("{byte:02X}"))),
        ("in JSON".to_owned(), serde_json::to_string(secret).expect("JSON").trim_matches('"').to_owned()),
    ];
    // What comes before it, such as a client id and a colon, shifts its bits.
    for before in 0..3 {
        let padded: Vec<u8> = vec![0; before].into_iter().chain(bytes.iter().copied()).collect();
        for engine in [STANDARD, URL_SAFE] {
            let encoded = engine.encode(&padded);
            let inner = &encoded[if before > 0 { 4 } else { 0 }..encoded.len() - 4];
            forms.push((format!("base64 at {before}"), inner.to_owned()));
        }
    }
    forms
}

fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The end of a token: its beginning is the same in many.
fn signature(token: &str) -> String {
    token.rsplit('.').next().unwrap_or_default().to_owned()
}

/// What a malicious server makes of the secret that it was sent.
fn repeated() -> Vec<String> {
    let basic = STANDARD.encode(format!("{DEFAULT_CLIENT_ID}:{MARK}"));
    let mut texts: Vec<String> = forms(MARK).into_iter().map(|(_, text)| text).collect();
    texts.extend([format!("'{MARK}'"), format!("Basic {basic}"), STANDARD.encode(MARK), percent_encoded(&basic)]);
    texts
}

fn marked_stage() -> Stage {
    let stage = Stage::with(Workspace::builder().client(DEFAULT_CLIENT_ID, MARK).start());
    stage.home.write("bin/told", TOLD, 0o755);
    stage.home.write(CONFIG, stage.config("require") + "on_rotate = ['told']\n", 0o600);
    stage
}

/// With all messages, and with a log file.
fn talkative<'a>(stage: &'a Stage, arguments: &[&str]) -> Session<'a> {
    stage.rotator(arguments).args(["-v", "--log-file", "log"])
}

#[test]
fn a_marked_secret_and_every_token_are_only_where_they_belong() {
    let stage = marked_stage();
    let mut seen = Seen::default();
    let rotate = ["rotate", "--retry-for", "0s", "--json"];

    seen.outcome("rotate", talkative(&stage, &rotate).run().exits(0));
    let from_environment = stage.config("require").replace("client_secret_file = ", "# ") + "on_rotate = ['told']\n";
    let config = fs::read(stage.home.path(CONFIG)).unwrap();
    stage.home.write(CONFIG, from_environment, 0o600);
    seen.outcome(
        "rotate by the environment",
        talkative(&stage, &rotate)
            .env("DATABRICKS_HOST", stage.workspace.url())
            .env("DATABRICKS_CLIENT_SECRET", MARK)
            .run()
            .exits(0),
    );
    stage.home.write(CONFIG, config, 0o600);

    for text in repeated() {
        for fault in repeating(&text) {
            stage.workspace.fail_next(fault);
            seen.outcome("rotate, which is told the secret", &talkative(&stage, &rotate).run());
            // The record's view of it.
            seen.outcome("status after that", &stage.rotator(&["status", "--json"]).run());
        }
    }
    stage.workspace.set_client(DEFAULT_CLIENT_ID, "another-secret-0000000000");
    seen.outcome("rotate, refused", talkative(&stage, &rotate).run().exits(77));
    stage.workspace.set_client(DEFAULT_CLIENT_ID, MARK);

    for command in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--prometheus"],
        &["check", "--connect"],
        &["check", "--json"],
        &["config", "show"],
        &["config", "check"],
        &["connections"],
        &["connections", "--toml"],
        &["token", "--json", "-v"],
    ] {
        seen.outcome(&command.join(" "), &stage.rotator(command).run());
    }
    through_the_cli(&stage, &mut seen);
    through_the_browser(&stage, &mut seen);
    as_a_daemon(&stage, &mut seen);
    seen.files(&stage);

    let leaks = seen.leaks(&marked(&stage));
    assert!(leaks.is_empty(), "{} leaks:\n  {}", leaks.len(), leaks.join("\n  "));
}

/// Every place in a token endpoint's answer that can hold a text.
fn repeating(text: &str) -> Vec<Fault> {
    let said = |error: &str, description: &str| Fault::StatusWith {
        status: 400,
        body: serde_json::json!({"error": error, "error_description": description}).to_string(),
        headers: vec![("X-Databricks-Reason-Phrase".to_owned(), text.to_owned())],
    };
    let body = Fault::StatusWith { status: 400, body: format!("<p>{text}</p>"), headers: Vec::new() };
    vec![
        said("invalid_request", text),
        said(text, "no"),
        body,
        Fault::Redirect(format!("https://login.example/{text}")),
        Fault::ErrorIn200(text.to_owned()),
        Fault::OtherIdentity(text.to_owned()),
    ]
}

fn through_the_cli(stage: &Stage, seen: &mut Seen) {
    let cli = stage.home.install_cli(&stage.workspace);
    let config = fs::read_to_string(stage.home.path(CONFIG)).unwrap();
    let with_cli = config.replace("client_secret_file", "# ").replace("client_id", "auth = 'databricks-cli' #");
    stage.home.write(CONFIG, with_cli, 0o600);
    seen.outcome("rotate by the CLI", talkative(stage, &["rotate", "--retry-for", "0s"]).run().exits(0));
    for failure in [Failure::Garbage, Failure::BareToken, Failure::JsonError, Failure::InvalidRefreshToken] {
        cli.set_failure(Some(failure));
        seen.outcome("rotate by a CLI that fails", &talkative(stage, &["rotate", "--retry-for", "0s"]).run());
    }
    seen.files(stage);
    // From now on there is no other source of tokens.
    fs::remove_file(cli.program()).unwrap();
    stage.home.write(CONFIG, config, 0o600);
}

/// A person's login, whose refresh token the workspace repeats wherever it can.
fn through_the_browser(stage: &Stage, seen: &mut Seen) {
    let config = fs::read_to_string(stage.home.path(CONFIG)).unwrap();
    let as_person = config.replace("client_secret_file", "# ").replace("client_id", "auth = 'external-browser' #");
    stage.home.write(CONFIG, as_person, 0o600);
    person::install(&stage.home, &stage.workspace, "allow");
    let program = env!("CARGO_BIN_EXE_dbx-rotator");
    let login = person::typed(&stage.home, &stage.workspace, program, "-v login --file").run();
    seen.outcome("login", login.exits(0));
    let (_, tokens) = person::files(&stage.home);
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(tokens).unwrap()).unwrap();
    let refresh_token = kept["refresh_token"].as_str().unwrap();
    let rotate = ["rotate", "--retry-for", "0s"];
    for fault in repeating(refresh_token) {
        person::let_it_age(&stage.home, None);
        stage.workspace.fail_next(fault);
        seen.outcome("rotate by the browser's login, which is repeated", &talkative(stage, &rotate).run());
    }
    // The last of these tokens names somebody else.
    person::let_it_age(&stage.home, None);
    seen.outcome("rotate by the browser's login", talkative(stage, &rotate).run().exits(0));
    seen.files(stage);
    seen.outcome("logout", stage.rotator(&["logout", "-v"]).run().exits(0));
    stage.home.write(CONFIG, config, 0o600);
}

fn times(running: &Running<'_>, said: &str) -> usize {
    running.stderr().matches(said).count()
}

/// Rotates, is refused, and is stopped, while a service manager is told about all of it.
fn as_a_daemon(stage: &Stage, seen: &mut Seen) {
    let socket = stage.home.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    // Keep reading as a manager does: a full socket would block the sender.
    let told = thread::spawn(move || {
        let (mut told, mut message) = (Vec::new(), vec![0; 65_536]);
        while let Ok(length) = manager.recv(&mut message) {
            told.push(message[..length].to_owned());
            if message[..length].starts_with(b"STOPPING=1") {
                break;
            }
        }
        told
    });
    // The waits would grow if tokens were due as soon as they are allowed to be.
    stage.workspace.set_token_life(Duration::from_secs(5));
    // The token in the file lives longer.
    stage.home.write(PASSWORDS, FOREIGN_PASSWORDS, 0o600);
    let running = talkative(stage, &["run"]).env("NOTIFY_SOCKET", &socket).spawn();
    running.says(RENEWED, SOON);
    for fault in repeating(MARK) {
        let (complaints, renewed) = (times(&running, " - ERROR - "), times(&running, RENEWED));
        stage.workspace.fail_next(fault);
        let deadline = Instant::now() + SOON;
        while times(&running, " - ERROR - ") == complaints && times(&running, RENEWED) == renewed {
            assert!(Instant::now() < deadline, "it did not ask for a token any more:\n{}", running.stderr());
            thread::sleep(Duration::from_millis(20));
        }
        // A failure that needs a person is retried at once when the person asks for that.
        running.signal(Signal::HUP);
        running.says_times(renewed + 1, RENEWED, SOON);
    }
    seen.outcome("run", running.terminate().exits(0));
    let told = told.join().unwrap().into_iter();
    seen.0.extend(told.map(|told| ("what the service manager was told".to_owned(), told)));
    stage.workspace.set_token_life(Duration::from_secs(3600));
}

fn marked(stage: &Stage) -> Vec<Marked> {
    let secret = Marked { secret: MARK.to_owned(), belongs_to: |place| place == SECRET };
    let tokens = stage.workspace.secrets().into_iter().filter(|secret| secret != MARK && secret.len() > PIECE * 2);
    let published = |place: &str| {
        [PASSWORDS, TOKEN, ENV, ".databricks/token-cache.json"].contains(&place)
            || place == "standard output of token --json -v"
            || (place.starts_with(person::LOGINS) && place.ends_with(".token"))
    };
    let tokens = tokens.map(|secret| Marked { secret, belongs_to: published });
    [secret].into_iter().chain(tokens).collect()
}

#[test]
fn what_is_searched_for_is_found_in_every_form() {
    for (index, text) in repeated().into_iter().enumerate() {
        let seen = Seen(vec![("here".to_owned(), format!("before {text} behind").into_bytes())]);
        let marked = [Marked { secret: MARK.to_owned(), belongs_to: |_| false }];
        assert!(!seen.leaks(&marked).is_empty(), "form {index}");
        let belonging = [Marked { secret: MARK.to_owned(), belongs_to: |place| place == "here" }];
        assert!(seen.leaks(&belonging).is_empty(), "form {index}");
    }
}

/// Lets a program dump core into its current directory, as far as the program itself allows it.
const DUMPING: [&str; 4] = ["/bin/sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"];

#[test]
fn an_aborted_daemon_leaves_no_core_file() {
    let test = "an_aborted_daemon_leaves_no_core_file";
    let stage = marked_stage();
    let is_core = |file: &std::path::PathBuf| file.to_string_lossy().starts_with("core");
    // A control: this core dump would be found.
    let other = stage.home.command(DUMPING[0]).args(&DUMPING[1..]).args(["/bin/sh", "-c", "kill -ABRT $$"]).run();
    if other.signal != Some(Signal::ABORT.as_raw()) || !stage.home.files().iter().any(is_core) {
        return skip(test, "core dumps do not go into the working directory here (kernel.core_pattern)");
    }
    for core in stage.home.files().into_iter().filter(is_core) {
        fs::remove_file(stage.home.path(core)).unwrap();
    }
    let running = stage.by(&DUMPING, &["run"]).spawn();
    running.says("orders is valid until", SOON);
    running.signal(Signal::ABORT);
    let outcome = running.ends();
    assert_eq!(outcome.signal, Some(Signal::ABORT.as_raw()), "{outcome}");
    let left: Vec<_> = stage.home.files().into_iter().filter(is_core).collect();
    assert!(left.is_empty(), "{left:?}");
}
