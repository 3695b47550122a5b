//! The lines of a service file as libpq reads them.

#[cfg(any(test, fuzzing))]
use std::ops::Range;

/// libpq's buffer: how many bytes of a line `fgets` reads at most (1,024 with the final NUL).
const BUFFER: usize = 1023;

/// The longest line that libpq accepts, without its line end of up to two bytes: it refuses a line that fills its
/// buffer. (Before November 2020 it was 253.)
pub(super) const LONGEST_LINE: usize = BUFFER - 1 - 2;

/// How libpq reads a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// Empty, or only blanks.
    Blank,
    /// Without the blanks around it.
    Comment(&'a [u8]),
    /// The start of a section: its name up to the first `]`; none for a name that cannot be asked for.
    Header(Option<&'a [u8]>),
    /// A key, and its value as written.
    Setting(&'a [u8], &'a [u8]),
    /// Anything else: an error if its section was asked for.
    Other(&'a [u8]),
    /// It ends the reading with an error.
    TooLong,
}

/// One line, or a bufferful of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// With its line end.
    pub(super) bytes: &'a [u8],
    pub(super) kind: Kind<'a>,
}

/// All lines to the end of the file, although libpq stops once it has found its section.
pub(super) fn lines(file: &[u8]) -> Vec<Line<'_>> {
    each(file).collect()
}

/// The same as an iterator.
pub(super) fn each(file: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = file;
    std::iter::from_fn(move || {
        let buffer = &rest[..rest.len().min(BUFFER)];
        let end = buffer.iter().position(|&byte| byte == b'\n').map_or(buffer.len(), |at| at + 1);
        let (bytes, after) = rest.split_at(end);
        rest = after;
        (!bytes.is_empty()).then(|| Line { bytes, kind: kind(bytes) })
    })
}

fn kind(bytes: &[u8]) -> Kind<'_> {
    // To C, a string ends at the first NUL, but the line goes on to its line end.
    let seen = bytes.iter().position(|&byte| byte == 0).map_or(bytes, |nul| &bytes[..nul]);
    if seen.len() >= BUFFER {
        return Kind::TooLong;
    }
    match trim(seen) {
        [] => Kind::Blank,
        comment @ [b'#', ..] => Kind::Comment(comment),
        [b'[', name @ ..] => Kind::Header(name.iter().position(|&byte| byte == b']').map(|end| &name[..end])),
        text => match text.iter().position(|&byte| byte == b'=') {
            // libpq would ask a directory server.
            Some(_) | None if text.starts_with(b"ldap") => Kind::Other(text),
            Some(at) => Kind::Setting(&text[..at], &text[at + 1..]),
            None => Kind::Other(text),
        },
    }
}

/// C's `isspace`, which accepts one byte more than Rust's.
pub(super) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

/// The section that libpq finds by this name, which is the first: its lines without the header. Tests compare the result of
/// [`super::edit`] with it.
#[cfg(any(test, fuzzing))]
pub(super) fn find(lines: &[Line<'_>], name: &[u8]) -> Option<Range<usize>> {
    let header = lines.iter().position(|line| line.kind == Kind::Header(Some(name)))?;
    let body = header + 1;
    let length = lines[body..].iter().position(|line| matches!(line.kind, Kind::Header(_)));
    Some(body..length.map_or(lines.len(), |length| body + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(file: &[u8]) -> Vec<Kind<'_>> {
        lines(file).iter().map(|line| line.kind).collect()
    }

    #[test]
    fn blanks_around_a_line_do_not_count_and_blanks_around_the_equals_sign_do() {
        let file = b" \t[a] \r\n\x0b# x \n\nhost = b\nldap://c=d\nnothing\n";
        assert_eq!(
            kinds(file),
            [
                Kind::Header(Some(b"a")),
                Kind::Comment(b"# x"),
                Kind::Blank,
                Kind::Setting(b"host ", b" b"),
                Kind::Other(b"ldap://c=d"),
                Kind::Other(b"nothing"),
            ]
        );
        assert_eq!(kinds(b"\xef\xbb\xbf[a]\n"), [Kind::Other(b"\xef\xbb\xbf[a]")], "a byte order mark hides a header");
    }

    #[test]
    fn a_name_ends_at_the_first_bracket_and_a_header_without_one_still_ends_a_section() {
        assert_eq!(kinds(b"[a]b]\n[a"), [Kind::Header(Some(b"a")), Kind::Header(None)]);
        let file = lines(b"[a]\nx=1\n[b\ny=2\n[a]\nz=3\n");
        assert_eq!((find(&file, b"a"), find(&file, b"b")), (Some(1..2), None));
    }

    #[test]
    fn a_line_is_too_long_when_it_fills_the_buffer_and_a_nul_hides_that() {
        for (length, is_too_long) in [(1021, false), (1022, true), (3000, true)] {
            let mut file = vec![b'#'; length];
            file.push(b'\n');
            assert_eq!(kinds(&file)[0] == Kind::TooLong, is_too_long, "{length}");
            file[1] = 0;
            assert_eq!(kinds(&file)[0], Kind::Comment(b"#"), "{length}");
        }
        // What follows the first full buffer is read as another line.
        let mut file = vec![0; BUFFER];
        file.extend_from_slice(b"[a]\n");
        assert_eq!(kinds(&file), [Kind::Blank, Kind::Header(Some(b"a"))]);
    }
}
