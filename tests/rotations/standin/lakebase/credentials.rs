//! Credentials: whose they are, how long they live, which ones there are not, and what is wrong with them on demand.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{local_time, opened};
use super::{Caller, PRIMARY, granted, refused, said, with_both};
use crate::support::{Endpoint, Fault, Instance, Project, Workspace};

fn claims(credential: &Value) -> Value {
    opened(credential["token"].as_str().unwrap()).1
}

/// The time from its issue to its end, in seconds.
fn life(credential: &Value) -> i64 {
    let claims = claims(credential);
    claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
}

fn seconds(expiry: &Value) -> i64 {
    expiry.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

#[tokio::test]
async fn a_credential_for_an_instance_is_its_askers_for_an_hour() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    let caller = Caller::named(&workspace, "ada@example.com");
    let before = local_time();
    let credential = granted(caller.mint("orders")).await;
    let fields: Vec<_> = credential.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["expiration_time", "token"]);
    let expiry = claims(&credential)["exp"].as_i64().unwrap();
    assert_eq!(claims(&credential)["sub"], "ada@example.com");
    assert_eq!(expiry, seconds(&credential["expiration_time"]));
    assert!((before + 3600..=before + 3630).contains(&expiry));
    assert_ne!(granted(caller.mint("orders")).await["token"], credential["token"], "always a new one");
    assert_eq!(workspace.credentials_minted(), 2);
    assert_eq!(workspace.tokens_issued(), 0);
    assert!(workspace.secrets().iter().any(|secret| credential["token"] == secret.as_str()));
    assert_eq!(workspace.credential_requests()[0], json!({"instance_names": ["orders"], "request_id": "7"}));

    workspace.set_credential_life(Duration::from_secs(90));
    let short = granted(caller.mint("orders")).await;
    assert_eq!(life(&short), 90);

    let restricted = json!({"claims": [{"permission_set": "READ_ONLY", "resources": [{"table_name": "a.b.c"}]}]});
    granted(caller.post("database/credentials", &restricted)).await;
}

#[tokio::test]
async fn a_credential_for_an_endpoint_lives_as_long_as_asked_for() {
    let workspace = Workspace::start();
    workspace.add_project(Project::named("shop"));
    let caller = Caller::of(&workspace);
    let lives = |credential: &Value| {
        assert_eq!(claims(credential)["exp"], seconds(&credential["expire_time"]));
        life(credential)
    };
    let credential = granted(caller.mint_for(PRIMARY)).await;
    assert_eq!(credential.as_object().unwrap().keys().collect::<Vec<_>>(), ["expire_time", "token"]);
    assert_eq!(lives(&credential), 3600);
    let asking = |end: Value| {
        let mut body = json!({"endpoint": PRIMARY});
        body.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
        caller.post("postgres/credentials", &body)
    };
    for (ttl, expected) in [("300s", 300), ("600.000000000s", 600), ("3600s", 3600)] {
        assert_eq!(lives(&granted(asking(json!({"ttl": ttl}))).await), expected);
    }
    let in_ten_minutes = jiff::Timestamp::from_second(local_time() + 600).unwrap().to_string();
    let credential = granted(asking(json!({"expire_time": in_ten_minutes}))).await;
    assert!((570..=600).contains(&lives(&credential)));
    workspace.set_credential_life(Duration::from_secs(20));
    assert_eq!(lives(&granted(asking(json!({"ttl": "3600s"}))).await), 20, "a test's clock runs faster");
}

#[tokio::test]
async fn a_credential_that_cannot_be_is_refused() {
    let workspace = Workspace::start();
    let caller = with_both(&workspace);
    let database = |body: Value| caller.post("database/credentials", &body);
    let postgres = |body: Value| caller.post("postgres/credentials", &body);
    for (what, request, status, code) in [
        ("an unknown instance", database(json!({"instance_names": ["x"]})), 404, "NOT_FOUND"),
        ("one unknown of two", database(json!({"instance_names": ["orders", "x"]})), 404, "NOT_FOUND"),
        ("no instance", database(json!({"instance_names": []})), 400, "INVALID_PARAMETER_VALUE"),
        ("nothing", database(json!({"request_id": "7"})), 400, "INVALID_PARAMETER_VALUE"),
        ("no list", database(json!({"instance_names": "orders"})), 400, "MALFORMED_REQUEST"),
        ("no object", database(json!([])), 400, "MALFORMED_REQUEST"),
        ("no endpoint", postgres(json!({"ttl": "3600s"})), 400, "INVALID_PARAMETER_VALUE"),
        ("a project", postgres(json!({"endpoint": "projects/shop"})), 400, "INVALID_PARAMETER_VALUE"),
        ("an unknown project", postgres(json!({"endpoint": PRIMARY.replace("shop", "x")})), 404, "NOT_FOUND"),
        ("an unknown branch", postgres(json!({"endpoint": PRIMARY.replace("production", "x")})), 404, "NOT_FOUND"),
        ("an unknown endpoint", postgres(json!({"endpoint": PRIMARY.replace("primary", "x")})), 404, "NOT_FOUND"),
        ("too short", postgres(json!({"endpoint": PRIMARY, "ttl": "299.9s"})), 400, "INVALID_PARAMETER_VALUE"),
        ("too long", postgres(json!({"endpoint": PRIMARY, "ttl": "3601s"})), 400, "INVALID_PARAMETER_VALUE"),
        ("no unit", postgres(json!({"endpoint": PRIMARY, "ttl": "3600"})), 400, "MALFORMED_REQUEST"),
        ("another unit", postgres(json!({"endpoint": PRIMARY, "ttl": "60m"})), 400, "MALFORMED_REQUEST"),
        ("a number", postgres(json!({"endpoint": PRIMARY, "ttl": 3600})), 400, "MALFORMED_REQUEST"),
        ("backwards", postgres(json!({"endpoint": PRIMARY, "ttl": "-300s"})), 400, "MALFORMED_REQUEST"),
        ("no time", postgres(json!({"endpoint": PRIMARY, "expire_time": "soon"})), 400, "MALFORMED_REQUEST"),
        (
            "long ago",
            postgres(json!({"endpoint": PRIMARY, "expire_time": "2020-01-01T00:00:00Z"})),
            400,
            "INVALID_PARAMETER_VALUE",
        ),
        (
            "two ends",
            postgres(json!({"endpoint": PRIMARY, "ttl": "600s", "expire_time": "2020-01-01T00:00:00Z"})),
            400,
            "INVALID_PARAMETER_VALUE",
        ),
    ] {
        let (said, error, _) = refused(request).await;
        assert_eq!((said, error.as_str()), (status, code), "{what}");
    }
    let (_, _, message) = refused(caller.mint("x")).await;
    assert_eq!(message, "Database instance 'x' not found.");
    let (status, _) = said(caller.get("database/credentials")).await;
    assert_eq!(status, 405);
    let (status, _) = said(caller.post("postgres/projects", &json!({}))).await;
    assert_eq!(status, 405);
    assert_eq!(workspace.credentials_minted(), 0);
}

#[tokio::test]
async fn faults_of_a_credential_are_in_the_credential() {
    let workspace = Workspace::start();
    let caller = with_both(&workspace);
    for (endpoint, expiry) in
        [(Endpoint::DatabaseCredentials, "expiration_time"), (Endpoint::PostgresCredentials, "expire_time")]
    {
        let after = async |fault: Fault| {
            workspace.faults_on(endpoint).next(fault);
            let database = endpoint == Endpoint::DatabaseCredentials;
            granted(if database { caller.mint("orders") } else { caller.mint_for(PRIMARY) }).await
        };
        let told = |credential: &Value| credential.get(expiry).map(seconds);

        let credential = after(Fault::MissingToken).await;
        assert!(credential.get("token").is_none() && told(&credential).is_some());
        let credential = after(Fault::ExpiredToken).await;
        assert!((55..=90).contains(&(local_time() - claims(&credential)["exp"].as_i64().unwrap())));
        assert!(told(&credential).unwrap() > local_time() + 3500);
        let credential = after(Fault::OtherIdentity("eve@example.com".to_owned())).await;
        assert_eq!(claims(&credential)["sub"], "eve@example.com");
        let credential = after(Fault::WrongAudience).await;
        assert_ne!(claims(&credential)["aud"], workspace.workspace_id());
        let credential = after(Fault::OpaqueToken).await;
        assert!(!credential["token"].as_str().unwrap().contains('.') && told(&credential).is_some());
        let credential = after(Fault::NoExpiry).await;
        assert!(claims(&credential)["exp"].as_i64().unwrap() > local_time() && told(&credential).is_none());
        let credential = after(Fault::NoExpiryAnywhere).await;
        assert!(!credential["token"].as_str().unwrap().contains('.') && told(&credential).is_none());
        let opaque = caller.http.get(workspace.url() + "/api/2.0/database/instances");
        let opaque = opaque.bearer_auth(credential["token"].as_str().unwrap());
        assert!(opaque.send().await.unwrap().status() == 403, "an opaque credential opens no API either");
    }
    assert_eq!(workspace.credentials_minted(), 14);
}
