//! The container image: what is in it, and that it does its work where nothing can be written to but one volume, nobody knows its user,
//! and no secret is stored.
#![allow(clippy::print_stderr, reason = "it says what it measured")]

mod container;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::printed;
use crate::support::postgres::psql_program;
use crate::support::workspace::issuers::{Issuer, Policy};
use crate::support::{Endpoint, Fault, Home, Postgres, Running, Session, Workspace, skip};
use container::{Container, HOME, Image, architecture, first_process};

/// The most that an architecture's image may take on its way, and that a sidecar may hold.
const LARGEST: u64 = 6_000_000;
const IDLE: u64 = 8 << 20;

const CLIENT: &str = "0b1c2d3e-0000-4000-8000-00000000cafe";
const SUBJECT: &str = "system:serviceaccount:shop:rotator";
const TOKEN: &str = "/var/run/secrets/tokens";
const SOON: Duration = Duration::from_secs(30);
/// Short, so that three of it are no long time.
const LIFE: Duration = Duration::from_secs(12);

/// The image, or a skipped test.
fn image(test: &str) -> Option<&'static Image> {
    Image::get().map_err(|reason| skip(test, &reason)).ok()
}

/// A workspace that trusts a cluster's issuer, a server, and the volume with the token that a cluster projects.
struct Stage {
    image: &'static Image,
    home: Home,
    workspace: Workspace,
    server: Postgres,
    issuer: Issuer,
}

impl Stage {
    fn new(test: &str) -> Option<Self> {
        let image = image(test)?;
        let issuer = Issuer::new("https://issuer.example");
        let workspace = Workspace::builder().with_services().start();
        workspace.trust(Policy {
            issuer: issuer.clone(),
            subject: SUBJECT.to_owned(),
            audience: workspace.token_url(),
            client: Some(CLIENT.to_owned()),
            identity: CLIENT.to_owned(),
        });
        let server = Postgres::start(&workspace, &[CLIENT]).map_err(|reason| skip(test, &reason)).ok()?;
        let home = Home::new();
        home.watch(&workspace);
        let stage = Stage { image, home, workspace, server, issuer };
        stage.project(SOON);
        Some(stage)
    }

    /// Puts a new token in place of the old one as a kubelet does: a directory of its own, which a link leads to.
    fn project(&self, life: Duration) {
        let token = self.issuer.token(SUBJECT, &self.workspace.token_url(), i64::try_from(life.as_secs()).unwrap());
        self.home.keep_secret(&token);
        let count = fs::read_dir(self.home.path("tokens")).map_or(0, Iterator::count);
        self.home.write(format!("tokens/..{count}/databricks"), token, 0o644);
        let (new, link) = (self.home.path("tokens/..new"), self.home.path("tokens/..data"));
        symlink(format!("..{count}"), &new).unwrap();
        fs::rename(new, link).unwrap();
        let _ = symlink("..data/databricks", self.home.path("tokens/databricks"));
        for directory in ["tokens".to_owned(), format!("tokens/..{count}")] {
            fs::set_permissions(self.home.path(directory), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// Configured by its environment alone; the stand-in's authority is beside those that the image brings.
    fn container(&self) -> Container<'_> {
        let bundle = "etc/ssl/certs/ca-certificates.crt";
        let authorities = fs::read_to_string(self.image.root().join(bundle)).unwrap()
            + &fs::read_to_string(self.workspace.ca_file()).unwrap();
        let authorities = self.home.write("authorities", authorities, 0o644);
        Container::of(self.image, &self.home)
            .mount(authorities, &format!("/{bundle}"), "ro")
            .mount(self.home.path("tokens"), TOKEN, "ro")
            .env("DATABRICKS_HOST", self.workspace.url())
            .env("DATABRICKS_CLIENT_ID", CLIENT)
            .env("DATABRICKS_AUTH_TYPE", "file-oidc")
            .env("DATABRICKS_OIDC_TOKEN_FILEPATH", format!("{TOKEN}/databricks"))
            .env("PGHOST", "localhost")
            .env("PGPORT", self.server.port())
    }

    fn volume(&self, inside: &str) -> PathBuf {
        self.home.path("volume").join(inside)
    }

    /// psql with no password, at the proxy's socket in the volume.
    fn psql(&self) -> Session<'_> {
        let psql = self.home.command(psql_program().unwrap()).env("PGPASSFILE", "/nonexistent");
        psql.env("PGHOST", self.volume("run")).args([
            "-X",
            "-w",
            "-A",
            "-t",
            "-d",
            "default",
            "-c",
            "select current_user",
        ])
    }

    /// psql with the password that is published.
    fn logs_in(&self) {
        let mut psql = self.server.psql_command(&self.volume(".pgpass"), CLIENT);
        psql.env("PGHOST", "localhost").args(["-c", "select current_user"]);
        assert_eq!(printed(&mut psql).trim(), CLIENT);
    }
}

fn tell(running: &Running<'_>, signal: Signal) {
    let first = i32::try_from(first_process(running)).unwrap();
    kill_process(Pid::from_raw(first).unwrap(), signal).unwrap();
}

/// Ends it as a runtime does; returns how long that took.
fn stop(running: Running<'_>, code: i32) -> Duration {
    let began = Instant::now();
    tell(&running, Signal::TERM);
    running.ends().exits(code);
    began.elapsed()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn the_packaged_image_serves_the_proxy_with_a_projected_token_for_three_lives() {
    let Some(stage) = Stage::new("the_packaged_image_serves_the_proxy_with_a_projected_token_for_three_lives") else {
        return;
    };
    stage.workspace.set_token_life(LIFE);
    let container = stage.container().with_volume();
    let began = Instant::now();
    let running = container.clone().start(&["proxy"]);
    running.says("Serving 1 connection at", SOON);
    eprintln!("the proxy of the image is ready {} ms after its runtime was started", began.elapsed().as_millis());
    stage.psql().run().exits(0).stdout_has(CLIENT);
    stage.workspace.faults_on(Endpoint::Token).every(3, vec![Fault::Status(503), Fault::Reset, Fault::Status(429)]);
    let (began, mut logins) = (Instant::now(), 0);
    while began.elapsed() < 3 * LIFE {
        stage.project(LIFE);
        stage.psql().run().exits(0).stdout_has(CLIENT);
        logins += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(stage.workspace.tokens_issued() >= 4, "{} tokens", stage.workspace.tokens_issued());
    container.probe(&running, &["status"]).exits(0);
    let first = first_process(&running);
    let least = (0..40).map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        resident(first)
    });
    let least = least.min().unwrap();
    let took = stop(running, 0);
    eprintln!("{logins} logins, {} KiB resident while idle, ended {} ms after SIGTERM", least >> 10, took.as_millis());
    assert!(least <= IDLE, "{} KiB resident", least >> 10);
    // A file system that is written to by a container is not one of which much is left.
    assert!(!stage.volume("run/.s.PGSQL.5432").exists(), "its socket is gone with it");
}

#[test]
fn a_container_of_the_package_ends_when_it_is_told_to_whatever_it_does() {
    let Some(stage) = Stage::new("a_container_of_the_package_ends_when_it_is_told_to_whatever_it_does") else { return };
    let running = stage.container().with_volume().start(&["run"]);
    running.says("is valid until", SOON);
    stage.logs_in();
    let took = stop(running, 0);
    eprintln!("run ended {} ms after SIGTERM", took.as_millis());
    // Those that end by themselves, while they wait for a workspace that does not answer.
    for (arguments, signal, code) in
        [(["rotate"], Signal::TERM, 143), (["rotate"], Signal::INT, 130), (["connections"], Signal::TERM, 143)]
    {
        let asked = stage.workspace.requests().len();
        for endpoint in [Endpoint::Discovery, Endpoint::HostMetadata, Endpoint::Token] {
            stage.workspace.faults_on(endpoint).always(Fault::Stall);
        }
        let running = stage.container().with_volume().env("XDG_STATE_HOME", "/nowhere").start(&arguments);
        let deadline = Instant::now() + SOON;
        while stage.workspace.requests().len() == asked {
            assert!(Instant::now() < deadline, "{arguments:?} asks nothing: {}", running.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
        let began = Instant::now();
        tell(&running, signal);
        running.ends().exits(code);
        eprintln!("{arguments:?} ended {} ms after {signal:?}", began.elapsed().as_millis());
    }
}

/// As the page on containers has it: in one network, with a configuration that names the other user by number.
#[test]
fn a_container_of_the_package_serves_another_user_at_a_port_of_its_network() {
    let Some(stage) = Stage::new("a_container_of_the_package_serves_another_user_at_a_port_of_its_network") else {
        return;
    };
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let text = format!(
        "proxy_allow = ['1000']\n[[connection]]\nname = 'orders'\nhost = 'localhost'\nport = {}\nproxy_port = {port}\n",
        stage.server.port()
    );
    stage.home.write("configuration/config.toml", text, 0o644);
    let configuration = stage.home.path("configuration");
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o755)).unwrap();
    let container = stage.container().mount(configuration, "/etc/dbx-rotator", "ro").with_volume();
    let running = container.start(&["proxy"]);
    running.says("Serving 1 connection at", SOON);
    let psql = psql_program().unwrap();
    let as_user = |uid: &str, host: &Path| {
        let words = ["--reuid", uid, "--regid", uid, "--clear-groups", "--"];
        let session = stage.home.command("/usr/bin/setpriv").args(words).arg(&psql).env("PGHOST", host);
        let session = session.env("PGPORT", port.to_string()).env("PGPASSFILE", "/nonexistent").env("PGUSER", "x");
        session.args(["-X", "-w", "-A", "-t", "-d", "databricks_postgres", "-c", "select current_user"]).run()
    };
    as_user("1000", Path::new("127.0.0.1")).exits(0).stdout_has(CLIENT);
    as_user("1001", Path::new("127.0.0.1")).exits(2).stderr_has("may not use this proxy");
    stop(running, 0);
}

/// OpenShift chooses a user whom no file knows, and gives it root's group.
#[test]
fn a_container_of_the_package_works_as_a_user_whom_nobody_knows() {
    let Some(stage) = Stage::new("a_container_of_the_package_works_as_a_user_whom_nobody_knows") else { return };
    let container = stage.container().with_volume().user(1_000_680_000, 0);
    container.clone().run(&["rotate"]).exits(0);
    stage.logs_in();
    let written = fs::metadata(stage.volume(".pgpass")).unwrap();
    assert_eq!((written.uid(), written.mode() & 0o777), (1_000_680_000, 0o600));
    let running = container.clone().start(&["run"]);
    running.says("Keeping 1 connection alive", SOON);
    let deadline = Instant::now() + SOON;
    while !container.probe(&running, &["status", "--json"]).exits(0).stdout.contains("\"renewed\":true") {
        assert!(Instant::now() < deadline, "status does not know of the process beside it");
    }
    stop(running, 0);
    // With nobody to renew it, a live password is not all.
    container.run(&["status", "--json"]).exits(0).stdout_has("\"renewed\":false");
}

#[test]
fn a_container_of_the_package_without_a_place_to_write_to_says_what_it_lacks() {
    let Some(stage) = Stage::new("a_container_of_the_package_without_a_place_to_write_to_says_what_it_lacks") else {
        return;
    };
    for command in ["rotate", "run"] {
        let running = stage.container().start(&[command]);
        running.says("read-only file system", SOON).says(HOME, SOON).says("mount a volume", SOON);
        if command == "run" {
            stop(running, 0);
        } else {
            running.ends().exits(73);
        }
    }
}

fn json(layout: &Path, digest: &Value) -> Value {
    let digest = digest["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    serde_json::from_str(&fs::read_to_string(layout.join("blobs/sha256").join(digest)).unwrap()).unwrap()
}

fn files_below(root: &Path) -> BTreeSet<String> {
    let found = printed(Command::new("find").arg(root).args(["-type", "f", "-printf", "%P\n"]));
    found.lines().map(str::to_owned).collect()
}

#[test]
fn the_packaged_image_holds_the_program_and_no_more_than_it_needs() {
    let Some(image) = image("the_packaged_image_holds_the_program_and_no_more_than_it_needs") else { return };
    let layout = image.layout();
    let top: Value = serde_json::from_str(&fs::read_to_string(layout.join("index.json")).unwrap()).unwrap();
    let index = json(&layout, &top["manifests"][0]);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let entry = &index["manifests"][0];
    assert_eq!(entry["platform"]["architecture"], architecture());
    let manifest = json(&layout, entry);
    let size = |blob: &Value| blob["size"].as_u64().unwrap();
    let all = size(&manifest["config"]) + manifest["layers"].as_array().unwrap().iter().map(size).sum::<u64>();
    eprintln!("the image is {all} bytes, compressed");
    assert!(all <= LARGEST, "{all} bytes");
    let config = json(&layout, &manifest["config"]);
    assert_eq!(config["config"]["User"], "65532:65532");
    for label in ["version", "revision", "created", "licenses", "title", "description"] {
        let value = config["config"]["Labels"][format!("org.opencontainers.image.{label}")].as_str();
        assert!(value.is_some_and(|value| !value.is_empty()), "{label}");
    }
    let wanted = [
        "etc/group",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/dbx-rotator",
        "usr/share/doc/dbx-rotator/LICENSE",
        "usr/share/doc/dbx-rotator/dbx-rotator.cdx.json",
    ];
    // Where containers get something is an empty file in the unpacked root.
    let is_mounted = |path: &String| path == "etc/hosts";
    let found: BTreeSet<String> = files_below(&image.root()).into_iter().filter(|path| !is_mounted(path)).collect();
    assert_eq!(found, wanted.map(str::to_owned).into());
    let home = fs::metadata(image.root().join(HOME.trim_start_matches('/'))).unwrap();
    assert_eq!((home.uid(), home.gid(), home.mode() & 0o7777), (65532, 0, 0o771));
    let bundle = fs::read_to_string(image.root().join(wanted[2])).unwrap();
    assert!(bundle.matches("-----BEGIN CERTIFICATE-----").count() > 100);
    // It needs no library, and is at another address each time.
    let headers = printed(Command::new("readelf").args(["-hldW"]).arg(image.root().join(wanted[3])));
    assert!(!headers.contains("INTERP") && !headers.contains("(NEEDED)"), "{headers}");
    assert!(headers.contains("Position-Independent Executable"), "{headers}");
}

#[test]
fn the_packaged_image_is_the_same_from_the_same_programs() {
    let Some(image) = image("the_packaged_image_is_the_same_from_the_same_programs") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let program = format!("{}={}", architecture(), image.root().join("usr/bin/dbx-rotator").display());
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/image");
    let sbom = image.root().join("usr/share/doc/dbx-rotator/dbx-rotator.cdx.json");
    let sbom = format!("{}={}", architecture(), sbom.display());
    printed(Command::new(&dist).arg(scratch.path().join("again")).arg(&program).arg("--sbom").arg(sbom));
    let bytes = |path: PathBuf| fs::read(path).unwrap();
    assert!(bytes(scratch.path().join("again.tar")) == bytes(image.layout().with_extension("tar")));
    // A program that needs libraries would not start in it.
    let wrong = Command::new(&dist)
        .arg(scratch.path().join("no"))
        .arg(format!("{}=/bin/true", architecture()))
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("is not static"));
}
