//! What is written besides the password file, for clients that read it once or never (pools of pgx and sqlx, rust-postgres,
//! pg8000): a file with the credential, a file with variables, files made from templates, and a program that is told of each
//! rotation; and what a Secret of Kubernetes holds. And libpq's connection service file, so that `psql service=orders` is all that
//! a person types.
//!
//! Invariants: the credential is never, not for a moment, in a file that others can read than were asked for, nor in a program's
//! arguments or environment; a file with anything that is not ours is not overwritten.

mod credential_file;
mod filter;
pub(crate) mod hook;
mod kubernetes_secret;
mod managed_file;
pub mod service_file;
mod template;
mod template_file;

use std::path::Path;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::failure::Failure;
use crate::model::Outputs;
use crate::os::dirs::Environment;
use crate::os::replace::Allowance;
use credential_file::CredentialFile;
use template_file::MadeFile;

/// The database for a client that must name one, if the connection is for every database (`*`): each Lakebase instance
/// has it.
const ANY_DATABASE: &str = "databricks_postgres";

/// A database that a client can name.
fn nameable(database: &str) -> &str {
    if database == "*" { ANY_DATABASE } else { database }
}

/// A live credential, and where it logs in.
#[derive(Clone, Debug)]
pub(crate) struct Published<'a> {
    pub(crate) password: &'a SecretString,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// The database, or `*` for every database.
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
    /// What libpq takes.
    pub(crate) sslmode: &'a str,
    pub(crate) sslrootcert: Option<String>,
    pub(crate) expires_at: Timestamp,
}

impl Published<'_> {
    fn database(&self) -> &str {
        nameable(self.database)
    }
}

/// Whether a failure is about a template, so that it ends as soon as that can be used.
pub(crate) fn is_about_a_template(failure: &Failure) -> bool {
    template_file::is_about_a_template(failure)
}

/// What a program is told about a rotation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotated<'a> {
    /// The connection's name.
    pub(crate) connection: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// The database, or `*` for every database: the program is then told `databricks_postgres`.
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
    /// When the new credential expires.
    pub(crate) expires_at: Timestamp,
    pub(crate) password_file: &'a Path,
}

impl Outputs {
    /// Whether all files already hold this credential and nobody else can read them. An unreadable file is not current:
    /// [`Outputs::write`] says why.
    pub(crate) fn are_current(&self, published: &Published<'_>) -> bool {
        self.credential_files().all(|file| file.is_current(published.password))
            && self.made_files().all(|file| file.is_current(published))
    }

    /// How the readers of each file find it, without a change: its name where it holds this credential, else what keeps them from it.
    /// A template that cannot be used is another matter ([`Outputs::faults`]).
    #[cfg(feature = "cli")]
    pub(crate) fn look(&self, published: &Published<'_>) -> Vec<Result<String, Failure>> {
        let credentials = self.credential_files().map(|file| file.look(published.password));
        credentials.chain(self.made_files().filter_map(|file| file.look(published))).collect()
    }

    /// Replaces what differs, atomically and durably like the password file. A missing directory is made for this user
    /// alone: directories below `/run` are gone after each boot. Blocks as [`crate::pgpass::PasswordFile::publish`] does.
    ///
    /// # Errors
    /// [`crate::Code::CannotWrite`], or [`crate::Code::Configuration`] for a template: what file, why, and what to do next. The file
    /// that it is about is as it was; the others have been tried all the same. `is_known` tells the credentials and the files that were
    /// written before: a file that holds anything but one of them, a token, or nothing stays as it is. Others who write to the files may
    /// cost no more than `allowance`.
    pub(crate) fn write(
        &self,
        published: &Published<'_>,
        is_known: &dyn Fn(&str) -> bool,
        allowance: &Allowance,
    ) -> Result<(), Failure> {
        let mut trouble: Option<Failure> = None;
        let credentials = self.credential_files().map(|file| file.write(published.password, is_known, allowance));
        let made = self.made_files().map(|file| file.write(published, is_known, allowance));
        for failure in credentials.chain(made).filter_map(Result::err) {
            trouble = Some(match trouble {
                Some(first) => Failure { message: format!("{first}; and {failure}"), ..first },
                None => failure,
            });
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Whether nothing was left behind beside the files.
    pub(crate) fn are_settled(&self) -> bool {
        self.credential_files().all(|file| file.is_settled()) && self.made_files().all(|file| file.is_settled())
    }

    /// Removes what a killed process left behind beside them; files that are not ours are kept.
    pub(crate) fn tidy(&self, published: Option<&Published<'_>>, is_known: &dyn Fn(&str) -> bool) {
        for file in self.credential_files().filter(|file| !file.is_settled()) {
            file.tidy(is_known);
        }
        for file in self.made_files().filter(|file| !file.is_settled()) {
            file.tidy(published, is_known);
        }
    }

    /// What tells the files that the templates make of this now from any others, without a word of them.
    pub(crate) fn contents(&self, published: &Published<'_>) -> Vec<String> {
        self.made_files().filter_map(|file| file.contents(published)).collect()
    }

    /// Why no files can be made of the templates, whatever is published.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only commands look at templates by themselves"))]
    pub(crate) fn faults(&self) -> impl Iterator<Item = Failure> {
        self.made_files().filter_map(|file| file.fault())
    }

    fn made_files(&self) -> impl Iterator<Item = MadeFile<'_>> {
        self.files.iter().map(MadeFile)
    }

    fn credential_files(&self) -> impl Iterator<Item = CredentialFile<'_>> {
        let token = self.token_file.as_deref().map(CredentialFile::token);
        token.into_iter().chain(self.env_file.as_deref().map(CredentialFile::variables))
    }

    /// Runs the program, if there is one, in its own process group for at most 30 s. Then the whole group gets SIGTERM, and
    /// SIGKILL 3 s later. It goes on even if nobody waits for it any more.
    ///
    /// It is told by its environment, and of the credential only the place: `DBX_ROTATOR_CONNECTION`, `DBX_ROTATOR_EXPIRES_AT` (RFC 3339,
    /// UTC), `DBX_ROTATOR_HOOK` (`1`), `DBX_ROTATOR_TOKEN_FILE` and `DBX_ROTATOR_ENV_FILE` if there are such files, `PGHOST`, `PGPORT`,
    /// `PGDATABASE`, `PGUSER` and `PGPASSFILE`. It inherits the other variables of this process, except secrets and those that a service
    /// manager meant for this process only.
    ///
    /// # Errors
    /// Permanent ([`crate::Code::Configuration`]): the program does not exist or is not executable. Transient
    /// ([`crate::Code::Unavailable`]): it failed or took too long. Both say which program, how it ended, and what it last
    /// printed.
    pub(crate) async fn run_hook(&self, about: &Rotated<'_>, environment: &Environment) -> Result<(), Failure> {
        let Some(command) = &self.on_rotate else { return Ok(()) };
        hook::run(command, self, about, environment, tokio::time::sleep(hook::LIMIT)).await
    }
}
