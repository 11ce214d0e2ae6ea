//! Creating calls with the header `Idempotency-Key`: a repeat creates nothing, and gets the first answer.

use crate::common::{Kms, MIB, Value, json, refused};

fn create(kms: &Kms, path: &str, key: &str, body: &Value) -> (u16, Value) {
    create_bytes(kms, path, key, &body.to_string())
}

fn create_bytes(kms: &Kms, path: &str, key: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\nIdempotency-Key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    kms.send(request.as_bytes())
}

fn makes(kms: &Kms, path: &str, key: &str, body: &Value) -> Value {
    let (status, answer) = create(kms, path, key, body);
    assert_eq!(status, 201, "{path}: {answer}\n{}", kms.log());
    answer
}

fn refuses(kms: &Kms, path: &str, key: &str, body: &Value, status: u16, code: &str) {
    let (found, answer) = create(kms, path, key, body);
    assert_eq!(found, status, "{answer}");
    refused(found, &answer, code, None);
}

fn disk(name: &str) -> Value {
    json!({"name": name, "size": MIB})
}

const DISKS: &str = "/v1/disks";

#[test]
fn a_repeat_gets_the_first_answer_and_creates_nothing() {
    let kms = Kms::active();
    let calls = [
        (DISKS, disk("data")),
        ("/v1/snapshots", json!({"disk": "data", "name": "first"})),
        ("/v1/instances", json!({"name": "vm", "disks": [disk("logs")]})),
        ("/v1/attachments", json!({"disk": "data", "instance": "vm"})),
        ("/v1/images", json!({"name": "base", "snapshot": "data/first"})),
        ("/v1/keys", json!({"name": "own"})),
    ];
    for (path, body) in &calls {
        let first = makes(&kms, path, path, body);
        let recorded = kms.query("SELECT count(*) FROM audit");
        assert_eq!(makes(&kms, path, path, body), first);
        assert_eq!(
            kms.query("SELECT count(*) FROM audit"),
            recorded,
            "nothing was decided"
        );
    }
    assert_eq!(
        (kms.usage("create"), kms.usage("snapshot"), kms.usage("attach")),
        (2, 1, 1)
    );
    assert_eq!(kms.query("SELECT count(*) FROM disks"), 2);
    assert_eq!(kms.backends().len(), 1);
    // Without a key they are calls of their own.
    kms.refuses(DISKS, disk("data"), "NameTaken", None);
}

#[test]
fn the_first_answer_stays_whatever_became_of_the_object() {
    let mut kms = Kms::active();
    let first = makes(&kms, DISKS, "k", &disk("data"));
    assert_eq!(kms.patch("/v1/disks/data", json!({"name": "renamed"})).0, 200);
    assert_eq!(makes(&kms, DISKS, "k", &disk("data")), first);
    kms.restart();
    assert_eq!(makes(&kms, DISKS, "k", &disk("data")), first);
    kms.delete("/v1/disks/renamed?retention_days=0");
    assert_eq!(makes(&kms, DISKS, "k", &disk("data")), first);
    assert_eq!(kms.query("SELECT count(*) FROM disks"), 0);
}

#[test]
fn spaces_and_the_order_of_fields_do_not_count() {
    let kms = Kms::active();
    let (_, first) = create_bytes(&kms, DISKS, "k", r#"{"name":"data","size":1048576}"#);
    let (status, again) = create_bytes(&kms, DISKS, "k", r#"{ "size": 1048576, "name": "data" }"#);
    assert_eq!((status, again), (201, first));
}

#[test]
fn another_call_with_the_same_key_is_refused() {
    let kms = Kms::active();
    makes(&kms, DISKS, "k", &disk("data"));
    for (path, body) in [
        (DISKS, disk("other")),
        (DISKS, json!({"name": "data", "size": 2 * MIB})),
        ("/v1/instances", json!({"name": "data"})),
    ] {
        refuses(&kms, path, "k", &body, 409, "TokenReused");
    }
    let last = kms.audit("instance.register").pop().unwrap();
    assert_eq!(last, ("refused".to_owned(), "TokenReused".to_owned()));
    assert_eq!(kms.query("SELECT count(*) FROM disks"), 1);
    assert_eq!(kms.query("SELECT count(*) FROM instances"), 0);
}

#[test]
fn what_was_refused_or_undone_is_decided_anew() {
    let mut kms = Kms::start();
    let (status, answer) = create(&kms, DISKS, "k", &disk("data"));
    refused(status, &answer, "KmsNotActivated", Some("K01"));
    kms.make("/v1/kms/activate", json!({}));
    makes(&kms, DISKS, "k", &disk("data"));
    makes(&kms, "/v1/instances", "i", &json!({"name": "vm"}));
    // A backend that does not come undoes the attach.
    kms.stop();
    kms.behave("dies");
    kms.serve();
    let attach = json!({"disk": "data", "instance": "vm"});
    let (status, answer) = create(&kms, "/v1/attachments", "a", &attach);
    assert_eq!(
        (status, &answer["code"]),
        (500, &json!("BackendFailed")),
        "{answer}"
    );
    kms.stop();
    kms.behave("sealblk");
    kms.serve();
    let made = makes(&kms, "/v1/attachments", "a", &attach);
    assert_eq!(makes(&kms, "/v1/attachments", "a", &attach), made);
    assert_eq!(kms.usage("attach"), 1);
}

#[test]
fn a_crash_before_the_answer_was_kept_loses_nothing() {
    let mut kms = Kms::active();
    let first = makes(&kms, DISKS, "k", &disk("data"));
    makes(&kms, "/v1/instances", "i", &json!({"name": "vm"}));
    let others = [
        ("/v1/snapshots", json!({"disk": "data", "name": "first"})),
        ("/v1/images", json!({"name": "base", "snapshot": "data/first"})),
        ("/v1/keys", json!({"name": "own"})),
    ];
    let made = others
        .each_ref()
        .map(|(path, body)| makes(&kms, path, path, body));
    kms.kill();
    kms.tamper("UPDATE tokens SET answer = NULL");
    kms.serve();
    for ((path, body), made) in others.iter().zip(made) {
        assert_eq!(makes(&kms, path, path, body)["id"], made["id"]);
    }
    assert_eq!(makes(&kms, DISKS, "k", &disk("data"))["id"], first["id"]);
    assert_eq!(
        makes(&kms, "/v1/instances", "i", &json!({"name": "vm"}))["name"],
        "vm"
    );
    assert_eq!(kms.query("SELECT count(*) FROM disks"), 1);
    // The object was undone by the start.
    kms.kill();
    kms.tamper("UPDATE tokens SET answer = NULL, object = 'disk-0' WHERE token = 'k'");
    kms.serve();
    kms.delete("/v1/disks/data?retention_days=0");
    let second = makes(&kms, DISKS, "k", &disk("data"));
    assert_ne!(second["id"], first["id"]);
    assert_eq!(makes(&kms, DISKS, "k", &disk("data")), second);
}

#[test]
fn calls_at_once_create_one() {
    let kms = Kms::active();
    let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| create(&kms, DISKS, "k", &disk("data"))))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(answers.iter().any(|(status, _)| *status == 201), "{answers:?}");
    for (status, answer) in answers {
        assert!(
            status == 201 || answer["code"] == "TokenUnderWay",
            "{status} {answer}"
        );
    }
    assert_eq!(kms.query("SELECT count(*) FROM disks"), 1);
    assert_eq!(kms.usage("create"), 1);
}

#[test]
fn what_is_no_key_is_refused() {
    let kms = Kms::active();
    for key in ["", "a b", &"k".repeat(65)] {
        refuses(&kms, DISKS, key, &disk("data"), 400, "InvalidToken");
    }
    let (status, answer) = create_bytes(&kms, DISKS, "a\r\nIdempotency-Key: b", "{}");
    refused(status, &answer, "InvalidRequest", None);
    makes(&kms, DISKS, &"k".repeat(64), &disk("data"));
}

#[test]
fn keys_are_forgotten_after_a_day_and_beyond_a_thousand() {
    let mut kms = Kms::active();
    makes(&kms, DISKS, "old", &disk("data"));
    kms.until("a look at the clock", || {
        kms.query("SELECT count(*) FROM clock") == 1
    });
    // What a clock says that is set forward counts for nothing.
    kms.kill();
    kms.tamper("UPDATE clock SET steady = steady - 400 * 86400000; UPDATE tokens SET created = '2025-01-01T00:00:00.000Z'");
    kms.serve();
    assert_eq!(makes(&kms, DISKS, "old", &disk("data"))["name"], "data");
    kms.kill();
    kms.tamper("UPDATE clock SET seen = seen + 86400000");
    kms.serve();
    refuses(&kms, DISKS, "old", &disk("data"), 409, "NameTaken");
    kms.kill();
    kms.tamper(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
         INSERT INTO tokens (account, token, digest, call, object, request, answer, created, seen)
         SELECT 'default', 'many-' || i, zeroblob(32), 'disk.create', 'disk-0', 'req-' || i, '{}',
                strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), (SELECT seen FROM clock) FROM n",
    );
    kms.serve();
    let first = makes(&kms, DISKS, "new", &disk("other"));
    assert_eq!(kms.query("SELECT count(*) FROM tokens"), 1000);
    assert_eq!(kms.query("SELECT count(*) FROM tokens WHERE token = 'old'"), 0);
    assert_eq!(makes(&kms, DISKS, "new", &disk("other")), first);
}
