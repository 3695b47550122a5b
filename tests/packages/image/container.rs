//! The image, made by `dist/image`, unpacked by tools that others unpack images with, and run as a cluster would run it: with a user
//! of the cluster's choice, a root file system that nothing can be written to, no capabilities, and as process number one.
//!
//! It runs under crun where that works, as below Kubernetes and podman; elsewhere by unshare(1) with the same user, mounts and root.
//! Which one it was is printed. It has the network of the machine, so that a test's stand-ins on loopback can be reached.
//!
//! Invariant: a container does not outlive the test that started it, however that ends.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::workspace::scratch_directory;
use crate::support::{Home, Outcome, Running, Session};
use crate::{built, printed, with_ending};

/// What unpacks the image, and what a container is made of.
const NEEDED: [&str; 6] = ["skopeo", "umoci", "unshare", "nsenter", "setpriv", "python3"];

/// Where everything is that the program writes.
pub(super) const HOME: &str = "/var/lib/dbx-rotator";

/// A program in namespaces of its own, which end with it; then `bash -c SCRIPT run BUNDLE USER PROGRAM...`.
const NAMESPACES: [&str; 7] = ["--mount", "--mount-proc", "--pid", "--ipc", "--uts", "--fork", "--kill-child"];

/// crun 1.8 does not start where the machine has two kinds of cgroups. So it sees one, and is to put nothing into it.
const CRUN: &str = "umount -R -l /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup && \
                    exec crun --root \"$1/crun\" --cgroup-manager=disabled run --no-new-keyring --bundle \"$1\" \"${1##*/}\"";

/// The same by hand.
const BY_HAND: &str = r#"
root=$(readlink -f "$1/rootfs") user=$2
mount --bind "$root" "$root" && mount -o remount,bind,ro "$root" || exit
while read -r from to mode; do
  mount --bind "$from" "$root$to" && mount -o "remount,bind,nosuid,nodev,$mode" "$root$to" || exit
done <"$1/mounts"
mapfile -t environment <"$1/environment"
mount -t proc proc "$root/proc" && mount -t tmpfs tmpfs "$root/dev" && touch "$root/dev/null" && mount --bind /dev/null "$root/dev/null" || exit
cd "$root" && shift 2 || exit
exec env -i "${environment[@]}" /usr/bin/setpriv --no-new-privs --inh-caps=-all \
  /usr/sbin/chroot --userspec="$user" --groups= "$root" "$@""#;

/// The unpacked image, and what runs it.
pub(super) struct Image {
    directory: tempfile::TempDir,
    has_crun: bool,
}

impl Image {
    /// Made once; or why there can be none here.
    pub(super) fn get() -> Result<&'static Self, String> {
        static IMAGE: OnceLock<Result<Image, String>> = OnceLock::new();
        IMAGE.get_or_init(Image::make).as_ref().map_err(Clone::clone)
    }

    fn make() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make containers of other users here".to_owned());
        }
        built::missing(&NEEDED).map_or(Ok(()), Err)?;
        let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let packages = built::for_target(&triple)?;
        let mut image = Image { directory: scratch_directory(0o755), has_crun: true };
        let at = image.directory.path();
        let tarball = with_ending(&packages, "-static.tar.gz");
        printed(Command::new("tar").arg("-xzf").arg(tarball).args(["--strip-components=1", "-C"]).arg(at));
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
        fs::write(at.join("sbom"), printed(Command::new(dist.join("sbom")).args([&triple, "--authorities"]))).unwrap();
        let program = format!("{}={}", architecture(), at.join("bin/dbx-rotator").display());
        let sbom = format!("{}={}", architecture(), at.join("sbom").display());
        printed(Command::new(dist.join("image")).arg(image.layout()).args([&program, "--sbom", &sbom]));
        image.unpack();
        // crun makes them itself.
        for inside in ["proc", "dev"] {
            fs::create_dir_all(image.root().join(inside)).unwrap();
        }
        let tried = Container::of(&image, &Home::new()).run(&["--version"]);
        image.has_crun = tried.code == Some(0);
        let how = if image.has_crun { "crun" } else { "unshare, since crun does not work here" };
        eprintln!("the image runs under {how}\n{}", tried.stderr);
        Ok(image)
    }

    pub(super) fn layout(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// As skopeo and umoci do: what they refuse, others would refuse.
    fn unpack(&self) {
        let at = self.directory.path();
        let (from, one) = (format!("oci:{}", self.layout().display()), at.join("one"));
        printed(Command::new("skopeo").args(["copy", "--quiet", &from, &format!("oci:{}:one", one.display())]));
        printed(
            Command::new("umoci").args(["unpack", "--image", &format!("{}:one", one.display())]).arg(at.join("bundle")),
        );
    }

    pub(super) fn root(&self) -> PathBuf {
        self.directory.path().join("bundle/rootfs")
    }

    /// What the image says how to run it, as a runtime reads it.
    fn configuration(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.directory.path().join("bundle/config.json")).unwrap()).unwrap()
    }
}

/// What OCI calls this machine's processor.
pub(super) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A container that has not been started.
#[derive(Clone)]
pub(super) struct Container<'a> {
    image: &'a Image,
    home: &'a Home,
    user: (u32, u32),
    environment: Vec<String>,
    /// From where, to where, `ro` or `rw`.
    mounts: Vec<(PathBuf, String, &'static str)>,
}

impl<'a> Container<'a> {
    /// As the image says, with what each container gets.
    pub(super) fn of(image: &'a Image, home: &'a Home) -> Self {
        let hosts = home.write("hosts", "127.0.0.1 localhost\n", 0o644);
        let own = image.configuration()["process"]["user"].clone();
        let number = |name: &str| u32::try_from(own[name].as_u64().unwrap()).unwrap();
        let container =
            Container { image, home, user: (number("uid"), number("gid")), environment: vec![], mounts: vec![] };
        container.mount(hosts, "/etc/hosts", "ro")
    }

    /// Another user than that of the image.
    pub(super) fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = (uid, gid);
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    pub(super) fn mount(mut self, from: PathBuf, to: &str, mode: &'static str) -> Self {
        self.mounts.push((from, to.to_owned(), mode));
        self
    }

    /// With an empty directory to write to, as Kubernetes gives one: of root, and open for everybody.
    pub(super) fn with_volume(self) -> Self {
        let volume = self.home.path("volume");
        fs::create_dir_all(&volume).unwrap();
        fs::set_permissions(&volume, Permissions::from_mode(0o777)).unwrap();
        self.mount(volume, HOME, "rw")
    }

    pub(super) fn run(self, arguments: &[&str]) -> Outcome {
        self.session(arguments).run()
    }

    pub(super) fn start(self, arguments: &[&str]) -> Running<'a> {
        self.session(arguments).spawn()
    }

    fn session(self, arguments: &[&str]) -> Session<'a> {
        let bundle =
            tempfile::Builder::new().prefix("container").tempdir_in(self.image.directory.path()).unwrap().keep();
        let configuration = self.configuration(arguments);
        let words = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let process = &configuration["process"];
        fs::write(bundle.join("environment"), words(&process["env"]).join("\n") + "\n").unwrap();
        let lines = self.mounts.iter().map(|(from, to, mode)| format!("{} {to} {mode}\n", from.display()));
        fs::write(bundle.join("mounts"), lines.collect::<String>()).unwrap();
        fs::write(bundle.join("config.json"), configuration.to_string()).unwrap();
        std::os::unix::fs::symlink(self.image.root(), bundle.join("rootfs")).unwrap();
        let script = if self.image.has_crun { CRUN } else { BY_HAND };
        let user = format!("{}:{}", self.user.0, self.user.1);
        let session = self.home.command("/usr/bin/unshare").args(NAMESPACES).args(["bash", "-c", script, "run"]);
        session
            .arg(bundle)
            .arg(user)
            .args(words(&process["args"]))
            .shown_as(format!("dbx-rotator {}", arguments.join(" ")))
    }

    /// The image's own, made stricter, with what this container has besides.
    fn configuration(&self, arguments: &[&str]) -> Value {
        let mut all = self.image.configuration();
        let process = &mut all["process"];
        process["terminal"] = json!(false);
        process["user"] = json!({"uid": self.user.0, "gid": self.user.1});
        process["args"] =
            [&process["args"][0]].into_iter().cloned().chain(arguments.iter().map(|word| json!(word))).collect();
        process["capabilities"] = json!({});
        let environment = process["env"].as_array_mut().unwrap();
        environment.retain(|variable| !variable.as_str().unwrap().starts_with("TERM="));
        environment.extend(self.environment.iter().map(|variable| json!(variable)));
        all["root"] = json!({"path": self.image.root(), "readonly": true});
        all["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
        let mounts = all["mounts"].as_array_mut().unwrap();
        let taken = |mount: &Value| self.mounts.iter().any(|(_, to, _)| mount["destination"] == json!(to));
        mounts.retain(|mount| !taken(mount) && !mount["destination"].as_str().unwrap().starts_with("/sys"));
        for (from, to, mode) in &self.mounts {
            // For the way by hand, too, which cannot make it in a root that is read-only.
            let point = self.image.root().join(to.trim_start_matches('/'));
            if from.is_dir() {
                fs::create_dir_all(&point).unwrap();
            } else {
                fs::create_dir_all(point.parent().unwrap()).unwrap();
                fs::OpenOptions::new().create(true).append(true).open(&point).unwrap();
            }
            let options = ["rbind", "nosuid", "nodev", mode];
            mounts.push(json!({"destination": to, "type": "bind", "source": from, "options": options}));
        }
        all
    }

    /// Another command in the container of a running one, as a probe runs it.
    pub(super) fn probe(&self, running: &Running<'_>, arguments: &[&str]) -> Outcome {
        let configuration = self.configuration(arguments);
        let (first, user) = (first_process(running).to_string(), self.user);
        let words = ["--target", &first, "--mount", "--pid", "--root", "--wd", "--setuid", &user.0.to_string()]
            .map(str::to_owned);
        let mut session =
            self.home.command("/usr/bin/nsenter").args(words).args(["--setgid", &user.1.to_string(), "--"]);
        for name in
            ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"]
        {
            session = session.without_env(name);
        }
        for variable in configuration["process"]["env"].as_array().unwrap() {
            let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
            session = session.env(name, value);
        }
        session.arg("/usr/bin/dbx-rotator").args(arguments).run()
    }
}

/// The number that the machine has for the first process of a container.
pub(super) fn first_process(running: &Running<'_>) -> u32 {
    let outside = running.pid();
    for _ in 0..1_000 {
        if let Some(found) = descendants(outside).into_iter().find(|pid| is_ours(*pid)) {
            return found;
        }
        assert!(!running.has_ended(), "it ended: {}", running.stderr());
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no container has started: {}", running.stderr());
}

fn is_ours(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.ends_with("usr/bin/dbx-rotator"))
}

fn descendants(pid: u32) -> Vec<u32> {
    let parent_of = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let all: Vec<u32> =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|at| at.file_name().to_str()?.parse().ok()).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        found.extend(all.iter().filter(|child| parent_of(child) == Some(found[next])).copied().collect::<Vec<_>>());
        next += 1;
    }
    found.split_off(1)
}
