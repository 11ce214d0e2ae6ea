//! The audit log as operators use it (rule M04): read, follow, export, and find what was done to it.

use crate::common;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::common::{Kms, Value, finish, json, refused};

fn sealctl(kms: &Kms, words: &[&str]) -> Command {
    let mut command = Command::new(common::sealctl());
    command
        .args(["-o", "json", "--socket"])
        .arg(kms.state().join("kms.sock"))
        .args(words);
    command
}

fn does(kms: &Kms, words: &[&str]) -> Value {
    let output = finish(&mut sealctl(kms, words));
    assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Refused with this code and rule; the message.
fn fails(kms: &Kms, words: &[&str], code: &str, rule: Option<&str>) -> String {
    let output = finish(&mut sealctl(kms, words));
    assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    refused(499, &error, code, rule);
    error["message"].as_str().unwrap().to_owned()
}

/// Changes the log as somebody does who can write to the catalogue's file and knows its triggers.
fn falsify(kms: &mut Kms, statement: &str) {
    let guards = ["audit_is_never_changed", "audit_is_never_cut"];
    let triggers = [
        "CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit\nBEGIN\n    \
         SELECT RAISE(ABORT, 'the audit log is append-only (M04)');\nEND",
        "CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit\n\
         WHEN OLD.seq > coalesce((SELECT seq FROM audit_heads WHERE kind = 'archived'), 0)\nBEGIN\n    \
         SELECT RAISE(ABORT, 'the audit log is append-only (M04)');\nEND",
    ];
    let daemon = kms.daemon.take();
    for guard in guards {
        kms.tamper(&format!("DROP TRIGGER {guard}"));
    }
    kms.tamper(statement);
    for trigger in triggers {
        kms.tamper(trigger);
    }
    kms.daemon = daemon;
}

fn with_records() -> Kms {
    let kms = Kms::active();
    for name in ["one", "two", "three"] {
        kms.disk(name);
    }
    kms.refuses(
        "/v1/disks",
        json!({"name": "one", "size": 512}),
        "NameTaken",
        None,
    );
    kms
}

fn text_of(head: &Value) -> String {
    format!("{}:{}", head["seq"], head["hash"].as_str().unwrap())
}

#[test]
fn rule_m04_what_was_written_verifies_and_grows_past_a_head() {
    let kms = with_records();
    let head = does(&kms, &["audit", "verify"]);
    let records = kms.get("/v1/audit?limit=1000")["audit"].clone();
    let newest = records.as_array().unwrap().last().unwrap().clone();
    assert_eq!((&head["seq"], &head["hash"]), (&newest["seq"], &newest["hash"]));
    assert_eq!(head["id"], newest["id"]);
    kms.disk("four");
    let later = does(&kms, &["audit", "verify", "--head", &text_of(&head)]);
    assert!(later["seq"].as_u64() > head["seq"].as_u64(), "{later}");
    let first = text_of(&records[0]);
    assert_eq!(
        does(&kms, &["audit", "verify", "--head", &first])["seq"],
        later["seq"]
    );
}

#[test]
fn rule_m04_a_changed_record_is_found() {
    let mut kms = with_records();
    let head = text_of(&does(&kms, &["audit", "verify"]));
    falsify(&mut kms, "UPDATE audit SET object = 'disk-0' WHERE seq = 3");
    let words: [&[&str]; 3] = [
        &["audit", "verify"],
        &["audit", "verify", "--head", &head],
        &["audit", "export", &kms.path("export")],
    ];
    for words in words {
        let message = fails(&kms, words, "AuditBroken", Some("M04"));
        assert!(message.contains("record 3"), "{message}");
    }
    assert!(!std::fs::exists(kms.path("export")).unwrap());
}

#[test]
fn rule_m04_a_record_removed_from_the_middle_is_found() {
    let mut kms = with_records();
    let head = text_of(&does(&kms, &["audit", "verify"]));
    falsify(&mut kms, "DELETE FROM audit WHERE seq = 3");
    for words in [vec!["audit", "verify"], vec!["audit", "verify", "--head", &head]] {
        let message = fails(&kms, &words, "AuditBroken", Some("M04"));
        assert!(message.contains("record 4"), "{message}");
    }
}

#[test]
fn rule_m04_a_tail_that_was_cut_off_is_found_by_the_head() {
    let mut kms = with_records();
    let file = kms.path("export");
    let head = does(&kms, &["audit", "export", &file]);
    kms.kill();
    // By somebody who knows of the sealed head, too.
    falsify(
        &mut kms,
        "DELETE FROM audit WHERE seq > 3; DELETE FROM audit_heads",
    );
    // The chain up to there is sound.
    kms.serve();
    assert_eq!(does(&kms, &["audit", "verify"])["seq"], 3);
    let noted = text_of(&head);
    for words in [
        ["audit", "verify", "--head", &noted],
        ["audit", "verify", "--export", &file],
    ] {
        let message = fails(&kms, &words, "AuditBroken", Some("M04"));
        assert!(
            message.contains("ends at record 3") && message.contains("cut off"),
            "{message}"
        );
    }
    // Written anew up to there, it is another one.
    for name in ["five", "six", "seven", "eight"] {
        kms.disk(name);
    }
    let message = fails(
        &kms,
        &["audit", "verify", "--export", &file],
        "AuditBroken",
        Some("M04"),
    );
    assert!(message.contains(&format!("record {}", head["seq"])), "{message}");
}

#[test]
fn an_export_has_every_record_and_the_head() {
    let kms = with_records();
    let file = kms.path("export");
    let head = does(&kms, &["audit", "export", &file]);
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.pop().unwrap()["head"], head);
    assert_eq!(Value::from(lines), kms.get("/v1/audit?limit=1000")["audit"]);
    assert_eq!(
        does(&kms, &["audit", "verify", "--export", &file])["seq"],
        head["seq"]
    );
    // It is not written over, and another file is no export.
    fails(&kms, &["audit", "export", &file], "FileExists", None);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    std::fs::write(&file, text.lines().next().unwrap()).unwrap();
    fails(&kms, &["audit", "verify", "--export", &file], "WrongFile", None);
    fails(
        &kms,
        &["audit", "verify", "--export", &kms.path("none")],
        "FileFailed",
        None,
    );
}

#[test]
fn what_is_no_head_is_refused() {
    let kms = Kms::start();
    for query in ["head=1", "head=x:00", "head=1:00", "head=-1:00", "tail=1"] {
        let (status, answer) = kms.call("GET", &format!("/v1/audit/verify?{query}"), None);
        assert_eq!(status, 400, "{query}");
        refused(status, &answer, "InvalidRequest", None);
    }
    let (status, answer) = kms.call(
        "GET",
        &format!("/v1/audit/verify?head=1:{}", "00".repeat(32)),
        None,
    );
    assert_eq!(status, 409);
    refused(status, &answer, "AuditBroken", Some("M04"));
}

#[test]
fn follow_shows_each_record_as_it_comes() {
    let kms = with_records();
    let mut follower = sealctl(&kms, &["audit", "follow", "--after", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let known = kms.get("/v1/audit?after=2")["audit"].clone();
    for record in known.as_array().unwrap() {
        assert_eq!(next(), *record);
    }
    kms.disk("later");
    let record = next();
    assert_eq!(
        (&record["call"], &record["object"]),
        (&json!("disk.create"), &json!("later"))
    );
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn audit_alone_lists() {
    let kms = with_records();
    let listed = does(&kms, &["audit", "list"]);
    assert_eq!(listed, does(&kms, &["audit"]));
    assert_eq!(listed["audit"], kms.get("/v1/audit?limit=1000")["audit"]);
    let newest = does(&kms, &["audit", "list", "--limit", "1"])["audit"].clone();
    assert_eq!(newest, does(&kms, &["audit", "--limit", "1"])["audit"]);
    assert_eq!(newest[0]["code"], "NameTaken");
}

#[test]
fn rule_m04_a_tail_that_was_cut_off_behind_the_sealed_head_is_found_by_a_start() {
    let mut kms = with_records();
    kms.stop();
    let head = kms.query("SELECT seq FROM audit_heads WHERE kind = 'sealed'");
    assert_eq!(head, kms.query("SELECT max(seq) FROM audit"), "the end seals it");
    falsify(&mut kms, &format!("DELETE FROM audit WHERE seq = {head}"));
    kms.fails(&["serve"], "AuditBroken (M04)");
    // A seal of somebody who has not the root key.
    let newest = "SELECT 'sealed', seq, hash, zeroblob(61) FROM audit ORDER BY seq DESC LIMIT 1";
    kms.tamper(&format!(
        "INSERT OR REPLACE INTO audit_heads (kind, seq, hash, seal) {newest}"
    ));
    kms.fails(&["serve"], "AuditBroken (M04)");
}

#[test]
fn the_root_key_s_rotation_seals_the_head_anew() {
    let mut kms = with_records();
    kms.stop();
    kms.serve();
    kms.make("/v1/kms/rotate-root", json!({}));
    kms.restart();
    assert!(kms.query("SELECT count(*) FROM audit_heads") == 1);
}

/// What a caller makes up fills no disk.
#[test]
fn rule_m04_a_record_s_object_is_short_whatever_was_asked_for() {
    let kms = Kms::active();
    let name = "é".repeat(30_000);
    kms.refuses(
        "/v1/disks",
        json!({"name": name, "size": 512}),
        "InvalidName",
        None,
    );
    let (status, _) = kms.call(&"X".repeat(5000), "/v1/kms/activate", None);
    assert_eq!(status, 405);
    let records = kms.get("/v1/audit?limit=1000")["audit"].clone();
    let records = records.as_array().unwrap();
    let objects = records.iter().map(|record| record["object"].as_str().unwrap());
    assert!(objects.clone().all(|object| object.len() <= 128), "{records:?}");
    assert!(
        objects
            .clone()
            .any(|object| object.starts_with("éé") && object.ends_with("é…"))
    );
    does(&kms, &["audit", "verify"]);
}

#[test]
fn pages_of_records_follow_each_other_without_a_gap() {
    let kms = with_records();
    let all = kms.get("/v1/audit?limit=1000")["audit"].clone();
    let (mut paged, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let page = kms.get(&format!("/v1/audit?limit=1&after={after}"));
        paged.extend(page["audit"].as_array().unwrap().clone());
        after = page["next"].clone();
    }
    assert_eq!(all, json!(paged));
}

#[test]
fn the_oldest_records_are_archived_and_the_rest_verifies() {
    let mut kms = with_records();
    let all = kms.get("/v1/audit?limit=1000")["audit"].clone();
    let count = all.as_array().unwrap().len();
    let old = text_of(&all[1]);
    let (first, second) = (kms.path("first"), kms.path("second"));
    let archived = does(&kms, &["audit", "archive", "--before", "4", &first]);
    assert_eq!(
        (&archived["seq"], &archived["hash"]),
        (&all[2]["seq"], &all[2]["hash"])
    );
    assert_eq!(
        std::fs::metadata(&first).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let lines: Vec<Value> = std::fs::read_to_string(&first)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["archived"]["seq"], 0);
    assert_eq!(json!(lines[1..4]), json!(all.as_array().unwrap()[..3]));
    assert_eq!(lines[4]["head"]["hash"], all[2]["hash"]);
    // The log begins after it, and has a record of that.
    let left = kms.get("/v1/audit?limit=1000")["audit"].clone();
    assert_eq!(left[0], all[3]);
    let newest = left.as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&newest["call"], &newest["object"]),
        (&json!("audit.archive"), &json!(text_of(&all[2])))
    );
    kms.until("the rows are removed", || {
        kms.query("SELECT count(*) FROM audit WHERE seq < 4") == 0
    });
    assert_eq!(does(&kms, &["audit", "verify"])["seq"], newest["seq"]);
    does(&kms, &["audit", "verify", "--head", &text_of(&all[2])]);
    does(&kms, &["audit", "verify", "--archive", &first]);
    let message = fails(
        &kms,
        &["audit", "verify", "--head", &old],
        "AuditArchived",
        Some("M04"),
    );
    assert!(
        message.contains("record 2") && message.contains("record 3"),
        "{message}"
    );
    // After a restart too, and with a second one that goes on from there.
    kms.restart();
    let before = (count + 1).to_string();
    does(&kms, &["audit", "archive", "--before", &before, &second]);
    does(
        &kms,
        &["audit", "verify", "--archive", &first, "--archive", &second],
    );
    does(&kms, &["audit", "verify", "--archive", &second]);
    fails(
        &kms,
        &["audit", "verify", "--archive", &second, "--archive", &first],
        "WrongFile",
        None,
    );
    // Of the second, whose records are here no more, nothing was changed unnoticed.
    let text = std::fs::read_to_string(&second).unwrap();
    std::fs::write(&second, text.replace("refused", "allowed")).unwrap();
    let message = fails(
        &kms,
        &["audit", "verify", "--archive", &second],
        "WrongFile",
        None,
    );
    assert!(message.contains("is not what was archived"), "{message}");
    std::fs::write(&second, text.lines().take(3).collect::<Vec<_>>().join("\n")).unwrap();
    fails(
        &kms,
        &["audit", "verify", "--archive", &second],
        "WrongFile",
        None,
    );
    kms.stop();
    kms.serve();
    does(&kms, &["audit", "verify"]);
}

#[test]
fn nothing_is_archived_that_is_not_exactly_what_the_log_has() {
    let mut kms = with_records();
    let all = kms.get("/v1/audit?limit=1000")["audit"].clone();
    let count = all.as_array().unwrap().len();
    let file = kms.path("archive");
    let archive =
        |before: usize, hash: &Value| kms.post("/v1/audit/archive", json!({"before": before, "hash": hash}));
    for (before, hash, code) in [
        (4, json!("00".repeat(32)), "AuditBroken"),
        (4, all[3]["hash"].clone(), "AuditBroken"),
        (4, json!("00"), "InvalidRequest"),
        (0, json!("00".repeat(32)), "AuditArchived"),
        (1, json!("00".repeat(32)), "AuditArchived"),
        (1_000_000, json!("00".repeat(32)), "InvalidRequest"),
    ] {
        let (status, answer) = archive(before, &hash);
        let rule = code.starts_with("Audit").then_some("M04");
        refused(status, &answer, code, rule);
    }
    std::fs::write(&file, "precious").unwrap();
    fails(
        &kms,
        &["audit", "archive", "--before", "4", &file],
        "FileExists",
        None,
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    std::fs::remove_file(&file).unwrap();
    // A log that was changed is kept, as evidence, and no half archive is left.
    falsify(&mut kms, "UPDATE audit SET object = 'disk-0' WHERE seq = 2");
    let message = fails(
        &kms,
        &["audit", "archive", "--before", "4", &file],
        "WrongFile",
        None,
    );
    assert!(message.contains("record 2"), "{message}");
    assert!(!std::fs::exists(&file).unwrap());
    let kept = kms.query("SELECT count(*) FROM audit WHERE seq <= 4");
    assert!(kept == 4 && kms.query("SELECT max(seq) FROM audit") >= count as i64);
}
