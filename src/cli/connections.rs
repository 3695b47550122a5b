//! `dbx-rotator connections`.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::needs::{Meant, Needs, assignment};
use super::rotate::Error;
use super::{Fault, block_on_to_the_end, print};
use crate::config::{Config, Overrides};
use crate::failure::{Code, Failure};
use crate::foreign;
use crate::generated::{is_plain, read_back};
use crate::lakebase::{Database, Target};
use crate::model::Workspace;
use crate::rotation::{Discovered, discover};

/// The output format.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Table,
    Json,
    Toml,
}

impl Form {
    /// As the options say; the command takes one of the two at most.
    pub(super) fn of(json: bool, toml: bool) -> Self {
        match (json, toml) {
            (true, _) => Form::Json,
            (_, true) => Form::Toml,
            _ => Form::Table,
        }
    }
}

pub(super) type Seen<'a> = (&'a Workspace, Result<Discovered, Failure>);

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    workspaces: Vec<WorkspaceRow<'a>>,
}

#[derive(Serialize)]
struct WorkspaceRow<'a> {
    name: &'a str,
    host: &'a str,
    user: Option<&'a str>,
    databases: Vec<Row<'a>>,
    error: Option<Error<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    instance: Option<&'a str>,
    endpoint: Option<&'a str>,
    state: &'static str,
    host: Option<&'a str>,
    read_only_host: Option<&'a str>,
}

pub(super) fn run(form: Form, overrides: &Overrides) -> Result<u8, Fault> {
    let config = Config::load_workspaces(overrides)?;
    let seen = see(&config)?;
    let mut codes: Vec<Code> = Vec::new();
    match form {
        Form::Json => print::json(&Answer { version: 1, workspaces: seen.iter().map(workspace_row).collect() })?,
        Form::Table => print::out(&table(&seen))?,
        Form::Toml => {
            let (text, refused) = toml(&seen, &Needs::of(&config, overrides))?;
            print::out(&text)?;
            for name in &refused {
                print::warning(&format!("left out {name}: a configuration cannot carry what the workspace says of it"));
            }
            codes.extend(refused.iter().map(|_| Code::Unavailable));
        }
    }
    for (workspace, result) in &seen {
        match result {
            Err(failure) => {
                let message = if seen.len() > 1 {
                    format!("workspace {}: {failure}", workspace.name())
                } else {
                    failure.message.clone()
                };
                print::error(&message, failure.hint.as_deref());
                codes.push(failure.code);
            }
            Ok(visible) if visible.databases.is_empty() => print::warning(&format!(
                "{} sees no database in {}: let an administrator give it CAN USE on one",
                visible.user.as_deref().unwrap_or("this identity"),
                workspace.host()
            )),
            Ok(_) => {}
        }
    }
    Ok(Code::exit_code_of(codes))
}

/// What the identity of each workspace can see, in the order of the configuration.
///
/// # Errors
/// No runtime can be made.
pub(super) fn see(config: &Config) -> Result<Vec<Seen<'_>>, Failure> {
    block_on_to_the_end(discover(config))
}

fn workspace_row<'a>((workspace, result): &'a Seen<'a>) -> WorkspaceRow<'a> {
    let visible = result.as_ref().ok();
    WorkspaceRow {
        name: workspace.name(),
        host: workspace.host().origin(),
        user: visible.and_then(|visible| visible.user.as_deref()),
        databases: visible.map(|visible| visible.databases.iter().map(row).collect()).unwrap_or_default(),
        error: result.as_ref().err().map(Error::from),
    }
}

fn row(database: &Database) -> Row<'_> {
    let found = &database.found;
    let (instance, endpoint) = match &found.target {
        Target::Instance(name) => (Some(name.as_str()), None),
        Target::Endpoint(name) => (None, Some(name.as_str())),
    };
    Row {
        name: &database.name,
        instance,
        endpoint,
        state: found.state.word(),
        host: found.host.as_deref(),
        read_only_host: found.read_only_host.as_deref(),
    }
}

fn table(seen: &[Seen<'_>]) -> String {
    let several = seen.len() > 1;
    let head = ["NAME", "KIND", "STATE", "HOST", "READ-ONLY HOST"];
    let with = |workspace: &str, cells: Vec<String>| {
        several.then(|| workspace.to_owned()).into_iter().chain(cells).collect::<Vec<_>>()
    };
    let mut rows = vec![with("WORKSPACE", head.map(str::to_owned).to_vec())];
    for (workspace, result) in seen {
        let Ok(visible) = result else { continue };
        for database in &visible.databases {
            let Row { name, instance, state, host, read_only_host, .. } = row(database);
            let kind = if instance.is_some() { "instance" } else { "endpoint" };
            let cells = [name, kind, state, host.unwrap_or("-"), read_only_host.unwrap_or("-")];
            rows.push(with(workspace.name(), cells.map(str::to_owned).to_vec()));
        }
    }
    if rows.len() == 1 { String::new() } else { print::table(&rows) }
}

/// The tables of a configuration, by kind; what stands at its head has none.
type Tables = Vec<(&'static str, Meant)>;

/// What can be pasted into config.toml as it is: names are told apart, and everything that a connection needs is found, or written
/// from what only this run has. Beside it the names of those that cannot be written, on one line each.
fn toml(seen: &[Seen<'_>], needs: &Needs) -> Result<(String, Vec<String>), Failure> {
    let mut draft = Draft::default();
    for (kind, meant) in [("", &needs.head), ("workspace", &needs.workspace)].into_iter().filter(|(_, t)| !t.is_empty())
    {
        draft.text.push_str(&table_text(kind, meant));
        draft.text.push('\n');
        draft.tables.push((kind, meant.clone()));
    }
    let comments = needs.comments();
    if !comments.is_empty() {
        draft.text.push_str(&format!("{comments}\n"));
    }
    for (workspace, result) in seen {
        let Ok(visible) = result else { continue };
        for database in &visible.databases {
            draft.add(database, (seen.len() > 1).then(|| workspace.name()), &needs.connection);
        }
    }
    draft.finish()
}

/// The `[[connection]]` tables for these databases of one workspace.
///
/// # Errors
/// A configuration cannot carry what the workspace says of one of them; `others` says how to go on without it.
pub(super) fn sections_for<'d>(
    databases: impl IntoIterator<Item = &'d Database>,
    others: &str,
) -> Result<String, Failure> {
    let mut draft = Draft::default();
    databases.into_iter().for_each(|database| draft.add(database, None, &Meant::new()));
    let (text, refused) = draft.finish()?;
    match refused.first() {
        None => Ok(text),
        Some(name) => {
            let message = format!("a configuration cannot carry what the workspace says of {name}");
            Err(Failure::permanent(Code::Configuration, message).hint(others))
        }
    }
}

/// A configuration as it grows.
#[derive(Default)]
struct Draft {
    text: String,
    /// What the text means.
    tables: Tables,
    /// The names of connections that are taken.
    taken: HashSet<String>,
    /// The names of databases that a configuration cannot carry, on one line each.
    refused: Vec<String>,
}

impl Draft {
    /// A connection to this database, with its workspace's name where there are several, and with `more` settings.
    fn add(&mut self, database: &Database, workspace: Option<&str>, more: &Meant) {
        let row = row(database);
        if !row.is_expressible() {
            self.refused.push(foreign::line(row.name).into_owned());
            return;
        }
        let mut meant = row.meant(&mut self.taken, workspace);
        meant.extend(more.iter().cloned());
        self.text.push_str(&row.section(&meant));
        self.tables.push(("connection", meant));
    }

    /// The text, read back, and what was refused.
    fn finish(self) -> Result<(String, Vec<String>), Failure> {
        read_back("the configuration", &self.tables, sections(&self.text).as_ref())?;
        Ok((self.text, self.refused))
    }
}

impl Row<'_> {
    /// Its settings; its workspace's name where there are several.
    fn meant(&self, taken: &mut HashSet<String>, workspace: Option<&str>) -> Meant {
        let mut meant: Meant = vec![("name", unique(self.name, taken))];
        meant.extend(workspace.map(|name| ("workspace", name.to_owned())));
        meant.extend(self.instance.map(|name| ("instance", name.to_owned())));
        meant.extend(self.endpoint.map(|name| ("endpoint", name.to_owned())));
        meant
    }

    /// Whether a configuration can carry it: a name that the API takes, and hosts that can stand in a comment.
    fn is_expressible(&self) -> bool {
        let is_id = |text: &str| is_plain(text) && !text.is_empty() && !text.contains(char::is_whitespace);
        let is_host = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        is_plain(self.name)
            && self.instance.is_none_or(|name| is_id(name) && !name.contains('/'))
            && self.endpoint.is_none_or(is_id)
            && [self.host, self.read_only_host].into_iter().flatten().all(is_host)
    }

    fn section(&self, meant: &Meant) -> String {
        let mut text = table_text("connection", meant);
        // Writing to a String cannot fail.
        if let Some(host) = self.read_only_host.filter(|own| Some(*own) != self.host) {
            let _ = writeln!(text, "# read_only = true    # a second entry, for {host}");
        }
        let _ = writeln!(text, "# {}, {}\n", self.state, self.host.unwrap_or("no host yet"));
        text
    }
}

/// A table and its head; the text at the head of a file has no kind.
fn table_text(kind: &str, meant: &Meant) -> String {
    let head = if kind.is_empty() { String::new() } else { format!("[[{kind}]]\n") };
    let lines = meant.iter().map(|(key, value)| format!("{}\n", assignment(key, value)));
    head + &lines.collect::<String>()
}

/// The tables of a configuration that holds nothing else, in their order; none for any other.
fn sections(text: &str) -> Option<Tables> {
    const KEYS: [&str; 12] = [
        "name",
        "workspace",
        "instance",
        "endpoint",
        "user",
        "database",
        "host",
        "auth",
        "client_id",
        "client_secret_file",
        "profile",
        "cli_path",
    ];
    let document: toml_edit::DocumentMut = text.parse().ok()?;
    let setting = |(key, item): (&str, &toml_edit::Item)| {
        let key = KEYS.into_iter().find(|known| *known == key)?;
        Some((key, item.as_str()?.to_owned()))
    };
    let mut all = Tables::new();
    for (key, item) in document.iter() {
        match key {
            "password_file" => all.push(("", vec![("password_file", item.as_str()?.to_owned())])),
            kind @ ("workspace" | "connection") => {
                let kind = if kind == "workspace" { "workspace" } else { "connection" };
                for table in item.as_array_of_tables()?.iter() {
                    all.push((kind, table.iter().map(setting).collect::<Option<Meant>>()?));
                }
            }
            _ => return None,
        }
    }
    Some(all)
}

fn unique(name: &str, taken: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::lakebase::{DatabaseInfo, State};

    fn database(target: Target, host: Option<&str>, read_only_host: Option<&str>) -> Database {
        let name = match &target {
            Target::Instance(name) => name.clone(),
            Target::Endpoint(name) => crate::model::short_name(name),
        };
        let (host, read_only_host) = (host.map(str::to_owned), read_only_host.map(str::to_owned));
        let found_at = jiff::Timestamp::UNIX_EPOCH;
        Database { name, found: DatabaseInfo { target, host, read_only_host, state: State::Available, found_at } }
    }

    /// Names that would become settings of their own if they were not escaped.
    const HOSTILE: [&str; 14] = [
        "a\"\non_rotate = [\"/bin/sh\"]\n#",
        "a'\non_rotate = ['/bin/sh']\n",
        "a\"\"\"\non_rotate = ['x']\n\"\"\"",
        "a\n[[connection]]\nname = 'b'",
        "a\r\non_rotate=['x']",
        "a\\",
        "a\"",
        "a' # b",
        "a\u{85}b",
        "a\u{2028}b",
        "a\u{202e}b",
        "a\u{0}b",
        "a b",
        "",
    ];

    #[test]
    fn what_the_api_says_never_becomes_a_setting() {
        let workspace = Workspace::for_fuzzing();
        for word in HOSTILE {
            let good = || database(Target::Instance("good".to_owned()), Some("h.example"), None);
            let hostile = [
                database(Target::Instance(word.to_owned()), None, None),
                database(Target::Endpoint(format!("projects/{word}/branches/b/endpoints/e")), None, None),
                database(Target::Endpoint(word.to_owned()), None, None),
                database(Target::Instance("x".to_owned()), Some(word), None),
                database(Target::Instance("x".to_owned()), Some("h"), Some(word)),
            ];
            for one in hostile {
                let said = format!("{one:?}");
                let visible = Discovered { user: None, databases: vec![good(), one] };
                let (text, refused) = toml(&[(&workspace, Ok(visible))], &Needs::default()).unwrap();
                let sections = sections(&text).unwrap_or_else(|| panic!("{said}\n{text}"));
                assert_eq!(sections.len() + refused.len(), 2, "{said}\n{text}");
                assert!(!text.lines().any(|line| line.starts_with("on_rotate")), "{said}\n{text}");
                assert!(refused.iter().all(|name| is_plain(name)), "{refused:?}");
            }
        }
    }

    #[test]
    fn a_table_has_one_line_for_each_whatever_it_is_called() {
        let workspace = Workspace::for_fuzzing();
        for word in HOSTILE {
            let databases = vec![database(Target::Instance(word.to_owned()), Some(word), Some(word))];
            let text = table(&[(&workspace, Ok(Discovered { user: None, databases }))]);
            assert!(text.lines().count() == 2 && text.lines().all(is_plain), "{text:?}");
        }
    }

    #[test]
    fn names_that_occur_twice_are_told_apart() {
        let mut taken = HashSet::new();
        let names: Vec<String> = ["shop", "orders", "shop", "shop"].map(|name| unique(name, &mut taken)).to_vec();
        assert_eq!(names, ["shop", "orders", "shop-2", "shop-3"]);
    }
}
