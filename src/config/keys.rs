//! What is said of a key that does not exist: the one that was meant, and the table that it belongs to.

use crate::spelling::nearest;

/// The keys of each table, with what stands before them.
const TABLES: [(&str, &[&str]); 4] = [
    (
        "at the head of the file",
        &[
            "interval",
            "password_file",
            "log_file",
            "proxy",
            "no_proxy",
            "proxy_listen",
            "proxy_allow",
            "proxy_max_sessions",
            "proxy_idle_timeout",
            "proxy_tls",
            "notify_command",
            "kubernetes_lease",
            "kubernetes_service_account",
            "workspace",
            "connection",
        ],
    ),
    (
        "under [[workspace]]",
        &[
            "name",
            "host",
            "auth",
            "client_id",
            "client_secret_file",
            "client_secret_keychain",
            "profile",
            "cli_path",
            "ca_file",
            "client_secret",
            "account_id",
            "workspace_id",
            "group_id",
            "scopes",
            "token_file",
            "oidc_token_filepath",
            "oidc_token_env",
            "token_audience",
            "azure_client_id",
            "azure_client_secret_file",
            "azure_tenant_id",
            "azure_workspace_resource_id",
            "azure_environment",
            "azure_use_msi",
            "google_credentials_file",
            "google_service_account",
            "metadata_service_url",
        ],
    ),
    (
        "under [[connection]]",
        &[
            "name",
            "workspace",
            "instance",
            "endpoint",
            "host",
            "port",
            "database",
            "user",
            "read_only",
            "credential",
            "ttl",
            "verify",
            "sslmode",
            "sslrootcert",
            "service_file",
            "token_file",
            "env_file",
            "file",
            "on_rotate",
            "kubernetes_secret",
            "kubernetes_secret_uri",
            "last_copy",
            "any_identity",
            "proxy_port",
            "proxy_roles",
        ],
    ),
    ("under [[connection.file]]", &["template", "path", "mode", "group"]),
];

/// What other programs call our keys.
const OTHER_NAMES: [(&str, &str); 17] = [
    ("hostname", "host"),
    ("server", "host"),
    ("url", "host"),
    ("workspace_url", "host"),
    ("pg_host", "host"),
    ("pg_port", "port"),
    ("dbname", "database"),
    ("db", "database"),
    ("pg_database", "database"),
    ("username", "user"),
    ("role", "user"),
    ("pg_username", "user"),
    ("secret", "client_secret_file"),
    ("secret_file", "client_secret_file"),
    ("pgpass_file", "password_file"),
    ("passfile", "password_file"),
    ("ssl_mode", "sslmode"),
];

/// The setting that the parser does not know, and what to do next.
pub(super) fn unknown_setting(said: &str) -> Option<(&str, String)> {
    let (key, here) = unknown_key(said)?;
    Some((key, meant(key, here)))
}

/// The key, and the place in [`TABLES`] of the table that it stands in.
fn unknown_key(said: &str) -> Option<(&str, usize)> {
    let (key, expected) = said.strip_prefix("unknown field `")?.split_once("`, expected one of ")?;
    let is_here = |(_, keys): &(&str, &[&str])| expected.matches(", ").count() + 1 == keys.len();
    Some((key, TABLES.iter().position(is_here)?))
}

fn meant(key: &str, here: usize) -> String {
    let known = |key: &str, keys: &[&'static str]| {
        let plain = key.to_lowercase().replace('-', "_");
        let other = OTHER_NAMES.into_iter().find(|(other, ours)| *other == plain && keys.contains(ours));
        other.map(|(_, ours)| ours).or_else(|| nearest(key, keys.iter().copied()))
    };
    let (_, keys) = TABLES[here];
    // Those with a reason of their own to be refused are not offered.
    let keys: Vec<&'static str> = keys.iter().copied().filter(|key| *key != "client_secret").collect();
    if let Some(ours) = known(key, &keys) {
        return format!("did you mean {ours}?");
    }
    let mut elsewhere = TABLES.iter().enumerate().filter(|(table, _)| *table != here);
    let elsewhere = elsewhere.find_map(|(_, (place, keys))| Some((place, known(key, keys)?)));
    match elsewhere {
        Some((place, ours)) => format!("did you mean {ours}? It belongs {place}"),
        None => format!("the settings that belong here are: {}", keys.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::ConfigFile;
    use super::*;

    fn refused(text: &str) -> String {
        toml_edit::de::from_str::<ConfigFile>(text).unwrap_err().message().to_owned()
    }

    #[test]
    fn the_keys_are_those_of_the_parser() {
        for (here, table) in
            ["", "[[workspace]]\n", "[[connection]]\n", "[[connection]]\n[[connection.file]]\n"].into_iter().enumerate()
        {
            let said = refused(&format!("{table}no-such-key = 1\n"));
            let (_, expected) = said.split_once("expected one of ").unwrap();
            let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            assert_eq!(known, TABLES[here].1);
            assert_eq!(unknown_key(&said), Some(("no-such-key", here)));
        }
    }

    #[test]
    fn a_key_that_does_not_exist_is_told_by_the_one_that_was_meant() {
        for (text, hint) in [
            ("[[connection]]\nhots = 'h'", "did you mean host?"),
            ("[[connection]]\nhostname = 'h'", "did you mean host?"),
            ("[[connection]]\nread-only = true", "did you mean read_only?"),
            ("[[connection]]\nUser = 'ada'", "did you mean user?"),
            ("[[connection]]\nclient-id = 'x'", "did you mean client_id? It belongs under [[workspace]]"),
            ("[[workspace]]\nclient-id = 'x'", "did you mean client_id?"),
            ("[[workspace]]\nsecret = 'x'", "did you mean client_secret_file?"),
            ("[[workspace]]\nport = 1", "did you mean port? It belongs under [[connection]]"),
            ("client-id = 'x'", "did you mean client_id? It belongs under [[workspace]]"),
            ("pgpass_file = 'x'", "did you mean password_file?"),
            ("[[connections]]\nname = 'x'", "did you mean connection?"),
            ("[[connection]]\n[[connection.files]]\npath = 'x'", "did you mean file?"),
            ("[[connection]]\ntemplate = 'x'", "did you mean template? It belongs under [[connection.file]]"),
            ("[[connection]]\n[[connection.file]]\nmod = 'x'", "did you mean mode?"),
            ("[[connection]]\n[[connection.file]]\nuser = 'x'", "did you mean user? It belongs under [[connection]]"),
            (
                "colour = 'x'",
                "the settings that belong here are: interval, password_file, log_file, proxy, no_proxy, proxy_listen, proxy_allow, proxy_max_sessions, proxy_idle_timeout, proxy_tls, notify_command, kubernetes_lease, kubernetes_service_account, workspace, connection",
            ),
        ] {
            assert_eq!(unknown_setting(&refused(text)).map(|(_, hint)| hint).as_deref(), Some(hint), "{text}");
        }
    }
}
