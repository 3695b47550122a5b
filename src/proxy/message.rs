//! What the proxy itself says to a client (PostgreSQL, "Message Formats").

use crate::failure::{Code, Failure};
use crate::foreign;
use crate::postgres::Refused;

/// PostgreSQL's code for more clients than there is room for.
pub(super) const TOO_MANY: &str = "53300";

/// Why a client gets no session: an error code of PostgreSQL's, a sentence, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) sqlstate: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Rejection {
    pub(super) fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Rejection { sqlstate: sqlstate.to_owned(), message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Rejection { hint: Some(hint.into()), ..self }
    }

    /// There is no live credential.
    pub(super) fn of_credential(failure: Failure) -> Self {
        let sqlstate = match failure.code {
            Code::SignInRefused | Code::LoginNeeded | Code::IdentityMismatch => "28P01",
            Code::Configuration | Code::CannotWrite => "08001",
            // Pools try again.
            Code::Unavailable | Code::TryAgain => "57P03",
        };
        Self::to_a_client(sqlstate.to_owned(), failure.message, failure.hint)
    }

    /// The server has not opened a session.
    pub(super) fn of_server(refused: Refused) -> Self {
        let Failure { message, hint, .. } = refused.failure;
        // What the client itself has asked for wrongly is not tried again (classes of PostgreSQL's "Error Codes").
        let is_clients = ["22", "42"].iter().any(|class| refused.sqlstate.starts_with(class));
        Self::to_a_client(refused.sqlstate, message, hint.filter(|_| !is_clients))
    }

    /// A rotation is tried again by itself; a login is not.
    fn to_a_client(sqlstate: String, message: String, hint: Option<String>) -> Self {
        let asked =
            |text: String| text.replace("it is tried again", "try again").replace("it is asked for again", "try again");
        Rejection { sqlstate, message: asked(message), hint: hint.map(asked) }
    }

    /// `ErrorResponse`, of the kind that ends a session.
    pub(super) fn as_message(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let hint = self.hint.as_deref().map(|hint| (b'H', hint));
        let fields = [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', &self.sqlstate), (b'M', &self.message)];
        for (kind, text) in fields.into_iter().chain(hint) {
            body.push(kind);
            body.extend(foreign::line(text).bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
        body.push(0);
        message(b'E', &body)
    }
}

/// The proxy is stopping, and the session is between two queries.
pub(super) fn stopping() -> Rejection {
    Rejection::new("57P01", "the proxy of dbx-rotator is stopping")
        .hint("connect again: whatever manages the proxy starts it again, unless it was stopped for good")
}

/// A message with its type and its length.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_asked_to_try_again_itself() {
        let asleep = Failure::transient(Code::Unavailable, "it has to wake up; it is tried again");
        let told = Rejection::of_credential(asleep.hint("it is tried again; if it stays so, look there"));
        assert_eq!(told.message, "it has to wake up; try again");
        assert_eq!(told.hint.as_deref(), Some("try again; if it stays so, look there"));
    }

    #[test]
    fn an_error_has_the_fields_that_clients_print_and_stays_one_line() {
        let rejection = Rejection::new("28000", "no\nway\0").hint("do this");
        let bytes = rejection.as_message();
        assert_eq!(bytes, message(b'E', b"SFATAL\0VFATAL\0C28000\0Mno\\nway\\u0000\0Hdo this\0\0"));
    }
}
