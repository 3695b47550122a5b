//! From a fault to the sentence that a person reads: what failed, on what, why, and the next step.

use std::io::{self, ErrorKind};
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::{IpAddr, ServerName};

use super::fault::{Fault, Stage};
use super::{SslMode, Target, remedy};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::words;

const NETWORK: &str = "check network, VPN and firewall: PostgreSQL needs its own port (5432) open, HTTPS is not enough";

/// Describes the failure of a login that was given `limit`.
pub(super) fn diagnose(fault: &Fault, target: &Target<'_>, limit: Duration) -> Failure {
    let failure = match fault {
        Fault::Lookup(error) => not_found(error),
        Fault::Connect(error) => unreachable(error),
        Fault::Late(stage) => late(*stage, limit),
        Fault::NoTls => configuration("the server does not speak TLS, and a password is not sent without")
            .hint("check host and port: Lakebase always speaks TLS"),
        Fault::Tls(rustls::Error::InvalidCertificate(fault)) => untrusted(fault, target),
        Fault::Tls(error) => unavailable(format!("TLS failed: {}", words::of_tls(error)))
            .hint("check that host and port are PostgreSQL's, and that nothing between breaks up TLS"),
        Fault::Lost(error) => unavailable(format!("the connection was lost: {}", why(error)))
            .hint("it is tried again; if it stays so, the server is in trouble or something between cuts connections"),
        Fault::Refused(refusal) => remedy::refused(refusal, target),
        Fault::Strange(what) => unavailable(format!("the answer is none of PostgreSQL's: {}", quoted(what)))
            .hint("check that host and port are PostgreSQL's"),
    };
    placed(failure, target)
}

/// Puts host, port and user in front of a failure's text.
pub(super) fn placed(mut failure: Failure, target: &Target<'_>) -> Failure {
    let Target { host, port, user, .. } = target;
    let host = match ServerName::try_from(*host) {
        Ok(ServerName::IpAddress(IpAddr::V6(_))) => format!("[{host}]"),
        // It may be anything, such as a URL with a password in it.
        _ => quoted(host),
    };
    failure.message = format!("cannot log in to {host}:{port} as {user}: {}", failure.message);
    failure
}

fn configuration(why: impl Into<String>) -> Failure {
    Failure::permanent(Code::Configuration, why)
}

fn unavailable(why: impl Into<String>) -> Failure {
    Failure::transient(Code::Unavailable, why)
}

/// The text of an I/O error. The end of a stream is called a closed connection.
fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "the server closed it".to_owned(),
        _ => quoted(&words::of_io(error)),
    }
}

/// A host name that does not exist is a wrong setting, but is retried: private names do not exist until the VPN is up.
fn not_found(error: &io::Error) -> Failure {
    let is_no_such_name = words::is_no_such_name(&error.to_string());
    let code = if is_no_such_name { Code::Configuration } else { Code::Unavailable };
    Failure::transient(code, format!("its address was not found: {}", quoted(&words::of_io(error))))
        .hint("check the host's spelling, the network and the VPN")
}

fn unreachable(error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::ConnectionRefused => "check host and port, and that the instance is running",
        _ => NETWORK,
    };
    unavailable(why(error)).hint(hint)
}

fn late(stage: Stage, limit: Duration) -> Failure {
    let (what, hint) = match stage {
        Stage::Lookup => ("its address was not found", "check network, VPN and name server"),
        Stage::Connect => ("it did not take a connection", NETWORK),
        Stage::Tls => ("it did not agree on TLS", NETWORK),
        Stage::Login => {
            ("it did not finish the login", "a server that has to wake up may need longer; it is tried again")
        }
    };
    unavailable(format!("{what} within {} s", limit.as_secs_f32().ceil())).hint(hint)
}

fn untrusted(fault: &CertificateError, target: &Target<'_>) -> Failure {
    match fault {
        CertificateError::NotValidForName => another_name(&[]),
        CertificateError::NotValidForNameContext { presented, .. } => another_name(presented),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => distrust("has expired", None)
            .hint("check this machine's clock; if it is right, the server needs a new certificate"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            distrust("is not valid yet", None).hint("check this machine's clock")
        }
        _ => distrust("is not trusted", Some(fault)).hint(match (target.root, target.sslmode) {
            (Some(_), SslMode::Require) => "check sslrootcert: with it, sslmode require trusts nobody else",
            (Some(_), SslMode::VerifyFull) => "check sslrootcert: with it, nobody else is trusted",
            (None, _) => "give the authority with sslrootcert or SSL_CERT_FILE, or install ca-certificates",
        }),
    }
}

fn another_name(names: &[String]) -> Failure {
    configuration(format!("the server's certificate is for another name{}", words::list_of_names(names)))
        .hint("give the host by the name that Lakebase has for it, not by an alias or an address")
}

/// A person must act, and yet it may be a captive portal's (as in `http::trouble`).
fn distrust(how: &str, fault: Option<&CertificateError>) -> Failure {
    let why = fault.map(|fault| format!(": {}", words::of_certificate(fault))).unwrap_or_default();
    Failure::permanent(Code::Unavailable, format!("the server's certificate {how}{why}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::Error as Tls;

    use super::super::refusal::Refusal;
    use super::*;
    use crate::failure::Kind::{self, Permanent, Transient};

    fn target(user: &str) -> Target<'_> {
        let sslmode = SslMode::VerifyFull;
        Target { host: "db.example", port: 5432, database: "orders", user, sslmode, root: None }
    }

    fn told(fault: Fault, target: &Target<'_>) -> Failure {
        diagnose(&fault, target, Duration::from_secs(10))
    }

    #[track_caller]
    fn is(failure: &Failure, kind: Kind, code: Code, message: &str, hint: &str) {
        assert_eq!((failure.kind, failure.code), (kind, code), "{failure}");
        assert!(failure.message.contains(message), "{failure}");
        assert!(failure.message.starts_with("cannot log in to db.example:5432 as ada: "), "{failure}");
        let given = failure.hint.as_deref().unwrap_or_default();
        assert!(given.contains(hint), "{failure}: {given}");
    }

    #[test]
    fn what_the_network_does_passes_but_a_name_that_does_not_exist_is_a_wrong_setting() {
        let target = target("ada");
        let lookup =
            |text: &str| Fault::Lookup(io::Error::other(format!("failed to lookup address information: {text}")));
        let connect = |kind: ErrorKind| Fault::Connect(kind.into());
        for (fault, code, message, hint) in [
            (lookup("Name or service not known"), Code::Configuration, "no such name", "spelling"),
            (lookup("nodename nor servname provided, or not known"), Code::Configuration, "no such name", "VPN"),
            (
                lookup("Temporary failure in name resolution"),
                Code::Unavailable,
                "name server did not answer",
                "network",
            ),
            (connect(ErrorKind::ConnectionRefused), Code::Unavailable, "connection was refused", "is running"),
            (connect(ErrorKind::TimedOut), Code::Unavailable, "no answer in time", "5432"),
            (connect(ErrorKind::NetworkUnreachable), Code::Unavailable, "no route to its network", "VPN"),
            (connect(ErrorKind::HostUnreachable), Code::Unavailable, "no route to that host", "VPN"),
            (Fault::Late(Stage::Lookup), Code::Unavailable, "not found within 10 s", "name server"),
            (Fault::Late(Stage::Connect), Code::Unavailable, "did not take a connection within 10 s", "5432"),
            (Fault::Late(Stage::Tls), Code::Unavailable, "did not agree on TLS", "firewall"),
            (Fault::Late(Stage::Login), Code::Unavailable, "did not finish the login", "wake up"),
            (Fault::Lost(ErrorKind::ConnectionReset.into()), Code::Unavailable, "closed the connection", "tried again"),
            (Fault::Lost(ErrorKind::UnexpectedEof.into()), Code::Unavailable, "the server closed it", "tried again"),
            (Fault::Strange("unexpected message".to_owned()), Code::Unavailable, "unexpected message", "PostgreSQL's"),
        ] {
            is(&told(fault, &target), Transient, code, message, hint);
        }
    }

    #[test]
    fn each_fault_of_a_certificate_is_told_apart() {
        let alone = target("ada");
        let rooted = Target { root: Some(Path::new("ca.pem")), ..alone };
        let chain_only = Target { sslmode: SslMode::Require, ..rooted };
        let bad = |why: CertificateError| Fault::Tls(Tls::InvalidCertificate(why));
        for (why, target, code, message, hint) in [
            (CertificateError::NotValidForName, alone, Code::Configuration, "for another name", "alias"),
            (CertificateError::Expired, alone, Code::Unavailable, "has expired", "clock"),
            (CertificateError::NotValidYet, alone, Code::Unavailable, "not valid yet", "clock"),
            (CertificateError::UnknownIssuer, alone, Code::Unavailable, "not trusted", "SSL_CERT_FILE"),
            (CertificateError::UnknownIssuer, rooted, Code::Unavailable, "not trusted", "nobody else is trusted"),
            (CertificateError::UnknownIssuer, chain_only, Code::Unavailable, "not trusted", "sslmode require"),
        ] {
            is(&told(bad(why), &target), Permanent, code, message, hint);
        }
        let presented = ["a", "b", "c", "d"].map(|name| format!("DnsName({name:?})")).to_vec();
        let expected = ServerName::try_from("db.example").unwrap();
        let other = CertificateError::NotValidForNameContext { expected, presented };
        let names = "another name (a, b, c, ...)";
        is(&told(bad(other), &alone), Permanent, Code::Configuration, names, "alias");
        is(&told(Fault::NoTls, &alone), Permanent, Code::Configuration, "does not speak TLS", "Lakebase");
        let broken = Fault::Tls(Tls::General("bad record".to_owned()));
        is(&told(broken, &alone), Transient, Code::Unavailable, "bad record", "TLS");
    }

    #[test]
    fn a_server_that_hands_the_token_back_does_not_get_it_into_the_message() {
        let token = format!("eyJ{}.x.y", "A".repeat(800));
        let said = format!("bad password {token}");
        let (sqlstate, message, detail) = (token.clone(), said.clone(), Some(said.clone()));
        let refused = Fault::Refused(Refusal { sqlstate, message, detail });
        for fault in [refused, Fault::Strange(said.clone()), Fault::Lost(io::Error::other(said))] {
            let failure = told(fault, &target("ada"));
            assert!(!format!("{failure:?}").contains(&token[..40]), "{failure}");
        }
    }

    #[test]
    fn a_host_is_shown_whole_unless_it_is_none() {
        let lakebase = "instance-0b1c2d3e-0000-4000-8000-00000000cafe.database.cloud.databricks.com";
        for (host, shown) in [
            (lakebase, format!("{lakebase}:5432")),
            ("2001:db8::1", "[2001:db8::1]:5432".to_owned()),
            ("postgresql://ada:eyJhbGciOi.J9.x@db", "postgresql://ada:********@db:5432".to_owned()),
        ] {
            let failure = told(Fault::NoTls, &Target { host, ..target("ada") });
            assert!(failure.message.starts_with(&format!("cannot log in to {shown} as ada: ")), "{failure}");
        }
    }
}
