//! Combinations that are made: what each method takes, in the environment and in a profile, with each method pinned, two at once, with
//! a group, at Azure and elsewhere.

use super::Case;

/// A method's settings: variable, key in a profile (none: a variable alone), value. `HOME` is the home directory.
type Settings = &'static [(&'static str, &'static str, &'static str)];

const SETS: &[(&str, Settings)] = &[
    ("pat", &[("DATABRICKS_TOKEN", "token", "dapi-SECRET")]),
    ("basic", &[("DATABRICKS_USERNAME", "username", "ada"), ("DATABRICKS_PASSWORD", "password", "SECRET")]),
    ("metadata", &[("DATABRICKS_METADATA_SERVICE_URL", "metadata_service_url", "http://127.0.0.1:9/SECRET")]),
    ("m2m", &[("DATABRICKS_CLIENT_ID", "client_id", "id-m"), ("DATABRICKS_CLIENT_SECRET", "client_secret", "SECRET")]),
    ("env", &[("DATABRICKS_OIDC_TOKEN", "", "SECRET")]),
    ("named-env", &[("DATABRICKS_OIDC_TOKEN_ENV", "oidc_token_env", "MY_TOKEN"), ("MY_TOKEN", "", "SECRET")]),
    ("file", &[("DATABRICKS_OIDC_TOKEN_FILEPATH", "oidc_token_filepath", "HOME/token")]),
    ("old-file", &[("DATABRICKS_OIDC_TOKEN_FILE", "oidc_token_filepath", "HOME/token")]),
    (
        "github",
        &[
            ("DATABRICKS_CLIENT_ID", "client_id", "id-g"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", "", "https://github.example/?x=1"),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "", "SECRET"),
        ],
    ),
    (
        "devops",
        &[
            ("DATABRICKS_CLIENT_ID", "client_id", "id-d"),
            ("SYSTEM_ACCESSTOKEN", "", "SECRET"),
            ("SYSTEM_TEAMFOUNDATIONCOLLECTIONURI", "", "https://devops.example/"),
            ("SYSTEM_TEAMPROJECTID", "", "p"),
            ("SYSTEM_PLANID", "", "1"),
            ("SYSTEM_JOBID", "", "2"),
            ("SYSTEM_HOSTTYPE", "", "build"),
        ],
    ),
    (
        "azure",
        &[
            ("ARM_CLIENT_ID", "azure_client_id", "id-a"),
            ("ARM_CLIENT_SECRET", "azure_client_secret", "SECRET"),
            ("ARM_TENANT_ID", "azure_tenant_id", "t"),
        ],
    ),
    (
        "google",
        &[("DATABRICKS_GOOGLE_SERVICE_ACCOUNT", "google_service_account", "rotator@shop.iam.gserviceaccount.com")],
    ),
    ("id", &[("DATABRICKS_CLIENT_ID", "client_id", "id-o")]),
    ("none", &[]),
];

const PINS: [&str; 13] = [
    "",
    "pat",
    "metadata-service",
    "oauth-m2m",
    "env-oidc",
    "file-oidc",
    "github-oidc",
    "azure-devops-oidc",
    "azure-client-secret",
    "azure-cli",
    "azure-msi",
    "google-id",
    "nonsense",
];

const ELSEWHERE: &str = "https://a.example";
const AT_AZURE: &str = "https://adb-1.2.azuredatabricks.net";

/// Where the settings are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Environment,
    Profile,
}

fn case(sets: &[&(&str, Settings)], pin: &str, place: Place, host: &'static str, group: bool) -> Case {
    let names: Vec<&str> = sets.iter().map(|(name, _)| *name).collect();
    let at_azure = host == AT_AZURE;
    let where_to = if place == Place::Profile { "profile" } else { "environment" };
    let name = format!(
        "{} | {pin} | {where_to}{}{}",
        names.join("+"),
        if at_azure { " at Azure" } else { "" },
        if group { " for a group" } else { "" }
    );
    let mut settings: Vec<(&'static str, &'static str, String)> = vec![("DATABRICKS_HOST", "host", host.to_owned())];
    settings.extend(
        sets.iter()
            .flat_map(|(_, all)| all.iter())
            .map(|(variable, key, value)| (*variable, *key, (*value).to_owned())),
    );
    if !pin.is_empty() {
        settings.push(("DATABRICKS_AUTH_TYPE", "auth_type", pin.to_owned()));
    }
    if group {
        settings.push(("DATABRICKS_GROUP_ID", "group_id", "4711".to_owned()));
    }
    let in_file = |key: &str| place == Place::Profile && !key.is_empty();
    let line = |(_, key, value): &(&str, &str, String)| in_file(key).then(|| format!("{key} = {value}\n"));
    let file: String = settings.iter().filter_map(line).collect();
    Case {
        name,
        reason: reason(&names, pin, at_azure, group, place),
        file: (place == Place::Profile).then(|| format!("[DEFAULT]\n{file}")),
        environment: settings
            .into_iter()
            .filter(|(_, key, _)| !in_file(key))
            .map(|(name, _, value)| (name, value))
            .collect(),
        flags: &[],
    }
}

/// Why we differ, where that is wanted.
fn reason(sets: &[&str], pin: &str, at_azure: bool, group: bool, place: Place) -> Option<&'static str> {
    let has = |set: &str| sets.contains(&set);
    let pinned_or_not = pin.is_empty();
    Some(match pin {
        "azure-msi" if at_azure && !group => "the SDK for Go knows managed identities, that for Python does not",
        "" if group && ["none", "pat", "metadata", "azure", "google"].contains(&sets[0]) => {
            "what is left for a group is a person's login in the browser, for which the SDK must be told so"
        }
        _ if !pinned_or_not || group && !has("id") => return None,
        _ if sets == ["env"] && place == Place::Profile => {
            "a secret that is set without a host is for no host that a file names"
        }
        _ if sets == ["basic"] => "a user's password signs in nowhere any more",
        _ if sets == ["google"] => "what is set comes before the login of a tool, for which the SDK looks first",
        _ if sets == ["azure"] && !at_azure => "settings of Azure mean nothing elsewhere, as for the SDK for Go",
        _ if sets == ["id"] && !group => "half a pair is told, where the SDK goes on to a person's login",
        _ => return None,
    })
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for set in SETS {
        for pin in PINS {
            all.push(case(&[set], pin, Place::Environment, ELSEWHERE, false));
        }
        all.push(case(&[set], "", Place::Profile, ELSEWHERE, false));
        all.push(case(&[set], "", Place::Environment, ELSEWHERE, true));
    }
    for set in SETS.iter().filter(|(name, _)| ["azure", "none", "m2m"].contains(name)) {
        for pin in PINS {
            all.push(case(&[set], pin, Place::Environment, AT_AZURE, false));
        }
    }
    // Each by each: an error without a pin, except where one is no method of its own.
    let families = ["pat", "metadata", "m2m", "named-env", "file", "azure", "google"];
    let families: Vec<_> = SETS.iter().filter(|(name, _)| families.contains(name)).collect();
    for (at, one) in families.iter().enumerate() {
        for other in &families[at + 1..] {
            all.push(case(&[one, other], "", Place::Environment, AT_AZURE, false));
            all.push(case(&[one, other], "", Place::Profile, AT_AZURE, false));
            all.push(case(&[one, other], "oauth-m2m", Place::Environment, AT_AZURE, false));
        }
    }
    all
}
