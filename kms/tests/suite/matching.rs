//! `ETag` and `If-Match`: an object is changed only if it is still as it was read.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::common::{Kms, Value, json, refused};

/// The tag of an object.
fn tag(kms: &Kms, path: &str) -> String {
    let mut stream = UnixStream::connect(kms.state().join("kms.sock")).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let tag = answer.lines().find_map(|line| line.strip_prefix("etag: "));
    tag.unwrap_or_else(|| panic!("{path}: {answer}")).to_owned()
}

fn matching(kms: &Kms, method: &str, path: &str, tags: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\nIf-Match: {tags}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    kms.send(request.as_bytes())
}

/// Renames what lies at `path` and deletes it, with the right tag and with an old one.
fn check(kms: &Kms, path: &str, call: &str) {
    let first = tag(kms, path);
    assert_eq!(tag(kms, path), first, "nothing has changed");
    let id = kms.get(path)["id"].as_str().unwrap().to_owned();
    let path = format!("{}/{id}", path.rsplit_once('/').unwrap().0);
    let (status, answer) = matching(kms, "PATCH", &path, &first, &json!({"name": "renamed"}));
    assert_eq!((status, &answer["name"]), (200, &json!("renamed")), "{answer}");
    let second = tag(kms, &path);
    assert_ne!(second, first);
    for (method, body) in [("PATCH", json!({"name": "again"})), ("DELETE", Value::Null)] {
        let (status, answer) = matching(kms, method, &path, &first, &body);
        assert_eq!(status, 412, "{answer}");
        refused(status, &answer, "PreconditionFailed", None);
    }
    assert_eq!(
        (tag(kms, &path), &kms.get(&path)["name"]),
        (second.clone(), &json!("renamed"))
    );
    let last = kms.audit(&format!("{call}.set")).pop().unwrap();
    assert_eq!(last, ("refused".to_owned(), "PreconditionFailed".to_owned()));
    let either = format!("{first}, {second}");
    assert_eq!(
        matching(kms, "PATCH", &path, &either, &json!({"name": "third"})).0,
        200
    );
    let (status, answer) = matching(kms, "DELETE", &path, &tag(kms, &path), &Value::Null);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(kms.call("GET", &path, None).0, 404);
    // There is none that could match.
    assert_eq!(matching(kms, "DELETE", &path, "*", &Value::Null).0, 404);
}

#[test]
fn an_object_that_has_changed_is_not_changed_by_who_read_it_before() {
    let kms = Kms::active();
    kms.layered("data");
    kms.snapshot("data", "first");
    kms.instance("vm");
    kms.make("/v1/images", json!({"name": "base", "snapshot": "data/first"}));
    check(&kms, "/v1/images/base", "image");
    check(&kms, "/v1/snapshots/first", "snapshot");
    check(&kms, "/v1/instances/vm", "instance");
    check(&kms, "/v1/disks/data", "disk");
}

#[test]
fn a_disk_in_the_bin_has_the_tag_that_it_had() {
    let kms = Kms::active();
    for (name, right) in [("one", None), ("two", Some("*"))] {
        let id = kms.disk(name)["id"].as_str().unwrap().to_owned();
        let (path, old) = (format!("/v1/disks/{id}"), tag(&kms, &format!("/v1/disks/{id}")));
        kms.patch(&path, json!({"name": format!("new-{name}")}));
        let last = tag(&kms, &path);
        kms.delete(&path);
        let path = format!("{path}?retention_days=0");
        let (status, answer) = matching(&kms, "DELETE", &path, &old, &Value::Null);
        refused(status, &answer, "PreconditionFailed", None);
        let by_name = format!("/v1/disks/new-{name}?retention_days=0");
        let (status, answer) = matching(&kms, "DELETE", &by_name, &last, &Value::Null);
        refused(status, &answer, "DiskDeleted", None);
        let (status, answer) = matching(&kms, "DELETE", &path, right.unwrap_or(&last), &Value::Null);
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(kms.get("/v1/kms")["bin"]["disks"], 0);
}

#[test]
fn an_attach_changes_disk_and_instance_but_no_key() {
    let kms = Kms::active();
    let key = kms.disk("data")["key"].as_str().unwrap().to_owned();
    kms.instance("vm");
    let paths = [
        "/v1/disks/data".to_owned(),
        "/v1/instances/vm".to_owned(),
        format!("/v1/keys/{key}"),
    ];
    let before = paths.each_ref().map(|path| tag(&kms, path));
    kms.attach("data", "vm");
    kms.disk("other");
    let after = paths.each_ref().map(|path| tag(&kms, path));
    assert_ne!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    assert_eq!(before[2], after[2]);
}

#[test]
fn a_key_has_another_tag_after_each_change() {
    let kms = Kms::active();
    let path = "/v1/keys/own";
    kms.make("/v1/keys", json!({"name": "own"}));
    let first = tag(&kms, path);
    let body = |alias: &str| json!({"add_aliases": [alias]});
    assert_eq!(matching(&kms, "PATCH", path, &first, &body("one")).0, 200);
    let (status, answer) = matching(&kms, "PATCH", path, &first, &body("two"));
    assert_eq!(status, 412);
    refused(status, &answer, "PreconditionFailed", None);
    let second = tag(&kms, path);
    kms.make("/v1/keys/own/disable", json!({}));
    assert_ne!(tag(&kms, path), second);
    assert_eq!(kms.get(path)["aliases"], json!(["one"]));
}

#[test]
fn what_is_no_tag_is_refused() {
    let kms = Kms::active();
    kms.disk("data");
    for tags in ["x", "W/\"x\"", ""] {
        let (status, answer) = matching(&kms, "DELETE", "/v1/disks/data", tags, &Value::Null);
        assert_eq!(status, 400, "{tags}: {answer}");
        refused(status, &answer, "InvalidRequest", None);
    }
    assert_eq!(
        matching(&kms, "DELETE", "/v1/disks/data", "*", &Value::Null).0,
        200
    );
}
