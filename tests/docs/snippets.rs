//! Every block of every page is run, loaded, compared with what is printed, or says above it what it would need.

use crate::page::{self, Block, Page};
use crate::reader::Reader;
use crate::support::skip;

/// What is not here: a machine of another kind, somebody else's account, or what only a release brings.
const NEEDS: [&str; 10] = [
    "root",
    "a cluster",
    "a booted systemd",
    "a Mac",
    "a Databricks account",
    "a person who answers",
    "a release",
    "Rust's registry",
    "a clone of the repository",
    "podman or docker",
];

/// Pages that have a test of their own, which tries their blocks with more than there is here: other clients, other machines. Their links
/// and command lines are checked here, too.
const ELSEWHERE: [(&str, &str); 5] = [
    ("docs/clients.md", "tests/rotations/clients.rs"),
    ("docs/files.md", "tests/rotations/pgbouncer.rs"),
    ("docs/from-python.md", "tests/machines/systemd/from_python.rs"),
    ("docs/proxy.md", "tests/rotations/local_proxy.rs"),
    ("docs/python.md", "python/tests/test_docs.py"),
];

fn is_tried_elsewhere(page: &Page) -> bool {
    ELSEWHERE.iter().any(|(path, _)| *path == page.path)
}

/// What can be checked of a block, or why there is nothing to check.
enum Kind {
    /// Typed into a shell.
    Shell,
    /// What is typed at a terminal, after a `$ `, and what is shown.
    Terminal,
    Settings,
    /// For another program, checked where `needs` says or by a test of its own.
    Foreign,
}

fn kind(block: &Block) -> Kind {
    match block.language.as_str() {
        "sh" => Kind::Shell,
        "console" => Kind::Terminal,
        "toml" => Kind::Settings,
        // `alerts.rs`, `command_lines.rs` and `library.rs` look at them.
        "yaml" | "ini" | "rust" => Kind::Foreign,
        // A drawing: nothing that anybody types.
        "" => {
            let typed =
                |line: &str| ["dbx-rotator ", "$ ", "sudo ", "psql "].iter().any(|start| line.starts_with(start));
            assert!(!block.text.lines().any(typed), "{}: it is to be typed, and has no language", block.place);
            Kind::Foreign
        }
        other => panic!("{}: nobody checks a block of `{other}`", block.place),
    }
}

/// A test for each page that has something to try.
macro_rules! pages {
    ($($name:ident: $path:literal)*) => {
        const TRIED: &[&str] = &[$($path),*];
        $(
            #[test]
            fn $name() {
                follow(stringify!($name), &Page::read($path));
            }
        )*
    };
}
pages! {
    what_the_page_on_applications_says_works: "docs/applications.md"
    what_the_page_on_commands_says_works: "docs/commands.md"
    what_the_page_on_containers_says_works: "docs/containers.md"
    what_the_page_on_kubernetes_says_works: "docs/kubernetes.md"
    what_the_page_on_laptops_says_works: "docs/laptop.md"
    what_the_page_on_logins_says_works: "docs/login.md"
    what_the_page_on_monitoring_says_works: "docs/monitoring.md"
    what_the_page_on_proxies_and_authorities_says_works: "docs/proxies-and-authorities.md"
    what_the_page_on_servers_says_works: "docs/server.md"
    what_the_page_on_ways_to_sign_in_says_works: "docs/signing-in.md"
    what_the_page_on_settings_says_works: "docs/settings.md"
    what_the_page_on_several_databases_says_works: "docs/several-databases.md"
    what_the_page_on_troubles_says_works: "docs/troubleshooting.md"
}

#[test]
fn each_page_with_something_to_try_is_tried() {
    for page in page::all().iter().filter(|page| !is_tried_elsewhere(page)) {
        let has_any = page.blocks().iter().any(is_tried);
        assert_eq!(
            has_any,
            TRIED.contains(&page.path.as_str()),
            "{} belongs into the list of `pages!`, or not",
            page.path
        );
    }
}

fn is_tried(block: &Block) -> bool {
    block.notes.needs.is_none() && matches!(kind(block), Kind::Shell | Kind::Terminal | Kind::Settings)
}

/// From the top of the page to its end.
fn follow(test: &str, page: &Page) {
    let reader = match Reader::new() {
        Ok(reader) => reader,
        Err(reason) => return skip(test, &reason),
    };
    for block in page.blocks().iter().filter(|block| is_tried(block)) {
        match kind(block) {
            Kind::Settings => {
                reader.can_use(block);
                reader.write_configuration(&block.text);
            }
            Kind::Shell => reader.run(block),
            Kind::Terminal => show(block, &reader),
            Kind::Foreign => {}
        }
    }
}

fn show(block: &Block, reader: &Reader) {
    reader.let_happen(block);
    let typed: Vec<&str> = block.text.split_inclusive('\n').collect();
    assert!(typed[0].starts_with("$ "), "{}: it begins with what is typed, after `$ `", block.place);
    let mut at = 0;
    while at < typed.len() {
        let end =
            typed[at + 1..].iter().position(|line| line.starts_with("$ ")).map_or(typed.len(), |more| at + 1 + more);
        let outcome = reader.typed(typed[at].trim_start_matches("$ ").trim_end());
        let (said, expected) = (reader.shown(&outcome.stdout), typed[at + 1..end].concat());
        assert!(
            is_as_said(&said, &expected),
            "{}: the page has\n{expected}\nand it is\n{said}\n(as far as compared:\n{}\n{}\n)",
            block.place,
            comparable(&expected),
            comparable(&said)
        );
        at = end;
    }
}

/// Times, and how long until then, are other ones at each run: all digits are alike. So is the space that lines things up. A line of
/// three dots stands for any number of lines.
fn is_as_said(said: &str, expected: &str) -> bool {
    let said = comparable(said);
    let mut rest = said.as_str();
    let parts: Vec<String> = expected.split("...\n").map(comparable).collect();
    for (number, part) in parts.iter().enumerate() {
        let found = if number == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part.as_str()) };
        let Some(found) = found else { return false };
        rest = &rest[found + part.len()..];
    }
    rest.is_empty() || parts.len() > 1 && parts.last().is_some_and(String::is_empty)
}

pub(crate) fn comparable(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let mut plain = String::new();
        for c in without_colors(line).split_whitespace().collect::<Vec<_>>().join(" ").chars() {
            match (c.is_ascii_digit(), plain.ends_with('0')) {
                (true, true) => {}
                (true, false) => plain.push('0'),
                (false, _) => plain.push(c),
            }
        }
        // What expires after midnight is shown with its day.
        plain.replace("0-0-0 0:0", "0:0") + "\n"
    });
    lines.collect()
}

/// Without what sets colors (ECMA-48, SGR).
pub(crate) fn without_colors(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[test]
fn no_block_is_left_out_for_a_reason_that_nobody_knows() {
    for page in page::all() {
        if let Some((_, test)) = ELSEWHERE.iter().find(|(path, _)| *path == page.path) {
            assert!(page::repository().join(test).exists(), "{} has no test: {test} is not there", page.path);
            continue;
        }
        for block in page.blocks() {
            let _ = kind(&block);
            if let Some(needs) = &block.notes.needs {
                assert!(NEEDS.contains(&needs.as_str()), "{}: `{needs}` is none of {NEEDS:?}", block.place);
            }
        }
    }
}

#[test]
fn a_difference_is_seen() {
    let said = "orders  live   until 14:02\nnext 13:42\n";
    assert!(is_as_said(said, "orders live until 9:59\nnext 9:39\n"));
    assert!(is_as_said(said, "...\nnext 1:00\n") && is_as_said(said, "orders live until 1:11\n...\n"));
    for expected in ["orders live until 9:59\n", "", "orders dead until 1:00\nnext 1:00\n", "...\nnext 1:00\nmore\n"] {
        assert!(!is_as_said(said, expected), "{expected}");
    }
}
