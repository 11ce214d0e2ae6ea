//! Callers besides the owner, which root alone can be.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{Kms, Value, finish, json, refused};

/// Users of the tests; they need no entry anywhere.
pub const OPERATOR: u32 = 1_800_000_001;
pub const SECURITY: u32 = 1_800_000_002;
pub const AUDITOR: u32 = 1_800_000_003;
pub const ADMIN: u32 = 1_800_000_004;
pub const OTHER: u32 = 1_800_000_005;
pub const NOBODY: u32 = 1_800_000_006;

pub fn entry(uid: u32, account: &str, roles: &[&str]) -> Value {
    json!({"uid": uid, "account": account, "roles": roles})
}

/// The four roles of account `acme`, each a user's, and a user with all of them in account `other`.
pub fn everyone() -> Vec<Value> {
    let all = ["admin", "security-administrator", "operator", "auditor"];
    vec![
        entry(OPERATOR, "acme", &["operator"]),
        entry(SECURITY, "acme", &["security-administrator"]),
        entry(AUDITOR, "acme", &["auditor"]),
        entry(ADMIN, "acme", &["admin"]),
        entry(OTHER, "other", &all),
    ]
}

pub fn write_accounts(kms: &Kms, principals: &[Value]) -> String {
    write_document(kms, &json!({"principals": principals}))
}

fn write_document(kms: &Kms, document: &Value) -> String {
    let path = kms.path("accounts.json");
    std::fs::write(&path, document.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// The daemon again, with these principals.
pub fn restart(kms: &mut Kms, principals: &[Value]) {
    restart_with(kms, &json!({"principals": principals}));
}

/// The daemon again, with everyone, and these paths for the accounts `acme` and `other`.
pub fn restart_with_paths(kms: &mut Kms, acme: &[&str], other: &[&str]) {
    let accounts = json!({"acme": {"paths": acme}, "other": {"paths": other}});
    restart_with(kms, &json!({"principals": everyone(), "accounts": accounts}));
}

/// The daemon again, with this accounts file.
pub fn restart_with(kms: &mut Kms, document: &Value) {
    kms.kill();
    let file = write_document(kms, document);
    kms.options = ["--accounts", &file, "--socket-mode", "0666"]
        .map(str::to_owned)
        .to_vec();
    kms.serve();
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can call as other users");
    }
    root
}

/// Exit status and answer of `sealctl`, run by this user.
pub fn sealctl(kms: &Kms, uid: u32, words: &str) -> (Option<i32>, Value) {
    // Where the tests are built, other users may not come.
    let program = kms.path("sealctl");
    if !std::fs::exists(&program).unwrap() {
        std::fs::copy(super::sealctl(), &program).unwrap();
    }
    let mut command = Command::new(program);
    command
        .args(["-o", "json", "--socket"])
        .arg(kms.state().join("kms.sock"))
        .args(words.split(' '))
        .current_dir("/")
        .uid(uid)
        .gid(uid);
    let output = finish(&mut command);
    let text = if output.status.success() {
        &output.stdout
    } else {
        &output.stderr
    };
    let answer = serde_json::from_slice(text);
    (
        output.status.code(),
        answer.unwrap_or_else(|_| panic!("{words}: {output:?}")),
    )
}

pub fn does(kms: &Kms, uid: u32, words: &str) -> Value {
    let (status, answer) = sealctl(kms, uid, words);
    assert_eq!(status, Some(0), "{words}: {answer}\n{}", kms.log());
    answer
}

/// Refused with this code and rule; the message.
pub fn may_not(kms: &Kms, uid: u32, words: &str, code: &str, rule: Option<&str>) -> String {
    let (status, answer) = sealctl(kms, uid, words);
    assert_eq!(status, Some(1), "{words}: {answer}");
    refused(499, &answer, code, rule);
    answer["message"].as_str().unwrap().to_owned()
}
