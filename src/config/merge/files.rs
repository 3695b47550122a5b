//! config.toml and its fragments as one: which of the files says what, and that no two say different things of the same.

use std::ops::Range;
use std::sync::Arc;

use serde_spanned::Spanned;

use super::{DEFAULT_NAME, Merge};
use crate::config::fault::ConfigError;
use crate::config::file::{ConfigFile, WorkspaceTable};
use crate::config::source::ConfigSource;

/// A table with its file and its name.
pub(super) type Named<'a, T> = (&'a ConfigSource, String, &'a Spanned<T>);

/// A table whose name is taken.
pub(super) struct Taken<'a> {
    pub(super) source: &'a ConfigSource,
    pub(super) line: usize,
}

impl Taken<'_> {
    fn place(&self) -> String {
        format!("{}:{}", self.source.path.display(), self.line)
    }
}

/// What a table without a name is called that is alone in its file: that of config.toml keeps its name, whatever fragments there are.
fn usual_name(source: &ConfigSource) -> String {
    let stem = source.path.file_stem().filter(|_| source.is_fragment).map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or_else(|| DEFAULT_NAME.to_owned())
}

/// A setting that another file has with another value.
fn differs(key: &str, elsewhere: String, source: &ConfigSource, at: Range<usize>) -> ConfigError {
    let why = format!("{key} has another value in {elsewhere}");
    source.fault_in(at, why).hint("leave it out in one of the two files")
}

impl<'a> Merge<'a> {
    /// A setting at the head of one of the files, which is looked at from now on. Several files may say the same.
    pub(super) fn head<T: PartialEq>(
        &mut self,
        key: &str,
        of: impl Fn(&'a ConfigFile) -> Option<&'a Spanned<T>>,
    ) -> Result<Option<&'a Spanned<T>>, ConfigError> {
        let mut all = self.files.iter().filter_map(|source| Some((source, of(&source.file)?)));
        let Some((source, first)) = all.next() else { return Ok(None) };
        if let Some((other, value)) = all.find(|(_, value)| *value != first) {
            return Err(differs(key, source.place(first), other, value.span()));
        }
        self.source = Some(source);
        self.note_fragment(key, source, first);
        Ok(Some(first))
    }

    pub(super) fn note_fragment<T>(&mut self, what: &str, source: &ConfigSource, at: &Spanned<T>) {
        if source.is_fragment {
            self.of_fragments.insert(what.to_owned(), source.place(at));
        }
    }

    /// The name of a table in the file that is looked at, where it may be `alone`.
    pub(super) fn name(
        &self,
        table: &Spanned<impl Sized>,
        written: Option<&Spanned<String>>,
        alone: bool,
        kind: &str,
    ) -> Result<String, ConfigError> {
        let Some(source) = self.source else { return Ok(DEFAULT_NAME.to_owned()) };
        match written {
            Some(name) if name.get_ref().is_empty() || name.get_ref().chars().any(char::is_control) => {
                Err(source.fault(name, format!("a {kind}'s name cannot be empty or hold control characters")))
            }
            Some(name) => Ok(name.get_ref().clone()),
            None if alone => Ok(usual_name(source)),
            None => {
                Err(source.fault(table, format!("of several {kind}s each needs a name")).hint("add name = \"...\""))
            }
        }
    }

    /// That a name is taken already: in the same file, or in another one by a table that says something else.
    pub(super) fn taken<T>(
        &self,
        (table, name): (&Spanned<T>, Option<&Spanned<String>>),
        kind: &str,
        called: &str,
        by: &Taken<'_>,
    ) -> ConfigError {
        let at = name.map_or_else(|| table.span(), Spanned::span);
        let fault = |why: String| match self.source {
            Some(source) => ConfigError::new(why).at(&source.path, &source.text, at),
            None => ConfigError::new(why),
        };
        if self.source.is_some_and(|source| source.path == by.source.path) {
            return fault(format!("there are two {kind}s named `{called}`"));
        }
        let why = format!("there are two {kind}s named `{called}`, and they differ: the other is in {}", by.place());
        fault(why).hint("give one of them another name, or let both files say the same of it")
    }

    /// All of them with their files and names. What several files say in the same words is there once.
    pub(super) fn workspace_tables(&mut self) -> Result<Vec<Named<'a, WorkspaceTable>>, ConfigError> {
        let mut all: Vec<Named<'a, WorkspaceTable>> = Vec::new();
        for source in self.files {
            self.source = Some(source);
            let alone = source.file.workspace.len() == 1;
            for table in &source.file.workspace {
                let written = table.get_ref().name.as_ref();
                let name = self.name(table, written, alone, "workspace")?;
                let index = match self.by_name.get(&name).and_then(|index| Some((*index, all.get(*index)?))) {
                    Some((index, (first, _, other))) if first.path != source.path && *other == table => index,
                    Some((_, (first, _, other))) => {
                        let by = Taken { source: first, line: first.line(other) };
                        return Err(self.taken((table, written), "workspace", &name, &by));
                    }
                    None => {
                        all.push((source, name.clone(), table));
                        self.by_name.insert(name, all.len() - 1);
                        all.len() - 1
                    }
                };
                if alone {
                    self.alone.insert(Arc::clone(&source.path), index);
                }
            }
        }
        Ok(all)
    }

    /// The file to write a setting into that what is looked at lacks.
    pub(super) fn file_to_change(&self) -> String {
        let of_fragment = self.source.filter(|source| source.is_fragment).map(|source| &*source.path);
        let file = of_fragment.or_else(|| Some(self.place?.file.as_path()));
        file.map_or_else(|| "config.toml".to_owned(), |path| path.display().to_string())
    }

    /// Whether any of the files has a connection.
    pub(super) fn has_connections(&self) -> bool {
        self.files.iter().any(|source| !source.file.connection.is_empty())
    }
}
