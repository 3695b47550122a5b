//! Files and listings for other programs. Each is made with the format's own serializer or escaping, read back, and only
//! handed out if the reader finds what was meant. What a format cannot express is refused first.

use crate::failure::{Code, Failure};
use crate::foreign;

/// Whether a text fits into one line of any format: no line break or other control character, nothing invisible.
pub(crate) fn is_plain(text: &str) -> bool {
    text.chars().all(foreign::is_printable)
}

/// Checks that a reader of the format finds exactly what was meant.
///
/// # Errors
/// Permanent: it does not, so the text must not be used.
pub(crate) fn read_back<T: PartialEq>(what: &str, meant: &T, found: Option<&T>) -> Result<(), Failure> {
    if found == Some(meant) {
        return Ok(());
    }
    let message = format!("{what} would not say what was meant, so it was not written");
    Err(Failure::permanent(Code::Unavailable, message).hint("please report it with the names that stand in it"))
}

/// A path that a format can carry: text without invisible characters and without those in `but`.
///
/// # Errors
/// Permanent: what the path is for, and why it cannot be used.
pub(crate) fn expressible<'p>(what: &str, path: &'p std::path::Path, but: &[char]) -> Result<&'p str, Failure> {
    let text = path.to_str().filter(|text| is_plain(text) && !text.contains(but));
    text.ok_or_else(|| {
        let message = format!("{} cannot stand in {what}", foreign::line(&path.to_string_lossy()));
        Failure::permanent(Code::Configuration, message).hint(
            "move it to a path of letters, digits, blanks and the like, or let a link with such a path lead to it",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_cannot_stand_in_a_line() {
        assert!(is_plain("a\"b\\c é 日本"));
        for c in ['\n', '\u{1b}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\r', '\0'] {
            assert!(!is_plain(&format!("a{c}b")), "{c:?}");
        }
    }
}
