//! The names that launchd knows us by, and whether it started this process. This is the only place with these names; tests
//! compare dist/launchd and the Homebrew formula with them.

use super::dirs::Environment;

/// The agent's label, which is also the name of its property list.
pub(crate) const LABEL: &str = "app.dbx-rotator.agent";

/// The same of the agent that runs the local proxy.
pub(crate) const PROXY_LABEL: &str = "app.dbx-rotator.proxy";

/// Identifies our messages in the unified log and our items in the keychain: `log stream --predicate 'subsystem == "app.dbx-rotator"'`.
pub(crate) const SUBSYSTEM: &str = "app.dbx-rotator";

/// Whether launchd runs this process as one of our agents. launchd puts a job's label into this variable (xpc(3)); a terminal's
/// programs have another one there.
pub(crate) fn runs_this(environment: &Environment) -> bool {
    environment.get("XPC_SERVICE_NAME").is_some_and(|label| [LABEL, PROXY_LABEL].contains(&label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_agents_are_some() {
        let named = |name: &str| runs_this(&[("XPC_SERVICE_NAME", name)].into_iter().collect());
        assert!(named(LABEL) && named(PROXY_LABEL));
        assert!(!named("0") && !named("application.com.apple.Terminal.1") && !runs_this(&Environment::default()));
    }

    #[test]
    fn the_subsystem_and_the_files_of_dist_and_homebrew_go_by_the_same_name() {
        assert!([LABEL, PROXY_LABEL].iter().all(|label| label.starts_with(&format!("{SUBSYSTEM}."))));
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(root.join(format!("dist/launchd/{LABEL}.plist")).exists());
        let formula = std::fs::read_to_string(root.join("homebrew/dbx-rotator.rb")).unwrap();
        assert!(
            formula.contains(&format!("macos: \"{LABEL}\"")) && formula.contains(&format!("launchd/{LABEL}.plist"))
        );
    }
}
