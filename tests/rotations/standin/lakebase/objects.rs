//! What Lakebase tells of instances, projects, branches and endpoints.

use serde_json::{Value, json};

use super::{Caller, PRIMARY, granted, names, refused};
use crate::support::{Branch, ComputeEndpoint, Instance, Project, Upgraded, Workspace};

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
