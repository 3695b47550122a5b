//! Foreign words in our sentences.

use super::{beginning, line, secrets};

/// Foreign text made fit for a message: one printable line, at most 300 characters, no secret of this process, and nothing
/// that could be a token.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 300;
    let text = secrets::removed(beginning(text));
    // Checked raw and as shown: an escape can join a word to what follows it.
    let words = text.split_whitespace().map(|word| match line(word) {
        shown if could_be_secret(word) || could_be_secret(&shown) => "...".into(),
        shown => shown,
    });
    let words = words.collect::<Vec<_>>().join(" ");
    let line = line(&words);
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.into_owned(),
    }
}

/// A JWT, an OAuth secret (`dose...`), a personal access token (`dapi...`), or any unbroken run as long as one, except a host
/// name.
pub(crate) fn could_be_secret(word: &str) -> bool {
    const SHORTEST_JWT: usize = 60;
    let token_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    word.split(|c| !token_like(c)).any(|run| {
        (run.len() >= SHORTEST_JWT && !is_host_name(run))
            || run.starts_with("eyJ")
            || (run.len() >= 20 && (run.starts_with("dose") || run.starts_with("dapi")))
    })
}

/// Lakebase's host names are longer than many tokens: labels of lower-case letters, digits and hyphens, of at most 63 bytes (RFC
/// 1035, section 2.3.4), the last one of a few letters. A random token practically never looks like that.
fn is_host_name(run: &str) -> bool {
    let is_label = |label: &&str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        matches!(label.len(), 1..=63) && label.bytes().all(plain)
    };
    let labels: Vec<&str> = run.trim_end_matches('.').split('.').collect();
    let is_last = |label: &&str| label.len() <= 8 && label.bytes().all(|byte| byte.is_ascii_lowercase());
    labels.len() >= 3 && labels.iter().all(is_label) && labels.last().is_some_and(is_last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_is_quoted_on_one_line_and_without_tokens() {
        assert_eq!(quoted("Error:\n  no such\thost\u{7}"), "Error: no such host\\u0007");
        assert_eq!(quoted("token \"eyJhbGciOi.J9.x\" is bad"), "token ... is bad");
        assert_eq!(quoted("secret=dose0123456789abcdef0123"), "...");
        assert_eq!(quoted(&format!("x {}", "A".repeat(64))), "x ...");
        assert_eq!(quoted(&"word ".repeat(200)).chars().count(), 303);
    }

    #[test]
    fn the_name_of_a_host_is_no_token_however_long_it_is() {
        let host = "instance-f96815e5-c6ae-466b-abc7-dc874505beec.database.cloud.databricks.com";
        for said in [format!("no such host: {host}"), format!("{host}:5432 hung up"), format!("it is {host}.")] {
            assert_eq!(quoted(&said), said);
        }
        let hex = "0123456789abcdef".repeat(4);
        for token in
            [hex.clone(), format!("{hex}.com"), format!("v1.{hex}.{hex}"), format!("x.{}.com", host.to_uppercase())]
        {
            assert_eq!(quoted(&token), "...");
        }
    }
}
