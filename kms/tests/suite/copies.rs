//! Copying the data of a disk to another disk: what is decided, and what is left when processes die.

use crate::common;

use crate::common::{Kms, MIB, Value, json, kill};

/// Disks `plain` and `sealed`, raw and layered.
fn with_disks(backend: &str) -> Kms {
    let kms = Kms::active_with_backend(backend);
    kms.make(
        "/v1/disks",
        json!({"name": "plain", "size": MIB, "store": "raw", "encrypted": false}),
    );
    kms.layered("sealed");
    kms
}

fn copy(kms: &Kms, from: &str, to: &str) -> Value {
    kms.make(&path(to), json!({"source": from}))
}

fn path(to: &str) -> String {
    format!("/v1/disks/{to}/copy")
}

fn shown(kms: &Kms, disk: &str) -> Value {
    kms.get(&format!("/v1/disks/{disk}"))
}

fn until_phase(kms: &Kms, disk: &str, phase: &str) -> Value {
    kms.until(phase, || shown(kms, disk)["copy"]["phase"] == phase);
    shown(kms, disk)
}

#[test]
fn rule_d04_a_plain_disk_is_copied_to_an_encrypted_one_and_back() {
    let kms = with_disks("sealblk");
    let begun = copy(&kms, "plain", "sealed");
    assert_eq!(begun["copy"]["from"], shown(&kms, "plain")["id"]);
    let done = until_phase(&kms, "sealed", "done");
    assert_eq!(
        (&done["state"], &done["encrypted"]),
        (&json!("available"), &json!(true))
    );
    assert_eq!(kms.audit("disk.copy"), [("allowed".into(), String::new())]);
    assert_eq!(kms.audit("key.use").len(), 1, "of the one that has a key");
    kms.make(
        "/v1/disks",
        json!({"name": "sealed-too", "size": MIB, "store": "raw"}),
    );
    copy(&kms, "sealed", "sealed-too");
    until_phase(&kms, "sealed-too", "done");
    assert_eq!(kms.audit("key.use").len(), 3, "of both");
    assert_eq!(kms.usage("create"), 2, "a copy is no metered call");
    kms.refuses(
        &path("plain"),
        json!({"source": "plain"}),
        "SameDisk",
        Some("D04"),
    );
}

#[test]
fn rule_d04_a_disk_that_may_hold_data_is_copied_to_only_if_asked_for() {
    let kms = with_disks("sealblk");
    kms.instance("vm");
    kms.layered("used");
    kms.attach("used", "vm");
    let attached = kms.refuses(&path("used"), json!({"source": "plain"}), "DiskAttached", None);
    assert!(attached["message"].as_str().unwrap().contains("detach"));
    kms.refuses(&path("sealed"), json!({"source": "used"}), "DiskAttached", None);
    kms.make("/v1/disks/used/detach", json!({}));
    kms.refuses(
        &path("used"),
        json!({"source": "plain"}),
        "DiskNotEmpty",
        Some("D04"),
    );
    kms.snapshot("used", "kept");
    let body = json!({"source": "plain", "overwrite": true});
    kms.make(&path("used"), body);
    let used = until_phase(&kms, "used", "done");
    assert_eq!(used["snapshots"][0]["name"], "kept");
    assert!(
        kms.changes(&used).contains(&"Reinitialise".to_owned()),
        "emptied first"
    );
    // A copy is data.
    kms.refuses(
        &path("used"),
        json!({"source": "plain"}),
        "DiskNotEmpty",
        Some("D04"),
    );
    kms.make("/v1/disks/used/reinit", json!({}));
    copy(&kms, "plain", "used");
    until_phase(&kms, "used", "done");
}

#[test]
fn rule_d04_a_smaller_disk_and_another_account_s_are_refused() {
    let kms = with_disks("sealblk");
    kms.make("/v1/disks", json!({"name": "small", "size": MIB - 512}));
    kms.refuses(
        &path("small"),
        json!({"source": "plain"}),
        "DestinationTooSmall",
        Some("D04"),
    );
    kms.refuses(&path("sealed"), json!({"source": "nobody-s"}), "NotFound", None);
    kms.refuses(&path("nobody-s"), json!({"source": "plain"}), "NotFound", None);
    copy(&kms, "small", "sealed");
    until_phase(&kms, "sealed", "done");
}

#[test]
fn rule_a05_a_copy_needs_the_keys_of_both_disks() {
    let mut kms = with_disks("sealblk");
    kms.plain("open");
    assert_eq!(kms.stop(), Some(0));
    kms.tamper("UPDATE keys SET state = 'Disabled'");
    kms.serve();
    kms.refuses(
        &path("sealed"),
        json!({"source": "plain"}),
        "KeyNotUsable",
        Some("A05"),
    );
    kms.refuses(
        &path("plain"),
        json!({"source": "sealed"}),
        "KeyNotUsable",
        Some("A05"),
    );
    copy(&kms, "plain", "open");
    until_phase(&kms, "open", "done");
}

#[test]
fn rule_k02_a_copy_of_an_encrypted_disk_needs_the_grant() {
    let kms = Kms::of_profile("huawei-evs", 0);
    kms.make("/v1/kms/grant", json!({}));
    kms.layered("sealed");
    kms.plain("plain");
    kms.plain("other");
    kms.make("/v1/kms/revoke", json!({}));
    kms.refuses(
        &path("plain"),
        json!({"source": "sealed"}),
        "KmsNotGranted",
        Some("K02"),
    );
    kms.refuses(
        &path("sealed"),
        json!({"source": "plain"}),
        "KmsNotGranted",
        Some("K02"),
    );
    copy(&kms, "plain", "other");
}

#[test]
fn rule_d05_while_data_is_copied_nothing_else_is_done_with_either_disk() {
    let kms = with_disks("halts");
    kms.instance("vm");
    kms.layered("other");
    kms.snapshot("sealed", "one");
    let begun = copy(&kms, "sealed", "plain");
    assert_eq!(begun["state"], "creating");
    kms.until("it goes on", || shown(&kms, "plain")["copy"]["done"] == 4096);
    let source = shown(&kms, "sealed");
    assert_eq!(
        (&source["copy"]["phase"], &source["copy"]["total"]),
        (&json!("copy"), &json!(MIB))
    );
    let attach = |disk: &str| json!({"disk": disk, "instance": "vm"});
    for disk in ["sealed", "plain"] {
        kms.refuses("/v1/attachments", attach(disk), "DiskNotAvailable", Some("D05"));
        kms.refuses(
            &path("other"),
            json!({"source": disk}),
            "DiskNotAvailable",
            Some("D05"),
        );
        let body = json!({"source": "other", "overwrite": true});
        kms.refuses(&path(disk), body, "DiskNotAvailable", Some("D05"));
        let (status, answer) = kms.call("DELETE", &format!("/v1/disks/{disk}"), None);
        common::refused(status, &answer, "DiskNotAvailable", Some("D05"));
    }
    let body = json!({"disk": "sealed", "name": "two"});
    kms.refuses("/v1/snapshots", body, "DiskNotAvailable", Some("D05"));
    // Who only waits for a store is let in.
    kms.make("/v1/disks", json!({"name": "clone", "snapshot": "sealed/one"}));
    kms.until("it goes on again", || {
        shown(&kms, "plain")["copy"]["phase"] == "copy"
    });

    let (_, answer) = kms.post("/v1/disks/sealed/copy/cancel", json!({}));
    assert_eq!(answer["code"], "NoCopy", "it is the one that is copied from");
    let cancelled = kms.make("/v1/disks/plain/copy/cancel", json!({}));
    assert_eq!(
        (&cancelled["state"], &cancelled["copy"]["phase"]),
        (&json!("available"), &json!("cancelled"))
    );
    for disk in ["sealed", "plain"] {
        kms.make("/v1/attachments", attach(disk));
    }
    kms.refuses("/v1/disks/plain/copy/cancel", json!({}), "NoCopy", None);
}

#[test]
fn whoever_looks_at_snapshots_does_not_disturb_a_copy() {
    let kms = with_disks("halts");
    kms.snapshot("sealed", "one");
    let known = kms.get("/v1/snapshots/one");
    assert_eq!(known["unique_bytes"], 4096);
    copy(&kms, "sealed", "plain");
    let position = || kms.query("SELECT position FROM copies");
    kms.until("a position", || position() == 4096);
    let copies = kms.backends();
    for _ in 0..3 {
        assert_eq!(kms.get("/v1/snapshots/one"), known, "as it was before");
        assert_eq!(kms.get("/v1/snapshots?disk=sealed")["snapshots"], json!([known]));
        kms.get("/v1/disks/sealed");
    }
    assert_eq!((kms.backends(), position()), (copies, 4096));
}

#[test]
fn a_copy_goes_on_from_its_position_when_its_process_or_the_kms_was_killed() {
    let mut kms = with_disks("halts");
    copy(&kms, "plain", "sealed");
    let position = |kms: &Kms| kms.query("SELECT position FROM copies");
    kms.until("a position", || position(&kms) == 4096);
    for pid in kms.backends() {
        kill(pid, "KILL");
    }
    kms.until("the next position", || position(&kms) == 8192);
    kms.restart();
    kms.until("the one after that", || position(&kms) == 12288);
    assert_eq!(kms.stop(), Some(0));
    kms.behave("sealblk");
    kms.serve();
    let done = until_phase(&kms, "sealed", "done");
    assert_eq!(done["state"], "available");
    assert_eq!(kms.audit("disk.copy").len(), 1);
}

#[test]
fn rule_m04_a_copy_that_fails_is_said_and_can_be_begun_anew() {
    let mut kms = with_disks("fails-to-copy");
    kms.instance("vm");
    copy(&kms, "plain", "sealed");
    let failed = until_phase(&kms, "sealed", "failed");
    assert_eq!(failed["state"], "error");
    assert!(
        failed["copy"]["trouble"].as_str().unwrap().contains("no room"),
        "{failed}"
    );
    let audit = kms.audit("disk.copy");
    assert_eq!(
        audit.last().unwrap(),
        &("failed".to_owned(), "NoSpace".to_owned())
    );
    let body = json!({"disk": "sealed", "instance": "vm"});
    kms.refuses("/v1/attachments", body, "DiskNotAvailable", Some("D05"));
    // The source is free again.
    kms.attach("plain", "vm");
    kms.make("/v1/disks/plain/detach", json!({}));
    assert_eq!(kms.stop(), Some(0));
    kms.behave("sealblk");
    kms.serve();
    copy(&kms, "plain", "sealed");
    assert_eq!(until_phase(&kms, "sealed", "done")["state"], "available");
    assert!(
        kms.changes(&shown(&kms, "sealed"))
            .contains(&"Reinitialise".to_owned())
    );
    kms.delete("/v1/disks/plain?retention_days=0");
    let kept = shown(&kms, "sealed");
    assert_eq!(
        (&kept["copy"]["phase"], &kept["copy"]["from"]),
        (&json!("done"), &Value::Null)
    );
    kms.delete("/v1/disks/sealed?retention_days=0");
    assert_eq!(kms.query("SELECT count(*) FROM copies"), 0);
}

#[test]
fn a_copy_whose_processes_never_start_is_given_up() {
    let mut kms = with_disks("sealblk");
    kms.behave("unfit");
    assert_eq!(kms.stop(), Some(0));
    kms.serve();
    copy(&kms, "plain", "sealed");
    let failed = until_phase(&kms, "sealed", "failed");
    // Why: in the process's own words, unless it has ended before they were read.
    assert!(failed["copy"]["trouble"].is_string(), "{failed}");
    assert_eq!(failed["state"], "error");
}

#[test]
fn an_encrypted_disk_is_exported_only_if_it_is_said_that_it_is_decrypted() {
    let kms = with_disks("sealblk");
    let export = |disk: &str| format!("/v1/disks/{disk}/export");
    let file = kms.path("image");
    kms.refuses(
        &export("sealed"),
        json!({"file": file}),
        "DecryptionNotAsked",
        None,
    );
    assert!(!std::path::Path::new(&file).exists());
    kms.make(&export("sealed"), json!({"file": file, "decrypt": true}));
    until_phase(&kms, "sealed", "done");
    let made = std::fs::metadata(&file).unwrap();
    assert_eq!(made.len(), MIB);
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&made.permissions()) & 0o777,
        0o600
    );
    kms.refuses(&export("plain"), json!({"file": file}), "FileNotEmpty", None);
    kms.refuses(&export("plain"), json!({"file": "image"}), "InvalidPath", None);
    let inside = kms.state().join("disks/image").to_str().unwrap().to_owned();
    kms.refuses(&export("plain"), json!({"file": inside}), "InvalidPath", None);
    kms.refuses(
        &export("nobody-s"),
        json!({"file": kms.path("other")}),
        "NotFound",
        None,
    );
    kms.make(&export("plain"), json!({"file": kms.path("other")}));
    until_phase(&kms, "plain", "done");
    assert_eq!(kms.audit("disk.export").len(), 7);
    kms.delete("/v1/disks/plain?retention_days=0");
}

#[test]
fn an_export_that_comes_to_nothing_leaves_no_file() {
    let mut kms = with_disks("halts");
    let file = kms.path("image");
    let path = std::path::Path::new(&file).to_owned();
    kms.make("/v1/disks/plain/export", json!({"file": file}));
    kms.until("it goes on", || shown(&kms, "plain")["copy"]["done"] == 4096);
    assert!(path.exists());
    kms.restart();
    kms.until("it goes on again", || {
        shown(&kms, "plain")["copy"]["done"] == 8192
    });
    kms.make("/v1/disks/plain/copy/cancel", json!({}));
    assert!(!path.exists());
    assert_eq!(kms.stop(), Some(0));
    kms.behave("fails-to-copy");
    kms.serve();
    kms.make("/v1/disks/plain/export", json!({"file": file}));
    let failed = until_phase(&kms, "plain", "failed");
    assert_eq!(failed["state"], "available", "nothing has happened to the disk");
    kms.until("the file's end", || !path.exists());
}

#[test]
fn rule_d04_a_failed_export_of_a_disk_permits_no_copy_over_its_data() {
    let mut kms = with_disks("fails-to-copy");
    kms.instance("vm");
    kms.attach("plain", "vm");
    kms.make("/v1/disks/plain/detach", json!({}));
    kms.make("/v1/disks/plain/export", json!({"file": kms.path("image")}));
    until_phase(&kms, "plain", "failed");
    assert_eq!(kms.stop(), Some(0));
    kms.behave("sealblk");
    kms.serve();
    let body = json!({"source": "sealed"});
    kms.refuses(&path("plain"), body, "DiskNotEmpty", Some("D04"));
}

#[test]
fn a_disk_to_be_filled_that_cannot_be_made_is_not_there_and_no_copy_to_it() {
    let mut kms = with_disks("sealblk");
    kms.make("/v1/backups", json!({"disk": "plain", "name": "b"}));
    kms.until("the backup", || kms.get("/v1/backups/b")["state"] == "available");
    let image = kms.path("image");
    std::fs::write(&image, [1; 512]).unwrap();
    kms.behave("unfit");
    assert_eq!(kms.stop(), Some(0));
    kms.serve();
    let disk = json!({"name": "new"});
    let imported = json!({"file": image, "disk": disk});
    for (path, body) in [
        ("/v1/imports", imported),
        ("/v1/backups/b/restore", json!({"disk": disk})),
    ] {
        let (status, answer) = kms.call("POST", path, Some(body.to_string().as_bytes()));
        assert!(status >= 400, "{path}: {answer}");
        assert_eq!(kms.call("GET", "/v1/disks/new", None).0, 404);
    }
    assert_eq!(kms.query("SELECT count(*) FROM copies WHERE phase <> 'done'"), 0);
    assert_eq!(kms.usage("create"), 1, "refunded");
    for call in ["disk.import", "backup.restore"] {
        assert_eq!(kms.audit(call).last().unwrap().0, "failed", "{call}");
    }
}

#[test]
fn a_raw_image_becomes_a_disk_of_its_size_or_a_larger_one_and_other_formats_are_refused() {
    let kms = with_disks("sealblk");
    let image = kms.path("image");
    std::fs::write(&image, vec![1; 5000]).unwrap();
    let import = |name: &str, file: &str| json!({"file": file, "disk": {"name": name}});
    let disk = kms.make("/v1/imports", import("data", &image));
    assert_eq!((&disk["size"], &disk["encrypted"]), (&json!(5120), &json!(true)));
    until_phase(&kms, "data", "done");
    let larger = json!({"file": image, "disk": {"name": "larger", "size": MIB, "encrypted": false}});
    kms.make("/v1/imports", larger);
    until_phase(&kms, "larger", "done");
    // What was imported is data.
    let over = json!({"source": "plain"});
    kms.refuses(&path("larger"), over, "DiskNotEmpty", Some("D04"));
    let smaller = json!({"file": image, "disk": {"name": "smaller", "size": 4096}});
    kms.refuses("/v1/imports", smaller, "SizeBelowSource", Some("I04"));
    for source in ["snapshot", "image"] {
        let mut both = import("other", &image);
        both["disk"][source] = json!("data");
        kms.refuses("/v1/imports", both, "InvalidRequest", None);
    }
    for magic in [&b"QFI\xfb"[..], b"KDMV", b"vhdxfile"] {
        std::fs::write(&image, [magic, &[0; 4096]].concat()).unwrap();
        kms.refuses("/v1/imports", import("other", &image), "FormatNotSupported", None);
    }
    kms.refuses(
        "/v1/imports",
        import("other", &kms.path("nothing")),
        "InvalidPath",
        None,
    );
    let raw = kms.make(
        "/v1/disks",
        json!({"name": "theirs", "size": MIB, "store": "raw", "path": kms.path("theirs")}),
    );
    kms.refuses(
        "/v1/imports",
        import("other", raw["path"].as_str().unwrap()),
        "FileInUse",
        None,
    );
    let (status, _) = kms.call("GET", "/v1/disks/other", None);
    assert_eq!(status, 404, "a refused import makes no disk");
    assert_eq!(kms.usage("create"), 3);
}

/// Wherever their mark lies, for disks and images alike; and `raw` remains for who means it.
#[test]
fn files_that_are_no_raw_image_are_refused_by_what_they_hold() {
    let kms = with_disks("sealblk");
    let image = kms.path("image");
    let boot = (510, &b"\x55\xaa"[..]);
    for (places, format, advice) in [
        (&[(64, &b"\x7f\x10\xda\xbe"[..])][..], "VDI", "qemu-img convert"),
        (&[(0, b"QED\0")], "QED", "qemu-img convert"),
        (&[(0, b"WithouFreSpacExt")], "Parallels", "qemu-img convert"),
        (&[boot, (9000, b"conectix")], "VHD", "qemu-img convert"),
        (&[(0, b"# Disk DescriptorFile\n")], "VMDK", "qemu-img convert"),
        (&[(0, b"\x1f\x8b\x08")], "gzip", "gzip -d"),
        (&[(0, b"\xfd7zXZ\0")], "xz", "xz -d"),
        (&[(0, b"BZh91AY&SY")], "bzip2", "bzip2 -d"),
        (&[(0, b"\x28\xb5\x2f\xfd")], "zstd", "zstd -d"),
        (&[(0, b"disk.vmdk"), (257, b"ustar  ")], "tar", "unpack"),
        (&[(0, b"<!DOCTYPE html>\n<html>")], "HTML", "fetch"),
    ] {
        let mut bytes = vec![0; 9512];
        for (at, mark) in places {
            bytes[*at..at + mark.len()].copy_from_slice(mark);
        }
        std::fs::write(&image, bytes).unwrap();
        for format_asked in [json!(null), json!("qcow2")] {
            let disk = json!({"file": image, "format": format_asked, "disk": {"name": "other"}});
            let base = json!({"file": image, "format": format_asked, "name": "other"});
            for (path, body) in [("/v1/imports", disk), ("/v1/imports/images", base)] {
                let refused = kms.refuses(path, body, "FormatNotSupported", None);
                let text = refused["message"].as_str().unwrap();
                assert!(text.contains(format) && text.contains(advice), "{text}");
            }
        }
    }
    let asked = json!({"file": image, "format": "raw", "disk": {"name": "as-it-is"}});
    kms.make("/v1/imports", asked);
    until_phase(&kms, "as-it-is", "done");
    // What disks begin with.
    std::fs::write(&image, [&[0; 510], &b"\x55\xaa"[..], &[0; 9000]].concat()).unwrap();
    kms.make("/v1/imports", json!({"file": image, "disk": {"name": "other"}}));
    until_phase(&kms, "other", "done");
}

#[test]
fn an_import_goes_on_with_the_file_that_was_looked_at_alone() {
    let mut kms = with_disks("halts");
    let image = kms.path("image");
    std::fs::write(&image, [1; 65536]).unwrap();
    kms.make("/v1/imports", json!({"file": image, "disk": {"name": "new"}}));
    kms.until("it goes on", || shown(&kms, "new")["copy"]["done"] == 4096);
    assert_eq!(kms.stop(), Some(0));
    std::fs::rename(&image, kms.path("kept")).unwrap();
    std::fs::write(&image, [2; 65536]).unwrap();
    kms.behave("sealblk");
    kms.serve();
    let failed = until_phase(&kms, "new", "failed");
    assert_eq!(failed["state"], "error");
    let trouble = failed["copy"]["trouble"].as_str().unwrap();
    assert!(trouble.contains(&image), "{trouble}");
}

/// The examination of a store takes as long as reading takes, and each attempt meanwhile is in vain.
#[test]
fn a_copy_of_a_snapshot_waits_for_an_examination_of_its_store() {
    let mut kms = Kms::active_with_backend("examines");
    kms.layered("data");
    kms.snapshot("data", "s");
    kms.kill();
    kms.options = ["--log-level", "debug"].map(str::to_owned).to_vec();
    kms.serve();
    let state = || kms.get("/v1/backups/b")["state"].clone();
    std::thread::scope(|scope| {
        let check = scope.spawn(|| kms.try_call("POST", "/v1/disks/data/check", Some(b"{}")));
        let mut examining = Vec::new();
        kms.until("it is under way", || {
            examining = kms.backends();
            kms.query("SELECT count(*) FROM intents") == 1 && !examining.is_empty()
        });
        kms.make("/v1/backups", json!({"name": "b", "snapshot": "data/s"}));
        kms.until("more attempts than a copy has otherwise", || {
            assert_eq!(state(), "creating", "{}", kms.log());
            kms.log().matches("it waits: disk.check is under way").count() > 6
        });
        for pid in examining {
            kill(pid, "KILL");
        }
        assert!(check.join().unwrap().unwrap().0 >= 400);
    });
    kms.until("the copy", || state() == "available");
}
