//! What an auditor reads: which key opened which disk, for which machine, when, and for whom (rule M04).

use crate::common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::common::{Kms, MIB, Value, finish, json, kill};

/// Records of the audit log that are wanted.
fn records(kms: &Kms, query: &str) -> Vec<Value> {
    let page = kms.get(&format!("/v1/audit?limit=1000{query}"));
    page["audit"].as_array().unwrap().clone()
}

/// What `sealctl audit list` shows of them.
fn listed(kms: &Kms, filter: &[&str]) -> Vec<Value> {
    let mut command = Command::new(common::sealctl());
    let socket = kms.state().join("kms.sock");
    command.args(["-o", "json", "--socket"]).arg(socket);
    let output = finish(command.args(["audit", "list"]).args(filter));
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    page["audit"].as_array().unwrap().clone()
}

/// The newest record of a call.
fn newest(kms: &Kms, call: &str) -> Value {
    let records = records(kms, "");
    let record = records.into_iter().rfind(|record| record["call"] == call);
    record.unwrap_or_else(|| panic!("there is no {call}"))
}

/// An answer's headers, in lower case, and its body.
fn answer(kms: &Kms, request: &str) -> (BTreeMap<String, String>, Value) {
    let mut stream = UnixStream::connect(kms.state().join("kms.sock")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    (
        headers.collect(),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

#[test]
fn rule_m04_a_disk_s_life_is_read_by_one_filter() {
    let mut kms = Kms::active();
    let key = kms.make("/v1/keys", json!({"name": "mine"}))["id"].clone();
    let body = json!({"name": "data", "size": MIB, "key": "mine"});
    let disk = kms.make("/v1/disks", body)["id"].clone();
    let machine = kms.instance("vm")["id"].clone();
    let attachment = kms.attach("data", "vm")["id"].clone();
    kill(kms.backends()[0], "KILL");
    kms.until("it is served again", || {
        records(&kms, "")
            .iter()
            .filter(|record| record["call"] == "key.use")
            .count()
            == 2
    });
    let snapshot = kms.snapshot("data", "before")["id"].clone();
    let clone = kms.make("/v1/disks", json!({"name": "other", "snapshot": "data/before"}))["id"].clone();
    kms.patch("/v1/disks/data", json!({"name": "renamed"}));
    kms.make("/v1/keys/mine/disable", json!({}));
    kms.refuses(
        "/v1/disks/renamed/detach",
        json!({}),
        "DetachNeedsForce",
        Some("A07"),
    );
    kms.make("/v1/disks/renamed/detach", json!({"force": true}));
    kms.refuses(
        "/v1/attachments",
        json!({"disk": "renamed", "instance": "vm"}),
        "KeyNotUsable",
        Some("A05"),
    );
    kms.delete("/v1/disks/renamed");
    let body = json!({"disk": "renamed", "instance": "vm"});
    kms.refuses("/v1/attachments", body, "DiskDeleted", None);
    kms.make("/v1/disks/renamed/restore", json!({"name": "again"}));
    // The name is another disk's by now.
    kms.make("/v1/disks", json!({"name": "data", "size": MIB}));
    let id = disk.as_str().unwrap();
    let life = records(&kms, &format!("&disk={id}"));
    assert_eq!(listed(&kms, &["--disk", id]), life);
    let known = [
        (&disk, "the disk"),
        (&key, "the key"),
        (&machine, "the machine"),
        (&attachment, "the attachment"),
        (&snapshot, "the snapshot"),
        (&clone, "the clone"),
    ];
    let text = |value: &Value| match known.iter().find(|(id, _)| *id == value) {
        Some((_, name)) => (*name).to_owned(),
        None => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    };
    let line = |record: &Value| {
        let names = [
            "disk",
            "key",
            "key_version",
            "instance",
            "attachment",
            "snapshot",
            "source",
            "reason",
            "retention_days",
            "asked",
        ];
        let details = names.map(|name| (name, &record["details"][name]));
        let details = details.into_iter().filter(|(_, value)| !value.is_null());
        let details: Vec<_> = details
            .map(|(name, value)| format!("{name}={}", text(value)))
            .collect();
        let outcome = ["call", "object", "decision", "code"].map(|name| match &record[name] {
            Value::Null => String::new(),
            value => text(value) + " ",
        });
        outcome.concat() + &details.join(" ")
    };
    let lines: Vec<_> = life.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            r#"disk.create data allowed disk=the disk key=the key key_version=1 asked={"key":"mine","name":"data","size":1048576}"#,
            r#"attach data allowed disk=the disk key=the key key_version=1 instance=the machine attachment=the attachment asked={"disk":"data","instance":"vm"}"#,
            "key.use the attachment allowed disk=the disk key=the key key_version=1 instance=the machine attachment=the attachment reason=attach",
            "key.use the attachment allowed disk=the disk key=the key key_version=1 instance=the machine attachment=the attachment reason=restart",
            r#"snapshot.create data allowed disk=the disk key=the key key_version=1 instance=the machine attachment=the attachment snapshot=the snapshot asked={"disk":"data","name":"before"}"#,
            r#"disk.create other allowed disk=the clone key=the key key_version=1 snapshot=the snapshot source=the disk asked={"name":"other","snapshot":"data/before"}"#,
            r#"disk.set data allowed disk=the disk key=the key key_version=1 instance=the machine attachment=the attachment asked={"name":"renamed"}"#,
            "detach renamed refused DetachNeedsForce disk=the disk key=the key key_version=1 instance=the machine attachment=the attachment",
            r#"detach renamed allowed disk=the disk key=the key key_version=1 instance=the machine attachment=the attachment asked={"force":true}"#,
            r#"attach renamed refused KeyNotUsable disk=the disk key=the key key_version=1 instance=the machine asked={"disk":"renamed","instance":"vm"}"#,
            "disk.delete renamed allowed disk=the disk key=the key key_version=1 retention_days=7",
            r#"attach renamed refused DiskDeleted disk=the disk key=the key key_version=1 asked={"disk":"renamed","instance":"vm"}"#,
            r#"disk.restore renamed allowed disk=the disk key=the key key_version=1 asked={"name":"again"}"#,
        ],
        "{lines:#?}"
    );
    // Both uses of the key are for the call that attached the disk, and for who made it.
    let attach = &life[1];
    for use_of_key in &life[2..4] {
        assert_eq!(use_of_key["request"], attach["request"]);
        assert_eq!(use_of_key["details"]["for_uid"], attach["uid"]);
    }
    assert_eq!(life[0]["details"]["size"], MIB);
    // By its key, by the machine, by all of them, and by what a call has done.
    let of = |query: &str| records(&kms, query).len();
    let key_name = format!("&key=mine&disk={id}");
    assert_eq!(of(&key_name), lines.len());
    assert_eq!(of("&key=mine"), lines.len() + 2, "the key was made and disabled");
    assert_eq!(of(&format!("&disk={id}&instance=vm")), 9 - 1);
    let request = attach["request"].as_str().unwrap();
    assert_eq!(of(&format!("&request={request}")), 3);
    assert_eq!(of("&instance=nobody"), 0);
    let (since, until) = (
        life[2]["time"].as_str().unwrap(),
        life[4]["time"].as_str().unwrap(),
    );
    let between = records(&kms, &format!("&disk={id}&since={since}&until={until}"));
    assert!(
        between.contains(&life[2]) && !between.contains(&life[4]),
        "{between:?}"
    );
    assert_eq!(of("&until=2001-01-01"), 0);
    assert_eq!(of("&since=2001-01-01"), of(""));
    let (status, _) = kms.call("GET", "/v1/audit?since=yesterday", None);
    assert_eq!(status, 400);
    // Page by page.
    let page = kms.get(&format!("/v1/audit?disk={id}&limit=4"));
    assert_eq!(page["next"], life[3]["seq"]);
    let rest = records(&kms, &format!("&disk={id}&after={}", page["next"]));
    assert_eq!([page["audit"].as_array().unwrap().clone(), rest].concat(), life);
    kms.get("/v1/audit/verify");
    // Archived records are not found, and leave nothing behind.
    let before = life[2]["seq"].clone();
    let hash = life[1]["hash"].clone();
    kms.make("/v1/audit/archive", json!({"before": before, "hash": hash}));
    kms.until("the rows are removed", || {
        kms.query(&format!(
            "SELECT count(*) FROM audit_objects WHERE seq < {before}"
        )) == 0
    });
    assert_eq!(records(&kms, &format!("&disk={id}")), life[2..]);
    kms.get("/v1/audit/verify");
    kms.stop();
    kms.serve();
    kms.get("/v1/audit/verify");
}

#[test]
fn rule_m04_parameters_that_matter_are_recorded_and_secrets_are_not() {
    let kms = Kms::active();
    kms.layered("data");
    let file = kms.path("raw");
    kms.make("/v1/disks/data/export", json!({"file": file, "decrypt": true}));
    kms.until("it is copied", || !kms.audit("copy.end").is_empty());
    let export = newest(&kms, "disk.export");
    assert_eq!(export["details"]["asked"], json!({"file": file, "decrypt": true}));
    assert_eq!(export["details"]["file"], file);
    let end = newest(&kms, "copy.end");
    assert_eq!(end["request"], export["request"]);
    for name in ["disk", "key", "copy", "file"] {
        // The disk that is copied from is the source by then.
        let other = if name == "disk" { "source" } else { name };
        assert_eq!(end["details"][other], export["details"][name], "{name}");
    }
    assert_eq!(end["details"]["copied_by"], "disk.export");
    let used = newest(&kms, "key.use");
    assert_eq!(
        (&used["request"], &used["details"]["reason"]),
        (&export["request"], &json!("disk.export"))
    );
    assert_eq!(used["details"]["disk"], export["details"]["disk"]);
    kms.make("/v1/accounts/default/credit", json!({"amount": 12}));
    assert_eq!(newest(&kms, "account.credit")["details"]["asked"]["amount"], 12);
    kms.make("/v1/disks/data/resize", json!({"size": 2 * MIB}));
    assert_eq!(newest(&kms, "disk.resize")["details"]["asked"]["size"], 2 * MIB);
    let key = kms.make("/v1/keys", json!({"name": "old"}));
    kms.make("/v1/keys/old/schedule-deletion", json!({"days": 9}));
    let scheduled = newest(&kms, "key.schedule-deletion");
    assert_eq!(
        (&scheduled["details"]["days"], &scheduled["details"]["key"]),
        (&json!(9), &key["id"])
    );
    kms.make("/v1/images", json!({"name": "base", "disk": "data"}));
    let image = kms.get("/v1/images/base")["id"].clone();
    let refused = json!({"account": "nobody"});
    assert!(kms.post("/v1/images/base/share", refused.clone()).0 >= 400);
    let shared = newest(&kms, "image.share");
    assert_eq!(
        (&shared["details"]["image"], &shared["details"]["asked"]),
        (&image, &refused)
    );
    kms.make("/v1/keys", json!({"name": "theirs", "import": true}));
    let asked = kms.make("/v1/keys/theirs/import-params", json!({}));
    let token = asked["import_token"].as_str().unwrap();
    let body = json!({"import_token": token, "wrapped_material": "QUJD"});
    assert!(kms.post("/v1/keys/theirs/import", body).0 >= 400);
    let log = records(&kms, "");
    let text = Value::from(log).to_string();
    assert!(
        text.contains("key.import\"") && !text.contains(token) && !text.contains("QUJD"),
        "{text}"
    );
    let machine = kms.make(
        "/v1/instances",
        json!({"name": "vm", "disks": [{"name": "one", "size": MIB}, {"name": "two", "size": MIB}]}),
    );
    let registered = newest(&kms, "instance.register");
    let disks: Vec<_> = machine["new_disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|disk| disk["id"].clone())
        .collect();
    assert_eq!(registered["details"]["disks"], json!(disks));
    assert_eq!(
        records(&kms, "&disk=two").len(),
        2,
        "its own create, and the machine's registration"
    );
}

#[test]
fn rule_m04_a_request_has_one_id_in_answer_error_log_and_record() {
    let kms = Kms::active();
    let post = |body: &str, more: &str| {
        format!(
            "POST /v1/disks HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n{more}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (headers, _) = answer(&kms, &post(r#"{"name": "data", "size": 1048576}"#, ""));
    let id = headers["x-request-id"].clone();
    assert!(id.starts_with("req-") && id.len() == 20, "{id}");
    assert_eq!(newest(&kms, "disk.create")["request"], id);
    assert!(
        kms.log()
            .lines()
            .any(|line| line.contains(&id) && line.contains("disk.create data: done"))
    );
    // Another's is not taken over.
    let (headers, error) = answer(
        &kms,
        &post(r#"{"name": "data", "size": 512}"#, "X-Request-Id: req-mine\r\n"),
    );
    let other = &headers["x-request-id"];
    assert!(other.starts_with("req-") && *other != id && other != "req-mine");
    assert_eq!(error["request"], *other);
    assert_eq!(newest(&kms, "disk.create")["request"], *other);
    for (method, path) in [
        ("GET", "/v1/kms"),
        ("GET", "/v1/disks/none"),
        ("GET", "/nowhere"),
        ("PUT", "/v1/disks"),
    ] {
        let (headers, body) = answer(
            &kms,
            &format!("{method} {path} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n\r\n"),
        );
        assert!(headers["x-request-id"].starts_with("req-"), "{path}");
        assert!(
            body["code"].is_null() || body["request"] == headers["x-request-id"],
            "{path}: {body}"
        );
    }
}

/// Whatever undoes it, or if nothing does: what was allowed and has failed is recorded, once.
#[test]
fn rule_m04_calls_that_fail_after_they_were_allowed_are_recorded_as_failed() {
    let mut kms = Kms::active();
    kms.layered("data");
    kms.instance("vm");
    let outcome = |kms: &Kms, call: &str| {
        let record = newest(kms, call);
        let request = record["request"].as_str().unwrap().to_owned();
        let all = records(kms, &format!("&request={request}"));
        let decisions = all.iter().filter(|record| record["call"] == call);
        let decisions: Vec<_> = decisions.map(|record| record["decision"].clone()).collect();
        (Value::from(decisions), record)
    };
    let failed = json!(["allowed", "failed"]);
    kms.behave("dies");
    kms.stop();
    kms.serve();
    assert!(
        kms.post("/v1/attachments", json!({"disk": "data", "instance": "vm"}))
            .0
            >= 500
    );
    let (decisions, attach) = outcome(&kms, "attach");
    assert_eq!(decisions, failed);
    for name in ["disk", "key", "instance", "attachment"] {
        assert!(attach["details"][name].is_string(), "{name}: {attach}");
    }
    assert!(
        kms.post("/v1/snapshots", json!({"disk": "data", "name": "one"}))
            .0
            >= 500
    );
    assert_eq!(outcome(&kms, "snapshot.create").0, failed);
    assert!(kms.post("/v1/disks/data/check", json!({})).0 >= 500);
    assert_eq!(outcome(&kms, "disk.check").0, failed);
    kms.behave("sealblk");
    kms.stop();
    kms.serve();
    kms.attach("data", "vm");
    kms.behave("unfit");
    kms.stop();
    kms.serve();
    // Nothing is undone by anybody here.
    assert!(kms.post("/v1/disks/data/restart", json!({})).0 >= 400);
    let (decisions, restart) = outcome(&kms, "backend.restart");
    assert_eq!(decisions, failed);
    assert!(
        restart["details"]["instance"].is_string() && restart["code"].is_string(),
        "{restart}"
    );
    kms.get("/v1/audit/verify");
}

#[test]
fn rule_m04_fees_and_the_loss_of_principals_are_recorded() {
    let mut kms = Kms::of_profile("alibaba-ecs", 0);
    let fee = kms.get("/v1/profile")["customer_key_fee"].clone();
    kms.make("/v1/kms/activate", json!({}));
    kms.make("/v1/accounts/default/credit", json!({"amount": fee}));
    let key = kms.make("/v1/keys", json!({"name": "mine"}))["id"].clone();
    let paid = newest(&kms, "key.fee");
    assert_eq!(
        (&paid["details"]["key"], &paid["details"]["amount"]),
        (&key, &fee)
    );
    assert_eq!(paid["request"], newest(&kms, "key.create")["request"]);
    let file = kms.path("accounts");
    std::fs::write(
        &file,
        r#"{"principals": [{"uid": 4242, "account": "acme", "roles": ["auditor"]}]}"#,
    )
    .unwrap();
    kms.options = vec!["--accounts".into(), file];
    kms.stop();
    kms.serve();
    let loaded = newest(&kms, "accounts.load");
    assert_eq!(loaded["details"]["added"], json!([4242]));
    kms.options.clear();
    for _ in 0..2 {
        kms.stop();
        kms.serve();
    }
    assert_eq!(
        kms.audit("accounts.load").len(),
        2,
        "once it is gone, nothing is said"
    );
    let lost = newest(&kms, "accounts.load");
    assert_eq!(
        (&lost["object"], &lost["details"]["removed"]),
        (&json!("none"), &json!([4242]))
    );
}

/// A log of an earlier version goes on, and both parts of it verify.
#[test]
fn rule_m04_records_without_details_verify_before_those_that_have_them() {
    let mut kms = Kms::active();
    kms.stop();
    // As a version wrote it that knew no details.
    let guards = "DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_never_cut; DELETE FROM audit; \
                  DELETE FROM audit_heads; DELETE FROM audit_objects;";
    let triggers = [
        "CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit\nBEGIN\n    \
         SELECT RAISE(ABORT, 'the audit log is append-only (M04)');\nEND",
        "CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit\n\
         WHEN OLD.seq > coalesce((SELECT seq FROM audit_heads WHERE kind = 'archived'), 0)\nBEGIN\n    \
         SELECT RAISE(ABORT, 'the audit log is append-only (M04)');\nEND",
    ];
    kms.tamper(guards);
    // Two records of a catalogue that the first version made.
    kms.tamper(OLD);
    for trigger in triggers {
        kms.tamper(trigger);
    }
    kms.serve();
    kms.layered("data");
    let all = records(&kms, "");
    assert!(
        all[0]["details"].is_null() && all[2]["details"].is_object(),
        "{all:?}"
    );
    assert_eq!(kms.get("/v1/audit/verify")["seq"], all.last().unwrap()["seq"]);
    // Details that are taken away, or given to a record that had none, are a change.
    for (seq, change) in [(3, "NULL"), (1, "'{}'"), (3, "'{\"disk\":\"disk-2\"}'")] {
        kms.stop();
        let copy = kms.state().with_extension("copy");
        std::fs::copy(kms.state().join("catalogue.db"), &copy).unwrap();
        kms.tamper("DROP TRIGGER audit_is_never_changed");
        kms.tamper(&format!("UPDATE audit SET details = {change} WHERE seq = {seq}"));
        kms.tamper(triggers[0]);
        kms.fails(&["serve"], "AuditBroken (M04)");
        std::fs::copy(&copy, kms.state().join("catalogue.db")).unwrap();
        kms.serve();
    }
}

/// Computed by `python3` from the encoding in docs/audit.md.
const OLD: &str = "INSERT INTO audit (seq, time, account, uid, pid, request, call, object, decision, hash) VALUES \
    (1, '2026-01-01T00:00:00.000Z', 'default', 0, 1, 'req-old', 'init', 'kms-1', 'allowed', x'5890ddb1111c0e2b1a7b638216adfc921a59ee145c8412d872a56c89a7ad3c47'), \
    (2, '2026-01-01T00:00:00.000Z', 'default', 0, 1, 'req-old', 'kms.activate', 'kms', 'allowed', x'6d2b33b1e3334acb9e305868fc2aebd7266c8b5f2d9ea6e8ff6a674a2526f895')";
