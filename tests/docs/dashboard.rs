//! The dashboard for Grafana speaks of metrics that the program prints, in queries that Prometheus can read, and of no data source
//! but the one that is chosen.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::alerts::{known, metrics, promtool};
use crate::page::{Page, repository};
use crate::support::skip;
use crate::support::workspace::scratch_directory;

const DASHBOARD: &str = "dist/grafana/dbx-rotator.json";

fn dashboard() -> Value {
    serde_json::from_str(&Page::read(DASHBOARD).text).unwrap()
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

/// Every value with this key, however deep.
fn all<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(name, inner)| (name == key).then_some(inner).into_iter().chain(all(inner, key)))
            .collect(),
        Value::Array(list) => list.iter().flat_map(|inner| all(inner, key)).collect(),
        _ => Vec::new(),
    }
}

fn queries(dashboard: &Value) -> Vec<&str> {
    all(dashboard, "expr").into_iter().map(|query| query.as_str().unwrap()).collect()
}

#[test]
fn the_dashboard_shows_metrics_that_are_printed_and_all_that_matter() {
    let dashboard = dashboard();
    let used = metrics(&queries(&dashboard).join("\n"), "dbx_rotator_");
    let variables: Vec<&str> =
        all(&dashboard["templating"], "definition").iter().map(|text| text.as_str().unwrap()).collect();
    let asked = metrics(&variables.join("\n"), "dbx_rotator_");
    let known = known();
    assert!(asked.is_subset(&known) && !asked.is_empty(), "{asked:?}");
    assert_eq!(used, known, "shown, and printed");
}

#[test]
fn prometheus_can_read_each_query_of_the_dashboard() {
    let promtool = match promtool() {
        Ok(promtool) => promtool,
        Err(reason) => return skip("prometheus_can_read_each_query_of_the_dashboard", &reason),
    };
    let dashboard = dashboard();
    let scratch = scratch_directory(0o755);
    let rules = scratch.path().join("rules.yml");
    let mut text = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let queries = queries(&dashboard);
    for (number, query) in queries.iter().enumerate() {
        // What Grafana puts there.
        let query = query.replace("$__rate_interval_ms", "300000").replace("$__rate_interval", "5m");
        text += &format!("      - record: query{number}\n        expr: {}\n", Value::from(query));
    }
    std::fs::write(&rules, text).unwrap();
    let outcome = Command::new(&promtool).args(["check", "rules", "--lint=none"]).arg(&rules).output().unwrap();
    let said = [outcome.stdout, outcome.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(outcome.status.success(), "{said}");
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard = dashboard();
    assert!(
        dashboard["schemaVersion"].as_u64().unwrap() >= 36 && dashboard["id"].is_null() && dashboard["uid"].is_null()
    );
    let chosen = serde_json::json!({"type": "prometheus", "uid": "${datasource}"});
    let grafanas_own = serde_json::json!({"type": "grafana", "uid": "-- Grafana --"});
    let sources = all(&dashboard, "datasource");
    assert!(sources.iter().all(|source| **source == chosen || **source == grafanas_own), "{sources:?}");
    let known = ["datasource", "instance", "connection", "__rate_interval", "__rate_interval_ms", "__all"];
    for text in all(&dashboard, "expr").into_iter().chain(all(&dashboard, "uid")).filter_map(Value::as_str) {
        let names = text.split('$').skip(1).map(|rest| {
            rest.trim_start_matches('{').split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap()
        });
        names.for_each(|name| assert!(known.contains(&name), "nobody sets ${name}: {text}"));
    }
    let ids: BTreeSet<u64> = all(&dashboard["panels"], "id").iter().filter_map(|id| id.as_u64()).collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
    // No two at the same place.
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert((x, y)), "{} lies above another panel", panel["title"]);
        }
    }
    for panel in panels(&dashboard) {
        assert!(panel["title"].is_string() && panel["description"].is_string(), "{panel}");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
    }
    assert!(repository().join("dist/build").exists());
    assert!(Page::read("dist/build").text.contains("dist/grafana/"), "the packages have it");
}
