//! The stand-in workspace answers and refuses like a real one.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{FORM, GRANT, HOUR, body, client, flipped, json, local_time, opened, token_request};
use crate::support::{Fault, Workspace};

#[tokio::test]
async fn a_service_principal_finds_the_token_endpoint_and_gets_a_token() {
    let workspace = Workspace::start();
    let http = client(&workspace);

    let discovered: Value = json(http.get(workspace.url() + "/oidc/.well-known/oauth-authorization-server")).await;
    assert_eq!(discovered["token_endpoint"], workspace.token_url());
    assert_eq!(discovered["authorization_endpoint"], workspace.url() + "/oidc/v1/authorize");

    let before = local_time();
    let granted: Value = json(token_request(&http, &workspace)).await;
    assert_eq!((&granted["token_type"], &granted["expires_in"]), (&"Bearer".into(), &3600.into()));
    assert_eq!(granted["scope"], "all-apis");

    let token = granted["access_token"].as_str().unwrap();
    assert!((845..=850).contains(&token.len()), "{} characters", token.len());
    let (header, claims) = opened(token);
    assert_eq!((&header["typ"], &header["alg"]), (&"at+jwt".into(), &"ES256".into()));
    assert_eq!(header["kid"].as_str().unwrap().len(), 64);
    assert_eq!((&claims["sub"], &claims["client_id"]), (&workspace.client_id().into(), &workspace.client_id().into()));
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&(workspace.url() + "/oidc").into(), &workspace.workspace_id().into())
    );
    assert!((before..=before + 30).contains(&claims["iat"].as_i64().unwrap()));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);

    let metadata: Value = json(http.get(workspace.url() + "/.well-known/databricks-config")).await;
    assert_eq!(
        (&metadata["oidc_endpoint"], &metadata["host_type"]),
        (&(workspace.url() + "/oidc").into(), &"workspace".into())
    );
    assert_eq!(http.get(workspace.url() + "/nowhere").send().await.unwrap().status(), 404);

    assert_eq!(workspace.token_requests(), 1);
    assert_eq!(workspace.requests().len(), 4);
    assert_eq!(workspace.requests()[1], "POST /oidc/v1/token");
    assert_eq!(workspace.connections(), 1, "connections are kept alive");
}

#[tokio::test]
async fn a_request_that_rfc_6749_refuses_is_refused() {
    let workspace = Workspace::start();
    let http = client(&workspace);
    let basic = |id: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let (id, secret) = (workspace.client_id(), workspace.client_secret());
    let right = basic(id, secret);

    for (what, authorization, content_type, form, status, code) in [
        ("a wrong secret", basic(id, "wrong"), FORM, GRANT, 401, "invalid_client"),
        ("an unknown client", basic("someone", secret), FORM, GRANT, 401, "invalid_client"),
        ("no client", String::new(), FORM, GRANT, 401, "invalid_client"),
        ("a bearer", "Bearer x".to_owned(), FORM, GRANT, 401, "invalid_client"),
        ("broken base64", "Basic !".to_owned(), FORM, GRANT, 401, "invalid_client"),
        ("JSON", right.clone(), "application/json", GRANT, 400, "invalid_request"),
        ("no grant type", right.clone(), FORM, "scope=all-apis", 400, "invalid_request"),
        ("a repeated parameter", right.clone(), FORM, "scope=all-apis&scope=all-apis", 400, "invalid_request"),
        (
            "another grant type",
            right.clone(),
            FORM,
            "grant_type=password&scope=all-apis",
            400,
            "unsupported_grant_type",
        ),
        ("another scope", right.clone(), FORM, "grant_type=client_credentials&scope=sql", 400, "invalid_scope"),
        ("no scope", right.clone(), FORM, "grant_type=client_credentials", 400, "invalid_scope"),
        (
            "a dead login",
            right.clone(),
            FORM,
            "grant_type=refresh_token&refresh_token=x&client_id=databricks-cli",
            400,
            "invalid_request",
        ),
        (
            "a stranger's refresh",
            right.clone(),
            FORM,
            "grant_type=refresh_token&refresh_token=x&client_id=me",
            401,
            "invalid_client",
        ),
    ] {
        let request = http.post(workspace.token_url()).header("Content-Type", content_type).body(form);
        let request = if authorization.is_empty() { request } else { request.header("Authorization", authorization) };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{what}");
        assert_eq!(answer.headers().contains_key("www-authenticate"), status == 401, "{what}");
        assert_eq!(body(answer).await["error"], code, "{what}");
    }
    let answer = http.get(workspace.token_url()).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(workspace.tokens_issued(), 0);
}

#[tokio::test]
async fn id_and_secret_are_form_encoded_inside_basic() {
    let workspace = Workspace::builder().client("an id", "s3cret:with%and+").start();
    let http = client(&workspace);
    let with = |text: &str| {
        let request =
            http.post(workspace.token_url()).header("Authorization", format!("Basic {}", STANDARD.encode(text)));
        request.header("Content-Type", FORM).body(GRANT)
    };
    assert_eq!(with("an+id:s3cret%3Awith%25and%2B").send().await.unwrap().status(), 200);
    assert_eq!(with("an%20id:s3cret%3awith%25and%2b").send().await.unwrap().status(), 200);
    assert_eq!(with("an id:s3cret:with%and+").send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_new_secret_retires_the_old_one() {
    let workspace = Workspace::start();
    let http = client(&workspace);
    workspace.set_client(workspace.client_id(), "a newer one");
    assert_eq!(token_request(&http, &workspace).send().await.unwrap().status(), 401);
    workspace.set_client(workspace.client_id(), workspace.client_secret());
    assert_eq!(token_request(&http, &workspace).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn me_is_whoever_holds_a_live_token() {
    let workspace = Workspace::start();
    let http = client(&workspace);
    let me = |token: &str| http.get(workspace.url() + "/api/2.0/preview/scim/v2/Me").bearer_auth(token).send();

    let answer = me(&workspace.issue("ada@example.com", HOUR)).await.unwrap();
    assert_eq!(body(answer).await["userName"], "ada@example.com");

    let expired = me(&workspace.issue("ada@example.com", Duration::ZERO)).await.unwrap();
    assert_eq!(
        (expired.status().as_u16(), &expired.headers()["x-databricks-reason-phrase"]),
        (403, &"JWT has expired".parse().unwrap())
    );
    assert_eq!(body(expired).await["error_code"], 403);

    assert_eq!(me(&flipped(&workspace.issue("ada@example.com", HOUR))).await.unwrap().status(), 403);
    assert_eq!(me("dapi0").await.unwrap().status(), 403);

    workspace.fail_next(Fault::OpaqueToken);
    let opaque: Value = json(token_request(&http, &workspace)).await;
    let answer = me(opaque["access_token"].as_str().unwrap()).await.unwrap();
    assert_eq!(body(answer).await["userName"], workspace.client_id());
}

#[tokio::test]
async fn only_who_trusts_its_authority_talks_to_it() {
    let workspace = Workspace::start();
    let stranger = Workspace::start();
    assert!(token_request(&client(&stranger), &workspace).send().await.unwrap_err().is_connect());

    let http = client(&workspace);
    for name in ["localhost", "127.0.0.1"] {
        let url = workspace.url_as(name) + "/oidc/.well-known/oauth-authorization-server";
        assert_eq!(json(http.get(url)).await["issuer"], workspace.url_as(name) + "/oidc");
    }
}

#[tokio::test]
async fn plain_http_and_a_host_without_discovery() {
    let workspace = Workspace::builder().http().without_discovery().start();
    assert!(workspace.url().starts_with("http://127.0.0.1:"));
    let http = client(&workspace);
    let discovery = http.get(workspace.url() + "/oidc/.well-known/oauth-authorization-server");
    assert_eq!(discovery.send().await.unwrap().status(), 404);
    assert_eq!(token_request(&http, &workspace).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_servers_clock_shows_in_dates_and_tokens() {
    let workspace = Workspace::builder().clock_skew(-7200).token_life(Duration::from_secs(20)).start();
    let http = client(&workspace);
    for skew in [-7200, 300] {
        workspace.set_clock_skew(skew);
        let answer = token_request(&http, &workspace).send().await.unwrap();
        let date = httpdate::parse_http_date(answer.headers()["date"].to_str().unwrap()).unwrap();
        let date = i64::try_from(date.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        assert!((date - local_time() - skew).abs() <= 30);
        let granted: Value = body(answer).await;
        let (_, claims) = opened(granted["access_token"].as_str().unwrap());
        assert!((claims["iat"].as_i64().unwrap() - date).abs() <= 30);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 20);
    }
}

#[tokio::test]
async fn a_login_lives_until_the_user_signs_out() {
    let workspace = Workspace::start();
    let http = client(&workspace);
    let refresh = |token: &str| {
        let form = format!("grant_type=refresh_token&refresh_token={token}&client_id=databricks-cli");
        http.post(workspace.token_url()).header("Content-Type", FORM).body(form).send()
    };
    let login = workspace.sign_in("ada@example.com");
    let granted: Value = body(refresh(&login).await.unwrap()).await;
    let (_, claims) = opened(granted["access_token"].as_str().unwrap());
    assert_eq!((&claims["sub"], &claims["client_id"]), (&"ada@example.com".into(), &"databricks-cli".into()));
    assert_eq!(claims["scope"], "offline_access all-apis");
    assert_eq!(granted.get("refresh_token"), None, "the old one stays good");

    workspace.set_single_use_refresh_tokens(true);
    let granted: Value = body(refresh(&login).await.unwrap()).await;
    let newer = granted["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(&login).await.unwrap().status(), 400);
    assert_eq!(refresh(newer).await.unwrap().status(), 200);

    workspace.sign_out("ada@example.com");
    let refused: Value = body(refresh(newer).await.unwrap()).await;
    assert_eq!(
        (&refused["error"], &refused["error_description"]),
        (&"invalid_request".into(), &"Refresh token is invalid".into())
    );
}
