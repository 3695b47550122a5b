//! Takes entries out of a password file. Pure.

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::entry::escaped;
use super::line::{Fields, is_wild, strip_line_end};

/// The entries for this host and every database that have this very password, but those of the ports that are in use.
#[derive(Clone, Copy)]
pub(crate) struct Unwanted<'a> {
    pub(crate) host: &'a str,
    pub(crate) password: &'a SecretString,
    pub(crate) in_use: &'a [u16],
}

impl Unwanted<'_> {
    /// The file without them, and how many those were. Every other line stays, byte for byte.
    pub(super) fn out_of(&self, original: &[u8]) -> (Zeroizing<Vec<u8>>, usize) {
        let password = escaped(self.password);
        // Reserved, so that no copy of a password is left behind.
        let mut kept = Zeroizing::new(Vec::with_capacity(original.len()));
        let mut removed = 0;
        for line in original.split_inclusive(|byte| *byte == b'\n') {
            if self.is_one(line, &password) {
                removed += 1;
            } else {
                kept.extend_from_slice(line);
            }
        }
        (kept, removed)
    }

    fn is_one(&self, line: &[u8], password: &[u8]) -> bool {
        let is_in_use = |port: &[u8]| self.in_use.iter().any(|other| port == other.to_string().as_bytes());
        let line = strip_line_end(line);
        Fields::split(line).is_some_and(|fields| {
            let is_of_host = fields.host == self.host.as_bytes() && is_wild(fields.database);
            let is_other = line.starts_with(b"#") || is_in_use(fields.port);
            is_of_host && fields.password == password && !is_other
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(original: &[u8], host: &str, password: &SecretString, in_use: &[u16]) -> (Zeroizing<Vec<u8>>, usize) {
        Unwanted { host, password, in_use }.out_of(original)
    }

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
