//! A network that is cut tells nobody: the proxy has to notice by itself.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::network::Network;
use super::protocol::{messages_until, query, startup};
use super::{SOON, Stage};
use crate::support::{Workspace, skip};

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

#[test]
fn sessions_end_when_the_network_to_their_server_is_cut() {
    let test = "sessions_end_when_the_network_to_their_server_is_cut";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root can make another network");
    }
    let network = match Network::beside() {
        Ok(network) => network,
        Err(reason) => return skip(test, reason),
    };
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let port = hand_on(&network.address, stage.server.port());
    let config =
        format!("[[connection]]\nname = 'orders'\nhost = '{}'\nport = {port}\nsslmode = 'require'\n", network.address);
    stage.home.write(".config/dbx-rotator/config.toml", config, 0o600);
    stage.rotate();
    let program = env!("CARGO_BIN_EXE_dbx-rotator");
    let proxy = stage.home.command("ip").args(["netns", "exec", &network.name, program, "proxy", "-v"]);
    let running = proxy.signed_in_to(&stage.workspace).spawn();
    running.says("Serving 1 connection at", SOON);
    let (mut idle, mut busy) = (session(&stage), session(&stage));
    network.cut();
    busy.write_all(&query("select 1")).unwrap();
    for (client, what) in [(&mut idle, "the idle one"), (&mut busy, "the busy one")] {
        // What it says before it ends is not of interest.
        let ended = client.read_to_end(&mut Vec::new());
        assert!(ended.as_ref().err().is_none_or(|error| !is_timeout(error)), "{what} goes on: {ended:?}");
    }
    running.terminate().exits(0).stderr_has("was lost after");
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
