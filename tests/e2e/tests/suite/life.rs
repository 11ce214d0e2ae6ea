//! The whole life of a disk through the public commands.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Stdio;

use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms, REGION, ZONE, text};
use sealblk_e2e::{eventually, process};
use serde_json::Value;

fn assert_fields(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "{field} in {object}");
    }
}

#[test]
fn a_disk_is_created_attached_used_detached_and_deleted() {
    let kms = Kms::inactive();
    assert_eq!(kms.ok(&["kms", "status"])["state"], "inactive");
    assert_eq!(kms.ok(&["kms", "activate"])["state"], "active");
    let instance = kms.ok(&["instance", "register", "vm"]);
    let disk = kms.ok(&["disk", "create", "data", "--size", "64MiB"]);
    assert_eq!(
        (disk["state"].as_str(), disk["size"].as_u64()),
        (Some("available"), Some(64 << 20))
    );
    assert_eq!(disk["encrypted"], true);

    let attachment = kms.ok(&["attach", "data", "vm", "--queues", "2"]);
    let (socket, pid) = (kms::path(&attachment, "socket"), kms::pid(&attachment));
    assert!(process::is_running(pid));
    let metadata = socket.metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let shown = kms.disk("data");
    assert_eq!(shown["state"], "in-use");
    assert_eq!(
        (&shown["instance"], &shown["pid"]),
        (&instance["id"], &attachment["pid"])
    );
    assert_eq!(kms.ok(&["instance", "show", "vm"])["disks"][0], disk["id"]);

    let mut guest = Guest::connect(socket);
    guest.write(8, &[0x5a; 4096]);
    guest.flush();
    assert_eq!(guest.read(8, 4096), [0x5a; 4096]);
    let serial = guest.serial();
    // Guests of disks that were made long ago know them by it: it cannot be another one.
    assert_eq!(serial, &text(&disk, "id")[..20]);
    for shown in [&disk, &attachment] {
        assert_eq!(text(shown, "serial"), serial);
    }
    let stats = &kms.disk("data")["stats"];
    assert!(
        stats["writes"] == 1 && stats["flushes"] == 1 && stats["bytes_read"] == 4096,
        "{stats}"
    );
    drop(guest);

    detach_when_disconnected(&kms);
    eventually("the end of the serving process", || {
        (!process::is_running(pid)).then_some(())
    });
    assert!(!socket.exists());
    assert_eq!(kms.disk("data")["state"], "available");
    kms.ok(&["attach", "data", "vm"]);
    let mut guest = Guest::connect(kms::path(&kms.disk("data"), "socket"));
    assert_eq!(guest.read(8, 4096), [0x5a; 4096]);
    assert_eq!(guest.serial(), serial);
    drop(guest);
    detach_when_disconnected(&kms);

    let file = kms::path(&disk, "path").to_owned();
    assert!(file.exists());
    assert_eq!(kms.ok(&["disk", "delete", "data", "--now"])["id"], disk["id"]);
    assert!(!file.exists());
    assert_eq!(kms.ok(&["instance", "remove", "vm"])["id"], instance["id"]);
    assert_eq!(kms.ok(&["disk", "list"])["disks"], Value::Array(vec![]));
}

#[test]
fn the_guest_sees_the_serial_that_the_operator_sees_and_no_other_disk_has_it() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let file = kms.path_text("data.img");
    kms.ok(&["disk", "export", "data", &file, "--decrypt"]);
    kms.ok(&["disk", "import", "imported", &file]);
    kms.ok(&["backup", "create", "data", "saved"]);
    kms.ok(&["backup", "restore", "saved", "restored"]);
    kms.ok(&["snapshot", "create", "data", "first"]);
    kms.ok(&["disk", "create", "clone", "--snapshot", "data/first"]);
    kms.ok(&["image", "create", "base", "--snapshot", "data/first"]);
    kms.ok(&["disk", "create", "root", "--image", "base"]);
    kms.create("raw", &["--store", "raw"]);
    let mut serials = std::collections::BTreeSet::new();
    let disks = ["data", "imported", "restored", "clone", "root", "raw"];
    for disk in disks {
        let shown = text(&kms.disk(disk), "serial").to_owned();
        for _ in 0..2 {
            let attachment = kms.ok(&["attach", disk, "vm"]);
            assert_eq!(text(&attachment, "serial"), shown);
            assert_eq!(
                Guest::connect(kms::path(&attachment, "socket")).serial(),
                shown,
                "{disk}"
            );
            kms.ok(&["detach", disk, "--force"]);
        }
        serials.insert(shown);
    }
    assert_eq!(serials.len(), disks.len(), "{serials:?}");
}

/// The backend notices the end of a connection a moment after the frontend.
fn detach_when_disconnected(kms: &Kms) {
    eventually("the disconnect", || {
        (kms.disk("data")["connected"] == false).then_some(())
    });
    assert_eq!(kms.ok(&["detach", "data"])["state"], "available");
}

/// What `attach` says later, too, for scripts and files.
#[test]
fn attachments_are_printed_in_the_form_that_is_asked_for() {
    let kms = Kms::start();
    kms.ok(&["disk", "create", "data", "--size", "64MiB"]);
    kms.ok(&["instance", "register", "vm"]);
    let printed = |words: &[&str]| {
        let output = kms.sealctl_program(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let xml = printed(&["attach", "data", "vm", "--format", "libvirt", "--target", "vdc"]);
    let shown = kms.ok(&["disk", "attachments", "data", "--qemu-version", "7.2"]);
    let shown = &shown["attachments"][0];
    assert_eq!(xml.trim_end(), text(shown, "libvirt_xml").replace("vdb", "vdc"));
    assert!(xml.contains(text(shown, "named_socket")), "{xml}");
    for (form, field) in [
        ("qemu", "qemu_args"),
        ("qemu-disk", "qemu_disk_args"),
        ("libvirt", "libvirt_xml"),
        ("libvirt-machine", "libvirt_machine_xml"),
        ("cloud-hypervisor", "cloud_hypervisor_args"),
    ] {
        let words = [
            "disk",
            "attachments",
            "data",
            "vm",
            "--qemu-version",
            "7.2",
            "--format",
            form,
        ];
        assert_eq!(printed(&words).trim_end(), text(shown, field), "{form}");
    }
    assert!(text(shown, "qemu_args").contains(",reconnect=1 "));
    kms.refused(&["disk", "attachments", "data", "other"], "NotAttached", None);
}

#[test]
fn json_has_the_documented_fields() {
    let kms = Kms::start();
    let attachment = kms.attached();
    let id_and_name = ["id", "name"];
    assert_fields(
        &attachment,
        &[
            "attachment",
            "socket",
            "pid",
            "serial",
            "qemu_args",
            "qemu_machine_args",
            "qemu_disk_args",
            "cloud_hypervisor_args",
            "qmp",
            "libvirt_xml",
            "libvirt_machine_xml",
            "named_socket",
        ],
    );
    assert_fields(&attachment, &id_and_name);
    let shown = kms.disk("data");
    assert_eq!(shown["serial"], attachment["serial"]);
    for field in [
        "qemu_args",
        "qemu_machine_args",
        "qemu_disk_args",
        "cloud_hypervisor_args",
        "qmp",
        "libvirt_xml",
    ] {
        assert_eq!(shown["attachments"][0][field], attachment[field]);
    }
    let status = kms.ok(&["kms", "status"]);
    assert_eq!((text(&status, "region"), text(&status, "zone")), (REGION, ZONE));
    assert_fields(&status, &["id", "name", "profile", "state"]);
    let disk = &kms.ok(&["disk", "list"])["disks"][0];
    assert_fields(
        disk,
        &[
            "state",
            "serial",
            "encrypted",
            "size",
            "allocated",
            "key",
            "pid",
            "socket",
            "warnings",
        ],
    );
    assert_fields(disk, &id_and_name);
    let key = &kms.ok(&["key", "list"])["keys"][0];
    assert_fields(key, &["id", "name", "origin", "state"]);
    assert_eq!((text(key, "origin"), text(key, "state")), ("service", "Enabled"));
    assert_fields(&kms.ok(&["instance", "list"])["instances"][0], &id_and_name);
    assert_fields(
        &kms.ok(&["usage"])["usage"][0],
        &["month", "region", "kind", "calls"],
    );
    assert_fields(
        &kms.ok(&["audit"])["audit"][0],
        &["seq", "time", "uid", "call", "decision", "hash"],
    );
}

#[test]
fn text_can_be_pasted() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    let created = kms.sealctl(&["disk", "create", "data", "--size", "1536K"]).text();
    assert!(created.contains("1.5 MiB (1572864 bytes)"), "{created}");
    let attached = kms.sealctl(&["attach", "data", "vm", "--queues", "2"]).text();
    let socket = text(&kms.disk("data"), "socket").to_owned();
    let line = |start: &str| {
        let line = attached.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{start} in {attached}"))
    };
    assert!(line("socket:").ends_with(&socket));
    let socket = text(&kms.disk("data")["attachments"][0], "named_socket").to_owned();
    assert!(line("socket by name:").ends_with(&socket));
    // What follows a title. QEMU has one of the two options in all versions, and in some both.
    for (title, reconnect) in [
        ("Arguments for QEMU 9.2 and later", "reconnect-ms=1000"),
        ("Arguments for QEMU before 9.2", "reconnect=1"),
    ] {
        let mut lines = attached
            .lines()
            .skip_while(|line| !line.starts_with(title))
            .skip(1);
        let qemu = lines.next().unwrap_or_else(|| panic!("{title} in {attached}"));
        for part in [
            "-object memory-backend-memfd,",
            "share=on",
            &format!("path={socket},{reconnect} "),
            "vhost-user-blk-pci",
            "num-queues=2",
        ] {
            assert!(qemu.contains(part), "{part} in {qemu}");
        }
    }
    let serial = text(&kms.disk("data"), "serial").to_owned();
    assert!(line("serial:").ends_with(&serial));
    let shown = kms.sealctl(&["disk", "show", "data"]).text();
    let shown = shown.lines().find(|line| line.starts_with("serial:")).unwrap();
    assert!(shown.ends_with(&serial), "{shown}");
    let cloud_hypervisor = line("--memory ");
    for part in [
        "shared=on",
        "vhost_user=on",
        &format!("socket={socket}"),
        "num_queues=2",
    ] {
        assert!(cloud_hypervisor.contains(part), "{part} in {cloud_hypervisor}");
    }
    for list in [
        &["disk", "list"][..],
        &["instance", "list"],
        &["key", "list"],
        &["usage"],
        &["audit"],
    ] {
        assert!(kms.sealctl(list).text().lines().count() > 1, "{list:?}");
    }
}

#[test]
fn objects_are_found_by_id_and_by_name() {
    let kms = Kms::start();
    let instance = kms.ok(&["instance", "register", "vm"]);
    let disk = kms.create("data", &[]);
    let (disk, instance) = (text(&disk, "id"), text(&instance, "id"));
    assert_eq!(kms.ok(&["attach", disk, instance])["disk"], disk);
    assert_eq!(kms.ok(&["disk", "show", disk])["name"], "data");
    assert_eq!(kms.ok(&["detach", disk, "vm"])["id"], disk);
    kms.ok(&["attach", "data", "vm"]);
    assert_eq!(kms.ok(&["detach", "data", instance])["id"], disk);
    let key = &kms.ok(&["key", "list"])["keys"][0];
    assert_eq!(kms.ok(&["key", "show", text(key, "id")])["id"], key["id"]);
    assert_eq!(kms.ok(&["key", "show", text(key, "name")])["id"], key["id"]);
}

#[test]
fn a_given_path_is_used_and_relative_ones_are_the_callers() {
    let kms = Kms::start();
    let program = |arguments: &[&str]| {
        let mut program = kms.sealctl_program(arguments);
        program.current_dir(kms.path("."));
        sealblk_e2e::Outcome::from(program.output().unwrap())
    };
    let disk = program(&[
        "-o", "json", "disk", "create", "data", "--size", "1M", "--path", "mine.img",
    ])
    .json();
    assert_eq!(
        kms::path(&disk, "path"),
        kms.path("mine.img").canonicalize().unwrap()
    );
    assert_eq!(
        kms.path("mine.img").metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    kms.ok(&["instance", "register", "vm"]);
    let attach = [
        "-o",
        "json",
        "attach",
        "data",
        "vm",
        "--vhost-socket",
        "v.sock",
        "--socket-mode",
        "0660",
    ];
    assert_eq!(text(&program(&attach).json(), "socket"), kms.path_text("v.sock"));
    assert_eq!(
        kms.path("v.sock").metadata().unwrap().permissions().mode() & 0o777,
        0o660
    );
    Guest::connect(&kms.path("v.sock"));
    kms.ok(&["detach", "data", "--force"]);
}

#[test]
fn an_empty_file_is_taken() {
    let kms = Kms::start();
    let path = kms.path_text("empty.img");
    std::fs::write(&path, b"").unwrap();
    kms.create("data", &["--path", &path, "--store", "raw"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    kms.ok(&["disk", "delete", "data", "--now"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    kms.create("data", &["--path", &path]);
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
    kms.ok(&["disk", "delete", "data", "--now"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_read_only_attachment_refuses_writes() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let attachment = kms.ok(&["attach", "data", "vm", "--read-only"]);
    assert_eq!(attachment["read_only"], true);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    assert_ne!(guest.write_status(0), 0);
    guest.read(0, 512);
}

#[test]
fn a_connected_disk_is_not_detached_unless_forced() {
    let kms = Kms::start();
    let attachment = kms.attached();
    let guest = Guest::connect(kms::path(&attachment, "socket"));
    eventually("the connection", || {
        (kms.disk("data")["connected"] == true).then_some(())
    });
    kms.refused(&["detach", "data"], "FrontendConnected", None);
    assert!(process::is_running(kms::pid(&attachment)));
    kms.ok(&["detach", "data", "--force"]);
    assert!(!process::is_running(kms::pid(&attachment)));
    drop(guest);
}

#[test]
fn a_guest_whose_memory_is_not_shared_is_warned_of() {
    let kms = Kms::start();
    let attachment = kms.attached();
    let socket = kms::path(&attachment, "socket");
    Guest::connect_without_memory(socket);
    eventually("the warning", || {
        let warnings = kms.disk("data")["warnings"].to_string();
        warnings.contains("share=on").then_some(())
    });
    let shown = kms.sealctl(&["disk", "show", "data"]).text();
    assert!(
        shown.contains("warning: the machine's memory is not shared"),
        "{shown}"
    );
    let mut guest = Guest::connect(socket);
    guest.write(0, &[1; 512]);
    let session = eventually("what is set up", || {
        let mut disk = kms.disk("data");
        let warnings = disk["warnings"].as_array().map(Vec::len);
        (warnings == Some(0)).then(|| disk["attachments"][0]["session"].take())
    });
    assert_eq!(
        (&session["regions"], &session["queues_running"]),
        (&1.into(), &1.into())
    );
    let shown = kms.sealctl(&["disk", "show", "data"]).text();
    assert!(
        shown.contains("2 MiB in 1 region") && shown.contains("VERSION_1"),
        "{shown}"
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let kms = Kms::inactive();
    for arguments in [
        &["audit"][..],
        &["-o", "json", "disk", "list"],
        &["disk", "create", "--help"],
    ] {
        let mut program = kms.sealctl_program(arguments);
        let mut child = program
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
    }
}
