//! What `setup` does where nothing signs in yet: the browser is offered, beside the other ways.

use super::say;
use crate::cli::prompt::Person;
use crate::cli::{Fault, login, print};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::model::{AuthMethod, AuthType, Workspace};
use crate::typed::shell_word;

/// Lets a person log in in the browser, if nothing is set that signs in and they want that.
///
/// # Errors
/// Something is set and does not work, or nobody is there, or they want something else: `failure`, with what to do. Or the login has
/// failed.
pub(super) fn offer(config: &Config, workspace: &Workspace, failure: Failure, person: Person) -> Result<(), Fault> {
    if !lacks_a_sign_in(workspace, &failure) {
        return Err(failure.into());
    }
    let origin = shell_word(workspace.host().origin());
    if person != Person::AtTerminal {
        let hint = format!(
            "run `dbx-rotator login --workspace-url {origin}` in a terminal, or give a service principal: --client-id ID \
             --client-secret-file FILE; then run this again"
        );
        return Err(failure.hint(hint).into());
    }
    say(&format!("Nobody signs in to {} here yet: {failure}.", workspace.host().origin()))?;
    let by_cli = format!("databricks auth login --host {origin}");
    let by_client = "dbx-rotator setup --client-id ID --client-secret-file FILE";
    print::out(&format!(
        "How do you want to sign in?\n  \
           1  in the browser, as yourself, now\n  \
           2  with the Databricks CLI: run `{by_cli}`, then this again\n  \
           3  as a service principal: run `{by_client}`\n"
    ))?;
    let command = person.ask_for("Which?", "1", |answer| match answer {
        "1" | "browser" => Ok(None),
        "2" => Ok(Some(format!("run `{by_cli}`, then `dbx-rotator setup` again"))),
        "3" => Ok(Some(format!("run `{by_client}`; docs/signing-in.md has the ways without a secret"))),
        _ => Err("give 1, 2 or 3".to_owned()),
    })?;
    match command {
        None => login::in_between(config, workspace),
        Some(hint) => Err(Failure::permanent(failure.code, "nothing was changed").hint(hint).into()),
    }
}

/// Whether nothing is set that could sign in, and no tool of the vendor's has a login.
fn lacks_a_sign_in(workspace: &Workspace, failure: &Failure) -> bool {
    let by_a_person = matches!(workspace.auth, AuthType::Chain | AuthType::Only(AuthMethod::ExternalBrowser));
    let needs_a_login = matches!(failure.code, Code::LoginNeeded | Code::Configuration) && !failure.is_transient();
    by_a_person && workspace.client.is_none() && workspace.means.is_none() && needs_a_login
}
