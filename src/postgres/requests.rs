//! Requests that come in place of a session: the numbers that stand where its first message has the version of the protocol
//! (PostgreSQL, "Message Formats").

#[cfg(feature = "cli")]
pub(crate) const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;
pub(crate) const SSL_REQUEST: u32 = (1234 << 16) | 5679;
#[cfg(feature = "cli")]
pub(crate) const GSSENC_REQUEST: u32 = (1234 << 16) | 5680;
