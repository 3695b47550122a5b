//! Writes the man pages of the program and of each command into a directory: `cargo run --example pages -- DIRECTORY`.
//!
//! Used by `dist/build`. The pages say the same as `--help`, since both come from the one definition of the command
//! line.
#![allow(clippy::print_stderr, reason = "a build step says why it failed")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap_mangen::Man;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: pages DIRECTORY");
        return ExitCode::from(64);
    };
    match write_all(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = dbx_rotator::command();
    command.build();
    write(directory, &command, command.get_name())
}

/// Writes the page of a command, and those of its subcommands as `COMMAND-SUBCOMMAND`.
fn write(directory: &Path, command: &clap::Command, name: &str) -> io::Result<()> {
    let mut page = Vec::new();
    // clap needs static names; a build step may leak a few.
    let title: &'static str = Box::leak(name.to_owned().into_boxed_str());
    Man::new(command.clone().name(title)).manual("User Commands").render(&mut page)?;
    see_also(&mut page, name)?;
    fs::write(directory.join(format!("{name}.1")), page)?;
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        write(directory, subcommand, &format!("{name}-{}", subcommand.get_name()))?;
    }
    Ok(())
}

fn see_also(page: &mut Vec<u8>, name: &str) -> io::Result<()> {
    writeln!(page, ".SH \"SEE ALSO\"")?;
    if name != "dbx-rotator" {
        writeln!(page, ".BR dbx-rotator (1),")?;
    }
    writeln!(page, ".BR dbx-rotator.toml (5),\n.BR psql (1)")
}
