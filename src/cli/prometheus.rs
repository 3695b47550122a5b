//! `dbx-rotator status --prometheus`: Prometheus' text format, for node_exporter's textfile collector and similar
//! programs. <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::failure::Failure;
use crate::foreign;
use crate::generated::read_back;
use crate::proxy::Figures;
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
    /// None where the connection has no Secret of Kubernetes.
    pub(super) is_in_secret: Option<bool>,
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

const GAUGES: [(Metric, Value); 5] = [
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
    (
        (
            "dbx_rotator_secret_current",
            "gauge",
            "Whether the Kubernetes Secret is known to hold the credential that clients read (1) or not (0).",
        ),
        |sample| sample.is_in_secret.map(|is| u8::from(is).to_string()),
    ),
];

const FAILURES: Metric =
    ("dbx_rotator_failures_total", "counter", "Tries that failed since the record began, by kind.");

const SERVICE: Metric = (
    "dbx_rotator_service_active",
    "gauge",
    "Whether the service manager keeps the unit running or waiting (1) or not (0).",
);

/// What a proxy tells about itself.
type OfProxy = (Metric, fn(&Figures, bool) -> Vec<(Vec<(&'static str, String)>, String)>);

const PROXY: [OfProxy; 7] = [
    (("dbx_rotator_proxy_running", "gauge", "Whether the local proxy runs (1) or not (0)."), |_, runs| {
        alone(u8::from(runs).to_string())
    }),
    (("dbx_rotator_proxy_sessions", "gauge", "Sessions that the local proxy serves now."), |figures, _| {
        alone(figures.sessions.to_string())
    }),
    (
        (
            "dbx_rotator_proxy_logins_total",
            "counter",
            "Logins since the proxy was started, by outcome: accepted, accepted at the second try with another credential, refused.",
        ),
        |figures, _| {
            let first = figures.sessions_opened.saturating_sub(figures.second_logins);
            let outcomes = [
                ("accepted", first),
                ("accepted-at-second-try", figures.second_logins),
                ("refused", figures.refused.values().sum()),
            ];
            outcomes.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count.to_string())).into()
        },
    ),
    (
        (
            "dbx_rotator_proxy_refused_total",
            "counter",
            "Clients that got no session since the proxy was started, by PostgreSQL's error code.",
        ),
        |figures, _| {
            let one = |(code, count): (&String, &u64)| {
                (vec![("sqlstate", foreign::line(code).into_owned())], count.to_string())
            };
            figures.refused.iter().map(one).collect()
        },
    ),
    (
        ("dbx_rotator_proxy_received_bytes_total", "counter", "Bytes since the proxy was started, by who sent them."),
        |figures, _| {
            let sides = [("clients", figures.bytes_from_clients), ("servers", figures.bytes_from_servers)];
            sides.map(|(side, bytes)| (vec![("from", side.to_owned())], bytes.to_string())).into()
        },
    ),
    (("dbx_rotator_proxy_wakes_total", "counter", "Logins for which a server had to wake up."), |figures, _| {
        alone(figures.wakes.to_string())
    }),
    (
        ("dbx_rotator_proxy_wake_seconds_total", "counter", "How long those logins took in all, in seconds."),
        |figures, _| alone(format!("{:.3}", figures.wake_seconds)),
    ),
];

fn alone(value: String) -> Vec<(Vec<(&'static str, String)>, String)> {
    vec![(Vec::new(), value)]
}

fn seconds(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.as_second().to_string())
}

/// All metrics, each with its help and type; unknown values have no line.
///
/// # Errors
/// A reader of the format would not read what was meant.
pub(super) fn text(
    samples: &[Sample<'_>],
    service: Option<&State>,
    proxy: Option<&(Figures, bool)>,
) -> Result<String, Failure> {
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
    if let Some((figures, runs)) = proxy {
        for (metric, values) in PROXY {
            let lines = values(figures, *runs).into_iter();
            let lines = lines.map(|(labels, value)| Line { metric: metric.0, labels, value });
            add(&mut text, &mut meant, metric, lines);
        }
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
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{name}{labels} {}", line.value);
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
    let (name, _) = line.split_once(['{', ' '])?;
    let names = GAUGES.map(|((name, ..), _)| name).into_iter().chain(PROXY.map(|((name, ..), _)| name));
    let metric = names.chain([FAILURES.0, SERVICE.0]).find(|known| *known == name)?;
    let mut labels = Vec::new();
    if let Some(value) = line[name.len()..].strip_prefix(' ') {
        return Some(Line { metric, labels, value: number(value)? });
    }
    let mut rest = line[name.len()..].strip_prefix('{')?;
    loop {
        let (name, value) = rest.split_once("=\"")?;
        let label =
            ["connection", "kind", "unit", "outcome", "sqlstate", "from"].into_iter().find(|known| *known == name)?;
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
                let value = number(value[end + 1..].strip_prefix("} ")?)?;
                return Some(Line { metric, labels, value });
            }
        }
    }
}

/// A value as it is written, if it is a number.
fn number(text: &str) -> Option<String> {
    text.parse::<f64>().is_ok().then(|| text.to_owned())
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
            is_in_secret: Some(false),
        };
        let text = text(&[sample], None, None).unwrap();
        for line in [
            r#"dbx_rotator_credential_live{connection="a \"b\"\\c"} 1"#,
            r#"dbx_rotator_credential_expiry_timestamp_seconds{connection="a \"b\"\\c"} 1764057600"#,
            r#"dbx_rotator_failures_total{connection="a \"b\"\\c",kind="transient"} 3"#,
            r#"dbx_rotator_secret_current{connection="a \"b\"\\c"} 0"#,
            "# TYPE dbx_rotator_failures_total counter",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(!text.contains("last_success_timestamp_seconds{"));
        assert!(text.lines().all(|line| !line.is_empty()) && text.ends_with('\n'));
    }

    #[test]
    fn a_proxy_is_told_with_all_that_it_counted() {
        let refused = [("28P01".to_owned(), 3), ("53300".to_owned(), 1)].into();
        let figures =
            Figures { sessions_opened: 9, second_logins: 2, refused, wake_seconds: 1.5, ..Figures::default() };
        let text = text(&[], None, Some(&(figures, true))).unwrap();
        for line in [
            "dbx_rotator_proxy_running 1",
            r#"dbx_rotator_proxy_logins_total{outcome="accepted"} 7"#,
            r#"dbx_rotator_proxy_logins_total{outcome="accepted-at-second-try"} 2"#,
            r#"dbx_rotator_proxy_logins_total{outcome="refused"} 4"#,
            r#"dbx_rotator_proxy_refused_total{sqlstate="28P01"} 3"#,
            r#"dbx_rotator_proxy_received_bytes_total{from="clients"} 0"#,
            "dbx_rotator_proxy_wake_seconds_total 1.500",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
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
                is_in_secret: None,
            };
            let text = text(&[sample], None, None).unwrap();
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
