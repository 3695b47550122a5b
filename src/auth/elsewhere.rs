//! The one place besides the workspace where a method signs in: Microsoft's, Google's, a service on this machine.
//!
//! Invariant: a method names its place by a constant, or by what came together with its secret, and what it sends goes to that
//! origin alone. It is never named by an answer.

use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::http::{Answer, WorkspaceClient};
use crate::model::{Workspace, WorkspaceHost};
use crate::os::blocking::addresses;

/// How long a service beside this program may take to open its door.
const DOOR_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Elsewhere {
    host: WorkspaceHost,
    pub(super) url: Url,
}

impl Elsewhere {
    /// The place with this address, which `named_by` has named.
    ///
    /// # Errors
    /// Permanent: it is no address, or what is sent there could be read on the way.
    pub(super) fn at(address: &str, named_by: &str) -> Result<Self, Failure> {
        let fail = |why: String| {
            let message = format!("{named_by} names no place to sign in at: {why}");
            Failure::permanent(Code::Configuration, message)
                .hint("it must be an address with https, or one of this machine")
        };
        let host = WorkspaceHost::of_login(address).map_err(fail)?;
        let url = Url::parse(address).map_err(|_| fail("it is no address".to_owned()))?;
        Ok(Elsewhere { host, url })
    }

    /// The same on this machine alone.
    ///
    /// # Errors
    /// As [`Elsewhere::at`]; and where it is another machine.
    pub(super) fn on_this_machine(address: &str, named_by: &str) -> Result<Self, Failure> {
        let at = Self::at(address, named_by)?;
        if at.host.is_on_this_machine() {
            return Ok(at);
        }
        let message = format!("{named_by} names another machine: {}", at.host.origin());
        Err(Failure::permanent(Code::Configuration, message)
            .hint("only localhost and 127.0.0.1 hand out tokens in this way"))
    }

    /// The same where no network lies before it: on this machine, or the one below it.
    ///
    /// # Errors
    /// As [`Elsewhere::at`]; and where it is farther away.
    pub(super) fn near(address: &str, named_by: &str) -> Result<Self, Failure> {
        let at = Self::at(address, named_by)?;
        if at.is_near() {
            return Ok(at);
        }
        let message = format!("{named_by} names another machine: {}", at.host.origin());
        Err(Failure::permanent(Code::Configuration, message)
            .hint("the service is on this machine, or at 169.254.169.254"))
    }

    /// Whether something is there. Where there is nothing, an address that nobody has may not even refuse, so this waits for a second only.
    pub(super) async fn answers(&self) -> bool {
        let connect = async {
            let all = addresses(self.host.name(), self.host.port()).await?;
            tokio::net::TcpStream::connect(&all[..]).await
        };
        matches!(tokio::time::timeout(DOOR_LIMIT, connect).await, Ok(Ok(_)))
    }

    /// Whether it is this machine, or the one below it.
    fn is_near(&self) -> bool {
        let is_link_local = self.host.name().parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_link_local());
        is_link_local || self.host.is_on_this_machine()
    }

    /// What it is called in messages.
    pub(super) fn origin(&self) -> &str {
        self.host.origin()
    }

    /// What speaks with it, by the proxy that is meant for it.
    pub(super) fn client<'a>(&'a self, workspace: &'a Workspace) -> WorkspaceClient<'a> {
        WorkspaceClient::new(&self.host, workspace.ca_file.as_deref(), workspace.route_to(&self.host))
    }

    /// Sends one of its client's requests, and reads the answer.
    ///
    /// # Errors
    /// Permanent: it refuses. Transient: it does not answer, or not with what was asked for.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        http: &WorkspaceClient<'_>,
        request: RequestBuilder,
        limit: Duration,
        hint: &str,
    ) -> Result<T, Failure> {
        let answer = http.exchange(request, limit).await?;
        let to = self.origin();
        if let Some(trouble) = answer.trouble(to) {
            return Err(trouble);
        }
        if !answer.status.is_success() {
            let (status, said) = (answer.status.as_u16(), said(&answer));
            let message = format!("{to} gives no token: it answers with {status}{said}");
            return Err(Failure::permanent(Code::SignInRefused, message).hint(hint));
        }
        serde_json::from_slice(&answer.body).map_err(|_| {
            Failure::transient(Code::Unavailable, format!("{to} answered with something that is no token"))
        })
    }
}

/// A sentence from the body of a refusal, if there is one.
fn said(answer: &Answer) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    // Google's are one level deeper.
    let text = json.as_ref().and_then(|json| {
        ["/message", "/error_description", "/error", "/error/message"].iter().find_map(|at| json.pointer(at)?.as_str())
    });
    text.map_or_else(String::new, |text| format!(": {}", quoted(text)))
}

/// The header that shows a token.
pub(super) fn bearer(token: &SecretString) -> HeaderMap {
    let text = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}
