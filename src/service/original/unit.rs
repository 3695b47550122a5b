//! Reads a unit as systemd does (systemd.syntax(7), systemd.service(5), systemd.exec(5)), as far as the original's needs it: its
//! command line and its environment.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{OF_SECRET, Told};
use crate::words;

/// Settings that say nothing about what is kept alive, or that the new service has its own of.
const OF_THE_SERVICE: [&str; 20] = [
    "Type",
    "Restart",
    "RestartSec",
    "StandardOutput",
    "StandardError",
    "StandardInput",
    "SyslogIdentifier",
    "WorkingDirectory",
    "KillMode",
    "KillSignal",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "TimeoutSec",
    "UMask",
    "Nice",
    "PrivateTmp",
    "NoNewPrivileges",
    "ProtectSystem",
    "ProtectHome",
    "StartLimitInterval",
];

/// Reads a file, such as one that EnvironmentFile= names.
type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Zeroizing<String>>;

/// What a unit and its drop-ins say, in their order, to the user with this home.
pub(in crate::service) fn read(files: &[PathBuf], home: &Path, user: &str, read: Read<'_>) -> Told {
    let mut reader = Reader { home, user, read, command: None, at: PathBuf::new(), told: Told::default() };
    for file in files {
        match read(file) {
            Ok(text) => {
                reader.at.clone_from(file);
                reader.unit(&text);
            }
            Err(error) => reader.cannot_read(file, &error),
        }
    }
    // Its variables may stand below it.
    if let Some(line) = reader.command.take() {
        reader.told.words = reader.command_line(line.trim_start_matches(['-', '@', ':', '+', '!']));
    }
    reader.told
}

struct Reader<'a> {
    home: &'a Path,
    user: &'a str,
    read: Read<'a>,
    /// The last ExecStart=.
    command: Option<Zeroizing<String>>,
    /// The file that is being read.
    at: PathBuf,
    told: Told,
}

impl Reader<'_> {
    fn cannot_read(&mut self, file: &Path, error: &io::Error) {
        self.told.left.push(format!("{} cannot be read: {}", file.display(), words::of_io(error)));
    }

    fn unit(&mut self, text: &str) {
        let mut section = String::new();
        for line in joined(text) {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = line.split_once('=').filter(|_| section == "Service") {
                self.setting(key.trim(), value.trim());
            }
        }
    }

    fn setting(&mut self, key: &str, value: &str) {
        if ["ExecStart", "Environment"].contains(&key) && OF_SECRET.iter().any(|name| value.contains(name)) {
            self.told.secret_in = Some(self.at.clone());
        }
        match (key, value) {
            ("ExecStart", line) => self.command = Some(line.to_owned().into()).filter(|_| !line.is_empty()),
            ("Environment", "") => self.told.variables.clear(),
            ("Environment", line) => {
                let words = self.words(line);
                let variables = words.iter().filter_map(|word| word.split_once('='));
                self.told.variables.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned().into())));
            }
            ("EnvironmentFile", "") => {}
            ("EnvironmentFile", name) => self.environment_file(name),
            (key, _) if OF_THE_SERVICE.contains(&key) => {}
            // Without the value, which may hold a secret.
            (key, _) => self.told.left.push(format!("{key}= of the unit")),
        }
    }

    /// The words of a command line, with variables in their place.
    fn command_line(&mut self, line: &str) -> Vec<Zeroizing<String>> {
        let words = self.words(line);
        words.into_iter().map(|word| self.with_variables(&word)).collect()
    }

    fn with_variables(&self, word: &str) -> Zeroizing<String> {
        let mut word = Zeroizing::new(word.to_owned());
        // Longer names first: $AB is not $A and a B.
        let mut variables: Vec<_> = self.told.variables.iter().collect();
        variables.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, value) in variables {
            *word = word.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
        }
        word
    }

    /// Words with quotes, escapes and specifiers as systemd reads them.
    fn words(&mut self, line: &str) -> Vec<Zeroizing<String>> {
        let (mut words, mut quote, mut rest) = (Vec::new(), None, line.chars().peekable());
        let mut word: Option<Zeroizing<String>> = None;
        while let Some(c) = rest.next() {
            match c {
                '"' | '\'' if quote == Some(c) => quote = None,
                '"' | '\'' if quote.is_none() => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                c if c.is_whitespace() && quote.is_none() => words.extend(word.take()),
                '\\' => word.get_or_insert_default().extend(rest.next().map(escaped)),
                '%' => {
                    let meant = self.specifier(rest.next());
                    word.get_or_insert_default().push_str(&meant);
                }
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    fn specifier(&mut self, specifier: Option<char>) -> String {
        match specifier {
            Some('h') => self.home.display().to_string(),
            Some('u') => self.user.to_owned(),
            Some('E') => self.home.join(".config").display().to_string(),
            Some('%') => "%".to_owned(),
            other => {
                let text = format!("%{}", other.map(String::from).unwrap_or_default());
                self.told.left.push(format!("{text} of the unit, which is not replaced here"));
                text
            }
        }
    }

    fn environment_file(&mut self, name: &str) {
        let may_lack = name.starts_with('-');
        let path: String = self.words(name.trim_start_matches('-')).iter().map(|word| word.as_str()).collect();
        match (self.read)(Path::new(&path)) {
            Ok(text) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
                let variables = lines.filter_map(|line| line.split_once('='));
                let bare = |value: &str| {
                    let value = value.trim();
                    let inner = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
                    Zeroizing::new(inner.unwrap_or(value).to_owned())
                };
                self.told.variables.extend(variables.map(|(name, value)| (name.trim().to_owned(), bare(value))));
                if text.contains(OF_SECRET[0]) {
                    self.told.secret_in = Some(PathBuf::from(&path));
                }
            }
            Err(error) if may_lack && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.cannot_read(Path::new(&path), &error),
        }
    }
}

/// Lines, with those that end in a backslash joined to the next, and without comments.
fn joined(text: &str) -> Vec<Zeroizing<String>> {
    let (mut lines, mut open): (Vec<Zeroizing<String>>, _) = (Vec::new(), false);
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        let part = line.strip_suffix('\\');
        match lines.last_mut().filter(|_| open) {
            Some(last) => {
                last.push(' ');
                last.push_str(part.unwrap_or(line));
            }
            None => lines.push(part.unwrap_or(line).to_owned().into()),
        }
        open = part.is_some();
    }
    lines
}

fn escaped(c: char) -> char {
    match c {
        'n' => '\n',
        't' => '\t',
        's' => ' ',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn told(files: &[(&str, &str)]) -> Told {
        let there: BTreeMap<PathBuf, &str> = files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect();
        let units: Vec<PathBuf> =
            files.iter().map(|(path, _)| PathBuf::from(path)).filter(|path| !path.ends_with("env")).collect();
        read(&units, Path::new("/home/ada"), "ada", &|path| match there.get(path) {
            Some(&"") => Err(io::ErrorKind::PermissionDenied.into()),
            Some(text) => Ok((*text).to_owned().into()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn words(told: &Told) -> Vec<&str> {
        told.words.iter().map(|word| word.as_str()).collect()
    }

    fn variables(told: &Told) -> Vec<(&str, &str)> {
        told.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn a_command_line_and_an_environment_are_read_as_systemd_reads_them() {
        let unit = "[Unit]\nDescription=x=y\n# ExecStart=/comment\n[Service]\nType=simple\n\
            Environment=\"A=one word\" B='two' C=th\\\"ree\\x\n  Environment = D=%h/x E=100%%\n\
            ExecStart=-/usr/bin/python3 \\\n  # between\n  -m rotator --a \"${A}\" --b=$B --u %u '' \\\n --last\n\
            [Install]\nWantedBy=default.target\n";
        let told = told(&[("/u", unit)]);
        let expected = ["/usr/bin/python3", "-m", "rotator", "--a", "one word", "--b=two", "--u", "ada", "", "--last"];
        assert_eq!(words(&told), expected);
        let expected = [("A", "one word"), ("B", "two"), ("C", "th\"reex"), ("D", "/home/ada/x"), ("E", "100%")];
        assert_eq!(variables(&told), expected);
        assert_eq!((told.left, told.secret_in), (vec![], None));
    }

    #[test]
    fn drop_ins_add_and_take_back_and_files_of_variables_are_read() {
        let told = told(&[
            ("/u", "[Service]\nEnvironment=A=1\nExecStart=/old --x\nEnvironmentFile=%h/env\n"),
            ("/u.d/a.conf", "[Service]\nEnvironment=\nEnvironment=B=2\nExecStart=\nExecStart=/new --y\n"),
            ("/u.d/b.conf", "[Service]\nEnvironmentFile=-/nowhere\nEnvironmentFile=/home/ada/env\n"),
            ("/home/ada/env", "# x\nC=\"3 4\"\n\nD = five \nE='6'\nDATABRICKS_CLIENT_SECRET=x\n"),
        ]);
        assert_eq!(told.secret_in, Some(PathBuf::from("/home/ada/env")));
        assert_eq!(words(&told), ["/new", "--y"]);
        assert_eq!(variables(&told), [("B", "2"), ("C", "3 4"), ("D", "five"), ("E", "6"), (OF_SECRET[0], "x")]);
        assert!(told.left.is_empty(), "{:?}", told.left);
    }

    #[test]
    fn what_is_not_read_or_not_understood_is_said() {
        let told = told(&[
            ("/locked", ""),
            (
                "/u",
                "[Service]\nExecStartPre=/bin/x s3cret\nEnvironmentFile=/gone\nExecStart=/x %t\nEnvironment=S=s3cret\n",
            ),
        ]);
        let left = told.left.join("\n");
        for said in ["/locked cannot be read", "ExecStartPre= of", "/gone cannot be read", "%t"] {
            assert!(left.contains(said), "{said}: {left}");
        }
        assert!(!left.contains("s3cret"));
    }
}
