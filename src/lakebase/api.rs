//! Calls of the workspace's REST API with an access token.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use super::classify::{About, classify_error, nonsense};
use crate::failure::{Code, Failure};
use crate::http::{Answer, WorkspaceClient};

/// The header that selects one of several workspaces with the same address (databricks-sdk-go, httpclient).
const WORKSPACE_ID: &str = "X-Databricks-Workspace-Id";

/// No workspace has this many pages; a server that never ends its list is broken.
const MOST_PAGES: usize = 200;

/// No workspace has this many objects of one kind, either.
pub(super) const MOST_OBJECTS: usize = 20_000;

/// The API of one workspace, called with one access token.
pub(crate) struct Api<'a> {
    pub(crate) http: &'a WorkspaceClient<'a>,
    /// Selects one of several workspaces with the same address.
    pub(crate) workspace_id: Option<&'a str>,
    pub(crate) token: &'a SecretString,
    /// What else goes with each request.
    pub(crate) headers: &'a [(&'static str, SecretString)],
    /// The identity that the token was issued to, for messages.
    pub(crate) subject: Option<&'a str>,
    /// The time limit of one request.
    pub(crate) limit: Duration,
}

#[derive(Deserialize)]
struct Me {
    #[serde(rename = "userName")]
    user_name: String,
}

impl Api<'_> {
    /// The identity that the token was issued to: an e-mail address or an application id (RFC 7644, section 3.11).
    ///
    /// # Errors
    /// As [`Api::get`].
    pub(crate) async fn me(&self) -> Result<String, Failure> {
        let about = About { verb: "ask who it is", object: "this identity".to_owned() };
        let me: Me = self.get(&["api", "2.0", "preview", "scim", "v2", "Me"], &[], &about).await?;
        Ok(me.user_name)
    }

    /// Reads one object.
    ///
    /// # Errors
    /// What the answer means, in words; transient if asking again can help.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        about: &About,
    ) -> Result<T, Failure> {
        let answer = self.call(Method::GET, path, query, None).await?;
        self.read(&answer, about)
    }

    /// Sends an object, and reads the answer.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &serde_json::Value,
        about: &About,
    ) -> Result<(T, Answer), Failure> {
        let answer = self.call(Method::POST, path, &[], Some(body.to_string())).await?;
        Ok((self.read(&answer, about)?, answer))
    }

    /// Reads the pages of a list, as long as `wanted` returns true.
    ///
    /// # Errors
    /// As [`Api::get`]; also if the list never ends.
    pub(super) async fn pages<T: Page>(
        &self,
        path: &[&str],
        about: &About,
        mut wanted: impl FnMut(T::Item) -> bool,
    ) -> Result<(), Failure> {
        let (mut token, mut left) = (String::new(), MOST_OBJECTS);
        for _ in 0..MOST_PAGES {
            let query = [("page_size", "100"), ("page_token", token.as_str())];
            let page: T = self.get(path, if token.is_empty() { &query[..1] } else { &query }, about).await?;
            let (items, next) = page.into_parts();
            let Some(still) = left.checked_sub(items.len()) else { break };
            left = still;
            for item in items {
                if !wanted(item) {
                    return Ok(());
                }
            }
            match next.filter(|next| !next.is_empty()) {
                Some(next) => token = next,
                None => return Ok(()),
            }
        }
        Err(nonsense(self.http.origin(), about, "with a list that does not end"))
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Answer, Failure> {
        let mut request = self
            .http
            .request(method, self.url(path, query)?)?
            .header(AUTHORIZATION, bearer(self.token))
            .header(ACCEPT, "application/json");
        if let Some(id) = self.workspace_id {
            request = request.header(WORKSPACE_ID, id);
        }
        for (name, value) in self.headers {
            request = request.header(*name, sensitive(value.expose_secret()));
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.http.exchange(request, self.limit).await
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, Failure> {
        let origin = self.http.origin();
        let unusable = || Failure::permanent(Code::Configuration, format!("{origin} is not an address"));
        let mut url = self.http.url("/")?;
        url.path_segments_mut().map_err(|()| unusable())?.clear().extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn read<T: DeserializeOwned>(&self, answer: &Answer, about: &About) -> Result<T, Failure> {
        let to = self.http.origin();
        if answer.status != StatusCode::OK || answer.is_html() {
            return Err(classify_error(answer, to, self.subject, about));
        }
        serde_json::from_slice(&answer.body).map_err(|fault| {
            nonsense(to, about, if fault.is_eof() { "with JSON that is cut off" } else { "with something else" })
        })
    }
}

/// One page of a list.
pub(super) trait Page: DeserializeOwned {
    type Item;

    /// The items, and the token of the next page.
    fn into_parts(self) -> (Vec<Self::Item>, Option<String>);
}

fn bearer(token: &SecretString) -> HeaderValue {
    sensitive(&Zeroizing::new(format!("Bearer {}", token.expose_secret())))
}

fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}
