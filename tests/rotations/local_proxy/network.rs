//! Another network on this machine, joined to this one by a cable that can be cut. Only root can make one.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::skip;

pub(super) struct Network {
    /// For `ip netns exec`.
    pub(super) name: String,
    /// Where this machine is, as seen from there.
    pub(super) address: String,
    /// The end of the cable that is here.
    here: String,
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Network {
    /// A new one for this test; none if there cannot be one, which is printed.
    pub(super) fn beside(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip(test, "only root can make another network");
            return None;
        }
        Self::new().map_err(|reason| skip(test, reason)).ok()
    }

    fn new() -> Result<Self, &'static str> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let name = format!("dbxr{process}-{number}");
        if !ip(&["netns", "add", &name]) {
            return Err("`ip netns` cannot make a network here");
        }
        let end = |side: &str| format!("{side}{process}-{number}");
        let (here, there) = (end("h"), end("t"));
        // Of four addresses each, from those that are for tests (RFC 2544): two at the same ones would lead each other's answers astray.
        let [_, _, second, last] = (process.wrapping_mul(64).wrapping_add(number) << 2).to_be_bytes();
        let at = |which: u8| format!("198.18.{second}.{}", last + which);
        let network = Network { name, address: at(1), here };
        let Network { name, here, .. } = &network;
        let is_up = ip(&["link", "add", here, "type", "veth", "peer", "name", &there, "netns", name])
            && ip(&["addr", "add", &format!("{}/30", at(1)), "dev", here])
            && ip(&["link", "set", here, "up"])
            && ip(&["-n", name, "addr", "add", &format!("{}/30", at(2)), "dev", &there])
            && ip(&["-n", name, "link", "set", &there, "up"]);
        if is_up { Ok(network) } else { Err("two networks cannot be connected here") }
    }

    /// Cuts the cable: nobody over there is told.
    pub(super) fn cut(&self) {
        assert!(ip(&["link", "set", &self.here, "down"]));
    }

    /// Takes the address over there away, as when a machine goes to another network.
    pub(super) fn leave(&self) {
        let there = self.here.replacen('h', "t", 1);
        assert!(ip(&["-n", &self.name, "addr", "flush", "dev", &there]));
    }

    /// Waits until a connection from over there has had no room at this end for so long that the kernel by itself would ask no sooner
    /// than after 51 s: 0.2 s, doubled eight times.
    pub(super) fn waits_until_one_is_asked_rarely(&self) {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let shown = Command::new("ss").args(["-N", &self.name, "-tinH"]).output().unwrap();
            if String::from_utf8_lossy(&shown.stdout).contains("backoff:8") {
                return;
            }
            assert!(Instant::now() < until, "no connection is full: {shown:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cable goes with it.
        ip(&["netns", "del", &self.name]);
    }
}
