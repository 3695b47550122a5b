//! The vendor's own client accepts the stand-in workspace as a real one.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::local_time;
use crate::support::{
    Branch, ComputeEndpoint, Endpoint, Fault, Home, Instance, Postgres, Project, Session, Upgraded, Workspace, names,
    skip, vendor_sdk,
};

/// What a script may use: `w`, the client; `told(x)`, which prints `x` as a line of JSON; and `refused(f, ...)`, which
/// returns the kind and the message of the exception that the call raises.
const PRELUDE: &str = r#"
import json
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError
w = WorkspaceClient()
def told(x): print(json.dumps(x))
def refused(call, *args, **named):
    try: call(*args, **named)
    except DatabricksError as e: return [type(e).__name__, str(e)]
"#;

const PRIMARY: &str = "projects/shop/branches/production/endpoints/primary";

/// The vendor's client, signed in as the workspace's service principal.
struct Vendor<'a> {
    python: PathBuf,
    workspace: &'a Workspace,
    home: Home,
}

impl<'a> Vendor<'a> {
    fn new(test: &str, workspace: &'a Workspace) -> Option<Self> {
        let python = vendor_sdk::python().map_err(|reason| skip(test, &reason)).ok()?;
        Some(Self { python, workspace, home: Home::new() })
    }

    fn runs(&self, script: &str) -> Session<'_> {
        self.home
            .command(&self.python)
            .args(["-c", &format!("{PRELUDE}{script}")])
            .shown_as(script)
            .signed_in_to(self.workspace)
            .env("REQUESTS_CA_BUNDLE", self.workspace.ca_file())
            .env("DATABRICKS_AUTH_TYPE", "oauth-m2m")
    }

    /// The script's output, each line as JSON.
    fn tells(&self, script: &str) -> Vec<Value> {
        let outcome = self.runs(script).may_print_secrets().run();
        outcome.exits(0).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn the_vendors_own_client_signs_in() {
    let workspace = Workspace::start();
    let Some(vendor) = Vendor::new("the_vendors_own_client_signs_in", &workspace) else { return };
    let who_am_i = "told(w.current_user.me().user_name)";
    assert_eq!(vendor.tells(who_am_i), [workspace.client_id()]);
    assert_eq!(workspace.tokens_issued(), 1);
    let requests = workspace.requests();
    assert!(requests.contains(&"POST /oidc/v1/token".to_owned()), "{requests:?}");
    assert!(requests.contains(&"GET /api/2.0/preview/scim/v2/Me".to_owned()), "{requests:?}");

    let wrong = vendor.runs(who_am_i).env("DATABRICKS_CLIENT_SECRET", "not its secret");
    wrong.run().exits(1).stderr_has("invalid_client");
}

#[test]
fn the_vendors_own_client_drives_the_database_api() {
    let workspace = Workspace::builder().page_size(2).start();
    let test = "the_vendors_own_client_drives_the_database_api";
    let Some(vendor) = Vendor::new(test, &workspace) else { return };
    for name in ["a", "b", "c", "d", "e"] {
        workspace.add_instance(Instance::named(name));
    }
    workspace.change_instance("c", |it| it.stopped().read_only_host("instance-ro-1.database.cloud.databricks.com"));
    let c = workspace.instance("c");
    let told = vendor.tells(&format!(
        r#"
def fields(i): return [i.name, i.uid, i.state.value, i.read_write_dns, i.read_only_dns, i.effective_stopped]
told(fields(w.database.get_database_instance("c")))
told(fields(w.database.find_database_instance_by_uid(uid="{}")))
told([i.name for i in w.database.list_database_instances()])
credential = w.database.generate_database_credential(instance_names=["a"], request_id="8")
told([credential.token, credential.expiration_time])
"#,
        c.uid
    ));
    assert_eq!(told[0], json!(["c", c.uid, "STOPPED", c.host, c.read_only_host, true]));
    assert_eq!(told[1], told[0]);
    assert_eq!(told[2], json!(["a", "b", "c", "d", "e"]));
    assert_eq!(workspace.requests_to(Endpoint::DatabaseInstances), 3, "in pages");
    assert!(workspace.secrets().iter().any(|secret| told[3][0] == secret.as_str()));
    assert_lives(&told[3][1], 3600);
    assert_eq!(workspace.credential_requests(), [json!({"instance_names": ["a"], "request_id": "8"})]);
}

#[test]
fn the_vendors_own_client_drives_the_postgres_api() {
    let workspace = Workspace::builder().page_size(2).start();
    let test = "the_vendors_own_client_drives_the_postgres_api";
    let Some(vendor) = Vendor::new(test, &workspace) else { return };
    let reader = ComputeEndpoint::named("reader").read_only().state("IDLE").disabled();
    let production = Branch::named("production").endpoint(reader).endpoint(ComputeEndpoint::named("third"));
    let shop = Project::named("shop").branch(production).branch(Branch::named("dev")).branch(Branch::named("test"));
    workspace.add_project(shop.default_branch("dev"));
    for name in ["till", "warehouse"] {
        workspace.add_project(Project::named(name));
    }
    workspace.change_endpoint(PRIMARY, ComputeEndpoint::with_secondaries);
    let told = vendor.tells(
        r#"
from google.protobuf.duration_pb2 import Duration
p, production = w.postgres, "projects/shop/branches/production"
told([[i.name, i.status.default_branch] for i in p.list_projects()])
told([[i.name.split("/")[3], i.status.default] for i in p.list_branches("projects/shop")])
told([i.name.split("/")[5] for i in p.list_endpoints(production)])
def fields(e):
    s = e.status
    return [e.uid, s.current_state.value, s.endpoint_type.value, s.disabled, s.hosts.host, s.hosts.read_only_host]
told(fields(p.get_endpoint(production + "/endpoints/primary")))
told(fields(p.get_endpoint(production + "/endpoints/reader")))
told([p.get_project("projects/shop").uid, p.get_branch(production).uid])
told(p.get_endpoint(production + "/endpoints/primary").status.hosts.read_write_pooled_host)
for ttl in [None, Duration(seconds=300)]:
    credential = p.generate_database_credential(production + "/endpoints/primary", ttl=ttl)
    told([credential.token, credential.expire_time.ToJsonString()])
"#,
    );
    let default = |project: &str, branch: &str| json!([project, format!("{project}/branches/{branch}")]);
    assert_eq!(
        told[0],
        json!([
            default("projects/shop", "dev"),
            default("projects/till", "production"),
            default("projects/warehouse", "production"),
        ])
    );
    assert_eq!(told[1], json!([["production", false], ["dev", true], ["test", false]]));
    assert_eq!(told[2], json!(["primary", "reader", "third"]));
    assert_eq!(workspace.requests_to(Endpoint::PostgresProjects), 2 + 1, "two pages and one by name");
    let (primary, reader) =
        (workspace.compute_endpoint(PRIMARY), workspace.compute_endpoint(&PRIMARY.replace("primary", "reader")));
    let (kind, host) = ("ENDPOINT_TYPE_READ_WRITE", primary.host.as_deref().unwrap());
    assert_eq!(told[3], json!([primary.uid, "ACTIVE", kind, false, host, host.replacen('.', "-ro.", 1)]));
    assert_eq!(told[4], json!([reader.uid, "IDLE", "ENDPOINT_TYPE_READ_ONLY", true, reader.host, reader.host]));
    let shop = workspace.project("shop");
    let production = shop.branches.iter().find(|branch| branch.name == "production").unwrap();
    assert_eq!(told[5], json!([shop.uid, production.uid]));
    assert_eq!(told[6], host.replacen('.', "-pooler.", 1));
    for (credential, life) in [(&told[7], 3600), (&told[8], 300)] {
        assert!(workspace.secrets().iter().any(|secret| credential[0] == secret.as_str()));
        assert_lives(&credential[1], life);
    }
    assert_eq!(
        workspace.credential_requests(),
        [json!({"endpoint": PRIMARY}), json!({"endpoint": PRIMARY, "ttl": "300s"}),]
    );
}

#[test]
fn the_vendors_own_client_knows_each_refusal() {
    let workspace = Workspace::start();
    let Some(vendor) = Vendor::new("the_vendors_own_client_knows_each_refusal", &workspace) else { return };
    for name in ["orders", "payroll", "upgraded", "gone"] {
        workspace.add_instance(Instance::named(name));
    }
    workspace.add_project(Project::named("shop"));
    workspace.hide_from(workspace.client_id(), "payroll");
    workspace.upgrade_instance("upgraded", Upgraded::StillListed);
    workspace.upgrade_instance("gone", Upgraded::Gone);
    let refusals = [
        ("d.get_database_instance, 'x'", "NotFound", "Database instance 'x' not found."),
        ("d.get_database_instance, 'payroll'", "PermissionDenied", "on database instance 'payroll'"),
        ("d.find_database_instance_by_uid, uid='x'", "NotFound", "not found"),
        ("list, d.list_database_instances(page_size=101)", "InvalidParameterValue", "between 1 and 100"),
        ("mint, instance_names=['x']", "NotFound", "Database instance 'x' not found."),
        ("mint, instance_names=['payroll']", "PermissionDenied", "on database instance 'payroll'"),
        ("mint, instance_names=['gone']", "NotFound", "Database instance 'gone' not found."),
        ("mint, instance_names=['upgraded']", "InvalidParameterValue", "has been upgraded"),
        ("mint", "InvalidParameterValue", "At least one of"),
        ("p.get_project, 'projects/x'", "NotFound", "Project 'x' not found."),
        ("list, p.list_branches('projects/x')", "NotFound", "Project 'x' not found."),
        ("list, p.list_endpoints('projects/shop/branches/x')", "NotFound", "Branch 'x' not found."),
        ("p.generate_database_credential, 'projects/shop'", "InvalidParameterValue", "resource name"),
        ("p.generate_database_credential, primary.replace('primary', 'x')", "NotFound", "Endpoint 'x' not found."),
        ("p.generate_database_credential, primary, ttl=Duration(seconds=299)", "InvalidParameterValue", "between 300"),
    ];
    let mut script = "from google.protobuf.duration_pb2 import Duration\n\
                      d, p, mint = w.database, w.postgres, w.database.generate_database_credential\n\
                      primary = 'projects/shop/branches/production/endpoints/primary'\n"
        .to_owned();
    script.extend(refusals.iter().map(|(call, _, _)| format!("told(refused({call}))\n")));
    for ((call, kind, message), told) in refusals.iter().zip(vendor.tells(&script)) {
        assert_eq!(told[0], *kind, "{call}: {told}");
        assert!(told[1].as_str().unwrap().contains(message), "{call}: {told}");
    }
}

#[test]
fn the_vendors_own_client_knows_the_canned_refusals() {
    let workspace = Workspace::start();
    let test = "the_vendors_own_client_knows_the_canned_refusals";
    let Some(vendor) = Vendor::new(test, &workspace) else { return };
    workspace.add_instance(Instance::named("orders"));
    let id = workspace.workspace_id();
    let refusals = [
        (Fault::expired_bearer(), "PermissionDenied", "JWT has expired"),
        (Fault::invalid_access_token(), "PermissionDenied", "Invalid access token."),
        (Fault::ip_blocked(id), "PermissionDenied", "blocked by Databricks IP ACL"),
        (Fault::private_link(id), "PrivateLinkValidationError", "AWS PrivateLink"),
        (Fault::older(400, "no such thing"), "BadRequest", "no such thing"),
        (Fault::scim(403, "sensitive", "not you"), "PermissionDenied", "not you"),
        (Fault::plain(404, "NOT_FOUND", "no such thing"), "NotFound", "no such thing"),
        (Fault::preformatted(404, "no such thing"), "NotFound", "no such thing"),
        (Fault::permission_denied("not you"), "PermissionDenied", "not you"),
        (Fault::Status(401), "Unauthenticated", "Unable to authenticate"),
        (Fault::Status(500), "InternalError", "unexpected internal error"),
    ];
    for (fault, _, _) in &refusals {
        workspace.faults_on(Endpoint::DatabaseCredentials).next(fault.clone());
    }
    let each = "mint = w.database.generate_database_credential\n\
                while r := refused(mint, instance_names=['orders']): told(r)\n";
    let told = vendor.tells(each);
    assert_eq!(told.len(), refusals.len(), "{told:?}");
    for ((fault, kind, message), told) in refusals.iter().zip(told) {
        assert_eq!(told[0], *kind, "{fault:?}: {told}");
        assert!(told[1].as_str().unwrap().contains(message), "{fault:?}: {told}");
    }
}

#[test]
fn the_vendors_own_client_finds_its_workspace_among_many() {
    let workspace = Workspace::builder().unified().start();
    let test = "the_vendors_own_client_finds_its_workspace_among_many";
    let Some(vendor) = Vendor::new(test, &workspace) else { return };
    workspace.add_instance(Instance::named("orders"));
    let get = "told(w.database.get_database_instance('orders').name)";
    let told = vendor.runs(get).env("DATABRICKS_WORKSPACE_ID", workspace.workspace_id()).run();
    told.exits(0).stdout_has("\"orders\"");
    vendor.runs(get).env("DATABRICKS_WORKSPACE_ID", "1").run().exits(1).stderr_has("JSONDecodeError");
}

#[test]
fn what_the_vendors_own_client_mints_opens_the_database() {
    let workspace = Workspace::start();
    let test = "what_the_vendors_own_client_mints_opens_the_database";
    let Some(vendor) = Vendor::new(test, &workspace) else { return };
    workspace.add_instance(Instance::named("orders"));
    workspace.add_project(Project::named("shop"));
    let (instance, endpoint) =
        (workspace.instance("orders").host.unwrap(), workspace.compute_endpoint(PRIMARY).host.unwrap());
    let robot = workspace.client_id();
    let server = names::wrapper().and_then(|_| {
        Postgres::builder(&workspace, &[robot]).at_5432().known_as(&instance).known_as(&endpoint).start()
    });
    let server = match server {
        Ok(server) => server,
        Err(reason) => return skip(test, &reason),
    };
    let told = vendor.tells(&format!(
        r#"
token = w.database.generate_database_credential(instance_names=["orders"]).token
told([w.database.get_database_instance("orders").read_write_dns, token])
token = w.postgres.generate_database_credential("{PRIMARY}").token
told([w.postgres.get_endpoint("{PRIMARY}").status.hosts.host, token])
"#
    ));
    for (told, host) in told.iter().zip([instance, endpoint]) {
        let credential = told[1].as_str().unwrap();
        vendor.home.write(".pgpass", format!("{host}:5432:databricks_postgres:{robot}:{credential}\n"), 0o600);
        assert_eq!(told[0], host);
        let psql = vendor.home.psql(&workspace, &host, robot).resolving(&host, server.address());
        assert_eq!(psql.args(["-c", "select current_user"]).run().exits(0).stdout, format!("{robot}\n"));
    }
    assert_eq!(server.logins().len(), 2);
}

/// Asserts that this expiry is this many seconds away, with some tolerance for a busy machine.
#[track_caller]
fn assert_lives(expiry: &Value, seconds: i64) {
    let expiry: jiff::Timestamp = expiry.as_str().unwrap().parse().unwrap();
    let left = expiry.as_second() - local_time();
    assert!((seconds - 20..=seconds).contains(&left), "{left} s are left, not {seconds}");
}
