//! What the vendor's CLI says when it fails, and what that means. This is the only list of its texts, each with the version and place
//! where it was seen. Case is ignored, because versions differ in it.
//!
//! An unknown text may be a network problem, and is tried again.

/// What a failure of the CLI means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// pip's retired `databricks-cli`, which has no `auth token`.
    Legacy,
    /// The CLI's login file cannot be read. Another login helps only once that file is gone.
    BrokenCache,
    /// A person must log in.
    LoginNeeded,
    /// It cannot tell which login to use.
    Profile,
    /// Nobody signs in at this host.
    NoWorkspace,
    /// The place where it keeps its logins is out of reach.
    Keyring,
    /// The proxy refuses who we are.
    Proxy,
    /// Something else, such as the network.
    Unknown,
}

use Meaning::{BrokenCache, Keyring, Legacy, LoginNeeded, NoWorkspace, Profile, Proxy};

/// The texts, in lower case; the first that is found counts.
const TEXTS: [(Meaning, &str); 38] = [
    // click, in databricks-cli 0.18 and older.
    (Legacy, "no such command"),
    // databricks/cli 0.266.0, issue 3628: "cache: load: parse: invalid character '}' after top-level value".
    (BrokenCache, "cache: load: parse"),
    // databricks/cli 0.223.1, issue 1589: "cache: unexpected end of JSON input" of a file that is empty or cut short.
    (BrokenCache, "cache: unexpected end of json input"),
    // The same file, as encoding/json of Go says it: "cache: invalid character 'x' looking for beginning of value". An answer of the
    // workspace that is cut short has the words without the cache.
    (BrokenCache, "cache: invalid character"),
    (BrokenCache, "cache: json:"),
    (BrokenCache, "cache: load: unexpected end"),
    (BrokenCache, "cache: load: invalid character"),
    (BrokenCache, "cache: load: json:"),
    // databricks-sdk-go, u2m/cache/file.go: "cache: needs version 1, got version 2".
    (BrokenCache, "cache: needs version"),
    (BrokenCache, "cache: parse"),
    // databricks/cli, cmd/auth/token.go, all versions: kept because the SDKs look for it.
    (LoginNeeded, "oauth is not configured for this host"),
    // databricks/cli 0.264.2, issue 3439.
    (LoginNeeded, "cache: token not found"),
    // databricks/cli 1.0.0, libs/auth/storage.
    (LoginNeeded, "older cli versions are no longer used"),
    // databricks/cli 0.23x and newer: "... because the refresh token is invalid"; 0.205 to 0.22x, issue 667:
    // `oauth2: "invalid_request" "Refresh token is invalid"`.
    (LoginNeeded, "refresh token is invalid"),
    // RFC 6749, section 5.2: "invalid, expired, revoked", in the words of identity providers.
    (LoginNeeded, "refresh token expired"),
    (LoginNeeded, "refresh token is expired"),
    (LoginNeeded, "refresh token has expired"),
    (LoginNeeded, "refresh token has been revoked"),
    (LoginNeeded, "refresh token was revoked"),
    (LoginNeeded, "refresh token not found"),
    // RFC 6749, section 5.2, as golang/oauth2 prints it: the refresh token is expired, revoked or used up.
    (LoginNeeded, "invalid_grant"),
    // From identity providers, passed on by the workspace.
    (LoginNeeded, "session has expired"),
    // databricks/cli 1.x, pull request 6684 and later 6731: the code in a JSON failure.
    (LoginNeeded, "\"error_code\": \"invalid_refresh_token\""),
    (LoginNeeded, "\"error_code\": \"unauthenticated\""),
    // databricks/cli, cmd/auth/token.go, all versions.
    (Profile, "no profile specified"),
    (Profile, "no profiles configured"),
    (Profile, "use --profile"),
    (Profile, "uses m2m authentication"),
    // databricks-sdk-go, config_file.go: "... has no PROD profile configured"; config.go.
    (Profile, "profile configured"),
    (Profile, "more than one authorization method configured"),
    // databricks-sdk-go, u2m/endpoint_supplier.go.
    (NoWorkspace, "oauth is not supported for this host"),
    // databricks/cli 1.0.0, libs/auth/storage/keyring.go: "OS keyring unreachable", and what the system's keyring says.
    (Keyring, "keyring"),
    // The Secret Service of Linux, by zalando/go-keyring; Apple's security(1).
    (Keyring, "org.freedesktop.secrets"),
    (Keyring, "/org/freedesktop/secrets"),
    (Keyring, "d-bus"),
    (Keyring, "keychain"),
    // Go, net/http/transport.go: the status of a proxy that answers CONNECT with 407; golang.org/x/net/internal/socks.
    (Proxy, "proxy authentication required"),
    (Proxy, "username/password authentication failed"),
];

/// What the CLI means by its output, and by the error code if that was JSON.
pub(super) fn meaning(said: &str, code: &str) -> Meaning {
    let all = format!("{said}\n\"error_code\": \"{code}\"").to_lowercase();
    TEXTS.iter().find(|(_, text)| all.contains(text)).map_or(Meaning::Unknown, |(meaning, _)| *meaning)
}

/// Whether a text is the script that pip installs for the retired CLI. A wrapper whose path, or a path in it, contains the name
/// of a release (`databricks_cli_0.278.0_linux_amd64`) is not.
pub(super) fn is_legacy_script(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).lines().map(str::trim_start).any(|line| {
        let imports = ["from databricks_cli.", "from databricks_cli ", "import databricks_cli"];
        // setuptools: `load_entry_point('databricks-cli==0.17.0', ...)`.
        let names = ["'databricks-cli==", "\"databricks-cli=="];
        imports.iter().any(|start| line.starts_with(start)) || names.iter().any(|name| line.contains(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_of_the_cli_means_one_thing_in_any_case() {
        for (said, wanted) in [
            (r#"Error: token refresh: oauth2: "invalid_request" "Refresh token is invalid""#, LoginNeeded),
            (r#"Error: token refresh: oauth2: "invalid_grant" "The refresh token was used before""#, LoginNeeded),
            ("A new access token could not be retrieved because the refresh token is invalid.", LoginNeeded),
            ("Error: cache: token not found. Try logging in again with `databricks auth login`", LoginNeeded),
            ("Error: Session has expired", LoginNeeded),
            ("Error: cache: load: parse: invalid character '}' after top-level value", BrokenCache),
            ("Error: cache: unexpected end of JSON input", BrokenCache),
            ("Error: cache: needs version 1, got version 2", BrokenCache),
            ("dev and prod match https://x in /h/.databrickscfg. Use --profile to specify", Profile),
            ("cache: OS keyring unreachable: keyring read timed out", Keyring),
            ("Error: No such command 'auth'.", Legacy),
            (r#"Error: token refresh: oauth2: "invalid_request" "Refresh token has expired""#, LoginNeeded),
            (
                "oauth2: cannot fetch token: 400 Bad Request\nResponse: {\"error\":\"invalid_request\",\
                 \"error_description\":\"Refresh token is invalid\"}",
                LoginNeeded,
            ),
            ("Error: /home/ada/.databrickscfg has no PROD profile configured", Profile),
            ("Error: validate: more than one authorization method configured: oauth and pat", Profile),
            ("Error: databricks OAuth is not supported for this host", NoWorkspace),
            ("Error: cache: invalid character '}' after top-level value", BrokenCache),
            ("Error: cache: json: cannot unmarshal array into Go value of type cache.tokenCacheFile", BrokenCache),
            ("Error: The name org.freedesktop.secrets was not provided by any .service files", Keyring),
            ("failed to unlock correct collection '/org/freedesktop/secrets/aliases/default'", Keyring),
            ("Error: token refresh: unexpected end of JSON input", Meaning::Unknown),
            ("Error: token refresh: invalid character '<' looking for beginning of value", Meaning::Unknown),
            ("Error: token refresh: context deadline exceeded", Meaning::Unknown),
            ("cache update: exit status 45. Try logging in again with `databricks auth login`", Meaning::Unknown),
            (r#"Error: token refresh: oauth2: "invalid_request" "Temporarily throttled""#, Meaning::Unknown),
            ("Error: token refresh: dial tcp: lookup failed: no such host", Meaning::Unknown),
            (r#"Error: token refresh: Post "https://w.example/oidc/v1/token": Proxy Authentication Required"#, Proxy),
            ("socks connect tcp p:1080->w:443: username/password authentication failed", Proxy),
            ("", Meaning::Unknown),
        ] {
            for said in [said.to_owned(), said.to_uppercase(), said.to_lowercase()] {
                assert_eq!(meaning(&said, ""), wanted, "{said}");
            }
        }
        assert_eq!(meaning("", "UNAUTHENTICATED"), LoginNeeded);
        assert_eq!(meaning("", "INVALID_REFRESH_TOKEN"), LoginNeeded);
        assert!(TEXTS.iter().all(|(_, text)| *text == text.to_lowercase()), "they are compared in lower case");
    }

    #[test]
    fn a_script_of_pip_is_told_from_a_wrapper_that_names_a_release() {
        for legacy in [
            "#!/usr/bin/python3\nfrom databricks_cli.cli import cli\n",
            "#!/bin/sh\n'''exec' /a/python \"$0\" \"$@\"\n' '''\nimport sys\n    from databricks_cli.cli import cli\n",
            "#!/usr/bin/python\n# EASY-INSTALL-ENTRY-SCRIPT: 'databricks-cli==0.9.0','console_scripts','databricks'\n",
        ] {
            assert!(is_legacy_script(legacy.as_bytes()), "{legacy}");
        }
        for wrapper in [
            "#!/bin/sh\nexec /opt/databricks_cli_0.278.0_linux_amd64/databricks \"$@\"\n",
            "#!/usr/bin/env bash\nPATH=$HOME/databricks_cli/bin:$PATH exec databricks-1.13.0 \"$@\"\n",
            "#!/bin/sh\n# not pip's databricks_cli\nexec /usr/lib/databricks \"$@\"\n",
            "",
        ] {
            assert!(!is_legacy_script(wrapper.as_bytes()), "{wrapper}");
        }
    }
}
