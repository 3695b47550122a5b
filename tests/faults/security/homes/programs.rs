//! No program of bob's runs as root, whatever names it, and none gets a variable, the session or a descriptor of root's shell.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use super::both::{BOB, COMMANDS, CONFIG, Homes, ROTATE};
use super::none;

/// What might start a program of bob's: a setting that names it, or a directory where it is looked for.
const STARTERS: [&str; 4] = ["on_rotate", "cli_path", "~/.local/bin", "~/bin"];

const FRAGMENT: &str = ".config/dbx-rotator/conf.d/bobs.toml";

/// Bob's program notes here as whom it ran, and what it got of root's.
const NOTES: &str = "notes";

#[test]
fn no_program_of_bobs_runs_as_root() {
    let mut findings = Vec::new();
    for starter in STARTERS {
        let Some(homes) = Homes::new("no_program_of_bobs_runs_as_root") else { return };
        with_program(&homes, starter);
        // Without `token`, which tries for a minute to get one.
        for command in COMMANDS.iter().filter(|command| **command != ["token"]) {
            homes.root("bob", command).run();
        }
        with_variables_that_lead_to_bobs_settings(&homes);
        with_a_file_of_bobs_among_roots_own(&homes);
        let notes = fs::read_to_string(homes.of_bob(NOTES)).unwrap_or_default();
        if notes.lines().any(|uid| uid == "0") {
            findings.push(format!("{starter}: ran as root"));
        }
        for what in ["variable", "session", "descriptor"] {
            if notes.lines().any(|line| line == what) {
                findings.push(format!("{starter}: got root's {what}"));
            }
        }
        if starter == "cli_path" && notes.is_empty() {
            findings.push(format!("{starter}: never ran, so that this proves nothing"));
        }
    }
    none(findings);
}

/// Bob has a program, and settings with which a rotation starts it.
fn with_program(homes: &Homes, starter: &str) {
    let place = match starter {
        "~/.local/bin" => ".local/bin/databricks",
        "~/bin" => "bin/databricks",
        _ => "program",
    };
    let program = homes.of_bob(place);
    // Its session is its own, and what root's shell has exported or opened is not for it.
    let script = format!(
        "#!/bin/sh\nexec >> '{}'\nid -u\n[ -z \"${{ROOTS_OWN-}}\" ] || echo variable\n\
         [ \"$(cut -d' ' -f6 /proc/$$/stat)\" = $$ ] || echo session\n[ ! -e /proc/$$/fd/9 ] || echo descriptor\n",
        homes.of_bob(NOTES).display()
    );
    homes.put(place, script);
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let by_cli = |more: &str| {
        let config = homes.config("").replace("client_secret_file", &format!("auth = 'databricks-cli'\n{more}# "));
        config.replace("client_id", "# ")
    };
    let config = match starter {
        "on_rotate" => homes.config(&format!("on_rotate = ['{}']\n", program.display())),
        "cli_path" => by_cli(&format!("cli_path = '{}'\n", program.display())),
        _ => by_cli(""),
    };
    homes.put(CONFIG, config);
}

/// As after `su` without a dash: root's own home, where a rotation finds all that it needs, and variables that lead to bob's settings.
fn with_variables_that_lead_to_bobs_settings(homes: &Homes) {
    let mut copy = Command::new("cp");
    copy.args(["-r", "--no-preserve=ownership"]).arg(homes.of_bob(".")).arg(homes.of_root(""));
    assert!(copy.status().unwrap().success());
    let config_home = homes.of_bob(".config");
    for (variable, place) in [
        ("XDG_CONFIG_HOME", config_home.clone()),
        ("CONFIGURATION_DIRECTORY", config_home.join("dbx-rotator")),
        ("DBX_ROTATOR_CONFIG", homes.of_bob(CONFIG)),
    ] {
        homes.root("root", ROTATE).env(variable, place).run();
    }
}

fn with_a_file_of_bobs_among_roots_own(homes: &Homes) {
    for file in [CONFIG, FRAGMENT] {
        let (usual, there) = (homes.of_root(CONFIG), homes.of_root(file));
        let text = fs::read(&usual).unwrap();
        if file == FRAGMENT {
            fs::create_dir(there.parent().unwrap()).unwrap();
            fs::write(&usual, "").unwrap();
        }
        fs::write(&there, text).unwrap();
        chown(&there, Some(BOB), Some(BOB)).unwrap();
        homes.root("root", ROTATE).run();
        fs::copy(&there, &usual).unwrap();
        chown(&usual, Some(0), Some(0)).unwrap();
        chown(&there, Some(0), Some(0)).unwrap();
    }
}
