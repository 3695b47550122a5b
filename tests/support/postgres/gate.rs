//! Decides each PostgreSQL login as Lakebase would: is this password a live token of this role?
//!
//! PostgreSQL asks over LDAP, its only authentication method that passes a password of any length on: a simple bind as
//! the role, answered with yes or no. (PAM was tried first: `pam_exec.so` cuts the password after 511 characters, and a
//! token has 850.) Only the bind of LDAP is implemented.
//!
//! Invariant: the answer is yes exactly if the workspace knows the token as one of its own, JWT or opaque, the role is
//! its subject, and it has not expired by the clock.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::workspace::Holder;

/// What PostgreSQL puts before the role to make a name that LDAP accepts.
pub const PREFIX: &str = "uid=";
/// A backend that asks and then is silent without hanging up is dead, and must not block the others.
const SILENCE: Duration = Duration::from_secs(5);
/// PostgreSQL's own limit for a password is 65,535 bytes.
const LONGEST_MESSAGE: usize = 128 << 10;

/// One decision.
#[derive(Clone, Debug)]
pub struct Login {
    pub at: SystemTime,
    pub user: String,
    /// Why not; `None` for an accepted login.
    pub refused: Option<&'static str>,
}

impl Login {
    pub fn accepted(&self) -> bool {
        self.refused.is_none()
    }
}

pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

type Holders = Box<dyn Fn(&str) -> Result<Holder, &'static str> + Send + Sync>;

struct Shared {
    holders: Holders,
    state: Mutex<State>,
    decided: Condvar,
}

struct State {
    clock_skew: i64,
    logins: Vec<Login>,
    closing: bool,
}

impl Gate {
    pub fn open(holders: Holders, clock_skew: i64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Mutex::new(State { clock_skew, logins: Vec::new(), closing: false });
        let shared = Arc::new(Shared { holders, state, decided: Condvar::new() });
        let thread = std::thread::Builder::new().name("stand-in Lakebase gate".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                for backend in listener.incoming() {
                    if shared.state().closing {
                        return;
                    }
                    // One at a time: a decision takes less than a millisecond.
                    let _ = backend.and_then(|backend| shared.answer(backend));
                }
            }
        })?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.state().clock_skew = seconds;
    }

    pub fn logins(&self) -> Vec<Login> {
        self.shared.state().logins.clone()
    }

    pub fn wait_for_logins(&self, n: usize, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state();
        while state.logins.len() < n {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.decided.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers binds until the backend unbinds, which ends the connection.
    fn answer(&self, mut backend: TcpStream) -> io::Result<()> {
        backend.set_nodelay(true)?;
        backend.set_read_timeout(Some(SILENCE))?;
        while let Some(bind) = Bind::read(&mut backend)? {
            let refused = self.refuses(&bind);
            let user = bind.user.clone();
            self.state().logins.push(Login { at: SystemTime::now(), user, refused });
            self.decided.notify_all();
            backend.write_all(&bind.answer(refused.is_none()))?;
        }
        Ok(())
    }

    fn refuses(&self, bind: &Bind) -> Option<&'static str> {
        let holder = match (self.holders)(&bind.password) {
            Ok(holder) => holder,
            Err(reason) => return Some(reason),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_secs();
        let now = i64::try_from(now).expect("a clock before the year 292 billion") + self.state().clock_skew;
        if holder.subject != bind.user {
            Some("someone else's")
        } else if holder.expires_at <= now {
            Some("expired")
        } else {
            None
        }
    }
}

/// An LDAP bind request (RFC 4511 section 4.2).
struct Bind {
    message_id: Vec<u8>,
    user: String,
    password: String,
}

// BER tags, of which LDAP uses these for a bind.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const OCTETS: u8 = 0x04;
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const SIMPLE_PASSWORD: u8 = 0x80;

const SUCCESS: u8 = 0;
const INVALID_CREDENTIALS: u8 = 49;

impl Bind {
    /// The next bind, or `None` when the backend is done.
    fn read(backend: &mut impl Read) -> io::Result<Option<Self>> {
        let mut tag = [0];
        if backend.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let mut length = [0];
        backend.read_exact(&mut length)?;
        let length = match length[0] {
            short @ 0..0x80 => usize::from(short),
            long => {
                let mut bytes = vec![0; usize::from(long & 0x7f)];
                backend.read_exact(&mut bytes)?;
                bytes.iter().fold(0_usize, |length, byte| length.saturating_mul(256) + usize::from(*byte))
            }
        };
        if length > LONGEST_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length];
        backend.read_exact(&mut message)?;
        Ok(Self::parse(&message))
    }

    /// `None` for anything but a simple bind, such as the unbind that follows it.
    fn parse(message: &[u8]) -> Option<Self> {
        let (message_id, rest) = element(message, INTEGER)?;
        let (request, _) = element(rest, BIND_REQUEST)?;
        let (_version, rest) = element(request, INTEGER)?;
        let (name, rest) = element(rest, OCTETS)?;
        let (password, _) = element(rest, SIMPLE_PASSWORD)?;
        let name = std::str::from_utf8(name).ok()?;
        Some(Self {
            message_id: message_id.to_vec(),
            user: name.strip_prefix(PREFIX)?.to_owned(),
            password: String::from_utf8_lossy(password).into_owned(),
        })
    }

    fn answer(&self, yes: bool) -> Vec<u8> {
        let code = if yes { SUCCESS } else { INVALID_CREDENTIALS };
        let response = [tagged(ENUMERATED, &[code]), tagged(OCTETS, b""), tagged(OCTETS, b"")].concat();
        tagged(SEQUENCE, &[tagged(INTEGER, &self.message_id), tagged(BIND_RESPONSE, &response)].concat())
    }
}

/// The content of the element that `bytes` begin with, if it has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = bytes else { return None };
    if *first != tag {
        return None;
    }
    let (length, rest) = match *length {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (length.iter().fold(0_usize, |length, byte| length.saturating_mul(256) + usize::from(*byte)), rest)
        }
    };
    rest.split_at_checked(length)
}

/// An element of less than 128 bytes, as all of ours are.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80).expect("a short element");
    [&[tag, length], content].concat()
}
