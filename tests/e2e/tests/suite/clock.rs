//! A wall clock that jumps under the real daemon, by libfaketime. CLOCK_BOOTTIME is left as it is.

use std::path::Path;

use sealblk_e2e::eventually;
use sealblk_e2e::kms::{Kms, text};

/// The library, if it is installed; Debian: libfaketime.
fn libfaketime() -> Option<String> {
    let path = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    let exists = Path::new(path).exists();
    if !exists {
        eprintln!("SKIPPED: libfaketime is not installed (Debian: libfaketime)");
    }
    exists.then(|| path.to_owned())
}

/// A host boots with a clock that is wrong, and is right again soon: nothing may be lost.
#[test]
fn rule_k11_a_daemon_whose_clock_is_days_ahead_destroys_no_key() {
    let Some(library) = libfaketime() else { return };
    let mut kms = Kms::initialised();
    let offset = kms.path("offset");
    let set = |by: &str| std::fs::write(&offset, by).unwrap();
    set("+0");
    kms.environment = vec![
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap().to_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    kms.serve();
    kms.ok(&["kms", "activate"]);
    kms.ok(&["key", "create", "payroll"]);
    kms.create("data", &["--key", "payroll"]);
    let schedule = [
        "key",
        "schedule-deletion",
        "payroll",
        "--days",
        "7",
        "--acknowledge",
    ];
    let promised = text(&kms.ok(&schedule), "deletion").to_owned();
    let conditions = |kms: &Kms| kms.ok(&["kms", "status"])["conditions"].to_string();
    let jumps = |kms: &Kms| {
        let audit = kms.ok(&["audit", "list"]);
        let records = audit["audit"].as_array().unwrap().clone();
        records
            .iter()
            .filter(|record| record["call"] == "clock.alarm")
            .count()
    };
    assert!(!conditions(&kms).contains("ClockJumped"));
    for (by, count) in [("+8d", 1), ("-400d", 2)] {
        kms.stop();
        set(by);
        kms.serve();
        eventually("the jump is found", || (jumps(&kms) == count).then_some(()));
        assert!(conditions(&kms).contains("ClockJumped"));
        let key = kms.ok(&["key", "show", "payroll"]);
        assert_eq!(key["state"], "PendingDeletion");
        assert_eq!(key["deletion_days_left"], 7);
        assert_ne!(
            text(&key, "deletion"),
            promised,
            "by that clock it is another day"
        );
    }
    kms.kill();
    set("+0");
    kms.serve();
    eventually("the jump back is found", || (jumps(&kms) == 3).then_some(()));
    eventually("the day is as promised", || {
        let day = text(&kms.ok(&["key", "show", "payroll"]), "deletion").to_owned();
        // But for what passed while no daemon served, and that was seen by the next one.
        (day[..13] == promised[..13] || day > promised).then_some(())
    });
    assert_eq!(
        kms.ok(&["key", "cancel-deletion", "payroll"])["state"],
        "Disabled"
    );
    kms.ok(&["key", "enable", "payroll"]);
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["attach", "data", "vm"]);
}
