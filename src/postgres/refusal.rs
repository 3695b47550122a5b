//! What a server's refusal means: Lakebase's own sentences first, then PostgreSQL's codes (Appendix A of its manual).

/// The parts of an error response that matter here.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    /// Five characters.
    pub(super) sqlstate: String,
    pub(super) message: String,
    pub(super) detail: Option<String>,
}

/// What a refusal means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The token has expired or belongs to another identity than the role, or the role is for another kind of identity.
    NotAuthorized,
    /// The password is not a Databricks token.
    NoToken,
    /// The server took it for the role's own password, and accepts no such passwords.
    NoNativeLogin,
    /// The role does not exist or is not for tokens, or the token has expired.
    NoSuchRole,
    /// A pooler that does not accept tokens.
    Pooler,
    /// The role may not log in from here, or not at all.
    Forbidden,
    /// The role may not connect to this database.
    NoRightToConnect,
    NoSuchDatabase,
    /// This alone prevents the login, and a person must act.
    Barred(Bar),
    /// One of several causes, or what would decide is not ready yet.
    NotReady,
    /// The server is starting or stopping.
    Starting,
    /// All of the server's connections are taken.
    Full,
    /// Anything else.
    Other,
}

/// What can prevent a login to an endpoint although the token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    Paused,
    ReadableSecondaries,
    IpAccessList,
    PrivateLink,
}

impl Bar {
    /// Each with lower-case words that identify it.
    const ALL: [(Bar, &[&str]); 4] = [
        (Bar::Paused, &["pause", "stopped"]),
        (Bar::ReadableSecondaries, &["readable secondar"]),
        (Bar::IpAccessList, &["ip acl", "ip access list", "ip address"]),
        (Bar::PrivateLink, &["private link", "privatelink", "private endpoint", "private access"]),
    ];
}

impl Refusal {
    /// The fields of an `ErrorResponse` (PostgreSQL, "Error and Notice Message Fields").
    pub(super) fn read(body: &[u8]) -> Self {
        let mut refusal = Refusal::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { break };
            let text = || String::from_utf8_lossy(text).into_owned();
            match kind {
                b'C' => refusal.sqlstate = text(),
                b'M' => refusal.message = text(),
                b'D' => refusal.detail = Some(text()),
                _ => {}
            }
        }
        refusal
    }

    /// The causes that the message names.
    pub(super) fn bars(&self) -> Vec<Bar> {
        let text = format!("{}\n{}", self.message, self.detail.as_deref().unwrap_or_default()).to_ascii_lowercase();
        let named = |words: &[&str]| words.iter().any(|word| text.contains(word));
        Bar::ALL.iter().filter(|(_, words)| named(words)).map(|(bar, _)| *bar).collect()
    }

    pub(super) fn meaning(&self) -> Meaning {
        self.in_lakebases_words().unwrap_or_else(|| self.by_sqlstate())
    }

    fn in_lakebases_words(&self) -> Option<Meaning> {
        let text = self.message.to_ascii_lowercase();
        let says = |words: &str| text.contains(words);
        if says("user is not authorized") {
            Some(Meaning::NotAuthorized)
        } else if says("failed to decode token") {
            Some(Meaning::NoToken)
        } else if says("native postgres login is disabled") {
            Some(Meaning::NoNativeLogin)
        } else if says("sasl authentication failed") {
            Some(Meaning::Pooler)
        } else if says("external authorization failed") || says("blocked by databricks ip acl") {
            // One cause is a fact. Several are what the server thinks possible, and some of those pass without help.
            Some(match self.bars()[..] {
                [bar] => Meaning::Barred(bar),
                _ => Meaning::NotReady,
            })
        } else {
            None
        }
    }

    fn by_sqlstate(&self) -> Meaning {
        match self.sqlstate.as_str() {
            "28P01" => Meaning::NoSuchRole,
            // Authentication methods other than a password have this code (PostgreSQL, auth_failed in auth.c).
            "28000" if self.message.contains("authentication failed for user") => Meaning::NoSuchRole,
            "28000" if self.message.contains("does not exist") => Meaning::NoSuchRole,
            code if code.starts_with("28") => Meaning::Forbidden,
            "3D000" => Meaning::NoSuchDatabase,
            "42501" => Meaning::NoRightToConnect,
            // admin_shutdown, crash_shutdown, cannot_connect_now.
            "57P01" | "57P02" | "57P03" => Meaning::Starting,
            "53300" => Meaning::Full,
            _ => Meaning::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sqlstate: &str, message: &str, detail: &str) -> Refusal {
        let detail = (!detail.is_empty()).then(|| detail.to_owned());
        Refusal { sqlstate: sqlstate.to_owned(), message: message.to_owned(), detail }
    }

    #[test]
    fn lakebases_sentences_mean_more_than_the_code_beside_them() {
        for (message, meaning) in [
            ("OAuth: User is not authorized", Meaning::NotAuthorized),
            ("Failed to decode token for role \"ada@example.com\"", Meaning::NoToken),
            ("native postgres login is disabled for this endpoint", Meaning::NoNativeLogin),
            ("SASL authentication failed", Meaning::Pooler),
        ] {
            for code in ["28P01", "28000", "08P01", "XX000"] {
                assert_eq!(said(code, message, "").meaning(), meaning, "{code} {message}");
            }
        }
    }

    #[test]
    fn a_detail_that_names_one_bar_is_a_fact_and_one_that_names_several_or_none_is_not() {
        let external = |detail: &str| said("28000", "External authorization failed", detail).meaning();
        for (detail, bar) in [
            ("The database instance is paused.", Bar::Paused),
            ("Readable secondaries are not enabled for this instance.", Bar::ReadableSecondaries),
            ("Source IP address: 192.0.2.7 is blocked by Databricks IP ACL for workspace: 17", Bar::IpAccessList),
            ("This workspace is reached through Private Link only.", Bar::PrivateLink),
        ] {
            assert_eq!(external(detail), Meaning::Barred(bar), "{detail}");
        }
        let either = "This could be due to paused instances, disabled readable secondaries or an IP ACL";
        assert_eq!(external(either), Meaning::NotReady);
        assert_eq!(external(""), Meaning::NotReady);
        let alone = said("08004", "Source IP address: 192.0.2.7 is blocked by Databricks IP ACL for workspace: 17", "");
        assert_eq!(alone.meaning(), Meaning::Barred(Bar::IpAccessList));
    }

    #[test]
    fn postgresqls_codes_mean_what_its_manual_says() {
        for (code, message, meaning) in [
            ("28P01", "password authentication failed for user \"ada@example.com\"", Meaning::NoSuchRole),
            ("28000", "LDAP authentication failed for user \"ada@example.com\"", Meaning::NoSuchRole),
            ("28000", "role \"ada@example.com\" does not exist", Meaning::NoSuchRole),
            ("28000", "role \"ada@example.com\" is not permitted to log in", Meaning::Forbidden),
            ("28000", "no pg_hba.conf entry for host \"192.0.2.7\", user \"ada\"", Meaning::Forbidden),
            ("3D000", "database \"orders\" does not exist", Meaning::NoSuchDatabase),
            ("42501", "permission denied for database \"orders\"", Meaning::NoRightToConnect),
            ("57P01", "terminating connection due to administrator command", Meaning::Starting),
            ("57P03", "the database system is starting up", Meaning::Starting),
            ("53300", "sorry, too many clients already", Meaning::Full),
            ("08006", "could not reach the compute", Meaning::Other),
            ("XX000", "something else", Meaning::Other),
        ] {
            assert_eq!(said(code, message, "").meaning(), meaning, "{code} {message}");
        }
    }
}
