//! `dbx-rotator login` and `logout`: the only commands that a browser has to do with.
//!
//! Invariants: nobody is asked to log in by a program in the background; and the address of the page, which whoever has it could finish
//! the login at, is shown on the terminal and in no program's arguments.

mod browser;
mod typed;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use rustix::termios::tcgetpgrp;

use self::typed::TypedLines;
use super::arguments::LoginOptions;
use super::prompt::{Person, yes_or_no};
use super::{Fault, block_on, print};
use crate::auth::external_browser::{self, Consent, Login, Loopback, PORTS, Page, Place, Redirected, Visitor};
use crate::config::{Config, ConfigError, Overrides};
use crate::failure::{Code, Failure};
use crate::http::WorkspaceClient;
use crate::model::{AuthMethod, AuthType, Workspace};
use crate::os::dirs::Environment;
use crate::os::keyring::{self, Ask};

/// The variable that fixes the port, as for the vendor's tools (databricks-sdk-go, config.go).
const PORT: &str = "DATABRICKS_OAUTH_CALLBACK_PORT";

/// How long a person has, where no option says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

pub(super) fn login(options: &LoginOptions, overrides: &Overrides) -> Result<u8, Fault> {
    in_the_foreground()?;
    let config = configured(overrides)?;
    log_in(options, choose(&config, options.workspace.as_deref())?, &config)?;
    Ok(0)
}

/// The same in the middle of another command, whose questions come after it.
pub(super) fn in_between(config: &Config, workspace: &Workspace) -> Result<(), Fault> {
    in_the_foreground()?;
    log_in(&LoginOptions { workspace: None, file: false, no_browser: false, timeout: TIMEOUT }, workspace, config)
}

fn log_in(options: &LoginOptions, workspace: &Workspace, config: &Config) -> Result<(), Fault> {
    let login = Login::of(workspace, &config.environment);
    let place = if options.file { Place::File } else { place(&config.environment)? };
    let user = block_on(by_browser(options, workspace, &login, place, &config.environment))??;
    let (origin, user) = (workspace.host().origin(), user.unwrap_or_else(|| "an unknown identity".to_owned()));
    let place = match place {
        Place::Keyring => format!("the {}", keyring::NAME),
        Place::File => login.token_file().display().to_string(),
    };
    print::out(&print::line(&format!("Logged in to {origin} as {user}. The login is kept in {place}.")))?;
    for sentence in advice(workspace, config, options.file) {
        print::warning(&sentence);
    }
    Ok(())
}

pub(super) fn logout(workspace: Option<&str>, overrides: &Overrides) -> Result<u8, Fault> {
    let config = configured(overrides)?;
    let workspace = choose(&config, workspace)?;
    let origin = workspace.host().origin();
    let said = match block_on(Login::of(workspace, &config.environment).forget())?? {
        Some(kept) => {
            let whose = kept.user.map_or_else(String::new, |user| format!(" of {user}"));
            format!("Forgot the login{whose} to {origin}")
        }
        None => format!("Nobody has logged in to {origin} here"),
    };
    print::news(&print::line(&said))?;
    Ok(0)
}

fn configured(overrides: &Overrides) -> Result<Config, ConfigError> {
    let config = Config::load_workspaces(overrides)?;
    config.warnings().iter().for_each(|warning| print::warning(warning));
    Ok(config)
}

/// The workspace with this name, or the only one.
fn choose<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c Workspace, Fault> {
    let names = || config.workspaces().iter().map(Workspace::name).take(20).collect::<Vec<_>>().join(", ");
    match (name, config.workspaces()) {
        (None, [one]) => Ok(one),
        (None, _) => Err(ConfigError::usage("there are several workspaces")
            .hint(format!("name one with --workspace: {}", names()))
            .into()),
        (Some(name), all) => all.iter().find(|workspace| workspace.name() == name).ok_or_else(|| {
            let error = ConfigError::usage(format!("there is no workspace named {name}"));
            error.hint(format!("the workspaces there are: {}", names())).into()
        }),
    }
}

/// Nothing in the background asks anybody anything.
fn in_the_foreground() -> Result<(), ConfigError> {
    let stderr = std::io::stderr();
    let is_in_front = || tcgetpgrp(&stderr).is_ok_and(|group| group == rustix::process::getpgrp());
    if stderr.is_terminal() && is_in_front() {
        return Ok(());
    }
    Err(ConfigError::usage("a login needs a person at a terminal, and nobody is there").hint("run it in a terminal"))
}

/// The keyring; where there is none, a file if the person agrees.
fn place(environment: &Environment) -> Result<Place, Fault> {
    let Err(failure) = keyring::make_ready(environment, Ask::Person) else { return Ok(Place::Keyring) };
    if !std::io::stdin().is_terminal() {
        return Err(failure.hint("dbx-rotator login --file keeps the login in a file that only you can read").into());
    }
    print::out(&print::line(&format!("The login cannot be kept in the {}: {failure}.", keyring::NAME)))?;
    let question = "Keep it in a file that only you can read? Root and backups can read it, too (y/n)";
    if Person::AtTerminal.ask_for(question, "n", yes_or_no)? {
        return Ok(Place::File);
    }
    let hint = format!(
        "run it again once the {} works, or agree to the file; docs/signing-in.md has the other ways to sign in",
        keyring::NAME
    );
    Err(ConfigError::usage("nobody was logged in: there is no place to keep the login in").hint(hint).into())
}

/// Logs in; returns whose the login is.
async fn by_browser(
    options: &LoginOptions,
    workspace: &Workspace,
    login: &Login,
    place: Place,
    environment: &Environment,
) -> Result<Option<String>, Fault> {
    let http = WorkspaceClient::new(&workspace.host, workspace.ca_file.as_deref(), workspace.route());
    let ports = match environment.get(PORT) {
        Some(text) => fixed_port(text).map(|port| port..=port)?,
        None => PORTS,
    };
    let loopback = Loopback::open(ports).await?;
    let consent = Arc::new(external_browser::begin(workspace, &http, &loopback).await?);
    let opens = !options.no_browser && browser::open(&loopback.start(), environment);
    show(workspace, &consent, &loopback, opens)?;
    let back = async {
        tokio::select! {
            back = loopback.wait(Arc::clone(&consent)) => back,
            pasted = pasted(&consent) => (pasted, Visitor::nobody()),
        }
    };
    let Ok((redirected, visitor)) = tokio::time::timeout(options.timeout, back).await else {
        return Err(nobody_came(options.timeout).into());
    };
    let finished = match redirected {
        Redirected::Code(code) => external_browser::finish(login, &consent, &http, &code, place).await,
        Redirected::Refused(failure) => Err(failure),
        Redirected::Foreign(why) => Err(Failure::transient(Code::TryAgain, why)),
    };
    match &finished {
        Ok(_) => visitor.show(Page::Done).await,
        Err(failure) => visitor.show(Page::Failed(&failure.message)).await,
    }
    Ok(finished?)
}

fn fixed_port(text: &str) -> Result<u16, ConfigError> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| {
        ConfigError::new(format!("${PORT}: `{text}` is not a port")).hint("set a number from 1 to 65535")
    })
}

fn show(workspace: &Workspace, consent: &Consent, loopback: &Loopback, opens: bool) -> Result<(), Failure> {
    let origin = workspace.host().origin();
    let first = if opens {
        format!("The browser opens to log you in to {origin}. If it does not, open this address yourself:")
    } else {
        format!("To log in to {origin}, open this address in a browser:")
    };
    print::out(&print::line(&first))?;
    // Not shortened or changed: it is to be copied.
    print::exactly(&format!("\n{}\n\n", consent.address()))?;
    print::out(&format!(
        "If that browser runs on another machine, it ends at an address that begins with {} and cannot be shown:\n\
         paste that address here. Ctrl-C stops.\n",
        loopback.redirect()
    ))
}

fn nobody_came(after: Duration) -> Failure {
    let time = print::duration(SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX));
    Failure::transient(Code::TryAgain, format!("nobody has logged in within {time}"))
        .hint("run it again; --timeout gives more time")
}

/// What a person pastes, once it is the answer to this login. For ever if nobody can paste anything.
async fn pasted(consent: &Consent) -> Redirected {
    let mut lines = TypedLines::begin();
    while let Some(line) = lines.next().await {
        match consent.read(&line) {
            _ if line.trim().is_empty() => {}
            Redirected::Foreign(why) => print::warning(&format!(
                "that is not the address at which the browser ended ({why}): copy all of it from the address bar"
            )),
            ours => return ours,
        }
    }
    std::future::pending().await
}

/// What may keep this login from being used.
fn advice(workspace: &Workspace, config: &Config, in_file: bool) -> Vec<String> {
    let mut all = Vec::new();
    let other = match (workspace.auth, &workspace.client) {
        (AuthType::Only(AuthMethod::ExternalBrowser), _) => None,
        (AuthType::Only(method), _) => Some(format!("auth = \"{}\" is set", method.word())),
        (AuthType::Chain, Some(_)) => Some("a service principal is set, and comes first".to_owned()),
        (AuthType::Chain, None) => {
            let means = workspace.means.as_ref();
            means.map(|means| format!("the settings of {} are there, and come first", means.method().word()))
        }
    };
    all.extend(other.map(|why| {
        let name = workspace.name();
        format!("the workspace {name} does not sign in with this login: {why}; write auth = \"external-browser\"")
    }));
    let service = if in_file { None } else { crate::service::look(&config.environment) };
    all.extend(service.filter(|service| service.scope == crate::service::Scope::System || service.lingering == Some(true)).map(
        |service| {
            let name = keyring::NAME;
            format!(
                "{} runs while you are logged out, when the {name} is out of its reach: log in with --file to let it renew the \
                 passwords then, too",
                service.unit
            )
        },
    ));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_fixed_is_a_port() {
        assert_eq!(fixed_port("8021").unwrap(), 8021);
        for text in ["0", "65536", "x", "-1", "80 20"] {
            assert!(fixed_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_person_waits_five_minutes_unless_told_otherwise() {
        assert!(nobody_came(TIMEOUT).message.ends_with("within 5 min"));
        let soon = nobody_came(Duration::from_secs(12));
        assert!(soon.is_transient() && soon.message.ends_with("within 12 s"), "{soon}");
    }
}
