//! The known word that somebody meant who typed another.

/// The one of `known` that is spelled most like `word`; none where nothing is alike. Capitals and the kind of dash do not count.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = plain(word);
    let length = word.chars().count();
    // One slip in a short word, two in a long one: more would be another word.
    let most = if length < 3 { 0 } else { length.div_ceil(5).min(2) };
    let distance = |known: &str| strsim::damerau_levenshtein(&word, &plain(known));
    let alike = known.into_iter().map(|known| (distance(known), known));
    alike.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_seen_through_and_another_word_is_not_guessed() {
        let known = ["host", "port", "client_id", "client_secret_file", "user"];
        for (word, meant) in [
            ("hots", Some("host")),
            ("hosts", Some("host")),
            ("client-id", Some("client_id")),
            ("Client-ID", Some("client_id")),
            ("client_secert_file", Some("client_secret_file")),
            ("users", Some("user")),
            ("user", Some("user")),
            ("password", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }
}
