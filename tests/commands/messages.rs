//! What people read, as a whole: each file of `tests/messages/` is a conversation with the program, in which paths, times and ports
//! are replaced. `DBX_ROTATOR_UPDATE=1 cargo test --test commands messages` writes them anew; then read them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Endpoint, Fault, Home, Outcome, Session, Workspace, dbx_rotator};

/// A conversation, and what must be replaced in it.
struct Conversation {
    text: String,
    /// In this order.
    replaced: Vec<(String, &'static str)>,
}

impl Conversation {
    fn new(home: &Home) -> Self {
        let account = Command::new("sh").args(["-c", "getent passwd $(id -u) | cut -d: -f6"]).output().unwrap();
        let account = String::from_utf8(account.stdout).unwrap();
        let replaced = vec![
            (home.path("").display().to_string(), "~/"),
            (home.path("").display().to_string().trim_end_matches('/').to_owned(), "~"),
            (format!("this account is {}", account.trim()), "this account is HOME-OF-ACCOUNT"),
        ];
        Conversation { text: String::new(), replaced }
    }

    fn with(home: &Home, workspace: &Workspace) -> Self {
        let mut conversation = Conversation::new(home);
        let origin = workspace.url().to_string();
        let authority = origin.trim_start_matches("https://").to_owned();
        conversation.replaced.push((origin, "https://workspace.example"));
        conversation.replaced.push((authority, "workspace.example"));
        conversation.replaced.push((workspace.client_id().to_owned(), "CLIENT-ID"));
        conversation
    }

    fn heading(&mut self, text: &str) {
        let line = if self.text.is_empty() { "" } else { "\n" };
        writeln!(self.text, "{line}## {text}").unwrap();
    }

    /// The command, what it printed, and its exit code.
    fn note(&mut self, outcome: &Outcome) -> &mut Self {
        let code = outcome.code.expect("it ends by itself");
        let end = if code == 0 { String::new() } else { format!("[exit code {code}]\n") };
        let text = format!("\n$ {}\n{}{}{end}", outcome.line(), outcome.stdout, outcome.stderr);
        self.text += &self.neutral(&text);
        self
    }

    fn neutral(&self, text: &str) -> String {
        let text = self.replaced.iter().fold(text.to_owned(), |text, (what, by)| text.replace(what, by));
        text.split_inclusive('\n').map(without_times).map(without_widths).collect()
    }

    /// Compares it with the file, or writes that.
    #[track_caller]
    fn ends(self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages").join(name).with_extension("txt");
        if std::env::var_os("DBX_ROTATOR_UPDATE").is_some() {
            fs::write(&file, &self.text).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        if let Some(number) = (0..).zip(self.text.lines().zip(kept.lines())).find(|(_, (now, then))| now != then) {
            let (line, (now, then)) = number;
            panic!("{}:{}\nnow:  {now}\nkept: {then}\n{UPDATE}", file.display(), line + 1);
        }
        assert!(self.text == kept, "{}: one of them ends earlier\n{UPDATE}", file.display());
    }
}

const UPDATE: &str = "read it, then: DBX_ROTATOR_UPDATE=1 cargo test --test commands messages";

/// Without dates, times of day and spans of time, which differ each time. All other numbers stay.
fn without_times(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for piece in line.split_inclusive([' ', '\n', '(', ')', '\u{2026}']) {
        let word = piece.trim_matches(|letter: char| letter.is_whitespace() || ",.;:()\"'`".contains(letter));
        let shape: String = word.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
        let neutral = match shape.as_str() {
            "00:00" | "00:00:00" => "TIME",
            "0000-00-00" => "DATE",
            "0000-00-00T00:00:00" | "0000-00-00T00:00:00Z" | "0000-00-00T00:00:00+00:00" => "DATE-TIME",
            _ => word,
        };
        let is_unit = ["s", "min", "h", "ms", "d"].contains(&word);
        if is_unit
            && let Some(last) = words.last_mut()
            && last.trim_end().parse::<f64>().is_ok()
        {
            *last = "N ".to_owned();
        }
        words.push(if word.is_empty() { piece.to_owned() } else { piece.replacen(word, neutral, 1) });
    }
    words.concat()
}

/// With two blanks between the columns of a table, whose widths depend on the paths and ports in it. Indented lines stay.
fn without_widths(line: String) -> String {
    if line.starts_with(' ') {
        return line;
    }
    let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    cells.join("  ") + "\n"
}

fn typed<'h>(home: &'h Home, words: &str) -> Session<'h> {
    dbx_rotator!(home).args(words.split_whitespace())
}

/// The commands of this help.
fn commands_in(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    lines.filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help").map(str::to_owned).collect()
}

#[test]
fn the_help_of_every_command() {
    let home = Home::new();
    let mut all = Conversation::new(&home);
    let mut left = vec![String::new()];
    let mut count = 0;
    while let Some(command) = left.pop() {
        let outcome = typed(&home, &format!("{command} --help")).run();
        all.note(outcome.exits(0));
        let mut below: Vec<String> =
            commands_in(&outcome.stdout).iter().map(|one| format!("{command} {one}")).collect();
        below.reverse();
        left.extend(below);
        count += 1;
    }
    assert!(count > 12, "{count}");
    all.ends("help");
}

#[test]
fn what_is_typed_by_mistake() {
    let home = Home::new();
    let mut all = Conversation::new(&home);
    for words in [
        "login",
        "logout",
        "install",
        "logs",
        "init",
        "list",
        "version",
        "refresh",
        "rotat",
        "service enable",
        "service",
        "rotate --host h",
        "status --jsno",
        "rotate --retry-for soon",
        "rotate --client-id",
        "run --interval -5",
        "psql -h db.example -U ada orders",
        "postgres://db.example/orders",
        "host=db.example user=ada",
        "rotate <name>",
        "exec orders psql",
        "exec orders --",
        "token --port x",
    ] {
        all.note(&typed(&home, words).run());
    }
    all.ends("mistakes");
}

#[test]
fn the_first_minute_without_a_configuration() {
    let home = Home::new();
    let mut all = Conversation::new(&home);
    for words in
        ["rotate", "run", "status", "check", "connections", "token", "exec -- psql", "config show", "service install"]
    {
        all.note(&typed(&home, words).run());
    }
    all.ends("first-minute");
}

const CONFIG: &str = ".config/dbx-rotator/config.toml";

#[test]
fn a_configuration_that_cannot_be_used() {
    let home = Home::new();
    let mut all = Conversation::new(&home);
    let connection = "[[connection]]\nname = 'orders'\nhost = 'db.example'\nuser = 'ada'\n";
    let workspace = "[[workspace]]\nhost = 'dbc-1.cloud.databricks.com'\n";
    for (what, text) in [
        ("not TOML", "[[connection]\n".to_owned()),
        ("a setting that does not exist", format!("{workspace}{connection}hots = 'x'\n")),
        ("a table that does not exist", format!("{workspace}{connection}[[conection]]\n")),
        ("a number where a text belongs", format!("{workspace}{connection}database = 5\n")),
        ("a port that is none", format!("{workspace}{connection}port = 70000\n")),
        ("the same name twice", format!("{workspace}{connection}{connection}")),
        ("no workspace", connection.to_owned()),
        ("no connection", workspace.to_owned()),
        ("a workspace that nobody has named", format!("{workspace}{connection}workspace = 'other'\n")),
        ("a placeholder", format!("{workspace}{}", connection.replace("db.example", "<your-host>"))),
        ("a host with quotes", format!("{workspace}{}", connection.replace("db.example", "\"db.example\""))),
        (
            "the address of the workspace as the database's",
            format!("{workspace}{}", connection.replace("db.example", "dbc-1.cloud.databricks.com")),
        ),
        ("a secret without a client", format!("{workspace}client_secret_file = '/nowhere/secret'\n{connection}")),
        ("one file for two things", format!("{workspace}{connection}token_file = '~/.pgpass'\n")),
        ("a time that is none", format!("interval = 'often'\n{workspace}{connection}")),
    ] {
        all.heading(what);
        home.write(CONFIG, text, 0o600);
        all.note(&typed(&home, "rotate").run());
    }
    all.ends("configuration");
}

/// A configuration with a service principal whose secret is in a file.
fn configure(home: &Home, workspace: &Workspace) {
    home.watch(workspace);
    let secret = home.write("secret", workspace.client_secret(), 0o600);
    let text = format!(
        "[[workspace]]\nhost = '{}'\nclient_id = '{}'\nclient_secret_file = '{}'\n\
         [[connection]]\nname = 'orders'\nhost = 'db.example'\n[[connection]]\nname = 'sales'\nhost = 'sales.example'\n",
        workspace.url(),
        workspace.client_id(),
        secret.display()
    );
    home.write(CONFIG, text, 0o600);
}

#[test]
fn a_day_with_a_service_principal() {
    let (home, workspace) = (Home::new(), Workspace::start());
    configure(&home, &workspace);
    let mut all = Conversation::with(&home, &workspace);
    let typed = |words: &str| typed(&home, words).trusting(&workspace).run();
    all.heading("before the first rotation");
    for words in ["status", "config show", "config path"] {
        all.note(&typed(words));
    }
    all.heading("rotations");
    for words in ["rotate", "rotate --if-due", "rotate", "-q rotate", "status", "status sales", "status order", "check"]
    {
        all.note(&typed(words));
    }
    all.heading("one that nobody has configured");
    for words in ["token ordres", "exec ordres -- true", "status ordres", "rotate ordres"] {
        all.note(&typed(words));
    }
    all.heading("programs");
    for words in [
        "exec orders -- printenv PGHOST PGUSER PGDATABASE PGSSLMODE",
        "exec orders -- no-such-program",
        "exec orders -- false",
    ] {
        all.note(&typed(words));
    }
    all.ends("a-day");
}

#[test]
fn what_goes_wrong_with_the_workspace() {
    let (home, workspace) = (Home::new(), Workspace::start());
    configure(&home, &workspace);
    let mut all = Conversation::with(&home, &workspace);
    let trusting = |words: &str| typed(&home, words).trusting(&workspace).run();
    all.heading("an authority that this machine does not trust");
    all.note(&typed(&home, "rotate").run());
    for (what, fault) in [
        ("out of order", Fault::Status(503)),
        ("too many requests", Fault::Status(429)),
        ("the connection is closed", Fault::Reset),
        ("not found", Fault::Status(404)),
        ("forbidden", Fault::Status(403)),
    ] {
        all.heading(what);
        workspace.faults_on(Endpoint::Token).always(fault);
        all.note(&trusting("rotate --retry-for 0"));
    }
    workspace.faults_on(Endpoint::Token).clear();
    all.heading("a secret that is refused");
    home.write("secret", "dose-not-exist-0123456789", 0o600);
    all.note(&trusting("rotate"));
    all.note(&trusting("status"));
    all.note(&trusting("check"));
    all.heading("a secret that cannot be read");
    fs::remove_file(home.path("secret")).unwrap();
    all.note(&trusting("rotate"));
    all.heading("nobody listens");
    home.write("secret", workspace.client_secret(), 0o600);
    let config = home.read(CONFIG).replace(&workspace.url(), "https://localhost:1");
    home.write(CONFIG, config, 0o600);
    all.note(&trusting("rotate --retry-for 0"));
    all.ends("workspace-trouble");
}

#[test]
fn a_password_file_that_cannot_be_written() {
    let (home, workspace) = (Home::new(), Workspace::start());
    configure(&home, &workspace);
    let mut all = Conversation::with(&home, &workspace);
    let typed = |words: &str| typed(&home, words).trusting(&workspace).run();
    let password_file: PathBuf = home.path(".pgpass");
    all.heading("a directory");
    fs::create_dir(&password_file).unwrap();
    all.note(&typed("rotate"));
    all.note(&typed("status"));
    fs::remove_dir(&password_file).unwrap();
    all.heading("readable by others");
    home.write(".pgpass", "other:5432:*:bob:his\n", 0o644);
    all.note(&typed("check"));
    all.heading("a line that wins over ours in some programs");
    home.write(".pgpass", "*:*:*:*:old\n", 0o600);
    all.note(&typed("rotate"));
    all.ends("password-file");
}
