//! Sockets: whose they are, and the paths that stay the same over attachments.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::common::{Kms, Value, json};

fn attached() -> Kms {
    let kms = Kms::active();
    kms.disk("data");
    kms.instance("vm");
    kms.attach("data", "vm");
    kms
}

fn by_name(kms: &Kms, instance: &str, disk: &str) -> PathBuf {
    let run = kms.state().canonicalize().unwrap().join("run");
    run.join(format!("by-name/{instance}/{disk}.sock"))
}

fn listens(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

fn only_attachment(kms: &Kms) -> Value {
    kms.get("/v1/disks/data/attachments")["attachments"][0].clone()
}

#[test]
fn a_disk_has_a_path_that_is_the_same_at_each_attachment() {
    let mut kms = attached();
    let path = by_name(&kms, "vm", "data");
    let first = only_attachment(&kms);
    assert_eq!(first["named_socket"], path.to_str().unwrap());
    assert!(listens(&path));
    for arguments in [
        "qemu_args",
        "qemu_disk_args",
        "libvirt_xml",
        "cloud_hypervisor_args",
    ] {
        let arguments = first[arguments].as_str().unwrap();
        assert!(arguments.contains(path.to_str().unwrap()), "{arguments}");
    }
    let address = &first["qmp"][0]["arguments"]["backend"]["data"]["addr"]["data"];
    assert_eq!(address["path"], first["named_socket"]);
    assert_eq!(
        (&first["disk_name"], &first["instance_name"]),
        (&json!("data"), &json!("vm"))
    );
    assert_eq!(
        kms.get("/v1/disks/data")["attachments"][0]["named_socket"],
        first["named_socket"]
    );
    assert_eq!(kms.get("/v1/instances/vm")["disk_names"], json!(["data"]));

    kms.make("/v1/disks/data/detach", json!({}));
    assert!(path.symlink_metadata().is_err());
    let second = kms.attach("data", "vm");
    assert_eq!(second["named_socket"], first["named_socket"]);
    assert_ne!(second["socket"], first["socket"]);
    assert!(listens(&path));

    // After a start it leads there again, and what leads nowhere is gone.
    std::fs::remove_file(&path).unwrap();
    let left = by_name(&kms, "gone", "data");
    std::fs::create_dir(left.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("../../att-aaaaaaaaaaaaaaaa/vhost.sock", &left).unwrap();
    kms.restart();
    kms.until("the socket by its name", || listens(&path));
    assert!(!left.parent().unwrap().exists());
    kms.make("/v1/disks/data/detach", json!({}));
    assert!(!kms.state().join("run/by-name").exists());
}

#[test]
fn other_names_lead_to_the_socket_too_until_it_is_detached() {
    let kms = attached();
    assert_eq!(kms.patch("/v1/disks/data", json!({"name": "logs"})).0, 200);
    assert_eq!(kms.patch("/v1/instances/vm", json!({"name": "web"})).0, 200);
    let names = [("vm", "data"), ("vm", "logs"), ("web", "logs")];
    for (instance, disk) in names {
        assert!(listens(&by_name(&kms, instance, disk)), "{instance} {disk}");
    }
    let found = &kms.get("/v1/disks/logs")["attachments"][0];
    assert_eq!(
        found["named_socket"],
        by_name(&kms, "web", "logs").to_str().unwrap()
    );
    // The machine that runs may have the first path: another disk of that name does not get it.
    kms.disk("data");
    kms.instance("vm");
    let other = kms.attach("data", "vm");
    assert_eq!(other["named_socket"], Value::Null);
    assert!(
        other["qemu_args"]
            .as_str()
            .unwrap()
            .contains(other["socket"].as_str().unwrap())
    );
    kms.make("/v1/disks/logs/detach", json!({}));
    for (instance, disk) in names {
        assert!(
            by_name(&kms, instance, disk).symlink_metadata().is_err(),
            "{instance} {disk}"
        );
    }
}

#[test]
fn a_socket_whose_path_was_chosen_and_a_path_that_is_too_long_have_no_other() {
    let kms = Kms::active();
    kms.disk("data");
    let long = "x".repeat(64);
    kms.disk(&long);
    kms.instance("vm");
    let chosen = kms.path("chosen.sock");
    let body = json!({"disk": "data", "instance": "vm", "vhost_socket": chosen});
    let attachment = kms.make("/v1/attachments", body);
    assert_eq!(attachment["named_socket"], Value::Null);
    assert!(attachment["libvirt_xml"].as_str().unwrap().contains(&chosen));
    assert_eq!(kms.patch("/v1/instances/vm", json!({"name": &long[1..]})).0, 200);
    assert_eq!(kms.attach(&long, &long[1..])["named_socket"], Value::Null);
    assert!(!kms.state().join("run/by-name").exists());
}

#[test]
fn the_daemon_says_whose_sockets_are_of_which_a_call_says_nothing() {
    let mut kms = Kms::active();
    let is_root = rustix::process::geteuid().is_root();
    let (owner, expected) = if is_root { ("7:8", (7, 8)) } else { ("", (0, 0)) };
    kms.options
        .extend(["--vhost-socket-mode", "0660"].map(str::to_owned));
    if is_root {
        kms.options
            .extend(["--vhost-socket-owner", owner].map(str::to_owned));
    }
    kms.restart();
    kms.instance("vm");
    let access = |disk: &str, options: Value| {
        kms.disk(disk);
        let mut body = json!({"disk": disk, "instance": "vm"});
        body.as_object_mut()
            .unwrap()
            .extend(options.as_object().unwrap().clone());
        let attachment = kms.make("/v1/attachments", body);
        let found = Path::new(attachment["socket"].as_str().unwrap())
            .metadata()
            .unwrap();
        ((found.uid(), found.gid()), found.mode() & 0o777)
    };
    let (default, mode) = access("a", json!({}));
    assert_eq!(mode, 0o660);
    let (other, mode) = access("b", json!({"socket_mode": "0600"}));
    assert_eq!((other, mode), (default, 0o600));
    // The instance's come before the daemon's.
    assert_eq!(
        kms.patch("/v1/instances/vm", json!({"socket_mode": "0640"})).0,
        200
    );
    assert_eq!(access("d", json!({})), (default, 0o640));
    let unset = kms.patch("/v1/instances/vm", json!({"socket_mode": null}));
    assert_eq!((unset.0, &unset.1["socket_mode"]), (200, &Value::Null));
    assert_eq!(access("e", json!({})), (default, 0o660));
    if is_root {
        assert_eq!(default, expected);
        let set = kms.patch("/v1/instances/vm", json!({"socket_owner": "11:12"})).1;
        assert_eq!(set["socket_owner"], "11:12");
        assert_eq!(access("f", json!({})), ((11, 12), 0o660));
        assert_eq!(access("c", json!({"socket_owner": "9:10"})), ((9, 10), 0o660));
    }
    kms.kill();
    kms.fails(&["serve", "--vhost-socket-mode", "1777"], "InvalidSocketMode");
}
