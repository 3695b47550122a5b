//! As much of D-Bus as it takes to ask the keyring of a session: one connection to the session's bus, calls one after the other, and
//! one signal that may be awaited. Blocks; each answer has a limit.
//!
//! A library for all of D-Bus would cost a fifth of the program's size for five calls (docs/design.md). The format is that of the D-Bus
//! Specification 0.43, "Message Protocol" and "Authentication Protocol".

mod message;

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

pub(super) use message::{Body, Kind, Message};

use super::dirs::Environment;

/// The largest message that is accepted, in bytes: no secret of ours comes near.
const LARGEST: usize = 1024 * 1024;

/// How many messages that nobody waits for are passed over for one answer.
const MOST_UNASKED: usize = 256;

/// The bus itself.
const BUS: (&str, &str, &str) = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");

/// Why a call brought no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no bus, or it does not answer.
    Io(io::Error),
    /// What was called has refused, with the name of the error and its text.
    Refused { name: String, text: String },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

/// Where a call goes: the bus name, the object, and the interface.
pub(super) type Target<'t> = (&'t str, &'t str, &'t str);

/// A connection to the bus of this user's session.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// How long one answer is awaited.
    limit: Duration,
}

impl Bus {
    /// Connects to the bus that `DBUS_SESSION_BUS_ADDRESS` names, else to that of the user's systemd.
    ///
    /// # Errors
    /// Nobody is there, or does not let us in.
    pub(super) fn of_session(environment: &Environment, limit: Duration) -> Result<Self, Fault> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "this session has no D-Bus");
        for address in addresses(environment) {
            match connect(&address).and_then(|stream| Self::enter(stream, limit)) {
                Ok(mut bus) => {
                    bus.call(BUS, "Hello", Body::default())?;
                    return Ok(bus);
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Says who we are, which the kernel confirms to the bus.
    fn enter(mut stream: UnixStream, limit: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 512 {
                return Err(io::Error::other("what answers is no D-Bus"));
            }
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the D-Bus of this session refuses this user"));
        }
        stream.write_all(b"BEGIN\r\n")?;
        Ok(Bus { stream, serial: 0, limit })
    }

    /// Calls a method, and waits for its answer.
    ///
    /// # Errors
    /// The bus is gone or too slow; or what was called has refused.
    pub(super) fn call(&mut self, target: Target<'_>, member: &str, body: Body) -> Result<Message, Fault> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&message::call(serial, target, member, &body))?;
        let until = Instant::now() + self.limit;
        let answer = self.awaited(until, |message| message.answers == Some(serial))?;
        match answer.kind {
            Kind::Answer => Ok(answer),
            _ => Err(Fault::Refused {
                name: answer.error.clone().unwrap_or_default(),
                text: answer.fields().text().unwrap_or_default(),
            }),
        }
    }

    /// Asks the bus for a signal of any sender, and calls a method after which it is to come from this object. Waits for `limit`.
    ///
    /// # Errors
    /// As [`Bus::call`].
    pub(super) fn call_and_wait(
        &mut self,
        target: Target<'_>,
        member: &str,
        body: Body,
        (signal, limit): (&str, Duration),
    ) -> Result<Message, Fault> {
        let (_, path, interface) = target;
        let rule = format!("type='signal',interface='{interface}',member='{signal}',path='{path}'");
        self.call(BUS, "AddMatch", Body::default().text(&rule))?;
        let sender = self.call(BUS, "GetNameOwner", Body::default().text(target.0))?.fields().text();
        self.call(target, member, body)?;
        let is_it = |message: &Message| {
            let from = message.sender.is_some() && message.sender == sender;
            message.kind == Kind::Signal && from && message.is_of(path, interface, signal)
        };
        let found = self.awaited(Instant::now() + limit, is_it);
        self.stream.set_read_timeout(Some(self.limit))?;
        Ok(found?)
    }

    /// The first message that is meant; others are passed over.
    fn awaited(&mut self, until: Instant, is_it: impl Fn(&Message) -> bool) -> io::Result<Message> {
        for _ in 0..MOST_UNASKED {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.stream.set_read_timeout(Some(left))?;
            let message = self.receive()?;
            if is_it(&message) {
                return Ok(message);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut whole = Zeroizing::new(vec![0; message::FIXED]);
        self.read(&mut whole)?;
        let length = message::length(&whole).filter(|length| *length <= LARGEST);
        let length = length.ok_or_else(|| io::Error::other("what answers does not follow the rules of D-Bus"))?;
        let mut all = Zeroizing::new(vec![0; length]);
        all[..message::FIXED].copy_from_slice(&whole);
        self.read(&mut all[message::FIXED..])?;
        Message::read(all).ok_or_else(|| io::Error::other("what answers does not follow the rules of D-Bus"))
    }

    /// A time-out is reported as one, whatever the platform calls it.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

/// A place where a bus listens.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

fn connect(address: &Address) -> io::Result<UnixStream> {
    match address {
        Address::Path(path) => UnixStream::connect(path),
        Address::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
    }
}

/// Best first. Only sockets of this machine: a bus that is reached by the network would carry secrets in the clear.
fn addresses(environment: &Environment) -> Vec<Address> {
    if let Some(text) = environment.get("DBUS_SESSION_BUS_ADDRESS") {
        return text.split(';').filter_map(|one| address(one, environment)).collect();
    }
    of_runtime_directory(environment).into_iter().collect()
}

/// systemd's user manager has it there (systemd-user-sessions.service(8)).
fn of_runtime_directory(environment: &Environment) -> Option<Address> {
    let usual = || Some(PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())));
    Some(Address::Path(environment.path("XDG_RUNTIME_DIR").or_else(usual)?.join("bus")))
}

fn address(text: &str, environment: &Environment) -> Option<Address> {
    let fields = text.strip_prefix("unix:")?;
    fields.split(',').find_map(|field| match field.split_once('=')? {
        ("path", value) => {
            use std::os::unix::ffi::OsStringExt;
            Some(Address::Path(std::ffi::OsString::from_vec(unescaped(value)?).into()))
        }
        ("abstract", value) => Some(Address::Abstract(unescaped(value)?)),
        ("runtime", "yes") => of_runtime_directory(environment),
        _ => None,
    })
}

/// A value of an address: `%` and two hexadecimal digits stand for a byte.
fn unescaped(value: &str) -> Option<Vec<u8>> {
    let mut bytes = value.bytes();
    let mut all = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        all.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_the_specification_has_it_and_one_of_the_network_is_not_used() {
        let read = |text: &str| {
            let environment: Environment =
                [("DBUS_SESSION_BUS_ADDRESS", text), ("XDG_RUNTIME_DIR", "/run/user/7")].into_iter().collect();
            addresses(&environment)
        };
        let path = |path: &str| Address::Path(path.into());
        assert_eq!(read("unix:path=/run/user/7/bus,guid=0a"), [path("/run/user/7/bus")]);
        assert_eq!(read("unix:guid=0a,path=/tmp/dbus%2dx%20y"), [path("/tmp/dbus-x y")]);
        assert_eq!(read("unix:abstract=/tmp/dbus-X;unix:runtime=yes").len(), 2);
        assert_eq!(read("unix:runtime=yes"), [path("/run/user/7/bus")]);
        assert_eq!(read(""), [path("/run/user/7/bus")], "an empty variable is an unset one");
        for other in ["tcp:host=evil.example,port=1", "unixexec:path=/bin/sh", "unix:", "unix:path=%zz", "unix:path=%2"]
        {
            assert_eq!(read(other), [], "{other}");
        }
    }
}
