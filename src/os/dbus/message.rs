//! Messages of D-Bus as bytes. What is read comes from other programs: every length is checked, and nothing else is trusted.

use zeroize::Zeroizing;

/// The part of a header whose length is always the same.
pub(super) const FIXED: usize = 16;

/// No array may be longer (D-Bus Specification, "Container types").
const LONGEST_ARRAY: usize = 64 * 1024 * 1024;

/// How deeply variants, arrays and structures of a message may be nested ("Valid Signatures").
const DEEPEST: u32 = 64;

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::os) enum Kind {
    Answer,
    Error,
    Signal,
    Other,
}

/// A message that was received.
#[derive(Debug)]
pub(in crate::os) struct Message {
    pub(super) kind: Kind,
    /// The call that it answers.
    pub(super) answers: Option<u32>,
    pub(super) error: Option<String>,
    pub(super) sender: Option<String>,
    path: Option<String>,
    interface: Option<String>,
    member: Option<String>,
    is_big_endian: bool,
    body: Zeroizing<Vec<u8>>,
}

/// The arguments of a call, with their signature.
#[derive(Default)]
pub(in crate::os) struct Body {
    signature: String,
    bytes: Bytes,
}

#[derive(Default)]
struct Bytes(Zeroizing<Vec<u8>>);

impl Bytes {
    fn push(&mut self, more: &[u8]) {
        crate::os::wiped::append(&mut self.0, more);
    }

    fn align(&mut self, to: usize) {
        let missing = self.0.len().next_multiple_of(to) - self.0.len();
        self.push(&[0; 8][..missing]);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.push(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.push(text.as_bytes());
        self.push(&[0]);
    }

    fn signature(&mut self, signature: &str) {
        self.push(&[u8::try_from(signature.len()).unwrap_or(u8::MAX)]);
        self.push(signature.as_bytes());
        self.push(&[0]);
    }

    fn byte_array(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.push(bytes);
    }

    /// An array of what `fill` writes, whose items begin at multiples of `align`.
    fn array(&mut self, align: usize, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn dictionary(&mut self, entries: &[(&str, &str)]) {
        self.array(8, |bytes| {
            for (key, value) in entries {
                bytes.align(8);
                bytes.text(key);
                bytes.text(value);
            }
        });
    }
}

impl Body {
    fn with(mut self, signature: &str, write: impl FnOnce(&mut Bytes)) -> Self {
        self.signature.push_str(signature);
        write(&mut self.bytes);
        self
    }

    /// `s`
    pub(in crate::os) fn text(self, text: &str) -> Self {
        self.with("s", |bytes| bytes.text(text))
    }

    /// `o`
    pub(in crate::os) fn path(self, path: &str) -> Self {
        self.with("o", |bytes| bytes.text(path))
    }

    /// `ao`
    pub(in crate::os) fn paths(self, paths: &[&str]) -> Self {
        self.with("ao", |bytes| bytes.array(4, |bytes| paths.iter().for_each(|path| bytes.text(path))))
    }

    /// `b`
    pub(in crate::os) fn flag(self, flag: bool) -> Self {
        self.with("b", |bytes| bytes.number(flag.into()))
    }

    /// `v` of `s`
    pub(in crate::os) fn variant_text(self, text: &str) -> Self {
        self.with("v", |bytes| {
            bytes.signature("s");
            bytes.text(text);
        })
    }

    /// `a{ss}`
    pub(in crate::os) fn dictionary(self, entries: &[(&str, &str)]) -> Self {
        self.with("a{ss}", |bytes| bytes.dictionary(entries))
    }

    /// `a{sv}`: one text and one `a{ss}`.
    pub(in crate::os) fn properties(self, text: (&str, &str), entries: (&str, &[(&str, &str)])) -> Self {
        self.with("a{sv}", |bytes| {
            bytes.array(8, |bytes| {
                bytes.align(8);
                bytes.text(text.0);
                bytes.signature("s");
                bytes.text(text.1);
                bytes.align(8);
                bytes.text(entries.0);
                bytes.signature("a{ss}");
                bytes.dictionary(entries.1);
            });
        })
    }

    /// `(oayays)`: a secret as the Secret Service has it.
    pub(in crate::os) fn secret(self, session: &str, secret: &[u8], content_type: &str) -> Self {
        self.with("(oayays)", |bytes| {
            bytes.align(8);
            bytes.text(session);
            bytes.byte_array(b"");
            bytes.byte_array(secret);
            bytes.text(content_type);
        })
    }
}

/// A method call as bytes.
pub(super) fn call(
    serial: u32,
    (destination, path, interface): (&str, &str, &str),
    member: &str,
    body: &Body,
) -> Zeroizing<Vec<u8>> {
    const METHOD_CALL: u8 = 1;
    const VERSION: u8 = 1;
    let mut bytes = Bytes::default();
    bytes.push(&[b'l', METHOD_CALL, 0, VERSION]);
    bytes.length(body.bytes.0.len());
    bytes.number(serial);
    bytes.array(8, |bytes| {
        for (code, kind, value) in
            [(1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination), (8, "g", &body.signature)]
        {
            if value.is_empty() {
                continue;
            }
            bytes.align(8);
            bytes.push(&[code]);
            bytes.signature(kind);
            if kind == "g" { bytes.signature(value) } else { bytes.text(value) }
        }
    });
    bytes.align(8);
    bytes.push(&body.bytes.0);
    bytes.0
}

/// How long the message is that begins like this.
pub(super) fn length(fixed: &[u8]) -> Option<usize> {
    let is_big_endian = is_big_endian(fixed)?;
    let number = |at: usize| {
        let mut fields = Fields { bytes: fixed, at, is_big_endian };
        usize::try_from(fields.number()?).ok()
    };
    let header = number(12)?.checked_add(FIXED)?.checked_next_multiple_of(8)?;
    header.checked_add(number(4)?)
}

fn is_big_endian(bytes: &[u8]) -> Option<bool> {
    match bytes.first()? {
        b'l' => Some(false),
        b'B' => Some(true),
        _ => None,
    }
}

impl Message {
    /// Reads a whole message; none where it breaks a rule.
    pub(super) fn read(all: Zeroizing<Vec<u8>>) -> Option<Self> {
        let is_big_endian = is_big_endian(&all)?;
        let kind = match all.get(1)? {
            2 => Kind::Answer,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        let mut message = Message {
            kind,
            answers: None,
            error: None,
            sender: None,
            path: None,
            interface: None,
            member: None,
            is_big_endian,
            body: Zeroizing::default(),
        };
        let mut fields = Fields { bytes: &all, at: 12, is_big_endian };
        let end = usize::try_from(fields.number()?).ok()?.checked_add(FIXED)?;
        while fields.at < end {
            fields.align(8)?;
            let code = fields.byte()?;
            let signature = fields.signature()?;
            match (code, signature.as_str()) {
                (1, "o") => message.path = fields.text(),
                (2, "s") => message.interface = fields.text(),
                (3, "s") => message.member = fields.text(),
                (4, "s") => message.error = fields.text(),
                (5, "u") => message.answers = fields.number(),
                (7, "s") => message.sender = fields.text(),
                (_, other) => fields.pass_over(other)?,
            }
        }
        fields.align(8)?;
        message.body = all.get(fields.at..)?.to_vec().into();
        Some(message)
    }

    pub(super) fn is_of(&self, path: &str, interface: &str, member: &str) -> bool {
        let is = |ours: &Option<String>, wanted: &str| ours.as_deref() == Some(wanted);
        is(&self.path, path) && is(&self.interface, interface) && is(&self.member, member)
    }

    /// Its arguments.
    pub(in crate::os) fn fields(&self) -> Fields<'_> {
        Fields { bytes: &self.body, at: 0, is_big_endian: self.is_big_endian }
    }
}

/// Values that are read one after the other. Each is none where the bytes cannot be one.
pub(in crate::os) struct Fields<'m> {
    bytes: &'m [u8],
    at: usize,
    is_big_endian: bool,
}

impl<'m> Fields<'m> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// `b`
    pub(in crate::os) fn flag(&mut self) -> Option<bool> {
        self.number().map(|number| number != 0)
    }

    /// `s` or `o`
    pub(in crate::os) fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.byte()? == 0).then_some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.byte()? == 0).then_some(text)
    }

    /// `ay`
    pub(in crate::os) fn byte_array(&mut self) -> Option<&'m [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    /// `ao`
    pub(in crate::os) fn paths(&mut self) -> Option<Vec<String>> {
        let length = usize::try_from(self.number()?).ok()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        let mut all = Vec::new();
        while self.at < end {
            all.push(self.text()?);
        }
        Some(all)
    }

    /// `(oayays)`, of which only the secret matters.
    pub(in crate::os) fn secret(&mut self) -> Option<&'m [u8]> {
        self.align(8)?;
        self.text()?;
        self.byte_array()?;
        self.byte_array()
    }

    /// Passes over a variant.
    pub(in crate::os) fn pass_over_variant(&mut self) -> Option<()> {
        self.pass_over("v")
    }

    fn pass_over(&mut self, signature: &str) -> Option<()> {
        let mut rest = signature.as_bytes();
        while !rest.is_empty() {
            rest = self.pass_over_one(rest, DEEPEST)?;
        }
        Some(())
    }

    /// Passes over the first value of this signature; returns the rest of the signature.
    fn pass_over_one<'s>(&mut self, signature: &'s [u8], deepest: u32) -> Option<&'s [u8]> {
        let deeper = deepest.checked_sub(1)?;
        let (first, mut rest) = signature.split_first()?;
        match first {
            b'y' => drop(self.byte()?),
            b'n' | b'q' => {
                self.align(2)?;
                self.take(2)?;
            }
            b'b' | b'i' | b'u' | b'h' => drop(self.number()?),
            b'x' | b't' | b'd' => {
                self.align(8)?;
                self.take(8)?;
            }
            b's' | b'o' => drop(self.text()?),
            b'g' => drop(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                if !self.pass_over_one(inner.as_bytes(), deeper)?.is_empty() {
                    return None;
                }
            }
            b'a' => {
                let length = usize::try_from(self.number()?).ok().filter(|length| *length <= LONGEST_ARRAY)?;
                self.align(alignment(*rest.first()?)?)?;
                self.take(length)?;
                rest = rest_after(rest, deeper)?;
            }
            b'(' | b'{' => {
                self.align(8)?;
                while !matches!(rest.first()?, b')' | b'}') {
                    rest = self.pass_over_one(rest, deeper)?;
                }
                rest = &rest[1..];
            }
            _ => return None,
        }
        Some(rest)
    }
}

fn alignment(first: u8) -> Option<usize> {
    match first {
        b'y' | b'g' | b'v' => Some(1),
        b'n' | b'q' => Some(2),
        b'b' | b'i' | b'u' | b'h' | b's' | b'o' | b'a' => Some(4),
        b'x' | b't' | b'd' | b'(' | b'{' => Some(8),
        _ => None,
    }
}

/// What follows the first whole type of a signature.
fn rest_after(signature: &[u8], deepest: u32) -> Option<&[u8]> {
    let deeper = deepest.checked_sub(1)?;
    let (first, mut rest) = signature.split_first()?;
    match first {
        b'a' => rest_after(rest, deeper),
        b'(' | b'{' => {
            while !matches!(rest.first()?, b')' | b'}') {
                rest = rest_after(rest, deeper)?;
            }
            rest.get(1..)
        }
        _ => Some(rest),
    }
}

#[cfg(test)]
mod tests;
