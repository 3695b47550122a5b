//! What clients read now: a model of libpq's `passwordFromFile()` (`fe-connect.c`, PostgreSQL 13 to 18).
//!
//! The model gives the answer that libpq would give, including its oddities, because we promise what clients read and
//! not what a sane parser would. Three oddities matter:
//!
//! - a NUL hides the rest of its line *and the line end*, so the next line is joined to it;
//! - a last line without LF whose length fills the line buffer exactly (255, 511, 1023, ... bytes) is lost;
//! - a field is compared along the wanted value, so that an unescaped `::1` matches the host `::1`.
//!
//! `tests/files/pgpass_libpq.rs` compares the model with the real library.

use std::collections::HashSet;
use std::fmt;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::entry::Key;
use super::line::{Fields, Print, Relation, Wanted, is_wild, strip_line_end};

/// The socket directory that Debian, PGDG and the psycopg wheels build into libpq; upstream's is `/tmp`.
pub const DEBIAN_SOCKET_DIRECTORY: &[u8] = b"/var/run/postgresql";

/// How many bytes of a line may be a database name. PostgreSQL's names have at most 63 bytes (NAMEDATALEN), each perhaps
/// escaped.
const LONGEST_DATABASE: usize = 1024;

/// libpq's port when a connection gives none.
const DEFAULT_PORT: &[u8] = b"5432";

/// One connection as a client describes it; `None` or empty means libpq's default.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Host name, address or socket directory; if not given, `hostaddr`, else `localhost`.
    pub host: Option<&'a [u8]>,
    /// Numeric address: only matters without `host`.
    pub hostaddr: Option<&'a [u8]>,
    /// Port as text, compared as text; 5432 when not given.
    pub port: Option<&'a [u8]>,
    /// Database; the user's name when not given.
    pub database: Option<&'a [u8]>,
    /// User; libpq fills in the operating system's user name before it searches.
    pub user: &'a [u8],
    /// The directory that this libpq treats as `localhost`: [`DEBIAN_SOCKET_DIRECTORY`] or `/tmp`.
    pub socket_directory: &'a [u8],
}

impl<'a> Target<'a> {
    /// A TCP connection with all four fields given.
    #[must_use]
    pub fn new(host: &'a [u8], port: &'a [u8], database: &'a [u8], user: &'a [u8]) -> Self {
        Self {
            host: Some(host),
            hostaddr: None,
            port: Some(port),
            database: Some(database),
            user,
            socket_directory: DEBIAN_SOCKET_DIRECTORY,
        }
    }

    /// The four values that libpq looks for.
    fn resolve(&self) -> Sought<'a> {
        let given = |value: Option<&'a [u8]>| value.filter(|value| !value.is_empty());
        let host = match given(self.host).or(given(self.hostaddr)) {
            None => b"localhost",
            Some(host) if host == self.socket_directory => b"localhost",
            Some(host) => host,
        };
        Sought {
            host,
            port: given(self.port).unwrap_or(DEFAULT_PORT),
            database: given(self.database).unwrap_or(self.user),
            user: self.user,
        }
    }
}

/// The four values that lines are compared with.
#[derive(Clone, Copy)]
struct Sought<'a> {
    host: &'a [u8],
    port: &'a [u8],
    database: &'a [u8],
    user: &'a [u8],
}

impl<'a> Sought<'a> {
    fn of(wanted: &'a Wanted<'_>, database: &'a [u8]) -> Self {
        let key = wanted.key;
        Self { host: key.host().as_bytes(), port: wanted.port.as_bytes(), database, user: key.user().as_bytes() }
    }

    /// A colon in a wanted value can match an unescaped one; then fingerprints of split fields are useless.
    fn splits_cleanly(&self) -> bool {
        let Self { host, port, database, user } = self;
        ![host, port, database, user].iter().any(|value| value.contains(&b':'))
    }

    fn print(&self) -> Print {
        Print::of(self.host, self.port, self.database, self.user)
    }

    /// The rest of the line after the four fields, if they match.
    fn matches<'l>(&self, line: &'l [u8]) -> Option<&'l [u8]> {
        let rest = match_field(line, self.host)?;
        let rest = match_field(rest, self.port)?;
        let rest = match_field(rest, self.database)?;
        match_field(rest, self.user)
    }
}

/// libpq's `pwdfMatchesString()`: the rest after the field's colon if the field matches the wanted value.
fn match_field<'l>(field: &'l [u8], wanted: &[u8]) -> Option<&'l [u8]> {
    if let [b'*', b':', rest @ ..] = field {
        return Some(rest);
    }
    let mut at = 0;
    for &byte in wanted {
        if field.get(at) == Some(&b'\\') {
            at += 1;
        }
        if field.get(at) != Some(&byte) {
            return None;
        }
        at += 1;
    }
    match field.get(at..) {
        Some([b':', rest @ ..]) => Some(rest),
        _ => None,
    }
}

/// Reads up to the first unescaped colon; backslashes are dropped, except as the last byte.
fn unescape_password(rest: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut password = Zeroizing::new(Vec::with_capacity(rest.len()));
    let mut bytes = rest.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => password.push(*bytes.next().unwrap_or(&b'\\')),
            _ => password.push(byte),
        }
    }
    password
}

/// The line that a client would take, and the password it would send (which `Debug` leaves out).
#[derive(Clone)]
pub struct Match {
    /// The line's number in the file, from 1; of joined lines, the first.
    pub line: usize,
    /// The password, unescaped. Empty is a match too: it hides the lines below.
    pub password: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Match").field("line", &self.line).finish_non_exhaustive()
    }
}

/// What clients read now for one key.
#[derive(Clone, Debug)]
pub enum Current {
    /// No line serves the key.
    Missing,
    /// Another line wins for at least one connection of the key.
    Shadowed {
        /// Its number, from 1.
        line: usize,
        /// Its four key fields as the file has them; never a password.
        fields: String,
    },
    /// The key's own line wins (except over narrower lines above it, which are the user's exceptions).
    Ours {
        /// Its number, from 1.
        line: usize,
        /// Its password; `None` when it is not UTF-8, so that it cannot be one of ours.
        password: Option<SecretString>,
    },
}

/// A line as libpq sees it. Borrowed, unless a NUL joined several lines.
enum Text<'a> {
    Whole(&'a [u8]),
    Glued(Zeroizing<Vec<u8>>),
}

impl Text<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Text::Whole(bytes) => bytes,
            Text::Glued(bytes) => bytes,
        }
    }
}

struct Logical<'a> {
    line: usize,
    text: Text<'a>,
    print: Print,
}

impl Logical<'_> {
    fn bytes(&self) -> &[u8] {
        self.text.bytes()
    }

    fn shadow(&self) -> Current {
        let fields = Fields::split(self.bytes()).map(|fields| fields.display()).unwrap_or_default();
        Current::Shadowed { line: self.line, fields }
    }
}

/// A password file as libpq reads it. (`Debug` leaves the lines out.)
pub struct Reading<'a> {
    lines: Vec<Logical<'a>>,
}

impl fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl<'a> Reading<'a> {
    /// Reads the bytes of a password file. Lines that cannot match are dropped: comments, and lines with too few fields, of
    /// which a hostile file may have millions.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let lines = Fgets { bytes, position: 0, line: 1, capacity: 256 }
            .filter(|(_, text)| !matches!(text.bytes().first(), None | Some(b'#')))
            .filter_map(|(line, text)| {
                let text = match text {
                    Text::Whole(bytes) => Text::Whole(strip_line_end(bytes)),
                    Text::Glued(mut bytes) => {
                        let length = strip_line_end(&bytes).len();
                        bytes.truncate(length);
                        Text::Glued(bytes)
                    }
                };
                let print = Print::from(&Fields::split(text.bytes())?);
                Some(Logical { line, text, print })
            })
            .collect();
        Self { lines }
    }

    /// What libpq would send for this connection; `None` when no line matches.
    #[must_use]
    pub fn lookup(&self, target: &Target<'_>) -> Option<Match> {
        if target.user.is_empty() {
            return None;
        }
        let sought = target.resolve();
        let print = sought.splits_cleanly().then(|| sought.print());
        self.candidates(print).find_map(|logical| {
            let rest = sought.matches(logical.bytes())?;
            Some(Match { line: logical.line, password: unescape_password(rest) })
        })
    }

    /// What clients read now for this key.
    ///
    /// For a key for every database, this checks each database that the file names where it matters, and one that the
    /// file does not name: libpq cannot tell any others apart.
    #[must_use]
    pub fn current(&self, key: &Key) -> Current {
        let wanted = Wanted::new(key);
        // No line can hold a NUL, so this database is one that no line names.
        let anything: &[u8] = b"\0";
        let database = if key.every_database() { anything } else { key.database().as_bytes() };
        let sought = Sought::of(&wanted, database);
        let print = sought.splits_cleanly().then_some(wanted.print);

        let mut above = Vec::new();
        for logical in self.candidates(print) {
            let Some(rest) = sought.matches(logical.bytes()) else {
                above.push(logical);
                continue;
            };
            if !is_own(&wanted, logical) {
                return logical.shadow();
            }
            if key.every_database()
                && let Some(shadow) = exception_thief(&wanted, &above)
            {
                return shadow.shadow();
            }
            let password = str::from_utf8(&unescape_password(rest)).ok().map(SecretString::from);
            return Current::Ours { line: logical.line, password };
        }
        Current::Missing
    }

    /// The lines that can match, in order; all of them if fingerprints are useless.
    fn candidates(&self, print: Option<Print>) -> impl Iterator<Item = &Logical<'a>> {
        self.lines.iter().filter(move |line| match print {
            None => true,
            Some(sought) => line.print.meets(sought),
        })
    }
}

fn is_own(wanted: &Wanted<'_>, logical: &Logical<'_>) -> bool {
    Fields::split(logical.bytes()).is_some_and(|fields| wanted.relation(&fields) == Relation::Own)
}

/// A line above our own that wins for a database of ours without being narrower than ours.
fn exception_thief<'r, 'a>(wanted: &Wanted<'_>, above: &[&'r Logical<'a>]) -> Option<&'r Logical<'a>> {
    // Only the first matching line wins: another line may be below an exception of the user.
    let mut won: HashSet<Vec<u8>> = HashSet::new();
    above.iter().copied().find(|logical| {
        let line = logical.bytes();
        databases_named(wanted, line).any(|database| {
            let sought = Sought::of(wanted, &database);
            let is_served = sought.matches(line).is_some();
            let is_thief = is_served && !is_exception(&sought, line);
            is_served && won.insert(database) && is_thief
        })
    })
}

/// Whether the line matches with every field except the database spelled out.
fn is_exception(sought: &Sought<'_>, line: &[u8]) -> bool {
    fn literal<'l>(rest: &'l [u8], wanted: &[u8]) -> Option<&'l [u8]> {
        if rest.starts_with(b"*:") { None } else { match_field(rest, wanted) }
    }
    literal(line, sought.host)
        .and_then(|rest| literal(rest, sought.port))
        .and_then(|rest| match_field(rest, sought.database))
        .and_then(|rest| literal(rest, sought.user))
        .is_some()
}

/// Every database for which this line may match the key: with unescaped colons there may be several. Some do not match after
/// all, where a colon is an escaped one or a star stands before it.
fn databases_named(wanted: &Wanted<'_>, line: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let rest = match_field(line, wanted.key.host().as_bytes())
        .and_then(|rest| match_field(rest, wanted.port.as_bytes()))
        .unwrap_or_default();
    // A line full of colons would yield as many databases.
    let named = &rest[..rest.len().min(LONGEST_DATABASE)];
    let ends = named.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    ends.filter_map(move |end| {
        let (database, tail) = rest.split_at(end);
        match_field(&tail[1..], wanted.key.user().as_bytes())?;
        let mut bytes = database.iter();
        let unescaped = std::iter::from_fn(|| match bytes.next() {
            Some(b'\\') => bytes.next(),
            byte => byte,
        });
        let unescaped: Vec<u8> = unescaped.copied().collect();
        (!unescaped.is_empty() && !is_wild(database)).then_some(unescaped)
    })
}

/// libpq's reading loop: `fgets()` into a buffer that starts at 256 bytes, doubles and keeps its size.
struct Fgets<'a> {
    bytes: &'a [u8],
    position: usize,
    line: usize,
    capacity: usize,
}

impl<'a> Iterator for Fgets<'a> {
    /// The number of its first line, and its text with the line end.
    type Item = (usize, Text<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (first_line, start) = (self.line, self.position);
        let mut length = 0;
        let mut glued: Option<Zeroizing<Vec<u8>>> = None;
        loop {
            // enlargePQExpBuffer(&buf, 128): room for 128 bytes and a NUL beyond the present length.
            while length + 128 + 1 > self.capacity {
                self.capacity *= 2;
            }
            let room = self.capacity - length - 1;
            let rest = self.bytes.get(self.position..).filter(|rest| !rest.is_empty())?;
            let window = &rest[..rest.len().min(room)];
            let line_feed = window.iter().position(|&byte| byte == b'\n');
            let chunk = &window[..line_feed.map_or(window.len(), |at| at + 1)];
            // The flag is only set by a read that wanted more than there was.
            let end_of_file = line_feed.is_none() && window.len() < room;
            // strlen(): everything after a NUL is lost, including the line end.
            let seen = chunk.iter().position(|&byte| byte == 0).map_or(chunk, |nul| &chunk[..nul]);

            match &mut glued {
                Some(text) => text.extend_from_slice(seen),
                None if start + length == self.position => {}
                None => {
                    let mut text = Zeroizing::new(self.bytes[start..start + length].to_vec());
                    text.extend_from_slice(seen);
                    glued = Some(text);
                }
            }
            length += seen.len();
            self.position += chunk.len();
            self.line += usize::from(line_feed.is_some());
            let complete = line_feed.is_some() && seen.len() == chunk.len();
            if complete || end_of_file {
                let whole = Text::Whole(&self.bytes[start..start + length]);
                return Some((first_line, glued.map_or(whole, Text::Glued)));
            }
        }
    }
}
