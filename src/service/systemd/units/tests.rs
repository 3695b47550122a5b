//! What is written for systemd, and what is left alone.

use super::*;

fn directory(own: &Path) -> Directory {
    Directory { own: own.to_owned(), scope: Scope::User }
}

#[test]
fn a_unit_is_written_with_the_path_of_the_program_and_removed_again() {
    let scratch = tempfile::tempdir().unwrap();
    let units = directory(&scratch.path().join("systemd/user"));
    let file = units.provide(USER[1], Path::new("/opt/a b/dbx-rotator")).unwrap().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("ExecStart=\"/opt/a b/dbx-rotator\" rotate --if-due"), "{text}");
    let drop_in = units.add_drop_in("dbx-rotator.service", RELAXED).unwrap().unwrap();
    assert_eq!(units.clear(&["dbx-rotator.service"]).unwrap(), [drop_in.clone(), file.clone()]);
    assert!(!file.exists() && !drop_in.parent().unwrap().exists());
}

#[test]
fn a_unit_may_write_where_the_files_are_and_no_longer_than_they_are_there() {
    let scratch = tempfile::tempdir().unwrap();
    let units = directory(scratch.path());
    let unit = "dbx-rotator.service";
    let places = [Path::new("/srv/a b%h"), Path::new("/var/lib/app")];
    let file = units.add_places(unit, &places).unwrap().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.ends_with("[Service]\nReadWritePaths=-\"/srv/a b%%h\"\nReadWritePaths=-\"/var/lib/app\"\n"), "{text}");
    assert!(units.add_places(unit, &[Path::new("/srv/a\nExecStart=x")]).is_err());
    assert_eq!(units.add_places(unit, &[]).unwrap(), None);
    assert!(!file.exists());
    for (directory, may) in
        [("/srv/app", true), ("/", false), ("/etc", false), ("/dev/fd", false), ("/proc/self/fd", false)]
    {
        assert_eq!(can_be_let_in(Path::new(directory)), may, "{directory}");
    }
    units.add_places(unit, &places).unwrap();
    assert_eq!(units.clear(&[unit]).unwrap(), [file]);
}

#[test]
fn a_unit_that_somebody_else_wrote_is_neither_replaced_nor_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let units = directory(scratch.path());
    let file = scratch.path().join("dbx-rotator.service");
    fs::write(&file, "[Service]\n").unwrap();
    assert_eq!(units.provide(USER[1], Path::new("/x")).unwrap(), None);
    assert!(units.clear(&["dbx-rotator.service"]).unwrap().is_empty());
    assert_eq!(fs::read_to_string(&file).unwrap(), "[Service]\n");
}

#[test]
fn what_is_allowed_and_forbidden_is_the_same_for_the_timers_run_the_daemon_and_the_proxy() {
    let sandbox = |unit: &Unit| {
        let (_, rest) = unit.text.split_once("# ---- what it may do").unwrap();
        rest.split("\n[Install]").next().unwrap().trim().to_owned()
    };
    assert_eq!(sandbox(&USER[1]), sandbox(&USER[2]));
    assert_eq!(sandbox(&SYSTEM[1]), sandbox(&SYSTEM[2]));
    assert_eq!(sandbox(&USER[1]), sandbox(&USER_PROXY[1]), "the proxy renews as well");
    assert_eq!(sandbox(&SYSTEM[1]), sandbox(&SYSTEM_PROXY[1]));
}

#[test]
fn the_drop_ins_take_back_nothing_that_the_units_do_not_set() {
    for (drop_in, unit) in [(RELAXED, USER[1]), (PROXY_ALLOW[0], USER_PROXY[1]), (PROXY_ALLOW[1], SYSTEM_PROXY[1])] {
        for (key, _) in settings(drop_in.text) {
            assert!(unit.text.contains(&format!("\n{key}=")), "{}: {key}", drop_in.name);
        }
    }
    // What it adds does not depend on what another drop-in has taken away.
    let (_, families) = settings(USER_PROXY[1].text).find(|(key, _)| *key == "RestrictAddressFamilies").unwrap();
    let added: Vec<(&str, &str)> = settings(PROXY_PORTS.text).collect();
    assert_eq!(added, [("RestrictAddressFamilies", &*format!("{families} AF_NETLINK"))]);
    // Without mounts nothing is left that a user's manager would need a namespace for.
    let all: Vec<(&str, &str)> = settings(PROXY_ALLOW[0].text).collect();
    assert!(settings(RELAXED.text).all(|setting| all.contains(&setting)));
}

#[test]
fn sockets_are_told_anew_only_where_they_are_others() {
    let scratch = tempfile::tempdir().unwrap();
    let (units, unit) = (directory(scratch.path()), "dbx-rotator-proxy.socket");
    assert_eq!(units.set_sockets(unit, None).unwrap(), None);
    assert_eq!(units.sockets_set_at(unit), None);
    let text = |port: u16| Some(format!("[Socket]\nListenStream=127.0.0.1:{port}\n"));
    let file = units.set_sockets(unit, text(1)).unwrap().unwrap();
    let before = units.sockets_set_at(unit).unwrap();
    assert_eq!(units.set_sockets(unit, text(1)).unwrap(), None);
    assert_eq!(units.sockets_set_at(unit), Some(before));
    assert!(units.set_sockets(unit, text(2)).unwrap().is_some());
    // That there are none any more is something else, too.
    assert!(units.set_sockets(unit, None).unwrap().is_some());
    assert!(!fs::read_to_string(&file).unwrap().contains("ListenStream"));
    assert_eq!(units.set_sockets(unit, None).unwrap(), None);
    assert!(units.set_drop_in("x.service", PROXY_PORTS, true).unwrap().is_some_and(|file| file.exists()));
    assert_eq!(units.set_drop_in("x.service", PROXY_PORTS, false).unwrap(), None);
    assert_eq!(units.clear(&[unit]).unwrap(), [file]);
    assert!(fs::read_dir(scratch.path()).unwrap().flatten().all(|left| left.file_name() == "x.service.d"));
}

#[test]
fn a_path_never_becomes_a_setting_or_a_variable() {
    use std::os::unix::ffi::OsStrExt;
    let program = |path: &str| with_program(USER[1].text, Path::new(path));
    for path in
        ["/opt/a\nExecStartPre=/bin/sh", "/a\"b", "/a'b", "/a\\", "/a$HOME", "/a\u{1b}", "/a\u{2028}b", "/a\r", "a", ""]
    {
        assert!(program(path).is_err() && home_drop_in(Path::new(path)).is_err(), "{path:?}");
    }
    assert!(with_program(USER[1].text, Path::new(std::ffi::OsStr::from_bytes(b"/\xff"))).is_err());
    // A path after the colon would be another place.
    assert!(home_drop_in(Path::new("/home/a:/etc")).is_err());
    for (path, line) in [
        ("/opt/a b/x", "ExecStart=\"/opt/a b/x\" rotate --if-due"),
        ("/opt/50%/x", "ExecStart=\"/opt/50%%/x\" rotate --if-due"),
        ("/opt/é;x", "ExecStart=\"/opt/é;x\" rotate --if-due"),
        ("/opt/#x", "ExecStart=\"/opt/#x\" rotate --if-due"),
        ("/opt/x", "ExecStart=/opt/x rotate --if-due"),
    ] {
        let text = program(path).unwrap();
        assert!(text.lines().any(|one| one.starts_with(line)), "{line}\n{text}");
    }
    let text = home_drop_in(Path::new("/srv/a b%h")).unwrap();
    assert!(text.contains("BindPaths=\"/srv/a b%%h\"\n") && text.contains("-\"/srv/a b%%h/.ssh\"\n"), "{text}");
}
