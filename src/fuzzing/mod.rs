//! The functions behind the targets in `fuzz/`: hostile input goes into one reader or editor, and then the invariants are
//! checked.
//!
//! For fuzzing, and for the test that runs every kept input again. A function panics if an invariant is broken.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a broken invariant is to be loud; nothing of this is in the program"
)]

mod answers;
mod configuration;
mod password_file;

pub use crate::outputs::service_file::fuzz::service_file;
pub use answers::{cli_output, error_body, foreign_text, kubernetes_answer, token_answer};
pub use configuration::{config, databrickscfg};
pub use password_file::password_file;

/// The first message of a client of the proxy.
#[cfg(feature = "cli")]
pub fn first_message(data: &[u8]) {
    crate::proxy::first::fuzz(data);
}

/// Takes one input.
pub type Target = fn(&[u8]);

/// Every target, with the name of its program and its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("password_file", password_file),
    ("config", config),
    ("databrickscfg", databrickscfg),
    ("service_file", service_file),
    ("token_answer", token_answer),
    ("error_body", error_body),
    ("kubernetes_answer", kubernetes_answer),
    ("cli_output", cli_output),
    ("foreign_text", foreign_text),
    #[cfg(feature = "cli")]
    ("first_message", first_message),
];

/// Splits off the first bytes of an input, which choose; the rest is the text.
fn split<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    let (choice, text) = data.split_first_chunk::<N>()?;
    Some((*choice, text))
}

/// Checks what holds for every message: one line without control characters, of limited length.
fn check_message(message: &str) {
    assert!(!message.chars().any(char::is_control), "a message holds a control character: {message:?}");
    assert!(message.chars().count() <= 2_000, "a message of {} characters: {message}", message.chars().count());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kept_input_holds() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS.iter().copied() {
            let mut inputs = 0;
            for file in std::fs::read_dir(corpus.join(name)).unwrap_or_else(|_| panic!("{name} has no corpus")) {
                let file = file.unwrap().path();
                let input = std::fs::read(&file).unwrap();
                // Printed here, so that the output of a failed test ends with the input's name.
                eprintln!("{}", file.display());
                target(&input);
                inputs += 1;
            }
            assert!(inputs > 0, "{name} has no kept input");
            target(b"");
        }
    }
}
