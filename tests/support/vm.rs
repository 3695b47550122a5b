//! A virtual machine with its own kernel, for what must not be done to the machine that runs the tests: suspending it, and
//! setting its clock.
//!
//! The processor is emulated, since hardware acceleration is missing or broken on most test machines; it still boots within
//! ten seconds. The guest reaches the host's loopback as 10.0.2.2, also by the name `workspace.test`, and nothing else: it
//! has no route. `vm/image` makes its disk once, and `vm/agent` in the guest runs a test's scripts.
//!
//! Needs qemu-system-x86 and what `vm/image` needs: mmdebstrap and e2fsprogs.
//!
//! Invariants: every wait has a limit; the machine never outlives the process that booted it, however that ends, and leaves
//! nothing behind, since it writes to a throw-away copy of its disk.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::cache;
use super::outcome::Outcome;
use super::workspace::scratch_directory;

const QEMU: &str = "qemu-system-x86_64";
const SETPRIV: &str = "/usr/bin/setpriv";
/// How long making the image may take, for timeout(1).
const IMAGE_LIMIT: &str = "600";
/// A boot takes seven seconds on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// An emulated boot hangs now and then, without any fault of the program under test.
const BOOTS: usize = 3;
/// Console lines shown when a test fails.
const LAST_LINES: usize = 20;

/// A running virtual machine.
pub struct Vm {
    qemu: Child,
    agent: BufReader<UnixStream>,
    /// The running script, and when it was started.
    under_way: Option<(String, Instant)>,
    history: Arc<Mutex<String>>,
    directory: tempfile::TempDir,
    /// How long it took to boot.
    pub booted_in: Duration,
}

impl Vm {
    /// Boots a machine with `files` copied over its root directory; all of them belong to root there. The error says why
    /// there can be none here.
    pub fn boot(files: &Path) -> Result<Self, String> {
        if Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_err() {
            return Err(format!("there is no {QEMU} (Debian's qemu-system-x86)"));
        }
        let image = image()?;
        let mut reason = String::new();
        for _ in 0..BOOTS {
            match Self::start(&image, files) {
                Ok(vm) => return Ok(vm),
                Err(why) => reason = why,
            }
        }
        Err(format!("a virtual machine did not boot in {BOOTS} tries: {reason}"))
    }

    fn start(image: &Path, files: &Path) -> Result<Self, String> {
        let directory = scratch_directory(0o700);
        let archive = directory.path().join("files.tar");
        pack(files, &archive);
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let started = Instant::now();
        let qemu = qemu(image, directory.path(), theirs).map_err(|error| format!("{SETPRIV}: {error}"))?;
        let agent = BufReader::new(ours);
        let (history, booted_in) = (Arc::default(), Duration::ZERO);
        let mut vm = Vm { qemu, agent, under_way: None, history, directory, booted_in };
        match vm.line(BOOT_LIMIT) {
            Ok(line) if line == "ready" => vm.booted_in = started.elapsed(),
            Ok(line) => return Err(format!("its agent said {line:?}")),
            Err(error) => return Err(format!("{error}; {}", vm.last_lines(3))),
        }
        Ok(vm)
    }

    /// Runs a shell script as root; both of its outputs become the outcome's standard output.
    #[track_caller]
    pub fn run(&mut self, script: &str, limit: Duration) -> Outcome {
        self.begin(script);
        self.finish(limit)
    }

    /// Starts a script; [`Vm::finish`] must follow.
    pub fn begin(&mut self, script: &str) {
        assert!(self.under_way.is_none(), "one script at a time");
        self.under_way = Some((script.to_owned(), Instant::now()));
        let line = BASE64.encode(script) + "\n";
        self.agent.get_mut().write_all(line.as_bytes()).expect("speak to the virtual machine");
    }

    #[track_caller]
    pub fn finish(&mut self, limit: Duration) -> Outcome {
        let (script, began) = self.under_way.take().expect("a script under way");
        let answer = self.line(limit).unwrap_or_else(|error| panic!("{error} after\n$ {script}"));
        let (status, output) = answer.split_once(' ').unwrap_or((&answer, ""));
        let stdout = String::from_utf8_lossy(&BASE64.decode(output).expect("output in base64")).into_owned();
        let outcome = Outcome {
            code: Some(status.parse().expect("a status")),
            signal: None,
            stdout,
            stderr: String::new(),
            elapsed: began.elapsed(),
            line: script,
            history: Arc::clone(&self.history),
        };
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push_str(&outcome.transcript());
        outcome
    }

    /// The next line from the agent.
    fn line(&mut self, limit: Duration) -> io::Result<String> {
        let deadline = Instant::now() + limit;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.agent.get_ref().set_read_timeout(Some(left))?;
            match self.agent.read_until(b'\n', &mut line) {
                Ok(0) => return Err(io::Error::other(format!("{QEMU} has ended: {}", self.read("qemu.log").trim()))),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::other(format!("the virtual machine was silent for {limit:?}")));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join(name)).unwrap_or_default()).into_owned()
    }

    fn last_lines(&self, count: usize) -> String {
        let console = self.read("console.log");
        let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            let kept = cache::directory().join("vm-console.log");
            let _ = fs::copy(self.directory.path().join("console.log"), &kept);
            eprintln!("---- the session\n{}", self.history.lock().unwrap_or_else(PoisonError::into_inner));
            eprintln!("---- the console's end; all of it is in {}\n{}", kept.display(), self.last_lines(LAST_LINES));
        }
    }
}

/// The directory with the kernel and the root image; made now if this version has none yet.
fn image() -> Result<PathBuf, String> {
    let directory = cache::directory().join("vm");
    let output = Command::new("timeout")
        .args([IMAGE_LIMIT, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/vm/image")])
        .arg(&directory)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("timeout: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(directory),
        Some(75) => Err(said.trim().to_owned()),
        Some(124) => Err(format!("its image was not made within {IMAGE_LIMIT} s")),
        code => panic!("tests/support/vm/image failed with {code:?}: {said}"),
    }
}

/// Only the contents of directories: tar removes an existing directory's permissions while it unpacks into it, and at that
/// moment only root could use the guest.
fn pack(directory: &Path, archive: &Path) {
    let pack = "find . ! -type d -print0 | tar --create --null --files-from=- --owner=0 --group=0 --file \"$1\"";
    let status = Command::new("sh").args(["-c", pack, "sh"]).arg(archive).current_dir(directory).status();
    assert!(status.expect("run a shell").success(), "pack {}", directory.display());
}

/// The agent's line is qemu's standard input and output: nobody else can use it, and its end is noticed at once.
fn qemu(image: &Path, directory: &Path, agent: UnixStream) -> io::Result<Child> {
    let disk = |id: &str, file: &Path, option: &str| {
        // A comma in a file's name is doubled.
        let file = file.display().to_string().replace(',', ",,");
        format!("if=none,id={id},format=raw,file={file},{option}=on")
    };
    let log = File::create(directory.join("qemu.log"))?;
    let agent = OwnedFd::from(agent);
    Command::new(SETPRIV)
        .args(["--pdeathsig=KILL", "--", QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        // One processor: several emulated ones wait for each other, and boots hang more often.
        .args(["-machine", "pc,usb=off", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "512"])
        .args(["-nic", "user,model=virtio-net-pci", "-device", "nvme,id=disks,serial=disks"])
        // Two namespaces of one controller, since the numbers of several controllers depend on which answers first.
        .args(["-device", "nvme-ns,bus=disks,nsid=1,drive=root", "-device", "nvme-ns,bus=disks,nsid=2,drive=files"])
        .args(["-drive", &disk("root", &image.join("root.img"), "snapshot")])
        .args(["-drive", &disk("files", &directory.join("files.tar"), "readonly")])
        .args(["-chardev", "file,id=console,path=console.log", "-serial", "chardev:console"])
        .args(["-chardev", "stdio,id=agent,signal=off", "-serial", "chardev:agent"])
        .arg("-kernel")
        .arg(image.join("kernel"))
        .args(["-append", "root=/dev/nvme0n1 rootwait rw console=ttyS0 loglevel=5 mitigations=off random.trust_cpu=on"])
        .current_dir(directory)
        .stdin(agent.try_clone()?)
        .stdout(agent)
        .stderr(log)
        .spawn()
}
