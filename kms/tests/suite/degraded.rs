//! What `kms status` says of a KMS that is not as it should be, for people and for programs.

use crate::common;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::common::{Kms, Value, finish, json};

fn check(kms: &Kms, options: &[&str]) -> Output {
    let mut command = Command::new(common::sealctl());
    let command = command.arg("--socket").arg(kms.state().join("kms.sock"));
    finish(command.args(options).args(["kms", "status", "--check"]))
}

/// Codes of what is degraded.
fn conditions(kms: &Kms) -> Vec<String> {
    let status = kms.get("/v1/kms");
    let conditions = status["conditions"].as_array().unwrap();
    let messages: Vec<&Value> = conditions.iter().map(|condition| &condition["message"]).collect();
    assert_eq!(json!(messages), status["warnings"], "both say the same");
    let code = |condition: &Value| condition["code"].as_str().unwrap().to_owned();
    // How full the host is on which this runs is no matter of these tests.
    let codes = conditions.iter().map(code);
    codes.filter(|code| code != "LittleRoom").collect()
}

#[test]
fn a_check_fails_exactly_if_there_is_a_warning() {
    let kms = Kms::start();
    assert_eq!(conditions(&kms), ["KmsNotActivated"]);
    let output = check(&kms, &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("warning: not activated"));
    kms.make("/v1/kms/activate", json!({}));
    assert_eq!(conditions(&kms), [""; 0]);
    let full = kms.get("/v1/kms")["conditions"] != json!([]);
    assert_eq!(check(&kms, &[]).status.code(), Some(if full { 3 } else { 0 }));
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/keys/mine/schedule-deletion", json!({"days": 7}));
    assert_eq!(conditions(&kms), ["KeyAtRisk"]);
    let output = check(&kms, &["-o", "json"]);
    assert_eq!(output.status.code(), Some(3));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["conditions"][0]["code"], "KeyAtRisk");
}

#[test]
fn a_clock_that_jumped_while_no_daemon_served_is_an_alarm_for_a_day() {
    let mut kms = Kms::active();
    let looked = |kms: &Kms| kms.query("SELECT count(*) FROM clock") == 1;
    kms.until("a look at the clock", || looked(&kms));
    assert_eq!(conditions(&kms), [""; 0]);
    kms.kill();
    // As if the wall clock had gone eight days forward since, in the same boot.
    kms.tamper("UPDATE clock SET steady = steady - 8 * 86400000");
    kms.serve();
    kms.until("the alarm", || kms.audit("clock.alarm").len() == 1);
    assert_eq!(conditions(&kms), ["ClockJumped"]);
    assert_eq!(check(&kms, &[]).status.code(), Some(3));
    kms.kill();
    kms.tamper("UPDATE clock SET seen = seen + 86400000");
    kms.serve();
    kms.until("it is over", || conditions(&kms).is_empty());
    assert_eq!(kms.audit("clock.alarm").len(), 1);
}

/// What is written to a file that was removed is gone at the next start, whatever was answered.
#[test]
fn a_catalogue_that_was_removed_or_exchanged_is_noticed_at_the_next_change() {
    for name in ["catalogue.db", "catalogue.db-wal"] {
        let kms = Kms::active();
        kms.disk("before");
        let (file, aside) = (kms.state().join(name), kms.state().join("aside"));
        for exchanged in [false, true] {
            std::fs::rename(&file, &aside).unwrap();
            if exchanged {
                std::fs::copy(&aside, &file).unwrap();
            }
            let create = json!({"name": "data", "size": 512, "store": "raw"});
            let answer = kms.refuses("/v1/disks", create, "StateReplaced", None);
            assert!(answer["message"].as_str().unwrap().contains(name), "{answer}");
            assert_eq!(conditions(&kms), ["CatalogueReplaced"]);
            std::fs::rename(&aside, &file).unwrap();
            kms.make("/v1/kms/activate", json!({}));
            assert_eq!(conditions(&kms), [""; 0], "it was put back");
        }
    }
}

#[test]
fn a_root_key_that_was_removed_or_exchanged_is_noticed_at_the_next_change() {
    let kms = Kms::active();
    let (file, aside) = (kms.state().join("root.key"), kms.path("aside"));
    std::fs::copy(&file, &aside).unwrap();
    let other = "0".repeat(63) + "1\n";
    for (code, exchanged) in [("RootKeyMissing", None), ("RootKeyMismatch", Some(&other))] {
        std::fs::remove_file(&file).unwrap();
        if let Some(other) = exchanged {
            std::fs::write(&file, other).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let create = json!({"name": "data", "size": 512, "store": "raw"});
        kms.refuses("/v1/disks", create, "StateReplaced", None);
        assert_eq!(conditions(&kms), ["RootKeyReplaced"], "{code}");
        std::fs::copy(&aside, &file).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        kms.make("/v1/kms/activate", json!({}));
        assert_eq!(conditions(&kms), [""; 0]);
    }
    let refused = ("refused".to_owned(), "StateReplaced".to_owned());
    assert_eq!(kms.audit("disk.create"), [refused.clone(), refused]);
}

#[test]
fn a_rotation_makes_a_root_key_anew_that_was_lost_and_is_no_alarm_itself() {
    let mut kms = Kms::active();
    kms.disk("data");
    kms.make("/v1/kms/rotate-root", json!({}));
    assert_eq!(conditions(&kms), [""; 0]);
    std::fs::remove_file(kms.state().join("root.key")).unwrap();
    assert_eq!(conditions(&kms), ["RootKeyReplaced"]);
    kms.make("/v1/kms/rotate-root", json!({}));
    assert_eq!(conditions(&kms), [""; 0]);
    kms.make("/v1/disks", json!({"name": "other", "size": 512, "store": "raw"}));
    kms.restart();
    kms.instance("vm");
    kms.attach("data", "vm");
}

#[test]
fn a_root_key_that_others_can_read_is_a_warning() {
    let kms = Kms::active();
    let file = kms.state().join("root.key");
    let chmod = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o644);
    assert_eq!(conditions(&kms), ["RootKeyPermissions"]);
    kms.disk("data");
    // Whatever the rights, another key is another key.
    let key = std::fs::read(&file).unwrap();
    std::fs::write(&file, "0".repeat(64)).unwrap();
    kms.refuses(
        "/v1/disks",
        json!({"name": "more", "size": 512, "store": "raw"}),
        "StateReplaced",
        None,
    );
    std::fs::write(&file, key).unwrap();
    chmod(0o600);
    kms.disk("more");
    assert_eq!(conditions(&kms), [""; 0]);
}
