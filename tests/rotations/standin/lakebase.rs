//! The stand-in workspace's Lakebase answers and refuses like the real one, in both of its APIs.

mod credentials;
mod objects;
mod refusals;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{HOUR, body, client};
use crate::support::{Instance, Project, Workspace};

/// The endpoint that a project `shop` has from the start.
const PRIMARY: &str = "projects/shop/branches/production/endpoints/primary";

/// A client with a live token, and its requests.
struct Caller {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Caller {
    fn of(workspace: &Workspace) -> Self {
        Self::named(workspace, workspace.client_id())
    }

    fn named(workspace: &Workspace, identity: &str) -> Self {
        Self { http: client(workspace), url: workspace.url(), token: workspace.issue(identity, HOUR) }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}/api/2.0/{path}", self.url)).bearer_auth(&self.token)
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        let request = self.http.post(format!("{}/api/2.0/{path}", self.url)).bearer_auth(&self.token);
        request.header("Content-Type", "application/json").body(body.to_string())
    }

    fn mint(&self, instance: &str) -> RequestBuilder {
        self.post("database/credentials", &json!({"instance_names": [instance], "request_id": "7"}))
    }

    fn mint_for(&self, endpoint: &str) -> RequestBuilder {
        self.post("postgres/credentials", &json!({"endpoint": endpoint}))
    }
}

/// With an instance `orders` and a project `shop`.
fn with_both(workspace: &Workspace) -> Caller {
    workspace.add_instance(Instance::named("orders"));
    workspace.add_project(Project::named("shop"));
    Caller::of(workspace)
}

/// Status and body.
async fn said(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), body(answer).await)
}

/// Status, code and message of a refusal.
async fn refused(request: RequestBuilder) -> (u16, String, String) {
    let (status, body) = said(request).await;
    let code = body["error_code"].as_str().map_or_else(|| body["error_code"].to_string(), str::to_owned);
    (status, code, body["message"].as_str().unwrap().to_owned())
}

async fn granted(request: RequestBuilder) -> Value {
    let (status, body) = said(request).await;
    assert_eq!(status, 200, "{body}");
    body
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().map_or_else(Vec::new, |list| list.iter().map(|object| object["name"].as_str().unwrap()).collect())
}
