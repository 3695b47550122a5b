//! One setting of config.toml: put into its table or taken out of it, and noted as a change.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value, value};

use super::Plan;
use crate::proxies::without_password;

impl Plan {
    pub(super) fn set(&mut self, document: &mut DocumentMut, section: &str, key: &str, new: Value) {
        let Some((table, prefix)) = table_of(document, section) else { return };
        let bare = |value: &Value| value.clone().decorated("", "").to_string();
        let shown = |value: &Value| if key == "proxy" { without_password(&bare(value)) } else { bare(value) };
        match table.get(key).and_then(Item::as_value) {
            Some(old) if bare(old) == bare(&new) => return,
            Some(old) => self.changes.push(format!("{prefix}{key} = {} (was {})", shown(&new), shown(old))),
            None => self.changes.push(format!("{prefix}{key} = {}", shown(&new))),
        }
        // The rest of the value's line stays.
        if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        } else if prefix.is_empty() {
            insert_at_head(document, key, new);
        } else {
            table.insert(key, value(new));
        }
    }

    pub(super) fn unset(&mut self, document: &mut DocumentMut, section: &str, key: &str) {
        if let Some((table, prefix)) = table_of(document, section)
            && table.remove(key).is_some()
        {
            self.changes.push(format!("{prefix}no {key}"));
        }
    }
}

/// The table for a setting of this section, made if missing, and its name for messages; none if something else has that
/// name.
pub(super) fn table_of<'d>(document: &'d mut DocumentMut, section: &str) -> Option<(&'d mut Table, &'static str)> {
    let (kind, prefix) = match section.split(' ').next() {
        Some("workspace") => ("workspace", "workspace: "),
        Some("connection") => ("connection", "connection: "),
        _ => return Some((document.as_table_mut(), "")),
    };
    let text = if document.contains_key(kind) { String::new() } else { take_text_at_end(document) };
    let item = document.entry(kind).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if !item.is_array_of_tables() {
        // An inline array is expanded.
        *item = Item::ArrayOfTables(std::mem::take(item).into_array_of_tables().ok()?);
    }
    let tables = item.as_array_of_tables_mut()?;
    if tables.is_empty() {
        tables.push(last_table(&text));
    }
    let is_called = |table: &Table| {
        let name = table.get("name").and_then(Item::as_str);
        name.is_some_and(|name| section == format!("{kind} \"{name}\""))
    };
    // If there is only one table, it may have no name.
    let index = tables.iter().position(is_called).unwrap_or(0);
    Some((tables.get_mut(index)?, prefix))
}

/// A table at the end of the file, after the text that stands there now.
fn last_table(text: &str) -> Table {
    let mut table = Table::new();
    if !text.is_empty() {
        table.decor_mut().set_prefix(with_blank_line(text));
        table.set_position(Some(isize::MAX));
    }
    table
}

/// What stands after the last setting of the file. It stays behind that one, and does not move below what is added.
fn take_text_at_end(document: &mut DocumentMut) -> String {
    let text = document.trailing().as_str().unwrap_or_default().to_owned();
    document.set_trailing("");
    if text.trim().is_empty() { String::new() } else { text }
}

/// A new setting before the first table, but below the text that the file begins with.
fn insert_at_head(document: &mut DocumentMut, key: &str, new: Value) {
    let is_first = document.iter().all(|(_, item)| item.is_table() || item.is_array_of_tables());
    let head = if is_first { take_head(document) } else { String::new() };
    document.insert(key, value(new));
    if !head.is_empty()
        && let Some(mut key) = document.as_table_mut().key_mut(key)
    {
        key.leaf_decor_mut().set_prefix(with_blank_line(&head));
    }
}

/// The comments at the start of a file without settings before its first table. Those right above a table are that table's.
fn take_head(document: &mut DocumentMut) -> String {
    if document.is_empty() {
        return take_text_at_end(document);
    }
    let Some(first) = first_table(document) else { return String::new() };
    let text = first.decor().prefix().and_then(|text| text.as_str()).unwrap_or_default().to_owned();
    let (head, own) = match text.rfind("\n\n") {
        Some(at) => text.split_at(at + 1),
        None => ("", text.as_str()),
    };
    // The new setting and the table have a blank line between them.
    first.decor_mut().set_prefix(format!("\n{}", own.trim_start_matches('\n')));
    head.to_owned()
}

fn first_table(document: &mut DocumentMut) -> Option<&mut Table> {
    let tables = document.iter_mut().filter_map(|(_, item)| match item {
        Item::Table(table) => Some(table),
        Item::ArrayOfTables(tables) => tables.get_mut(0),
        _ => None,
    });
    tables.min_by_key(|table| table.position().unwrap_or(isize::MAX))
}

/// The text with one blank line at its end.
fn with_blank_line(text: &str) -> String {
    format!("{}\n\n", text.trim_end_matches('\n'))
}
