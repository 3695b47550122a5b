//! One HTTP exchange with a workspace: limited in time and size, never redirected, with a message for each way to fail.
//!
//! Sign-in and Lakebase's API share it and its connection.

mod gate;
mod knock;
mod private;
mod tls;
mod trouble;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AGE, CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rustls::ClientConfig;
use url::Url;
use zeroize::Zeroizing;

use self::knock::Barred;
pub(crate) use self::private::PrivateClient;
use self::trouble::Way;
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::model::{NamedBy, OWN_ADDRESS, WorkspaceHost};
use crate::os::blocking::addresses;
use crate::os::clock::{Anchor, Reading};
use crate::os::wiped;
use crate::proxies::{Proxy, Route, Scheme};
use crate::words;

/// The limit of golang/oauth2 for a token endpoint's answer (internal/token.go).
const LARGEST_BODY: usize = 1024 * 1024;

/// A host that does not accept a connection within this counts as unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The variables that the HTTP library would read.
const OTHERS_READ: [&str; 8] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"];

/// What every workspace tells everybody (RFC 8414, section 3).
pub(crate) const DISCOVERY: &str = "/oidc/.well-known/oauth-authorization-server";

/// Speaks HTTP with one workspace. The client is made when first needed, since reading the platform's authorities takes a while.
pub(crate) struct WorkspaceClient<'a> {
    host: &'a WorkspaceHost,
    /// Authorities to trust besides the platform's.
    ca_file: Option<&'a Path>,
    route: Route<'a>,
    setup: OnceLock<Setup>,
    /// What the newest answer told of the workspace's clock.
    clock: Mutex<Option<Anchor>>,
}

impl<'a> WorkspaceClient<'a> {
    pub(crate) fn new(host: &'a WorkspaceHost, ca_file: Option<&'a Path>, route: Route<'a>) -> Self {
        WorkspaceClient { host, ca_file, route, setup: OnceLock::new(), clock: Mutex::default() }
    }

    /// The workspace's clock in the newest answer, whatever that answered.
    pub(crate) fn anchor(&self) -> Option<Anchor> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why nothing secret may be sent to this address; none where it may (see [`WorkspaceHost::bars`]).
    pub(crate) fn bars(&self, url: &Url, named_by: NamedBy) -> Option<String> {
        self.host.bars(url, named_by)
    }

    /// The failure of a proxy that has refused who we are, while it is not to be asked again.
    pub(crate) fn closed_by_proxy(&self) -> Option<Failure> {
        self.route.proxy().filter(|proxy| gate::is_closed(proxy)).map(trouble::refused_by_proxy)
    }

    /// Remembers that the proxy has refused another program that came with the same user and password.
    pub(crate) fn note_refusal_by_proxy(&self) -> Option<Failure> {
        self.route.proxy().inspect(|proxy| gate::refused(proxy)).map(trouble::refused_by_proxy)
    }

    /// The workspace's address.
    pub(crate) fn origin(&self) -> &'a str {
        self.host.origin()
    }

    /// A request to the workspace, which may carry secrets and tokens. This is the only place that makes one.
    ///
    /// # Errors
    /// Permanent: the address belongs to another origin; or as [`set_up`].
    pub(crate) fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, Failure> {
        self.request_to(method, url, NamedBy::Anybody)
    }

    /// The same, where the address may be one that the workspace's host metadata named.
    ///
    /// # Errors
    /// As [`WorkspaceClient::request`].
    pub(crate) fn request_to(&self, method: Method, url: Url, named_by: NamedBy) -> Result<RequestBuilder, Failure> {
        if let Some(why) = self.host.bars(&url, named_by) {
            return Err(Failure::permanent(
                Code::Configuration,
                format!("nothing secret is sent there: {}", quoted(&why)),
            )
            .hint(OWN_ADDRESS));
        }
        Ok(self.client()?.request(method, url))
    }

    /// An address on the workspace.
    ///
    /// # Errors
    /// Permanent: the workspace's own address is unusable.
    pub(crate) fn url(&self, path: &str) -> Result<Url, Failure> {
        let origin = self.origin();
        Url::parse(origin)
            .and_then(|url| url.join(path))
            .map_err(|_| Failure::permanent(Code::Configuration, format!("{origin} is not an address")))
    }

    /// Sends one of this client's requests and collects the answer within `limit`.
    ///
    /// # Errors
    /// Transient: out of reach, too slow, broken off, too large. Permanent: a certificate that is not trusted, a proxy that refuses
    /// who we are.
    pub(crate) async fn exchange(&self, request: RequestBuilder, limit: Duration) -> Result<Answer, Failure> {
        self.exchange_with(self.origin(), request, limit).await
    }

    /// The same with what the other side is called in a failure, where that is not the workspace itself.
    ///
    /// # Errors
    /// As [`WorkspaceClient::exchange`].
    pub(crate) async fn exchange_with(
        &self,
        to: &str,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        tokio::time::timeout(limit, self.collect(to, request)).await.unwrap_or_else(|_| {
            let message = format!("{to} did not answer within {} s", limit.as_secs_f32().ceil());
            Err(Failure::transient(Code::Unavailable, message)
                .hint("it is tried again; if it stays so, check network, VPN and proxy"))
        })
    }

    async fn collect(&self, to: &str, request: RequestBuilder) -> Result<Answer, Failure> {
        let response = self.send(to, request).await?;
        let received = Reading::now();
        self.learn_time(response.headers(), &received);
        let too_large = || {
            Failure::transient(Code::Unavailable, format!("{to} answered with more than 1 MiB"))
                .hint("check that the host is a workspace")
        };
        whole(to, response, received, too_large).await
    }

    async fn send(&self, to: &str, request: RequestBuilder) -> Result<Response, Failure> {
        let way = Way { to, proxy: self.route.proxy() };
        let Some(proxy) = way.proxy else {
            return request.send().await.map_err(|error| trouble::unreachable(&error, way));
        };
        self.pass(proxy).await?;
        let sent = request.send().await.inspect(|_| gate::let_through(proxy));
        sent.map_err(|error| {
            // It may have changed its mind since: then the next one asks anew.
            if trouble::is_refusal_of_proxy(&error, way) {
                gate::refused(proxy)
            } else {
                gate::close(proxy)
            }
            trouble::unreachable(&error, way)
        })
    }

    /// Makes sure that the proxy lets through, where that is not known.
    async fn pass(&self, proxy: &Proxy) -> Result<(), Failure> {
        let _turn = gate::enter(proxy).await;
        if let Some(failure) = self.closed_by_proxy() {
            return Err(failure);
        }
        if gate::is_open(proxy) || proxy.scheme() == Scheme::Socks5 {
            return Ok(());
        }
        let knocked =
            knock::knock(proxy, (self.host.name(), self.host.port()), &self.setup()?.tls, CONNECT_LIMIT).await;
        if let Err(Barred::Status(401 | 407)) = knocked {
            gate::refused(proxy);
        }
        knocked.map_err(|barred| trouble::barred(&barred, proxy, self.origin()))?;
        gate::let_through(proxy);
        Ok(())
    }

    /// The workspace's clock, asked for without any secret; none where nobody answers within `limit`.
    pub(crate) async fn ask_time(&self, limit: Duration) -> Option<Anchor> {
        let request = self.request(Method::GET, self.url(DISCOVERY).ok()?).ok()?;
        self.exchange(request, limit).await.ok()?.anchor()
    }

    /// Keeps the newest reading: answers may be processed in another order than they arrived.
    fn learn_time(&self, headers: &HeaderMap, received: &Reading) {
        let Some(anchor) = anchor(headers, received) else { return };
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if clock.as_ref().is_none_or(|newest| newest.since_boot_seconds <= anchor.since_boot_seconds) {
            *clock = Some(anchor);
        }
    }

    /// The client, which keeps the connection open.
    ///
    /// # Errors
    /// As [`set_up`].
    fn client(&self) -> Result<&Client, Failure> {
        Ok(&self.setup()?.client)
    }

    fn setup(&self) -> Result<&Setup, Failure> {
        if let Some(setup) = self.setup.get() {
            return Ok(setup);
        }
        let setup = set_up(self.ca_file, self.route)?;
        Ok(self.setup.get_or_init(|| setup))
    }
}

/// Reads an answer to its end.
async fn whole(
    to: &str,
    mut response: Response,
    received: Reading,
    too_large: impl FnOnce() -> Failure,
) -> Result<Answer, Failure> {
    let (status, headers) = (response.status(), response.headers().clone());
    let told = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let mut body = Zeroizing::new(Vec::with_capacity(told.min(LARGEST_BODY)));
    while let Some(chunk) = response.chunk().await.map_err(|error| trouble::broken(&error, to))? {
        if body.len() + chunk.len() > LARGEST_BODY {
            return Err(too_large());
        }
        wiped::append(&mut body, &chunk);
    }
    Ok(Answer { status, headers, body, received })
}

/// What it takes to ask the workspace.
struct Setup {
    client: Client,
    tls: ClientConfig,
}

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Zeroizing<Vec<u8>>,
    headers: HeaderMap,
    received: Reading,
}

impl Answer {
    /// An invented answer, for [`crate::fuzzing`].
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(status: u16, body: &[u8]) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        Answer { status, body: body.to_vec().into(), headers: HeaderMap::new(), received: Reading::now() }
    }

    /// The workspace's clock, if the answer shows it.
    pub(crate) fn anchor(&self) -> Option<Anchor> {
        anchor(&self.headers, &self.received)
    }

    /// The workspace's time when the answer arrived; if the answer does not show it, this machine's.
    pub(crate) fn time(&self) -> Timestamp {
        self.anchor().map_or(self.received.wall, |anchor| anchor.server)
    }

    /// How long the other side asked us to wait: seconds or a date (RFC 9110, section 10.2.3).
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = self.header(&RETRY_AFTER)?.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let until = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
        Some(Duration::try_from(until.duration_since(self.time())).unwrap_or_default())
    }

    /// Where a redirect would lead, without its query, which may contain anything.
    pub(crate) fn location(&self) -> Option<String> {
        let location = self.header(&LOCATION)?;
        Some(quoted(location.split(['?', '#']).next().unwrap_or_default()))
    }

    /// Whether it redirects to the page that says that the workspace can only be reached by private link
    /// (databricks-sdk-py, errors/private_link.py).
    pub(crate) fn is_private_link_block(&self) -> bool {
        self.header(&LOCATION).is_some_and(|location| location.contains("error=private-link-validation-error"))
    }

    /// Whether a web page came where an API should have answered.
    pub(crate) fn is_html(&self) -> bool {
        let declared =
            self.header(&CONTENT_TYPE).is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html"));
        declared || self.body.trim_ascii_start().starts_with(b"<")
    }

    /// A failure that every endpoint may report: now is not the time (RFC 6585, section 4; RFC 9110, section 15.6).
    pub(crate) fn trouble(&self, to: &str) -> Option<Failure> {
        let status = self.status;
        let failure = if status == StatusCode::TOO_MANY_REQUESTS {
            Failure::transient(Code::TryAgain, format!("{to} asks for fewer requests (429)"))
                .hint("it is tried again; if it stays so, see what else sends requests there, and how often")
        } else if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            Failure::transient(Code::Unavailable, format!("{to} failed with status {}", status.as_u16()))
                .hint("it is tried again; if it stays so for hours, look at its status page, or ask whoever runs it")
        } else {
            return None;
        };
        Some(failure.retry_after(self.retry_after()))
    }

    fn header(&self, name: &reqwest::header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The clock of the answering server (RFC 9110, section 6.6.1). None if the answer was in a cache for a while, since its
/// date is then an old one (RFC 9111, section 5.1).
fn anchor(headers: &HeaderMap, received: &Reading) -> Option<Anchor> {
    if headers.get(AGE).is_some_and(|age| age.as_bytes() != b"0") {
        return None;
    }
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(Anchor::new(Timestamp::try_from(date).ok()?, received))
}

/// A client that goes by the workspace's proxy, and trusts the platform's store (or `SSL_CERT_FILE`, `SSL_CERT_DIR`) and, where given,
/// one more file of authorities.
///
/// # Errors
/// Permanent: the file cannot be used, or there is no trust store.
fn set_up(ca_file: Option<&Path>, route: Route<'_>) -> Result<Setup, Failure> {
    let mut builder = plain_client();
    if !is_left_to_the_system(route) {
        // Nothing but our own settings decides.
        builder = builder.no_proxy();
    }
    if let Some(proxy) = route.proxy() {
        builder = builder.proxy(by(proxy)?);
    }
    let authorities = ca_file.map(tls::authorities).transpose()?.unwrap_or_default();
    let tls = tls::of_platform_and(authorities).map_err(|error| tls::unusable(&words::of_tls(&error)))?;
    let client = builder.tls_backend_preconfigured(tls.clone()).build();
    let client = client.map_err(|_| tls::unusable("the parts of it do not fit together"))?;
    Ok(Setup { client, tls })
}

/// What all clients have in common.
fn plain_client() -> reqwest::ClientBuilder {
    Client::builder()
        .user_agent(concat!("dbx-rotator/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_LIMIT)
        .dns_resolver(Arc::new(OfTheSystem))
}

/// Asks the system's resolver for names.
struct OfTheSystem;

impl Resolve for OfTheSystem {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is put in by whoever asks.
            let all = addresses(name.as_str(), 0).await?;
            Ok(Box::new(all.into_iter()) as Addrs)
        })
    }
}

/// Whether macOS is to say by which proxy, in its System Settings: where nothing else does, also no variable that would be read beside
/// them.
fn is_left_to_the_system(route: Route<'_>) -> bool {
    let is_set = |name: &&str| std::env::var_os(name).is_some();
    cfg!(target_os = "macos") && matches!(route, Route::Unset) && !OTHERS_READ.iter().any(is_set)
}

/// By this proxy, and no other way.
fn by(proxy: &Proxy) -> Result<reqwest::Proxy, Failure> {
    let address = proxy.address();
    let rest = address.strip_prefix("socks5://").filter(|_| proxy.scheme() == Scheme::Socks5);
    // So that the proxy finds the name, as Go's clients have it.
    let address = rest.map_or(address.clone(), |rest| format!("socks5h://{rest}").into());
    reqwest::Proxy::all(address.as_str()).map_err(|_| {
        let message = format!("the proxy {} (from {}) cannot be used", proxy.shown(), proxy.from());
        Failure::permanent(Code::Configuration, message).hint("write it as in http://proxy.example:3128")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(date: &str, age: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, date.parse().unwrap());
        age.into_iter().for_each(|age| drop(headers.insert(AGE, age.parse().unwrap())));
        headers
    }

    #[test]
    fn the_newest_answer_tells_the_workspaces_time_unless_a_cache_has_kept_it() {
        let host = WorkspaceHost::parse("https://workspace.example").unwrap();
        let http = WorkspaceClient::new(&host, None, Route::Unset);
        let after = |seconds| Reading { since_boot: Duration::from_secs(seconds), ..Reading::now() };
        let server = || http.anchor().map(|anchor| anchor.server.to_string());
        http.learn_time(&HeaderMap::new(), &after(10));
        assert_eq!(server(), None);
        // When it was received, its date, how long a cache has kept it, and what is known then.
        for (received, date, age, known) in [
            (10, "Thu, 01 Jan 2026 00:00:10 GMT", None, "2026-01-01T00:00:10Z"),
            (20, "Thu, 01 Jan 2026 00:00:20 GMT", Some("0"), "2026-01-01T00:00:20Z"),
            (20, "Thu, 01 Jan 2026 00:00:21 GMT", None, "2026-01-01T00:00:21Z"),
            (19, "Thu, 01 Jan 2026 00:00:19 GMT", None, "2026-01-01T00:00:21Z"),
            (30, "Wed, 31 Dec 2025 23:00:00 GMT", Some("3630"), "2026-01-01T00:00:21Z"),
            (30, "whenever", None, "2026-01-01T00:00:21Z"),
        ] {
            http.learn_time(&headers(date, age), &after(received));
            assert_eq!(server().as_deref(), Some(known), "{date}");
        }
    }
}
