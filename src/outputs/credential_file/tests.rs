//! The files with a credential, as clients, systemd and a shell read them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use super::super::{Outputs, Published};
use super::*;
use crate::{Code, Kind};

const TOKEN: &str = "eyJhbGciOi.eyJzdWIi.c2ln-_";

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.at(name)).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn outputs(&self) -> Outputs {
        Outputs { token_file: Some(self.at("token")), env_file: Some(self.at("env")), ..Outputs::default() }
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// What the record recognises in these tests: anything that could be a credential.
fn known(credential: &str) -> bool {
    is_publishable(credential)
}

/// A credential with a place where it logs in, which does not matter here.
fn of(password: &SecretString) -> Published<'_> {
    Published {
        password,
        host: "db.example",
        port: 5432,
        database: "*",
        user: "ada",
        sslmode: "require",
        sslrootcert: None,
        expires_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn token() -> SecretString {
    TOKEN.into()
}

#[test]
fn the_token_stands_alone_in_its_file_and_as_a_variable_in_the_other_and_both_are_private() {
    let home = Home::new();

    assert!(!home.outputs().are_current(&of(&token())));
    home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap();
    assert_eq!((home.text("token"), home.text("env")), (TOKEN.to_owned(), format!("PGPASSWORD={TOKEN}\n")));
    assert_eq!((home.mode("token"), home.mode("env")), (0o600, 0o600));
    assert!(home.outputs().are_current(&of(&token())) && !home.outputs().are_current(&of(&"other".into())));
    assert_eq!(home.names(), ["env", "token"]);
}

#[test]
fn what_is_right_is_not_touched_and_what_is_not_is_a_new_file_under_the_old_name() {
    let home = Home::new();
    let inode = |name: &str| fs::metadata(home.at(name)).unwrap().ino();
    home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap();
    let before = (inode("token"), inode("env"));
    home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap();
    assert_eq!((inode("token"), inode("env")), before);
    home.outputs().write(&of(&"new".into()), &known, &Allowance::default()).unwrap();
    assert!(inode("token") != before.0 && inode("env") != before.1);
    assert_eq!(home.text("token"), "new");
}

#[test]
fn a_file_that_others_can_read_is_not_current_and_is_closed_to_them() {
    let home = Home::new();
    home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap();
    for (before, after) in [(0o640, 0o600), (0o604, 0o600), (0o440, 0o400)] {
        home.set_mode("env", before);
        assert!(!home.outputs().are_current(&of(&token())), "{before:o}");
        home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap();
        assert_eq!(home.mode("env"), after, "{before:o}");
        assert!(home.outputs().are_current(&of(&token())), "{before:o}");
    }
}

#[test]
fn links_are_followed_and_missing_directories_are_made_for_this_user_alone() {
    let home = Home::new();
    symlink("run/app/token", home.at("token")).unwrap();
    let outputs = Outputs { env_file: None, ..home.outputs() };
    outputs.write(&of(&token()), &known, &Allowance::default()).unwrap();
    assert!(home.at("token").is_symlink() && outputs.are_current(&of(&token())));
    assert_eq!((home.mode("run"), home.mode("run/app"), home.mode("run/app/token")), (0o700, 0o700, 0o600));
}

#[test]
fn a_file_that_holds_something_else_is_left_as_it_is_and_the_other_is_written_all_the_same() {
    let home = Home::new();
    let foreign = "PGPASSWORD=old\nSECRET_KEY=precious\n";
    fs::write(home.at("env"), foreign).unwrap();
    let failure = home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap_err();
    assert_eq!((failure.code, failure.kind), (Code::CannotWrite, Kind::Permanent));
    assert!(failure.message.contains(home.at("env").to_str().unwrap()) && failure.hint.is_some(), "{failure}");
    assert_eq!((home.text("env"), home.text("token")), (foreign.to_owned(), TOKEN.to_owned()));
    for mistyped in ["alias ll='ls -l'\n", "two\nlines\n"] {
        fs::write(home.at("token"), mistyped).unwrap();
        let failure = home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap_err();
        assert!(failure.message.contains("token file") && failure.message.contains("; and "), "both: {failure}");
        assert_eq!(home.text("token"), mistyped);
    }
    assert!(!format!("{failure:?}").contains(TOKEN));
}

#[test]
fn what_is_replaced_is_nothing_a_credential_that_we_wrote_or_a_token_and_nothing_else() {
    let home = Home::new();
    let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.c2ln";
    let last = "dapi\"opaque$1";
    let is_known = |credential: &str| credential == last;
    let replaced = [
        ("", ""),
        ("\n", "\n"),
        (jwt, "PGPASSWORD=eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.c2ln\n"),
        (last, "PGPASSWORD=\"dapi\\\"opaque\\$1\"\n"),
        ("dapi\"opaque$1\n", "PGPASSWORD=\n"),
    ];
    for (bare, variable) in replaced {
        fs::write(home.at("token"), bare).unwrap();
        fs::write(home.at("env"), variable).unwrap();
        home.outputs().write(&of(&token()), &is_known, &Allowance::default()).unwrap();
        assert!(home.outputs().are_current(&of(&token())), "{bare:?} {variable:?}");
    }
    // A client secret, a password, a PAT, a key: one printable line each, and possibly the only copy.
    let foreign = ["dose0123456789abcdef0123456789abcdef", "hunter2", "dapi0123", "c2VjcmV0", "a.b.c", "\u{e9}t\u{e9}"];
    for secret in foreign {
        let (bare, variable) = (format!("{secret}\n"), format!("PGPASSWORD={secret}\n"));
        fs::write(home.at("token"), &bare).unwrap();
        fs::write(home.at("env"), &variable).unwrap();
        let failure = home.outputs().write(&of(&token()), &is_known, &Allowance::default()).unwrap_err();
        assert!(failure.message.contains("token file") && failure.message.contains("; and "), "both: {failure}");
        assert!(!failure.message.contains(secret));
        assert_eq!((home.text("token"), home.text("env")), (bare, variable));
    }
    assert_eq!(home.names(), ["env", "token"]);
}

#[test]
fn what_was_left_behind_goes_but_not_what_was_somebody_elses() {
    let home = Home::new();
    home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap();
    fs::write(home.at(".dbx-rotator-new-aB3dE9"), "half a tok").unwrap();
    fs::write(home.at(".dbx-rotator-new-1.2.3-4.5.6"), "my own: keep").unwrap();
    assert!(!home.outputs().are_settled());
    home.outputs().tidy(None, &known);
    assert_eq!(home.names(), ["env", "token", "token.displaced"]);
    assert_eq!((home.text("token.displaced"), home.text("token")), ("my own: keep".to_owned(), TOKEN.to_owned()));
    assert!(home.outputs().are_settled());
}

#[test]
fn whatever_the_mask_of_the_process_is_a_directory_that_is_made_can_be_used() {
    let home = Home::new();
    let script = r#"umask "$1"; exec "$0" --exact outputs::credential_file::tests::inside_a_mask --ignored"#;
    for mask in ["0777", "0277", "0022"] {
        let status = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(mask)
            .env("DBX_ROTATOR_TEST_DIRECTORY", home.at(mask))
            .status()
            .unwrap();
        assert!(status.success(), "{mask}");
        let modes = [mask.to_owned(), format!("{mask}/a"), format!("{mask}/a/token")].map(|name| home.mode(&name));
        assert_eq!(modes, [0o700, 0o700, 0o600], "{mask}");
    }
}

#[test]
#[ignore = "started by whatever_the_mask_of_the_process_is_a_directory_that_is_made_can_be_used"]
fn inside_a_mask() {
    let directory = PathBuf::from(std::env::var_os("DBX_ROTATOR_TEST_DIRECTORY").unwrap());
    let outputs = Outputs { token_file: Some(directory.join("a/token")), ..Outputs::default() };
    outputs.write(&of(&token()), &known, &Allowance::default()).unwrap();
    assert!(outputs.are_current(&of(&token())));
}

/// How systemd reads the value of one assignment: follows the states of parse_env_file_internal in
/// src/basic/env-file.c.
fn as_systemd(value: &str) -> String {
    #[derive(PartialEq)]
    enum In {
        Start,
        Plain,
        PlainEscape,
        Single,
        Double,
        DoubleEscape,
    }
    let (mut state, mut read) = (In::Start, String::new());
    for c in value.chars() {
        state = match (state, c) {
            (In::Start | In::Plain, '\n') => break,
            (In::Start, '\'') => In::Single,
            (In::Start, '"') => In::Double,
            (In::Start | In::Plain, '\\') => In::PlainEscape,
            (In::Single, '\'') | (In::Double, '"') => In::Start,
            (In::Double, '\\') => In::DoubleEscape,
            (before, c) => {
                if before == In::DoubleEscape && !"\"\\`$".contains(c) {
                    read.push('\\');
                }
                read.push(c);
                match before {
                    In::Start | In::Plain | In::PlainEscape => In::Plain,
                    In::DoubleEscape => In::Double,
                    same => same,
                }
            }
        };
    }
    read
}

#[test]
fn any_token_is_read_back_from_the_variable_by_systemd_and_by_a_shell() {
    let home = Home::new();
    let all: String = (0x21..=0x7e_u8).map(char::from).collect();
    let backwards: String = all.chars().rev().collect();
    for token in [TOKEN, &all, &backwards, "~x", "#x", "a'b", "\"", "\\", "$HOME", "`id`", "a\\nb", ";x"] {
        home.outputs().write(&of(&token.into()), &known, &Allowance::default()).unwrap();
        let text = home.text("env");
        assert_eq!(as_systemd(text.strip_prefix("PGPASSWORD=").unwrap()), token, "{text}");
        let script = ". \"$0\" && printf %s \"$PGPASSWORD\"";
        let shell = Command::new("/bin/sh").args(["-c", script]).arg(home.at("env")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shell.stdout), token, "{text}");
    }
    assert!(home.outputs().write(&of(&"two\nlines".into()), &known, &Allowance::default()).is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn what_somebody_writes_to_another_file_of_the_directory_gets_back_into_that_one() {
    use std::io::Write as _;

    use crate::outputs::service_file::{Section, update_within};

    let home = Home::new();
    let services = home.at("pg_service.conf");
    fs::write(&services, "# mine\n").unwrap();
    let section = Section {
        name: "orders".to_owned(),
        host: "db.example".to_owned(),
        port: 5432,
        database: "*".to_owned(),
        user: "ada".to_owned(),
        sslmode: "require".to_owned(),
        sslrootcert: None,
        passfile: None,
    };
    let update = |allowance: &Allowance| update_within(allowance, &services, std::slice::from_ref(&section)).unwrap();
    let mut writer = fs::OpenOptions::new().append(true).open(&services).unwrap();
    // Nobody is waited for.
    let none_left = Allowance::default();
    none_left.spend(std::time::Duration::from_secs(1));
    update(&none_left);
    writer.write_all(b"[theirs]\nhost=theirs.example\n").unwrap();
    drop(writer);
    home.outputs().tidy(None, &known);
    home.outputs().write(&of(&token()), &known, &Allowance::default()).unwrap();
    update(&Allowance::default());
    let text = home.text("pg_service.conf");
    assert!(text.contains("[theirs]\nhost=theirs.example\n") && text.contains("[orders]"), "{text}");
    assert_eq!(home.names(), ["env", "pg_service.conf", "token"]);
}
