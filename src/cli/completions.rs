//! `dbx-rotator completions`.

use clap_complete::shells::{Bash, Fish, Zsh};
use clap_complete::{Generator, generate};

use super::arguments::{Shell, command};
use super::{Fault, print};

pub(super) fn run(shell: Shell) -> Result<u8, Fault> {
    print::out(&script(shell))?;
    Ok(0)
}

fn script(shell: Shell) -> String {
    match shell {
        // In one of two places, clap_complete 4.6 takes the hyphen in the program's name for the step to a subcommand.
        Shell::Bash => generated(Bash).replace("dbx__subcmd__rotator", "dbx__rotator"),
        Shell::Zsh => generated(Zsh),
        Shell::Fish => generated(Fish),
    }
}

fn generated(generator: impl Generator) -> String {
    let mut text = Vec::new();
    generate(generator, &mut command(), env!("CARGO_PKG_NAME"), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
