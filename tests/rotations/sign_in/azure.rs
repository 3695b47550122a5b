//! Azure: a service principal of Entra ID, managed identities, and Azure's own CLI.

use super::{CLIENT, Stage, configured};
use crate::support::{Home, Relay, Workspace, free_port};

const HOST: &str = "adb-1.2.azuredatabricks.net";
const RESOURCE: &str = "/subscriptions/5ub/resourceGroups/r/providers/Microsoft.Databricks/workspaces/w";
const SECRET: &str = "entra-stand-in-0123456789abcdef";

fn workspace() -> Workspace {
    let workspace = Workspace::builder().with_services().custom_url(HOST).start();
    workspace.beside(|beside| {
        beside.azure = Some(("my-tenant".to_owned(), CLIENT.to_owned(), SECRET.to_owned()));
        beside.machine = Some(CLIENT.to_owned());
        beside.app_secret = Some("app-header-0123456789".to_owned());
    });
    workspace
}

fn at_azure<'a>(home: &'a Home, stage: &Stage, relay: &Relay, settings: &str) -> crate::support::Session<'a> {
    let session = configured(home, &stage.workspace, settings, "");
    let text = home.read(".config/dbx-rotator/config.toml").replace(&stage.workspace.url(), &format!("https://{HOST}"));
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    session.env("HTTPS_PROXY", relay.url())
}

#[test]
fn a_service_principal_of_entra_id_signs_in_and_its_secret_goes_to_microsoft_alone() {
    let name = "a_service_principal_of_entra_id_signs_in_and_its_secret_goes_to_microsoft_alone";
    let Some(stage) = Stage::new(name, workspace(), &[CLIENT]) else { return };
    let relay = Relay::to(stage.workspace.port());
    let home = Home::new();
    home.keep_secret(SECRET);
    home.write("secret", SECRET, 0o600);
    let file = home.path("secret").display().to_string();
    let settings = format!("azure_client_id = '{CLIENT}'\nazure_client_secret_file = '{file}'");
    // The tenant is the one to which the workspace sends people, unless it is set.
    stage.proves(&home, CLIENT, at_azure(&home, &stage, &relay, &settings));
    let whole = format!("{settings}\nazure_tenant_id = 'my-tenant'\nazure_workspace_resource_id = '{RESOURCE}'");
    let plain = format!("{settings}\nazure_tenant_id = 'my-tenant'");
    stage.workspace.beside(|beside| beside.azure_resource = Some(RESOURCE.to_owned()));
    stage.proves(&home, CLIENT, at_azure(&home, &stage, &relay, &whole));
    let unnamed = at_azure(&home, &stage, &relay, &plain).args(["rotate", "--retry-for", "0s"]).run();
    unnamed.exits(77).stderr_has("Azure resource");
    assert_eq!(relay.asked_for(), [format!("{HOST}:443"), "login.microsoftonline.com:443".to_owned()]);
    home.write("secret", "another-secret-0123456789", 0o600);
    let refused = at_azure(&home, &stage, &relay, &whole).args(["rotate", "--retry-for", "0s"]).run();
    refused.exits(77).stderr_has("AADSTS7000215").stderr_has("azure_client_id");
    home.write("secret", SECRET, 0o600);
    let elsewhere = at_azure(&home, &stage, &relay, &format!("{settings}\nazure_tenant_id = 'x/../y'"));
    elsewhere.args(["rotate", "--retry-for", "0s"]).run().exits(78).stderr_has("no tenant");
}

#[test]
fn a_virtual_machine_and_an_app_sign_in_as_what_they_are() {
    let name = "a_virtual_machine_and_an_app_sign_in_as_what_they_are";
    let Some(stage) = Stage::new(name, workspace(), &[CLIENT]) else { return };
    let (relay, home) = (Relay::to(stage.workspace.port()), Home::new());
    let at = stage.workspace.services_url();
    stage.workspace.beside(|beside| beside.azure_resource = Some(RESOURCE.to_owned()));
    let settings = format!("azure_use_msi = true\nazure_workspace_resource_id = '{RESOURCE}'");
    let machine = at_azure(&home, &stage, &relay, &settings).env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &at);
    stage.proves(&home, CLIENT, machine);
    let app = |header: &str| {
        let session = at_azure(&home, &stage, &relay, &settings);
        session.env("IDENTITY_ENDPOINT", format!("{at}/msi/token")).env("IDENTITY_HEADER", header)
    };
    home.keep_secret("app-header-0123456789");
    stage.proves(&home, CLIENT, app("app-header-0123456789"));
    app("another-header-01234").args(["rotate", "--retry-for", "0s"]).run().exits(78).stderr_has("a header is missing");
    let far =
        at_azure(&home, &stage, &relay, &settings).env("AZURE_POD_IDENTITY_AUTHORITY_HOST", "https://evil.example");
    far.args(["rotate"]).run().exits(78).stderr_has("another machine");
    assert_eq!(relay.asked_for(), [format!("{HOST}:443")], "what knows the machine is not asked by a proxy");
    stage.workspace.beside(|beside| beside.machine = None);
    let nobody = at_azure(&home, &stage, &relay, &settings).env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &at);
    nobody.args(["rotate", "--retry-for", "0s"]).run().exits(78).stderr_has("Identity not found");
    // Nobody answers there.
    let port = free_port();
    let none = at_azure(&home, &stage, &relay, &settings)
        .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("http://127.0.0.1:{port}"));
    none.args(["rotate", "--retry-for", "0s"]).run().exits(69).stderr_has("no service for managed identities");
}

#[test]
fn who_has_logged_in_with_azures_cli_is_signed_in() {
    let user = "ada@example.com";
    let Some(stage) = Stage::new("who_has_logged_in_with_azures_cli_is_signed_in", workspace(), &[user]) else {
        return;
    };
    let (relay, home) = (Relay::to(stage.workspace.port()), Home::new());
    let token = stage.workspace.personal_token(user);
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\ncase \"$*\" in *2ff814a6-3304-4ab8-85cb-cd0e6f879c1d*) ;; *) exit 1 ;; esac\n\
         echo '{{\"accessToken\": \"{token}\", \"expiresOn\": \"2099-01-01 00:00:00.000000\", \"tokenType\": \"Bearer\"}}'\n",
        home.path("asked").display()
    );
    home.write("bin/az", script, 0o755);
    stage.proves(&home, user, at_azure(&home, &stage, &relay, "auth = 'azure-cli'\nazure_tenant_id = 't'"));
    assert!(home.read("asked").contains("--tenant t"), "{}", home.read("asked"));
    // Without being told: where the vendor's own CLI has no login.
    stage.proves(&home, user, at_azure(&home, &stage, &relay, ""));
    home.write("bin/az", "#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n", 0o755);
    let nobody = at_azure(&home, &stage, &relay, "auth = 'azure-cli'").args(["rotate", "--retry-for", "0s"]).run();
    nobody.exits(77).stderr_has("no live login").stderr_has("az login");
}
