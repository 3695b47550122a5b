//! The password files of one configuration: all of them hold the same credentials.
//!
//! A connection's credential counts as published where one of the files has it. A file that lacks it, or holds another, gets it again
//! without a new sign-in. A file that cannot be read or written keeps no credential from the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::status::{ConnectionStatus, State};
use crate::config::Config;
use crate::failure::Failure;
use crate::os::replace::Allowance;
use crate::pgpass::{Contents, PasswordFile};
use secrecy::ExposeSecret;

/// One password file as it was found; a failure where it cannot be read.
pub(super) type ReadFile = Result<Arc<Contents>, Failure>;

/// Each file whose clients do not read the credential that is published elsewhere, by the place of the connection and that of the file.
pub(super) type Behind = BTreeMap<(usize, usize), Lack>;

/// What such a file has instead.
#[derive(Debug)]
pub(super) struct Lack {
    /// How the connection stands for the clients of this file.
    pub(super) status: ConnectionStatus,
    /// Why it could not be read or written, where it was tried since it was looked at.
    pub(super) failure: Option<Failure>,
}

/// Reads all of them.
///
/// # Errors
/// None of them can be read: what is wrong with the first.
pub(super) fn read(config: &Config, allowance: &Allowance) -> Result<Vec<ReadFile>, Failure> {
    let read = |path| {
        let file = PasswordFile::new(path).within(allowance);
        file.read().map(Arc::new).map_err(|error| Failure::from(&error))
    };
    let files: Vec<ReadFile> = config.password_files.iter().map(read).collect();
    match files.iter().find_map(|file| file.as_ref().err()) {
        Some(failure) if files.iter().all(Result::is_err) => Err(failure.clone()),
        _ => Ok(files),
    }
}

/// How each connection stands by the best of the files, and which files are behind that; `survey` judges one file.
pub(super) fn judge(
    files: &[ReadFile],
    connections: usize,
    survey: impl Fn(&Contents) -> Vec<ConnectionStatus>,
) -> (Vec<ConnectionStatus>, Behind) {
    if let [Ok(only)] = files {
        return (survey(only), Behind::new());
    }
    let unreadable = |failure: &Failure| ConnectionStatus {
        state: State::Missing,
        reason: Some(failure.message.clone()),
        token: None,
        now: Timestamp::now(),
    };
    let surveys: Vec<Vec<ConnectionStatus>> = files
        .iter()
        .map(|file| match file {
            Ok(contents) => survey(contents),
            Err(failure) => vec![unreadable(failure); connections],
        })
        .collect();
    let (mut best, mut behind) = (Vec::with_capacity(connections), Behind::new());
    for connection in 0..connections {
        let all = || surveys.iter().map(|survey| &survey[connection]).enumerate();
        // Of equals the first.
        let Some((_, chosen)) = all().rev().max_by_key(|(_, status)| worth(status)) else { continue };
        if chosen.left_to_clients().is_some() {
            for (file, status) in all().filter(|(_, status)| !agree(status, chosen)) {
                let failure = files.get(file).and_then(|file| file.as_ref().err()).cloned();
                behind.insert((connection, file), Lack { status: status.clone(), failure });
            }
        }
        best.push(chosen.clone());
    }
    (best, behind)
}

/// What is known to be published by us comes before what only claims to live, whoever wrote it.
fn worth(status: &ConnectionStatus) -> (bool, bool, Option<SignedDuration>, Option<SignedDuration>) {
    let is_known = status.token.as_ref().is_some_and(|token| token.is_recorded);
    let left = status.left_to_clients();
    (left.is_some(), is_known, left, status.left())
}

/// Whether clients of one file read the same credential as those of the other.
fn agree(status: &ConnectionStatus, chosen: &ConnectionStatus) -> bool {
    let password = |status: &ConnectionStatus| {
        status.left_to_clients()?;
        status.token.as_ref().map(|token| token.password.clone())
    };
    match (password(status), password(chosen)) {
        (Some(one), Some(other)) => one.expose_secret() == other.expose_secret(),
        _ => false,
    }
}
