//! Server-side apply, as far as flat objects need it: each manager owns the leaves that it has applied or changed, a leaf of another
//! manager with another value is a conflict, and what a manager applies no more is removed where nobody else owns it.
//!
//! Rules and words are those of the API ("Server-Side Apply", and apimachinery's managedfields).

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// A leaf by its path, such as `["data", "password"]`.
type Path = Vec<String>;

/// The leaves that managers can own: all but what identifies the object.
fn leaves(object: &Value) -> BTreeSet<Path> {
    fn below(value: &Value, at: &[String], found: &mut BTreeSet<Path>) {
        match value {
            Value::Object(fields) if !at.is_empty() && fields.is_empty() => {}
            Value::Object(fields) => {
                for (name, value) in fields {
                    let at = [at, std::slice::from_ref(name)].concat();
                    let inner: Vec<&str> = at.iter().map(String::as_str).collect();
                    match inner.as_slice() {
                        ["apiVersion" | "kind"]
                        | ["metadata", "name" | "namespace" | "managedFields" | "resourceVersion" | "uid"] => {}
                        _ => below(value, &at, found),
                    }
                }
            }
            _ => drop(found.insert(at.to_vec())),
        }
    }
    let mut found = BTreeSet::new();
    below(object, &[], &mut found);
    found
}

fn at<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

fn put(object: &mut Value, path: &[String], value: Value) {
    let (last, parents) = path.split_last().expect("a path");
    let mut place = object;
    for name in parents {
        place = &mut place[name.as_str()];
        if place.is_null() {
            *place = json!({});
        }
    }
    place[last.as_str()] = value;
}

fn remove(object: &mut Value, path: &[String]) {
    let (last, parents) = path.split_last().expect("a path");
    let pointer: String =
        parents.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect();
    if let Some(Value::Object(fields)) = object.pointer_mut(&pointer) {
        fields.remove(last);
    }
}

/// An entry of managedFields, with its leaves.
struct Owner {
    manager: String,
    operation: String,
    leaves: BTreeSet<Path>,
}

fn owners(object: &Value) -> Vec<Owner> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let one = |entry: &Value| Owner {
        manager: text(entry, "manager"),
        operation: text(entry, "operation"),
        leaves: leaves_of_fields(&entry["fieldsV1"]),
    };
    entries.iter().map(one).collect()
}

/// `{"f:data": {"f:password": {}}}` and back.
fn leaves_of_fields(fields: &Value) -> BTreeSet<Path> {
    fn below(value: &Value, at: &[String], found: &mut BTreeSet<Path>) {
        let fields = value.as_object().expect("an object of fields");
        if fields.is_empty() && !at.is_empty() {
            found.insert(at.to_vec());
        }
        for (name, value) in fields {
            below(value, &[at, &[name.trim_start_matches("f:").to_owned()]].concat(), found);
        }
    }
    let mut found = BTreeSet::new();
    below(fields, &[], &mut found);
    found
}

fn set_owners(object: &mut Value, owners: &[Owner]) {
    let entries: Vec<Value> = owners
        .iter()
        .filter(|owner| !owner.leaves.is_empty())
        .map(|owner| {
            let mut fields = json!({});
            for leaf in &owner.leaves {
                let path: Path = leaf.iter().map(|name| format!("f:{name}")).collect();
                put(&mut fields, &path, json!({}));
            }
            json!({
                "manager": owner.manager, "operation": owner.operation, "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
                "fieldsType": "FieldsV1", "fieldsV1": fields,
            })
        })
        .collect();
    object["metadata"]["managedFields"] = Value::from(entries);
}

/// The object after the apply; or the causes of a conflict.
pub fn apply(present: &Value, applied: &Value, manager: &str, force: bool) -> Result<Value, Vec<Value>> {
    let (mut after, mut all, wanted) = (present.clone(), owners(present), leaves(applied));
    let is_me = |owner: &Owner| owner.manager == manager && owner.operation == "Apply";
    let mut causes = Vec::new();
    for leaf in &wanted {
        if at(present, leaf) == at(applied, leaf) {
            continue;
        }
        for owner in all.iter_mut().filter(|owner| !is_me(owner)) {
            if !owner.leaves.contains(leaf) {
                continue;
            }
            let how = if owner.operation == "Update" { " using v1 at 2026-01-01T00:00:00Z" } else { "" };
            if force {
                owner.leaves.remove(leaf);
            } else {
                causes.push(json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with {:?}{how}", owner.manager),
                    "field": format!(".{}", leaf.join(".")),
                }));
            }
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    let before: BTreeSet<Path> =
        all.iter().filter(|owner| is_me(owner)).flat_map(|owner| owner.leaves.clone()).collect();
    for gone in before.difference(&wanted) {
        if !all.iter().any(|owner| !is_me(owner) && owner.leaves.contains(gone)) {
            remove(&mut after, gone);
        }
    }
    for leaf in &wanted {
        put(&mut after, leaf, at(applied, leaf).cloned().expect("a leaf of it"));
    }
    all.retain(|owner| !is_me(owner));
    all.push(Owner { manager: manager.to_owned(), operation: "Apply".to_owned(), leaves: wanted });
    set_owners(&mut after, &all);
    Ok(after)
}

/// The object after somebody has set one leaf: it is theirs now, and nobody else's.
pub fn set(present: &Value, path: &[&str], value: &str, manager: &str, applies: bool) -> Value {
    let path: Path = path.iter().map(|name| (*name).to_owned()).collect();
    let (mut after, mut all) = (present.clone(), owners(present));
    put(&mut after, &path, Value::from(value));
    for owner in &mut all {
        owner.leaves.remove(&path);
    }
    let operation = if applies { "Apply" } else { "Update" };
    all.push(Owner { manager: manager.to_owned(), operation: operation.to_owned(), leaves: BTreeSet::from([path]) });
    set_owners(&mut after, &all);
    after
}
