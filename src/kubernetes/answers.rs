//! What the API server's errors mean. Of its text only names are used: a refused object is repeated in it, with all that it holds.

use serde::Deserialize;

use super::api::{Call, Kind};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::http::Answer;

/// How many of its causes are named.
const MOST_CAUSES: usize = 5;

/// A Status of the API (meta/v1), as far as it is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: Option<String>,
    details: Details,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    kind: Option<String>,
    causes: Vec<Cause>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: Option<String>,
    message: Option<String>,
    field: Option<String>,
}

/// A manager of fields with which an apply is in conflict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rival {
    pub(super) manager: String,
    /// It has changed the field by hand, as `kubectl edit` does, and does not apply it again and again.
    pub(super) has_updated: bool,
    field: String,
}

/// Whom an apply is in conflict with; none where this is another kind of conflict.
pub(super) fn rivals(answer: &Answer) -> Vec<Rival> {
    let causes = status(answer).details.causes.into_iter();
    let conflicts = causes.filter(|cause| cause.reason.as_deref() == Some("FieldManagerConflict"));
    let rival = |cause: Cause| {
        // `conflict with "NAME" using v1 at TIME`, and without the rest where it applies (apimachinery, managedfields/conflict.go).
        let rest = cause.message.as_deref()?.strip_prefix("conflict with \"")?;
        let (manager, how) = rest.split_once('"')?;
        let (manager, has_updated) = (manager.to_owned(), how.contains(" using "));
        Some(Rival { manager, has_updated, field: cause.field.unwrap_or_default() })
    };
    conflicts.filter_map(rival).collect()
}

/// The failure of an apply that somebody else's fields are in the way of.
pub(super) fn conflict(call: &Call<'_>, rivals: &[Rival]) -> Failure {
    let mut managers: Vec<&str> = rivals.iter().map(|rival| rival.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let fields: Vec<&str> = rivals.iter().map(|rival| rival.field.as_str()).take(MOST_CAUSES).collect();
    let message = format!(
        "cannot write {}: {} {} {} of it, and nothing is taken from others",
        call.what(),
        quoted(&managers.join(" and ")),
        if managers.len() == 1 { "owns" } else { "own" },
        quoted(&fields.join(" "))
    );
    Failure::permanent(Code::CannotWrite, message).hint(
        "give the connection a Secret of its own; or take these keys out of what that manager applies, and delete them from the Secret \
         once",
    )
}

/// What any other answer than a success means.
pub(super) fn failure(answer: &Answer, call: &Call<'_>, server: &str) -> Failure {
    let (what, verb) = (call.what(), call.does());
    if let Some(trouble) = answer.trouble(server) {
        return Failure { message: format!("cannot {verb} {what}: {trouble}"), ..trouble };
    }
    let permanent = |why: String| Failure::permanent(Code::CannotWrite, format!("cannot {verb} {what}: {why}"));
    match answer.status.as_u16() {
        401 => permanent(format!("{server} does not accept the token of the service account (401)")).hint(
            "it must be one for the API server itself (no `audience` of another in its projection), and its service account must still \
             be there",
        ),
        403 => permanent(format!("{} may not (403)", user(answer))).hint(missing_rule(call)),
        404 if is_about_namespace(answer) => permanent(format!("there is no namespace {} (404)", call.namespace))
            .hint("name the namespace where the Secret is to be, or create it"),
        404 => permanent("it is not there (404)".to_owned()).hint("apply the manifest that has it"),
        409 => {
            let message = format!("cannot {verb} {what}: somebody else changed it just now (409)");
            Failure::transient(Code::TryAgain, message)
        }
        400 | 422 => permanent(format!("{server} refuses what it would hold ({}){}", answer.status.as_u16(), fields(answer)))
            .hint("a policy of the cluster may forbid it, or it is of another type than Opaque: see `kubectl describe` of it"),
        status => {
            let message = format!("cannot {verb} {what}: {server} answered with status {status}");
            Failure::transient(Code::Unavailable, message)
        }
    }
}

/// The rule that a role lacks.
fn missing_rule(call: &Call<'_>) -> String {
    let Call { verb, kind, namespace, name } = call;
    let (group, resource) = (kind.group(), kind.resource());
    let start = format!("the Role in {namespace} must have apiGroups: [\"{group}\"], resources: [{resource}]");
    match (*verb, *kind) {
        ("create", _) => format!(
            "create the {} {name} first (an empty one will do); or {start}, verbs: [create], which no rule can restrict to one name",
            kind.word()
        ),
        (_, Kind::Secret) => format!(
            "{start}, resourceNames: [{name}], verbs: [get, patch]; if the Secret is not there, create it first (an empty one will do)"
        ),
        (_, Kind::Lease) => format!("{start}, resourceNames: [{name}], verbs: [get, update]"),
    }
}

/// Who the API server says that we are.
fn user(answer: &Answer) -> String {
    let message = status(answer).message.unwrap_or_default();
    let name = message.split_once("User \"").and_then(|(_, rest)| rest.split_once('"')).map(|(name, _)| name);
    name.map_or_else(|| "the service account".to_owned(), quoted)
}

fn is_about_namespace(answer: &Answer) -> bool {
    status(answer).details.kind.as_deref() == Some("namespaces")
}

/// Where the object is at fault; never with what.
fn fields(answer: &Answer) -> String {
    let causes = status(answer).details.causes;
    let fields: Vec<&str> = causes.iter().filter_map(|cause| cause.field.as_deref()).take(MOST_CAUSES).collect();
    if fields.is_empty() { String::new() } else { format!(": {}", quoted(&fields.join(" "))) }
}

fn status(answer: &Answer) -> Status {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Call<'static> = Call { verb: "patch", kind: Kind::Secret, namespace: "shop", name: "orders" };
    const LEASE: Call<'static> = Call { verb: "create", kind: Kind::Lease, namespace: "shop", name: "l" };

    fn said(status: u16, body: &str, call: &Call<'_>) -> (bool, String) {
        let failure = failure(&Answer::of(status, body.as_bytes()), call, "the API");
        (failure.is_transient(), format!("{failure} - {}", failure.hint.clone().unwrap_or_default()))
    }

    #[test]
    fn each_answer_says_what_is_missing_and_nothing_of_what_was_sent() {
        let forbidden =
            r#"{"message":"secrets \"orders\" is forbidden: User \"system:serviceaccount:shop:r\" cannot patch"}"#;
        let nowhere = r#"{"message":"namespaces \"shop\" not found","details":{"name":"shop","kind":"namespaces"}}"#;
        let invalid = r#"{"message":"Secret \"orders\" is invalid: data[password]: Invalid value: \"s3cret-and-long\"",
            "details":{"causes":[{"reason":"FieldValueInvalid","message":"Invalid value: \"s3cret-and-long\"","field":"data[password]"}]}}"#;
        for (status, body, call, transient, parts) in [
            (401, "{}", &SECRET, false, vec!["token of the service account (401)", "audience"]),
            (
                403,
                forbidden,
                &SECRET,
                false,
                vec!["system:serviceaccount:shop:r may not (403)", "resourceNames: [orders], verbs: [get, patch]"],
            ),
            (
                403,
                "<html>",
                &LEASE,
                false,
                vec!["the service account may not", "coordination.k8s.io", "verbs: [create]"],
            ),
            (404, nowhere, &SECRET, false, vec!["there is no namespace shop"]),
            (404, "{}", &SECRET, false, vec!["it is not there"]),
            (409, "{}", &SECRET, true, vec!["somebody else changed it"]),
            (422, invalid, &SECRET, false, vec!["data[password]", "another type"]),
            (429, "{}", &SECRET, true, vec!["fewer requests"]),
            (503, "", &SECRET, true, vec!["failed with status 503"]),
            (302, "", &SECRET, true, vec!["status 302"]),
        ] {
            let (is_transient, text) = said(status, body, call);
            assert_eq!(is_transient, transient, "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn a_conflict_names_who_owns_what() {
        let body = r#"{"reason":"Conflict","details":{"causes":[
            {"reason":"FieldManagerConflict","message":"conflict with \"kubectl-edit\" using v1 at 2026-01-01T00:00:00Z","field":".data.password"},
            {"reason":"FieldManagerConflict","message":"conflict with \"argo\"","field":".data.host"},
            {"reason":"Other","message":"conflict with \"x\"","field":".y"}]}}"#;
        let rivals = rivals(&Answer::of(409, body.as_bytes()));
        let both: Vec<(&str, bool)> = rivals.iter().map(|rival| (rival.manager.as_str(), rival.has_updated)).collect();
        assert_eq!(both, [("kubectl-edit", true), ("argo", false)]);
        let said = conflict(&SECRET, &rivals).message;
        assert!(said.contains("argo and kubectl-edit own .data.password .data.host"), "{said}");
    }
}
