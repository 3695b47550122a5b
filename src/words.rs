//! What libraries and the system say of an error, in plain words: their own texts are made for programmers, who know the names of
//! their types. Everything that shows such an error to a person asks here, one function for each kind.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustls::pki_types::pem;
use rustls::{AlertDescription, CertificateError, Error as Tls, InvalidMessage, OtherError, PeerIncompatible};
use url::ParseError;

/// What the standard library puts before the reason why a name was not found.
const LOOKUP: &str = "failed to lookup address information: ";

/// What an error of the system means. One that is made by a part of this program says it itself.
pub(crate) fn of_io(error: &io::Error) -> String {
    if let Some(inner) = error.get_ref() {
        // What is made of a system's error, such as by who makes temporary files, hides it.
        let below = inner.source().and_then(|source| source.downcast_ref::<io::Error>());
        return match (inner.downcast_ref::<io::Error>().or(below), inner.downcast_ref::<Tls>()) {
            (Some(inner), _) => of_io(inner),
            (_, Some(tls)) => of_tls(tls),
            // In the words of libraries of TLS, which are for programmers.
            _ if error.kind() == ErrorKind::UnexpectedEof => "the other side closed the connection".to_owned(),
            _ => without_number(&of_lookup(&inner.to_string())),
        };
    }
    match error.kind() {
        ErrorKind::NotFound => return "no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => return "permission denied".to_owned(),
        ErrorKind::UnexpectedEof => return "it ends too early".to_owned(),
        ErrorKind::InvalidData => return "it is not UTF-8 text".to_owned(),
        ErrorKind::ConnectionRefused => return "the connection was refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return "the other side closed the connection".to_owned(),
        ErrorKind::TimedOut => return "there was no answer in time".to_owned(),
        ErrorKind::NetworkUnreachable => return "there is no route to its network".to_owned(),
        ErrorKind::HostUnreachable => return "there is no route to that host".to_owned(),
        _ => {}
    }
    if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) {
        return "this process may open no more files at once (`ulimit -n`, LimitNOFILE=)".to_owned();
    }
    without_number(&error.to_string())
}

/// What the system calls an error, without the number that only programs know, and what follows it.
fn without_number(text: &str) -> String {
    let Some((name, _)) = text.split_once(" (os error") else { return text.to_owned() };
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Why a name was not found, as glibc, musl and macOS put it; another text stays as it is.
fn of_lookup(text: &str) -> String {
    let Some(reason) = text.strip_prefix(LOOKUP) else { return text.to_owned() };
    if is_no_such_name(reason) { "there is no such name" } else { "the name server did not answer" }.to_owned()
}

/// getaddrinfo's `EAI_NONAME` and `EAI_NODATA`; the standard library hands on nothing but the text.
pub(crate) fn is_no_such_name(text: &str) -> bool {
    ["not known", "No address associated", "does not resolve", "no address"].iter().any(|words| text.contains(words))
}

/// Why no TLS connection came about.
pub(crate) fn of_tls(error: &Tls) -> String {
    let what = match error {
        Tls::InvalidCertificate(fault) => return of_certificate(fault),
        Tls::NoCertificatesPresented => "the server has no certificate",
        Tls::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "what answers does not speak TLS"
        }
        Tls::InvalidMessage(_) | Tls::InappropriateMessage { .. } | Tls::InappropriateHandshakeMessage { .. } => {
            "what answers does not follow the rules of TLS"
        }
        Tls::PeerMisbehaved(_) | Tls::PeerSentOversizedRecord | Tls::DecryptError => {
            "what answers does not follow the rules of TLS, or something between changes what it says"
        }
        Tls::PeerIncompatible(why) => of_incompatible(why),
        Tls::AlertReceived(alert) => of_alert(*alert),
        Tls::NoApplicationProtocol => "the server does not speak HTTP/1.1",
        Tls::FailedToGetCurrentTime => "this machine does not know the time",
        Tls::FailedToGetRandomBytes => "this machine has no random numbers to give",
        Tls::HandshakeNotComplete => "the server ended it too early",
        // In the words of the platform's own trust store.
        Tls::General(text) => return of_trust_store(text),
        _ => "this program and the server cannot agree on it",
    };
    what.to_owned()
}

fn of_incompatible(why: &PeerIncompatible) -> &'static str {
    match why {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => "the server speaks only versions of TLS that are too old",
        _ => "the server offers no kind of TLS that this program knows",
    }
}

fn of_alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::ProtocolVersion => "the server speaks no version of TLS that is safe",
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "the server accepts none of the ways to encrypt that are known here"
        }
        AlertDescription::UnrecognisedName => "the server does not know that name",
        AlertDescription::CertificateRequired | AlertDescription::AccessDenied => {
            "the server asks for a client certificate, and this program has none"
        }
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => "the server ended it",
        _ => "the server refused it",
    }
}

fn of_trust_store(text: &str) -> String {
    if text.contains("No CA certificates were loaded") {
        return "this machine has no authorities that it trusts".to_owned();
    }
    without_number(text)
}

/// What is wrong with a server's certificate.
pub(crate) fn of_certificate(fault: &CertificateError) -> String {
    match fault {
        CertificateError::NotValidForName => "it is for another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("it is for another name{}", list_of_names(presented))
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        CertificateError::UnknownIssuer => "it was issued by an authority that this machine does not trust".to_owned(),
        CertificateError::Revoked => "it has been revoked".to_owned(),
        CertificateError::BadEncoding => "it is not well-formed".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers".to_owned()
        }
        CertificateError::UnhandledCriticalExtension => "it sets conditions that are not known here".to_owned(),
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => "whether it has been revoked is unknown".to_owned(),
        CertificateError::Other(other) => of_other(other).to_owned(),
        _ => "it is signed in a way that is not known here".to_owned(),
    }
}

/// By the names that `webpki` has for them: rustls has none of its own.
fn of_other(other: &OtherError) -> &'static str {
    let name = format!("{other:?}");
    let is = |wanted: &str| name.contains(wanted);
    if is("CaUsedAsEndEntity") {
        "it is the certificate of an authority, which a server cannot use as its own"
    } else if is("EndEntityUsedAsCa") || is("PathLenConstraintViolated") || is("NameConstraintViolation") {
        "it is signed by one that may not sign it"
    } else if is("Eku") {
        "it is not for servers"
    } else if is("UnsupportedCertVersion") {
        "it is of a form that is too old (not X.509 version 3)"
    } else if is("MaximumSignatureChecksExceeded") || is("MaximumPathBuildCallsExceeded") {
        "the chain to its authority is too long"
    } else {
        "it is not one that a server can use"
    }
}

/// The names in a certificate, in brackets and with a blank before; `names` as rustls writes them: `DnsName("db.example")`.
pub(crate) fn list_of_names(names: &[String]) -> String {
    // Some certificates have hundreds.
    const SHOWN: usize = 3;
    let name =
        |text: &String| text.split(['(', ')']).nth(1).map_or(text.as_str(), |name| name.trim_matches('"')).to_owned();
    let shown = names.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", ");
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    if shown.is_empty() { String::new() } else { format!(" ({shown}{more})") }
}

/// What the parser of TOML finds wrong; what it says it expected instead is no help.
pub(crate) fn of_toml(message: &str) -> String {
    let what = message.split(", expected").next().unwrap_or_default();
    let plain = match what {
        "duplicate key" => "this is set twice",
        "string values must be quoted" => "text must be in quotes",
        "key with no value" | "missing value for key" | "missing value" => "a value is missing here",
        "missing assignment between key-value pairs" => "a = is missing here",
        "invalid unquoted key" => "the name of a setting holds a character that it cannot have",
        "integer number overflowed" | "floating-point number overflowed" => "the number is too large",
        "recursion limit" | "cannot recurse further; max recursion depth met" => "brackets are nested too deeply",
        what if what.contains("basic string") || what.contains("literal string") => {
            "the text in quotes is not well-formed, or does not end"
        }
        what if what.starts_with("cannot extend value") => "this has a value already, and can have nothing below it",
        what => what,
    };
    plain.to_owned()
}

/// `1 session`, `2 sessions`.
pub(crate) fn count<N: Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// How a program ended.
pub(crate) fn of_end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no word".to_owned(),
    }
}

/// Why a file does not hold certificates.
pub(crate) fn of_pem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a certificate in it does not end",
        pem::Error::IllegalSectionStart { .. } => "a line in it that should begin a certificate is not well-formed",
        pem::Error::Base64Decode(_) => "a certificate in it is damaged (its base64 is wrong)",
        pem::Error::NoItemsFound => "it holds no certificate",
        _ => "a certificate in it cannot be read",
    }
}

/// Why a text is no address.
pub(crate) fn of_address(error: ParseError) -> &'static str {
    match error {
        ParseError::EmptyHost => "it names no host",
        ParseError::InvalidPort => "its port is no number from 1 to 65535",
        ParseError::InvalidIpv4Address => "its host looks like an IPv4 address and is none",
        ParseError::InvalidIpv6Address => "its host looks like an IPv6 address and is none",
        ParseError::IdnaError | ParseError::InvalidDomainCharacter => "its host holds a character that no host has",
        ParseError::RelativeUrlWithoutBase | ParseError::RelativeUrlWithCannotBeABaseBase => "it has no scheme",
        _ => "it is not well-formed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_have_no_numbers_and_no_capitals() {
        let wrapped = io::Error::other(io::Error::from_raw_os_error(2));
        let directory = tempfile::tempdir().unwrap();
        let of_tempfile = tempfile::NamedTempFile::new_in(directory.path().join("nowhere")).unwrap_err();
        for (error, words) in [
            (io::Error::from_raw_os_error(2), "no such file or directory"),
            (io::Error::from_raw_os_error(13), "permission denied"),
            (io::Error::from_raw_os_error(20), "not a directory"),
            (
                io::Error::from_raw_os_error(24),
                "this process may open no more files at once (`ulimit -n`, LimitNOFILE=)",
            ),
            (io::Error::from_raw_os_error(28), "no space left on device"),
            (io::Error::from_raw_os_error(111), "the connection was refused"),
            (ErrorKind::NotFound.into(), "no such file or directory"),
            (ErrorKind::UnexpectedEof.into(), "it ends too early"),
            (io::Error::new(ErrorKind::UnexpectedEof, "tls handshake eof"), "the other side closed the connection"),
            (io::Error::other("it is not a regular file"), "it is not a regular file"),
            (io::Error::other(Tls::DecryptError), "what answers does not follow the rules of TLS"),
            (io::Error::other(format!("{LOOKUP}Name or service not known")), "there is no such name"),
            (
                io::Error::other(format!("{LOOKUP}Temporary failure in name resolution")),
                "the name server did not answer",
            ),
            (wrapped, "no such file or directory"),
            (of_tempfile, "no such file or directory"),
        ] {
            assert!(of_io(&error).starts_with(words), "{error:?}: {}", of_io(&error));
        }
        let no_text = std::fs::write(directory.path().join("x"), b"\xff")
            .and_then(|()| std::fs::read_to_string(directory.path().join("x")).map(drop));
        assert_eq!(of_io(&no_text.unwrap_err()), "it is not UTF-8 text");
    }

    #[test]
    fn errors_of_tls_are_sentences() {
        let names = vec!["DnsName(\"a.example\")".to_owned(), "IpAddress(1.2.3.4)".to_owned()];
        let expected = rustls::pki_types::ServerName::try_from("w.example").unwrap();
        for fault in [
            CertificateError::Expired,
            CertificateError::UnknownIssuer,
            CertificateError::NotValidForNameContext { expected, presented: names },
            CertificateError::BadSignature,
            CertificateError::Revoked,
            CertificateError::InvalidPurpose,
            CertificateError::ApplicationVerificationFailure,
            CertificateError::Other(OtherError(std::sync::Arc::new(io::Error::other("CaUsedAsEndEntity")))),
        ] {
            let words = of_tls(&Tls::InvalidCertificate(fault));
            assert!(words.starts_with("it"), "{words}");
            assert!(!words.contains(['"', ':']) && !words.contains("Name"), "{words}");
        }
        for error in [
            Tls::InvalidMessage(InvalidMessage::InvalidContentType),
            Tls::AlertReceived(AlertDescription::HandshakeFailure),
            Tls::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
            Tls::General("No CA certificates were loaded from the system".to_owned()),
            Tls::NoCertificatesPresented,
            Tls::EncryptError,
        ] {
            let words = of_tls(&error);
            assert!(words.contains(' ') && !words.contains("Error") && !words.contains("::"), "{words}");
        }
    }

    #[test]
    fn programs_end_with_a_code_or_a_signal() {
        assert_eq!(of_end(ExitStatus::from_raw(3 << 8)), "exit code 3");
        assert_eq!(of_end(ExitStatus::from_raw(9)), "signal 9");
    }
}
