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
    let item = document.entry(kind).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if !item.is_array_of_tables() {
        // An inline array is expanded.
        *item = Item::ArrayOfTables(std::mem::take(item).into_array_of_tables().ok()?);
    }
    let tables = item.as_array_of_tables_mut()?;
    if tables.is_empty() {
        tables.push(Table::new());
    }
    let is_called = |table: &Table| {
        let name = table.get("name").and_then(Item::as_str);
        name.is_some_and(|name| section == format!("{kind} \"{name}\""))
    };
    // If there is only one table, it may have no name.
    let index = tables.iter().position(is_called).unwrap_or(0);
    Some((tables.get_mut(index)?, prefix))
}
