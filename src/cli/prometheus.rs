//! `dbx-rotator status --prometheus`: the text format of Prometheus, for node_exporter's textfile collector and the like.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::service::State;

/// What is told of one connection.
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) live: bool,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) last_success_at: Option<Timestamp>,
    pub(super) next_attempt_at: Option<Timestamp>,
    pub(super) transient_failures: u64,
    pub(super) permanent_failures: u64,
}

/// All metrics, each with its help and type; what is not known of a connection has no line.
pub(super) fn text(samples: &[Sample<'_>], service: Option<&State>) -> String {
    let mut text = String::new();
    let time = |at: Option<Timestamp>| at.map(|at| at.as_second().to_string());
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Sample<'_>) -> Option<String>| {
        head(&mut text, name, "gauge", help);
        for sample in samples {
            if let Some(value) = value(sample) {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name}{{connection=\"{}\"}} {value}", escaped(sample.name));
            }
        }
    };
    gauge("dbx_rotator_credential_live", "Whether clients read a live credential (1) or not (0).", &|sample| {
        Some(u8::from(sample.live).to_string())
    });
    gauge(
        "dbx_rotator_credential_expiry_timestamp_seconds",
        "When the published credential expires, in seconds since 1970.",
        &|sample| time(sample.expires_at),
    );
    gauge(
        "dbx_rotator_last_success_timestamp_seconds",
        "When a credential was published last, in seconds since 1970.",
        &|sample| time(sample.last_success_at),
    );
    gauge(
        "dbx_rotator_next_attempt_timestamp_seconds",
        "When the next rotation is due, in seconds since 1970.",
        &|sample| time(sample.next_attempt_at),
    );
    failures(&mut text, samples);
    if let Some(state) = service {
        let name = "dbx_rotator_service_active";
        head(&mut text, name, "gauge", "Whether the service manager keeps the unit running or waiting (1) or not (0).");
        let _ = writeln!(text, "{name}{{unit=\"{}\"}} {}", escaped(&state.unit), u8::from(state.is_up()));
    }
    text
}

fn failures(text: &mut String, samples: &[Sample<'_>]) {
    let name = "dbx_rotator_failures_total";
    head(text, name, "counter", "Tries that failed since the record began, by kind.");
    for sample in samples {
        for (kind, count) in [("transient", sample.transient_failures), ("permanent", sample.permanent_failures)] {
            let _ = writeln!(text, "{name}{{connection=\"{}\",kind=\"{kind}\"}} {count}", escaped(sample.name));
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A label's value ("Comments, help text, and type information").
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_has_no_line_and_names_are_escaped() {
        let sample = Sample {
            name: "a \"b\"\\c",
            live: true,
            expires_at: Some(Timestamp::from_second(1_764_057_600).unwrap()),
            last_success_at: None,
            next_attempt_at: None,
            transient_failures: 3,
            permanent_failures: 0,
        };
        let text = text(&[sample], None);
        for line in [
            r#"dbx_rotator_credential_live{connection="a \"b\"\\c"} 1"#,
            r#"dbx_rotator_credential_expiry_timestamp_seconds{connection="a \"b\"\\c"} 1764057600"#,
            r#"dbx_rotator_failures_total{connection="a \"b\"\\c",kind="transient"} 3"#,
            "# TYPE dbx_rotator_failures_total counter",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(!text.contains("last_success_timestamp_seconds{"));
        assert!(text.lines().all(|line| !line.is_empty()) && text.ends_with('\n'));
    }
}
