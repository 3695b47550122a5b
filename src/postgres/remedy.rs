//! What to do when a server refuses a login.

use super::Target;
use super::refusal::{Bar, Meaning, Refusal};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;

/// The server's words and the next step. `diagnosis` adds host and user.
pub(super) fn refused(refusal: &Refusal, target: &Target<'_>) -> Failure {
    let meaning = refusal.meaning();
    let said = said(refusal);
    let failure = match meaning {
        Meaning::NotAuthorized
        | Meaning::NoToken
        | Meaning::NoNativeLogin
        | Meaning::NoSuchRole
        | Meaning::Forbidden
        | Meaning::NoRightToConnect => Failure::permanent(Code::SignInRefused, said),
        Meaning::Pooler | Meaning::NoSuchDatabase => Failure::permanent(Code::Configuration, said),
        Meaning::Barred(_) => Failure::permanent(Code::Unavailable, said),
        Meaning::NotReady | Meaning::Starting | Meaning::Full | Meaning::Other => {
            Failure::transient(Code::Unavailable, said)
        }
    };
    failure.hint(hint(&meaning, refusal, target))
}

/// The server's words, with the code that people can search for.
fn said(refusal: &Refusal) -> String {
    let detail = refusal.detail.as_ref().map(|detail| format!(" ({})", quoted(detail))).unwrap_or_default();
    format!("{}{detail} [{}]", quoted(&refusal.message), quoted(&refusal.sqlstate))
}

fn hint(meaning: &Meaning, refusal: &Refusal, target: &Target<'_>) -> String {
    let words = match meaning {
        Meaning::NotAuthorized => {
            return format!(
                "the token must be live and that of {} itself, and the role one for this kind of identity: {}",
                target.user,
                creation(target.user),
            );
        }
        Meaning::NoNativeLogin | Meaning::NoSuchRole => {
            return format!(
                "the token must be live, and the role exist on this branch as a Databricks identity, which a plain \
                 CREATE ROLE is not: {}, or add it under Roles in the UI",
                creation(target.user),
            );
        }
        Meaning::NoRightToConnect => {
            let (database, user) = (quoted_name(target.database), quoted_name(target.user));
            return format!("let it in: GRANT CONNECT ON DATABASE {database} TO {user}");
        }
        Meaning::NotReady => return all_advice(&refusal.bars()),
        Meaning::NoToken => {
            "the password must be an OAuth token or a database credential of this workspace; a personal access token \
             (dapi...) is none"
        }
        Meaning::Pooler => "the pooler takes no tokens: give the host without -pooler",
        Meaning::Forbidden => "check that this is the role's database host, and that the role may log in",
        Meaning::NoSuchDatabase => "check the database's name: an instance comes with databricks_postgres",
        Meaning::Barred(bar) => advice(*bar),
        Meaning::Starting => "the server is starting or stopping; it is tried again",
        Meaning::Full => "close sessions that are idle, or give the instance more capacity",
        Meaning::Other => "it is tried again; if it stays so, look at the instance in the UI",
    };
    words.to_owned()
}

/// The statement that creates a role for an identity (extension databricks_auth).
fn creation(user: &str) -> String {
    let is_id = user.len() == 36 && user.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    let kind = match user {
        _ if is_id => "SERVICE_PRINCIPAL",
        _ if user.contains('@') => "USER",
        _ => "GROUP",
    };
    format!("SELECT databricks_create_role('{}', '{kind}')", user.replace('\'', "''"))
}

fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn advice(bar: Bar) -> &'static str {
    match bar {
        Bar::Paused => "start the instance, in the UI or with the Databricks CLI",
        Bar::ReadableSecondaries => {
            "enable readable secondaries for the instance, or give its read-write host (without -ro)"
        }
        Bar::IpAccessList => "have this machine's address added to the workspace's IP access list",
        Bar::PrivateLink => "connect from the network of the private link, or have public access allowed",
    }
}

fn all_advice(bars: &[Bar]) -> String {
    if bars.is_empty() {
        return "a new project needs some minutes until it takes tokens; if it stays so, look whether the instance is \
                running, and whether an IP access list or private link keeps this machine out"
            .to_owned();
    }
    let each: Vec<&str> = bars.iter().map(|bar| advice(*bar)).collect();
    format!("it is tried again; if it stays so: {}", each.join("; or "))
}

#[cfg(test)]
mod tests {
    use super::super::SslMode;
    use super::*;
    use crate::failure::Kind::{self, Permanent, Transient};

    const ID: &str = "0b1c2d3e-0000-4000-8000-00000000cafe";
    const EXTERNAL: &str = "External authorization failed";

    #[track_caller]
    fn is(refusal: [&str; 3], kind: Kind, code: Code, hint: &str) {
        let [sqlstate, message, detail] = refusal.map(str::to_owned);
        let refusal = Refusal { sqlstate, message, detail: (!detail.is_empty()).then_some(detail) };
        let (host, user, database) = ("db.example", "ada@example.com", "orders");
        let target = Target { host, port: 5432, database, user, sslmode: SslMode::Require, root: None };
        let failure = refused(&refusal, &target);
        assert_eq!((failure.kind, failure.code), (kind, code), "{failure}");
        for words in [&refusal.sqlstate, &refusal.message, refusal.detail.as_deref().unwrap_or_default()] {
            assert!(failure.message.contains(words), "{failure}");
        }
        let given = failure.hint.as_deref().unwrap_or_default();
        assert!(given.contains(hint), "{failure}: {given}");
    }

    #[test]
    fn what_is_wrong_with_role_token_or_setting_is_for_a_person() {
        for (refusal, hint) in [
            (["28000", "OAuth: User is not authorized", ""], "that of ada@example.com"),
            (["28P01", "Failed to decode token for role \"ada\"", ""], "dapi"),
            (["28P01", "native postgres login is disabled for this endpoint", ""], "plain CREATE ROLE"),
            (["28P01", "password authentication failed", ""], "under Roles in the UI"),
            (["28000", "role \"ada\" does not exist", ""], "databricks_create_role('ada@example.com', 'USER')"),
            (["28000", "no pg_hba.conf entry for host", ""], "may log in"),
            (["42501", "permission denied", ""], "GRANT CONNECT ON DATABASE \"orders\" TO \"ada@example.com\""),
        ] {
            is(refusal, Permanent, Code::SignInRefused, hint);
        }
        is(["08P01", "SASL authentication failed", ""], Permanent, Code::Configuration, "without -pooler");
        is(["3D000", "database \"orders\" does not exist", ""], Permanent, Code::Configuration, "databricks_postgres");
    }

    #[test]
    fn what_bars_the_way_is_for_a_person_once_it_is_known() {
        for (detail, hint) in [
            ("The instance is paused", "start the instance"),
            ("no readable secondaries", "without -ro"),
            ("blocked by IP ACL", "IP access list"),
            ("Private Link only", "network of the private link"),
        ] {
            is(["28000", EXTERNAL, detail], Permanent, Code::Unavailable, hint);
        }
        is(
            ["28000", EXTERNAL, "paused or IP ACL"],
            Transient,
            Code::Unavailable,
            "or with the Databricks CLI; or have",
        );
        is(["28000", EXTERNAL, ""], Transient, Code::Unavailable, "a new project");
    }

    #[test]
    fn what_passes_by_itself_is_tried_again() {
        for (refusal, hint) in [
            (["57P03", "the database system is starting up", ""], "starting"),
            (["53300", "too many connections", ""], "idle"),
            (["08006", "could not reach the compute", ""], "look at the instance"),
        ] {
            is(refusal, Transient, Code::Unavailable, hint);
        }
    }

    #[test]
    fn the_statement_that_makes_the_role_fits_the_identity() {
        assert_eq!(creation("ada@example.com"), "SELECT databricks_create_role('ada@example.com', 'USER')");
        assert_eq!(creation(ID), format!("SELECT databricks_create_role('{ID}', 'SERVICE_PRINCIPAL')"));
        assert_eq!(creation("ada's readers"), "SELECT databricks_create_role('ada''s readers', 'GROUP')");
    }
}
