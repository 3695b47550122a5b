//! config.toml as it is written, before it is merged with the other sources. Unknown keys are refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::fault::ConfigError;
use crate::os::files::read_text;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) interval: Option<Spanned<Interval>>,
    pub(crate) password_file: Option<Spanned<String>>,
    pub(crate) log_file: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) workspace: Vec<Spanned<WorkspaceTable>>,
    #[serde(default)]
    pub(crate) connection: Vec<Spanned<ConnectionTable>>,
}

/// One `[[workspace]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkspaceTable {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) host: Option<Spanned<String>>,
    pub(crate) auth: Option<Spanned<String>>,
    pub(crate) client_id: Option<Spanned<String>>,
    pub(crate) client_secret_file: Option<Spanned<String>>,
    pub(crate) profile: Option<Spanned<String>>,
    pub(crate) cli_path: Option<Spanned<String>>,
    pub(crate) ca_file: Option<Spanned<String>>,
    /// Accepted by the parser only to be refused with a reason.
    pub(crate) client_secret: Option<Spanned<toml::Value>>,
}

/// One `[[connection]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionTable {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) workspace: Option<Spanned<String>>,
    pub(crate) host: Option<Spanned<String>>,
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) database: Option<Spanned<String>>,
    pub(crate) user: Option<Spanned<String>>,
    pub(crate) verify: Option<Spanned<String>>,
    pub(crate) last_copy: Option<Spanned<bool>>,
    pub(crate) any_identity: Option<Spanned<bool>>,
}

/// How long after its issue a credential is replaced: `"50m"`, or a number of minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Duration);

impl Interval {
    /// What makes sense: shorter is a storm, longer than a day no token lives.
    pub(crate) const RANGE: std::ops::RangeInclusive<Duration> =
        Duration::from_secs(60)..=Duration::from_secs(24 * 3600);
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a duration such as \"50m\", or a number of minutes")]
        enum Written {
            Minutes(u64),
            Text(String),
        }
        let interval = match Written::deserialize(deserializer)? {
            Written::Minutes(minutes) => Duration::from_secs(minutes.saturating_mul(60)),
            Written::Text(text) => parse_duration(&text).map_err(de::Error::custom)?,
        };
        if Self::RANGE.contains(&interval) {
            Ok(Interval(interval))
        } else {
            Err(de::Error::custom("the interval must lie between 1 minute and 24 hours"))
        }
    }
}

/// Reads a duration as people and systemd.time(7) write it: `90s`, `50m`, `1h 30m`, `1h30min`.
///
/// # Errors
/// A sentence with what would have been right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("`{text}` is not a duration: write it like 90s, 50m or 1h 30m"))
}

/// A parsed file with its text, which faults point into.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) file: ConfigFile,
    line_starts: Vec<usize>,
}

impl Source {
    /// Reads and parses a file; none if it does not exist and nobody named it.
    pub(crate) fn read(path: &Path, named: bool) -> Result<Option<Self>, ConfigError> {
        let text = match read_text(path) {
            Ok(text) => text.to_string(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return Ok(None),
            Err(error) => {
                let absent = error.kind() == std::io::ErrorKind::NotFound;
                let hint =
                    if absent { "check --config and DBX_ROTATOR_CONFIG" } else { "check who owns it, and its mode" };
                return Err(ConfigError::new(format!("cannot read {}: {error}", path.display())).hint(hint));
            }
        };
        let file = toml::from_str(&text).map_err(|fault| {
            let error = ConfigError::new(fault.message().to_owned());
            match fault.span() {
                Some(span) => error.at(path, &text, span),
                None => error.hint(format!("in {}", path.display())),
            }
        })?;
        let line_starts = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        Ok(Some(Source { path: path.to_owned(), text, file, line_starts }))
    }

    /// A fault at a value of this file.
    pub(crate) fn fault<T>(&self, at: &Spanned<T>, message: impl Into<String>) -> ConfigError {
        ConfigError::new(message).at(&self.path, &self.text, at.span())
    }

    /// The line, from 1, that a value stands in.
    pub(crate) fn line<T>(&self, at: &Spanned<T>) -> usize {
        self.line_starts.partition_point(|start| *start <= at.span().start) + 1
    }
}
