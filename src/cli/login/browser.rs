//! Opening the browser of the person who has typed a command.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use secrecy::{ExposeSecret, SecretString};

use crate::os::child::{candidates, detach, inherited, is_executable};
use crate::os::dirs::Environment;

/// Programs that open an address in the browser that a person has chosen, best first.
const OPENERS: &[&str] =
    if cfg!(target_os = "macos") { &["open"] } else { &["xdg-open", "wslview", "x-www-browser", "www-browser"] };

/// Variables that are there where a browser can show itself: a screen, or Windows around WSL.
const SCREENS: [&str; 3] = ["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"];

/// Opens an address; returns whether a program was started for it. What becomes of it nobody knows: it may be a browser that stays.
pub(super) fn open(address: &SecretString, environment: &Environment) -> bool {
    let Some(program) = program(environment) else { return false };
    let mut command = Command::new(&program);
    command.arg(address.expose_secret()).env_clear().envs(inherited(environment, &[])).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Ctrl-C is for the login, not for a browser that came with it.
    detach(&mut command);
    match command.spawn() {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!("cannot run {}: {}", program.display(), crate::words::of_io(&error));
            false
        }
    }
}

/// The program to open it with; none where there is nothing to show it on.
fn program(environment: &Environment) -> Option<PathBuf> {
    if let Some(named) = environment.get_os("BROWSER") {
        // A list, of which only those without arguments are used (xdg-open(1)).
        return std::env::split_paths(named).find_map(|name| find(name.as_os_str(), environment));
    }
    let has_screen = cfg!(target_os = "macos") || SCREENS.iter().any(|name| environment.get_os(name).is_some());
    OPENERS.iter().filter(|_| has_screen).find_map(|name| find(OsStr::new(name), environment))
}

fn find(name: &OsStr, environment: &Environment) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.is_absolute() {
        return is_executable(path).then(|| path.to_owned());
    }
    let is_bare = path.components().count() == 1;
    candidates(environment, path).into_iter().filter(|_| is_bare).find(|candidate| is_executable(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_opened_where_it_can_be_seen_or_where_one_is_named() {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in [OPENERS[0], "mine"] {
            std::os::unix::fs::symlink("/bin/true", bin.join(name)).unwrap();
        }
        let found = |name: &str, value: &str| {
            let environment: Environment =
                [("PATH", bin.to_str().unwrap()), ("HOME", "/nowhere"), (name, value)].into_iter().collect();
            program(&environment).map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(found("DISPLAY", ":0").as_deref(), Some(OPENERS[0]));
        assert_eq!(found("BROWSER", "mine").as_deref(), Some("mine"));
        assert_eq!(found("BROWSER", "missing:mine").as_deref(), Some("mine"));
        assert_eq!(found("BROWSER", "mine --new-window %s"), None);
        if cfg!(not(target_os = "macos")) {
            assert_eq!(found("LANG", "C"), None, "nobody would see it");
        }
    }
}
