//! `~/.databrickscfg`, read as the vendor's SDKs read it (config_file.go of databricks-sdk-go): each section stands alone and
//! does not inherit from DEFAULT; `[__settings__] default_profile` names the one to use by default.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::fault::ConfigError;
use super::origin::{Origin, Sourced};
use crate::os::dirs::Environment;
use crate::os::files::read_text_up_to;
use crate::words;

const SETTINGS: &str = "__settings__";

/// The largest file, in bytes: thousands of profiles fit.
const LARGEST: u64 = 1024 * 1024;

/// How many names of profiles a message lists.
const SHOWN: usize = 20;

/// One profile: its name, its place, and its keys. Any value may be a secret.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    keys: Vec<(String, SecretString, usize)>,
}

impl Profile {
    /// The value of a key and its line; an empty value counts as unset.
    pub(crate) fn get(&self, key: &str) -> Option<(&str, usize)> {
        self.secret(key).map(|(value, line)| (value.expose_secret(), line))
    }

    /// The same as a secret.
    pub(crate) fn secret(&self, key: &str) -> Option<(&SecretString, usize)> {
        self.keys.iter().rfind(|(name, ..)| name == key).map(|(_, value, line)| (value, *line))
    }

    /// The same with its origin.
    pub(crate) fn sourced(&self, key: &str) -> Option<Sourced<String>> {
        let (value, line) = self.get(key)?;
        Some(Sourced::new(value.to_owned(), Origin::Profile(self.name.clone(), Arc::from(self.file.as_path()), line)))
    }

    /// Reads the named profile, or else the default one. A missing file or a missing DEFAULT is only a fault if a profile
    /// was named.
    pub(crate) fn read(path: &Path, named: Option<&str>) -> Result<Option<Self>, ConfigError> {
        let text = match read_text_up_to(path, LARGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(None),
            Err(error) => {
                return Err(ConfigError::new(format!("cannot read {}: {}", path.display(), words::of_io(&error)))
                    .hint("check DATABRICKS_CONFIG_FILE, or run `databricks auth login` to make a profile"));
            }
        };
        let sections = parse(path, &text)?;
        let default = sections
            .iter()
            .find(|section| section.name == SETTINGS)
            .and_then(|section| section.get("default_profile"))
            .map(|(name, _)| name);
        let (wanted, must_exist) = match (named, default) {
            (Some(name), _) | (None, Some(name)) => (name.to_owned(), true),
            (None, None) => ("DEFAULT".to_owned(), false),
        };
        if wanted == SETTINGS {
            return Err(ConfigError::new(format!("`{SETTINGS}` is not a profile")));
        }
        let names: Vec<&str> = sections.iter().map(|s| s.name.as_str()).filter(|name| *name != SETTINGS).collect();
        let more = if names.len() > SHOWN { ", ..." } else { "" };
        let known = format!("the profiles there are: {}{more}", names[..names.len().min(SHOWN)].join(", "));
        match sections.into_iter().find(|section| section.name == wanted) {
            Some(profile) => Ok(Some(profile)),
            None if !must_exist => Ok(None),
            None => Err(ConfigError::new(format!("{} has no {wanted} profile configured", path.display())).hint(known)),
        }
    }
}

/// A profile by name, and the host that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProfileName {
    pub(crate) name: String,
    pub(crate) host: String,
}

/// The profiles that have a host, in the order of the file; none where there is no file.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn profiles(environment: &Environment) -> Result<Vec<ProfileName>, ConfigError> {
    let Some(path) = environment.databricks_config_file() else { return Ok(Vec::new()) };
    let text = match read_text_up_to(&path, LARGEST) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let why = crate::words::of_io(&error);
            return Err(ConfigError::new(format!("cannot read {}: {why}", path.display())));
        }
    };
    let with_host = |profile: Profile| {
        let host = profile.get("host")?.0.to_owned();
        (profile.name != SETTINGS).then_some(ProfileName { name: profile.name, host })
    };
    Ok(parse(&path, &text)?.into_iter().filter_map(with_host).collect())
}

fn parse(path: &Path, text: &str) -> Result<Vec<Profile>, ConfigError> {
    let mut sections = vec![Profile { name: "DEFAULT".to_owned(), file: path.to_owned(), keys: Vec::new() }];
    let mut by_name = HashMap::from([("DEFAULT", 0)]);
    let mut current = 0;
    let mut offset = 0;
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        let span = offset..offset + whole.trim_end().len();
        offset += whole.len();
        let line = whole.trim().trim_start_matches('\u{feff}');
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name.trim()) {
            current = *by_name.entry(name).or_insert_with(|| {
                sections.push(Profile { name: name.to_owned(), file: path.to_owned(), keys: Vec::new() });
                sections.len() - 1
            });
        } else if let Some((key, value)) = line.split_once(['=', ':']) {
            let value = unquote(without_comment(value.trim()));
            if !value.is_empty() {
                sections[current].keys.push((key.trim().to_owned(), SecretString::from(value), index + 1));
            }
        } else {
            return Err(ConfigError::new("neither `[profile]` nor `key = value`").at(
                path,
                mask(text, &span).as_str(),
                span,
            ));
        }
    }
    // The start of the file, without a header, is DEFAULT only if it contains something.
    sections.retain(|section| section.name != "DEFAULT" || !section.keys.is_empty());
    Ok(sections)
}

/// The text up to a faulty line, with that line masked: it may be a secret without its key.
fn mask(text: &str, span: &std::ops::Range<usize>) -> String {
    format!("{}{}", &text[..span.start], "*".repeat(text[span.clone()].chars().count().min(8)))
}

/// A comment at the end of a line starts at a `#` or `;` after a blank; without the blank it is part of the value.
fn without_comment(value: &str) -> &str {
    let end = value
        .char_indices()
        .find(|(at, c)| matches!(c, '#' | ';') && value[..*at].ends_with([' ', '\t']))
        .map_or(value.len(), |(at, _)| at);
    value[..end].trim_end()
}

fn unquote(value: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, named: Option<&str>) -> Result<Option<Profile>, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".databrickscfg");
        std::fs::write(&path, text).unwrap();
        Profile::read(&path, named)
    }

    #[test]
    fn sections_stand_alone() {
        let text = "[DEFAULT]\nhost = https://default\nclient_id = d\n[PROD]\nhost = https://prod # not the host\n";
        let prod = read(text, Some("PROD")).unwrap().unwrap();
        assert_eq!(prod.get("host"), Some(("https://prod", 5)));
        assert_eq!(prod.get("client_id"), None);
    }

    #[test]
    fn the_default_profile_is_the_one_that_settings_names() {
        let text = "[__settings__]\ndefault_profile = PROD\n[DEFAULT]\nhost=a\n[PROD]\nhost=b\n";
        assert_eq!(read(text, None).unwrap().unwrap().name, "PROD");
        assert_eq!(read("[DEFAULT]\nhost=a\n", None).unwrap().unwrap().name, "DEFAULT");
    }

    #[test]
    fn a_missing_default_is_silent_and_a_missing_named_profile_is_not() {
        assert!(read("[PROD]\nhost=b\n", None).unwrap().is_none());
        let fault = read("[PROD]\nhost=b\n", Some("TEST")).unwrap_err().to_string();
        assert!(fault.contains("has no TEST profile configured") && fault.contains("PROD"), "{fault}");
        assert!(read("[__settings__]\ndefault_profile=GONE\n", None).is_err());
    }

    #[test]
    fn a_hash_without_a_blank_belongs_to_the_value() {
        let profile = read("[DEFAULT]\nclient_secret = a#b;c\nhost=\"https://x\" ; note\n", None).unwrap().unwrap();
        assert_eq!(profile.get("client_secret"), Some(("a#b;c", 2)));
        assert_eq!(profile.get("host"), Some(("https://x", 3)));
    }

    #[test]
    fn a_faulty_line_is_pointed_at_but_not_shown() {
        let fault = read("[DEFAULT]\ndose0000secret\n", None).unwrap_err().to_string();
        assert!(fault.contains(".databrickscfg:2:1") && !fault.contains("dose"), "{fault}");
    }
}
