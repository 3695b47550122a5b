//! The proxy for HTTPS: what a person wrote, read by the rules that Go's clients follow, so that this program and the Databricks
//! CLI take the same way. Values and rules only: nothing here connects to anything.
//!
//! The rules are those of golang.org/x/net/http/httpproxy. Go goes directly where it cannot read a value; here that is a fault.
//! Only HTTPS counts: a workspace is reached without TLS on this machine alone, where no proxy belongs. So `HTTP_PROXY` has no
//! say, which a web server would fill with a header of whoever asks it (<https://httpoxy.org>).
//!
//! Invariant: no text that is made here holds a password, whatever is wrong with the value.

mod exceptions;
mod value;

use std::fmt::Write as _;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

pub(crate) use exceptions::Exceptions;
pub(crate) use value::{Misfit, passwords_in, without_password};

/// The variables for HTTPS, and for what is reached without a proxy; the first of each that is set counts.
pub(crate) const PROXY_VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
pub(crate) const EXCEPTION_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Variables that other programs take a proxy for HTTPS from, and Go's clients do not.
pub(crate) const UNUSED_VARIABLES: [&str; 2] = ["ALL_PROXY", "all_proxy"];

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
    /// Names are found by the proxy, whichever of `socks5` and `socks5h` was written: as Go does it.
    Socks5,
}

impl Scheme {
    fn word(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            // Go has known `socks5h` for a few years only.
            Scheme::Socks5 => "socks5",
        }
    }

    fn usual_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
            Scheme::Socks5 => 1080,
        }
    }
}

/// One proxy, and who we are to it.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    scheme: Scheme,
    /// As in a URL: an IPv6 address has its brackets.
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<SecretString>,
    /// Which setting it is from, for messages: `$HTTPS_PROXY`.
    from: String,
}

impl Proxy {
    /// Reads what a person wrote, with blanks around it or not; `from` is where.
    ///
    /// # Errors
    /// Why that is no proxy, and what to write instead.
    pub(crate) fn parse(text: &str, from: impl Into<String>) -> Result<Self, Misfit> {
        value::parse(text, from.into())
    }

    /// Host and port, for messages.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Which setting it is from.
    pub(crate) fn from(&self) -> &str {
        &self.from
    }

    /// Its address as it may be shown.
    pub(crate) fn shown(&self) -> String {
        let user = self.user.as_deref().map(encoded).unwrap_or_default();
        let password = if self.password.is_some() { ":********" } else { "" };
        let at = if self.user.is_some() { "@" } else { "" };
        format!("{}://{user}{password}{at}{}:{}", self.scheme.word(), self.host, self.port)
    }

    /// Its whole address with the password, in a form that every program reads alike.
    pub(crate) fn address(&self) -> Zeroizing<String> {
        let password = self.password.as_ref().map(|password| Zeroizing::new(encoded(password.expose_secret())));
        let mut address = Zeroizing::new(String::with_capacity(512));
        address.push_str(self.scheme.word());
        address.push_str("://");
        if let Some(user) = &self.user {
            address.push_str(&encoded(user));
            if let Some(password) = &password {
                address.push(':');
                address.push_str(password);
            }
            address.push('@');
        }
        // Writing to a String cannot fail.
        let _ = write!(address, "{}:{}", self.host, self.port);
        address
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host as it is looked up and as its certificate has it.
    pub(crate) fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }
}

/// All that RFC 3986 (section 2.3) does not keep for other purposes stays, the rest is written in hexadecimal.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// How a host is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route<'p> {
    /// By no proxy, whatever is set anywhere.
    Direct,
    By(&'p Proxy),
    /// Nobody has set a proxy, so that what the system has set may count.
    Unset,
}

impl<'p> Route<'p> {
    pub(crate) fn proxy(self) -> Option<&'p Proxy> {
        match self {
            Route::By(proxy) => Some(proxy),
            Route::Direct | Route::Unset => None,
        }
    }
}

/// The proxy that is set, if any, and what is reached without it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    proxy: Option<Arc<Proxy>>,
    exceptions: Arc<Exceptions>,
}

impl Proxies {
    pub(crate) fn new(proxy: Option<Proxy>, exceptions: Exceptions) -> Self {
        Proxies { proxy: proxy.map(Arc::new), exceptions: Arc::new(exceptions) }
    }

    /// The proxy that is set, whatever it is used for.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_deref()
    }

    /// How this host is reached; `host` as a URL has it, an IPv6 address with or without its brackets.
    pub(crate) fn route(&self, host: &str, port: u16) -> Route<'_> {
        match self.proxy.as_deref() {
            _ if self.exceptions.has(host, port) => Route::Direct,
            Some(proxy) => Route::By(proxy),
            None => Route::Unset,
        }
    }

    /// What a program of Go must find in its environment to take the same way.
    pub(crate) fn variables(&self) -> Vec<(&'static str, Zeroizing<String>)> {
        let proxy = self.proxy.iter().map(|proxy| ("HTTPS_PROXY", proxy.address()));
        let exceptions = Some(self.exceptions.text()).filter(|text| !text.is_empty());
        proxy.chain(exceptions.map(|text| ("NO_PROXY", text.to_owned().into()))).collect()
    }
}

#[cfg(test)]
mod tests;
