//! The grammar of one line, and what a line means to a key.
//!
//! Everything works on borrowed bytes. A field keeps its escapes; comparing takes them into account, so that no second
//! copy of a password is made.

use super::entry::Key;

/// Lines longer than this are poison to some clients (pgx ignores the whole file from 65,536 bytes on).
pub(crate) const LONG: usize = 60_000;

/// The bytes of a line without its line end: libpq strips every CR and LF at the end.
pub(crate) fn strip_line_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r' | b'\n'] = line {
        line = rest;
    }
    line
}

/// The four key fields of a line with their escapes, and the rest after the fourth colon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) host: &'a [u8],
    pub(crate) port: &'a [u8],
    pub(crate) database: &'a [u8],
    pub(crate) user: &'a [u8],
    pub(crate) password: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Splits at the first four unescaped colons; a line with fewer is not an entry.
    pub(crate) fn split(line: &'a [u8]) -> Option<Self> {
        let (host, rest) = split_field(line)?;
        let (port, rest) = split_field(rest)?;
        let (database, rest) = split_field(rest)?;
        let (user, password) = split_field(rest)?;
        Some(Self { host, port, database, user, password })
    }

    /// The four key fields for people: nothing that could disturb a terminal, and never the password.
    pub(crate) fn display(&self) -> String {
        let Self { host, port, database, user, .. } = self;
        [host, port, database, user].map(|field| printable(field)).join(":")
    }
}

/// Control bytes and bytes outside ASCII are shown as `\xNN`; a backslash of the file stays as it is.
fn printable(field: &[u8]) -> String {
    let mut text = String::with_capacity(field.len());
    for &byte in field {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.extend(byte.escape_ascii().map(char::from)),
        }
    }
    text
}

fn split_field(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut bytes = rest.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b':' => return Some((&rest[..at], &rest[at + 1..])),
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    None
}

/// Whether this field is the wildcard. `\*` is not: it is a literal star.
pub(crate) fn is_wild(field: &[u8]) -> bool {
    field == b"*"
}

/// Whether the field, unescaped as libpq does it (a backslash makes any next byte literal), is this value.
fn spells(field: &[u8], value: &[u8]) -> bool {
    let mut bytes = field.iter();
    let unescaped = std::iter::from_fn(|| match bytes.next() {
        Some(b'\\') => bytes.next().or(Some(&b'\\')),
        byte => byte,
    });
    unescaped.eq(value)
}

/// A form in which a field equals a value if any client may think so, however it reads escapes and case: without
/// backslashes and in lower case.
fn folded(field: &[u8]) -> impl Iterator<Item = u8> {
    field.iter().filter(|&&byte| byte != b'\\').map(u8::to_ascii_lowercase)
}

/// [`folded`] for a port, which node-postgres and Npgsql compare as a number.
fn folded_port(field: &[u8]) -> impl Iterator<Item = u8> {
    folded(field).skip_while(|&byte| byte == b'0')
}

/// `*`, or `\*`, which lib/pq and sqlx take for a wildcard.
fn maybe_wild(field: &[u8]) -> bool {
    folded(field).eq(*b"*")
}

/// What a line means to a key, by its four fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// No connection of the key matches the line.
    Disjoint,
    /// The four fields are the key's, however they are spelled.
    Own,
    /// The line serves some databases of a key that serves all: the user's exception.
    Narrower,
    /// The line can match a connection of the key, in some client at least.
    Rival,
}

/// How one field of a line relates to the key's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Face {
    Differs,
    Same,
    /// Literal where the key has a wildcard.
    Inside,
    /// A wildcard where the key is literal, or equal as some client reads it.
    Covers,
}

fn face(field: &[u8], value: &[u8]) -> Face {
    if is_wild(field) {
        Face::Covers
    } else if spells(field, value) {
        Face::Same
    } else if folded(field).eq(folded(value)) || maybe_wild(field) {
        Face::Covers
    } else {
        Face::Differs
    }
}

/// A key's fields as the bytes that clients compare, prepared for many comparisons.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'k> {
    pub(crate) key: &'k Key,
    pub(crate) port: String,
    pub(crate) print: Print,
}

impl<'k> Wanted<'k> {
    pub(crate) fn new(key: &'k Key) -> Self {
        let port = key.port().to_string();
        let print = Print::of(key.host().as_bytes(), port.as_bytes(), key.database().as_bytes(), key.user().as_bytes());
        Self { key, port, print }
    }

    /// What a line with these fields means to the key.
    pub(crate) fn relation(&self, fields: &Fields<'_>) -> Relation {
        let database = match (self.key.every_database(), fields.database) {
            (true, field) if is_wild(field) => Face::Same,
            (true, field) if maybe_wild(field) => Face::Covers,
            (true, _) => Face::Inside,
            (false, field) => face(field, self.key.database().as_bytes()),
        };
        let port = match face(fields.port, self.port.as_bytes()) {
            Face::Differs if folded_port(fields.port).eq(self.port.bytes()) => Face::Covers,
            other => other,
        };
        let faces = [
            database,
            port,
            face(fields.user, self.key.user().as_bytes()),
            face(fields.host, self.key.host().as_bytes()),
        ];
        if faces.contains(&Face::Differs) {
            Relation::Disjoint
        } else if faces.contains(&Face::Covers) {
            Relation::Rival
        } else if faces.contains(&Face::Inside) {
            Relation::Narrower
        } else {
            Relation::Own
        }
    }
}

/// Two hashes of the folded fields of a line or a key, to find quickly which of many can concern each other.
///
/// If any client may match a line with a key, [`Print::meets`] is true; the reverse need not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    /// Of host, port and user; `None` when one of them is or may be a wildcard.
    pub(crate) place: Option<u64>,
    /// Of the database; `None` when it is or may be a wildcard.
    pub(crate) database: Option<u64>,
}

impl Print {
    pub(crate) fn of(host: &[u8], port: &[u8], database: &[u8], user: &[u8]) -> Self {
        let loose = maybe_wild(host) || maybe_wild(port) || maybe_wild(user);
        let place = (!loose).then(|| {
            let seed = hash(folded_port(port), hash(folded(host), HASH_START));
            hash(folded(user), seed)
        });
        let database = (!maybe_wild(database)).then(|| hash(folded(database), HASH_START));
        Self { place, database }
    }

    /// Whether the two can concern each other. A wildcard meets everything.
    pub(crate) fn meets(self, other: Self) -> bool {
        fn either(one: Option<u64>, other: Option<u64>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        either(self.place, other.place) && either(self.database, other.database)
    }
}

impl From<&Fields<'_>> for Print {
    fn from(fields: &Fields<'_>) -> Self {
        Self::of(fields.host, fields.port, fields.database, fields.user)
    }
}

/// FNV-1a: small, and good enough to tell lines apart. A collision costs a comparison, nothing else.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

fn hash(bytes: impl Iterator<Item = u8>, start: u64) -> u64 {
    // 0xff cannot be in a key, so fields cannot run into each other.
    bytes.chain([0xff]).fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// What kind of line it is, whatever the keys are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    /// Blank or a comment: ignored by every client.
    Nothing,
    /// A line on which clients disagree, so that nothing below it is safe. With its fields if it has them.
    Hazard(Option<Fields<'a>>),
    /// An entry that all clients read the same way. `odd` if its form is unusual, which does not matter for our own
    /// lines, since they are written anew.
    Entry { fields: Fields<'a>, odd: bool },
}

impl<'a> Kind<'a> {
    /// `line` has no line end.
    pub(crate) fn of(line: &'a [u8]) -> Self {
        let plain = line.iter().all(|byte| matches!(byte, b' '..=b'~'));
        // A NUL joins lines for libpq, a bare CR splits them for others: such a line is never only ours.
        let torn = !plain && line.iter().any(|byte| matches!(byte, 0 | b'\r'));
        let unclear = !plain && line.iter().any(|&byte| !matches!(byte, b'\t' | b' '..=b'~'));
        let harmful = unclear || line.len() > LONG;
        if line.first() == Some(&b'#') || line.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return if harmful { Self::Hazard(None) } else { Self::Nothing };
        }
        let Some(fields) = Fields::split(line) else { return Self::Hazard(None) };
        if torn {
            return Self::Hazard(Some(fields));
        }
        let port_ok = is_wild(fields.port) || (!fields.port.is_empty() && fields.port.iter().all(u8::is_ascii_digit));
        let odd =
            harmful || !port_ok || matches!(line.first(), Some(b' ' | b'\t')) || split_field(fields.password).is_some();
        Self::Entry { fields, odd }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(key: &Key, line: &str) -> Option<Relation> {
        Fields::split(line.as_bytes()).map(|fields| {
            let wanted = Wanted::new(key);
            let relation = wanted.relation(&fields);
            assert!(
                relation == Relation::Disjoint || wanted.print.meets(Print::from(&fields)),
                "{line}: the fingerprint hides a line that matters"
            );
            relation
        })
    }

    #[test]
    fn a_line_is_own_narrower_rival_or_nothing_to_us() -> Result<(), Box<dyn std::error::Error>> {
        use Relation::{Disjoint, Narrower, Own, Rival};
        let every = Key::new("h.example", 5432, "*", "alice")?;
        for (line, expected) in [
            ("h.example:5432:*:alice:x", Own),
            ("h.example:5432:*:\\al\\ice:x", Own),
            ("h.example:5432:*:alice:x:y", Own),
            ("h.example:5432:app:alice:x", Narrower),
            ("h.example:5432:\\*:alice:x", Rival),
            ("h.example:5432:*:ALICE:x", Rival),
            ("h.example:05432:*:alice:x", Rival),
            ("h.example:5432:*:*:x", Rival),
            ("*:5432:app:alice:x", Rival),
            ("h.example:\\*:app:alice:x", Rival),
            ("h.example:5433:*:alice:x", Disjoint),
            ("h.example:5432:*:bob:x", Disjoint),
            ("other:*:*:*:x", Disjoint),
        ] {
            assert_eq!(relation(&every, line), Some(expected), "{line}");
        }
        let named = Key::new("::1", 5432, "app", "CORP\\alice")?;
        for (line, expected) in [
            ("\\:\\:1:5432:app:CORP\\\\alice:x", Own),
            ("\\:\\:1:5432:*:CORP\\\\alice:x", Rival),
            ("\\:\\:1:5432:app:CORP\\alice:x", Rival),
            ("\\:\\:1:5432:App:CORP\\\\alice:x", Rival),
            ("\\:\\:1:5432:apps:CORP\\\\alice:x", Disjoint),
        ] {
            assert_eq!(relation(&named, line), Some(expected), "{line}");
        }
        assert_eq!(relation(&named, "h.example:5432:*:alice"), None);
        Ok(())
    }

    #[test]
    fn lines_on_which_clients_disagree_are_hazards() {
        for line in ["", "  \t", "# a comment: with colons", "#"] {
            assert!(matches!(Kind::of(line.as_bytes()), Kind::Nothing), "{line:?}");
        }
        for line in ["h:1:d:u:p", "h:*:*:*:", "h:1:d:u:p q"] {
            assert!(matches!(Kind::of(line.as_bytes()), Kind::Entry { odd: false, .. }), "{line:?}");
        }
        for line in
            [" h:1:d:u:p", "\th:1:d:u:p", "h:x:d:u:p", "h::d:u:p", "h:1:d:u:p:q", "h:1:d:u:\u{e4}", "h:1:d:u:\x0b"]
        {
            assert!(matches!(Kind::of(line.as_bytes()), Kind::Entry { odd: true, .. }), "{line:?}");
        }
        for line in ["garbage", "h:1:d:u", " # x", "# \u{e4}", "# \0", "h:1:d:u:p\0", "h:1:d:u:p\rq"] {
            assert!(matches!(Kind::of(line.as_bytes()), Kind::Hazard(_)), "{line:?}");
        }
    }
}
