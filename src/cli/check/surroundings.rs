//! What around the password file keeps clients from reading it, or from the right one.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::auth;
use crate::cli::finding::{Finding, Id};
use crate::config::Config;
use crate::failure::Failure;
use secrecy::ExposeSecret;

use crate::model::token::fingerprint;
use crate::model::{Connection, Means, Workspace};
use crate::os::dirs::Environment;
use crate::os::files::read_text_up_to;
use crate::rotation::{ConnectionStatus, Snapshot};

/// The environment that programs of this user get besides that of a shell (environment.d(5)).
const ENVIRONMENT_D: &str = ".config/environment.d";

/// More than any file of variables has.
const LARGEST: u64 = 64 * 1024;

/// What concerns all connections.
pub(super) fn of_all(config: &Config, account_home: Option<&Path>) -> Vec<Finding> {
    let environment = &config.environment;
    let mut findings = Vec::new();
    findings.extend(pgpassword(environment));
    findings.extend(pgpassfile(environment, config.password_files()));
    findings.extend(home_directory(environment, account_home));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    findings.extend(config.password_files().iter().filter_map(|file| mount(file, &mounts)));
    findings.extend(config.workspaces().iter().filter_map(|workspace| unreadable_secret(workspace.secret_file()?)));
    findings.extend(config.loose_secrets().into_iter().map(|remark| Finding::warning(Id::SecretFile, remark)));
    findings.extend(config.workspaces().iter().filter_map(|workspace| federation(workspace, environment)));
    findings
}

/// What concerns each connection.
pub(super) fn of_each(snapshot: &Snapshot) -> Vec<Finding> {
    let each = |(index, (connection, status)): (usize, (&Connection, &ConnectionStatus))| {
        let past = snapshot.past(index);
        let published = past.and_then(|past| past.published.as_ref()).map(|published| published.fingerprint.as_str());
        let present = status.token.as_ref().map(|token| fingerprint(token.password.expose_secret()));
        [
            role_case(connection, status.token.as_ref().and_then(|token| token.subject.as_deref())),
            one_database(connection),
            other_writer(connection, published, present.as_deref()),
        ]
    };
    let templates = snapshot.connections().iter().flat_map(templates);
    snapshot
        .connections()
        .iter()
        .zip(&snapshot.statuses)
        .enumerate()
        .flat_map(each)
        .flatten()
        .chain(templates)
        .collect()
}

/// Each template of a connection that cannot be used, or that all can.
fn templates(connection: &Connection) -> Vec<Finding> {
    let (name, outputs) = (connection.name(), &connection.outputs);
    let failed = |failure: Failure| Finding::failed(Id::Template, format!("{name}: {failure}")).hint_of(&failure);
    let faults: Vec<Finding> = outputs.faults().map(failed).collect();
    if !faults.is_empty() || outputs.files.is_empty() {
        return faults;
    }
    let files: Vec<String> = outputs.files.iter().map(|file| file.path.display().to_string()).collect();
    vec![Finding::ok(Id::Template, format!("{name}: the template can be used for {}", files.join(" and ")))]
}

/// libpq asks `PGPASSWORD` before it looks for a password file (libpq's fe-connect.c, `connectOptions2`).
fn pgpassword(environment: &Environment) -> Option<Finding> {
    let hint = "unset it: clients that see it never read the password file";
    if std::env::var_os("PGPASSWORD").is_some_and(|value| !value.is_empty()) {
        return Some(Finding::warning(Id::Pgpassword, "PGPASSWORD is set in this environment").hint(hint));
    }
    let directory = environment.home()?.join(ENVIRONMENT_D);
    let files = fs::read_dir(directory).into_iter().flatten().filter_map(|file| Some(file.ok()?.path()));
    let sets = |path: &PathBuf| read_text_up_to(path, LARGEST).is_ok_and(|text| sets_pgpassword(&text));
    let file = files.filter(|path| path.extension().is_some_and(|extension| extension == "conf")).find(sets)?;
    Some(Finding::warning(Id::Pgpassword, format!("{} sets PGPASSWORD", file.display())).hint(hint))
}

fn sets_pgpassword(text: &str) -> bool {
    text.lines()
        .any(|line| line.trim_start().strip_prefix("PGPASSWORD").is_some_and(|rest| rest.trim_start().starts_with('=')))
}

/// libpq takes `PGPASSFILE` for the password file.
fn pgpassfile(environment: &Environment, password_files: &[PathBuf]) -> Option<Finding> {
    let named = environment.path("PGPASSFILE")?;
    let same = |one: &Path, other: &Path| match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    };
    (!password_files.iter().any(|file| same(&named, file))).then(|| {
        let files: Vec<String> = password_files.iter().map(|file| file.display().to_string()).collect();
        let message = format!("PGPASSFILE is {}, and the passwords are in {}", named.display(), files.join(" and "));
        Finding::warning(Id::Pgpassfile, message).hint("unset PGPASSFILE, or set password_file to the same path")
    })
}

/// A client that somebody starts elsewhere looks in the home directory of the account.
fn home_directory(environment: &Environment, account_home: Option<&Path>) -> Option<Finding> {
    let (here, there) = (environment.home()?, account_home?);
    (here != there).then(|| {
        let message =
            format!("HOME is {}, and the home directory of this account is {}", here.display(), there.display());
        Finding::warning(Id::HomeDirectory, message)
            .hint("programs that are not started from this shell look for their password file there")
    })
}

/// A file that is a mount of its own, as in a container, cannot be replaced by renaming, and what is mounted stays the old file when
/// it is replaced outside.
fn mount(password_file: &Path, mountinfo: &str) -> Option<Finding> {
    let path = password_file.canonicalize().unwrap_or_else(|_| password_file.to_owned());
    let text = path.to_str()?;
    // The fifth field is the mount point; blanks in it are written as \040 (proc_pid_mountinfo(5)).
    let is_mounted = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|point| point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\") == text);
    is_mounted.then(|| {
        Finding::warning(Id::PasswordFileMount, format!("{text} is a mount of its own"))
            .hint("mount the directory that holds it: a single file that is mounted cannot be replaced in one step")
    })
}

/// What the policy must have for the token of another issuer that is at hand.
fn federation(workspace: &Workspace, environment: &Environment) -> Option<Finding> {
    let Some(Means::Federation(federation)) = &workspace.means else { return None };
    Some(match auth::federation_outlook(federation, environment, Timestamp::now())? {
        Ok(policy) => Finding::ok(Id::Federation, policy),
        Err(failure) => Finding::failed(Id::Federation, failure.message.clone()).hint_of(&failure),
    })
}

fn unreadable_secret(path: &Path) -> Option<Finding> {
    use rustix::fs::{Access, access};
    match access(path, Access::READ_OK) {
        Err(rustix::io::Errno::ACCESS) => {
            let message = format!("this user may not read {}, which signs in", path.display());
            Some(
                Finding::failed(Id::SecretFile, message)
                    .hint("let the file belong to the user who rotates, with mode 0600"),
            )
        }
        _ => None,
    }
}

/// PostgreSQL compares role names byte by byte.
fn role_case(connection: &Connection, subject: Option<&str>) -> Option<Finding> {
    let (user, subject) = (connection.key()?.user(), subject?);
    (user != subject && user.to_lowercase() == subject.to_lowercase()).then(|| {
        let message = format!("{}: the user is {user}, and the token is for {subject}", connection.name());
        Finding::warning(Id::RoleCase, message)
            .hint("PostgreSQL tells upper from lower case: write the user as the role is spelled, see \\du in psql")
    })
}

fn one_database(connection: &Connection) -> Option<Finding> {
    let database = &connection.address.database;
    (database != "*").then(|| {
        let message = format!(
            "{}: the entry serves only the database {database}; with database = \"*\" it serves every database of the host",
            connection.name()
        );
        Finding::ok(Id::OneDatabase, message)
    })
}

/// What stands there is not what was written last: somebody else keeps this entry, too.
fn other_writer(connection: &Connection, published: Option<&str>, present: Option<&str>) -> Option<Finding> {
    (published? != present?).then(|| {
        let message = format!("{}: its entry holds another credential than dbx-rotator wrote last", connection.name());
        Finding::warning(Id::OtherWriter, message)
            .hint("let only one program keep it: look for the Python original, a cron job or another machine with this home directory")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &Path)]) -> Environment {
        variables.iter().map(|(name, value)| (*name, value.as_os_str().to_owned())).collect()
    }

    #[test]
    fn a_variable_that_comes_before_the_password_file_is_found_where_programs_get_it_from() {
        for (text, sets) in [
            ("PGPASSWORD=x", true),
            ("# no\n  PGPASSWORD = x\n", true),
            ("PGPASSWORD_FILE=x\n#PGPASSWORD=x\nPGPASSFILE=y\n", false),
            ("", false),
        ] {
            assert_eq!(sets_pgpassword(text), sets, "{text}");
        }
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(ENVIRONMENT_D);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("a.txt"), "PGPASSWORD=x").unwrap();
        assert_eq!(pgpassword(&environment(&[("HOME", home.path())])), None);
        fs::write(directory.join("a.conf"), "PGPASSWORD=s3cret").unwrap();
        let found = pgpassword(&environment(&[("HOME", home.path())])).unwrap();
        assert!(found.message.contains("a.conf") && !found.message.contains("s3cret"), "{found:?}");
    }

    #[test]
    fn another_password_file_or_home_directory_is_told() {
        let home = tempfile::tempdir().unwrap();
        let (file, other) = (home.path().join("pgpass"), home.path().join("other"));
        fs::write(&file, "").unwrap();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let files = [home.path().join("first"), file];
        for (named, is_told) in [(&files[0], false), (&files[1], false), (&link, false), (&other, true)] {
            assert_eq!(pgpassfile(&environment(&[("PGPASSFILE", named)]), &files).is_some(), is_told, "{named:?}");
        }
        assert_eq!(pgpassfile(&environment(&[]), &files), None);
        let at = |home: &Path| environment(&[("HOME", home)]);
        assert!(home_directory(&at(home.path()), Some(Path::new("/home/ada"))).is_some());
        assert_eq!(home_directory(&at(home.path()), Some(home.path())), None);
        assert_eq!(home_directory(&at(home.path()), None), None);
    }

    #[test]
    fn a_file_that_is_mounted_alone_is_told_from_one_in_a_mounted_directory() {
        let info =
            "36 35 98:0 / /home/ada rw - ext4 /dev/a rw\n37 36 98:0 /x /home/ada/my\\040pgpass rw - ext4 /dev/a rw\n";
        assert!(mount(Path::new("/home/ada/my pgpass"), info).is_some());
        assert_eq!(mount(Path::new("/home/ada/.pgpass"), info), None);
        assert_eq!(mount(Path::new("/home/ada/.pgpass"), ""), None);
    }

    #[test]
    fn an_entry_that_somebody_else_wrote_is_told() {
        let text = "[[workspace]]\nhost = 'w.example'\nauth = 'databricks-cli'\n\
                    [[connection]]\nname = 'orders'\nhost = 'db.example'\nuser = 'Ada@example.com'\n";
        let mut connection = Config::of_text(text).connections.remove(0);
        assert!(other_writer(&connection, Some("1"), Some("2")).is_some());
        for (published, present) in [(Some("1"), Some("1")), (None, Some("1")), (Some("1"), None)] {
            assert_eq!(other_writer(&connection, published, present), None);
        }
        for (subject, is_told) in [("ada@example.com", true), ("Ada@example.com", false), ("bob@example.com", false)] {
            assert_eq!(role_case(&connection, Some(subject)).is_some(), is_told, "{subject}");
        }
        assert!(one_database(&connection).is_some());
        connection.address.database = "*".to_owned();
        assert_eq!(one_database(&connection), None);
    }
}
