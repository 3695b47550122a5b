//! Each command line of the program, wherever it stands, is one that the program takes: in a block, whether that is run or not, in a unit, and
//! in the middle of a sentence.

use std::fs;

use clap::error::ErrorKind;

use crate::page::{self, Page};

/// The names of the program.
const PROGRAM: &str = "dbx-rotator";

/// Prints what it is about, where it is only mentioned: `dbx-rotator service`.
const MENTIONED: [ErrorKind; 3] =
    [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];

#[test]
fn every_command_line_of_every_page_is_one_that_the_program_takes() {
    let mut seen = 0;
    let pages = page::all().into_iter().chain(["CONTRIBUTING.md", "SECURITY.md"].map(Page::read));
    for page in pages {
        let blocks = page.blocks();
        let typed = blocks.iter().filter(|block| ["sh", "console", "ini"].contains(&block.language.as_str()));
        let lines =
            typed.flat_map(|block| block.text.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
        let typed = lines.map(|line| (line, false));
        // In the middle of a sentence a command may be named without all that it needs.
        for (line, is_named) in typed.chain(page.inline_code().into_iter().map(|code| (code, true))) {
            for words in calls(&line) {
                seen += 1;
                check(&page, &words, is_named);
            }
        }
    }
    assert!(seen > 100, "only {seen} command lines were found");
}

fn check(page: &Page, words: &[String], is_named: bool) {
    // What a client puts in by itself.
    let words = words.iter().map(|word| word.replace("%PORT%", "5432"));
    let Err(error) = dbx_rotator::command().try_get_matches_from(words.clone()) else { return };
    let is_short = is_named && error.kind() == ErrorKind::MissingRequiredArgument;
    assert!(
        is_short || MENTIONED.contains(&error.kind()),
        "{}: {}\n{error}",
        page.path,
        words.collect::<Vec<_>>().join(" ")
    );
}

/// The calls of the program in a line for a shell.
fn calls(line: &str) -> Vec<Vec<String>> {
    let line = line.trim_start_matches("$ ").replace("ExecStart=", "");
    let starts = |words: &Vec<String>| {
        let is_before = |word: &&String| {
            ["sudo", "exec", "!", "if", "while", "watch"].contains(&word.as_str()) || word.contains('=')
        };
        let own: Vec<String> = words.iter().skip_while(is_before).cloned().collect();
        let named = own.first()?.rsplit('/').next()? == PROGRAM;
        // An option that is only mentioned is not a call.
        (named && own.len() > 1).then_some(own)
    };
    simple_commands(&line).iter().filter_map(starts).collect()
}

/// The words of each simple command, as far as the pages need a shell's grammar.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), None::<String>, None::<char>);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some('"'), '$') if characters.peek() == Some(&'(') => {
                // What is inside of $(...) is a command of its own.
                characters.next();
                let inside: String = characters.by_ref().take_while(|c| *c != ')').collect();
                commands.extend(simple_commands(&inside));
                word.get_or_insert_default().push('x');
            }
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, '|' | '&' | ';' | '(' | ')' | '>' | '<') => {
                let is_stream = c == '>' || c == '<';
                // In `2>&1` no number is an argument, nor is where a stream goes.
                words.extend(word.take().filter(|word| !(is_stream && word.bytes().all(|byte| byte.is_ascii_digit()))));
                if is_stream {
                    while characters.next_if(|c| " &".contains(*c)).is_some() {}
                    while characters.next_if(|c| !" ;|&)".contains(*c)).is_some() {}
                } else {
                    commands.push(std::mem::take(&mut words));
                }
            }
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
}

#[test]
fn every_unit_that_a_page_names_exists() {
    let mut seen = 0;
    for page in page::all() {
        // The page on monitoring has a unit of its own.
        let own: String =
            page.blocks().iter().filter(|block| block.language == "ini").map(|block| block.text.clone()).collect();
        let part = |c: char| !(c.is_ascii_alphanumeric() || "-_@.%".contains(c));
        for word in page.text.split(part).filter(|word| word.starts_with(PROGRAM)) {
            let Some((name, kind)) = word.rsplit_once('.').filter(|(_, kind)| ["service", "timer"].contains(kind))
            else {
                continue;
            };
            seen += 1;
            let file = name.split_once('@').map_or(name.to_owned(), |(template, _)| format!("{template}@"));
            let there = ["user", "system"].map(|whose| format!("dist/systemd/{whose}/{file}.{kind}"));
            let exists = there.iter().any(|unit| page::repository().join(unit).exists());
            assert!(exists || own.contains(&format!("/{word}\n")), "{}: there is no {word}", page.path);
        }
    }
    assert!(seen > 10, "only {seen} units were found");
}

/// The settings of a unit or a drop-in on a page are such that one of ours has, or the words of systemd.unit(5) and systemd.exec(5).
#[test]
fn every_setting_of_a_drop_in_is_one_of_systemds() {
    const OTHERS: [&str; 1] = ["WorkingDirectory"];
    let mut known = String::new();
    for directory in ["user", "system", "examples"] {
        for file in fs::read_dir(page::repository().join("dist/systemd").join(directory)).unwrap() {
            known += &fs::read_to_string(file.unwrap().path()).unwrap();
        }
    }
    let blocks: Vec<_> = page::all().iter().flat_map(Page::blocks).collect();
    for block in blocks.iter().filter(|block| block.language == "ini" && block.text.contains("/systemd/")) {
        for (key, _) in block.text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='))
        {
            let is_known = known.lines().any(|line| line.starts_with(&format!("{key}="))) || OTHERS.contains(&key);
            assert!(is_known, "{}: {key}", block.place);
        }
    }
}

#[test]
fn calls_are_found_wherever_they_stand() {
    let found = |line: &str| calls(line).iter().map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(found("sudo dbx-rotator status --for ada # now"), ["dbx-rotator status --for ada"]);
    assert_eq!(
        found("HOME=/x dbx-rotator rotate >/dev/null 2>&1 && dbx-rotator run"),
        ["dbx-rotator rotate", "dbx-rotator run"]
    );
    assert_eq!(found("PGPASSWORD=\"$(dbx-rotator token orders)\" psql"), ["dbx-rotator token orders"]);
    assert_eq!(found("source <(dbx-rotator completions bash)"), Vec::<String>::new());
    assert_eq!(found("journalctl --user -u dbx-rotator"), Vec::<String>::new());
}

#[test]
fn a_wrong_option_is_seen() {
    for (line, is_right) in [("dbx-rotator status --prometheus", true), ("dbx-rotator status --prometeus", false)] {
        let words = calls(line).remove(0);
        assert_eq!(dbx_rotator::command().try_get_matches_from(words).is_ok(), is_right, "{line}");
    }
}
