//! What kept an exchange from happening, in words: who did not answer, the workspace or the proxy, and why.

use std::error::Error;
use std::io;

use rustls::Error as Tls;

use super::CONNECT_LIMIT;
use super::knock::Barred;
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::proxies::Proxy;
use crate::words;

const NETWORK: &str = "check network, VPN and proxy";

const NO_TUNNEL: &str = "check whether the proxy allows this host and finds it; if the host is to be reached without it, add it to \
    NO_PROXY";

/// Where a request was to go.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    /// The workspace's address.
    pub(super) to: &'a str,
    pub(super) proxy: Option<&'a Proxy>,
}

/// What a proxy does that does not let us through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByProxy {
    /// It cannot be spoken to at all.
    OutOfReach,
    /// It wants another user or password, or one at all.
    Refusal,
    /// It speaks, and makes no connection to the workspace.
    NoTunnel,
    /// It closed the connection instead of an answer.
    HungUp,
}

/// Whether the proxy has refused who we are.
pub(super) fn is_refusal_of_proxy(error: &reqwest::Error, way: Way<'_>) -> bool {
    way.proxy.is_some() && by_proxy(error) == Some(ByProxy::Refusal)
}

/// The failure of a proxy that was asked first, and does not let through.
pub(super) fn barred(barred: &Barred, proxy: &Proxy, to: &str) -> Failure {
    let name = named(proxy);
    match barred {
        Barred::Lookup(error) => not_found(proxy, Some(error), to),
        Barred::Connect(error) => not_reached(proxy, Some(error)),
        Barred::Tls(error) => without_tls(error, proxy),
        Barred::Late => late(proxy),
        Barred::HungUp => hung_up(proxy, to),
        Barred::Nonsense => unavailable(format!("{name} does not answer like an HTTP proxy"))
            .hint(format!("check that {} names a proxy, its port, and what it speaks", proxy.from())),
        Barred::Status(401 | 407) => refused_by_proxy(proxy),
        Barred::Status(403) => {
            Failure::permanent(Code::Unavailable, format!("{name} does not allow connections to {to} (403)")).hint(
                "ask who runs the proxy to allow this host, or add it to NO_PROXY if it is to be reached without it",
            )
        }
        Barred::Status(status) => unavailable(format!("{name} does not connect to {to} ({status})")).hint(NO_TUNNEL),
    }
}

/// The failure of a proxy that has refused who we are: tried again when the setting changes, or after a while.
pub(super) fn refused_by_proxy(proxy: &Proxy) -> Failure {
    let name = named(proxy);
    let (message, hint) = if proxy.user().is_some() {
        (
            format!("{name} does not accept the user name and password that it is given (407)"),
            format!(
                "correct them in {}, with any special character as % and two hexadecimal digits; the same ones are tried again \
                 only after 15 minutes, so that the account is not locked. A proxy that takes nothing but Kerberos or NTLM \
                 needs a helper such as cntlm in between",
                proxy.from()
            ),
        )
    } else {
        (
            format!("{name} asks for a user name and a password (407)"),
            format!("write them into {}, as in http://USER:PASSWORD@{}", proxy.from(), proxy.name()),
        )
    };
    Failure::permanent(Code::SignInRefused, message).hint(hint)
}

/// Why there was no answer at all.
pub(super) fn unreachable(error: &reqwest::Error, way: Way<'_>) -> Failure {
    match way.proxy.and_then(|proxy| Some((proxy, by_proxy(error)?))) {
        Some((proxy, ByProxy::Refusal)) => refused_by_proxy(proxy),
        Some((proxy, ByProxy::OutOfReach)) => proxy_out_of_reach(error, proxy, way.to),
        Some((proxy, ByProxy::HungUp)) => hung_up(proxy, way.to),
        Some((proxy, ByProxy::NoTunnel)) => {
            unavailable(format!("{} does not connect to {}", named(proxy), way.to)).hint(NO_TUNNEL)
        }
        None => directly(error, way),
    }
}

/// Why an answer ended before its end.
pub(super) fn broken(error: &reqwest::Error, to: &str) -> Failure {
    unavailable(format!("the answer of {to} broke off: {}", why(error))).hint(NETWORK)
}

/// The proxy, with where it is set.
fn named(proxy: &Proxy) -> String {
    format!("the proxy {} (from {})", proxy.name(), proxy.from())
}

fn unavailable(message: String) -> Failure {
    Failure::transient(Code::Unavailable, message)
}

fn proxy_out_of_reach(error: &reqwest::Error, proxy: &Proxy, to: &str) -> Failure {
    if let Some(tls) = tls_fault(error) {
        without_tls(tls, proxy)
    } else if is_timeout(error) {
        late(proxy)
    // Of SOCKS nothing but this tells what went wrong below it.
    } else if is_lookup(error) || format!("{error:?}").contains("dns error") {
        not_found(proxy, io_fault(error), to)
    } else {
        not_reached(proxy, io_fault(error))
    }
}

fn without_tls(error: &Tls, proxy: &Proxy) -> Failure {
    let name = named(proxy);
    match error {
        Tls::InvalidCertificate(fault) => {
            let why = words::of_certificate(fault);
            Failure::permanent(Code::Unavailable, format!("the certificate of {name} is not trusted: {why}"))
                .hint("give its authority with ca_file or SSL_CERT_FILE; if it has expired, check this machine's clock")
        }
        other => unavailable(format!("TLS with {name} failed: {}", words::of_tls(other)))
            .hint(format!("check that its port speaks TLS; if it does not, write http:// in {}", proxy.from())),
    }
}

fn late(proxy: &Proxy) -> Failure {
    unavailable(format!("{} did not answer within {} s", named(proxy), CONNECT_LIMIT.as_secs())).hint(NETWORK)
}

fn not_found(proxy: &Proxy, error: Option<&io::Error>, to: &str) -> Failure {
    let why = error.map(|error| format!(": {}", words::of_io(error))).unwrap_or_default();
    unavailable(format!("cannot find the address of {}, the proxy for {to}{why}", named(proxy)))
        .hint(format!("check the spelling in {}, the network and the VPN", proxy.from()))
}

fn not_reached(proxy: &Proxy, error: Option<&io::Error>) -> Failure {
    let why = error.map_or_else(|| "it takes no connection".to_owned(), words::of_io);
    unavailable(format!("cannot reach {}: {}", named(proxy), quoted(&why)))
        .hint(format!("check host and port in {}, that the proxy runs, the network and the VPN", proxy.from()))
}

fn hung_up(proxy: &Proxy, to: &str) -> Failure {
    unavailable(format!("{} closed the connection, when asked for {to}", named(proxy)))
        .hint(format!("check that {} names a proxy, its port and what it speaks, and its log", proxy.from()))
}

fn directly(error: &reqwest::Error, Way { to, proxy }: Way<'_>) -> Failure {
    if let Some(tls) = tls_fault(error) {
        return untrusted(tls, to);
    }
    let by = proxy.map(|proxy| format!(" by {}", named(proxy))).unwrap_or_default();
    if is_timeout(error) {
        return unavailable(format!("{to} did not take a connection{by} within {} s", CONNECT_LIMIT.as_secs()))
            .hint(NETWORK);
    }
    let why = why(error);
    if is_lookup(error) {
        return unavailable(format!("cannot find the address of {to}: {why}"))
            .hint("check the host's spelling, the network and the VPN");
    }
    unavailable(format!("cannot reach {to}{by}: {why}")).hint(NETWORK)
}

fn untrusted(error: &Tls, to: &str) -> Failure {
    match error {
        Tls::InvalidCertificate(fault) => {
            let why = words::of_certificate(fault);
            Failure::permanent(Code::Unavailable, format!("the certificate of {to} is not trusted: {why}")).hint(
                "if a company proxy stands between, give its authority with ca_file or SSL_CERT_FILE; \
                 if the certificate is not yet or no longer valid, check this machine's clock",
            )
        }
        other => unavailable(format!("TLS with {to} failed: {}", words::of_tls(other)))
            .hint("check that the port speaks TLS, and the proxy"),
    }
}

// ---- what hides in an error ----

/// Each error that led to this one: of I/O errors, what they wrap, which their `source` leaves out.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |current| cause_of(*current))
}

fn cause_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.map(|inner| -> &(dyn Error + 'static) { inner }).or_else(|| error.source())
}

fn tls_fault(error: &reqwest::Error) -> Option<&Tls> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn io_fault(error: &reqwest::Error) -> Option<&io::Error> {
    causes(error).filter_map(|cause| cause.downcast_ref()).last()
}

fn is_timeout(error: &reqwest::Error) -> bool {
    error.is_timeout()
}

fn is_lookup(error: &reqwest::Error) -> bool {
    says(error, "dns error")
}

/// Whether one of the causes says this: hyper's types for them cannot be named.
fn says(error: &reqwest::Error, text: &str) -> bool {
    causes(error).any(|cause| cause.to_string().contains(text))
}

/// By the words of hyper-util 0.1 (client/legacy/connect/proxy).
fn by_proxy(error: &reqwest::Error) -> Option<ByProxy> {
    let any = |texts: &[&str]| texts.iter().any(|text| says(error, text));
    if any(&[
        "proxy authorization required",
        "credentials not accepted",
        "does not support user/pass authentication",
        "implements authentication incorrectly",
    ]) {
        Some(ByProxy::Refusal)
    } else if any(&["failed to create underlying connection"]) {
        Some(ByProxy::OutOfReach)
    } else if any(&["tunnel error: unexpected end of file", "io error establishing tunnel", "io error during SOCKS"]) {
        Some(ByProxy::HungUp)
    } else if any(&["tunnel error", "SOCKS error"]) {
        Some(ByProxy::NoTunnel)
    } else {
        None
    }
}

/// The innermost reason, in plain words.
fn why(error: &reqwest::Error) -> String {
    if let Some(tls) = tls_fault(error) {
        return words::of_tls(tls);
    }
    match io_fault(error) {
        Some(fault) => quoted(&words::of_io(fault)),
        None if error.is_body() || error.is_decode() => "the answer is not well-formed HTTP".to_owned(),
        None if says(error, "connection closed") || says(error, "incomplete message") => {
            "it closed the connection".to_owned()
        }
        None => "it does not speak HTTP as it should".to_owned(),
    }
}
