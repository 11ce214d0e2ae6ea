//! `GET /v1/openapi.json`: every call of the API, as an OpenAPI 3.1 document. The objects are described by their types.
//!
//! <https://spec.openapis.org/oas/v3.1.1.html>

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, schema};
use utoipa::{PartialSchema, ToSchema};

use super::types::{
    Account, AccountList, ApiError, ArchiveAudit, Attach, Attachment, AttachmentList, AuditHead, AuditPage,
    Backup, BackupList, Check, CopyDisk, CopyImage, CopySnapshot, CreateBackup, CreateDisk, CreateImage,
    CreateKey, CreateSnapshot, Credit, Detach, Disk, DiskCheck, DiskList, ExportDisk, ExportImage, Image,
    ImageList, Import, ImportDisk, ImportImage, ImportParams, Instance, InstanceList, Key, KeyList,
    KeyResources, KmsStatus, Profile, QemuVersion, RegisterInstance, RegisteredInstance, Reinitialise,
    Resize, RestoreBackup, Rewrapping, Rollback, ScheduleDeletion, SetDisk, SetImage, SetInstance, SetKey,
    SetSnapshot, ShareImage, Snapshot, SnapshotList, Usage,
};
use crate::limits;

/// The document.
pub(super) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&calls()));

/// Every route with each of its methods.
fn calls() -> Vec<Call> {
    [key_calls(), image_calls(), other_calls()]
        .into_iter()
        .flatten()
        .collect()
}

/// Those of [`super::key_routes`].
fn key_calls() -> Vec<Call> {
    vec![
        get("/v1/keys", "Lists keys").paged().answers::<KeyList>(),
        post("/v1/keys", "Creates a key of the account's own (rule K08)")
            .takes::<CreateKey>()
            .once()
            .creates::<Key>(),
        get("/v1/keys/{key}", "Shows a key").tagged().answers::<Key>(),
        patch("/v1/keys/{key}", "Changes aliases and tags of a key (rule K08)")
            .matched()
            .takes::<SetKey>()
            .answers::<Key>(),
        post("/v1/keys/{key}/enable", "Makes a key usable (rule K11)").answers::<Key>(),
        post("/v1/keys/{key}/disable", "Makes a key unusable (rule K11)").answers::<Key>(),
        post(
            "/v1/keys/{key}/schedule-deletion",
            "Destroys a key after some days (rule K11)",
        )
        .takes::<ScheduleDeletion>()
        .answers::<Key>(),
        post(
            "/v1/keys/{key}/cancel-deletion",
            "Keeps a key that was going to be destroyed (rule K11)",
        )
        .answers::<Key>(),
        post("/v1/keys/{key}/rotate", "Gives a key a new version (rule K12)").answers::<Key>(),
        get(
            "/v1/keys/{key}/rewrap",
            "Shows how far the rewrapping is (rule K12)",
        )
        .answers::<Rewrapping>(),
        post("/v1/keys/{key}/rewrap", "Goes on with the rewrapping (rule K12)").answers::<Rewrapping>(),
        post(
            "/v1/keys/{key}/import-params",
            "Gives what is needed to wrap a key's material for its import (rule K10)",
        )
        .answers::<ImportParams>(),
        post("/v1/keys/{key}/import", "Imports a key's material (rule K10)")
            .takes::<Import>()
            .answers::<Key>(),
        get("/v1/keys/{key}/resources", "Lists what a key protects (rule K11)")
            .paged()
            .answers::<KeyResources>(),
    ]
}

/// Those of [`super::image_routes`].
fn image_calls() -> Vec<Call> {
    vec![
        get(
            "/v1/images",
            "Lists images: the account's, and those shared with it",
        )
        .paged()
        .asks("lineage", "Id of the lineage", json!({"type": "string"}))
        .answers::<ImageList>(),
        post("/v1/images", "Makes an image of a snapshot or of a disk")
            .takes::<CreateImage>()
            .once()
            .creates::<Image>(),
        get("/v1/images/{image}", "Shows an image")
            .tagged()
            .answers::<Image>(),
        patch("/v1/images/{image}", "Renames an image (rule I02)")
            .matched()
            .takes::<SetImage>()
            .answers::<Image>(),
        delete("/v1/images/{image}", "Deletes an image (rule S07)")
            .matched()
            .answers::<Image>(),
        post(
            "/v1/images/{image}/share",
            "Shares a plain image with an account (rule I05)",
        )
        .takes::<ShareImage>()
        .answers::<Image>(),
        post("/v1/images/{image}/unshare", "Ends the sharing with an account")
            .takes::<ShareImage>()
            .answers::<Image>(),
        post(
            "/v1/images/{image}/copy",
            "Copies a plain image as an encrypted one (rule I01); to another region it is refused (rule I06)",
        )
        .takes::<CopyImage>()
        .creates::<Image>(),
        post(
            "/v1/images/{image}/export",
            "Begins to write an image to a raw image file, which is refused if it is encrypted (rule I07)",
        )
        .takes::<ExportImage>()
        .begins::<Image>(),
        post(
            "/v1/images/{image}/export/cancel",
            "Ends the writing of an image to a file",
        )
        .answers::<Image>(),
        post(
            "/v1/imports/images",
            "Begins to make an image of an image file, encrypted or not (rule I01)",
        )
        .takes::<ImportImage>()
        .begins::<Image>(),
    ]
}

/// Those of [`super::routes`].
fn other_calls() -> Vec<Call> {
    vec![
        get("/v1/openapi.json", "Gives this document").answers::<Value>(),
        get("/v1/kms", "Shows region, profile and state of the KMS").answers::<KmsStatus>(),
        post("/v1/kms/activate", "Activates the KMS for the account (rule K01)").answers::<KmsStatus>(),
        post(
            "/v1/kms/rotate-root",
            "Puts all master keys under a new root key (rule K12)",
        )
        .answers::<KmsStatus>(),
        post(
            "/v1/kms/grant",
            "Grants the use of the keys to the disk service (rule K02)",
        )
        .answers::<KmsStatus>(),
        post("/v1/kms/revoke", "Takes the grant back").answers::<KmsStatus>(),
        get("/v1/profile", "Shows the policy profile").answers::<Profile>(),
        get("/v1/accounts", "Lists accounts")
            .paged()
            .answers::<AccountList>(),
        get("/v1/accounts/{account}", "Shows an account").answers::<Account>(),
        post(
            "/v1/accounts/{account}/credit",
            "Adds to an account's balance (rule M02)",
        )
        .takes::<Credit>()
        .answers::<Account>(),
        get("/v1/instances", "Lists instances")
            .paged()
            .answers::<InstanceList>(),
        post(
            "/v1/instances",
            "Registers an instance, and creates disks with it (rule D11)",
        )
        .takes::<RegisterInstance>()
        .once()
        .creates::<RegisteredInstance>(),
        get("/v1/instances/{instance}", "Shows an instance")
            .tagged()
            .answers::<Instance>(),
        patch(
            "/v1/instances/{instance}",
            "Renames an instance, or declares something else of it",
        )
        .matched()
        .takes::<SetInstance>()
        .answers::<Instance>(),
        delete("/v1/instances/{instance}", "Removes an instance")
            .matched()
            .answers::<Instance>(),
        get("/v1/disks", "Lists disks")
            .paged()
            .for_qemu()
            .answers::<DiskList>(),
        post("/v1/disks", "Creates a disk")
            .takes::<CreateDisk>()
            .once()
            .creates::<Disk>(),
        get("/v1/disks/{disk}", "Shows a disk")
            .tagged()
            .for_qemu()
            .answers::<Disk>(),
        patch("/v1/disks/{disk}", "Renames a disk")
            .matched()
            .takes::<SetDisk>()
            .answers::<Disk>(),
        delete("/v1/disks/{disk}", "Deletes a disk")
            .matched()
            .answers::<Disk>(),
        post("/v1/disks/{disk}/detach", "Detaches a disk")
            .takes::<Detach>()
            .answers::<Disk>(),
        post(
            "/v1/disks/{disk}/restart",
            "Replaces the process that serves a disk",
        )
        .answers::<Disk>(),
        post(
            "/v1/disks/{disk}/start",
            "Has an attached disk served that is not since the catalogue was restored",
        )
        .answers::<Disk>(),
        post(
            "/v1/disks/{disk}/rollback",
            "Makes a disk what one of its snapshots holds (rule S03)",
        )
        .takes::<Rollback>()
        .answers::<Disk>(),
        post("/v1/disks/{disk}/reinit", "Makes a disk empty (rule D07)")
            .takes::<Reinitialise>()
            .answers::<Disk>(),
        post("/v1/disks/{disk}/resize", "Makes a disk larger (rule D06)")
            .takes::<Resize>()
            .answers::<Disk>(),
        post(
            "/v1/disks/{disk}/copy",
            "Begins to copy the disk's data to another disk (rule D04)",
        )
        .takes::<CopyDisk>()
        .begins::<Disk>(),
        post(
            "/v1/disks/{disk}/export",
            "Begins to write the disk's data to a raw image file",
        )
        .takes::<ExportDisk>()
        .begins::<Disk>(),
        post(
            "/v1/imports",
            "Begins to read a new disk's data from an image file",
        )
        .takes::<ImportDisk>()
        .begins::<Disk>(),
        post(
            "/v1/disks/{disk}/copy/cancel",
            "Ends the copy of which the disk is the destination",
        )
        .answers::<Disk>(),
        get("/v1/backups", "Lists backups of disks")
            .paged()
            .answers::<BackupList>(),
        post(
            "/v1/backups",
            "Begins to make a backup of a disk or of a snapshot (rule I03)",
        )
        .takes::<CreateBackup>()
        .begins::<Backup>(),
        get("/v1/backups/{backup}", "Shows a backup").answers::<Backup>(),
        delete("/v1/backups/{backup}", "Deletes a backup (rule K14)").answers::<Backup>(),
        post(
            "/v1/backups/{backup}/restore",
            "Begins to restore a backup to a new disk, encrypted or not (rules I03, I04, D10)",
        )
        .takes::<RestoreBackup>()
        .begins::<Disk>(),
        post(
            "/v1/disks/{disk}/check",
            "Examines the metadata of a disk's store",
        )
        .takes::<Check>()
        .answers::<DiskCheck>(),
        get("/v1/snapshots", "Lists snapshots, of one disk or of all")
            .paged()
            .asks("disk", "Id or name of the disk", json!({"type": "string"}))
            .answers::<SnapshotList>(),
        post("/v1/snapshots", "Takes a snapshot of a disk (rule S04)")
            .takes::<CreateSnapshot>()
            .once()
            .creates::<Snapshot>(),
        get("/v1/snapshots/{snapshot}", "Shows a snapshot")
            .tagged()
            .answers::<Snapshot>(),
        patch("/v1/snapshots/{snapshot}", "Renames a snapshot")
            .matched()
            .takes::<SetSnapshot>()
            .answers::<Snapshot>(),
        delete("/v1/snapshots/{snapshot}", "Deletes a snapshot")
            .matched()
            .answers::<Snapshot>(),
        post(
            "/v1/snapshots/{snapshot}/copy",
            "Is refused: no other region's service is known (rule S06)",
        )
        .takes::<CopySnapshot>(),
        get("/v1/attachments", "Lists attachments")
            .paged()
            .for_qemu()
            .answers::<AttachmentList>(),
        post("/v1/attachments", "Attaches a disk to an instance")
            .takes::<Attach>()
            .once()
            .creates::<Attachment>(),
        get("/v1/attachments/{attachment}", "Shows an attachment")
            .for_qemu()
            .answers::<Attachment>(),
        get(
            "/v1/usage",
            "Shows metered calls, by month, and the balance (rule M01)",
        )
        .answers::<Usage>(),
        get("/v1/audit", "Lists records of the audit log (rule M04)")
            .asks(
                "after",
                "Position of the record to go on after",
                json!({"type": "integer", "minimum": 0}),
            )
            .limited()
            .answers::<AuditPage>(),
        get(
            "/v1/audit/verify",
            "Recomputes the audit log of all accounts (rule M04)",
        )
        .asks(
            "head",
            "Head that was noted earlier, as `SEQ:HASH`",
            json!({"type": "string", "pattern": "^[0-9]{1,18}:[0-9a-f]{64}$"}),
        )
        .answers::<AuditHead>(),
        get(
            "/v1/audit/archive",
            "Lists records of the audit log of all accounts, for an archive (rule M04)",
        )
        .asks(
            "after",
            "Position of the record to go on after",
            json!({"type": "integer", "minimum": 0}),
        )
        .limited()
        .answers::<AuditPage>(),
        post(
            "/v1/audit/archive",
            "Removes the oldest records of the audit log, which were archived (rule M04)",
        )
        .takes::<ArchiveAudit>()
        .answers::<AuditHead>(),
    ]
}

/// A call.
struct Call {
    method: &'static str,
    path: &'static str,
    does: &'static str,
    /// Parameter Objects of those that need not be given.
    options: Vec<Value>,
    /// The answer has a tag.
    tagged: bool,
    body: Option<Schema>,
    answer: Option<(u16, Schema)>,
}

fn get(path: &'static str, does: &'static str) -> Call {
    Call::new("get", path, does)
}

fn post(path: &'static str, does: &'static str) -> Call {
    Call::new("post", path, does)
}

fn patch(path: &'static str, does: &'static str) -> Call {
    Call::new("patch", path, does)
}

fn delete(path: &'static str, does: &'static str) -> Call {
    Call::new("delete", path, does)
}

impl Call {
    fn new(method: &'static str, path: &'static str, does: &'static str) -> Self {
        Call {
            method,
            path,
            does,
            options: Vec::new(),
            tagged: false,
            body: None,
            answer: None,
        }
    }

    /// A parameter that need not be given.
    fn asks(self, name: &str, description: &str, schema: Value) -> Self {
        self.option("query", name, description, schema)
    }

    fn option(mut self, place: &str, name: &str, description: &str, schema: Value) -> Self {
        self.options
            .push(json!({"name": name, "in": place, "description": description, "schema": schema}));
        self
    }

    fn limited(self) -> Self {
        let rows = json!({"type": "integer", "minimum": 1, "maximum": limits::PAGE_MOST, "default": limits::PAGE_DEFAULT});
        self.asks("limit", "Most rows", rows)
    }

    fn paged(self) -> Self {
        self.asks("after", "`next` of the page before", json!({"type": "string"}))
            .limited()
    }

    fn for_qemu(self) -> Self {
        let schema = json!(QemuVersion::schema());
        self.asks(
            "qemu_version",
            "The QEMU that the arguments in the answer are for",
            schema,
        )
    }

    fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some(Schema::of::<T>());
        self
    }

    fn answers<T: ToSchema>(mut self) -> Self {
        self.answer = Some((200, Schema::of::<T>()));
        self
    }

    fn begins<T: ToSchema>(mut self) -> Self {
        self.answer = Some((202, Schema::of::<T>()));
        self
    }

    fn creates<T: ToSchema>(mut self) -> Self {
        self.answer = Some((201, Schema::of::<T>()));
        self
    }

    /// A repeat with the same token creates nothing.
    fn once(self) -> Self {
        let schema = json!({"type": "string", "pattern": "^[!-~]{1,64}$"});
        self.option(
            "header",
            "Idempotency-Key",
            "A repeat with the same key creates nothing, and gets the first answer",
            schema,
        )
    }

    /// An object with a tag.
    fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// Changes an object that has a tag.
    fn matched(self) -> Self {
        let schema = json!({"type": "string"});
        self.option("header", "If-Match", "ETag of the object as it was read", schema)
    }

    /// The Operation Object.
    fn operation(&self) -> Value {
        let mut responses = Map::new();
        if let Some((status, schema)) = &self.answer {
            let mut response = response("Done", schema);
            if self.tagged {
                response["headers"] = json!({"ETag": {"required": true, "schema": {"type": "string"}}});
            }
            responses.insert(status.to_string(), response);
        }
        responses.insert(
            "default".to_owned(),
            response("Refused, or failed", &Schema::of::<ApiError>()),
        );
        let mut operation = json!({
            "operationId": self.id(),
            "tags": [self.segments().next()],
            "summary": self.does,
            "parameters": self.parameters(),
            "responses": responses,
        });
        if let Some(body) = &self.body {
            operation["requestBody"] = json!({"required": body.is_needed(), "content": body.content()});
        }
        operation
    }

    fn parameters(&self) -> Vec<Value> {
        let named = self.segments().filter_map(|segment| {
            let name = segment.strip_prefix('{')?.strip_suffix('}')?;
            let schema = json!({"type": "string", "minLength": 1});
            let description = format!("Id or name of the {name}");
            Some(json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema}))
        });
        named.chain(self.options.iter().cloned()).collect()
    }

    /// `post-disks-disk-rollback`
    fn id(&self) -> String {
        let words = self.segments().map(|segment| segment.trim_matches(['{', '}']));
        std::iter::once(self.method)
            .chain(words)
            .collect::<Vec<_>>()
            .join("-")
    }

    /// Those after the version.
    fn segments(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').skip(2)
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

fn document(calls: &[Call]) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for call in calls {
        let item = paths.entry(call.path).or_default();
        item.insert(call.method.to_owned(), call.operation());
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
        "components": {"schemas": schemas(calls)},
    })
}

fn schemas(calls: &[Call]) -> BTreeMap<String, Value> {
    let of_calls = calls.iter().flat_map(|call| {
        call.body
            .iter()
            .chain(call.answer.iter().map(|(_, schema)| schema))
    });
    let errors = Schema::of::<ApiError>();
    of_calls
        .chain([&errors])
        .flat_map(|schema| &schema.all)
        .map(|(name, schema)| (name.clone(), json!(schema)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every `.route(PATH, get(…).post(…))` of the files beside this one.
    fn routes() -> BTreeSet<String> {
        let mut routes = BTreeSet::new();
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api");
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() && !path.ends_with("openapi.rs") {
                routes_in(&std::fs::read_to_string(path).unwrap(), &mut routes);
            }
        }
        routes
    }

    fn routes_in(source: &str, routes: &mut BTreeSet<String>) {
        let source: String = source.split_whitespace().collect();
        for route in source.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once('"').unwrap();
            let mut depth = 1;
            let end = rest.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let handlers = &rest[..end.unwrap()];
            let methods = ["get", "post", "put", "patch", "delete"].into_iter();
            let handled: Vec<_> = methods
                .filter(|method| {
                    [',', '.']
                        .iter()
                        .any(|c| handlers.contains(&format!("{c}{method}(")))
                })
                .collect();
            assert!(!handled.is_empty(), "{path}: {handlers}");
            routes.extend(handled.iter().map(|method| format!("{method} {path}")));
        }
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let calls = calls();
        let described: BTreeSet<_> = calls
            .iter()
            .map(|call| format!("{} {}", call.method, call.path))
            .collect();
        assert_eq!(described.len(), calls.len(), "a call is described twice");
        let routes = routes();
        let missing: Vec<_> = routes.difference(&described).collect();
        let surplus: Vec<_> = described.difference(&routes).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "describe in openapi.rs {missing:?}; there is no route for {surplus:?}"
        );
        assert!(routes.contains("patch /v1/disks/{disk}"), "{routes:?}");
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
