//! Sign-in with the vendor's CLI, after a person has logged in: `databricks auth token`.
//!
//! The CLI returns the same token until less than 5 minutes are left (databricks-sdk-go, u2m/persistent_auth.go), so the expiry
//! that it returns is what counts. The child gets no terminal, no secret, its own time limit, and an environment that cannot
//! redirect it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::cli_texts::{Meaning, is_legacy_script, meaning};
use super::endpoint::HostMetadata;
use super::runs::Login;
use super::{Needs, SignedIn};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::http::WorkspaceClient;
use crate::model::token::{Claims, Token, is_publishable};
use crate::model::{AuthMethod, OWN_ADDRESS, Workspace};
use crate::os::child::{self, Ran, candidates, is_executable};
use crate::os::clock::{Anchor, Reading, anchor_with_issue};
use crate::os::dirs::Environment;
use crate::os::zone;
use crate::proxies::{EXCEPTION_VARIABLES, PROXY_VARIABLES};
use crate::typed::shell_word;
use crate::words;

/// Only the first lines of the output are searched for the answer.
const MOST_LINES: usize = 100;

const INSTALL_HINT: &str = "run `dbx-rotator login`; or install the Databricks CLI (0.205 or newer) and run `databricks auth login`; or configure a service principal";

/// Signs in. If the CLI returns a token that is already due, it is asked to refresh it.
///
/// # Errors
/// Permanent: no CLI, no login, a setting. Transient: network, a CLI that hangs or fails.
pub(crate) async fn sign_in(
    workspace: &Workspace,
    http: &WorkspaceClient<'_>,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let cli = Cli {
        program: find(workspace, environment)?,
        http,
        workspace,
        environment,
        limit: needs.limit,
        now: needs.now,
    };
    let known = Anchor::new(needs.now, &Reading::now());
    let now = |anchor: &Option<Anchor>| anchor.as_ref().map_or(needs.now, |anchor| anchor.server);
    let is_due = |token: &Token, anchor: &Option<Anchor>| {
        // The caller compares with the time that it knew.
        let ahead = now(anchor).duration_since(needs.now);
        let by_caller = |at: Timestamp| at.saturating_sub(ahead).unwrap_or(at);
        (needs.is_due)(by_caller(token.issued_at), by_caller(token.expires_at))
    };
    let mut token = cli.token(false).await?;
    let mut anchor = told_of_clock(http, &token, &known, needs).await;
    let mut trouble = None;
    if is_due(&token, &anchor) {
        match cli.token(true).await {
            Ok(fresh) if fresh.expires_at >= token.expires_at => {
                token = fresh;
                anchor = told_of_clock(http, &token, &known, needs).await.or(anchor);
            }
            Ok(_) => {}
            // An old CLI does not know the option; without it, the token lasts until its expiry. A lost login must be
            // reported.
            Err(failure) if failure.is_transient() => {
                tracing::debug!("`databricks auth token --force-refresh` did not help: {failure}");
            }
            Err(failure) => trouble = Some(failure),
        }
    }
    if token.expires_at <= now(&anchor) {
        return Err(Failure::transient(
            Code::Unavailable,
            "the Databricks CLI handed out a token that has already expired",
        )
        .hint(format!("run `{}`; if that does not help, check this machine's clock", cli.login_command())));
    }
    let repeated = is_due(&token, &anchor);
    Ok(SignedIn { anchor, trouble, repeated, ..SignedIn::of(token) })
}

/// The workspace's clock, if the token shows that the known one is wrong. For an expired token the workspace is asked, since this
/// machine's clock may be wrong.
async fn told_of_clock(http: &WorkspaceClient<'_>, token: &Token, known: &Anchor, needs: &Needs<'_>) -> Option<Anchor> {
    if token.expires_at <= needs.now
        && let Some(anchor) = http.ask_time(needs.limit).await
    {
        return Some(anchor);
    }
    let issued_at = token.claims.as_ref()?.issued_at.filter(|issued| *issued < token.expires_at)?;
    anchor_with_issue(Some(known.clone()), issued_at, &Reading::now()).filter(|best| best != known)
}

// ---- finding the program ----

/// The CLI's absolute path: as configured, else the first on PATH or in the usual places, except the legacy Python CLI of
/// the same name.
fn find(workspace: &Workspace, environment: &Environment) -> Result<PathBuf, Failure> {
    let bare = |path: &&PathBuf| path.components().count() == 1 && path.is_relative();
    let name = workspace.cli_path.as_ref().filter(bare).map_or(Path::new("databricks"), PathBuf::as_path);
    if let Some(path) = workspace.cli_path.as_ref().filter(|path| !bare(path)) {
        return if is_legacy(path) {
            Err(legacy(path))
        } else if !path.is_absolute() || !is_executable(path) {
            Err(Failure::permanent(Code::Configuration, format!("cli_path {} is not a program", path.display()))
                .hint("give the absolute path of the Databricks CLI, or leave it out"))
        } else {
            Ok(path.clone())
        };
    }
    let mut skipped = None;
    for candidate in candidates(environment, name) {
        if !is_executable(&candidate) {
            continue;
        }
        if is_legacy(&candidate) {
            skipped.get_or_insert(candidate);
            continue;
        }
        return Ok(candidate);
    }
    Err(skipped.map_or_else(
        || {
            Failure::permanent(Code::Configuration, "the Databricks CLI is not installed, or not on PATH")
                .hint(INSTALL_HINT)
        },
        |path| legacy(&path),
    ))
}

/// The CLI's path, if a service would not find it because its PATH differs from a shell's.
pub(crate) fn off_the_usual_path(workspace: &Workspace, environment: &Environment) -> Option<PathBuf> {
    let found = find(workspace, environment).ok()?;
    let few: Environment =
        ["HOME"].iter().filter_map(|name| Some((*name, environment.get_os(name)?.clone()))).collect();
    (find(workspace, &few).ok().as_ref() != Some(&found)).then_some(found)
}

/// pip's databricks-cli (0.18 and older) installs a small Python script of this name, which has no `auth token`.
fn is_legacy(path: &Path) -> bool {
    const LARGEST_SCRIPT: u64 = 64 * 1024;
    let small = std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() <= LARGEST_SCRIPT);
    small && std::fs::read(path).is_ok_and(|text| is_legacy_script(&text))
}

fn legacy(path: &Path) -> Failure {
    Failure::permanent(
        Code::Configuration,
        format!("{} is the legacy CLI (pip's databricks-cli), which cannot hand out tokens", path.display()),
    )
    .hint(format!("{INSTALL_HINT}; `pip uninstall databricks-cli` removes the old one"))
}

// ---- one run ----

struct Cli<'a> {
    program: PathBuf,
    http: &'a WorkspaceClient<'a>,
    workspace: &'a Workspace,
    environment: &'a Environment,
    /// How long to wait for its answer; the CLI itself may take longer.
    limit: Duration,
    now: Timestamp,
}

impl Cli<'_> {
    async fn token(&self, force: bool) -> Result<Token, Failure> {
        let token = self.run(force).await?;
        self.refuse_other_workspace(&token).await?;
        Ok(token)
    }

    async fn run(&self, force: bool) -> Result<Token, Failure> {
        if let Some(failure) = self.http.closed_by_proxy() {
            return Err(failure);
        }
        let ended = self.login().run(force, self.limit).await.map_err(|waited| {
            let seconds = waited.as_secs_f32().ceil();
            let message = format!("the Databricks CLI has not answered within {seconds} s; it may still finish");
            Failure::transient(Code::Unavailable, message).hint("what it brings is used when it is asked again")
        })?;
        match &ended.ran {
            Ok(Some(ran)) if ran.status.success() => self.read(&ran.stdout),
            Ok(Some(ran)) => Err(self.failed(ran)),
            Ok(None) => {
                let (program, seconds) = (self.program.display(), ended.limit.as_secs());
                let message = format!("{program} did not finish within {seconds} s and was ended");
                Err(Failure::transient(Code::Unavailable, message)
                    .hint("run `databricks auth token` by hand: a keyring may be locked, or the network out of reach"))
            }
            Err(error) => {
                let message = format!("cannot run {}: {}", self.program.display(), words::of_io(error));
                Err(Failure::transient(Code::Unavailable, message).hint(INSTALL_HINT))
            }
        }
    }

    fn login(&self) -> Login {
        let mut arguments: Vec<OsString> = vec!["auth".into(), "token".into()];
        arguments.extend(match &self.workspace.profile {
            Some(profile) => ["--profile".into(), profile.into()],
            None => ["--host".into(), self.workspace.host.origin().into()],
        });
        arguments.extend(["--output".into(), "json".into()]);
        Login { program: self.program.clone(), arguments, environment: self.child_environment() }
    }

    /// What the child needs, without anything that could redirect it to another workspace or identity, or that is not meant
    /// for it.
    fn child_environment(&self) -> Vec<(OsString, OsString)> {
        const KEPT: [&str; 2] = ["DATABRICKS_CONFIG_FILE", "DATABRICKS_AUTH_STORAGE"];
        let absolute = |(name, value): (OsString, OsString)| match std::path::absolute(&value) {
            // The child has another current directory.
            Ok(path) if name == "DATABRICKS_CONFIG_FILE" && !value.is_empty() => (name, path.into_os_string()),
            _ => (name, value),
        };
        let inherited = child::inherited(self.environment, &KEPT).into_iter().map(absolute);
        // The proxy that is in use here, wherever it is set: the same settings may be read in another way by it.
        let ours = |name: &OsString| PROXY_VARIABLES.iter().chain(&EXCEPTION_VARIABLES).any(|ours| name == ours);
        let proxies =
            self.workspace.proxies.variables().into_iter().map(|(name, value)| (name.into(), value.as_str().into()));
        inherited.filter(|(name, _)| !ours(name)).chain(proxies).collect()
    }

    fn login_command(&self) -> String {
        match &self.workspace.profile {
            Some(profile) => format!("databricks auth login --profile {}", shell_word(profile)),
            None => format!("databricks auth login --host {}", shell_word(self.workspace.host.origin())),
        }
    }

    // ---- its answer ----

    fn read(&self, stdout: &[u8]) -> Result<Token, Failure> {
        let nonsense = |what: &str| {
            Failure::transient(Code::Unavailable, format!("{} {what}", self.program.display()))
                .hint("run `databricks auth token` by hand")
        };
        let (secret, told) = match (json_among_lines::<Answer>(stdout), bare_token(stdout)) {
            (Some(answer), _) => (answer.access_token, answer.expiry.as_deref().and_then(parse_expiry)),
            (None, Some(token)) => (SecretString::from(token), None),
            (None, None) => return Err(nonsense("printed something that is no token")),
        };
        // The token's own expiry comes from the workspace; the CLI's is by this machine's clock.
        let own = Claims::of(secret.expose_secret()).and_then(|claims| claims.expires_at);
        let told = if own.is_none() { told.and_then(|told| self.by_the_workspace(told)) } else { None };
        if !is_publishable(secret.expose_secret()) {
            return Err(nonsense("printed a token that cannot stand in a password file"));
        }
        Token::new(secret, told, self.now, AuthMethod::DatabricksCli)
            .ok_or_else(|| nonsense("printed a token that does not say when it expires"))
    }

    /// Converts a time from this machine's clock to the workspace's.
    fn by_the_workspace(&self, here: Timestamp) -> Option<Timestamp> {
        self.now.checked_add(here.duration_since(Timestamp::now())).ok()
    }

    /// A token of another workspace must not be sent to this one. Its audience decides, where the workspace's id is set or its host
    /// tells it; else its issuer, which may be another name of the same workspace. (A CLI before 0.207.1 takes `--profile` and
    /// ignores it: databricks/cli, cmd/auth/token.go.)
    async fn refuse_other_workspace(&self, token: &Token) -> Result<(), Failure> {
        let Some(claims) = &token.claims else { return Ok(()) };
        let host = self.workspace.host.name();
        let is_id = |text: &&String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let of = match (&self.workspace.workspace_id, claims.audience.iter().find(is_id)) {
            (Some(wanted), Some(_)) if claims.audience.contains(wanted) => return Ok(()),
            (Some(_), Some(other)) => format!("workspace {}", quoted(other)),
            _ => {
                let issuer = claims.issuer.as_deref().and_then(|issuer| url::Url::parse(issuer).ok());
                let Some(other) = issuer.as_ref().and_then(url::Url::host_str) else { return Ok(()) };
                if other.eq_ignore_ascii_case(host) || self.is_meant(claims).await? {
                    return Ok(());
                }
                quoted(other)
            }
        };
        let wanted = self.workspace.workspace_id.as_ref().map_or_else(String::new, |id| format!(" (workspace {id})"));
        let message = format!("the Databricks CLI handed out a token of {of} for {host}{wanted}");
        Err(Failure::permanent(Code::Configuration, message).hint(
            "check the profile, and the host and its ?o=WORKSPACE_ID, which says which workspace is meant where it has \
             several names; a CLI older than 0.207.1 ignores --profile and must be upgraded",
        ))
    }

    /// Whether the host that a person configured says that it is who this token is for.
    async fn is_meant(&self, claims: &Claims) -> Result<bool, Failure> {
        let metadata = HostMetadata::ask(self.http, self.limit).await?;
        Ok(metadata.is_some_and(|metadata| metadata.is_meant_by(&claims.audience)))
    }

    /// By the texts of [`super::cli_texts`]. What is unknown may be the network and is tried again.
    fn failed(&self, ran: &Ran) -> Failure {
        let json = json_among_lines::<JsonFailure>(&ran.stdout);
        let stderr = String::from_utf8_lossy(&ran.stderr);
        let said = json.as_ref().map_or(stderr.as_ref(), |json| json.message.as_str());
        let code = json.as_ref().map_or("", |json| json.error_code.as_str());
        let quote = quoted(said.trim().trim_start_matches("Error: "));
        let quote = if quote.is_empty() { format!("it ended with {}", words::of_end(ran.status)) } else { quote };
        match meaning(&format!("{said}\n{stderr}"), code) {
            Meaning::Legacy => legacy(&self.program),
            Meaning::BrokenCache => {
                let message = format!("the Databricks CLI cannot read the file of its logins: {quote}");
                Failure::permanent(Code::LoginNeeded, message).hint(self.cure_of_the_cache())
            }
            Meaning::LoginNeeded => {
                Failure::permanent(Code::LoginNeeded, format!("the Databricks CLI has no live login: {quote}"))
                    .hint(format!("run `{}`", self.login_command()))
            }
            Meaning::Profile => Failure::permanent(
                Code::Configuration,
                format!("the Databricks CLI cannot tell which login is meant: {quote}"),
            )
            .hint("name the profile: --profile NAME, or profile = \"NAME\" in [[workspace]]"),
            Meaning::NoWorkspace => {
                let message =
                    format!("the Databricks CLI has no sign-in for {}: {quote}", self.workspace.host.origin());
                Failure::permanent(Code::Configuration, message).hint(OWN_ADDRESS)
            }
            Meaning::Keyring => {
                Failure::transient(Code::Unavailable, format!("the Databricks CLI cannot reach the keyring: {quote}"))
                    .hint("unlock it, or log in again with DATABRICKS_AUTH_STORAGE=plaintext")
            }
            Meaning::Proxy => self.http.note_refusal_by_proxy().unwrap_or_else(|| {
                Failure::permanent(Code::SignInRefused, format!("a proxy refuses the Databricks CLI: {quote}"))
                    .hint("set HTTPS_PROXY, with the user name and password that the proxy wants")
            }),
            Meaning::Unknown => Failure::transient(Code::Unavailable, format!("the Databricks CLI failed: {quote}"))
                .hint(format!("if it stays so, run `{}`", self.login_command())),
        }
    }

    /// A login also reads the file, and fails while the broken file is there.
    fn cure_of_the_cache(&self) -> String {
        let file = self.environment.databricks_token_cache().unwrap_or_else(|| PathBuf::from("token-cache.json"));
        format!("move {} away, then run `{}`", file.display(), self.login_command())
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: SecretString,
    expiry: Option<String>,
}

#[derive(Deserialize)]
struct JsonFailure {
    error_code: String,
    message: String,
}

/// The first JSON object of this form that begins a line: wrappers, shells and update notices print other lines.
fn json_among_lines<T: for<'de> Deserialize<'de>>(printed: &[u8]) -> Option<T> {
    let mut rest = printed;
    for _ in 0..MOST_LINES {
        let start = rest.trim_ascii_start();
        let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
        if start.starts_with(b"{")
            && let Some(Ok(found)) = serde_json::Deserializer::from_slice(start).into_iter::<T>().next()
        {
            return Some(found);
        }
        rest = start.splitn(2, |byte| *byte == b'\n').nth(1)?;
    }
    None
}

/// A token alone on a line, as versions without JSON output print it.
fn bare_token(printed: &[u8]) -> Option<&str> {
    let lines = printed.split(|byte| *byte == b'\n').take(MOST_LINES).map(<[u8]>::trim_ascii);
    lines.filter(|line| line.starts_with(b"eyJ")).find_map(|line| std::str::from_utf8(line).ok())
}

/// RFC 3339 with any offset, or the older forms with a blank and no zone, which are local time; year 1 means "unknown".
fn parse_expiry(text: &str) -> Option<Timestamp> {
    let instant = text.parse::<Timestamp>().ok().or_else(|| {
        let local: jiff::civil::DateTime = text.parse().ok()?;
        Some(local.to_zoned_datetime(zone::local()).ok()?.timestamp())
    })?;
    (instant > Timestamp::UNIX_EPOCH).then_some(instant)
}

/// What a run with this exit code and output means, for [`crate::fuzzing`].
#[cfg(any(test, fuzzing))]
pub(super) fn judge(code: i32, stdout: &[u8], stderr: &[u8]) -> Result<Token, Failure> {
    use std::os::unix::process::ExitStatusExt;
    let workspace = Workspace::for_fuzzing();
    let (program, environment) = (PathBuf::from("/databricks"), Environment::default());
    let http = WorkspaceClient::new(&workspace.host, None, workspace.route());
    let cli = Cli {
        program,
        http: &http,
        workspace: &workspace,
        environment: &environment,
        limit: Duration::ZERO,
        now: Timestamp::UNIX_EPOCH,
    };
    let status = std::process::ExitStatus::from_raw(code << 8);
    let ran = Ran { status, stdout: stdout.to_vec().into(), stderr: stderr.to_vec().into() };
    if ran.status.success() { cli.read(&ran.stdout) } else { Err(cli.failed(&ran)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "{\n  \"access_token\": \"opaque-4711\",\n  \"expiry\": \"2099-01-01T00:00:00Z\"\n}";

    #[test]
    fn lines_before_and_after_the_answer_are_no_part_of_it() {
        let notes: [&[u8]; 5] =
            [b"", b"A new version is available!\n", b"{not json}\n", b"\xef\xbb\xbf", b"caf\xe9 {\"x\": 1}\n{}\n"];
        for before in notes {
            for after in ["", "\n", "\r\nbye {\n", "\n{\"access_token\": \"another\"}"] {
                let printed = [before, ANSWER.as_bytes(), after.as_bytes()].concat();
                let token = judge(0, &printed, b"").unwrap_or_else(|failure| panic!("{failure}: {before:?} {after:?}"));
                assert_eq!(token.secret.expose_secret(), "opaque-4711", "{before:?} {after:?}");
            }
        }
        let refused = b"note\n{\"error_code\": \"UNAUTHENTICATED\", \"message\": \"log in\"}\nbye";
        assert_eq!(judge(1, refused, b"").map(drop).unwrap_err().code, Code::LoginNeeded);
        assert!(judge(0, b"no token\n{}", b"").is_err());
    }

    #[test]
    fn a_file_of_logins_that_is_broken_is_not_mended_by_another_login_alone() {
        let failure = judge(1, b"", b"Error: cache: load: parse: invalid character '}'").map(drop).unwrap_err();
        assert!(!failure.is_transient() && failure.code == Code::LoginNeeded);
        let hint = failure.hint.unwrap();
        assert!(hint.contains("token-cache.json away, then run `databricks auth login"), "{hint}");
    }

    #[test]
    fn expiries_of_every_cli_are_read() {
        let second = |text: &str| parse_expiry(text).map(Timestamp::as_second);
        assert_eq!(second("2026-01-01T02:00:00.123456789+02:00"), Some(1_767_225_600));
        assert_eq!(second("2026-01-01T00:00:00Z"), Some(1_767_225_600));
        assert!(second("2026-01-01 00:00:00").is_some());
        assert_eq!(second("0001-01-01T00:00:00Z"), None);
        assert_eq!(second("soon"), None);
    }
}
