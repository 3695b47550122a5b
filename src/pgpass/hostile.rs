//! Files that nobody has, of a size or shape that would cost careless code minutes or all memory.

use super::{Entry, FileFault, How, Key, PasswordFile, Warning, publish, verify};

fn entry() -> Entry {
    let key = Key::new("db.example", 5432, "*", "ada@example.com").unwrap();
    Entry::new(key, "t".repeat(1000).into(), false).unwrap()
}

/// As many lines as fit into 1 MiB.
fn lines(line: impl Fn(usize) -> String) -> Vec<u8> {
    (0..)
        .map(line)
        .scan(0, |size, line| (*size < 1 << 20).then(|| (*size += line.len(), line).1))
        .collect::<String>()
        .into()
}

#[test]
fn an_edit_takes_one_pass_whatever_the_file_is_made_of() {
    let shapes: [(&str, Vec<u8>); 10] = [
        ("exceptions", lines(|n| format!("db.example:5432:d{n}:ada@example.com:x\n"))),
        ("near-rivals", lines(|n| format!("db.example:5432:*:ADA@example.com:{n}\n"))),
        ("wildcards", lines(|_| "*:*:*:*:x\n".to_owned())),
        ("foreign", lines(|n| format!("h{n}:1:d:u:p\n"))),
        ("empty", vec![b'\n'; 1 << 20]),
        ("colons", vec![b':'; 1 << 20]),
        ("lines of colons", lines(|_| "::::\n".to_owned())),
        ("one line", vec![b'x'; 1 << 20]),
        ("databases in one line", format!("db.example:5432:{}", "ada@example.com:".repeat(1 << 16)).into_bytes()),
        ("NUL in each line", lines(|_| "db.example:5432:*:ada@example.com:x\0\n".to_owned())),
    ];
    for (name, mut file) in shapes {
        // With our own line below all others, where everything above it counts, and without.
        for own in ["", "\ndb.example:5432:*:ada@example.com:old\n"] {
            file.extend_from_slice(own.as_bytes());
            let edit = publish(&file, &[entry()]);
            assert!(verify(&edit.bytes, &[entry()]).is_ok(), "{name}");
            assert!(
                edit.bytes.len() <= file.len() + 3 * 1100,
                "{name}: {} bytes became {}",
                file.len(),
                edit.bytes.len()
            );
        }
    }
}

#[test]
fn of_our_own_line_again_and_again_as_many_stay_as_anybody_can_have_meant() {
    let file = lines(|_| "db.example:5432:*:ada@example.com:x\n".to_owned());
    let edit = publish(&file, &[entry()]);
    assert_eq!((edit.placements[0].how, edit.placements[0].line), (How::InPlace, 1));
    assert_eq!(edit.bytes.iter().filter(|byte| **byte == b'\n').count(), 101);
    assert_eq!(publish(&edit.bytes, &[entry()]).bytes, edit.bytes);
}

#[test]
fn many_exceptions_are_counted_and_the_first_is_named() {
    let file = lines(|n| format!("db.example:5432:d{n}:ada@example.com:x\n"));
    let count = file.iter().filter(|byte| **byte == b'\n').count();
    let file = [&file[..], b"db.example:*:*:ada@example.com:theirs\n"].concat();
    let edit = publish(&file, &[entry()]);
    let named =
        |warning: &Warning| matches!(warning, Warning::Exceptions { line: 1, count: seen, .. } if *seen == count);
    assert!(edit.warnings.iter().any(named), "{:?}", edit.warnings);
}

#[test]
fn a_file_of_more_than_16_mib_is_refused_by_its_size_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("pgpass");
    let file = std::fs::File::create(&path).unwrap();
    // Too large to be read.
    for size in [(16 << 20) + 1, 1 << 40] {
        file.set_len(size).unwrap();
        let error = PasswordFile::new(&path).publish(&[entry()]).unwrap_err();
        assert!(matches!(error.fault, FileFault::TooLarge) && error.to_string().contains("16 MiB"), "{error}");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
}
