//! What `kms status` says of a KMS that is not as it should be, for people and for programs.

mod common;

use std::process::{Command, Output};

use common::{Kms, Value, finish, json};

fn check(kms: &Kms, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealctl"));
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
    conditions.iter().map(code).collect()
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
    assert_eq!(check(&kms, &[]).status.code(), Some(0));
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
