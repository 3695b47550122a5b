//! `dbx-rotator status --prometheus`: Prometheus' text format, for node_exporter's textfile collector and similar
//! programs. <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::failure::Failure;
use crate::foreign;
use crate::generated::read_back;
use crate::service::State;

/// The values for one connection.
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) live: bool,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) last_success_at: Option<Timestamp>,
    pub(super) next_attempt_at: Option<Timestamp>,
    pub(super) transient_failures: u64,
    pub(super) permanent_failures: u64,
}

/// One line: a metric, its labels, its value.
#[derive(Debug, PartialEq)]
struct Line {
    metric: &'static str,
    labels: Vec<(&'static str, String)>,
    value: String,
}

/// The name, the kind and the help of a metric.
type Metric = (&'static str, &'static str, &'static str);

/// Gets a value of a connection; none if it is unknown.
type Value = fn(&Sample<'_>) -> Option<String>;

const GAUGES: [(Metric, Value); 4] = [
    (("dbx_rotator_credential_live", "gauge", "Whether clients read a live credential (1) or not (0)."), |sample| {
        Some(u8::from(sample.live).to_string())
    }),
    (
        (
            "dbx_rotator_credential_expiry_timestamp_seconds",
            "gauge",
            "When the published credential expires, in seconds since 1970.",
        ),
        |sample| seconds(sample.expires_at),
    ),
    (
        (
            "dbx_rotator_last_success_timestamp_seconds",
            "gauge",
            "When a credential was published last, in seconds since 1970.",
        ),
        |sample| seconds(sample.last_success_at),
    ),
    (
        (
            "dbx_rotator_next_attempt_timestamp_seconds",
            "gauge",
            "When the next rotation is due, in seconds since 1970.",
        ),
        |sample| seconds(sample.next_attempt_at),
    ),
];

const FAILURES: Metric =
    ("dbx_rotator_failures_total", "counter", "Tries that failed since the record began, by kind.");

const SERVICE: Metric = (
    "dbx_rotator_service_active",
    "gauge",
    "Whether the service manager keeps the unit running or waiting (1) or not (0).",
);

fn seconds(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.as_second().to_string())
}

/// All metrics, each with its help and type; unknown values have no line.
///
/// # Errors
/// A reader of the format would not read what was meant.
pub(super) fn text(samples: &[Sample<'_>], service: Option<&State>) -> Result<String, Failure> {
    let (mut text, mut meant) = (String::new(), Vec::new());
    for ((metric, kind, help), value) in GAUGES {
        let line = |sample: &Sample<'_>| Some(Line { metric, labels: labels(sample), value: value(sample)? });
        add(&mut text, &mut meant, (metric, kind, help), samples.iter().filter_map(line));
    }
    let metric = FAILURES.0;
    let failures = samples.iter().flat_map(|sample| {
        let counts = [("transient", sample.transient_failures), ("permanent", sample.permanent_failures)];
        counts.map(|(kind, count)| {
            let labels = labels(sample).into_iter().chain([("kind", kind.to_owned())]).collect();
            Line { metric, labels, value: count.to_string() }
        })
    });
    add(&mut text, &mut meant, FAILURES, failures);
    if let Some(state) = service {
        let (labels, value) =
            (vec![("unit", foreign::line(&state.unit).into_owned())], u8::from(state.is_up()).to_string());
        add(&mut text, &mut meant, SERVICE, [Line { metric: SERVICE.0, labels, value }]);
    }
    read_back("the list of metrics", &meant, read(&text).as_ref())?;
    Ok(text)
}

fn labels(sample: &Sample<'_>) -> Vec<(&'static str, String)> {
    vec![("connection", foreign::line(sample.name).into_owned())]
}

/// Writes one metric, and adds its lines to `meant`.
fn add(text: &mut String, meant: &mut Vec<Line>, metric: Metric, lines: impl IntoIterator<Item = Line>) {
    let (name, kind, help) = metric;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for line in lines {
        let labels: Vec<String> =
            line.labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let _ = writeln!(text, "{name}{{{}}} {}", labels.join(","), line.value);
        meant.push(line);
    }
}

/// A label's value ("Comments, help text, and type information").
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The lines as a reader of the format sees them; none if any other line is among them.
fn read(text: &str) -> Option<Vec<Line>> {
    text.split_terminator('\n').filter(|line| !line.starts_with("# ")).map(read_line).collect()
}

fn read_line(line: &str) -> Option<Line> {
    let (name, mut rest) = line.split_once('{')?;
    let metric =
        GAUGES.map(|((name, ..), _)| name).into_iter().chain([FAILURES.0, SERVICE.0]).find(|known| *known == name)?;
    let mut labels = Vec::new();
    loop {
        let (name, value) = rest.split_once("=\"")?;
        let label = ["connection", "kind", "unit"].into_iter().find(|known| *known == name)?;
        let (mut unescaped, mut characters) = (String::new(), value.char_indices());
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => unescaped.push(match characters.next()?.1 {
                    'n' => '\n',
                    plain @ ('\\' | '"') => plain,
                    _ => return None,
                }),
                (_, other) => unescaped.push(other),
            }
        };
        labels.push((label, unescaped));
        match value[end + 1..].strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                let value = value[end + 1..].strip_prefix("} ")?.parse::<i64>().ok()?.to_string();
                return Some(Line { metric, labels, value });
            }
        }
    }
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
        let text = text(&[sample], None).unwrap();
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

    #[test]
    fn no_name_becomes_a_line_of_its_own() {
        for name in ["a\"} 1\nb{c=\"d", "a\nb 1", "a\\", "a\\n", "a\r\nb", "\u{1b}[2J", "a\",kind=\"x", ""] {
            let (live, none) = (false, None);
            let (expires_at, last_success_at, next_attempt_at) = (none, none, none);
            let sample = Sample {
                name,
                live,
                expires_at,
                last_success_at,
                next_attempt_at,
                transient_failures: 0,
                permanent_failures: 0,
            };
            let text = text(&[sample], None).unwrap();
            let lines = read(&text).unwrap();
            assert_eq!(lines.len(), 3, "{text}");
            assert!(
                lines.iter().all(|line| line.labels[0] == ("connection", foreign::line(name).into_owned())),
                "{text}"
            );
        }
        for text in
            ["x 1\n", "dbx_rotator_credential_live{connection=\"a\"} 1 2\n", "dbx_rotator_credential_live{} 1\n"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
