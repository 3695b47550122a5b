//! What the API answers: who may, which object, and in which version.

use serde_json::{Value, json};

use super::{Shared, State, apply, schemas};
use crate::support::workspace::http::{Request, Response};

/// A request about one object, or to create one.
struct Wanted {
    verb: &'static str,
    resource: &'static str,
    namespace: String,
    name: String,
}

pub fn answer(shared: &Shared, request: &Request) -> Response {
    let Some(wanted) = Wanted::of(request) else {
        return status(404, "NotFound", "the server could not find it", json!({}));
    };
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if !shared.state().tokens.contains(token) {
        return status(401, "Unauthorized", "Unauthorized", json!({}));
    }
    let body: Option<Value> = request.body().and_then(|body| serde_json::from_str(body).ok());
    if let Some(refused) = body.as_ref().and_then(|body| invalid(shared, &wanted, request, body)) {
        return refused;
    }
    let mut state = shared.state();
    if let Some(refused) = state.refuses(&wanted) {
        return refused;
    }
    match (wanted.verb, body) {
        ("get", _) => match state.objects.get(&wanted.key()) {
            Some(object) => Response::json(200, object),
            None => wanted.not_found(),
        },
        ("patch", Some(body)) => state.patch(&wanted, request, &body),
        ("create", Some(body)) => state.create(&wanted, body),
        ("update", Some(body)) => state.update(&wanted, body),
        _ => status(400, "BadRequest", "no body", json!({})),
    }
}

impl Wanted {
    fn of(request: &Request) -> Option<Self> {
        let secrets = request.path.strip_prefix("/api/v1/namespaces/").map(|rest| ("secrets", rest));
        let leases = || Some(("leases", request.path.strip_prefix("/apis/coordination.k8s.io/v1/namespaces/")?));
        let (resource, rest) = secrets.or_else(leases)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let verb = match request.method.as_str() {
            "GET" => "get",
            "PATCH" => "patch",
            "POST" => "create",
            "PUT" => "update",
            _ => return None,
        };
        let (namespace, name) = match parts.as_slice() {
            [namespace, kind, name] if *kind == resource && verb != "create" => (*namespace, *name),
            [namespace, kind] if *kind == resource && verb == "create" => (*namespace, ""),
            _ => return None,
        };
        Some(Wanted { verb, resource, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    fn key(&self) -> (String, String, String) {
        (self.resource.to_owned(), self.namespace.clone(), self.name.clone())
    }

    fn group(&self) -> &'static str {
        if self.resource == "leases" { "coordination.k8s.io" } else { "" }
    }

    fn not_found(&self) -> Response {
        let message = format!("{} {:?} not found", self.resource, self.name);
        status(404, "NotFound", &message, json!({"name": self.name, "kind": self.resource}))
    }

    fn forbidden(&self, verb: &str) -> Response {
        let (resource, name, namespace) = (self.resource, &self.name, &self.namespace);
        let message = format!(
            "{resource} {name:?} is forbidden: User \"system:serviceaccount:{namespace}:rotator\" cannot {verb} resource {resource:?} in API \
             group {:?} in the namespace {namespace:?}",
            self.group()
        );
        status(403, "Forbidden", &message, json!({"name": name, "kind": resource}))
    }
}

/// Why a body is refused before anything is looked at. Like the API, it repeats what it was sent.
fn invalid(shared: &Shared, wanted: &Wanted, request: &Request, body: &Value) -> Option<Response> {
    let mut said =
        shared.schemas.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fault(schemas::VERSION, body);
    let kind = request.header("content-type").unwrap_or_default();
    let is_apply = wanted.verb == "patch";
    if is_apply && (kind != "application/apply-patch+yaml" || request.query("fieldManager").is_none()) {
        said = format!("not an apply with a manager: {kind}");
    }
    if !is_apply && kind != "application/json" {
        said = format!("not JSON: {kind}");
    }
    if said.is_empty() {
        return None;
    }
    shared.state().invalid.push(said.clone());
    Some(refused(&format!("{said}: {body}"), "body"))
}

fn refused(message: &str, field: &str) -> Response {
    let causes = json!([{"reason": "FieldValueInvalid", "message": message, "field": field}]);
    status(422, "Invalid", message, json!({"causes": causes}))
}

impl State {
    fn refuses(&self, wanted: &Wanted) -> Option<Response> {
        let may = |verb: &str| {
            self.rules.as_ref().is_none_or(|rules| {
                rules.iter().any(|(known, resource, name)| {
                    *known == verb && *resource == wanted.resource && name.is_none_or(|name| name == wanted.name)
                })
            })
        };
        if !may(wanted.verb) {
            return Some(wanted.forbidden(wanted.verb));
        }
        if !self.namespaces.contains(&wanted.namespace) && wanted.verb != "get" {
            let message = format!("namespaces {:?} not found", wanted.namespace);
            return Some(status(404, "NotFound", &message, json!({"name": wanted.namespace, "kind": "namespaces"})));
        }
        let creates = wanted.verb == "patch" && !self.objects.contains_key(&wanted.key());
        // An apply that creates needs the verb for that, which is about no name.
        let may_create = self.rules.as_ref().is_none_or(|rules| rules.contains(&("create", wanted.resource, None)));
        (creates && !may_create).then(|| wanted.forbidden("create"))
    }

    fn patch(&mut self, wanted: &Wanted, request: &Request, body: &Value) -> Response {
        let manager = request.query("fieldManager").expect("checked before");
        let force = request.query("force").as_deref() == Some("true");
        let present = self.objects.get(&wanted.key()).cloned();
        if let Some(present) = &present
            && present["type"] != body["type"]
        {
            return refused(&format!("Secret {:?} is invalid: type: field is immutable: {body}", wanted.name), "type");
        }
        let empty = json!({"apiVersion": body["apiVersion"], "kind": body["kind"], "type": "Opaque",
            "metadata": {"name": wanted.name, "namespace": wanted.namespace}});
        let status_code = if present.is_some() { 200 } else { 201 };
        let before = present.clone().unwrap_or(empty);
        match apply::apply(&before, body, &manager, force) {
            Err(causes) => {
                let message = format!("Apply failed with {} conflicts", causes.len());
                status(409, "Conflict", &message, json!({"causes": causes}))
            }
            // What changes nothing is no new version.
            Ok(after) if present.as_ref() == Some(&after) => Response::json(200, &after),
            Ok(mut after) => {
                if let Some(key) = &self.webhook {
                    after["data"][key.as_str()] = Value::from("Y2hhbmdlZA==");
                }
                self.version += 1;
                let version = self.version;
                let after = self.put(wanted.resource, &wanted.namespace, &wanted.name, after, version);
                Response::json(status_code, &after)
            }
        }
    }

    fn create(&mut self, wanted: &Wanted, body: Value) -> Response {
        let name = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let wanted = Wanted { name, namespace: wanted.namespace.clone(), ..*wanted };
        if self.objects.contains_key(&wanted.key()) {
            return status(409, "AlreadyExists", "it exists already", json!({"name": wanted.name}));
        }
        self.version += 1;
        let version = self.version;
        Response::json(201, &self.put(wanted.resource, &wanted.namespace, &wanted.name, body, version))
    }

    fn update(&mut self, wanted: &Wanted, body: Value) -> Response {
        let Some(present) = self.objects.get(&wanted.key()) else { return wanted.not_found() };
        let version = body.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        if version != present["metadata"]["resourceVersion"] {
            let message = "the object has been modified; please apply your changes to the latest version";
            return status(409, "Conflict", message, json!({"name": wanted.name}));
        }
        self.version += 1;
        let version = self.version;
        Response::json(200, &self.put(wanted.resource, &wanted.namespace, &wanted.name, body, version))
    }

    pub fn put(&mut self, resource: &str, namespace: &str, name: &str, mut object: Value, version: u64) -> Value {
        object["metadata"]["resourceVersion"] = Value::from(version.to_string());
        self.objects.insert((resource.to_owned(), namespace.to_owned(), name.to_owned()), object.clone());
        object
    }

    pub fn set_by_hand(
        &mut self,
        (resource, namespace, name): (&str, &str, &str),
        path: &[&str],
        value: &str,
        manager: &str,
        applies: bool,
    ) {
        let present = &self.objects[&(resource.to_owned(), namespace.to_owned(), name.to_owned())];
        let after = apply::set(present, path, value, manager, applies);
        self.version += 1;
        let version = self.version;
        self.put(resource, namespace, name, after, version);
    }
}

pub fn status(code: u16, reason: &str, message: &str, details: Value) -> Response {
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "details": details, "code": code,
    });
    Response::json(code, &body)
}
