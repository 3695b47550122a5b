//! The files of the configuration with their text, which faults refer to.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_spanned::Spanned;
use zeroize::Zeroizing;

use super::fault::ConfigError;
use super::file::ConfigFile;
use super::wording::plain;
use crate::os::files::read_text_up_to;
use crate::words;

/// How deeply brackets and braces may be nested; two levels are needed.
const DEEPEST: usize = 16;

/// One file that is to be read.
pub(super) struct Wanted<'a> {
    /// Its path, which messages name.
    pub(super) path: &'a Path,
    /// Where its text is, if that is not in its place yet.
    pub(super) text: Option<&'a Path>,
    /// Where relative paths start: the directory of config.toml, for its fragments, too.
    pub(super) base: &'a Path,
    /// Whether it is one of `conf.d`.
    pub(super) is_fragment: bool,
    /// The most that may be read, in bytes.
    pub(super) largest: u64,
    /// What to check where it does not exist; none where it need not exist.
    pub(super) missing: Option<&'static str>,
}

/// A parsed file with its text.
pub(super) struct ConfigSource {
    pub(super) path: Arc<Path>,
    pub(super) base: PathBuf,
    pub(super) is_fragment: bool,
    /// Wiped, since a secret may have been written into it by mistake.
    pub(super) text: Zeroizing<String>,
    pub(super) file: ConfigFile,
    line_starts: Vec<usize>,
}

impl ConfigSource {
    /// Reads and parses a file; none if it does not exist and need not.
    pub(super) fn read(wanted: &Wanted<'_>) -> Result<Option<Self>, ConfigError> {
        let path = wanted.path;
        let text = match read_text_up_to(wanted.text.unwrap_or(path), wanted.largest) {
            Ok(text) => text,
            Err(error) => {
                let hint = match (error.kind(), wanted.missing) {
                    (std::io::ErrorKind::NotFound, None) => return Ok(None),
                    (std::io::ErrorKind::NotFound, Some(hint)) => hint,
                    (std::io::ErrorKind::PermissionDenied, _) => "check who owns it, and its mode",
                    _ => "check that it is the right file",
                };
                return Err(
                    ConfigError::new(format!("cannot read {}: {}", path.display(), words::of_io(&error))).hint(hint)
                );
            }
        };
        let file = parsed(path, &text)?;
        let line_starts = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        let (path, base) = (Arc::from(path), wanted.base.to_owned());
        Ok(Some(ConfigSource { path, base, is_fragment: wanted.is_fragment, text, file, line_starts }))
    }

    /// A fault at a value of this file.
    pub(super) fn fault<T>(&self, at: &Spanned<T>, message: impl Into<String>) -> ConfigError {
        self.fault_in(at.span(), message.into())
    }

    /// The same at these bytes of its text.
    pub(super) fn fault_in(&self, span: Range<usize>, message: String) -> ConfigError {
        ConfigError::new(message).at(&self.path, &self.text, span)
    }

    /// The line of a value, from 1.
    pub(super) fn line<T>(&self, at: &Spanned<T>) -> usize {
        self.line_of(at.span().start)
    }

    /// The place of a value, for a message at another one.
    pub(super) fn place<T>(&self, at: &Spanned<T>) -> String {
        self.place_of(at.span().start)
    }

    fn line_of(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= byte) + 1
    }

    /// The place of this byte of its text.
    pub(super) fn place_of(&self, byte: usize) -> String {
        format!("{}:{}", self.path.display(), self.line_of(byte))
    }
}

fn parsed(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    if let Some(at) = too_deep(text) {
        let why = format!("brackets are nested deeper than {DEEPEST} levels");
        return Err(ConfigError::new(why).at(path, text, at..at + 1));
    }
    toml_edit::de::from_str(text).map_err(|fault| {
        let (message, hint) = plain(fault.message(), text, fault.span());
        let error = ConfigError::new(message);
        match (fault.span(), hint) {
            (Some(span), Some(hint)) => error.at(path, text, span).hint(hint),
            (Some(span), None) => error.at(path, text, span),
            (None, _) => error.hint(format!("in {}", path.display())),
        }
    })
}

/// The first place where brackets or braces are nested deeper than any setting needs: the parser would use memory for
/// each.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(at);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'#' => at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at - 1),
            b'"' | b'\'' => at = end_of_string(bytes, at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The last byte of the string that begins here (TOML 1.0, "String"), or of its line if the string does not end.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let is_long = bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if is_long { 3 } else { 1 };
    while let Some(byte) = bytes.get(at) {
        match *byte {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !is_long => return at,
            byte if byte == quote && !is_long => return at,
            byte if byte == quote && bytes[at..].starts_with(&[quote; 3]) => return at + 2,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_where_they_are_no_text() {
        let many = "[".repeat(DEEPEST + 1);
        let long = "\"\"\"";
        for fine in [
            format!("a = '{many}'"),
            format!("a = \"\\\"{many}\""),
            format!("a = {long}\n{many}\n\"{many}{long}"),
            format!("a = '''\n{many}\n'{many}'''"),
            format!("a = 1 # {many}\nb = 2"),
            "[[connection]]\non_rotate = ['a', 'b']\n".repeat(DEEPEST),
            format!("a = '{many}"),
            format!("# {many}"),
        ] {
            assert_eq!(too_deep(&fine), None, "{fine}");
        }
        for deep in
            [format!("a = {many}"), format!("a = ''\nb = {many}"), "{a=".repeat(DEEPEST + 1), "[".repeat(1 << 20)]
        {
            assert!(too_deep(&deep).is_some(), "{deep:.40}");
        }
    }
}
