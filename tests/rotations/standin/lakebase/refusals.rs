//! Who is refused, and how: by the real workspace, and on demand.

use std::time::Duration;

use serde_json::json;

use super::super::{HOUR, SOON, body, flipped, token_request};
use super::{Caller, PRIMARY, granted, names, refused, said, with_both};
use crate::support::{Endpoint, Fault, Instance, Project, Workspace};

#[tokio::test]
async fn each_request_to_lakebase_needs_a_live_token() {
    let workspace = Workspace::start();
    let mut caller = with_both(&workspace);
    let requests = |caller: &Caller| {
        vec![
            caller.mint("orders"),
            caller.mint_for(PRIMARY),
            caller.get("database/instances"),
            caller.get("database/instances/orders"),
            caller.get(&format!("database/instances:findByUid?uid={}", workspace.instance("orders").uid)),
            caller.get("postgres/projects"),
            caller.get("postgres/projects/shop"),
            caller.get("postgres/projects/shop/branches"),
            caller.get("postgres/projects/shop/branches/production"),
            caller.get("postgres/projects/shop/branches/production/endpoints"),
            caller.get(&format!("postgres/{PRIMARY}")),
        ]
    };
    for request in requests(&caller) {
        granted(request).await;
    }
    let live = caller.token.clone();
    let credential = granted(caller.mint("orders")).await["token"].as_str().unwrap().to_owned();
    workspace.fail_next(Fault::WrongAudience);
    let astray = granted(token_request(&caller.http, &workspace)).await;
    let astray = astray["access_token"].as_str().unwrap().to_owned();
    for (token, status, reason) in [
        (workspace.issue(workspace.client_id(), Duration::ZERO), 403, "JWT has expired"),
        (flipped(&live), 403, "Invalid access token."),
        (Workspace::start().issue(workspace.client_id(), HOUR), 403, "Invalid access token."),
        ("dapi0".to_owned(), 403, "Invalid access token."),
        (credential, 403, "Invalid access token."),
        (astray, 403, "Invalid access token."),
    ] {
        caller.token = token;
        for request in requests(&caller) {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()["x-databricks-reason-phrase"], reason);
            assert_eq!(body(answer).await["error_code"], status);
        }
    }
    let nobody = caller.http.get(workspace.url() + "/api/2.0/database/instances/orders");
    assert_eq!(said(nobody).await.0, 401);
}

#[tokio::test]
async fn who_may_not_see_is_told_so_by_name() {
    let workspace = Workspace::start();
    for name in ["orders", "payroll"] {
        workspace.add_instance(Instance::named(name));
        workspace.add_project(Project::named(&format!("{name}-project")));
    }
    let (ada, eve) = (Caller::named(&workspace, "ada@example.com"), Caller::named(&workspace, "eve@example.com"));
    let payroll = "projects/payroll-project/branches/production/endpoints/primary";
    let forbidden = || {
        vec![
            eve.mint("payroll"),
            eve.get("database/instances/payroll"),
            eve.get(&format!("database/instances:findByUid?uid={}", workspace.instance("payroll").uid)),
            eve.mint_for(payroll),
            eve.get("postgres/projects/payroll-project"),
            eve.get("postgres/projects/payroll-project/branches"),
            eve.get(&format!("postgres/{payroll}")),
        ]
    };
    workspace.hide_from("eve@example.com", "payroll");
    workspace.hide_from("eve@example.com", "payroll-project");
    for request in forbidden() {
        let (status, code, message) = refused(request).await;
        assert_eq!((status, code.as_str()), (403, "PERMISSION_DENIED"));
        assert!(message.contains("eve@example.com") && message.contains("payroll"), "{message}");
    }
    granted(eve.mint("orders")).await;
    granted(ada.mint("payroll")).await;
    assert_eq!(names(&granted(eve.get("database/instances")).await["database_instances"]), ["orders"]);
    assert_eq!(names(&granted(eve.get("postgres/projects")).await["projects"]), ["projects/orders-project"]);
    assert_eq!(names(&granted(ada.get("database/instances")).await["database_instances"]), ["orders", "payroll"]);

    workspace.forbid("eve@example.com");
    assert_eq!(refused(eve.mint("orders")).await.0, 403);
    let claims = json!({"claims": [{"permission_set": "READ_ONLY"}]});
    assert_eq!(refused(eve.post("database/credentials", &claims)).await.0, 403);
    assert_eq!(granted(eve.get("database/instances")).await, json!({}));
    workspace.allow("eve@example.com");
    for request in forbidden() {
        granted(request).await;
    }
}

#[tokio::test]
async fn an_api_that_is_not_there_is_not_found() {
    for (workspace, database, postgres) in [
        (Workspace::builder().without_lakebase().start(), 404, 404),
        (Workspace::builder().without_database_api().start(), 404, 200),
        (Workspace::builder().without_postgres_api().start(), 200, 404),
    ] {
        let caller = with_both(&workspace);
        for (request, status) in [
            (caller.mint("orders"), database),
            (caller.get("database/instances"), database),
            (caller.mint_for(PRIMARY), postgres),
            (caller.get("postgres/projects"), postgres),
        ] {
            let (said, body) = said(request).await;
            assert_eq!(said, status);
            let found = body["message"].as_str().is_none_or(|message| !message.starts_with("No API found for '"));
            assert_eq!((found, body["error_code"] == "ENDPOINT_NOT_FOUND"), (said == 200, said == 404));
        }
    }
}

#[tokio::test]
async fn a_host_of_many_workspaces_must_be_told_which() {
    let workspace = Workspace::builder().unified().start();
    workspace.add_instance(Instance::named("orders"));
    let caller = Caller::of(&workspace);
    for wrong in [caller.mint("orders"), caller.mint("orders").header("X-Databricks-Workspace-Id", "1")] {
        let answer = wrong.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap().contains("<title>Databricks - Sign In</title>"));
    }
    for header in ["X-Databricks-Workspace-Id", "X-Databricks-Org-Id"] {
        granted(caller.mint("orders").header(header, workspace.workspace_id())).await;
        granted(caller.get("preview/scim/v2/Me").header(header, workspace.workspace_id())).await;
    }
    let metadata = granted(caller.http.get(workspace.url() + "/.well-known/databricks-config")).await;
    assert_eq!((&metadata["host_type"], metadata.get("workspace_id")), (&json!("unified"), None));
}

#[tokio::test]
async fn each_endpoint_of_lakebase_can_fail_by_itself() {
    let workspace = Workspace::start();
    let caller = with_both(&workspace);
    let requests = [
        (Endpoint::DatabaseCredentials, caller.mint("orders")),
        (Endpoint::DatabaseInstances, caller.get("database/instances")),
        (Endpoint::DatabaseInstance, caller.get("database/instances/orders")),
        (Endpoint::PostgresCredentials, caller.mint_for(PRIMARY)),
        (Endpoint::PostgresProjects, caller.get("postgres/projects")),
        (Endpoint::PostgresBranches, caller.get("postgres/projects/shop/branches")),
        (Endpoint::PostgresEndpoints, caller.get(&format!("postgres/{PRIMARY}"))),
    ];
    for (failing, _) in &requests {
        workspace.faults_on(*failing).always(Fault::Status(503));
        for (endpoint, request) in &requests {
            let status = request.try_clone().unwrap().send().await.unwrap().status();
            assert_eq!(status, if endpoint == failing { 503 } else { 200 }, "{endpoint:?}, {failing:?} fails");
        }
        workspace.heal();
    }
    let (endpoint, request) = &requests[0];
    workspace.faults_on(*endpoint).next(Fault::Status(401));
    assert_eq!(
        said(request.try_clone().unwrap()).await,
        (401, json!({"error_code": 401, "message": "Unable to authenticate the request."}))
    );
    assert!(workspace.wait_for_credentials(2 * 6, SOON) && workspace.wait_for_requests_to(*endpoint, 8, SOON));
}

#[tokio::test]
async fn canned_refusals_are_as_they_were_seen() {
    let workspace = Workspace::start();
    let caller = Caller::of(&workspace);
    let id = workspace.workspace_id();
    for (fault, status, text) in [
        (Fault::expired_bearer(), 403, r#""error_code":403,"message":"JWT has expired""#),
        (Fault::invalid_access_token(), 403, r#""message":"Invalid access token. [ReqId: "#),
        (Fault::ip_blocked(id), 403, "203.0.113.9 is blocked by Databricks IP ACL for workspace: 1444828305810485"),
        (Fault::private_link(id), 302, ""),
        (Fault::which_workspace(), 200, "<title>Databricks - Sign In</title>"),
        (Fault::no_oauth_config(), 400, "Unable to load OAuth Config"),
        (Fault::older(400, "no such thing"), 400, r#"{"error":"no such thing"}"#),
        (Fault::scim(403, "sensitive", "not you"), 403, r#""detail":"not you","#),
        (Fault::plain(404, "NOT_FOUND", "no such thing"), 404, "NOT_FOUND: no such thing"),
        (Fault::preformatted(404, "no such thing"), 404, "<pre>    no such thing</pre>"),
        (Fault::permission_denied("not you"), 403, r#""error_code":"PERMISSION_DENIED""#),
    ] {
        workspace.faults_on(Endpoint::DatabaseCredentials).next(fault);
        let answer = caller.mint("orders").send().await.unwrap();
        let headers = answer.headers().clone();
        assert_eq!(answer.status(), status, "{text}");
        let body = answer.text().await.unwrap();
        assert!(body.contains(text), "{body}");
        match status {
            302 => assert_eq!(headers["location"], "/login.html?error=private-link-validation-error:1444828305810485"),
            _ => assert_eq!(headers["content-type"].to_str().unwrap().contains("json"), body.starts_with('{')),
        }
    }
    let login = caller.http.get(workspace.url() + "/login.html?error=x").send().await.unwrap();
    assert!(login.status() == 200 && login.text().await.unwrap().contains("Sign In"));
}
