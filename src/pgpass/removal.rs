//! Takes entries out of a password file. Pure.

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::entry::escaped;
use super::line::{Fields, is_wild, strip_line_end};

/// The file without the entries for this host and every database that have this very password, but those of the ports that are in use,
/// and how many those were. Every other line stays, byte for byte.
#[must_use]
pub(crate) fn without(
    original: &[u8],
    host: &str,
    password: &SecretString,
    in_use: &[u16],
) -> (Zeroizing<Vec<u8>>, usize) {
    let password = escaped(password);
    let is_in_use = |port: &[u8]| in_use.iter().any(|other| port == other.to_string().as_bytes());
    let is_meant = |line: &[u8]| {
        let line = strip_line_end(line);
        Fields::split(line).is_some_and(|fields| {
            let is_of_host = fields.host == host.as_bytes() && is_wild(fields.database);
            let is_other = line.starts_with(b"#") || is_in_use(fields.port);
            is_of_host && fields.password == password.as_slice() && !is_other
        })
    };
    // Reserved, so that no copy of a password is left behind.
    let mut kept = Zeroizing::new(Vec::with_capacity(original.len()));
    let mut removed = 0;
    for line in original.split_inclusive(|byte| *byte == b'\n') {
        if is_meant(line) {
            removed += 1;
        } else {
            kept.extend_from_slice(line);
        }
    }
    (kept, removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_entries_with_this_password_for_this_host_go() {
        let mine = b"localhost:6432:*:ada:pass\n";
        let others: [&[u8]; 8] = [
            b"# localhost:6432:*:ada:pass\n",
            b"#localhost:6432:*:ada:pass\n",
            b"localhost:6432:*:ada:other\r\n",
            b"localhost:6432:shop:ada:pass\n",
            b"db.example.com:5432:*:ada:pass\n",
            b"*:*:*:*:pass\n",
            b"\xff not text\n",
            b"localhost:5432:*:eve:pass2",
        ];
        let all = [&mine[..], &others.concat()].concat();
        let (kept, removed) = without(&all, "localhost", &"pass".into(), &[5432]);
        assert_eq!((kept.as_slice(), removed), (others.concat().as_slice(), 1));
        assert_eq!(without(&all, "localhost", &"pass".into(), &[6432]).1, 0, "this port is in use");
        assert_eq!(without(b"localhost:1:*:a:p\\:\\\\q\r\nx", "localhost", &"p:\\q".into(), &[]).1, 1);
        assert_eq!(without(b"", "localhost", &"p".into(), &[]).1, 0);
    }
}
