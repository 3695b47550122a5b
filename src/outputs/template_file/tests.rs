//! Files made from templates: when they are replaced, and who may read them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use secrecy::SecretString;

use super::*;

const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.c2ln";

struct Place(tempfile::TempDir);

impl Place {
    fn new(template: &str) -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.at("template"), template).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn setting(&self, mode: u32, group: Option<&str>) -> TemplateFile {
        let group = group.map(str::to_owned);
        TemplateFile { template: self.at("template"), path: self.at("file"), mode, group }
    }

    fn text(&self) -> String {
        fs::read_to_string(self.at("file")).unwrap()
    }

    fn mode(&self) -> u32 {
        fs::metadata(self.at("file")).unwrap().permissions().mode() & 0o7777
    }
}

fn published<'a>(password: &'a SecretString, user: &'a str) -> Published<'a> {
    Published {
        password,
        host: "db.example",
        port: 5432,
        database: "*",
        user,
        sslmode: "require",
        sslrootcert: None,
        expires_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn write(setting: &TemplateFile, password: &str, known: &str) -> Result<(), Failure> {
    let password = SecretString::from(password);
    let is_known = |text: &str| text == known;
    MadeFile(setting).write(&published(&password, "ada"), &is_known, &Allowance::default())
}

#[test]
fn what_is_replaced_is_nothing_or_its_own_work_and_nothing_else() {
    let place = Place::new("\"app\" \"own\"\n{{ user | pgbouncer }} {{ password | pgbouncer }} ; {{ expires_at }}\n");
    let setting = place.setting(0o600, None);
    let ours = |password: &str| format!("\"app\" \"own\"\n\"ada\" \"{password}\" ; 1970-01-01T00:00:00Z\n");
    let later = ours(JWT).replace("1970-01-01T00", "2026-11-27T12");
    for old in ["", "\n", &ours(JWT), &later, &ours("known"), "known"] {
        fs::write(place.at("file"), old).unwrap();
        write(&setting, "new", "known").unwrap();
        assert_eq!(place.text(), ours("new"), "{old}");
    }
    for old in [
        &*ours("foreign"),
        &format!("{}\"carol\" \"hers\"\n", ours(JWT)),
        &ours(JWT).replace("ada", "carol"),
        "hunter2",
        JWT,
        "\u{e9}",
    ] {
        fs::write(place.at("file"), old).unwrap();
        let failure = write(&setting, "new", "known").unwrap_err();
        assert_eq!(failure.code, Code::CannotWrite, "{old}");
        assert!(failure.message.contains("something else") && !failure.message.contains(JWT), "{failure}");
        assert_eq!(place.text(), old);
    }
    // A file that is no text is none of ours.
    fs::write(place.at("file"), [0xff, 0xfe]).unwrap();
    write(&setting, "new", "known").unwrap_err();
}

#[test]
fn a_changed_template_is_followed_where_the_record_knows_the_file() {
    let place = Place::new("old {{ password }}");
    let setting = place.setting(0o600, None);
    write(&setting, JWT, "").unwrap();
    fs::write(place.at("template"), "new {{ password }}").unwrap();
    write(&setting, JWT, "").unwrap_err();
    write(&setting, JWT, &format!("old {JWT}")).unwrap();
    assert_eq!(place.text(), format!("new {JWT}"));
}

#[test]
fn the_mode_is_the_one_that_was_asked_for_whatever_it_was_before() {
    let place = Place::new("{{ password }}");
    let password = SecretString::from(JWT);
    for asked in [0o600, 0o640, 0o660, 0o400, 0o440] {
        let setting = place.setting(asked, None);
        for before in [0o600, 0o644, 0o666, 0o400] {
            let _ = fs::remove_file(place.at("file"));
            fs::write(place.at("file"), JWT).unwrap();
            fs::set_permissions(place.at("file"), fs::Permissions::from_mode(before)).unwrap();
            write(&setting, JWT, "").unwrap();
            assert_eq!(place.mode(), asked, "{before:o}");
            assert!(MadeFile(&setting).is_current(&published(&password, "ada")), "{before:o}");
            // What somebody changes is changed back without another file.
            fs::set_permissions(place.at("file"), fs::Permissions::from_mode(before)).unwrap();
            assert_eq!(MadeFile(&setting).is_current(&published(&password, "ada")), before == asked);
            assert_eq!(place.mode(), asked, "{before:o}");
        }
    }
}

#[test]
fn a_group_is_given_before_the_mode_lets_it_in_or_nothing_is_written() {
    let place = Place::new("{{ password }}");
    if !rustix::process::geteuid().is_root() {
        let failure = write(&place.setting(0o640, Some("0")), JWT, "").unwrap_err();
        assert_eq!(failure.code, Code::CannotWrite);
        assert!(failure.message.contains("the group 0") && failure.hint.unwrap().contains("chmod g+s"));
        assert!(!place.at("file").exists());
        return;
    }
    let setting = place.setting(0o640, Some("4711"));
    let password = SecretString::from(JWT);
    let is_current = || MadeFile(&setting).is_current(&published(&password, "ada"));
    write(&setting, JWT, "").unwrap();
    let gid = || fs::metadata(place.at("file")).unwrap().gid();
    assert_eq!((gid(), place.mode()), (4711, 0o640));
    assert!(is_current());
    // Somebody else's group may have it open: it gets another file.
    chown(place.at("file"), None, Some(4712)).unwrap();
    let before = fs::metadata(place.at("file")).unwrap().ino();
    assert!(!is_current());
    write(&setting, JWT, "").unwrap();
    assert!(gid() == 4711 && fs::metadata(place.at("file")).unwrap().ino() != before);
    // Left to what is there.
    write(&place.setting(0o640, None), "new", JWT).unwrap();
    assert_eq!(gid(), 4711);
}

#[test]
fn what_cannot_be_used_is_said_with_its_place_and_no_secret() {
    let place = Place::new("{{ password }}");
    let fault = |setting: &TemplateFile| MadeFile(setting).fault();
    let setting = place.setting(0o600, None);
    assert_eq!(fault(&setting), None);
    for (template, says) in [
        (&b"\n{{ passwort }}"[..], "line 2: there is no placeholder `passwort`"),
        (b"\xff", "not UTF-8"),
        (&[b'x'; LARGEST + 1], "larger than 1024 KiB"),
    ] {
        fs::write(place.at("template"), template).unwrap();
        let failure = fault(&setting).unwrap();
        assert_eq!((failure.code, write(&setting, JWT, "").unwrap_err()), (Code::Configuration, failure.clone()));
        assert!(failure.message.contains(says) && is_about_a_template(&failure), "{failure}");
    }
    fs::remove_file(place.at("template")).unwrap();
    assert!(fault(&setting).unwrap().hint.unwrap().contains("ls -l"));
    fs::create_dir(place.at("template")).unwrap();
    assert!(fault(&setting).unwrap().message.contains("not a regular file"));
    let failure = fault(&TemplateFile { template: place.at("none"), ..place.setting(0o600, Some("no-such-group")) });
    assert!(failure.unwrap().message.contains("none"));
    fs::write(place.at("fine"), "{{ user }}").unwrap();
    let setting = TemplateFile { template: place.at("fine"), ..place.setting(0o600, Some("no-such-group")) };
    assert!(fault(&setting).unwrap().message.contains("there is no group no-such-group"));
    assert!(!place.at("file").exists());
}

#[test]
fn a_value_that_no_file_can_carry_is_refused() {
    let place = Place::new("{{ user }} {{ password }}");
    let setting = place.setting(0o600, None);
    let write = |user: &str, password: &str| {
        let password = SecretString::from(password);
        MadeFile(&setting).write(&published(&password, user), &|_| false, &Allowance::default()).unwrap_err()
    };
    assert!(write("a\nb", JWT).message.contains("the user of this connection holds a control character"));
    assert!(write("ada", "two\nlines").message.contains("no password may have"));
    assert!(!place.at("file").exists());
}

#[test]
fn what_was_left_behind_goes_but_not_what_was_somebody_elses() {
    let place = Place::new("{{ password }}");
    let setting = place.setting(0o600, None);
    write(&setting, JWT, "").unwrap();
    fs::write(place.at(".dbx-rotator-new-aB3dE9"), "half a tok").unwrap();
    fs::write(place.at(".dbx-rotator-new-1.2.3-4.5.6"), "my own: keep").unwrap();
    assert!(!MadeFile(&setting).is_settled());
    let password = SecretString::from(JWT);
    MadeFile(&setting).tidy(Some(&published(&password, "ada")), &|_| false);
    assert!(MadeFile(&setting).is_settled());
    assert_eq!(fs::read_to_string(place.at("file.displaced")).unwrap(), "my own: keep");
}
