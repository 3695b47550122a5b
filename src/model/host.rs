//! A workspace's host, normalised as the vendor's SDKs do (fixHostIfNeeded in databricks-sdk-go's config.go).

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use super::database::is_lakebase_host;
use super::left_over::looks_left_over;
use super::pasted::Pasted;
use super::server::{left_over_of, name_misfit};
use super::vendor;
use crate::words;

/// Scheme, host and port of a workspace, and the ids that its address named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceHost {
    origin: String,
    name: String,
    workspace_id: Option<String>,
    account_id: Option<String>,
}

/// Who named an address that something secret is to be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// A setting, a constant, or whoever answers for the workspace.
    Anybody,
    /// The host itself, in the document that says which account it belongs to.
    HostMetadata,
}

impl WorkspaceHost {
    /// Reads what a person wrote: the scheme may be missing; path, query and fragment are dropped, after the workspace id has
    /// been read from `?o=`, `?workspace_id=` or `?w=`, and the account's from `?a=` or `?account_id=`.
    ///
    /// # Errors
    /// A sentence that says why this cannot be a workspace.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_matches(is_around);
        if text.is_empty() {
            return Err("the host is empty".to_owned());
        }
        if let Some(left_over) = left_over_of(text) {
            return Err(format!("{}: {}", left_over.why, left_over.hint));
        }
        if !text.contains("://") && ["http:", "https:"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(format!("`{text}` is not a workspace address: it has no // after its scheme"));
        }
        if [('<', '>'), ('{', '}')]
            .iter()
            .any(|(open, close)| text.split_once(*open).is_some_and(|(_, rest)| rest.contains(*close)))
        {
            return Err(format!("`{text}` is not a workspace address: it holds a placeholder of an example"));
        }
        if let Some(Pasted { what, .. }) = Pasted::of(text) {
            let example = "https://dbc-1234.cloud.databricks.com";
            return Err(format!("{what} leads to a database: write the address of the workspace, such as {example}"));
        }
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&full).map_err(|fault| {
            let why = words::of_address(fault);
            format!("`{text}` is not a workspace address: {why}")
        })?;
        let Some(host) = url.host() else {
            return Err(format!("`{text}` is not a workspace address: it names no host"));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a workspace address holds no user name or password".to_owned());
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&host) => {}
            "http" => return Err(format!("`{text}` would send secrets unencrypted: use https://{host}")),
            other => return Err(format!("`{text}` has the scheme {other}: a workspace is reached by https")),
        }
        if let Some(misfit) = url.domain().and_then(name_misfit) {
            return Err(format!("`{text}` is not a workspace address: {}", misfit.why));
        }
        let name = host.to_string();
        if let Some(why) = misfit_of_name(&name, &url) {
            return Err(format!("`{text}` is not a workspace address: {why}"));
        }
        let origin = url.origin().ascii_serialization();
        let (workspace_id, account_id) = (workspace_id_of(&url), account_id_of(&url));
        Ok(WorkspaceHost { origin, name, workspace_id, account_id })
    }

    /// The place where a method signs in, as this address has it: by https; without it on this machine, and at the addresses that
    /// lead no further than the machine below it (RFC 3927), where clouds have the service that knows it.
    ///
    /// # Errors
    /// What keeps it from being one.
    pub(crate) fn of_login(address: &str) -> Result<Self, String> {
        let url = Url::parse(address).map_err(|_| "it is no address".to_owned())?;
        let Some(host) = url.host() else { return Err("it names no host".to_owned()) };
        if names_somebody(&url) {
            return Err("it holds a user name".to_owned());
        }
        let is_near = is_loopback(&host) || matches!(host, Host::Ipv4(address) if address.is_link_local());
        match url.scheme() {
            "https" => {}
            "http" if is_near => {}
            _ => return Err("what is sent there could be read on the way".to_owned()),
        }
        let (origin, name) = (url.origin().ascii_serialization(), host.to_string());
        Ok(WorkspaceHost { origin, name, workspace_id: None, account_id: None })
    }

    /// Whether it is this machine itself.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        Url::parse(&self.origin).is_ok_and(|url| url.host().is_some_and(|host| is_loopback(&host)))
    }

    /// `https://host[:port]`, without a slash at the end.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Why a secret or a token of this workspace must not be sent to `url`; none where it may be. Every request that carries one
    /// goes through here (`http::WorkspaceClient::request`), so that each sign-in method keeps the same rule: scheme, host and port
    /// are those that a person configured, or the host itself said that its account signs in elsewhere at the vendor's.
    pub(crate) fn bars(&self, url: &Url, named_by: NamedBy) -> Option<String> {
        let origin = url.origin();
        let other = if origin.is_tuple() { origin.ascii_serialization() } else { format!("{}:", url.scheme()) };
        if other != self.origin {
            return match named_by {
                NamedBy::Anybody => Some(format!("{other} is another origin than {}", self.origin)),
                NamedBy::HostMetadata if vendor::is_sign_in(url) && !names_somebody(url) => None,
                NamedBy::HostMetadata => {
                    Some(format!("{other} is another origin than {}, and no sign-in of Databricks' own", self.origin))
                }
            };
        }
        let why = || format!("the address at {other} holds a user name, as that of {} does not", self.origin);
        names_somebody(url).then(why)
    }

    /// Whether it is spoken to by TLS; only this machine itself need not be.
    pub(crate) fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        Url::parse(&self.origin).ok().and_then(|url| url.port_or_known_default()).unwrap_or(443)
    }

    /// The bare host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is the workspace's own host, where no database can be. This machine itself may have both.
    pub(crate) fn is_named(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        !self.is_on_this_machine() && self.name.eq_ignore_ascii_case(host)
    }

    /// The workspace id that the address named in its query.
    pub fn workspace_id(&self) -> Option<&str> {
        self.workspace_id.as_deref()
    }

    /// The account's id that the address named in its query.
    pub(crate) fn account_id(&self) -> Option<&str> {
        self.account_id.as_deref()
    }

    /// Why nobody signs in here to a database; none where that is not known.
    pub(crate) fn is_no_workspace(&self) -> Option<String> {
        let what = if vendor::is_account_console(&self.name) {
            "an account console: it lists workspaces and has no databases"
        } else if vendor::is_for_people(&self.name) {
            "a page for people: it has no databases"
        } else {
            return None;
        };
        Some(format!("{} is {what}", self.origin))
    }
}

impl fmt::Display for WorkspaceHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

/// Whether an address may be used without TLS: only this machine itself.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        // Names below it may be other machines': not every resolver keeps them here (RFC 6761, section 6.3).
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::V4(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(*address).is_loopback(),
    }
}

/// What editors and shells put around a value, and nobody sees.
pub(crate) fn is_around(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}')
}

/// Why no workspace can have this address, though it is one.
fn misfit_of_name(name: &str, url: &Url) -> Option<String> {
    if matches!(name, "http" | "https") {
        return Some("the scheme is there twice, or a part of :// is missing".to_owned());
    }
    if url.port() == Some(0) {
        return Some("port 0 cannot be used".to_owned());
    }
    if is_lakebase_host(name) {
        return Some("it is a database's host".to_owned());
    }
    if !name.contains('.') && (name.starts_with("dbc-") || name.starts_with("adb-")) {
        return Some("its domain is missing, such as .cloud.databricks.com or .azuredatabricks.net".to_owned());
    }
    if ["workspace", "host", "hostname", "databricks", "example"].contains(&name) {
        return Some("it is the word for one, not its name".to_owned());
    }
    let ids = ["o", "w", "workspace_id", "a", "account_id"];
    let mut queried = url.query_pairs().filter(|(key, _)| ids.contains(&key.as_ref()));
    queried.find_map(|(key, value)| Some(format!("{key}={value} {}", looks_left_over(&value)?)))
}

fn names_somebody(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// As databricks-sdk-go reads it (config.go, `accountIDFromQuery`).
fn account_id_of(url: &Url) -> Option<String> {
    ["a", "account_id"].into_iter().find_map(|wanted| {
        let (_, value) = url.query_pairs().find(|(name, _)| name == wanted)?;
        is_account_id(&value).then(|| value.into_owned())
    })
}

/// A UUID, or what else can be a part of a path as it stands.
pub(crate) fn is_account_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn workspace_id_of(url: &Url) -> Option<String> {
    ["o", "workspace_id", "w"].into_iter().find_map(|wanted| {
        let (_, value) = url.query_pairs().find(|(name, _)| name == wanted)?;
        (!value.is_empty() && value.bytes().all(|b| b.is_ascii_digit())).then(|| value.into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normalised_as_the_sdks_do() {
        for (written, origin) in [
            ("dbc-1.cloud.databricks.com", "https://dbc-1.cloud.databricks.com"),
            ("https://dbc-1.cloud.databricks.com/", "https://dbc-1.cloud.databricks.com"),
            ("https://dbc-1.cloud.databricks.com:443/login.html#x", "https://dbc-1.cloud.databricks.com"),
            ("https://adb-1.2.azuredatabricks.net/?o=42#job", "https://adb-1.2.azuredatabricks.net"),
            ("https://Host.Example:8443/a/b", "https://host.example:8443"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://[::1]:8080/x", "http://[::1]:8080"),
            (" https://h.example ", "https://h.example"),
            ("\u{feff}https://h.example\u{200b}\r\n", "https://h.example"),
        ] {
            assert_eq!(WorkspaceHost::parse(written).unwrap().origin(), origin, "{written}");
        }
    }

    #[test]
    fn without_tls_only_this_machine_itself_is_asked() {
        for other in ["http://foo.localhost:8080", "http://localhost.example", "http://192.0.2.2", "http://[fe80::1]"] {
            assert!(WorkspaceHost::parse(other).unwrap_err().contains("unencrypted"), "{other}");
        }
    }

    #[test]
    fn the_workspace_id_is_read_before_the_query_is_dropped() {
        let id = |text: &str| WorkspaceHost::parse(text).unwrap().workspace_id().map(str::to_owned);
        assert_eq!(id("https://spog.databricks.com/?o=123"), Some("123".to_owned()));
        assert_eq!(id("https://spog.databricks.com/?w=7&o=8"), Some("8".to_owned()));
        assert_eq!(id("https://spog.databricks.com/?o=abc"), None);
    }

    #[test]
    fn a_secret_may_go_to_the_same_scheme_host_and_port_and_nowhere_else() {
        let secure = WorkspaceHost::parse("https://dbc-1.cloud.databricks.com").unwrap();
        for (url, may) in [
            ("https://dbc-1.cloud.databricks.com/oidc/v1/token", true),
            ("https://dbc-1.cloud.databricks.com/another/path?x=1#y", true),
            ("https://DBC-1.Cloud.Databricks.COM/oidc/v1/token", true),
            ("https://dbc-1.cloud.databricks.com:443/oidc/v1/token", true),
            ("https://dbc-1.cloud.databricks.com:444/oidc/v1/token", false),
            ("http://dbc-1.cloud.databricks.com/oidc/v1/token", false),
            ("http://dbc-1.cloud.databricks.com:443/oidc/v1/token", false),
            ("https://dbc-1.cloud.databricks.com./oidc/v1/token", false),
            ("https://dbc-2.cloud.databricks.com/oidc/v1/token", false),
            ("https://cloud.databricks.com/oidc/v1/token", false),
            ("https://dbc-1.cloud.databricks.com.evil.example/oidc/v1/token", false),
            ("https://evil.example/https://dbc-1.cloud.databricks.com/", false),
            ("https://dbc-1.cloud.databricks.com@evil.example/oidc/v1/token", false),
            ("https://evil.example#@dbc-1.cloud.databricks.com/", false),
            ("https://evil.example\\@dbc-1.cloud.databricks.com/", false),
            ("https://ada@dbc-1.cloud.databricks.com/oidc/v1/token", false),
            ("https://ada:x@dbc-1.cloud.databricks.com/oidc/v1/token", false),
            ("https://dbc-1.cloud.dat\u{430}bricks.com/oidc/v1/token", false),
            ("https://dbc-1.cloud.xn--dtabricks-8ig.com/oidc/v1/token", false),
            ("https://dbc\u{2010}1.cloud.databricks.com/oidc/v1/token", false),
            ("https://127.0.0.1/oidc/v1/token", false),
            ("https://[::1]/oidc/v1/token", false),
            ("ftp://dbc-1.cloud.databricks.com/oidc/v1/token", false),
            ("file:///oidc/v1/token", false),
            ("data:text/plain,x", false),
        ] {
            // What cannot be read as an address is none that anything is sent to.
            let may_receive = Url::parse(url).is_ok_and(|url| secure.bars(&url, NamedBy::Anybody).is_none());
            assert_eq!(may_receive, may, "{url}");
        }
        let plain = WorkspaceHost::parse("http://127.0.0.1:8080").unwrap();
        for (url, may) in [
            ("http://127.0.0.1:8080/x", true),
            ("http://127.1:8080/x", true),
            ("http://localhost:8080/x", false),
            ("http://127.0.0.2:8080/x", false),
            ("http://127.0.0.1:8081/x", false),
            ("https://127.0.0.1:8080/x", false),
        ] {
            assert_eq!(plain.bars(&Url::parse(url).unwrap(), NamedBy::Anybody).is_none(), may, "{url}");
        }
    }

    #[test]
    fn host_metadata_may_name_a_sign_in_of_the_vendors_and_no_other_origin() {
        for configured in ["https://data.corp.example", "https://acme.databricks.com", "https://localhost:8443"] {
            let host = WorkspaceHost::parse(configured).unwrap();
            for (url, may) in [
                ("https://accounts.cloud.databricks.com/oidc/accounts/0b1c/v1/token", true),
                ("https://dbc-1.cloud.databricks.com/oidc/v1/token", true),
                (&format!("{configured}/oidc/accounts/0b1c/v1/token"), true),
                (&format!("{configured}/elsewhere"), true),
                ("https://ada@accounts.cloud.databricks.com/oidc/v1/token", false),
                ("http://accounts.cloud.databricks.com/oidc/v1/token", false),
                ("https://accounts.cloud.databricks.com.evil.example/oidc/v1/token", false),
                ("https://dbc-1.cloud.databricks.com/driver-proxy/x", false),
                ("https://evil.example/oidc/v1/token", false),
                ("https://other.databricks.com/oidc/v1/token", false),
                ("https://127.0.0.1/oidc/v1/token", false),
                ("https://localhost:8444/oidc/v1/token", false),
            ] {
                let url = Url::parse(url).unwrap();
                let why = host.bars(&url, NamedBy::HostMetadata);
                assert_eq!(why.is_none(), may, "{configured} {url}");
                let names_both = |why: &String| why.contains(host.origin()) && why.contains(url.host_str().unwrap());
                assert!(why.as_ref().is_none_or(names_both), "{why:?}");
                let own = url.origin().ascii_serialization() == host.origin();
                assert_eq!(host.bars(&url, NamedBy::Anybody).is_none(), own, "{configured} {url}");
            }
        }
    }

    #[test]
    fn an_account_is_read_from_the_address_and_can_be_nothing_but_an_id() {
        let id = |text: &str| WorkspaceHost::parse(text).unwrap().account_id().map(str::to_owned);
        assert_eq!(id("https://acme.databricks.com/?o=1&a=0b1c-2d"), Some("0b1c-2d".to_owned()));
        assert_eq!(id("https://acme.databricks.com/?account_id=0b1c"), Some("0b1c".to_owned()));
        for other in ["", "..", "a/b", "%2e%2e", "a b"] {
            assert_eq!(id(&format!("https://acme.databricks.com/?a={other}")), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_a_workspace_is_refused() {
        for written in [
            "https:/dbc-1.cloud.databricks.com",
            "https:dbc-1.cloud.databricks.com",
            "https://{workspace}.x",
            "https://<workspace>",
            "\"https://x\"",
            "${HOST}",
            "https://a..b",
            "https://WORKSPACE",
            "databricks",
            "https://K\u{e4}RNTEN.example",
            "",
            "http://dbc-1.cloud.databricks.com",
            "ftp://x",
            "https://u:p@x",
            "postgresql://ada:pw@db.example/x",
            "psql -h db.example -U ada",
            "https://",
            "a b",
            "@DATABRICKS_HOST@",
            "__HOST__",
            "https://<workspace>.cloud.databricks.com",
            "https://YOUR-WORKSPACE.cloud.databricks.com",
            "https://dbc-xxxxxxxx-xxxx.cloud.databricks.com",
            "null",
            "https:/x.example",
            "https//x.example",
            "https://https://x.example",
            "https://-x.example",
            "https://x.example:0",
            "https://x.example/?o=<id>",
            "https://x.example/?o=${ID}",
            "dbc-1234abcd-5678",
            "https://instance-1.database.cloud.databricks.com",
            "https://ep-quiet-sun-1.database.us-east-1.cloud.databricks.com",
        ] {
            let refused = WorkspaceHost::parse(written).map(|host| host.name).unwrap_err();
            assert!(!refused.contains("ada"), "{refused}");
        }
    }
}
