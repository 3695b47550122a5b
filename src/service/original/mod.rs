//! The Python original's service: what its unit or agent told it. Nothing here asks a manager or changes anything.

mod settings;
#[cfg(not(target_os = "macos"))]
pub(super) mod unit;

use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

pub(crate) use settings::{Filled, OldSettings};

/// Its log file, below the home directory, unless it was told otherwise.
pub(crate) const OLD_LOG: &str = ".databricks_oauth_rotator.log";

/// The variable and the option that say the client secret.
pub(super) const OF_SECRET: [&str; 2] = ["DATABRICKS_CLIENT_SECRET", "--client-secret"];

/// How often it rotated, unless it was told otherwise.
pub(crate) const OLD_INTERVAL: Duration = Duration::from_secs(50 * 60);

/// The service of the Python original.
pub(crate) struct Original {
    /// Its unit or label.
    pub(crate) name: &'static str,
    /// The file that says what it does.
    pub(crate) file: PathBuf,
    /// Whether it runs, or would at the next login.
    pub(crate) in_service: bool,
    pub(crate) told: Told,
}

/// What a unit or an agent says. It may hold a secret.
#[derive(Default)]
pub(crate) struct Told {
    /// The program and its arguments.
    pub(crate) words: Vec<Zeroizing<String>>,
    /// Its environment, in the order of the file.
    pub(crate) variables: Vec<(String, Zeroizing<String>)>,
    /// The file that the client secret stands in, if one does.
    pub(crate) secret_in: Option<PathBuf>,
    /// What could not be read, or is not understood: a sentence each.
    pub(crate) left: Vec<String>,
}
