//! One exchange with the API server.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use zeroize::Zeroizing;

use crate::failure::{Code, Failure};
use crate::foreign::{quoted, secrets};
use crate::http::{Answer, PrivateClient};
use crate::model::token::{Claims, LONGEST_TOKEN};
use crate::model::{Cluster, ObjectName, is_label};
use crate::os::dirs::Environment;
use crate::os::files::{read_bytes_up_to, read_text_up_to};
use crate::words;

/// How long one request may take: the API server's own limits are longer, but whoever waits so long does better to ask again.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// More than any bundle of a cluster's authorities has, in bytes.
const LARGEST_BUNDLE: u64 = 256 * 1024;

/// How long a token counts as a secret that does not say when it expires.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// The API server, and who we are to it.
pub(crate) struct ApiServer {
    origin: Url,
    account: PathBuf,
    /// The client, with the authorities that it trusts: they may be replaced while we run.
    client: Mutex<Option<(Vec<u8>, Arc<PrivateClient>)>>,
}

/// What is asked for. Its words are those of the rules of RBAC.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) verb: &'static str,
    pub(super) kind: Kind,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// The kinds of objects that we know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Secret,
    Lease,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        if self == Kind::Secret { "Secret" } else { "Lease" }
    }

    pub(super) fn resource(self) -> &'static str {
        if self == Kind::Secret { "secrets" } else { "leases" }
    }

    pub(super) fn group(self) -> &'static str {
        if self == Kind::Secret { "" } else { "coordination.k8s.io" }
    }

    fn path(self) -> &'static str {
        if self == Kind::Secret { "/api/v1" } else { "/apis/coordination.k8s.io/v1" }
    }
}

impl Call<'_> {
    /// The object, for people.
    pub(super) fn what(&self) -> String {
        format!("the {} {}/{}", self.kind.word(), self.namespace, self.name)
    }

    /// What is done with it, for people.
    pub(super) fn does(&self) -> &'static str {
        match self.verb {
            "get" => "read",
            "create" => "create",
            _ => "write",
        }
    }
}

/// What is sent along.
pub(super) struct Body<'a> {
    pub(super) kind: &'static str,
    pub(super) json: &'a Zeroizing<Vec<u8>>,
    pub(super) query: &'static str,
}

impl ApiServer {
    /// The server that the kubelet told this pod of.
    ///
    /// # Errors
    /// Permanent: this is no pod.
    pub(crate) fn of(cluster: &Cluster, environment: &Environment) -> Result<Self, Failure> {
        let no_pod = |what: String| {
            Failure::permanent(Code::Configuration, format!("there is no Kubernetes API to write to: {what}")).hint(
                "kubernetes_secret is for a pod of the cluster; elsewhere leave it out, or set KUBERNETES_SERVICE_HOST and \
                 KUBERNETES_SERVICE_PORT",
            )
        };
        let host = environment.get("KUBERNETES_SERVICE_HOST");
        let host = host.ok_or_else(|| no_pod("KUBERNETES_SERVICE_HOST is not set".to_owned()))?;
        let port = environment.get("KUBERNETES_SERVICE_PORT").unwrap_or("443");
        let bracketed = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => host.to_owned(),
        };
        let origin = Url::parse(&format!("https://{bracketed}:{port}/")).ok();
        // Nothing but a host and a port may come of them.
        let is_plain = |url: &Url| {
            url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        };
        let origin = origin.filter(is_plain).ok_or_else(|| {
            no_pod(format!("KUBERNETES_SERVICE_HOST and _PORT are no address: {} and {}", quoted(host), quoted(port)))
        })?;
        Ok(ApiServer { origin, account: cluster.account.clone(), client: Mutex::default() })
    }

    /// What it is called in messages.
    pub(super) fn named(&self) -> String {
        format!("the Kubernetes API at {}", self.origin.origin().ascii_serialization())
    }

    /// The namespace of an object: its own, else the pod's.
    ///
    /// # Errors
    /// Permanent: it has none, and the pod's is not known.
    pub(super) fn namespace_of(&self, name: &ObjectName) -> Result<String, Failure> {
        if let Some(namespace) = &name.namespace {
            return Ok(namespace.clone());
        }
        let file = self.account.join("namespace");
        let text = self.read(&file, |file| read_text_up_to(file, 4096))?;
        let namespace = text.trim();
        is_label(namespace).then(|| namespace.to_owned()).ok_or_else(|| {
            let message = format!("{} does not hold the name of a namespace", file.display());
            Failure::permanent(Code::Configuration, message).hint(format!("write \"NAMESPACE/{}\"", name.name))
        })
    }

    /// Asks, with the token as it is now. One that is not accepted is read anew once: the kubelet may just have replaced it.
    ///
    /// # Errors
    /// The service account cannot be read, or there was no answer.
    pub(super) async fn call(
        &self,
        call: &Call<'_>,
        body: Option<Body<'_>>,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let ask = async {
            let first = self.ask(call, body.as_ref()).await?;
            if first.status != StatusCode::UNAUTHORIZED {
                return Ok(first);
            }
            self.ask(call, body.as_ref()).await
        };
        let answer = tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| {
            let message = format!("{} did not answer within {} s", self.named(), limit.as_secs_f32().ceil());
            Err(Failure::transient(Code::Unavailable, message).hint("it is tried again"))
        });
        answer.map_err(|failure| {
            let message = format!("cannot {} {}: {failure}", call.does(), call.what());
            Failure { message, ..failure }
        })
    }

    async fn ask(&self, call: &Call<'_>, body: Option<&Body<'_>>) -> Result<Answer, Failure> {
        let client = self.client()?;
        let method = match call.verb {
            "get" => Method::GET,
            "patch" => Method::PATCH,
            "create" => Method::POST,
            _ => Method::PUT,
        };
        let mut url = self.origin.clone();
        let within = if method == Method::POST { String::new() } else { format!("/{}", call.name) };
        let (path, resource) = (call.kind.path(), call.kind.resource());
        url.set_path(&format!("{path}/namespaces/{}/{resource}{within}", call.namespace));
        url.set_query(body.map(|body| body.query).filter(|query| !query.is_empty()));
        let mut request =
            client.request(method, url).header(ACCEPT, "application/json").header(AUTHORIZATION, self.bearer()?);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, body.kind).body(body.json.to_vec());
        }
        client.exchange(request, LIMIT).await
    }

    /// The token of the service account, as it is now: the kubelet replaces it before it expires.
    fn bearer(&self) -> Result<HeaderValue, Failure> {
        let file = self.account.join("token");
        let text = self.read(&file, |file| read_text_up_to(file, LONGEST_TOKEN as u64))?;
        let token = SecretString::from(text.trim());
        let expires_at = Claims::of(token.expose_secret()).and_then(|claims| claims.expires_at);
        let end = Timestamp::now().checked_add(LONGEST_LIFE).unwrap_or(Timestamp::MAX);
        secrets::keep_until(&token, expires_at.unwrap_or(end));
        let is_token = |byte: u8| byte.is_ascii_graphic();
        let header = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
        let is_one = !token.expose_secret().is_empty() && token.expose_secret().bytes().all(is_token);
        let header = HeaderValue::from_str(&header).ok().filter(|_| is_one);
        let mut header = header.ok_or_else(|| {
            let message = format!("{} holds no token", file.display());
            Failure::permanent(Code::Configuration, message)
                .hint("the kubelet writes it there, where the pod mounts a service account")
        })?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// The client, with a connection that stays open.
    fn client(&self) -> Result<Arc<PrivateClient>, Failure> {
        let file = self.account.join("ca.crt");
        let pem = self.read(&file, |file| read_bytes_up_to(file, LARGEST_BUNDLE))?;
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((trusted, client)) = known.as_ref()
            && *trusted == pem
        {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(PrivateClient::trusting(&pem, &file, self.named())?);
        *known = Some((pem, Arc::clone(&client)));
        Ok(client)
    }

    fn read<T>(&self, file: &Path, read: impl FnOnce(&Path) -> std::io::Result<T>) -> Result<T, Failure> {
        read(file).map_err(|error| {
            let message = format!("cannot read {}: {}", file.display(), words::of_io(&error));
            Failure::permanent(Code::Configuration, message).hint(
                "the pod must mount the token of its service account (automountServiceAccountToken: true), readable for the user it \
                 runs as",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_of_its_server_and_nothing_else_becomes_one() {
        let server = |host: &str, port: &str| {
            let environment = [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port)];
            let environment: Environment = environment
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect::<Vec<(std::ffi::OsString, std::ffi::OsString)>>()
                .into_iter()
                .collect();
            ApiServer::of(&Cluster::default(), &environment).map(|server| server.origin.to_string())
        };
        assert_eq!(server("10.0.0.1", "6443").as_deref(), Ok("https://10.0.0.1:6443/"));
        assert_eq!(server("fd00::1", "443").as_deref(), Ok("https://[fd00::1]/"));
        assert_eq!(server("kubernetes.default.svc", "").as_deref(), Ok("https://kubernetes.default.svc/"));
        for (host, port) in
            [("", "443"), ("a/b", "443"), ("a@b", "443"), ("a?b", "443"), ("a#b", "443"), ("a", "x"), ("a", "1/b")]
        {
            assert!(server(host, port).is_err(), "{host} {port}");
        }
    }
}
