//! What is kept of a file besides its contents: mode, owner, group, extended attributes.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use super::{Home, OURS, root_or_skip, token};
use crate::support::skip;

#[test]
fn a_mode_that_lets_others_in_is_tightened_and_told_and_a_read_only_file_stays_so() {
    for (before, after, told) in [
        (0o600, 0o600, None),
        (0o400, 0o400, None),
        (0o644, 0o600, Some("libpq ignored the file")),
        (0o440, 0o400, Some("others may have read")),
        (0o700, 0o600, Some("lib/pq")),
        (0o1600, 0o600, Some("lib/pq")),
    ] {
        for (password, changed) in [("old", false), ("new", true)] {
            let home = Home::new();
            home.write(&format!("{OURS}old\n"), before);
            let published = home.file().publish(&token(password)).unwrap();
            assert_eq!((published.changed, home.mode()), (changed, after), "{before:o}");
            assert_eq!(published.notes.len(), usize::from(told.is_some()), "{before:o}: {:?}", published.notes);
            assert!(told.is_none_or(|told| published.notes[0].contains(told)), "{:?}", published.notes);
            assert_eq!(home.text(), format!("{OURS}{password}\n"));
        }
    }
}

#[test]
fn the_owner_and_the_group_are_kept() {
    if !root_or_skip("the_owner_and_the_group_are_kept") {
        return;
    }
    let home = Home::with_old("");
    chown(home.path(), Some(1234), Some(5678)).unwrap();
    let published = home.file().publish(&token("new")).unwrap();
    let metadata = fs::metadata(home.path()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), published.notes), (1234, 5678, vec![]));
}

#[test]
fn a_file_that_root_creates_in_somebodys_home_is_theirs() {
    if !root_or_skip("a_file_that_root_creates_in_somebodys_home_is_theirs") {
        return;
    }
    let home = Home::new();
    chown(home.0.path(), Some(1234), Some(5678)).unwrap();
    let published = home.file().publish(&token("T1")).unwrap();
    let metadata = fs::metadata(home.path()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678));
    assert!(published.notes[0].contains("uid 1234"), "{:?}", published.notes);
}

#[test]
fn extended_attributes_are_kept() {
    let home = Home::with_old("");
    if let Err(error) = rustix::fs::setxattr(home.path(), "user.backup", b"yes", rustix::fs::XattrFlags::empty()) {
        skip("extended_attributes_are_kept", &error.to_string());
        return;
    }
    let published = home.file().publish(&token("new")).unwrap();
    let mut kept = [0; 3];
    assert_eq!(rustix::fs::getxattr(home.path(), "user.backup", &mut kept), Ok(3));
    assert_eq!(&kept, b"yes");
    assert_eq!(published.notes, Vec::<String>::new());
}
