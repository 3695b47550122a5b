//! The authorities that the platform trusts, as one file: for programs that can read a file and cannot ask the platform.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::dirs::Environment;

/// Where platforms keep them in one file, in PEM.
const BUNDLES: [&str; 7] = [
    // Debian, Ubuntu, Arch, Gentoo, Alpine with ca-certificates.
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL, Amazon Linux; the second also where newer releases have dropped the first.
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // openSUSE.
    "/etc/ssl/ca-bundle.pem",
    // macOS, Alpine without ca-certificates.
    "/etc/ssl/cert.pem",
    // Homebrew, on Apple's and on Intel's processors.
    "/opt/homebrew/etc/ca-certificates/cert.pem",
    "/usr/local/etc/ca-certificates/cert.pem",
];

/// The file, by its absolute path: `SSL_CERT_FILE`, as for OpenSSL and for this program itself, or the platform's own. None where
/// there is none.
pub(crate) fn bundle(environment: &Environment) -> Option<PathBuf> {
    let named = environment.path("SSL_CERT_FILE").and_then(|path| std::path::absolute(path).ok());
    first(named.into_iter().chain(BUNDLES.map(PathBuf::from)))
}

fn first(mut candidates: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.find(|path| is_bundle(path))
}

/// A file that cannot be looked at now is there all the same: what is published must not change with a passing fault.
fn is_bundle(path: &Path) -> bool {
    match path.metadata() {
        Ok(data) => data.is_file() && data.len() > 0,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_is_there_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::write(at("empty"), "").unwrap();
        for name in ["a", "b"] {
            std::fs::write(at(name), "-----BEGIN CERTIFICATE-----\n").unwrap();
        }
        assert_eq!(first(["absent", ".", "empty", "b", "a"].map(at).into_iter()), Some(at("b")));
        assert_eq!(first(["absent", "."].map(at).into_iter()), None);
        let environment: Environment = [("SSL_CERT_FILE", at("a"))].into_iter().collect();
        assert_eq!(bundle(&environment), Some(at("a")));
    }
}
