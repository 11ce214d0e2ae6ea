//! What becomes of writes that the host has no room for: chosen, changed, told to the process, and warned of.

use crate::common::{Kms, MIB, Value, json, kill};

fn create(kms: &Kms, on_full: Option<&str>) -> Value {
    let mut body = json!({"name": "data", "size": MIB, "store": "raw"});
    if let Some(on_full) = on_full {
        body["on_full"] = json!(on_full);
    }
    kms.make("/v1/disks", body)
}

fn set(kms: &Kms, on_full: &str) -> Value {
    let (status, disk) = kms.patch("/v1/disks/data", json!({"on_full": on_full}));
    assert_eq!(status, 200, "{disk}");
    disk
}

fn warned(kms: &Kms, words: &str) -> bool {
    let warnings = kms.get("/v1/disks/data")["warnings"].clone();
    let mut warnings = warnings.as_array().unwrap().iter();
    warnings.any(|warning| warning.as_str().unwrap().contains(words))
}

#[test]
fn it_is_chosen_at_the_creation_and_changed_later() {
    let kms = Kms::active();
    assert_eq!(create(&kms, None)["on_full"], "error");
    assert_eq!(set(&kms, "stop")["on_full"], "stop");
    assert_eq!(kms.get("/v1/disks/data")["on_full"], "stop");
    let (status, refusal) = kms.patch("/v1/disks/data", json!({"on_full": "ignore"}));
    assert_eq!((status, &refusal["code"]), (400, &json!("InvalidRequest")));
    let body = json!({"name": "other", "size": MIB, "on_full": "ignore"});
    kms.refuses("/v1/disks", body, "InvalidRequest", None);
    let body = json!({"name": "other", "size": MIB, "on_full": "stop"});
    assert_eq!(kms.make("/v1/disks", body)["on_full"], "stop");
}

#[test]
fn the_process_is_told_at_its_start_under_its_guest_and_after_the_daemons_absence() {
    let mut kms = Kms::active_with_backend("short");
    create(&kms, Some("stop"));
    kms.instance("vm");
    let pid = kms.attach("data", "vm")["pid"].as_i64().unwrap();
    let (held, fail) = (
        "3 requests of the guest are held",
        "writes that need room fail (ENOSPC)",
    );
    assert!(warned(&kms, held));
    set(&kms, "error");
    assert!(warned(&kms, fail) && !warned(&kms, held));
    set(&kms, "stop");
    assert!(warned(&kms, held));
    // One that is started in its place.
    kill(pid, "KILL");
    kms.until("a new process", || kms.get("/v1/disks/data")["stats"].is_object());
    assert!(warned(&kms, held));
    // What was decided while the process had no daemon.
    kms.kill();
    kms.tamper("UPDATE disks SET on_full = 'error'");
    kms.serve();
    kms.until("its return", || kms.get("/v1/disks/data")["stats"].is_object());
    assert!(warned(&kms, fail));
}

#[test]
fn a_process_that_does_not_know_it_goes_on_and_is_warned_of() {
    let kms = Kms::active_with_backend("elder");
    create(&kms, None);
    kms.instance("vm");
    let pid = kms.attach("data", "vm")["pid"].clone();
    set(&kms, "stop");
    let disk = kms.get("/v1/disks/data");
    assert_eq!((&disk["pid"], &disk["on_full"]), (&pid, &json!("stop")));
    assert!(warned(&kms, "sealctl backend restart data"));
}
