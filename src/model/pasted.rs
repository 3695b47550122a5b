//! A whole connection where one value belongs: a psql command, a URL, a connection string or a line of a password file, as people
//! paste it.

use url::Url;

use crate::typed::shell_word;

/// What libpq knows in a connection string (PostgreSQL, "Parameter Key Words"), as far as people write it.
const KEYWORDS: [&str; 17] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "database",
    "user",
    "username",
    "password",
    "passfile",
    "sslmode",
    "sslrootcert",
    "service",
    "options",
    "connect_timeout",
    "application_name",
    "target_session_attrs",
    "channel_binding",
];

/// Programs that take psql's options.
const PROGRAMS: [&str; 7] = ["psql", "pgcli", "pg_dump", "pg_restore", "pg_isready", "pgbench", "pg_dumpall"];

/// The parts of it. A password is never among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pasted {
    /// What it is, in words: `a psql command`.
    pub(crate) what: String,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) user: Option<String>,
}

impl Pasted {
    /// None where the text is a single value, or anything else.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let text = text.trim().trim_matches(['"', '\'']);
        of_url(text).or_else(|| of_command(text)).or_else(|| of_string(text)).or_else(|| of_password_file(text))
    }

    /// The same of words that a shell has separated.
    pub(crate) fn of_words(words: &[String]) -> Option<Self> {
        Self::of(&words.join(" "))
    }

    /// Which part is what, for people: `db.example as the host, ada as the user`.
    pub(crate) fn parts(&self) -> String {
        let parts = [
            (&self.host, "the host"),
            (&self.port, "the port"),
            (&self.database, "the database"),
            (&self.user, "the user"),
        ];
        let part = |(value, name): (&Option<String>, &str)| Some(format!("{} as {name}", value.as_ref()?));
        parts.into_iter().filter_map(part).collect::<Vec<_>>().join(", ")
    }

    /// The options of this program that say the same.
    pub(crate) fn options(&self) -> String {
        let parts = [
            (&self.host, "--pg-host"),
            (&self.port, "--pg-port"),
            (&self.database, "--pg-database"),
            (&self.user, "--pg-username"),
        ];
        let part = |(value, option): (&Option<String>, &str)| Some(format!("{option} {}", shell_word(value.as_ref()?)));
        parts.into_iter().filter_map(part).collect::<Vec<_>>().join(" ")
    }

    fn or(self, other: Pasted) -> Pasted {
        Pasted {
            what: self.what,
            host: self.host.or(other.host),
            port: self.port.or(other.port),
            database: self.database.or(other.database),
            user: self.user.or(other.user),
        }
    }

    fn is_empty(&self) -> bool {
        self.host.is_none() && self.port.is_none() && self.database.is_none() && self.user.is_none()
    }

    fn set(&mut self, keyword: &str, value: &str) {
        let place = match keyword {
            "host" | "hostaddr" => &mut self.host,
            "port" => &mut self.port,
            "dbname" | "database" => &mut self.database,
            "user" | "username" => &mut self.user,
            _ => return,
        };
        *place = Some(value.to_owned()).filter(|value| !value.is_empty());
    }
}

fn of_url(text: &str) -> Option<Pasted> {
    let (what, text) = match text.strip_prefix("jdbc:") {
        Some(rest) => ("a JDBC URL", rest),
        None => ("a connection URL", text),
    };
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.split('+').next().unwrap_or_default();
    if !matches!(scheme, "postgres" | "postgresql") {
        return None;
    }
    let mut pasted = Pasted { what: what.to_owned(), ..Pasted::default() };
    let Ok(url) = Url::parse(&format!("postgresql://{rest}")) else { return Some(pasted) };
    let decoded = |text: &str| {
        let form = format!("x={}", text.replace('+', "%2B"));
        url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    pasted.set("host", url.host_str().unwrap_or_default().trim_matches(['[', ']']));
    pasted.set("port", &url.port().map(|port| port.to_string()).unwrap_or_default());
    pasted.set("user", &decoded(url.username()));
    pasted.set("dbname", &decoded(url.path().trim_start_matches('/')));
    for (keyword, value) in url.query_pairs() {
        pasted.set(&keyword, &value);
    }
    Some(pasted)
}

fn of_command(text: &str) -> Option<Pasted> {
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    // PGPASSWORD=... psql
    let is_assignment = |word: &&&str| word.split_once('=').is_some_and(|(name, _)| name.starts_with("PG"));
    let mut words = words.iter().skip_while(is_assignment);
    let program = words.next()?.rsplit('/').next().unwrap_or_default();
    if !PROGRAMS.contains(&program) {
        return None;
    }
    let mut pasted = Pasted { what: format!("a {program} command"), ..Pasted::default() };
    let mut plain = vec!["user", "dbname"];
    while let Some(word) = words.next() {
        let (option, value) = match word.strip_prefix("--") {
            Some(long) => match long.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None => (long, None),
            },
            None if word.len() > 2 && word.starts_with('-') => {
                word.split_at_checked(2).map_or((*word, None), |(o, v)| (o, Some(v)))
            }
            None => (*word, None),
        };
        let keyword = match option {
            "-h" | "host" => "host",
            "-p" | "port" => "port",
            "-U" | "username" => "user",
            "-d" | "dbname" => "dbname",
            // What follows is SQL or a file.
            "-c" | "-f" | "command" | "file" => {
                plain.clear();
                continue;
            }
            other if other.starts_with('-') || word.starts_with("--") => continue,
            _ => match plain.pop() {
                Some(keyword) => {
                    pasted.take(keyword, word);
                    continue;
                }
                None => continue,
            },
        };
        if let Some(value) = value.or_else(|| words.next().copied()) {
            pasted.take(keyword, value);
        }
    }
    Some(pasted)
}

impl Pasted {
    /// psql takes a whole connection string where a database's name belongs.
    fn take(&mut self, keyword: &str, value: &str) {
        match of_url(value).or_else(|| of_string(value)).filter(|_| keyword == "dbname") {
            Some(whole) => *self = std::mem::take(self).or(whole),
            None => self.set(keyword, value),
        }
    }
}

/// `host=... user=...`: more than one setting, or it is one value with its name.
fn of_string(text: &str) -> Option<Pasted> {
    let words: Vec<(&str, &str)> = text.split_whitespace().map(|word| word.split_once('=')).collect::<Option<_>>()?;
    if words.len() < 2 || !words.iter().all(|(keyword, _)| KEYWORDS.contains(keyword)) {
        return None;
    }
    let mut pasted = Pasted { what: "a connection string".to_owned(), ..Pasted::default() };
    for (keyword, value) in words {
        pasted.set(keyword, value.trim_matches('\''));
    }
    Some(pasted).filter(|pasted| !pasted.is_empty())
}

/// `host:port:database:user:password`.
fn of_password_file(text: &str) -> Option<Pasted> {
    let fields: Vec<&str> = text.splitn(5, ':').collect();
    let [host, port, database, user, _] = fields[..] else { return None };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty();
    // An IPv6 address has as many colons.
    if host.is_empty() || !is_port || user.is_empty() || text.parse::<std::net::IpAddr>().is_ok() || !host.contains('.')
    {
        return None;
    }
    let mut pasted = Pasted { what: "a line of a password file".to_owned(), ..Pasted::default() };
    for (keyword, value) in [("host", host), ("port", port), ("dbname", database), ("user", user)] {
        pasted.set(keyword, value);
    }
    Some(pasted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_connection_is_known_by_its_parts_and_its_password_is_dropped() {
        let all = "--pg-host db.example --pg-port 6432 --pg-database app --pg-username ada@example.com";
        let few = "--pg-host db.example --pg-username ada";
        for (text, what, options) in [
            ("postgresql://ada%40example.com:secret@db.example:6432/app?sslmode=require", "a connection URL", all),
            ("postgres://ada:secret@db.example", "a connection URL", few),
            ("postgresql+psycopg://ada@db.example", "a connection URL", few),
            ("jdbc:postgresql://db.example:6432/app?user=ada@example.com&password=secret", "a JDBC URL", all),
            ("psql -h db.example -p 6432 -U ada@example.com -d app", "a psql command", all),
            ("psql -hdb.example --port=6432 --username ada@example.com app", "a psql command", all),
            ("PGPASSWORD=secret /usr/bin/psql --host db.example -U ada -c 'select 1;'", "a psql command", few),
            (
                "psql \"host=db.example port=6432 dbname=app user=ada@example.com password=secret\"",
                "a psql command",
                "",
            ),
            ("psql postgres://ada:secret@db.example", "a psql command", few),
            ("pg_dump -h db.example -U ada", "a pg_dump command", few),
            ("host=db.example user=ada password=secret sslmode=require", "a connection string", few),
            ("'host=db.example user=ada'", "a connection string", few),
            ("db.example:6432:app:ada@example.com:secret", "a line of a password file", all),
            ("postgresql://a.example,b.example/app", "a connection URL", ""),
        ] {
            let pasted = Pasted::of(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(pasted.what, what, "{text}");
            if !options.is_empty() {
                assert_eq!(pasted.options(), options, "{text}");
            }
            assert!(!format!("{pasted:?}").contains("secret"), "{pasted:?}");
        }
    }

    #[test]
    fn a_single_value_is_no_whole_connection() {
        for text in [
            "db.example",
            "https://db.example",
            "::1",
            "1:2:3:4:5:6:7:8",
            "host=db.example",
            "data readers",
            "/tmp/x=y z=w",
            "",
        ] {
            assert_eq!(Pasted::of(text), None, "{text}");
        }
    }
}
