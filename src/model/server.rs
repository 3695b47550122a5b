//! Checks what a person wrote as a PostgreSQL host or user. A host is a name, an address or a socket directory; a user is
//! anything that is not left over from an example. Anything else would be published and never found, so it is refused, with what
//! it looks like.

use std::net::IpAddr;

use super::left_over::looks_left_over;
use super::pasted::Pasted;
use super::vendor;

/// The longest name and the longest label of a name, in bytes (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

const PLACEHOLDER: &str = "holds a placeholder of an example";

/// What is wrong with a value, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) why: String,
    pub(crate) hint: String,
}

fn misfit(value: &str, looks: &str, hint: impl Into<String>) -> Option<Misfit> {
    Some(Misfit { why: format!("`{value}` {looks}"), hint: hint.into() })
}

/// Why this cannot be the host of a database; none if it can.
pub(crate) fn host_misfit(value: &str) -> Option<Misfit> {
    if let Some(left_over) = left_over_of(value) {
        return Some(left_over);
    }
    // An address whose scheme was cut off. A path that begins so is one that somebody has put together wrongly.
    if let Some(rest) = value.strip_prefix("//") {
        return misfit(value, "begins with //, as an address does after its scheme", leave(host_in(rest)));
    }
    if is_socket_directory(value) || is_address(value) {
        return None;
    }
    if let Some(pasted) = whole_connection(value) {
        return Some(pasted);
    }
    if let Some((_, rest)) = value.split_once("://") {
        return misfit(value, "is an address with a scheme, not a host name", leave(host_in(rest)));
    }
    if let Some(inner) = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|ip| is_address(ip)) {
        return misfit(value, "has the brackets of a URL", leave(inner));
    }
    if value.contains(char::is_whitespace) {
        return misfit(value, "holds blanks, as a command or a connection string does", "write the host name alone");
    }
    let holds = |open: char, close: char| value.split_once(open).is_some_and(|(_, rest)| rest.contains(close));
    if holds('<', '>') || holds('{', '}') {
        return misfit(value, PLACEHOLDER, "write the value itself");
    }
    if let Some((key, host)) = value.split_once('=').filter(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase())) {
        return misfit(value, &format!("is a setting ({key}=...), not a host name"), leave(host));
    }
    if let Some((first, _)) = value.split_once(',') {
        let hint = format!("write one host, such as {first}; several databases are several connections");
        return misfit(value, "is a list of hosts", hint);
    }
    if let Some((host, _)) = value.split_once(['/', '?', '\\']) {
        return misfit(value, "is a host with a path or an option", leave(host));
    }
    if let Some((user, host)) = value.split_once('@') {
        let hint = format!("write {host} as the host and {user} as the user");
        return misfit(value, "is a user and a host", hint);
    }
    if let Some((host, port)) = value.rsplit_once(':').filter(|(host, port)| !host.contains(':') && is_number(port)) {
        let hint = format!("give the host as {host} and the port as --pg-port {port}, or port = {port}");
        return misfit(value, "is a host with a port", hint);
    }
    if vendor::is_workspace(value) {
        let hint = "`dbx-rotator connections` lists the hosts of the databases that you can see";
        return misfit(value, "is a workspace's address: no database is there", hint);
    }
    name_misfit(value)
}

/// What is said of a whole connection where one part of it belongs. It is not quoted: it may hold a password.
fn whole_connection(value: &str) -> Option<Misfit> {
    let pasted = Pasted::of(value)?;
    let parts = pasted.parts();
    let hint = if parts.is_empty() { "write each part by itself".to_owned() } else { format!("write {parts}") };
    Some(Misfit { why: format!("is given as {}", pasted.what), hint })
}

/// Why this cannot be a host's name; none where it can. Underscores are no part of one, and found in many.
pub(super) fn name_misfit(value: &str) -> Option<Misfit> {
    let hint = "write the host as the workspace shows it; `dbx-rotator connections` lists those that you can see";
    if value.is_empty() {
        return misfit(value, "is empty", hint);
    }
    if value.len() > LONGEST_NAME {
        return misfit(value, "is longer than a host name can be (253 characters)", hint);
    }
    if let Some(odd) = value.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        return misfit(value, &format!("is not a host name: {odd:?} cannot be in one"), hint);
    }
    // A dot at the end is the root's.
    let labels = || value.strip_suffix('.').unwrap_or(value).split('.');
    if labels().any(|label| label.is_empty() || label.len() > LONGEST_LABEL) {
        return misfit(value, "is not a host name: between two dots are 1 to 63 characters", hint);
    }
    // RFC 1123, section 2.1.
    if labels().any(|label| label.starts_with('-') || label.ends_with('-')) {
        return misfit(value, "is not a host name: no part of one begins or ends with a hyphen", hint);
    }
    let is_part_of_an_address = |label: &str| is_number(label) || label.starts_with("0x") || label.starts_with("0X");
    if labels().next_back().is_some_and(is_part_of_an_address) && !is_address(value) {
        return misfit(value, "is neither a name nor a whole address: that has four numbers up to 255", hint);
    }
    None
}

/// Why this cannot be a user; none if it can. The name of a group may hold nearly anything.
pub(crate) fn user_misfit(value: &str) -> Option<Misfit> {
    if let Some(left_over) = left_over_of(value) {
        return Some(left_over);
    }
    let address = |hint: &str| format!("write {hint} alone");
    if let Some((_, mail)) =
        value.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')).filter(|(_, m)| m.contains('@'))
    {
        return misfit(value, "is a name with an e-mail address", address(mail));
    }
    if let Some(whole) = whole_connection(value) {
        return Some(whole);
    }
    let settings = ["mailto:", "user=", "username=", "PGUSER=", "DATABRICKS_PG_USERNAME="];
    let rest = settings.iter().find_map(|before| value.strip_prefix(before));
    rest.and_then(|rest| misfit(value, "is more than a user", address(rest)))
}

/// Why this cannot be a database; none where it can. Its name may hold nearly anything.
pub(crate) fn database_misfit(value: &str) -> Option<Misfit> {
    user_misfit(value)
}

/// Finds what is left of an example, or what a shell or a template should have replaced.
pub(crate) fn left_over_of(value: &str) -> Option<Misfit> {
    let hint = "write the value itself";
    let between = |open: &str, close: &str| {
        let inner = value.strip_prefix(open)?.strip_suffix(close)?;
        (!inner.is_empty()).then_some(inner)
    };
    for quote in ["\"", "'", "`", "\u{201c}", "\u{2018}", "\u{201e}"] {
        let closing = match quote {
            "\u{201c}" | "\u{201e}" => ["\u{201d}", "\u{201c}"],
            "\u{2018}" => ["\u{2019}", "\u{2018}"],
            same => [same, same],
        };
        if let Some(inner) = closing.into_iter().find_map(|close| between(quote, close)) {
            let hint = format!("leave out the quotes: {inner} (docker's --env-file keeps them)");
            return misfit(value, "is in quotes", hint);
        }
    }
    looks_left_over(value).and_then(|looks| misfit(value, looks, hint))
}

/// The host of an address, from what comes after its `//`.
fn host_in(rest: &str) -> &str {
    let (_, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    host.split(['/', ':', '?']).next().unwrap_or_default()
}

fn leave(host: &str) -> String {
    if host.is_empty() { "write the host name alone".to_owned() } else { format!("write {host} alone") }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// As libpq recognises one (`is_unixsock_path` in src/include/port.h).
pub(super) fn is_socket_directory(value: &str) -> bool {
    value.starts_with(['/', '@']) && value.len() > 1 && !value.chars().any(char::is_control)
}

/// An IPv4 or IPv6 address; the latter may name its interface (RFC 4007, section 11).
fn is_address(value: &str) -> bool {
    let (address, zone) = value.split_once('%').unwrap_or((value, "x"));
    value.parse::<IpAddr>().is_ok() || (address.contains(':') && !zone.is_empty() && address.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_socket_directories_are_hosts() {
        for host in [
            "db.example.com",
            "localhost",
            "h",
            "db_1.internal",
            "instance-f96815e5-c6ae-466b-abc7-dc874505beec.database.cloud.databricks.com",
            "ep-quiet-sun-1234.database.eu-west-1.azuredatabricks.net",
            "xn--bcher-kva.example",
            "db.example.com.",
            "127.0.0.1",
            "::1",
            "fe80::1%eth0",
            "/var/run/postgresql",
            "@abstract",
        ] {
            assert_eq!(host_misfit(host), None, "{host}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_it_looks_like() {
        let long = format!("{}.example", "a".repeat(64));
        for (host, looks, hint) in [
            ("\"db.example.com\"", "in quotes", "db.example.com"),
            ("'db.example.com'", "in quotes", "--env-file"),
            ("\u{201c}db.example.com\u{201d}", "in quotes", "db.example.com"),
            ("${PGHOST}", "variable", "value itself"),
            ("$PGHOST", "variable", "value itself"),
            ("%PGHOST%", "variable", "value itself"),
            ("$(cat host)", "variable", "value itself"),
            ("<your-host>", "placeholder", "value itself"),
            ("{{ host }}", "placeholder", "value itself"),
            ("{host}.example.com", "placeholder", "value itself"),
            ("<name>.database.cloud.databricks.com", "placeholder", "value itself"),
            ("ada@db.example.com", "user and a host", "db.example.com as the host and ada"),
            ("host=db.example.com", "setting (host=...)", "db.example.com alone"),
            ("a.example,b.example", "list of hosts", "a.example"),
            ("db.example.com/databricks_postgres?sslmode=require", "path or an option", "db.example.com alone"),
            (
                "postgresql://ada:pw@db.example.com:5432/x",
                "given as a connection URL",
                "db.example.com as the host, 5432",
            ),
            ("https://db.example.com", "scheme", "db.example.com alone"),
            ("//db.example.com/orders", "begins with //", "db.example.com alone"),
            (
                "jdbc:postgresql://db.example.com/x",
                "given as a JDBC URL",
                "db.example.com as the host, x as the database",
            ),
            ("psql -h db.example.com", "given as a psql command", "db.example.com as the host"),
            ("nslookup db.example.com", "blanks", "host name alone"),
            (
                "host=db.example.com port=5432",
                "given as a connection string",
                "db.example.com as the host, 5432 as the port",
            ),
            ("db.example.com:5432", "with a port", "--pg-port 5432"),
            ("[::1]", "brackets", "::1 alone"),
            ("db..example", "between two dots", "dbx-rotator connections"),
            (".example", "between two dots", "dbx-rotator connections"),
            (&long, "between two dots", "dbx-rotator connections"),
            ("db.example.com;", "';'", "dbx-rotator connections"),
            ("db*.example", "'*'", "dbx-rotator connections"),
            ("@PGHOST@", "placeholder", "value itself"),
            ("__PGHOST__", "placeholder", "value itself"),
            ("YOUR_HOST", "placeholder", "value itself"),
            ("null", "no value", "value itself"),
            ("changeme", "no value", "value itself"),
            ("***", "masked", "value itself"),
            ("-h", "hyphen", "dbx-rotator connections"),
            ("-db.example.com", "hyphen", "dbx-rotator connections"),
            ("db-.example.com", "hyphen", "dbx-rotator connections"),
            ("999.1.1.1", "four numbers", "dbx-rotator connections"),
            ("1.2.3.4.5", "four numbers", "dbx-rotator connections"),
            ("1.2.3", "four numbers", "dbx-rotator connections"),
            ("0x7f000001", "four numbers", "dbx-rotator connections"),
            ("dbc-1234.cloud.databricks.com", "workspace's address", "dbx-rotator connections"),
            ("adb-1.2.azuredatabricks.net", "workspace's address", "dbx-rotator connections"),
            ("db.example\u{7}", "\\u{7}", "dbx-rotator connections"),
            ("", "is empty", "dbx-rotator connections"),
        ] {
            let misfit = host_misfit(host).unwrap_or_else(|| panic!("{host}"));
            assert!(misfit.why.contains(looks) && misfit.hint.contains(hint), "{host}: {misfit:?}");
        }
    }

    #[test]
    fn a_user_may_be_called_nearly_anything_but_what_an_example_calls_it() {
        for user in [
            "ada@example.com",
            "data readers",
            "0b1c2d3e-0000-4000-8000-000000000000",
            "o'brien",
            "a{b}",
            "a <b>",
            "$",
            "50%",
        ] {
            assert_eq!(user_misfit(user), None, "{user}");
        }
        for user in ["<client-id>", "${USER}", "$USER", "{{user}}", "\"ada@example.com\"", "%USER%", "{client_id}"] {
            assert!(user_misfit(user).is_some(), "{user}");
            assert!(database_misfit(user).is_some(), "{user}");
        }
        for user in [
            "@USER@",
            "__USER__",
            "%(user)s",
            "[user]",
            "YOUR_CLIENT_ID",
            "null",
            "***",
            "mailto:ada@example.com",
            "user=ada@example.com",
            "Ada Lovelace <ada@example.com>",
        ] {
            assert!(user_misfit(user).is_some(), "{user}");
        }
    }
}
