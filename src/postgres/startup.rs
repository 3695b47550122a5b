//! The first message of a session: the version of the protocol, and the parameters (PostgreSQL, "StartupMessage").

use bytes::{BufMut, BytesMut};

/// Version 3.0 of the protocol, which every server speaks.
pub(crate) const VERSION_3_0: u32 = 3 << 16;

/// Names and values; neither holds a zero byte.
pub(crate) type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// What a session is asked for with. Parameters are bytes, in whatever encoding the client has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Startup {
    /// The major version above, the minor version below.
    pub(crate) version: u32,
    pub(crate) parameters: Parameters,
}

impl Startup {
    /// The version that every server speaks.
    pub(crate) fn new<'p>(parameters: impl IntoIterator<Item = (&'p str, &'p str)>) -> Self {
        let parameters = parameters.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Startup { version: VERSION_3_0, parameters }
    }

    /// The value of a parameter; of several the last counts, as for the server.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let of_name = |(known, _): &&(Vec<u8>, Vec<u8>)| known == name.as_bytes();
        self.parameters.iter().rev().find(of_name).map(|(_, value)| value.as_slice())
    }

    /// Gives a parameter another value.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.parameters.retain(|(known, _)| known != name.as_bytes());
        self.parameters.push((name.into(), value.into()));
    }

    /// How long it is as it is sent, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.parameters.iter().fold(9, |length, (name, value)| length + name.len() + value.len() + 2)
    }

    /// As it is sent.
    pub(super) fn write(&self, into: &mut BytesMut) {
        let start = into.len();
        into.put_u32(0);
        into.put_u32(self.version);
        for (name, value) in &self.parameters {
            for text in [name, value] {
                into.put_slice(text);
                into.put_u8(0);
            }
        }
        into.put_u8(0);
        let length = u32::try_from(into.len() - start).unwrap_or(u32::MAX);
        into[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_the_manual_has_it() {
        let mut startup = Startup::new([("user", "ada"), ("database", "orders")]);
        startup.set("user", "bob");
        let mut bytes = BytesMut::new();
        startup.write(&mut bytes);
        assert_eq!(bytes.len(), startup.length());
        assert_eq!(&bytes[..], b"\0\0\0\x22\0\x03\0\0database\0orders\0user\0bob\0\0");
        assert_eq!((startup.get("user"), startup.get("options")), (Some(&b"bob"[..]), None));
    }
}
