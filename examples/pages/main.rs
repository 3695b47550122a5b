//! Writes all man pages into a directory: `cargo run --example pages -- DIRECTORY [DATE]`.
//!
//! Used by `dist/build` and the Homebrew formula. There is a page for the program and for each command; it says the same as `--help`,
//! since both come from the one definition of the command line. What `--help` does not have is in `sections.rs`. The page of the
//! configuration file gets the date and the version.
#![allow(clippy::print_stderr, reason = "a build step says why it failed")]

mod roff;
mod sections;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::Command;
use clap_mangen::Man;
use jiff::Timestamp;

use roff::{bold, italic, plain};

/// The page that people write.
const CONFIGURATION: &str = include_str!("../../dist/man/dbx-rotator.toml.5");

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(directory), date) = (words.next().map(PathBuf::from), words.next()) else {
        eprintln!("usage: pages DIRECTORY [DATE]");
        return ExitCode::from(64);
    };
    let pages = Pages { directory: &directory, date: date.unwrap_or_else(date_of_the_source) };
    match pages.write_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

/// The day of SOURCE_DATE_EPOCH, which builders of packages set, else today.
fn date_of_the_source() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|epoch| epoch.parse().ok());
    let time = epoch.and_then(|epoch| Timestamp::from_second(epoch).ok()).unwrap_or_else(Timestamp::now);
    time.to_string().chars().take(10).collect()
}

struct Pages<'a> {
    directory: &'a Path,
    date: String,
}

impl Pages<'_> {
    fn write_all(&self) -> io::Result<()> {
        fs::create_dir_all(self.directory)?;
        let mut command = dbx_rotator::command();
        command.build();
        self.write(&command, &[command.get_name()])?;
        let (_, text) = CONFIGURATION.split_once('\n').unwrap_or_default();
        let title = self.title("dbx-rotator.toml", 5, "File Formats");
        fs::write(self.directory.join("dbx-rotator.toml.5"), title + text)
    }

    /// man(7): title, section, date, source, volume.
    fn title(&self, name: &str, section: u8, volume: &str) -> String {
        let (date, version) = (&self.date, env!("CARGO_PKG_VERSION"));
        format!(".TH {name} {section} {date} \"dbx-rotator {version}\" \"{volume}\"\n")
    }

    /// Writes the page of a command, and those of its subcommands as `COMMAND-SUBCOMMAND`.
    fn write(&self, command: &Command, words: &[&str]) -> io::Result<()> {
        let name = words.join("-");
        let page = [
            // Quotes are those of ASCII in both kinds of roff.
            ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n".to_owned(),
            self.title(&name, 1, "User Commands"),
            format!(".SH NAME\n{} \\- {}\n", plain(&name), plain(&about(command))),
            format!(".SH SYNOPSIS\n{}", synopsis(command, words)),
            described(command)?,
            sections::text(&words[1..]),
        ];
        fs::write(self.directory.join(format!("{name}.1")), page.concat())?;
        let is_shown = |command: &&Command| command.get_name() != "help" && !command.is_hide_set();
        for subcommand in command.get_subcommands().filter(is_shown) {
            self.write(subcommand, &[words, &[subcommand.get_name()]].concat())?;
        }
        Ok(())
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// Every option with its value, one a line so that none is cut in two.
fn synopsis(command: &Command, words: &[&str]) -> String {
    let mut text = format!("{}\n", bold(&words.join(" ")));
    let options = command.get_arguments().filter(|option| !option.is_positional() && !option.is_hide_set());
    for option in options.filter(|option| option.get_long().is_some()) {
        let value = option.get_value_names().unwrap_or_default().join(" ");
        let more = if option.get_num_args().is_some_and(|count| count.max_values() > 1) { " ..." } else { "" };
        let long = format!("--{}", option.get_long().unwrap_or_default());
        if option.get_num_args().is_some_and(|count| count.min_values() == 0 && count.takes_values()) {
            text += &format!("[{}[={}]]\n", bold(&long), italic(&value));
        } else if option.get_action().takes_values() {
            text += &format!("[{}\\ {}{more}]\n", bold(&long), italic(&value));
        } else {
            let short = option.get_short().map(|short| format!("{} | ", bold(&format!("-{short}"))));
            text += &format!("[{}{}]\n", short.unwrap_or_default(), bold(&long));
        }
    }
    for positional in command.get_positionals() {
        let value = italic(&positional.get_value_names().unwrap_or_default().join(" "));
        let dashes = if positional.is_last_set() { "\\-\\- " } else { "" };
        text += &match (positional.is_required_set(), positional.is_last_set()) {
            (true, true) => format!("{dashes}{value} ...\n"),
            (true, false) => format!("{value}\n"),
            (false, _) => format!("[{value}]\n"),
        };
    }
    if command.has_subcommands() {
        text += &format!("{} ...\n", italic("COMMAND"));
    }
    text
}

/// What `--help` says of it.
fn described(command: &Command) -> io::Result<String> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let text = String::from_utf8_lossy(&page).into_owned();
    // Each part defines its quotes anew, and breaks lines where an empty one does.
    let is_text = |line: &&str| !line.starts_with(".ie \\n(.g") && !line.starts_with(".el .ds Aq") && *line != ".br";
    Ok(text.lines().filter(is_text).map(|line| format!("{}\n", line.trim_end())).collect())
}
