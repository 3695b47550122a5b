//! A real PgBouncer takes each new credential from a file that is made by the example's template.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it counted"
)]

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::postgres::{DATABASE, psql_program};
use crate::support::workspace::scratch_directory;
use crate::support::{Home, Postgres, Workspace, dbx_rotator, free_port, skip};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// The life of a token.
const LIFE: Duration = Duration::from_secs(20);

/// How often somebody logs in.
const PACE: Duration = Duration::from_millis(200);

/// A PgBouncer that is ended when this is.
struct Pooler(Child);

impl Pooler {
    /// It refuses to run as root. It ends with the thread that starts it.
    fn start(directory: &Path, port: u16) -> Self {
        let mut command = Command::new("/usr/bin/setpriv");
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.args(["--pdeathsig=QUIT", "--", PROGRAM]).arg(directory.join("pgbouncer.ini"));
        let log = fs::File::create(directory.join("log")).unwrap();
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut pooler = Pooler(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let log = || fs::read_to_string(directory.join("log")).unwrap();
            assert!(pooler.0.try_wait().unwrap().is_none(), "PgBouncer ended: {}", log());
            assert!(Instant::now() < deadline, "PgBouncer does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        pooler
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A login of the application, with the password that PgBouncer knows it by.
fn log_in(port: u16, user: &str) -> Result<(), String> {
    let target = format!("host=127.0.0.1 port={port} user=app dbname=orders sslmode=disable gssencmode=disable");
    let output = Command::new(psql_program().unwrap())
        .args(["-X", "-w", "-A", "-t", "-c", "select current_user", &target])
        .env_clear()
        .env("PGPASSWORD", "its own")
        .output()
        .unwrap();
    let is_well = output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == user;
    if is_well { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn no_login_fails_through_pgbouncer_over_three_lives_of_a_token() {
    let test = "no_login_fails_through_pgbouncer_over_three_lives_of_a_token";
    if !Path::new(PROGRAM).exists() {
        return skip(test, "no pgbouncer");
    }
    let workspace = Workspace::builder().token_life(LIFE).start();
    let (home, user) = (Home::new(), workspace.client_id());
    home.watch(&workspace);
    let Some(server) = Postgres::start(&workspace, &[user]).map_err(|reason| skip(test, &reason)).ok() else { return };
    // Another account than ours has to reach what is meant for it.
    let place = scratch_directory(0o711);
    let at = |name: &str| place.path().join(name);
    let example = include_str!("../../dist/examples/pgbouncer-userlist.template");
    home.write("userlist.template", format!("\"app\" \"its own\"\n{example}"), 0o600);
    let group = if rustix::process::geteuid().is_root() { "group = 'postgres'" } else { "" };
    home.write(
        ".config/dbx-rotator/config.toml",
        format!(
            "[[connection]]\nname = 'orders'\nhost = '127.0.0.1'\nport = {}\non_rotate = ['{}']\n\
             [[connection.file]]\ntemplate = '~/userlist.template'\npath = '{}'\nmode = '0640'\n{group}\n",
            server.port(),
            home.path("bin/reload").display(),
            at("userlist.txt").display(),
        ),
        0o600,
    );
    let port = free_port();
    // The example's, but for the first rotation, before there is a PgBouncer.
    let (pid, psql) = (at("pid").display().to_string(), psql_program().unwrap());
    let reload = format!("{} -X -w -h 127.0.0.1 -p {port} -U app -d pgbouncer -c RELOAD", psql.display());
    home.write("bin/reload", format!("#!/bin/sh\n[ ! -e '{pid}' ] || exec {reload}\n"), 0o755);
    home.write(".pgpass", format!("127.0.0.1:{port}:pgbouncer:app:its own\n"), 0o600);
    let running = dbx_rotator!(home).args(["run"]).signed_in_to(&workspace).spawn();
    running.says("the output files of", Duration::from_secs(30));

    fs::copy(workspace.ca_file(), at("ca.pem")).unwrap();
    fs::set_permissions(at("ca.pem"), Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(at("run")).unwrap();
    fs::set_permissions(at("run"), Permissions::from_mode(0o777)).unwrap();
    // Each login of the application is a new one at the server, too. One that is under way at a reload is made again.
    fs::write(
        at("pgbouncer.ini"),
        format!(
            "[databases]\norders = host=127.0.0.1 port={} dbname={DATABASE} user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = plain\nadmin_users = app\nauth_file = {}\nserver_tls_sslmode = verify-full\n\
             server_tls_ca_file = {}\npool_mode = session\nserver_lifetime = 0\nserver_login_retry = 1\nquery_wait_timeout = 5\npidfile = {}\n",
            server.port(),
            at("userlist.txt").display(),
            at("ca.pem").display(),
            at("run/pid").display(),
        ),
    )
    .unwrap();
    fs::set_permissions(at("pgbouncer.ini"), Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink("run/pid", at("pid")).unwrap();
    let _pooler = Pooler::start(place.path(), port);

    let (started, before) = (Instant::now(), workspace.tokens_issued());
    let mut logins = 0_u32;
    // Until three tokens have come and gone, with their last moments.
    while started.elapsed() < 3 * LIFE || workspace.tokens_issued() < before + 3 {
        let next = started + PACE * logins;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if let Err(said) = log_in(port, user) {
            let log = fs::read_to_string(at("log")).unwrap();
            panic!("login {logins} failed after {:?}: {said}\n{log}\n{}", started.elapsed(), running.stderr());
        }
        logins += 1;
        assert!(started.elapsed() < 10 * LIFE, "no new tokens: {}", running.stderr());
    }
    let accepted = server.logins().iter().filter(|login| login.accepted()).count();
    assert!(accepted >= logins as usize, "{logins} logins through PgBouncer, and {accepted} at the server");
    assert_eq!(server.logins().len(), accepted, "none was refused");
    eprintln!("{logins} logins through PgBouncer, none failed; {} tokens", workspace.tokens_issued());
    running.terminate().exits(0).stderr_lacks("on_rotate failed");
}
