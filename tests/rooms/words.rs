//! No error of a library or of the system is shown as it prints itself: `src/words.rs` has the words for a person. Read from the
//! text: what could be one is in the list below, with the reason why it is none.

use std::fs;
use std::path::Path;

use crate::source::files;

/// How an error gets into a text.
const SHOWN: [&str; 8] = [
    "{error}",
    "{fault}",
    "{error:?}",
    "{fault:?}",
    "error.to_string()",
    "fault.to_string()",
    "{source}",
    "source.to_string()",
];

/// Each line of the program that does it, by its file and how often, and why it may.
const KNOWN: &[(&str, usize, &str)] = &[
    ("src/cli/print.rs", 1, "an error of ours"),
    ("src/fuzzing/configuration.rs", 1, "an error of ours, which nobody sees"),
    ("src/http/trouble.rs", 1, "looked at, not shown"),
    ("src/os/keychain.rs", 3, "what macOS's own library tells its users, in their language"),
    ("src/os/replace/error.rs", 1, "an error of ours"),
    ("src/pgpass/hostile.rs", 1, "a test"),
    ("src/postgres/diagnosis.rs", 1, "looked at, not shown"),
    ("src/rotation/effects.rs", 1, "an error of the password file's, which is ours"),
    ("src/service/launchd/mod.rs", 1, "a failure of ours"),
    ("src/service/launchd/proxy.rs", 1, "a failure of ours"),
    ("src/service/systemd/mod.rs", 1, "a failure of ours"),
    ("src/service/systemd/proxy.rs", 1, "a failure of ours"),
    ("src/words.rs", 1, "there the words are made"),
];

#[test]
fn errors_of_others_are_put_into_words_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut said = String::new();
    let files = files(&root.join("src"));
    assert!(files.len() > 100);
    // Some are tests as a whole.
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        let text = fs::read_to_string(file).unwrap();
        let program = text.split("\nmod tests {").next().unwrap();
        let lines = program.lines().filter(|line| !line.trim_start().starts_with("//"));
        let count = lines.filter(|line| SHOWN.iter().any(|shown| line.contains(shown))).count();
        let known = KNOWN.iter().find(|(known, ..)| *known == name).map_or(0, |(_, count, _)| *count);
        if count != known {
            said += &format!("{name} shows {count} errors as they print themselves, and {known} are known\n");
        }
    }
    assert!(said.is_empty(), "\n{said}");
}
