use super::*;

fn login(home: &Path, name: &str, group: Option<&str>) -> Login {
    let environment: Environment = [("HOME", home)].into_iter().collect();
    let workspace = Workspace { name: name.to_owned(), group_id: group.map(str::to_owned), ..Workspace::for_fuzzing() };
    Login::of(&workspace, &environment)
}

#[test]
fn the_command_that_mends_a_login_can_be_pasted() {
    let command = |name: &str| login(Path::new("/h"), name, None).command();
    assert_eq!(command("default"), "dbx-rotator login");
    assert_eq!(command("prod-1"), "dbx-rotator login --workspace prod-1");
    assert_eq!(command("it's"), "dbx-rotator login --workspace 'it'\\''s'");
    assert_eq!(command(""), "dbx-rotator login --workspace ''");
}

#[test]
fn a_group_has_a_login_of_its_own() {
    let (plain, group) = (login(Path::new("/h"), "a", None), login(Path::new("/h"), "a", Some("7")));
    assert_ne!(plain.description(), group.description());
    assert_eq!(plain.description(), login(Path::new("/h"), "b", None).description(), "whatever it is called");
    let name = plain.description().file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("workspace.example-") && name.len() < 50, "{name}");
}

#[test]
fn a_description_that_cannot_be_used_is_no_login_and_says_which_command_mends_it() {
    let home = tempfile::tempdir().unwrap();
    let login = login(home.path(), "default", None);
    assert!(login.kept().unwrap().is_none() && !login.is_there());
    let nobody = login.live().unwrap_err();
    assert_eq!((nobody.code, nobody.is_transient()), (Code::LoginNeeded, false));
    std::fs::create_dir_all(login.description().parent().unwrap()).unwrap();
    let other =
        r#"{"version":1,"origin":"https://other.example","user":null,"place":"file","since":"2026-01-01T00:00:00Z"}"#;
    for text in ["", "{}", "[]", other, &other.replace(":1,", ":2,"), &"x".repeat(20_000)] {
        std::fs::write(login.description(), text).unwrap();
        let failure = login.kept().map(drop).unwrap_err();
        assert_eq!((failure.code, failure.hint.as_deref()), (Code::LoginNeeded, Some("run `dbx-rotator login`")));
    }
}

#[tokio::test]
async fn an_exchange_that_was_cut_off_is_remembered_by_the_lock() {
    let home = tempfile::tempdir().unwrap();
    let login = login(home.path(), "default", None);
    let lock = login.lock().await.unwrap();
    assert_eq!(lock.cut_off(), None);
    lock.mark().unwrap();
    drop(lock);
    let lock = login.lock().await.unwrap();
    assert!(lock.cut_off().is_some());
    lock.clear();
    assert_eq!(lock.cut_off(), None);
}
