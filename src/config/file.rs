//! What may stand in config.toml and in a fragment, as written, before it is merged with the other sources. Unknown keys are refused.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use serde_spanned::Spanned;

use super::unified::Key;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) interval: Option<Spanned<Interval>>,
    pub(crate) password_file: Option<Spanned<OneOrMore>>,
    pub(crate) log_file: Option<Spanned<String>>,
    pub(crate) proxy: Option<Spanned<String>>,
    pub(crate) no_proxy: Option<Spanned<String>>,
    pub(crate) proxy_listen: Option<Spanned<String>>,
    pub(crate) proxy_allow: Option<Spanned<Vec<Spanned<NameOrNumber>>>>,
    pub(crate) proxy_max_sessions: Option<Spanned<usize>>,
    pub(crate) proxy_idle_timeout: Option<Spanned<String>>,
    pub(crate) proxy_tls: Option<Spanned<String>>,
    pub(crate) notify_command: Option<Spanned<Vec<String>>>,
    pub(crate) kubernetes_lease: Option<Spanned<String>>,
    pub(crate) kubernetes_service_account: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) workspace: Vec<Spanned<WorkspaceTable>>,
    #[serde(default)]
    pub(crate) connection: Vec<Spanned<ConnectionTable>>,
}

/// One `[[workspace]]`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkspaceTable {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) host: Option<Spanned<String>>,
    pub(crate) auth: Option<Spanned<String>>,
    pub(crate) client_id: Option<Spanned<String>>,
    pub(crate) client_secret_file: Option<Spanned<String>>,
    pub(crate) client_secret_keychain: Option<Spanned<String>>,
    pub(crate) profile: Option<Spanned<String>>,
    pub(crate) cli_path: Option<Spanned<String>>,
    pub(crate) ca_file: Option<Spanned<String>>,
    /// Accepted by the parser only in order to be refused with a reason.
    pub(crate) client_secret: Option<Spanned<de::IgnoredAny>>,
    pub(crate) account_id: Option<Spanned<String>>,
    pub(crate) workspace_id: Option<Spanned<String>>,
    pub(crate) group_id: Option<Spanned<String>>,
    pub(crate) scopes: Option<Spanned<String>>,
    pub(crate) token_file: Option<Spanned<String>>,
    pub(crate) oidc_token_filepath: Option<Spanned<String>>,
    pub(crate) oidc_token_env: Option<Spanned<String>>,
    pub(crate) token_audience: Option<Spanned<String>>,
    pub(crate) azure_client_id: Option<Spanned<String>>,
    pub(crate) azure_client_secret_file: Option<Spanned<String>>,
    pub(crate) azure_tenant_id: Option<Spanned<String>>,
    pub(crate) azure_workspace_resource_id: Option<Spanned<String>>,
    pub(crate) azure_environment: Option<Spanned<String>>,
    pub(crate) azure_use_msi: Option<Spanned<bool>>,
    pub(crate) google_credentials_file: Option<Spanned<String>>,
    pub(crate) google_service_account: Option<Spanned<String>>,
    pub(crate) metadata_service_url: Option<Spanned<String>>,
}

impl WorkspaceTable {
    /// The settings of single methods, as they are written.
    pub(super) fn of_methods(&self) -> [(Key, &Option<Spanned<String>>); 11] {
        [
            (Key::GroupId, &self.group_id),
            (Key::Scopes, &self.scopes),
            (Key::OidcTokenFile, &self.oidc_token_filepath),
            (Key::OidcTokenEnv, &self.oidc_token_env),
            (Key::Audience, &self.token_audience),
            (Key::AzureClientId, &self.azure_client_id),
            (Key::AzureTenantId, &self.azure_tenant_id),
            (Key::AzureResourceId, &self.azure_workspace_resource_id),
            (Key::AzureEnvironment, &self.azure_environment),
            (Key::GoogleServiceAccount, &self.google_service_account),
            (Key::MetadataServiceUrl, &self.metadata_service_url),
        ]
    }

    /// The files that hold secrets of single methods.
    pub(super) fn secret_files(&self) -> [(Key, &Option<Spanned<String>>); 3] {
        [
            (Key::Token, &self.token_file),
            (Key::AzureClientSecret, &self.azure_client_secret_file),
            (Key::GoogleCredentials, &self.google_credentials_file),
        ]
    }
}

/// One `[[connection]]`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionTable {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) workspace: Option<Spanned<String>>,
    pub(crate) instance: Option<Spanned<String>>,
    pub(crate) endpoint: Option<Spanned<String>>,
    pub(crate) host: Option<Spanned<String>>,
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) database: Option<Spanned<String>>,
    pub(crate) user: Option<Spanned<String>>,
    pub(crate) read_only: Option<Spanned<bool>>,
    pub(crate) credential: Option<Spanned<String>>,
    pub(crate) ttl: Option<Spanned<Ttl>>,
    pub(crate) verify: Option<Spanned<String>>,
    pub(crate) sslmode: Option<Spanned<String>>,
    pub(crate) sslrootcert: Option<Spanned<String>>,
    pub(crate) service_file: Option<Spanned<bool>>,
    pub(crate) token_file: Option<Spanned<String>>,
    pub(crate) env_file: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) file: Vec<Spanned<FileTable>>,
    pub(crate) on_rotate: Option<Spanned<Vec<String>>>,
    pub(crate) kubernetes_secret: Option<Spanned<String>>,
    pub(crate) kubernetes_secret_uri: Option<Spanned<bool>>,
    pub(crate) last_copy: Option<Spanned<bool>>,
    pub(crate) any_identity: Option<Spanned<bool>>,
    pub(crate) proxy_port: Option<Spanned<u16>>,
    pub(crate) proxy_roles: Option<Spanned<Vec<Spanned<String>>>>,
}

/// One `[[connection.file]]`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTable {
    pub(crate) template: Option<Spanned<String>>,
    pub(crate) path: Option<Spanned<String>>,
    pub(crate) mode: Option<Spanned<String>>,
    pub(crate) group: Option<Spanned<String>>,
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a user's name or number")]
pub(crate) enum NameOrNumber {
    Number(u32),
    Name(String),
}

/// A path, or a list of paths.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> de::Visitor<'de> for Reader {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a list of paths")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore::One(path.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = list.next_element()? {
                    paths.push(path);
                }
                Ok(OneOrMore::More(paths))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// How long after its issue a credential is replaced: `"50m"`, or a number of minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Duration);

impl Interval {
    /// The sensible range: shorter would flood the workspace, and no token lives longer than a day.
    pub(crate) const RANGE: std::ops::RangeInclusive<Duration> =
        Duration::from_secs(60)..=Duration::from_secs(24 * 3600);

    fn checked(interval: Duration) -> Result<Duration, &'static str> {
        let refused = "the interval must lie between 1 minute and 24 hours";
        if Self::RANGE.contains(&interval) { Ok(interval) } else { Err(refused) }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "the interval must be a duration such as \"50m\", or a number of minutes")]
        enum Written {
            Minutes(u64),
            Text(String),
        }
        let interval = match Written::deserialize(deserializer)? {
            Written::Minutes(minutes) => Duration::from_secs(minutes.saturating_mul(60)),
            Written::Text(text) => parse_duration(&text).map_err(de::Error::custom)?,
        };
        Self::checked(interval).map(Interval).map_err(de::Error::custom)
    }
}

/// How long a database credential shall live, in seconds: written as an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ttl(pub(crate) u32);

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Interval(ttl) = Interval::deserialize(deserializer)?;
        // What the API takes (databricks-sdk-go, service/postgres).
        let fits = (5 * 60..=60 * 60).contains(&ttl.as_secs());
        let seconds = u32::try_from(ttl.as_secs()).ok().filter(|_| fits);
        seconds.map(Ttl).ok_or_else(|| de::Error::custom("the ttl must lie between 5 and 60 minutes"))
    }
}

/// Reads the interval as the command line has it.
///
/// # Errors
/// A sentence with what would have been right.
#[cfg(feature = "cli")]
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    Interval::checked(parse_duration(text)?).map_err(str::to_owned)
}

/// Reads a duration as people and systemd.time(7) write it: `90s`, `50m`, `1h 30m`, `1h30min`. A bare number is in minutes, as the
/// Python original's `--interval` always was.
///
/// # Errors
/// A sentence with examples of what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let minutes = || Some(Duration::from_secs(text.trim().parse::<u64>().ok()?.checked_mul(60)?));
    let written = || Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok();
    minutes()
        .or_else(written)
        .ok_or_else(|| format!("`{text}` is not a duration: write it like 50 (minutes), 90s or 1h 30m"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The keys that a table accepts, taken from the parser's message about an unknown one.
    fn keys(text: &str) -> BTreeSet<String> {
        let refused = toml_edit::de::from_str::<ConfigFile>(text).unwrap_err().to_string();
        let (_, expected) = refused.split_once("expected one of ").unwrap();
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// The names in bold at the head of the paragraphs in a section of the manual page.
    fn described(section: &str) -> BTreeSet<String> {
        let page = include_str!("../../dist/man/dbx-rotator.toml.5");
        let (_, rest) = page.split_once(&format!(".SH {section}\n")).unwrap();
        let section = rest.split("\n.SH ").next().unwrap();
        let names = section.split(".TP\n.B ").skip(1).filter_map(|paragraph| paragraph.lines().next());
        names.map(str::to_owned).collect()
    }

    #[test]
    fn a_bare_number_is_in_minutes_wherever_a_duration_is_read() {
        let minutes = |count: u64| Ok(Duration::from_secs(count * 60));
        for (text, expected) in
            [("50", minutes(50)), ("50m", minutes(50)), ("50min", minutes(50)), ("1h 30m", minutes(90))]
        {
            assert_eq!(parse_duration(text), expected, "{text}");
            for written in [format!("interval = '{text}'"), format!("interval = \"{text}\"")] {
                let file: ConfigFile = toml_edit::de::from_str(&written).unwrap();
                assert_eq!(Ok(file.interval.unwrap().into_inner().0), expected, "{written}");
            }
        }
        for text in ["", "-5", "soon", "5.5", "1e3", "99999999999999999999", "18446744073709551615"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_manual_page_and_the_example_have_every_key_and_no_other() {
        let example = include_str!("../../dist/config.toml");
        let sections = [
            ("GLOBAL SETTINGS", "unknown = 1\n", &["workspace", "connection"][..]),
            // This key is accepted only in order to be refused.
            ("\"[[workspace]]\"", "[[workspace]]\nunknown = 1\n", &["client_secret"]),
            ("\"[[connection]]\"", "[[connection]]\nunknown = 1\n", &["file"]),
            ("\"[[connection.file]]\"", "[[connection]]\n[[connection.file]]\nunknown = 1\n", &[]),
        ];
        for (section, text, apart) in sections {
            let known: BTreeSet<String> = keys(text).into_iter().filter(|key| !apart.contains(&key.as_str())).collect();
            assert_eq!(described(section), known, "{section}");
            for key in known.iter().filter(|key| *key != "log_file") {
                assert!(example.contains(&format!("{key} = ")), "{key}");
            }
        }
        assert!(toml_edit::de::from_str::<ConfigFile>(example).is_ok());
        let whole: String = example
            .lines()
            .map(|line| {
                let setting = line.strip_prefix("# ").filter(|l| l.contains(" = ") || l.starts_with("[["));
                setting.unwrap_or(line).to_owned() + "\n"
            })
            .collect();
        let parsed = toml_edit::de::from_str::<ConfigFile>(&whole);
        assert!(parsed.is_ok(), "{parsed:?}");
    }
}
