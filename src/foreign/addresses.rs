//! Passwords in addresses: whoever wrote `https://ada:PASSWORD@host` where a name belongs reads the rest of it in the message.

use std::borrow::Cow;

/// What replaces a secret in a text.
pub(crate) const MASK: &str = "********";

/// What ends an address in a sentence or a line of a file.
fn ends(c: char) -> bool {
    c.is_whitespace() || matches!(c, '`' | '"' | '\'' | '<' | '>')
}

/// The text without the passwords of addresses.
pub(super) fn without_passwords(text: Cow<'_, str>) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = &*text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after.find(ends).unwrap_or(after.len());
        (rest, shown) = match password(&after[..end]) {
            Some((start, end)) => (&after[end..], shown + &after[..start] + MASK),
            None => (after, shown),
        };
    }
    if shown.contains(MASK) { Cow::Owned(shown + rest) } else { text }
}

/// Where it is in what follows the scheme (RFC 3986, section 3.2.1). One that was not encoded may hold anything.
fn password(address: &str) -> Option<(usize, usize)> {
    let (colon, at) = (address.find(':')?, address.rfind('@')?);
    let password = address.get(colon + 1..at)?;
    let up_to_path = password.split(['/', '?', '#']).next().unwrap_or_default();
    let is_port = up_to_path.len() < password.len() && up_to_path.bytes().all(|byte| byte.is_ascii_digit());
    let is_of_path = address[..colon].contains(['/', '?', '#', '@']);
    // As a hint of ours names it.
    let is_none = password.is_empty() || password == MASK || password == "PASSWORD";
    (!is_port && !is_of_path && !is_none).then_some((colon + 1, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_an_address_is_not_shown_and_its_host_is() {
        for (text, shown) in [
            ("`postgresql://ada:hunter2@db/x` is not", "`postgresql://ada:********@db/x` is not"),
            ("https://token:S/E@C:R?ET@h:1/ and x://u:p@", "https://token:********@h:1/ and x://u:********@"),
            ("a://b:c@d", "a://b:********@d"),
        ] {
            assert_eq!(without_passwords(text.into()), shown);
            assert_eq!(without_passwords(shown.into()), shown, "once more changes nothing");
        }
        for text in [
            "https://w.example:8443/x?user=ada@example.com",
            "http://USER:PASSWORD@proxy",
            "https://ada@h",
            "https://h/a:b@c",
            "ada:pw@h",
            "see https://h:1 or mail a@b",
        ] {
            assert_eq!(without_passwords(text.into()), text);
        }
    }
}
