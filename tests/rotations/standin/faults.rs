//! A client sees each fault as intended, and at the intended time.

use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{FORM, GRANT, SOON, body, client, json, local_time, opened, token_request};
use crate::support::{Endpoint, Fault, Workspace};

#[tokio::test]
async fn faults_of_status_look_like_a_workspaces() {
    let workspace = Workspace::start();
    let http = client(&workspace);
    for status in [400, 401, 403, 404, 429, 500, 502, 503, 504] {
        workspace.fail_next(Fault::Status(status));
        let answer = token_request(&http, &workspace).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(answer.headers().contains_key("date") && !answer.text().await.unwrap().is_empty());
    }

    let headers = vec![("X-Reason".to_owned(), "because".to_owned())];
    workspace.fail_next(Fault::StatusWith { status: 418, body: "teapot".to_owned(), headers });
    let answer = token_request(&http, &workspace).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-reason"]), (418, &"because".parse().unwrap()));
    assert_eq!(answer.text().await.unwrap(), "teapot");

    workspace.fail_next(Fault::RetryAfterSeconds(7));
    let answer = token_request(&http, &workspace).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"7".parse().unwrap()));

    workspace.fail_next(Fault::RetryAfterDate(30));
    let answer = token_request(&http, &workspace).send().await.unwrap();
    let at = |name: &str| httpdate::parse_http_date(answer.headers()[name].to_str().unwrap()).unwrap();
    let ahead = at("retry-after").duration_since(at("date")).unwrap().as_secs();
    assert!(answer.status() == 503 && (29..=30).contains(&ahead), "{ahead} s ahead");

    workspace.fail_next(Fault::Redirect("https://login.example.com/".to_owned()));
    let answer = token_request(&http, &workspace).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (302, &"https://login.example.com/".parse().unwrap())
    );

    workspace.fail_next(Fault::Html);
    let answer = token_request(&http, &workspace).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(answer.text().await.unwrap().contains("Sign In"));

    workspace.fail_next(Fault::ErrorIn200("temporarily_unavailable".to_owned()));
    let answer = token_request(&http, &workspace).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(body(answer).await["error"], "temporarily_unavailable");
}

#[tokio::test]
async fn faults_of_the_token_are_in_the_token() {
    let workspace = Workspace::start();
    let http = client(&workspace);
    let after = async |fault: Fault| {
        workspace.fail_next(fault);
        json(token_request(&http, &workspace)).await
    };
    let claims = |granted: &Value| opened(granted["access_token"].as_str().unwrap()).1;

    let granted = after(Fault::MissingToken).await;
    assert_eq!(granted.get("access_token"), None);

    let granted = after(Fault::ExpiredToken).await;
    let expiry = claims(&granted)["exp"].as_i64().unwrap();
    assert!((55..=90).contains(&(local_time() - expiry)));
    assert_eq!(granted["expires_in"], 3600);

    let granted = after(Fault::WrongAudience).await;
    assert_ne!(claims(&granted)["aud"], workspace.workspace_id());

    let granted = after(Fault::OtherIdentity("eve@example.com".to_owned())).await;
    assert_eq!(claims(&granted)["sub"], "eve@example.com");

    let granted = after(Fault::OpaqueToken).await;
    assert!(!granted["access_token"].as_str().unwrap().contains('.') && granted["expires_in"] == 3600);

    let granted = after(Fault::NoExpiry).await;
    assert!(granted.get("expires_in").is_none() && claims(&granted)["exp"].is_i64());

    let granted = after(Fault::NoExpiryAnywhere).await;
    assert!(granted.get("expires_in").is_none() && !granted["access_token"].as_str().unwrap().contains('.'));

    workspace.fail_next(Fault::ExpiredToken);
    let stranger = http.post(workspace.token_url()).basic_auth("someone", Some("x"));
    let stranger = stranger.header("Content-Type", FORM).body(GRANT);
    assert_eq!(stranger.send().await.unwrap().status(), 401, "a bad token still takes a good client");
}

#[tokio::test]
async fn faults_of_the_wire_are_on_the_wire() {
    for workspace in [Workspace::start(), Workspace::builder().http().start()] {
        let http = client(&workspace);

        workspace.fail_next(Fault::TruncatedBody);
        let cut = token_request(&http, &workspace).send().await.unwrap();
        let promised = cut.content_length().unwrap();
        assert!(promised > 800 && cut.bytes().await.is_err(), "the body ends before it should");

        workspace.fail_next(Fault::TruncatedJson);
        let half = token_request(&http, &workspace).send().await.unwrap().text().await.unwrap();
        assert!(half.starts_with('{') && serde_json::from_str::<Value>(&half).unwrap_err().is_eof());

        workspace.fail_next(Fault::HugeBody);
        let huge = token_request(&http, &workspace).send().await.unwrap().text().await.unwrap();
        assert!(huge.len() > 1 << 20 && serde_json::from_str::<Value>(&huge).unwrap()["access_token"].is_string());

        workspace.fail_next(Fault::SlowBytes { bytes: 300, pause: Duration::from_millis(50) });
        let began = Instant::now();
        let granted: Value = json(token_request(&http, &workspace)).await;
        assert!(granted["access_token"].is_string() && began.elapsed() >= Duration::from_millis(100));

        workspace.fail_next(Fault::Reset);
        let reset = format!("{:?}", token_request(&http, &workspace).send().await.unwrap_err());
        assert!(reset.contains("ConnectionReset"), "{reset}");

        workspace.fail_next(Fault::Stall);
        let stalled = token_request(&http, &workspace).timeout(Duration::from_millis(200)).send().await;
        assert!(stalled.unwrap_err().is_timeout());

        assert_eq!(token_request(&http, &workspace).send().await.unwrap().status(), 200, "and then all is well");
    }
}

#[tokio::test]
async fn every_third_request_fails_in_turn_and_a_planned_one_goes_first() {
    let workspace = Workspace::start();
    let http = client(&workspace);
    workspace.fail_every(3, vec![Fault::Status(500), Fault::Status(503)]);
    workspace.fail_next(Fault::Status(429));
    let mut statuses = Vec::new();
    for _ in 0..9 {
        statuses.push(token_request(&http, &workspace).send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [429, 200, 500, 200, 200, 503, 200, 200, 500]);

    workspace.faults_on(Endpoint::Discovery).always(Fault::Status(502));
    let discovery = || http.get(workspace.url() + "/oidc/.well-known/oauth-authorization-server").send();
    assert_eq!(discovery().await.unwrap().status(), 502);
    workspace.heal();
    assert_eq!(discovery().await.unwrap().status(), 200);
}

#[tokio::test]
async fn in_an_outage_nobody_is_home() {
    let workspace = Workspace::start();
    let http = client(&workspace);
    assert_eq!(token_request(&http, &workspace).send().await.unwrap().status(), 200);
    workspace.outage_begins();
    assert!(token_request(&http, &workspace).send().await.is_err(), "the open connection is gone");
    assert!(token_request(&client(&workspace), &workspace).send().await.unwrap_err().is_connect());
    workspace.outage_ends();
    assert_eq!(token_request(&http, &workspace).send().await.unwrap().status(), 200);
    assert_eq!(workspace.token_requests(), 2);
}

#[tokio::test]
async fn who_waits_for_a_request_is_woken_by_it() {
    let workspace = Arc::new(Workspace::start());
    let http = client(&workspace);
    assert!(!workspace.wait_for_token_requests(1, Duration::from_millis(20)));
    let waiting = thread::spawn({
        let workspace = Arc::clone(&workspace);
        move || workspace.wait_for_token_requests(2, SOON) && workspace.wait_for_tokens_issued(1, SOON)
    });
    workspace.fail_next(Fault::Status(500));
    for _ in 0..2 {
        token_request(&http, &workspace).send().await.unwrap();
    }
    assert!(waiting.join().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_workspace_that_is_dropped_leaves_nothing_behind() {
    let workspace = Workspace::start();
    let (port, directory) = (workspace.port(), workspace.directory().to_owned());
    workspace.fail_next(Fault::Stall);
    let http = client(&workspace);
    let stalled = tokio::spawn(token_request(&http, &workspace).send());
    assert!(workspace.wait_for_token_requests(1, SOON));
    drop(workspace);
    assert!(stalled.await.unwrap().is_err(), "a stalled request ends with it");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err() && !directory.exists());
}
