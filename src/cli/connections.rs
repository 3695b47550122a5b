//! `dbx-rotator connections`.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::rotate::Error;
use super::{Fault, block_on, print};
use crate::config::{Config, Overrides, Workspace};
use crate::failure::{Code, Failure};
use crate::lakebase::{Database, Target};
use crate::rotation::{Visible, visible};

/// How it is shown.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Table,
    Json,
    Toml,
}

type Seen<'a> = (&'a Workspace, Result<Visible, Failure>);

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
    let seen = block_on(visible(&config))?;
    match form {
        Form::Json => print::json(&Answer { version: 1, workspaces: seen.iter().map(workspace_row).collect() })?,
        Form::Table => print::out(&table(&seen))?,
        Form::Toml => print::out(&toml(&seen))?,
    }
    let mut codes: Vec<Code> = Vec::new();
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
            let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
            let cells =
                vec![name.to_owned(), kind.to_owned(), state.to_owned(), or_none(host), or_none(read_only_host)];
            rows.push(with(workspace.name(), cells));
        }
    }
    if rows.len() == 1 { String::new() } else { print::table(&rows) }
}

/// What can be pasted into config.toml as it is: names are told apart, and everything that a connection needs is found.
fn toml(seen: &[Seen<'_>]) -> String {
    let mut text = String::new();
    let mut taken = HashSet::new();
    for (workspace, result) in seen {
        let Ok(visible) = result else { continue };
        for database in &visible.databases {
            let Row { name, instance, endpoint, state, host, read_only_host } = row(database);
            let quoted = |text: &str| toml_edit::Value::from(text).to_string();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[[connection]]\nname = {}", quoted(&unique(name, &mut taken)));
            if seen.len() > 1 {
                let _ = writeln!(text, "workspace = {}", quoted(workspace.name()));
            }
            let (key, value) =
                instance.map(|name| ("instance", name)).or(endpoint.map(|name| ("endpoint", name))).unwrap_or_default();
            let _ = writeln!(text, "{key} = {}", quoted(value));
            if let Some(host) = read_only_host.filter(|own| Some(*own) != host) {
                let _ = writeln!(text, "# read_only = true    # a second entry, for {host}");
            }
            let _ = writeln!(text, "# {state}, {}\n", host.unwrap_or("no host yet"));
        }
    }
    text
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

    #[test]
    fn names_that_occur_twice_are_told_apart() {
        let mut taken = HashSet::new();
        let names: Vec<String> = ["shop", "orders", "shop", "shop"].map(|name| unique(name, &mut taken)).to_vec();
        assert_eq!(names, ["shop", "orders", "shop-2", "shop-3"]);
    }
}
