//! A network that is cut tells nobody: the proxy has to notice by itself.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::network::Network;
use super::protocol::{messages_until, query, startup};
use super::{SOON, Stage};
use crate::support::{Running, Workspace};

/// Sessions whose server is gone end within 30 s; the rest is for a busy machine.
const LIMIT: Duration = Duration::from_secs(36);

/// Hands on each connection at this address to a port of this machine.
fn hand_on(address: &str, port: u16) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for from in listener.incoming().map_while(Result::ok) {
            let Ok(to) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return };
            let ways = [(from.try_clone(), to.try_clone()), (Ok(to), Ok(from))];
            for way in ways {
                let (Ok(mut one), Ok(mut other)) = way else { return };
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut one, &mut other);
                    let _ = other.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    own
}

fn session(stage: &Stage) -> UnixStream {
    let mut client = stage.connect();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(&startup(0x0003_0000, &[("user", "x"), ("database", "orders")])).unwrap();
    messages_until(&mut client, b'Z');
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client
}

/// A session whose server reads no more than it has room for.
fn full(stage: &Stage) -> UnixStream {
    let mut client = session(stage);
    client.write_all(&query("select pg_sleep(600)")).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let piece = query("select 1").repeat(1_000);
    loop {
        match client.write(&piece) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => return client,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A stage whose server is in another network, and the proxy there.
fn apart<'a>(stage: &'a Stage, network: &Network, launcher: &[&str]) -> Running<'a> {
    let port = hand_on(&network.address, stage.server.port());
    stage.configure_for(&network.address, port);
    stage.rotate();
    let proxy = stage.home.command("ip").args(["netns", "exec", &network.name]).args(launcher);
    let running = proxy.args([env!("CARGO_BIN_EXE_dbx-rotator"), "proxy", "-v"]).signed_in_to(&stage.workspace).spawn();
    running.says("Serving 1 connection at", SOON);
    running
}

fn ends(client: &mut UnixStream, what: &str) {
    // What it says before it ends is not of interest.
    let ended = client.read_to_end(&mut Vec::new());
    assert!(ended.as_ref().err().is_none_or(|error| !is_timeout(error)), "{what} goes on: {ended:?}");
}

#[test]
fn sessions_end_when_the_network_to_their_server_is_cut() {
    let test = "sessions_end_when_the_network_to_their_server_is_cut";
    let Some(network) = Network::beside(test) else { return };
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = apart(&stage, &network, &[]);
    let (mut idle, mut busy, mut full) = (session(&stage), session(&stage), full(&stage));
    let is_asked_rarely = repeats_often().then(|| network.waits_until_one_is_asked_rarely());
    network.cut();
    busy.write_all(&query("select 1")).unwrap();
    ends(&mut idle, "the idle one");
    ends(&mut busy, "the busy one");
    match is_asked_rarely {
        Some(()) => ends(&mut full, "the full one"),
        None => eprintln!("    without a full session: this version of Linux (before 6.15) asks ever more rarely"),
    }
    running.terminate().exits(0).stderr_has("was lost after");
}

#[test]
fn a_full_session_ends_where_this_machine_has_left_its_network_and_the_kernel_asks_rarely() {
    let test = "a_full_session_ends_where_this_machine_has_left_its_network_and_the_kernel_asks_rarely";
    let Some(network) = Network::beside(test) else { return };
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = apart(&stage, &network, &["python3", "-c", AS_BEFORE_6_15]);
    let mut full = full(&stage);
    network.waits_until_one_is_asked_rarely();
    network.leave();
    ends(&mut full, "the full one");
    running.terminate().exits(0).stderr_has("was lost after");
}

/// Whether this kernel knows `TCP_RTO_MAX_MS`.
fn repeats_often() -> bool {
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// Runs a program for which the kernel does not know `TCP_RTO_MAX_MS` (seccomp(2)).
const AS_BEFORE_6_15: &str = r#"
import ctypes, errno, os, platform, socket, struct, sys
RETURN, LOAD, EQUAL = 0x06, 0x20, 0x15
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOPROTOOPT
setsockopt = {"x86_64": 54, "aarch64": 208}[platform.machine()]
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 5, setsockopt), (LOAD, 0, 0, 24), (EQUAL, 0, 3, socket.IPPROTO_TCP),
         (LOAD, 0, 0, 32), (EQUAL, 0, 1, 44), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
