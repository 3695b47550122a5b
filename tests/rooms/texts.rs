//! Every text of the program is in `tests/messages/texts.txt`, so that a change of any of them is read as a text, beside the others.
//! `DBX_ROTATOR_UPDATE=1 cargo test --test rooms` writes it anew.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::source::sources;

/// Where nobody reads them.
const NOT_FOR_PEOPLE: [&str; 2] = ["src/fuzzing/", "src/simulation.rs"];

#[test]
fn every_text_of_the_program_is_as_it_was_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut now = String::new();
    for source in sources(&root.join("src")) {
        let name = source.path.display().to_string();
        if NOT_FOR_PEOPLE.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let texts: Vec<String> = source.texts().filter(|text| is_for_people(text)).collect();
        if !texts.is_empty() {
            writeln!(now, "\n# {name}").unwrap();
        }
        for text in texts {
            writeln!(now, "{}", text.replace('\n', "\n    ").trim_end()).unwrap();
        }
    }
    let now = now.trim_start();
    let file = root.join("tests/messages/texts.txt");
    if std::env::var_os("DBX_ROTATOR_UPDATE").is_some() {
        fs::write(&file, now).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    let mut said = String::new();
    let missing = |these: &str, those: &str| {
        these.lines().filter(|line| !those.lines().any(|other| other == *line)).map(str::to_owned).collect::<Vec<_>>()
    };
    missing(now, &kept).iter().for_each(|line| writeln!(said, "new: {line}").unwrap());
    missing(&kept, now).iter().for_each(|line| writeln!(said, "gone: {line}").unwrap());
    assert!(now == kept, "\n{said}read them, then: DBX_ROTATOR_UPDATE=1 cargo test --test rooms");
}

/// Two words or more, with letters in both.
fn is_for_people(text: &str) -> bool {
    let is_word = |word: &&str| word.chars().filter(|letter| letter.is_ascii_alphabetic()).count() > 1;
    text.split_whitespace().filter(is_word).count() >= 2
}
