//! The package's manual pages and completions: they render, they load, and they say the same as `--help`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::skip;
use crate::{built, printed, with_ending};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dbx-rotator");

/// The package's files, unpacked.
fn root() -> Result<&'static Path, String> {
    static ROOT: OnceLock<Result<tempfile::TempDir, String>> = OnceLock::new();
    let laid_out = ROOT.get_or_init(|| {
        let package = with_ending(&built::packages(None)?, ".deb");
        let directory = crate::support::workspace::scratch_directory(0o755);
        printed(Command::new("dpkg-deb").arg("-x").arg(package).arg(directory.path()));
        Ok(directory)
    });
    laid_out.as_ref().map(tempfile::TempDir::path).map_err(Clone::clone)
}

fn installed(program: &str) -> bool {
    ["/usr/bin", "/bin"].iter().any(|directory| Path::new(directory).join(program).exists())
}

/// The unpacked package, if these programs for reading it are installed; otherwise the test is skipped.
fn ready(test: &str, programs: &[&str]) -> Option<&'static Path> {
    if let Some(missing) = programs.iter().find(|program| !installed(program)) {
        skip(test, &format!("{missing} is not installed"));
        return None;
    }
    root().map_err(|reason| skip(test, &reason)).ok()
}

fn manual_pages(root: &Path) -> Vec<PathBuf> {
    let sections = ["usr/share/man/man1", "usr/share/man/man5"];
    let pages = sections.iter().flat_map(|section| std::fs::read_dir(root.join(section)).unwrap().flatten());
    let mut pages: Vec<PathBuf> = pages.map(|page| page.path()).collect();
    pages.sort();
    pages
}

#[test]
fn every_manual_page_of_the_package_renders_without_a_warning() {
    let test = "every_manual_page_of_the_package_renders_without_a_warning";
    let Some(root) = ready(test, &["man"]) else { return };
    let pages = manual_pages(root);
    assert!(pages.len() > 20, "{pages:?}");
    for page in pages {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"])
            .arg(&page)
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8");
        // Pages that include another one with `.so` are read from the directory of all pages.
        let output = man.current_dir(root.join("usr/share/man")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
        assert!(output.stdout.len() > 200, "{} says nothing", page.display());
    }
}

/// Every command with its words, as `--help` lists them.
fn commands() -> Vec<Vec<String>> {
    fn below(words: &[String], found: &mut Vec<Vec<String>>) {
        found.push(words.to_vec());
        let help = help(words);
        let Some((_, list)) = help.split_once("\nCommands:\n") else { return };
        let names = list.lines().take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
        for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
            below(&[words, &[name.to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    below(&[], &mut found);
    found
}

fn help(words: &[String]) -> String {
    printed(Command::new(PROGRAM).args(words).arg("--help"))
}

/// The long options that a text names.
fn options(text: &str) -> BTreeSet<String> {
    let text = text.replace("\\-", "-");
    let starts = text.match_indices("--").map(|(at, _)| &text[at + 2..]);
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>();
    starts.map(word).filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

#[test]
fn the_packages_pages_and_completions_know_every_command_and_option_of_the_help() {
    let test = "the_packages_pages_and_completions_know_every_command_and_option_of_the_help";
    let Some(root) = ready(test, &["zcat"]) else { return };
    let read = |file: &str| std::fs::read_to_string(root.join("usr/share").join(file)).unwrap();
    let completions = [
        read("bash-completion/completions/dbx-rotator"),
        read("zsh/vendor-completions/_dbx-rotator"),
        read("fish/vendor_completions.d/dbx-rotator.fish"),
    ];
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for words in &commands {
        let name = [&["dbx-rotator".to_owned()], &words[..]].concat().join("-");
        let page = printed(Command::new("zcat").arg(root.join(format!("usr/share/man/man1/{name}.1.gz"))));
        let wanted = options(&help(words));
        let (has, lacks): (Vec<_>, Vec<_>) = wanted.iter().partition(|option| options(&page).contains(*option));
        assert!(lacks.is_empty() && has.len() > 3, "{name}.1 lacks {lacks:?}");
        for script in &completions {
            let last = words.last().map_or("dbx-rotator", String::as_str);
            assert!(script.contains(last), "{last}");
            // fish writes an option as `-l if-due`.
            let lacks: Vec<_> = wanted.iter().filter(|option| !script.contains(option.as_str())).collect();
            assert!(lacks.is_empty(), "{name}: {lacks:?} cannot be completed");
        }
    }
}

#[test]
fn the_packages_completions_load_and_complete_in_bash() {
    let Some(root) = ready("the_packages_completions_load_and_complete_in_bash", &["bash"]) else { return };
    let file = root.join("usr/share/bash-completion/completions/dbx-rotator");
    let complete = |words: &str, index: usize| {
        let script = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD={index}; read -ra line < <(complete -p dbx-rotator); \
             for ((i = 0; i < ${{#line[@]}}; i++)); do [ \"${{line[i]}}\" = -F ] && function=${{line[i + 1]}}; done; \
             \"$function\" dbx-rotator \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        printed(Command::new("bash").args(["--norc", "-c", &script]))
    };
    assert_eq!(complete("dbx-rotator rot", 1).trim(), "rotate");
    assert_eq!(complete("dbx-rotator rotate --if", 2).trim(), "--if-due");
    for words in commands() {
        let offered = options(&complete(&format!("dbx-rotator {} --", words.join(" ")), words.len() + 1));
        let lacks: Vec<_> = options(&help(&words)).into_iter().filter(|option| !offered.contains(option)).collect();
        assert!(lacks.is_empty(), "{words:?}: {lacks:?}");
    }
}

#[test]
fn the_packages_completions_load_and_complete_in_fish() {
    let Some(root) = ready("the_packages_completions_load_and_complete_in_fish", &["fish"]) else { return };
    let file = root.join("usr/share/fish/vendor_completions.d/dbx-rotator.fish");
    let complete = |line: &str| {
        let script = format!("source '{}'; complete -C '{line}'", file.display());
        printed(Command::new("fish").args(["--no-config", "-c", &script]))
    };
    assert!(complete("dbx-rotator rot").starts_with("rotate\t"));
    assert!(complete("dbx-rotator rotate --if").starts_with("--if-due\t"));
}

/// zsh only completes what is typed, so it gets its own terminal.
const ZSH: &str = r"
zmodload zsh/zpty
zpty shell zsh -f -i
type_in() { zpty -w -n shell $1 }
heard() { local all= piece; repeat 100; do while zpty -r -t shell piece; do all+=$piece; done; [[ $all == *$1* ]] && return; sleep 0.1; done; print -r -- $all; return 1 }
type_in $'PS1=; unsetopt zle_bracketed_paste; fpath=('$1$' $fpath); autoload -Uz compinit; compinit -u -D; echo rea\'\'dy\n'
heard ready || exit
type_in $'dbx-rotator rota\t'
heard 'rotate ' || exit
type_in $'--if\t'
heard '--if-due' || exit
";

#[test]
fn the_packages_completions_load_and_complete_in_zsh() {
    let Some(root) = ready("the_packages_completions_load_and_complete_in_zsh", &["zsh"]) else { return };
    let directory = root.join("usr/share/zsh/vendor-completions");
    printed(Command::new("zsh").args(["-f", "-c", ZSH, "zsh"]).arg(directory).env("TERM", "dumb"));
}
