//! `GET /v1/openapi.json`: the list of calls as an OpenAPI 3.1 document. The objects are described by their types.
//!
//! <https://spec.openapis.org/oas/v3.1.1.html>

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sealblk_api::call::{Call, Spec, Tags};
use sealblk_api::{ApiError, calls, for_each_call};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, schema};

/// The document.
pub(super) static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

macro_rules! describe {
    ($($call:ident,)*) => { vec![$(Described::of::<calls::$call>()),*] };
}

/// A call with the schemas of its types.
struct Described {
    spec: Spec,
    body: Schema,
    answer: Schema,
}

impl Described {
    fn of<C: Call>() -> Self {
        Described {
            spec: C::SPEC,
            body: Schema::of::<C::Body>(),
            answer: Schema::of::<C::Answer>(),
        }
    }

    /// The schema of its body, if that has any fields.
    fn body(&self) -> Option<&Schema> {
        (self.body.name != "Nothing").then_some(&self.body)
    }

    /// The Operation Object.
    fn operation(&self) -> Value {
        let mut done = response("Done", &self.answer);
        if self.spec.tags == Tags::Given {
            done["headers"] = json!({"ETag": {"required": true, "schema": {"type": "string"}}});
        }
        let mut operation = json!({
            "operationId": self.id(),
            "tags": [self.spec.segments().next()],
            "summary": self.spec.summary(),
            "parameters": self.parameters(),
            "responses": {
                self.spec.status.to_string(): done,
                "default": response("Refused, or failed", &Schema::of::<ApiError>()),
            },
        });
        if let Some(body) = self.body() {
            operation["requestBody"] = json!({"required": body.is_needed(), "content": body.content()});
        }
        operation
    }

    fn parameters(&self) -> Vec<Value> {
        let object = self.spec.object().map(|name| {
            let schema = json!({"type": "string", "minLength": 1});
            let description = format!("Id or name of the {name}");
            json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
        });
        let optional = |place: &str, name: &str, description: &str, schema: Value| json!({"name": name, "in": place, "description": description, "schema": schema});
        let query = self.spec.parameters.iter().map(|parameter| {
            optional(
                "query",
                parameter.name,
                parameter.description,
                (parameter.schema)(),
            )
        });
        let key = self.spec.idempotent.then(|| {
            let schema = json!({"type": "string", "pattern": "^[!-~]{1,64}$"});
            let description = "A repeat with the same key creates nothing, and gets the first answer";
            optional("header", "Idempotency-Key", description, schema)
        });
        let tag = (self.spec.tags == Tags::Matched).then(|| {
            let schema = json!({"type": "string"});
            optional("header", "If-Match", "ETag of the object as it was read", schema)
        });
        object.into_iter().chain(query).chain(key).chain(tag).collect()
    }

    /// `post-disks-disk-rollback`
    fn id(&self) -> String {
        let words = self
            .spec
            .segments()
            .map(|segment| segment.trim_matches(['{', '}']));
        std::iter::once(self.method().as_str())
            .chain(words)
            .collect::<Vec<_>>()
            .join("-")
    }

    fn method(&self) -> String {
        self.spec.method.name().to_lowercase()
    }
}

fn response(description: &str, schema: &Schema) -> Value {
    json!({"description": description, "content": schema.content()})
}

/// A type's schema, with those that it refers to.
struct Schema {
    name: String,
    all: Vec<(String, RefOr<schema::Schema>)>,
}

impl Schema {
    fn of<T: ToSchema>() -> Self {
        let name = T::name().into_owned();
        let mut all = vec![(name.clone(), T::schema())];
        T::schemas(&mut all);
        Schema { name, all }
    }

    /// The Media Type Objects of a body.
    fn content(&self) -> Value {
        json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{}", self.name)}}})
    }

    /// Whether a body cannot be left out: that is the same as one without fields.
    fn is_needed(&self) -> bool {
        json!(self.all[0].1)["required"].is_array()
    }
}

fn document() -> Value {
    let calls: Vec<Described> = for_each_call!(describe);
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for call in &calls {
        let item = paths.entry(call.spec.path).or_default();
        item.insert(call.method(), call.operation());
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sealblk-kms",
            "description": "HTTP/1.1 with JSON over a Unix socket. Callers are known by their user ids.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas(&calls)},
    })
}

fn schemas(calls: &[Described]) -> BTreeMap<String, Value> {
    let of_calls = calls
        .iter()
        .flat_map(|call| call.body().into_iter().chain([&call.answer]));
    let errors = Schema::of::<ApiError>();
    of_calls
        .chain([&errors])
        .flat_map(|schema| &schema.all)
        .map(|(name, schema)| (name.clone(), json!(schema)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first version with this document served: whoever was made for it still works. A call, a field of an answer and an
    /// option can come to it; nothing goes. What is written for readers may be worded anew.
    #[test]
    fn what_was_served_once_is_served_still() {
        let kept = unworded(serde_json::from_str(include_str!("testdata/openapi.json")).unwrap());
        let served = unworded(DOCUMENT.clone());
        for (path, item) in kept["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let mut now = served["paths"][path][method].clone();
                let call = format!("{method} {path}");
                if call == "post /v1/snapshots/{snapshot}/copy" {
                    // The call is always refused, and yet has an answer.
                    now["responses"].as_object_mut().unwrap().remove("200");
                }
                assert_eq!(now, *operation, "{call}");
            }
        }
        for (name, schema) in kept["components"]["schemas"].as_object().unwrap() {
            check_kept(name, schema, &served["components"]["schemas"][name]);
        }
    }

    /// An object has the properties that it had, whether all are its own or they come from several.
    fn check_kept(name: &str, kept: &Value, now: &Value) {
        for (field, kept) in kept.as_object().unwrap() {
            let now = &now[field];
            match (field.as_str(), kept) {
                ("properties", Value::Object(kept)) => {
                    for (property, kept) in kept {
                        assert_eq!(now[property], *kept, "{name}.{property}");
                    }
                }
                ("allOf", Value::Array(parts)) => {
                    assert_eq!(now.as_array().unwrap().len(), parts.len(), "{name}: {field}");
                    for (at, kept) in parts.iter().enumerate() {
                        check_kept(name, kept, &now[at]);
                    }
                }
                _ => assert_eq!(*now, *kept, "{name}: {field}"),
            }
        }
    }

    fn unworded(mut value: Value) -> Value {
        match &mut value {
            Value::Object(fields) => {
                fields.retain(|name, text| {
                    !(["description", "summary"].contains(&name.as_str()) && text.is_string())
                });
                fields
                    .values_mut()
                    .for_each(|value| *value = unworded(value.take()));
            }
            Value::Array(items) => items.iter_mut().for_each(|value| *value = unworded(value.take())),
            _ => {}
        }
        value
    }

    #[test]
    fn every_reference_leads_to_a_schema_and_every_call_can_be_refused() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        references(&DOCUMENT, &mut found);
        assert!(found.contains(&"#/components/schemas/Snapshot"));
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(DOCUMENT.pointer(pointer).is_some(), "{reference}");
        }
        let error = json!({"$ref": "#/components/schemas/ApiError"});
        for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let answer = &operation["responses"]["default"]["content"]["application/json"]["schema"];
                assert_eq!(*answer, error, "{method} {path}");
            }
        }
    }

    #[test]
    fn bodies_are_as_strict_as_the_api() {
        let create = &DOCUMENT["components"]["schemas"]["CreateDisk"];
        assert_eq!(create["additionalProperties"], json!(false));
        assert_eq!(create["required"], json!(["name"]));
        assert_eq!(create["properties"]["size"]["type"], json!(["integer", "null"]));
        let needed = |path: &str| &DOCUMENT["paths"][path]["post"]["requestBody"]["required"];
        assert_eq!(
            (needed("/v1/disks"), needed("/v1/disks/{disk}/detach")),
            (&json!(true), &json!(false))
        );
        let socket = &DOCUMENT["components"]["schemas"]["SetInstance"]["properties"]["vm_socket"];
        assert_eq!(socket["type"], json!(["string", "null"]));
    }
}
