//! What can be said of variables before any setting is read: that they are text, or paths that lead where they seem to.

use std::path::PathBuf;

use crate::config::fault::ConfigError;
use crate::config::secret::keep_if_no_path;
use crate::config::unified::variables;
use crate::os::dirs::Environment;
use crate::proxies::{EXCEPTION_VARIABLES, PROXY_VARIABLES};

/// The variables that are text; the others that are read name paths, which may hold any bytes.
const TEXTS: [&str; 7] = [
    "DATABRICKS_CONFIG_PROFILE",
    "DATABRICKS_PG_HOST",
    "DATABRICKS_PG_USERNAME",
    PROXY_VARIABLES[0],
    PROXY_VARIABLES[1],
    EXCEPTION_VARIABLES[0],
    EXCEPTION_VARIABLES[1],
];

/// Variables that name paths, and that are read by us, or by the vendor's tools in the same way.
const OWN_PATHS: [&str; 3] = ["DBX_ROTATOR_CONFIG", "DATABRICKS_CONFIG_FILE", "DATABRICKS_CLI_PATH"];

/// Those that libpq and TLS libraries read, too, without expanding anything.
const SHARED_PATHS: [&str; 4] = ["PGPASSFILE", "PGSERVICEFILE", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The largest file of certificates, in bytes; that of Mozilla's authorities has 220 KiB.
const LARGEST_AUTHORITIES: u64 = 16 * 1024 * 1024;

/// Checks all that are read.
///
/// # Errors
/// One holds what can mean nothing here.
pub(super) fn check(environment: &Environment) -> Result<(), ConfigError> {
    let of_vendor: Vec<&str> = variables().collect();
    check_texts(environment, &[&of_vendor[..], &TEXTS].concat())?;
    check_paths(environment)?;
    check_authorities(environment)
}

fn fault(name: &str, why: String) -> ConfigError {
    ConfigError::new(format!("${name}: {why}"))
}

/// That these variables are text, as far as they are set.
pub(super) fn check_texts(environment: &Environment, names: &[&str]) -> Result<(), ConfigError> {
    let Some(name) = environment.no_text(names) else { return Ok(()) };
    let error = ConfigError::new(format!("${name} holds bytes that are not UTF-8 text"));
    Err(error.hint("set it anew in a terminal that uses UTF-8, or unset it"))
}

/// That variables which name paths hold nothing that a shell would have replaced, and nobody can here or does elsewhere.
fn check_paths(environment: &Environment) -> Result<(), ConfigError> {
    for name in OWN_PATHS {
        let Some(path) = environment.get_os(name).map(PathBuf::from) else { continue };
        keep_if_no_path(&path);
        environment.expand(&path).map_err(|why| fault(name, why))?;
    }
    for name in SHARED_PATHS {
        let Some(path) = environment.get_os(name).map(PathBuf::from) else { continue };
        let expanded = environment.expand(&path).map_err(|why| fault(name, why))?;
        if expanded != path {
            let why = format!(
                "`{}` was not expanded by a shell, and other programs look for it as it stands",
                path.display()
            );
            return Err(fault(name, why).hint(format!("set it to {}", expanded.display())));
        }
    }
    Ok(())
}

/// That the file of authorities has an end: whoever reads it for TLS does so to there.
fn check_authorities(environment: &Environment) -> Result<(), ConfigError> {
    let name = "SSL_CERT_FILE";
    let Some(path) = environment.get_os(name).map(PathBuf::from) else { return Ok(()) };
    if path.metadata().map_or(true, |data| data.is_file() && data.len() <= LARGEST_AUTHORITIES) {
        return Ok(());
    }
    let why = format!("{} is no file, or too large for certificates", path.display());
    Err(fault(name, why).hint("unset it, or name a file with certificates in PEM form"))
}
