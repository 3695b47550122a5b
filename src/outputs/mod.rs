//! What is written beside the password file, for clients that read that once or never (pools of pgx and sqlx, rust-postgres,
//! pg8000): the credential in a file of its own, in a file of variables, and a program that is told of each rotation. And
//! libpq's connection service file, so that `psql service=orders` is all that a person types.
//!
//! Invariants: the credential is never in a file that anybody else can read, not for a moment, nor in a program's arguments or
//! environment; a file that holds anything that is not ours is not overwritten.

mod credential_file;
pub(crate) mod hook;
mod managed_file;
pub mod service_file;

use std::path::Path;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::failure::Failure;
use crate::model::Outputs;
use crate::os::dirs::Environment;
use crate::os::replace::Allowance;
use credential_file::CredentialFile;

/// What stands for a database where a client needs one and the connection is for every database (`*`): the one that each
/// Lakebase instance has.
const ANY_DATABASE: &str = "databricks_postgres";

/// A database that a client can name.
fn nameable(database: &str) -> &str {
    if database == "*" { ANY_DATABASE } else { database }
}

/// What a program is told of a rotation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotated<'a> {
    /// The connection's name.
    pub(crate) connection: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// The database, or `*` for every database: then the program is told `databricks_postgres`.
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
    /// When the new credential expires.
    pub(crate) expires_at: Timestamp,
    pub(crate) password_file: &'a Path,
}

impl Outputs {
    /// Whether both files hold this credential already and are readable by nobody else. A file that cannot be read is not
    /// current: [`Outputs::write`] says why.
    pub(crate) fn are_current(&self, password: &SecretString) -> bool {
        self.files().all(|file| file.is_current(password))
    }

    /// Replaces what differs, atomically and durably, as the password file is. A directory that is missing is made, for this
    /// user alone: what is below `/run` is gone after each boot. Blocks as [`crate::pgpass::PasswordFile::publish`] does.
    ///
    /// # Errors
    /// [`crate::Code::CannotWrite`]: what file, why, and what to do next. The file that it is about is as it was; the other has been
    /// tried all the same. `is_known` tells the credentials that were written before: a file that holds anything but one of them,
    /// a token, or nothing stays as it is. Others who write to the files may cost no more than `allowance`.
    pub(crate) fn write(
        &self,
        password: &SecretString,
        is_known: &dyn Fn(&str) -> bool,
        allowance: &Allowance,
    ) -> Result<(), Failure> {
        let mut trouble: Option<Failure> = None;
        for failure in self.files().filter_map(|file| file.write(password, is_known, allowance).err()) {
            trouble = Some(match trouble {
                Some(first) => Failure { message: format!("{first}; and {failure}"), ..first },
                None => failure,
            });
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Whether nothing was left behind beside the files.
    pub(crate) fn are_settled(&self) -> bool {
        self.files().all(|file| file.is_settled())
    }

    /// Removes what was left behind beside them by a process that was killed; what turns out to be somebody else's is kept.
    pub(crate) fn tidy(&self, is_known: &dyn Fn(&str) -> bool) {
        for file in self.files().filter(|file| !file.is_settled()) {
            file.tidy(is_known);
        }
    }

    fn files(&self) -> impl Iterator<Item = CredentialFile<'_>> {
        let token = self.token_file.as_deref().map(CredentialFile::token);
        token.into_iter().chain(self.env_file.as_deref().map(CredentialFile::variables))
    }

    /// Runs the program, if there is one, in a process group of its own, for at most 30 s; then all of the group is asked to end
    /// (SIGTERM), and killed 3 s later. Where nobody waits for it any more it goes on all the same.
    ///
    /// It is told by its environment, and the credential only by where that is: `DBX_ROTATOR_CONNECTION`,
    /// `DBX_ROTATOR_EXPIRES_AT` (RFC 3339, UTC), `DBX_ROTATOR_HOOK` (`1`), `DBX_ROTATOR_TOKEN_FILE` and `DBX_ROTATOR_ENV_FILE` where there are such,
    /// `PGHOST`, `PGPORT`, `PGDATABASE`, `PGUSER` and `PGPASSFILE`. Of this process's own environment it gets what is not a
    /// secret or a service manager's word to this process.
    ///
    /// # Errors
    /// Permanent ([`crate::Code::Configuration`]): there is no such program, or it cannot be executed. Transient
    /// ([`crate::Code::Unavailable`]): it failed, or took too long. Both say which program, how it ended, what it last said.
    pub(crate) async fn run_hook(&self, about: &Rotated<'_>, environment: &Environment) -> Result<(), Failure> {
        let Some(command) = &self.on_rotate else { return Ok(()) };
        hook::run(command, self, about, environment, tokio::time::sleep(hook::LIMIT)).await
    }
}
