//! The alert rules speak of metrics that the program prints, and fire when they should: `promtool test rules` says so.
//!
//! `promtool` is that of Debian's package `prometheus`; `tests/run` takes it out of the package without installing a server.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use crate::page::{Page, repository};
use crate::support::{Home, Workspace, cache, dbx_rotator, skip};

const RULES: &str = "dist/prometheus/dbx-rotator.rules.yml";
const TESTS: &str = "tests/docs/dbx-rotator.rules.test.yml";

pub(crate) fn promtool() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([cache::directory().join("bin")]);
    let mut found = places.map(|place| place.join("promtool")).filter(|program| program.exists());
    found.next().ok_or_else(|| "no promtool (of Debian's package prometheus)".to_owned())
}

/// The names of metrics in a text that begin with this.
pub(crate) fn metrics(text: &str, start: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with(start)).map(str::to_owned).collect()
}

/// What `status --prometheus` prints once a credential is live, and where there was a proxy.
fn printed() -> String {
    let (workspace, home) = (Workspace::start(), Home::new());
    let run = |words: &[&str]| {
        let session = dbx_rotator!(&home).args(words).signed_in_to(&workspace);
        session.env("DATABRICKS_PG_HOST", "instance-1234.database.cloud.databricks.com").run()
    };
    run(&["rotate"]).exits(0);
    // Of a proxy that has ended.
    home.write(".local/state/dbx-rotator/proxy.json", "{\"version\": 1}", 0o600);
    let outcome = run(&["status", "--prometheus"]);
    outcome.exits(0);
    outcome.stdout
}

/// The names of all metrics that there can be.
pub(crate) fn known() -> BTreeSet<String> {
    // Only where a service manager knows of it, and where a client was refused.
    let more = ["dbx_rotator_service_active", "dbx_rotator_proxy_refused_total"].map(str::to_owned);
    metrics(&printed(), "dbx_rotator_").into_iter().chain(more).collect()
}

#[test]
fn the_rules_and_the_page_speak_of_metrics_that_are_printed() {
    let known = known();
    let page = Page::read("docs/monitoring.md").text;
    for (place, text) in [(RULES, Page::read(RULES).text), ("docs/monitoring.md", page)] {
        let used = metrics(&text, "dbx_rotator_");
        assert!(used.len() >= 4, "{place}: {used:?}");
        assert!(used.is_subset(&known), "{place}: {:?} is not printed", used.difference(&known).collect::<Vec<_>>());
    }
}

#[test]
fn each_alert_is_on_the_page() {
    let (rules, page) = (Page::read(RULES).text, Page::read("docs/monitoring.md").text);
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 4, "{alerts:?}");
    for alert in alerts {
        assert!(page.contains(&format!("`{alert}`")), "docs/monitoring.md does not name {alert}");
        assert!(Page::read(TESTS).text.contains(alert), "{TESTS} does not try {alert}");
    }
}

#[test]
fn the_alerts_fire_when_they_should() {
    let promtool = match promtool() {
        Ok(promtool) => promtool,
        Err(reason) => return skip("the_alerts_fire_when_they_should", &reason),
    };
    for words in [["check", "rules", RULES], ["test", "rules", TESTS]] {
        let outcome = Command::new(&promtool).args(words).current_dir(repository()).output().unwrap();
        let said = [outcome.stdout, outcome.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(outcome.status.success(), "promtool {}\n{said}", words.join(" "));
    }
}
