//! Checks the password file's edit with the model of libpq's reader.

use crate::pgpass::{Entry, Key, publish, verify};

use super::split;

/// Keys that interfere with each other and with hostile files: open and named ones, escapes, capitals, a socket.
fn entries(chosen: u8, last_copies: u8) -> Vec<Entry> {
    let keys = [
        ("h", 5432, "*", "u"),
        ("h", 5432, "d", "u"),
        ("h", 5432, "D", "u"),
        ("::1", 5432, "d", "C\\u"),
        ("h", 5432, "*", "v"),
        ("h", 5432, "a:b", "v"),
        ("/s", 1, "*", "u\\"),
        ("H", 5432, "d d", "u u"),
    ];
    (0..)
        .zip(keys)
        .filter(|(bit, _)| chosen >> bit & 1 == 1)
        .map(|(bit, (host, port, database, user))| {
            let key = Key::new(host, port, database, user).unwrap();
            Entry::new(key, format!("token-{bit}").into(), last_copies >> bit & 1 == 1).unwrap()
        })
        .collect()
}

/// Whether a line, without its line end, has exactly these key fields when unescaped, and no byte that splits or joins
/// lines.
fn is_own(line: &[u8], key: &Key) -> bool {
    if line.iter().any(|byte| matches!(byte, 0 | b'\r')) {
        return false;
    }
    let (mut fields, mut field, mut bytes) = (Vec::new(), Vec::new(), line.iter());
    while let (Some(byte), true) = (bytes.next(), fields.len() < 4) {
        match byte {
            b':' => fields.push(std::mem::take(&mut field)),
            b'\\' => field.extend(bytes.next().or(Some(&b'\\'))),
            byte => field.push(*byte),
        }
    }
    let port = key.port().to_string();
    let wanted = [key.host(), &port, key.database(), key.user()].map(str::as_bytes);
    // A literal star is not the wildcard.
    let open = !key.every_database() || line.windows(3).any(|three| three == b":*:");
    fields == wanted && open
}

/// The lines that are not ours, without the line end of the last one.
fn foreign<'f>(file: &'f [u8], entries: &[Entry]) -> Vec<&'f [u8]> {
    let is_ours = |line: &[u8]| {
        let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        entries.iter().any(|entry| is_own(&line[..end], entry.key()))
    };
    let mut lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_ours(line)).collect();
    if let Some(last) = lines.last_mut() {
        *last = last.strip_suffix(b"\n").unwrap_or(last);
    }
    lines
}

pub fn password_file(data: &[u8]) {
    let Some(([chosen, last_copies], file)) = split::<2>(data) else { return };
    let entries = entries(chosen, last_copies);
    let edit = publish(file, &entries);
    if entries.is_empty() {
        assert_eq!(edit.bytes.as_slice(), file);
        return;
    }
    if let Err(mismatches) = verify(&edit.bytes, &entries) {
        panic!("clients do not read what was published: {mismatches:?}\n{:?}", String::from_utf8_lossy(&edit.bytes));
    }
    assert!(edit.bytes.ends_with(b"\n"), "the last line has an end");
    let (before, after) = (foreign(file, &entries), foreign(&edit.bytes, &entries));
    assert_eq!(before.len(), after.len(), "foreign lines were lost or made");
    for (number, (old, new)) in before.iter().zip(&after).enumerate() {
        // Only the last line may have got a missing line end.
        let same = old == new
            || (number + 1 == before.len() && new.strip_suffix(b"\r") == Some(old))
            || (number + 1 == before.len()
                && new.starts_with(old)
                && matches!(&new[old.len()..], b"\n" | b"\r\n" | b"\r"));
        assert!(same, "the foreign line {old:?} became {new:?}");
    }
    let again = publish(&edit.bytes, &entries);
    assert_eq!(again.bytes, edit.bytes, "a second edit changes nothing");
    for placement in &edit.placements {
        assert!(placement.line >= 1 && placement.line <= edit.bytes.split(|byte| *byte == b'\n').count());
    }
    for warning in &edit.warnings {
        let text = warning.to_string();
        assert!(!text.chars().any(char::is_control) && !text.contains("token-"), "{text:?}");
    }
}
