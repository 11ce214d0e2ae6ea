//! Where records of the audit log go besides (rule M04).

use crate::common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Kms, MIB, Value, finish, json, kill};

fn with_sinks(sinks: &[&str]) -> Kms {
    let mut kms = Kms::start();
    serve_with(&mut kms, sinks);
    kms
}

fn serve_with(kms: &mut Kms, sinks: &[&str]) {
    if kms.daemon.is_some() {
        kms.stop();
    }
    kms.options = sinks
        .iter()
        .flat_map(|sink| ["--audit-sink".to_owned(), (*sink).to_owned()])
        .collect();
    kms.serve();
}

/// Positions of the records in a sink's file, where each stands in its order at least once.
fn seqs(path: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let records = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut seqs = Vec::new();
    for record in records {
        let seq = record["seq"].as_u64().unwrap();
        // Only what is told again may be out of order.
        assert!(
            seqs.last().is_none_or(|last| seq <= last + 1),
            "{seq} after {seqs:?}"
        );
        if !seqs.contains(&seq) {
            seqs.push(seq);
        }
    }
    seqs
}

fn newest(kms: &Kms) -> u64 {
    let head = kms.get("/v1/audit/verify");
    head["seq"].as_u64().unwrap()
}

fn sink(kms: &Kms) -> Value {
    kms.get("/v1/kms")["audit_sinks"][0].clone()
}

fn is_degraded(kms: &Kms) -> bool {
    kms.get("/v1/kms")["conditions"]
        .to_string()
        .contains("AuditSinkFailed")
}

/// A program that acknowledges records, unless the file `hang` is beside it, and notes them in `taken`.
fn program(kms: &Kms) -> PathBuf {
    let path = PathBuf::from(kms.path("program"));
    let text = r#"#!/bin/sh
dir=$(dirname "$0")
while read -r line; do
    while [ -e "$dir/hang" ]; do sleep 0.1; done
    printf '%s\n' "$line" >> "$dir/taken"
    rest=${line#*\"seq\":}
    echo "${rest%%,*}"
done
"#;
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn hang(kms: &Kms, hangs: bool) {
    let path = kms.path("hang");
    match hangs {
        true => std::fs::write(path, "").unwrap(),
        false => std::fs::remove_file(path).unwrap(),
    }
}

#[test]
fn a_file_gets_every_record_in_order_over_kills_and_when_it_was_away() {
    let mut kms = Kms::start();
    let file = kms.path("sink");
    let before = newest(&kms);
    serve_with(&mut kms, &[&format!("file:{file}")]);
    kms.make("/v1/kms/activate", json!({}));
    kms.until("the first record comes", || seqs(&file).contains(&newest(&kms)));
    assert!(!seqs(&file).contains(&before), "what was before is not asked for");
    for round in 0..3 {
        for disk in 0..4 {
            kms.disk(&format!("disk-{round}-{disk}"));
        }
        kms.kill();
        kms.serve();
    }
    // For a while records have nowhere to go.
    serve_with(&mut kms, &[]);
    kms.disk("unseen");
    serve_with(&mut kms, &[&format!("file:{file}")]);
    kms.until("it has all", || seqs(&file).last() == Some(&newest(&kms)));
    let all = seqs(&file);
    assert_eq!(all, (all[0]..=newest(&kms)).collect::<Vec<_>>());
    let log = kms.get("/v1/audit?limit=1000")["audit"].clone();
    let text = std::fs::read_to_string(&file).unwrap();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(log.as_array().unwrap().contains(&record), "{record}");
    }
    // An orderly end tells nothing twice.
    kms.stop();
    let lines = std::fs::read_to_string(&file).unwrap();
    kms.serve();
    kms.disk("last");
    kms.until("it has the last", || seqs(&file).last() == Some(&newest(&kms)));
    let after = std::fs::read_to_string(&file).unwrap();
    assert_eq!(after.strip_prefix(&lines).unwrap().lines().count(), 1);
}

#[test]
fn a_sink_that_is_not_required_keeps_no_call_and_is_told_of() {
    let kms = with_sinks(&["file:/nowhere/at/all"]);
    kms.make("/v1/kms/activate", json!({}));
    kms.disk("data");
    kms.until("it is degraded", || sink(&kms)["error"].is_string());
    assert!(is_degraded(&kms));
    assert_eq!(sink(&kms)["required"], false);
    assert!(sink(&kms)["backlog"].as_u64().unwrap() >= 2);
    let mut command = Command::new(common::sealctl());
    command.arg("--socket").arg(kms.state().join("kms.sock"));
    let output = finish(command.args(["kms", "status", "--check"]));
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("audit sink") && text.contains("file:/nowhere/at/all: up to record"),
        "{text}"
    );
}

#[test]
fn rule_m04_a_required_file_has_the_record_before_the_call_is_answered() {
    let mut kms = Kms::start();
    let file = kms.path("sink");
    serve_with(&mut kms, &[&format!("file:{file},required")]);
    let decided = |kms: &Kms, call: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        let last = text.lines().last().unwrap();
        let record: Value = serde_json::from_str(last).unwrap();
        assert_eq!(record["call"], call, "{}", kms.log());
        record["decision"].as_str().unwrap().to_owned()
    };
    kms.make("/v1/kms/activate", json!({}));
    assert_eq!(decided(&kms, "kms.activate"), "allowed");
    kms.disk("data");
    assert_eq!(decided(&kms, "disk.create"), "allowed");
    kms.refuses(
        "/v1/disks",
        json!({"name": "data", "size": MIB}),
        "NameTaken",
        None,
    );
    assert_eq!(decided(&kms, "disk.create"), "refused");
    kms.instance("vm");
    kms.attach("data", "vm");
    assert_eq!(decided(&kms, "key.use"), "allowed");
    kms.behave("unfit");
    kms.stop();
    kms.serve();
    assert!(kms.post("/v1/disks/data/restart", json!({})).0 >= 400);
    assert_eq!(decided(&kms, "backend.restart"), "failed");
    assert_eq!(sink(&kms)["required"], true);
}

#[test]
fn rule_m04_without_its_required_sink_no_call_is_done_and_all_else_goes_on() {
    let mut kms = Kms::active();
    let program = program(&kms);
    serve_with(&mut kms, &[&format!("exec:{},required", program.display())]);
    let taken = kms.path("taken");
    kms.disk("data");
    assert_eq!(seqs(&taken).last(), Some(&newest(&kms)));
    kms.instance("vm");
    kms.attach("data", "vm");
    hang(&kms, true);
    let refusal = kms.refuses(
        "/v1/keys",
        json!({"name": "mine"}),
        "AuditSinkFailed",
        Some("M04"),
    );
    assert!(
        refusal["message"].as_str().unwrap().contains("exec:"),
        "{refusal}"
    );
    assert_eq!(
        kms.get("/v1/keys")["keys"].as_array().unwrap().len(),
        1,
        "nothing was done"
    );
    // From here on nobody waits to be refused, and the log has why.
    for _ in 0..3 {
        kms.refuses(
            "/v1/disks/data/detach",
            json!({"force": true}),
            "AuditSinkFailed",
            Some("M04"),
        );
    }
    assert_eq!(
        kms.audit("detach"),
        vec![("refused".to_owned(), "AuditSinkFailed".to_owned()); 3]
    );
    kms.until("it is degraded", || is_degraded(&kms));
    // Rule A06: the guest's disk is served again.
    let uses = kms.audit("key.use").len();
    let before = kms.backends();
    kill(before[0], "KILL");
    kms.until("it is served again", || {
        kms.audit("key.use").len() > uses && kms.get("/v1/disks/data")["state"] == "in-use"
    });
    kms.until("by another process", || {
        let now = kms.backends();
        now.len() == 1 && now != before
    });
    // So it is by a daemon that begins without its sink.
    kms.kill();
    kms.serve();
    kms.refuses(
        "/v1/keys",
        json!({"name": "mine"}),
        "AuditSinkFailed",
        Some("M04"),
    );
    assert_eq!(kms.get("/v1/disks/data")["state"], "in-use");
    hang(&kms, false);
    kms.until("it has caught up", || {
        kms.post("/v1/keys", json!({"name": "mine"})).0 == 201
    });
    let all = seqs(&taken);
    assert_eq!(all, (all[0]..=newest(&kms)).collect::<Vec<_>>());
    kms.until("it is no longer degraded", || !is_degraded(&kms));
    // A program that ends is started anew.
    let running = || -> Vec<i64> {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        let is_program = |pid: &i64| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // The daemon names it as well.
            line.starts_with("/bin/sh") && line.contains(program.to_str().unwrap())
        };
        pids.filter(is_program).collect()
    };
    kms.until("that of the killed daemon has ended", || running().len() == 1);
    kill(running()[0], "KILL");
    kms.until("another takes records", || {
        kms.post("/v1/keys", json!({"name": "another"})).0 == 201
    });
    kms.until("all are taken", || seqs(&taken).last() == Some(&newest(&kms)));
}

#[test]
fn journald_gets_records_as_fields() {
    let mut kms = Kms::start();
    let socket = kms.path("journal");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    serve_with(&mut kms, &[&format!("journald:{socket}")]);
    kms.make("/v1/kms/activate", json!({}));
    let disk = kms.disk("data");
    let mut buffer = [0; 65536];
    loop {
        let length = journal.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains("disk.create") {
            assert!(
                text.contains("SEALBLK_DISK\n") && text.contains(disk["id"].as_str().unwrap()),
                "{text}"
            );
            break;
        }
    }
}

#[test]
fn what_is_no_sink_is_refused_by_a_start() {
    let mut kms = Kms::start();
    kms.stop();
    for sinks in [
        vec!["syslog"],
        vec!["file:log"],
        vec!["file:/a", "file:/a,required"],
        vec![
            "file:/1", "file:/2", "file:/3", "file:/4", "file:/5", "file:/6", "file:/7", "file:/8", "file:/9",
        ],
    ] {
        let mut words = vec!["serve"];
        for sink in &sinks {
            words.extend(["--audit-sink", sink]);
        }
        kms.fails(&words, "InvalidRequest");
    }
}

/// The log is not kept for a sink: what is archived before it was told is counted.
#[test]
fn records_that_were_archived_before_a_sink_had_them_are_counted() {
    let mut kms = Kms::start();
    let directory = kms.path("later");
    serve_with(&mut kms, &[&format!("file:{directory}/sink")]);
    kms.make("/v1/kms/activate", json!({}));
    for name in ["one", "two", "three"] {
        kms.disk(name);
    }
    let log = kms.get("/v1/audit?limit=1000")["audit"].clone();
    let log = log.as_array().unwrap();
    let [.., before, last] = &log[..] else {
        unreachable!()
    };
    let archive = json!({"before": last["seq"], "hash": before["hash"]});
    kms.make("/v1/audit/archive", archive);
    kms.until("the rows are removed", || {
        kms.query(&format!("SELECT count(*) FROM audit WHERE seq < {}", last["seq"])) == 0
    });
    std::fs::create_dir(&directory).unwrap();
    let file = format!("{directory}/sink");
    kms.until("it has the rest", || seqs(&file).last() == Some(&newest(&kms)));
    assert_eq!(seqs(&file)[0], last["seq"]);
    // The sink is new since the catalogue was made, which is the first record.
    assert_eq!(sink(&kms)["missed"], json!(last["seq"].as_u64().unwrap() - 2));
}
