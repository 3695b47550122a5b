//! What the vendor's errors say about trying again, for all endpoints: one table, with a source for each row.
//!
//! Neither status nor code nor text is enough alone: 403 means both "not allowed" and "expired", 400 both "wrong" and "later".
//! So each row names which of the three it needs.
//!
//! Sources: `go` is databricks-sdk-go (apierr/, httpclient/errors.go); a name with a number is a public issue of that repository.

/// What can make a refused request succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// A new access token: this one is no longer accepted.
    SignInAgain,
    /// Only time.
    Wait,
}

/// One row: every condition that is given must hold.
struct Row {
    /// HTTP status codes; empty: any.
    statuses: &'static [u16],
    /// The error code, in any case; empty: any.
    code: &'static str,
    /// A part of the text, in lower case; empty: any.
    text: &'static str,
    remedy: Remedy,
    #[cfg_attr(not(test), allow(dead_code, reason = "for the reader, and for the test that each row has one"))]
    source: &'static str,
}

const fn row(
    statuses: &'static [u16],
    code: &'static str,
    text: &'static str,
    remedy: Remedy,
    source: &'static str,
) -> Row {
    Row { statuses, code, text, remedy, source }
}

/// An unknown 4xx is in no row: no remedy is invented for it.
const TABLE: &[Row] = &[
    row(&[401], "", "", Remedy::SignInAgain, "RFC 9110, section 15.5.2"),
    row(&[], "", "token is expiring within", Remedy::SignInAgain, "databrickslabs/brickster#258: 30 s before the end"),
    row(&[400, 403], "", "token expired", Remedy::SignInAgain, "databrickslabs/brickster#258"),
    row(&[400, 403], "", "token is expired", Remedy::SignInAgain, "the same in other words"),
    row(&[400, 403], "", "jwt expired", Remedy::SignInAgain, "the same, by jsonwebtoken (auth0/node-jsonwebtoken)"),
    row(&[400, 403], "", "jwt is expired", Remedy::SignInAgain, "the same in other words"),
    row(&[400, 403], "INVALID_TOKEN", "", Remedy::SignInAgain, "RFC 6750, section 3.1"),
    row(&[400, 403], "", "jwt has expired", Remedy::SignInAgain, "databricks-sdk-go#1061"),
    row(&[400, 403], "", "token has expired", Remedy::SignInAgain, "databricks-sdk-go#1061"),
    row(&[400, 403], "", "invalid token", Remedy::SignInAgain, "databricks-sdk-go#1061"),
    row(&[400, 403], "", "invalid access token", Remedy::SignInAgain, "omnigent-ai/omnigent#3231"),
    row(&[], "REQUEST_LIMIT_EXCEEDED", "", Remedy::Wait, "go apierr: too many requests, sent with 400"),
    row(&[], "RESOURCE_EXHAUSTED", "", Remedy::Wait, "go apierr: too many requests, sent with 403"),
    row(&[], "ABORTED", "", Remedy::Wait, "go apierr: a conflict with another change, sent with 409"),
    row(&[], "TEMPORARILY_UNAVAILABLE", "", Remedy::Wait, "go apierr; RFC 6749, section 4.1.2.1"),
    row(&[], "DEADLINE_EXCEEDED", "", Remedy::Wait, "go apierr"),
    row(&[], "SERVER_ERROR", "", Remedy::Wait, "RFC 6749, section 4.1.2.1"),
    row(&[400, 429], "INVALID_REQUEST", "throttled", Remedy::Wait, "the token endpoint under load"),
    row(&[400, 403, 409], "", "too many requests", Remedy::Wait, "go config.go: TransientErrors"),
    row(&[400, 403, 409], "", "request limit exceeded", Remedy::Wait, "go config.go: TransientErrors"),
    row(&[400, 403, 409], "", "rate limit", Remedy::Wait, "go config.go: TransientErrors"),
    row(
        &[400, 403, 404, 409],
        "",
        "worker environment",
        Remedy::Wait,
        "go apierr, error_overrides.go: a workspace that wakes",
    ),
    row(&[400, 403, 404, 409], "", "unknownworkerenvironment", Remedy::Wait, "go apierr, error_overrides.go"),
    row(&[400, 403, 409], "", "deadline exceeded", Remedy::Wait, "go apierr, error_overrides.go"),
    row(&[400, 403, 409], "", "timed out after", Remedy::Wait, "go apierr, error_overrides.go"),
    row(&[], "SLOW_DOWN", "", Remedy::Wait, "RFC 8628, section 3.5"),
    row(&[400, 403], "", "temporarily throttled", Remedy::Wait, "the token endpoint under load"),
    row(&[], "", "in updating state", Remedy::Wait, "the database API while an instance changes"),
];

/// What the API says of a database that takes nobody now, in lower case: others are not concerned.
const OF_ONE_DATABASE: [&str; 5] = ["in updating state", "stopped", "not running", "is starting", "failing over"];

/// Whether a text speaks of the state of one database.
pub(crate) fn is_about_one_database(text: &str) -> bool {
    let text = text.to_lowercase();
    OF_ONE_DATABASE.iter().any(|of_one| text.contains(of_one))
}

/// What this refusal needs; none where nobody knows, or where a person must do something.
pub(crate) fn remedy(status: u16, code: &str, text: &str) -> Option<Remedy> {
    let text = text.to_lowercase();
    let holds = |row: &&Row| {
        (row.statuses.is_empty() || row.statuses.contains(&status))
            && (row.code.is_empty() || row.code.eq_ignore_ascii_case(code))
            && text.contains(row.text)
    };
    TABLE.iter().find(holds).map(|row| row.remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_code_and_text_decide_together() {
        let rows = [
            (401, "", "", Some(Remedy::SignInAgain)),
            (403, "403", "Token is expiring within 30 seconds. (token expired)", Some(Remedy::SignInAgain)),
            (400, "INVALID_PARAMETER_VALUE", "Invalid Token", Some(Remedy::SignInAgain)),
            (403, "", "Invalid access token. [ReqId: 1]", Some(Remedy::SignInAgain)),
            (403, "PERMISSION_DENIED", "User lacks CAN_USE.", None),
            (403, "RESOURCE_EXHAUSTED", "quota", Some(Remedy::Wait)),
            (400, "REQUEST_LIMIT_EXCEEDED", "", Some(Remedy::Wait)),
            (409, "aborted", "", Some(Remedy::Wait)),
            (400, "invalid_request", "Temporarily throttled", Some(Remedy::Wait)),
            (400, "invalid_request", "Refresh token is invalid", None),
            (400, "BAD_REQUEST", "Instance orders is in UPDATING state", Some(Remedy::Wait)),
            (403, "403", "Access token is expired", Some(Remedy::SignInAgain)),
            (403, "invalid_token", "The access token expired", Some(Remedy::SignInAgain)),
            (400, "BAD_REQUEST", "jwt expired", Some(Remedy::SignInAgain)),
            (403, "PERMISSION_DENIED", "Too many requests", Some(Remedy::Wait)),
            (400, "BAD_REQUEST", "Rate limit exceeded for this endpoint", Some(Remedy::Wait)),
            (400, "slow_down", "", Some(Remedy::Wait)),
            (404, "NOT_FOUND", "There is no worker environment with id 7", Some(Remedy::Wait)),
            (400, "BAD_REQUEST", "rpc: deadline exceeded", Some(Remedy::Wait)),
            (403, "PERMISSION_DENIED", "Provided OAuth token does not have required scopes: postgres", None),
            (403, "403", "Unauthorized access to workspace: 1", None),
            (400, "INVALID_PARAMETER_VALUE", "ttl must be between 300s and 3600s", None),
            (409, "ALREADY_EXISTS", "request_id was used before", None),
            (404, "NOT_FOUND", "the token has expired", None),
            (418, "TEAPOT", "short and stout", None),
        ];
        for (status, code, text, wanted) in rows {
            assert_eq!(remedy(status, code, text), wanted, "{status} {code}: {text}");
        }
    }

    #[test]
    fn every_row_is_bound_to_something_and_has_a_source() {
        for row in TABLE {
            let is_bound = !row.statuses.is_empty() || !row.code.is_empty() || !row.text.is_empty();
            assert!(is_bound && !row.source.is_empty());
            assert_eq!(row.text, row.text.to_lowercase(), "compared with lower case");
        }
    }
}
