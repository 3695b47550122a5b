//! The stand-in workspace's Lakebase answers and refuses like the real one, in both of its APIs.

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{HOUR, SOON, body, client, flipped, local_time, opened};
use crate::support::{Branch, ComputeEndpoint, Endpoint, Fault, Instance, Project, Upgraded, Workspace};

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
    let (_, claims) = opened(credential["token"].as_str().unwrap());
    assert_eq!(claims["sub"], "ada@example.com");
    assert_eq!(claims["exp"], seconds(&credential["expiration_time"]));
    assert!((before + 3600..=before + 3630).contains(&claims["exp"].as_i64().unwrap()));
    assert_ne!(granted(caller.mint("orders")).await["token"], credential["token"], "always a new one");
    assert_eq!(workspace.credentials_minted(), 2);
    assert_eq!(workspace.tokens_issued(), 0);
    assert!(workspace.secrets().iter().any(|secret| credential["token"] == secret.as_str()));
    assert_eq!(workspace.credential_requests()[0], json!({"instance_names": ["orders"], "request_id": "7"}));

    workspace.set_credential_life(Duration::from_secs(90));
    let short = granted(caller.mint("orders")).await;
    let (_, claims) = opened(short["token"].as_str().unwrap());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 90);

    let claims = json!({"claims": [{"permission_set": "READ_ONLY", "resources": [{"table_name": "a.b.c"}]}]});
    granted(caller.post("database/credentials", &claims)).await;
}

#[tokio::test]
async fn a_credential_that_cannot_be_is_refused() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    workspace.add_project(Project::named("shop"));
    let caller = Caller::of(&workspace);
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
async fn a_credential_for_an_endpoint_lives_as_long_as_asked_for() {
    let workspace = Workspace::start();
    workspace.add_project(Project::named("shop"));
    let caller = Caller::of(&workspace);
    let life = |credential: &Value| {
        let (_, claims) = opened(credential["token"].as_str().unwrap());
        assert_eq!(claims["exp"], seconds(&credential["expire_time"]));
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
    };
    let credential = granted(caller.mint_for(PRIMARY)).await;
    assert_eq!(credential.as_object().unwrap().keys().collect::<Vec<_>>(), ["expire_time", "token"]);
    assert_eq!(life(&credential), 3600);
    let asking = |end: Value| {
        let mut body = json!({"endpoint": PRIMARY});
        body.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
        caller.post("postgres/credentials", &body)
    };
    for (ttl, expected) in [("300s", 300), ("600.000000000s", 600), ("3600s", 3600)] {
        assert_eq!(life(&granted(asking(json!({"ttl": ttl}))).await), expected);
    }
    let in_ten_minutes = jiff::Timestamp::from_second(local_time() + 600).unwrap().to_string();
    let credential = granted(asking(json!({"expire_time": in_ten_minutes}))).await;
    assert!((570..=600).contains(&life(&credential)));
    workspace.set_credential_life(Duration::from_secs(20));
    assert_eq!(life(&granted(asking(json!({"ttl": "3600s"}))).await), 20, "a test's clock runs faster");
}

#[tokio::test]
async fn each_door_of_lakebase_asks_who_is_there() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    workspace.add_project(Project::named("shop"));
    let mut caller = Caller::of(&workspace);
    let doors = |caller: &Caller| {
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
    for door in doors(&caller) {
        granted(door).await;
    }
    let live = caller.token.clone();
    let credential = granted(caller.mint("orders")).await["token"].as_str().unwrap().to_owned();
    workspace.fail_next(Fault::WrongAudience);
    let astray = super::json(super::token_request(&caller.http, &workspace)).await;
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
        for door in doors(&caller) {
            let answer = door.send().await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()["x-databricks-reason-phrase"], reason);
            assert_eq!(body(answer).await["error_code"], status);
        }
    }
    let nobody = caller.http.get(workspace.url() + "/api/2.0/database/instances/orders");
    assert_eq!(said(nobody).await.0, 401);
}

#[tokio::test]
async fn an_instance_is_told_of_as_the_real_one() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    let caller = Caller::of(&workspace);
    let get = || caller.get("database/instances/orders");
    let orders = granted(get()).await;
    let uid = orders["uid"].as_str().unwrap();
    assert_eq!(uid, workspace.instance("orders").uid);
    assert_eq!(orders["read_write_dns"], format!("instance-{uid}.database.cloud.databricks.com"));
    assert_eq!((&orders["name"], &orders["state"]), (&json!("orders"), &json!("AVAILABLE")));
    assert_eq!((&orders["effective_stopped"], orders.get("read_only_dns")), (&json!(false), None));
    let found = granted(caller.get(&format!("database/instances:findByUid?uid={uid}"))).await;
    assert_eq!(found, orders);

    workspace.change_instance("orders", |it| it.stopped().without_host().read_only_host("instance-ro-1.example.com"));
    let orders = granted(get()).await;
    assert_eq!((&orders["state"], &orders["effective_stopped"]), (&json!("STOPPED"), &json!(true)));
    assert_eq!((orders.get("read_write_dns"), &orders["read_only_dns"]), (None, &json!("instance-ro-1.example.com")));
    workspace.change_instance("orders", |it| it.state("STARTING").host("h.example.com").without_name());
    let orders = granted(get()).await;
    assert_eq!((&orders["state"], &orders["read_write_dns"]), (&json!("STARTING"), &json!("h.example.com")));
    assert_eq!(orders.get("name"), None);

    workspace.add_instance(Instance::named("the orders+"));
    assert_eq!(granted(caller.get("database/instances/the%20orders+")).await["name"], "the orders+");
    workspace.remove_instance("orders");
    assert_eq!(refused(get()).await, (404, "NOT_FOUND".to_owned(), "Database instance 'orders' not found.".to_owned()));
    assert_eq!(refused(caller.get(&format!("database/instances:findByUid?uid={uid}"))).await.0, 404);
    assert_eq!(refused(caller.get("database/instances:findByUid")).await.0, 400);
    assert_eq!(refused(caller.get("database/instances/orders/roles")).await.1, "ENDPOINT_NOT_FOUND");
}

#[tokio::test]
async fn a_project_is_told_of_as_the_real_one() {
    let workspace = Workspace::start();
    let reader = ComputeEndpoint::named("reader").host("ep-r.database.eu-west-1.cloud.databricks.com").read_only();
    let shop = Project::named("shop").branch(Branch::named("dev").endpoint(reader));
    workspace.add_project(shop.branch(Branch::named("empty").without_endpoints()));
    let caller = Caller::of(&workspace);
    let get = async |path: &str| granted(caller.get(&format!("postgres/{path}"))).await;

    let project = get("projects/shop").await;
    assert_eq!(project["status"]["default_branch"], "projects/shop/branches/production");
    assert_eq!(get("projects").await["projects"], json!([project]));
    let branches = get("projects/shop/branches").await;
    assert_eq!(
        names(&branches["branches"]),
        ["projects/shop/branches/production", "projects/shop/branches/dev", "projects/shop/branches/empty"]
    );
    let default: Vec<_> = branches["branches"].as_array().unwrap().iter().map(|it| &it["status"]["default"]).collect();
    assert_eq!(default, [true, false, false]);
    assert_eq!(get("projects/shop/branches/dev").await, branches["branches"][1]);
    let endpoints = get("projects/shop/branches/dev/endpoints").await;
    assert_eq!(endpoints["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(get("projects/shop/branches/empty/endpoints").await, json!({}), "an empty list is left out");

    let primary = get(PRIMARY).await;
    let (uid, status) = (primary["uid"].as_str().unwrap(), &primary["status"]);
    assert!(uid.starts_with("ep-"));
    assert_eq!(
        status["hosts"],
        json!({
            "host": format!("{uid}.database.eu-west-1.cloud.databricks.com"),
            "read_write_pooled_host": format!("{uid}-pooler.database.eu-west-1.cloud.databricks.com"),
        })
    );
    assert_eq!(
        (&status["current_state"], &status["endpoint_type"]),
        (&json!("ACTIVE"), &json!("ENDPOINT_TYPE_READ_WRITE"))
    );
    assert_eq!(status["disabled"], false);
    let reader = get("projects/shop/branches/dev/endpoints/reader").await;
    assert_eq!(reader["status"]["endpoint_type"], "ENDPOINT_TYPE_READ_ONLY");
    assert_eq!(reader["status"]["hosts"]["read_only_host"], reader["status"]["hosts"]["host"]);
    assert_eq!(reader["status"]["hosts"].get("read_write_pooled_host"), None);

    workspace.change_endpoint(PRIMARY, |it| it.state("IDLE").disabled().with_secondaries());
    let status = &get(PRIMARY).await["status"];
    assert_eq!((&status["current_state"], &status["disabled"]), (&json!("IDLE"), &json!(true)));
    assert_eq!(status["hosts"]["read_only_host"], format!("{uid}-ro.database.eu-west-1.cloud.databricks.com"));
    workspace.change_project("shop", |it| it.without_default_branch().primary(|it| it.without_host().state("INIT")));
    assert_eq!(get("projects/shop").await["status"].get("default_branch"), None);
    assert_eq!(get(PRIMARY).await["status"]["hosts"].get("host"), None);

    workspace.remove_project("shop");
    for gone in ["projects/shop", "projects/shop/branches", "projects/shop/branches/production/endpoints", PRIMARY] {
        assert_eq!(refused(caller.get(&format!("postgres/{gone}"))).await.0, 404);
    }
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let workspace = Workspace::builder().page_size(3).start();
    for n in 0..7 {
        workspace.add_instance(Instance::named(&format!("i{n}")));
        workspace.add_project(Project::named(&format!("p{n}")));
    }
    let caller = Caller::of(&workspace);
    let page = async |list: &str, size: &str, token: Option<&Value>| {
        let mut query = url::form_urlencoded::Serializer::new(format!("{list}?"));
        query.append_pair("page_size", size);
        query.extend_pairs(token.map(|token| ("page_token", token.as_str().unwrap())));
        granted(caller.get(&query.finish())).await
    };
    let first = page("database/instances", "100", None).await;
    assert_eq!(names(&first["database_instances"]), ["i0", "i1", "i2"]);
    let second = page("database/instances", "2", Some(&first["next_page_token"])).await;
    assert_eq!(names(&second["database_instances"]), ["i3", "i4"]);
    let last = page("database/instances", "100", Some(&second["next_page_token"])).await;
    assert_eq!((names(&last["database_instances"]), last.get("next_page_token")), (vec!["i5", "i6"], None));
    let first = page("postgres/projects", "3", None).await;
    assert_eq!(names(&first["projects"]), ["projects/p0", "projects/p1", "projects/p2"]);
    assert!(first["next_page_token"].is_string());

    let unescaped = format!("database/instances?page_token={}", second["next_page_token"].as_str().unwrap());
    for wrong in [&unescaped, "database/instances?page_size=101", "postgres/projects?page_size=0"] {
        assert_eq!(refused(caller.get(wrong)).await.0, 400, "{wrong}");
    }

    for n in 0..3 {
        workspace.hide_from(workspace.client_id(), &format!("i{n}"));
    }
    let hidden = page("database/instances", "3", None).await;
    assert!(hidden.get("database_instances").is_none() && hidden["next_page_token"].is_string());
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
async fn an_upgraded_instance_is_a_project() {
    for upgraded in [Upgraded::Gone, Upgraded::StillListed] {
        let workspace = Workspace::start();
        workspace.add_instance(Instance::named("orders"));
        workspace.upgrade_instance("orders", upgraded);
        let caller = Caller::of(&workspace);
        let primary = PRIMARY.replace("shop", "orders");
        let endpoint = granted(caller.get(&format!("postgres/{primary}"))).await;
        let host = &endpoint["status"]["hosts"]["host"];
        assert!(host.as_str().unwrap().starts_with("ep-"));
        granted(caller.mint_for(&primary)).await;

        let (got, listed) = (caller.get("database/instances/orders"), caller.get("database/instances"));
        match upgraded {
            Upgraded::Gone => {
                assert_eq!(refused(caller.mint("orders")).await.0, 404);
                assert_eq!(refused(got).await.0, 404);
                assert_eq!(granted(listed).await, json!({}));
            }
            Upgraded::StillListed => {
                let (status, code, message) = refused(caller.mint("orders")).await;
                assert_eq!((status, code.as_str()), (400, "INVALID_PARAMETER_VALUE"));
                assert!(message.contains("upgraded"), "{message}");
                assert_eq!(granted(got).await["read_write_dns"], *host);
                assert_eq!(names(&granted(listed).await["database_instances"]), ["orders"]);
            }
        }
    }
}

#[tokio::test]
async fn an_api_that_is_not_there_is_not_found() {
    for (workspace, database, postgres) in [
        (Workspace::builder().without_lakebase().start(), 404, 404),
        (Workspace::builder().without_database_api().start(), 404, 200),
        (Workspace::builder().without_postgres_api().start(), 200, 404),
    ] {
        workspace.add_instance(Instance::named("orders"));
        workspace.add_project(Project::named("shop"));
        let caller = Caller::of(&workspace);
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
async fn faults_of_a_credential_are_in_the_credential() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    workspace.add_project(Project::named("shop"));
    let caller = Caller::of(&workspace);
    for (endpoint, expiry) in
        [(Endpoint::DatabaseCredentials, "expiration_time"), (Endpoint::PostgresCredentials, "expire_time")]
    {
        let after = async |fault: Fault| {
            workspace.faults_on(endpoint).next(fault);
            let database = endpoint == Endpoint::DatabaseCredentials;
            granted(if database { caller.mint("orders") } else { caller.mint_for(PRIMARY) }).await
        };
        let claims = |credential: &Value| opened(credential["token"].as_str().unwrap()).1;
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

#[tokio::test]
async fn each_door_of_lakebase_can_fail_by_itself() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    workspace.add_project(Project::named("shop"));
    let caller = Caller::of(&workspace);
    let doors = [
        (Endpoint::DatabaseCredentials, caller.mint("orders")),
        (Endpoint::DatabaseInstances, caller.get("database/instances")),
        (Endpoint::DatabaseInstance, caller.get("database/instances/orders")),
        (Endpoint::PostgresCredentials, caller.mint_for(PRIMARY)),
        (Endpoint::PostgresProjects, caller.get("postgres/projects")),
        (Endpoint::PostgresBranches, caller.get("postgres/projects/shop/branches")),
        (Endpoint::PostgresEndpoints, caller.get(&format!("postgres/{PRIMARY}"))),
    ];
    for (failing, _) in &doors {
        workspace.faults_on(*failing).always(Fault::Status(503));
        for (endpoint, request) in &doors {
            let status = request.try_clone().unwrap().send().await.unwrap().status();
            assert_eq!(status, if endpoint == failing { 503 } else { 200 }, "{endpoint:?}, {failing:?} fails");
        }
        workspace.heal();
    }
    let (endpoint, request) = &doors[0];
    workspace.faults_on(*endpoint).next(Fault::Status(401));
    assert_eq!(
        said(request.try_clone().unwrap()).await,
        (
            401,
            json!({
                "error_code": 401, "message": "Unable to authenticate the request.",
            })
        )
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
