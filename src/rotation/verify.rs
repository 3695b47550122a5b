//! Whether a token may become a connection's password: its identity and its workspace must be the right ones.

use crate::auth::SignedIn;
use crate::failure::{Code, Failure};
use crate::model::AuthMethod;
use crate::model::token::Token;
use crate::model::{Connection, Workspace, names_an_identity, same_identity};

/// Checks a sign-in's result for one connection: `fresh` is the access token itself, or what was minted with it.
///
/// # Errors
/// Permanent: it belongs to another identity or another workspace.
pub(crate) fn verify(
    connection: &Connection,
    workspace: &Workspace,
    signed_in: &SignedIn,
    fresh: &Token,
) -> Result<(), Failure> {
    same_workspace(workspace, signed_in)?;
    let user = user_of(connection);
    let subject = subject_of(signed_in, fresh);
    if connection.any_identity || subject.is_some_and(|subject| same_identity(subject, user)) {
        return Ok(());
    }
    // Whoever set both wants this client's token. Nobody asked for a fallback's, or another identity's.
    if signed_in.instead_of.is_none() && subject.is_some_and(|subject| is_chosen_client(connection, subject)) {
        return Ok(());
    }
    let unproven = if signed_in.instead_of.is_some() { true } else { subject.is_some() && names_an_identity(user) };
    if !unproven {
        return Ok(());
    }
    let whose = subject.unwrap_or("an unknown identity");
    let message = format!("the token of {whose} cannot log in as {user} (connection {})", connection.name);
    Err(Failure::permanent(Code::IdentityMismatch, message).hint(hint(signed_in.token.method)))
}

/// The identity of a credential: the one that it names, or else the one that signed in for it.
pub(crate) fn subject_of<'s>(signed_in: &'s SignedIn, fresh: &'s Token) -> Option<&'s str> {
    fresh.subject().filter(|subject| names_an_identity(subject)).or_else(|| signed_in.token.subject())
}

/// The warning about publishing a client's credential under a user of another name; none if the one `before` was already that
/// client's.
pub(crate) fn remark(connection: &Connection, subject: Option<&str>, before: Option<&str>) -> Option<String> {
    let is_client = |subject: &str| is_chosen_client(connection, subject);
    let is_news = subject.is_some_and(is_client) && !before.is_some_and(is_client);
    is_news.then(|| connection.remark_on_client()).flatten()
}

fn is_chosen_client(connection: &Connection, subject: &str) -> bool {
    connection.chosen_client.as_ref().is_some_and(|client| same_identity(client, subject))
}

fn user_of(connection: &Connection) -> &str {
    connection.key.as_ref().map(crate::pgpass::Key::user).or(connection.address.user.as_deref()).unwrap_or_default()
}

fn hint(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::OauthM2m => {
            "the user of a service principal is its client id; if this user is a role that it may use, set any_identity = true (--any-identity)"
        }
        AuthMethod::ExternalBrowser => {
            "log in as that user (dbx-rotator login), or set the user to your own e-mail; if it is a role that you may use, set any_identity = true (--any-identity)"
        }
        AuthMethod::DatabricksCli => {
            "log in with the CLI as that user, or set the user to your own e-mail; if it is a role that you may use, set any_identity = true (--any-identity)"
        }
        _ => {
            "set the user to the identity that signs in; if it is a role that this identity may use, set any_identity = true (--any-identity)"
        }
    }
}

/// Whether a token found in the password file can be the connection's own.
pub(crate) fn could_be(connection: &Connection, subject: Option<&str>) -> bool {
    let user = user_of(connection);
    let names_another = |subject: &str| {
        names_an_identity(subject) && !same_identity(subject, user) && !is_chosen_client(connection, subject)
    };
    connection.any_identity || !names_an_identity(user) || !subject.is_some_and(names_another)
}

/// Whether a token of the vendor's CLI, which belongs to a person, could serve: never if the user is the client id
/// itself.
pub(crate) fn a_person_can_serve(connection: &Connection, workspace: &Workspace) -> bool {
    let is_client = workspace.client_id().is_some_and(|client| same_identity(client, user_of(connection)));
    connection.any_identity || !is_client
}

/// The audience of a workspace token is the workspace's id.
fn same_workspace(workspace: &Workspace, signed_in: &SignedIn) -> Result<(), Failure> {
    let Some(claims) = &signed_in.token.claims else { return Ok(()) };
    let is_id = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match &workspace.workspace_id {
        Some(wanted) if claims.audience.iter().any(is_id) && !claims.audience.contains(wanted) => {
            let message = format!("the token is for workspace {}, not for {wanted}", claims.audience.join(", "));
            Err(Failure::permanent(Code::Configuration, message)
                .hint("check the host, its ?o= and the profile's workspace_id"))
        }
        _ => Ok(()),
    }
}
