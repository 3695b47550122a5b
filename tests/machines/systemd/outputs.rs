//! What is kept besides the password file, from within the sandbox of the units.

use std::thread;
use std::time::{Duration, Instant};

use super::{Release, SOON, Stage, Workspace};
use crate::support::Instance;

/// A unit of alice's own that a rotation should start.
const TOLD: &str = "[Service]\nType=oneshot\nExecStart=/bin/touch /home/alice/told\n";

fn the_sandbox_lets_files_be_written_and_other_units_be_started(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.workspace.add_instance(Instance::named("orders"));
    stage.machine.write("/home/alice/.config/systemd/user/told.service", TOLD, 0o644, Some("alice"));
    stage.systemctl(&["daemon-reload"]).exits(0);
    let table = "[[connection]]\ninstance = 'orders'\ntoken_file = '~/.local/state/orders.token'\n\
                 env_file = '~/orders.env'\non_rotate = ['systemctl', '--user', 'start', 'told.service']\n";
    stage.configure(&format!("{}client_secret_file = \"client-secret\"\n{table}", stage.workspace_table()));
    for unit in ["dbx-rotator.service", "dbx-rotator-daemon.service"] {
        let _ = std::fs::remove_file(stage.machine.path("/home/alice/told"));
        let _ = std::fs::remove_file(stage.machine.path("/home/alice/.pgpass"));
        stage.systemctl(&["start", unit]).exits(0);
        // The daemon is ready before its hooks have ended.
        let deadline = Instant::now() + SOON;
        while !stage.machine.path("/home/alice/told").exists() {
            assert!(Instant::now() < deadline, "{unit}");
            thread::sleep(Duration::from_millis(20));
        }
        let read = |path: &str| std::fs::read_to_string(stage.machine.path(path)).unwrap();
        let password = stage.pgpass().trim_end().rsplit(':').next().unwrap().to_owned();
        assert_eq!(read("/home/alice/.local/state/orders.token"), password, "{unit}");
        assert_eq!(read("/home/alice/orders.env").trim_end(), format!("PGPASSWORD={password}"), "{unit}");
        assert!(read("/home/alice/.pg_service.conf").contains("[orders]"), "{unit}");
    }
    // EnvironmentFile= reads the file of variables.
    let script = "[ \"PGPASSWORD=$PGPASSWORD\" = \"$(cat /home/alice/orders.env)\" ] && echo the very same\n";
    stage.machine.write("/home/alice/compare", script, 0o644, Some("alice"));
    let run = ["systemd-run", "--user", "--wait", "--pipe", "-q", "-p", "EnvironmentFile=/home/alice/orders.env"];
    let compare = [&run[..], &["sh", "/home/alice/compare"]].concat();
    stage.machine.as_user("alice", &compare).exits(0).stdout_has("the very same");
}

crate::support::on_each_release!(the_sandbox_lets_files_be_written_and_other_units_be_started);
