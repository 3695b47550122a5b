//! Asking a person, with an answer that Enter stands for.

use std::io::{self, BufRead, IsTerminal, Write as _};

use super::{Fault, print};
use crate::config::ConfigError;

/// Whether somebody is there, or all questions are answered beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Person {
    AtTerminal,
    /// Every answer is the one that Enter would stand for.
    SaidYes,
}

impl Person {
    /// # Errors
    /// Nobody is there to answer.
    pub(super) fn find(yes: bool) -> Result<Self, Fault> {
        if yes {
            return Ok(Person::SaidYes);
        }
        if io::stdin().is_terminal() {
            return Ok(Person::AtTerminal);
        }
        let error = ConfigError::usage("setup asks questions, and nobody is there to answer");
        Err(error.hint("run it in a terminal, or with --yes and the options that answer them: see --help").into())
    }

    /// The answer, without blanks around it; `usual` where there is none.
    ///
    /// # Errors
    /// The input ended.
    pub(super) fn ask(self, question: &str, usual: &str) -> Result<String, Fault> {
        if self == Person::SaidYes {
            return Ok(usual.to_owned());
        }
        let shown = if usual.is_empty() { format!("{question}: ") } else { format!("{question} [{usual}]: ") };
        loop {
            print::out(&shown)?;
            let _ = io::stdout().flush();
            let mut answer = String::new();
            match io::stdin().lock().read_line(&mut answer) {
                Ok(0) => {
                    print::out("\n")?;
                    return Err(ConfigError::usage("nothing was changed").into());
                }
                Ok(_) if answer.trim().is_empty() => return Ok(usual.to_owned()),
                Ok(_) => return Ok(answer.trim().to_owned()),
                // The line has been read, so that the next one comes next.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    print::out("that is not text in UTF-8: type it again\n")?;
                }
                Err(error) => return Err(unreadable(&error).into()),
            }
        }
    }

    /// Asks until `read` takes the answer; what it says against one is shown.
    ///
    /// # Errors
    /// The input ended, or the usual answer will not do and nobody is there to give another.
    pub(super) fn ask_for<T>(
        self,
        question: &str,
        usual: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Fault> {
        loop {
            match read(&self.ask(question, usual)?) {
                Ok(answer) => return Ok(answer),
                Err(why) if self == Person::AtTerminal => print::out(&print::line(&why))?,
                Err(why) => return Err(ConfigError::usage(why).into()),
            }
        }
    }
}

fn unreadable(error: &io::Error) -> ConfigError {
    let why = crate::words::of_io(error);
    let error = ConfigError::usage(format!("the answer cannot be read: {why}"));
    error.hint("run it in another terminal; --help has the options that answer its questions")
}

/// A yes or a no, for [`Person::ask_for`].
pub(super) fn yes_or_no(answer: &str) -> Result<bool, String> {
    match answer.to_ascii_lowercase().as_str() {
        "yes" | "y" => Ok(true),
        "no" | "n" => Ok(false),
        _ => Err("answer yes or no".to_owned()),
    }
}

/// Which of `count` things an answer means: numbers from 1, or names, with commas or blanks between them, or `all`.
pub(super) fn chosen(answer: &str, names: &[&str]) -> Result<Vec<usize>, String> {
    if answer == "all" {
        return Ok((0..names.len()).collect());
    }
    let mut all = Vec::new();
    for word in answer.split([',', ' ']).filter(|word| !word.is_empty()) {
        let number = word.parse::<usize>().ok().filter(|number| (1..=names.len()).contains(number));
        let index = names.iter().position(|name| *name == word).or(number.map(|number| number - 1));
        all.push(index.ok_or_else(|| format!("there is no `{word}`: give numbers or names from the list, or all"))?);
    }
    all.sort_unstable();
    all.dedup();
    if all.is_empty() { Err("give at least one number".to_owned()) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_chosen_by_number_or_name() {
        let names = ["orders", "stock", "3"];
        for (answer, wanted) in [
            ("1", Some(vec![0])),
            ("2, orders", Some(vec![0, 1])),
            ("1 1 stock", Some(vec![0, 1])),
            ("all", Some(vec![0, 1, 2])),
            ("3", Some(vec![2])),
            ("0", None),
            ("4", None),
            ("x", None),
            (",", None),
        ] {
            assert_eq!(chosen(answer, &names).ok(), wanted, "{answer}");
        }
    }

    #[test]
    fn without_a_person_the_usual_answer_counts_and_one_that_will_not_do_ends_it() {
        let person = Person::SaidYes;
        let read = |answer: &str| answer.parse::<u8>().map_err(|_| "not a number".to_owned());
        assert!(matches!(person.ask_for("how many", "2", read), Ok(2)));
        assert!(matches!(person.ask_for("how many", "", read), Err(Fault::Config(error)) if error.exit_code() == 64));
    }
}
