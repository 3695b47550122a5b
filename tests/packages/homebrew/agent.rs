//! The property list, key by key and type by type: launchd ignores unknown keys, so that nobody would ever notice a typing
//! error.

use Kind::{Array, Boolean, Dictionary, Integer, Text};
use serde_json::{Map, Value, json};

use super::brewed::{DIST, is_here};
use crate::support::Home;

const LABEL: &str = "app.dbx-rotator.agent";

/// Converts a property list to JSON, which distinguishes all the types in it; an agent has no dates or data.
const TO_JSON: &str = "import json, plistlib, sys; json.dump(plistlib.load(open(sys.argv[1], 'rb')), sys.stdout)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Boolean,
    Dictionary,
    Integer,
    Text,
}

impl Kind {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Array(_) => Some(Array),
            Value::Bool(_) => Some(Boolean),
            Value::Object(_) => Some(Dictionary),
            Value::Number(number) => number.is_u64().then_some(Integer),
            Value::String(_) => Some(Text),
            Value::Null => None,
        }
    }
}

/// The types that a key may have according to launchd.plist(5); none for unknown, obsolete or deprecated keys.
fn kinds(key: &str) -> &'static [Kind] {
    match key {
        "Label" | "UserName" | "GroupName" | "Program" | "BundleProgram" | "RootDirectory" | "WorkingDirectory"
        | "StandardInPath" | "StandardOutPath" | "StandardErrorPath" | "ProcessType" => &[Text],
        "Disabled"
        | "EnableGlobbing"
        | "EnableTransactions"
        | "EnablePressuredExit"
        | "RunAtLoad"
        | "InitGroups"
        | "StartOnMount"
        | "Debug"
        | "WaitForDebugger"
        | "AbandonProcessGroup"
        | "LowPriorityIO"
        | "LowPriorityBackgroundIO"
        | "MaterializeDatalessFiles"
        | "LaunchOnlyOnce"
        | "SessionCreate"
        | "LegacyTimers" => &[Boolean],
        "ExitTimeOut" | "ThrottleInterval" | "StartInterval" | "Nice" => &[Integer],
        "ProgramArguments" | "WatchPaths" | "QueueDirectories" => &[Array],
        "inetdCompatibility"
        | "LimitLoadToHardware"
        | "LimitLoadFromHardware"
        | "EnvironmentVariables"
        | "SoftResourceLimits"
        | "HardResourceLimits"
        | "MachServices"
        | "Sockets"
        | "LaunchEvents" => &[Dictionary],
        "LimitLoadToSessionType" | "AssociatedBundleIdentifiers" => &[Text, Array],
        "KeepAlive" => &[Boolean, Dictionary],
        "StartCalendarInterval" => &[Dictionary, Array],
        "Umask" => &[Integer, Text],
        "KeepAlive.SuccessfulExit" | "KeepAlive.Crashed" => &[Boolean],
        "KeepAlive.PathState" | "KeepAlive.OtherJobEnabled" => &[Dictionary],
        _ if key.starts_with("EnvironmentVariables.") => &[Text],
        _ => &[],
    }
}

/// What launchd would ignore or not understand.
fn faults(agent: &Map<String, Value>, within: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in agent {
        let key = format!("{within}{key}");
        if !Kind::of(value).is_some_and(|kind| kinds(&key).contains(&kind)) {
            found.push(format!("{key}: {value}"));
        }
        match value {
            Value::Object(inner) => found.extend(faults(inner, &format!("{key}."))),
            // Of all possible arrays, only that of StartCalendarInterval contains anything except strings.
            Value::Array(values) if !values.iter().all(Value::is_string) => found.push(format!("{key}: {value}")),
            _ => {}
        }
    }
    found
}

fn agent(home: &Home) -> Map<String, Value> {
    let file = format!("{DIST}/launchd/{LABEL}.plist");
    match home.command("python3").args(["-c", TO_JSON, &file]).run().exits(0).json() {
        Value::Object(agent) => agent,
        other => panic!("not a dictionary: {other}"),
    }
}

#[test]
fn the_agent_has_only_keys_that_launchd_knows_each_of_a_type_that_it_takes() {
    if !is_here("the_agent_has_only_keys_that_launchd_knows_each_of_a_type_that_it_takes", "python3") {
        return;
    }
    let agent = agent(&Home::new());
    assert_eq!(faults(&agent, ""), [""; 0]);
    // A control: common mistakes that launchd would not accept must be found.
    for (key, value) in [
        ("KeepALive", json!(true)),
        ("StartCalendarIntervals", json!([])),
        ("TimeOut", json!(10)),
        ("Umask", json!(true)),
        ("RunAtLoad", json!("true")),
        ("ThrottleInterval", json!("10")),
        ("KeepAlive", json!({"SuccessfulExit": "false"})),
        ("KeepAlive", json!({"NetworkState": true})),
        ("EnvironmentVariables", json!({"PATH": ["/bin"]})),
        ("ProgramArguments", json!(["/bin/true", 1])),
    ] {
        let mut broken = agent.clone();
        broken.insert(key.to_owned(), value);
        assert_eq!(faults(&broken, "").len(), 1, "{key} passes");
    }
}

#[test]
fn the_agent_keeps_the_daemon_alive_and_holds_no_secret() {
    if !is_here("the_agent_keeps_the_daemon_alive_and_holds_no_secret", "python3") {
        return;
    }
    let agent = agent(&Home::new());
    let expected = json!({
        // launchctl finds the job by this name, `brew services` the file.
        "Label": LABEL,
        "ProgramArguments": ["HOMEBREW_PREFIX/opt/dbx-rotator/bin/dbx-rotator", "run"],
        "RunAtLoad": true,
        "KeepAlive": {"SuccessfulExit": false},
        "ThrottleInterval": 10,
        "ProcessType": "Background",
        "Umask": 0o077,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(agent.get(key), Some(value), "{key}");
    }
    let variables = agent["EnvironmentVariables"].as_object().unwrap();
    assert_eq!(variables.keys().collect::<Vec<_>>(), ["PATH"], "it is readable by others");
    // Where `brew install databricks` puts the CLI.
    assert!(variables["PATH"].as_str().unwrap().starts_with("HOMEBREW_PREFIX/bin:"), "{variables:?}");
    for session in agent["LimitLoadToSessionType"].as_array().unwrap() {
        let known = ["Aqua", "Background", "LoginWindow", "StandardIO", "System"];
        assert!(known.contains(&session.as_str().unwrap()), "{session}");
    }
}

/// Another reader than Python's; the result in Apple's binary form says the same.
#[test]
fn the_agent_survives_the_way_to_a_binary_property_list_and_back() {
    let test = "the_agent_survives_the_way_to_a_binary_property_list_and_back";
    if !is_here(test, "plistutil") || !is_here(test, "python3") {
        return;
    }
    let home = Home::new();
    let file = format!("{DIST}/launchd/{LABEL}.plist");
    home.command("plistutil").args(["-i", &file, "-f", "bin", "-o", "agent"]).run().exits(0);
    assert!(std::fs::read(home.path("agent")).unwrap().starts_with(b"bplist00"));
    let binary = home.command("python3").args(["-c", TO_JSON, "agent"]).run().exits(0).json();
    assert_eq!(binary, Value::Object(agent(&home)));
}
