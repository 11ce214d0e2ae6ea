//! What keeps backends in bounds is shown, and can be required.

use crate::common;

use crate::common::{Kms, Value, json};

fn attached(kms: &Kms) -> Value {
    kms.disk("data");
    kms.instance("vm");
    kms.attach("data", "vm")
}

fn sandbox(kms: &Kms) -> Value {
    kms.get("/v1/disks/data")["sandbox"].clone()
}

/// What is said of a process that would be started now, once that has been tried.
fn tried(kms: &Kms) -> Value {
    let mut status = Value::Null;
    kms.until("it has been tried", || {
        status = kms.get("/v1/kms")["sandbox"].clone();
        status["reason"] != "it is being tried"
    });
    status
}

#[test]
fn what_a_process_lacks_is_shown_beside_what_can_be_had() {
    let kms = Kms::active();
    attached(&kms);
    assert_eq!(sandbox(&kms), json!({"level": "full", "missing": []}));
    let status = tried(&kms);
    assert_eq!(
        (&status["level"], &status["required"], &status["less"]),
        (&json!("full"), &json!(false), &json!([]))
    );
    let kms = Kms::active_with_backend("bare");
    attached(&kms);
    let missing = json!(["namespaces: Operation not permitted"]);
    assert_eq!(sandbox(&kms), json!({"level": "partial", "missing": missing}));
    let status = tried(&kms);
    let protections = json!([
        {"name": "system calls", "missing": null},
        {"name": "namespaces", "missing": "Operation not permitted"},
    ]);
    assert_eq!(
        (&status["level"], &status["protections"]),
        (&json!("partial"), &protections)
    );
    assert_eq!(status["less"], json!([]), "another would have no more");
    kms.make("/v1/disks/data/detach", json!({}));
    assert_eq!(sandbox(&kms), json!(null));
}

#[test]
fn a_process_of_an_earlier_version_has_less_than_one_that_is_started_now() {
    let mut kms = Kms::active_with_backend("earlier");
    attached(&kms);
    let none = json!({"level": "none", "missing": []});
    assert_eq!(sandbox(&kms), none);
    let status = tried(&kms);
    assert_eq!(status["level"], "unknown");
    assert!(
        status["reason"].as_str().unwrap().contains("an earlier version"),
        "{status}"
    );
    kms.kill();
    kms.behave("sealblk");
    kms.options = vec!["--require-sandbox".to_owned()];
    kms.serve();
    kms.until("the process is back", || sandbox(&kms) == none);
    let disk = kms.get("/v1/disks/data");
    assert!(
        disk["warnings"].to_string().contains("all of which is required"),
        "{disk}"
    );
    let less = json!([{"disk": disk["id"], "sandbox": none}]);
    let status = tried(&kms);
    assert_eq!((&status["less"], &status["required"]), (&less, &json!(true)));
    common::kill(disk["pid"].as_i64().unwrap(), "KILL");
    kms.until("a successor", || sandbox(&kms)["level"] == "full");
    assert_eq!(tried(&kms)["less"], json!([]));
}

#[test]
fn where_it_is_required_nothing_is_served_without() {
    let mut kms = Kms::active();
    attached(&kms);
    kms.disk("other");
    kms.kill();
    for behaviour in ["bare", "earlier", "dies"] {
        kms.behave(behaviour);
        let serve = ["serve", "--require-sandbox", "--sealblk", &kms.path(behaviour)];
        kms.fails(&serve, "SandboxMissing");
    }
    kms.behave("sealblk");
    kms.options = vec!["--require-sandbox".to_owned()];
    kms.serve();
    let waiting = kms.make(
        "/v1/attachments",
        json!({"disk": "other", "instance": "vm", "start": false}),
    );
    assert!(
        waiting["command"]
            .as_str()
            .unwrap()
            .contains(" --require-sandbox"),
        "{waiting}"
    );
    let old = kms.get("/v1/disks/data")["pid"].as_i64().unwrap();
    common::kill(old, "KILL");
    let mut new = old;
    kms.until("a successor", || {
        new = kms.get("/v1/disks/data")["pid"].as_i64().unwrap_or(old);
        new != old
    });
    let line = std::fs::read_to_string(format!("/proc/{new}/cmdline")).unwrap();
    assert!(line.split('\0').any(|word| word == "--require-sandbox"), "{line}");
}

#[test]
fn a_program_that_does_not_say_what_it_can_have_holds_nobody_up() {
    let kms = Kms::active_with_backend("mute");
    attached(&kms);
    assert_eq!(kms.get("/v1/kms")["sandbox"]["reason"], "it is being tried");
    assert_eq!(sandbox(&kms)["level"], "full");
}
