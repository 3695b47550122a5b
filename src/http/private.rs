//! A client for a server of a network of its own, such as the API server of a cluster.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use rustls::ClientConfig;
use url::Url;

use super::tls::{cryptography, for_http, in_pem, unusable};
use super::trouble::{self, Way};
use super::{Answer, plain_client, whole};
use crate::failure::{Code, Failure};
use crate::os::clock::Reading;
use crate::words;

/// Speaks HTTPS with a server of a network of its own, whose authority is known: it trusts no other, and goes by no proxy.
pub(crate) struct PrivateClient {
    client: Client,
    /// What the other side is called in a failure.
    to: String,
}

impl PrivateClient {
    /// `file` is where the authorities in PEM form came from.
    ///
    /// # Errors
    /// Permanent: they cannot be used.
    pub(crate) fn trusting(pem: &[u8], file: &Path, to: String) -> Result<Self, Failure> {
        let (_, roots) = in_pem(pem, &format!("the authorities in {}", file.display()))?;
        let tls = ClientConfig::builder_with_provider(cryptography()).with_safe_default_protocol_versions();
        let tls = tls.map_err(|error| unusable(&words::of_tls(&error)))?;
        let tls = for_http(tls.with_root_certificates(roots).with_no_client_auth());
        let client = plain_client().no_proxy().tls_backend_preconfigured(tls).build();
        Ok(PrivateClient { client: client.map_err(|_| unusable("the parts of it do not fit together"))?, to })
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends one of this client's requests and collects the answer within `limit`.
    ///
    /// # Errors
    /// Transient: out of reach, too slow, broken off, too large. Permanent: a certificate that is not trusted.
    pub(crate) async fn exchange(&self, request: RequestBuilder, limit: Duration) -> Result<Answer, Failure> {
        let to = &self.to;
        let exchange = async {
            let sent = request.send().await.map_err(|error| trouble::unreachable(&error, Way { to, proxy: None }))?;
            let received = Reading::now();
            let too_large = || Failure::transient(Code::Unavailable, format!("{to} answered with more than 1 MiB"));
            whole(to, sent, received, too_large).await
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
            let message = format!("{to} did not answer within {} s", limit.as_secs_f32().ceil());
            Err(Failure::transient(Code::Unavailable, message).hint("it is tried again"))
        })
    }
}
