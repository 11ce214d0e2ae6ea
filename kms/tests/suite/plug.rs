//! Disks that are plugged into virtual machines that run, which are played here, and taken out of them (rule A09). Whatever dies or
//! hangs at whichever step, a disk is plugged in and in use, or neither. `scripts/plug-test` does it with QEMU.

use std::os::unix::net::UnixListener;

use crate::common::machine::{Fault, Machine};
use crate::common::{Kms, Value, json, kill, refused};

/// A daemon with an encrypted disk and an instance, and the path of that one's machine.
fn world() -> (Kms, String) {
    let kms = Kms::active();
    kms.disk("data");
    let socket = kms.path("machine");
    kms.make("/v1/instances", json!({"name": "vm", "vm_socket": socket}));
    (kms, socket)
}

fn qemu(socket: &str) -> Machine {
    Machine::qemu(socket, (7, 2), &["port-1"])
}

fn plug() -> Value {
    json!({"disk": "data", "instance": "vm", "plug": true})
}

const DETACH: &str = "/v1/disks/data/detach";

fn unplug() -> Value {
    json!({"unplug": true})
}

/// How many are open.
fn intents(kms: &Kms) -> i64 {
    kms.query("SELECT count(*) FROM intents")
}

fn state(kms: &Kms) -> String {
    kms.get("/v1/disks/data")["state"].as_str().unwrap().to_owned()
}

/// The disk is in use, served and in the machine, and one attach has been counted.
fn assert_plugged(kms: &Kms, machine: &Machine) {
    let disk = kms.get("/v1/disks/data");
    let attachment = &disk["attachments"][0];
    assert_eq!(
        (&disk["state"], &attachment["plugged"]),
        (&json!("in-use"), &json!(true)),
        "{}",
        kms.log()
    );
    kms.until("it is served", || !kms.backends().is_empty());
    let ids = machine.look(|inside| {
        inside
            .devices
            .iter()
            .map(|(id, _)| id.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(json!(ids), json!([disk["id"]]));
    assert_eq!((kms.usage("attach"), intents(kms)), (1, 0));
}

/// The disk is available, nobody serves it, and nothing of it is in the machine; so many attaches and detaches have been counted.
fn assert_apart(kms: &Kms, machine: &Machine, counted: (u64, u64)) {
    assert_eq!(state(kms), "available", "{}", kms.log());
    assert_eq!((kms.backends().len(), intents(kms)), (0, 0));
    assert!(machine.look(|inside| inside.has_nothing()));
    assert_eq!((kms.usage("attach"), kms.usage("detach")), counted);
    let last = kms.audit("attach").pop().unwrap_or_default();
    assert_eq!(last.0 == "allowed", counted.0 > 0, "{last:?}");
}

#[test]
fn rule_a09_a_disk_comes_to_a_qemu_and_goes() {
    let (kms, socket) = world();
    for (version, ports, reconnect, bus) in [
        (
            (7, 2),
            &["fixed-0", "port-1"] as &[&str],
            json!({"reconnect": 1}),
            json!("port-1"),
        ),
        ((9, 2), &[], json!({"reconnect-ms": 1000}), Value::Null),
    ] {
        let machine = Machine::qemu(&socket, version, ports);
        let attachment = kms.make("/v1/attachments", plug());
        assert_eq!(attachment["plugged"], true);
        let (disk, path) = (&attachment["disk"], &attachment["socket"]);
        let asked = machine.look(|inside| inside.asked.clone());
        let arguments = |name: &str| &asked.iter().find(|(asked, _)| asked == name).unwrap().1;
        let mut data = json!({"addr": {"type": "unix", "data": {"path": path}}, "server": false});
        data.as_object_mut()
            .unwrap()
            .extend(reconnect.as_object().unwrap().clone());
        assert_eq!(
            arguments("chardev-add"),
            &json!({"id": disk, "backend": {"type": "socket", "data": data}})
        );
        let mut device =
            json!({"driver": "vhost-user-blk-pci", "id": disk, "chardev": disk, "num-queues": 4});
        if !bus.is_null() {
            device["bus"] = bus;
        }
        assert_eq!(arguments("device_add"), &device);
        // On the connection on which the disk comes, it is asked what the machine has (A03).
        let names: Vec<_> = asked.iter().map(|(name, _)| name.as_str()).collect();
        let added = names.iter().position(|name| *name == "device_add").unwrap();
        let connected = names[..added]
            .iter()
            .rposition(|name| *name == "qmp_capabilities")
            .unwrap();
        assert!(
            names[connected..added].contains(&"query-named-block-nodes"),
            "{names:?}"
        );
        assert_eq!(kms.get("/v1/disks/data")["attachments"][0]["plugged"], true);
        let detached = kms.make(DETACH, unplug());
        assert_eq!(
            (&detached["state"], machine.look(|inside| inside.has_nothing())),
            (&json!("available"), true)
        );
        assert_eq!(machine.changes()[2..], ["device_del", "chardev-remove"]);
    }
    assert_eq!((kms.usage("attach"), kms.usage("detach")), (2, 2));
    let details = kms.get("/v1/audit?limit=1000")["audit"].to_string();
    assert!(
        details.contains("plug") && details.contains("unplug"),
        "{details}"
    );
}

#[test]
fn rule_a09_a_disk_comes_to_a_cloud_hypervisor_and_goes() {
    let (kms, socket) = world();
    let machine = Machine::cloud_hypervisor(&socket);
    let attachment = kms.make("/v1/attachments", plug());
    assert_plugged(&kms, &machine);
    let asked = machine.look(|inside| inside.asked.clone());
    let added = asked.iter().find(|(name, _)| name == "vm.add-disk").unwrap();
    let body = json!({"id": attachment["disk"], "vhost_user": true, "vhost_socket": attachment["socket"],
        "num_queues": 4, "queue_size": 128});
    assert_eq!(added.1, body);
    kms.make(DETACH, unplug());
    assert_apart(&kms, &machine, (1, 1));
    machine.fail_at("vm.add-disk", Fault::Refused);
    kms.refuses("/v1/attachments", plug(), "MachineRefuses", Some("A09"));
    assert_eq!((state(&kms), kms.usage("attach")), ("available".to_owned(), 1));
}

#[test]
fn rule_a09_what_cannot_be_plugged_in_is_refused_and_nothing_has_changed() {
    let (kms, socket) = world();
    let refused = |body: Value, code: &str, rule: Option<&str>| {
        let answer = kms.refuses("/v1/attachments", body, code, rule);
        assert_eq!(
            (state(&kms), kms.backends().len(), kms.usage("attach")),
            ("available".to_owned(), 0, 0)
        );
        answer["message"].as_str().unwrap().to_owned()
    };
    kms.instance("unknown");
    let unknown = json!({"disk": "data", "instance": "unknown", "plug": true});
    refused(unknown, "MachineNotRunning", Some("A09"));
    refused(plug(), "MachineNotRunning", Some("A09"));
    let machine = qemu(&socket);
    let mut unserved = plug();
    unserved["start"] = json!(false);
    refused(unserved, "InvalidRequest", None);
    machine.look(|inside| {
        inside
            .devices
            .push(("other".to_owned(), Some("port-1".to_owned())))
    });
    let words = refused(plug(), "MachineRefuses", Some("A09"));
    assert!(words.contains("pcie-root-port"), "{words}");
    let disk = kms.get("/v1/disks/data")["id"].as_str().unwrap().to_owned();
    machine.look(|inside| inside.devices = vec![(disk, None)]);
    refused(plug(), "MachineRefuses", Some("A09"));
    machine.look(|inside| {
        inside.devices.clear();
        inside.nodes = vec![json!({"node-name": "a", "drv": "file", "file": "/scratch.raw", "ro": false})];
    });
    refused(plug(), "LocalDevice", Some("A03"));
    assert_eq!(machine.changes(), Vec::<String>::new());
    // Another client has it.
    drop(machine);
    std::fs::remove_file(&socket).unwrap();
    let _silent = UnixListener::bind(&socket).unwrap();
    refused(plug(), "MachineSilent", Some("A09"));
}

#[test]
fn rule_a09_what_a_machine_refuses_is_undone_and_not_counted() {
    let (kms, socket) = world();
    let machine = qemu(&socket);
    for command in ["chardev-add", "device_add"] {
        machine.fail_at(command, Fault::Refused);
        kms.refuses("/v1/attachments", plug(), "MachineRefuses", Some("A09"));
        assert_apart(&kms, &machine, (0, 0));
    }
    // What an earlier one has left is no obstacle.
    let disk = kms.get("/v1/disks/data")["id"].as_str().unwrap().to_owned();
    machine.look(|inside| inside.chardevs.push(disk));
    kms.make("/v1/attachments", plug());
    assert_plugged(&kms, &machine);
    machine.fail_at("device_del", Fault::Refused);
    kms.refuses(DETACH, unplug(), "MachineRefuses", Some("A09"));
    assert_plugged(&kms, &machine);
    assert_eq!(kms.usage("detach"), 0);
    kms.make(DETACH, unplug());
    assert_apart(&kms, &machine, (1, 1));
}

/// The daemon is killed while the machine carries a command out. Whether that has been done is the machine's to say.
#[test]
fn rule_a09_a_daemon_killed_at_any_step_of_a_plug_leaves_both_or_neither() {
    for (command, done, is_plugged) in [
        ("chardev-add", false, false),
        ("chardev-add", true, false),
        ("device_add", false, false),
        ("device_add", true, true),
        ("vm.add-disk", false, false),
        ("vm.add-disk", true, true),
    ] {
        let (mut kms, socket) = world();
        let machine = match command.starts_with("vm.") {
            true => Machine::cloud_hypervisor(&socket),
            false => qemu(&socket),
        };
        machine.fail_at(command, Fault::Hangs(done));
        killed_while(&mut kms, &machine, "/v1/attachments", &plug());
        match is_plugged {
            true => assert_plugged(&kms, &machine),
            false => assert_apart(&kms, &machine, (0, 0)),
        }
        if is_plugged {
            kms.make(DETACH, unplug());
            assert_apart(&kms, &machine, (1, 1));
        }
    }
}

#[test]
fn rule_a09_a_daemon_killed_at_any_step_of_an_unplug_takes_it_up_again() {
    for (command, done) in [
        ("device_del", false),
        ("device_del", true),
        ("chardev-remove", false),
        ("chardev-remove", true),
        ("vm.remove-device", false),
        ("vm.remove-device", true),
    ] {
        let (mut kms, socket) = world();
        let machine = match command.starts_with("vm.") {
            true => Machine::cloud_hypervisor(&socket),
            false => qemu(&socket),
        };
        kms.make("/v1/attachments", plug());
        machine.fail_at(command, Fault::Hangs(done));
        killed_while(&mut kms, &machine, DETACH, &unplug());
        assert_apart(&kms, &machine, (1, 1));
    }
}

/// The daemon is killed while the machine hangs at what the call asks of it, and another one ends the call.
fn killed_while(kms: &mut Kms, machine: &Machine, path: &str, body: &Value) {
    std::thread::scope(|scope| {
        let body = body.to_string();
        let asking: &Kms = kms;
        let call = scope.spawn(move || asking.try_call("POST", path, Some(body.as_bytes())));
        kms.until("the machine hangs", || machine.hangs());
        kill(kms.pid().into(), "KILL");
        assert_eq!(call.join().unwrap(), None);
    });
    machine.go_on();
    kms.restart();
    kms.until("the intents are ended", || intents(kms) == 0);
}

#[test]
fn rule_a09_a_machine_that_dies_has_nothing() {
    for command in ["chardev-add", "device_add"] {
        let (kms, socket) = world();
        let machine = qemu(&socket);
        machine.fail_at(command, Fault::Dies);
        kms.refuses("/v1/attachments", plug(), "MachineSilent", Some("A09"));
        machine.look(|inside| {
            inside.chardevs.clear();
        });
        assert_apart(&kms, &machine, (0, 0));
    }
    let (kms, socket) = world();
    let machine = qemu(&socket);
    kms.make("/v1/attachments", plug());
    machine.fail_at("device_del", Fault::Dies);
    kms.refuses(DETACH, unplug(), "MachineSilent", Some("A09"));
    assert_eq!((state(&kms), kms.usage("detach")), ("in-use".to_owned(), 0));
    machine.look(|inside| {
        inside.chardevs.clear();
        inside.devices.clear();
    });
    kms.make(DETACH, unplug());
    assert_apart(&kms, &machine, (1, 1));
}

/// What the disk's machine waits for.
#[test]
fn rule_a09_a_process_killed_while_its_disk_is_plugged_in_is_started_again() {
    let (kms, socket) = world();
    let machine = qemu(&socket);
    machine.fail_at("device_add", Fault::Hangs(true));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| kms.post("/v1/attachments", plug()));
        kms.until("the machine hangs", || machine.hangs());
        let killed = kms.backends();
        kill(killed[0], "KILL");
        kms.until("another process", || {
            kms.backends().iter().any(|pid| !killed.contains(pid))
        });
        machine.go_on();
        assert_eq!(call.join().unwrap().0, 201);
    });
    assert_plugged(&kms, &machine);
}

#[test]
fn rule_a09_a_machine_that_hangs_decides_when_it_answers_and_holds_up_nobody() {
    for done in [false, true] {
        let (kms, socket) = world();
        let machine = qemu(&socket);
        machine.fail_at("device_add", Fault::Breaks(done));
        std::thread::scope(|scope| {
            let refused = || kms.refuses("/v1/attachments", plug(), "MachineSilent", Some("A09"));
            let call = scope.spawn(refused);
            kms.until("the machine hangs", || machine.hangs());
            kms.disk("another");
            kms.instance("other");
            kms.attach("another", "other");
            kms.make("/v1/disks/another/detach", json!({}));
            assert!(machine.hangs());
            call.join().unwrap();
        });
        // Elsewhere nobody listens, which would mean that it has ended.
        let elsewhere = json!({"vm_socket": kms.path("elsewhere")}).to_string();
        let (status, answer) = kms.call("PATCH", "/v1/instances/vm", Some(elsewhere.as_bytes()));
        refused(status, &answer, "InstanceInUse", None);
        // Neither is known yet, so the disk is served.
        assert_eq!((state(&kms), intents(&kms)), ("attaching".to_owned(), 1));
        assert_eq!(kms.backends().len(), 1);
        machine.go_on();
        kms.until("the intent is ended", || intents(&kms) == 0);
        let counted = kms.usage("attach");
        assert_eq!(
            counted,
            1 + u64::from(done),
            "of the other disk, and of this one if it is there"
        );
        assert_eq!(state(&kms), if done { "in-use" } else { "available" });
        assert_eq!(machine.look(|inside| inside.has_nothing()), !done);
    }
}

/// Of either kind of machine, and after a kill of the daemon, too.
#[test]
fn rule_a09_a_guest_that_does_not_answer_keeps_its_disk() {
    std::thread::scope(|scope| {
        for kind in [qemu as fn(&str) -> Machine, Machine::cloud_hypervisor] {
            scope.spawn(move || {
                let (mut kms, socket) = world();
                let machine = kind(&socket);
                kms.make("/v1/attachments", plug());
                machine.look(|inside| inside.deaf_guest = true);
                let mut forced = unplug();
                forced["force"] = json!(true);
                let told = kms.refuses(DETACH, forced, "GuestDoesNotAnswer", Some("A09"));
                assert!(told["message"].as_str().unwrap().contains("repeat"), "{told}");
                assert_plugged(&kms, &machine);
                assert_eq!(kms.usage("detach"), 0);
                assert_eq!(kms.audit("detach").pop().unwrap().1, "GuestDoesNotAnswer");
                let command = machine.changes().pop().unwrap();
                machine.fail_at(&command, Fault::Hangs(true));
                machine.look(|inside| inside.deaf_guest = false);
                killed_while(&mut kms, &machine, DETACH, &unplug());
                assert_apart(&kms, &machine, (1, 1));
            });
        }
    });
}

/// By the XML that `attach` prints for libvirt.
#[test]
fn rule_a09_a_disk_that_libvirt_has_plugged_in_is_found_by_its_alias() {
    let (kms, socket) = world();
    let machine = qemu(&socket);
    let attachment = kms.make("/v1/attachments", json!({"disk": "data", "instance": "vm"}));
    let alias = format!("ua-{}", attachment["disk"].as_str().unwrap());
    let xml = attachment["libvirt_xml"].as_str().unwrap();
    assert!(xml.contains(&format!("<alias name='{alias}'/>")), "{xml}");
    machine.look(|inside| inside.devices.push((alias, None)));
    kms.make(DETACH, unplug());
    assert_apart(&kms, &machine, (1, 1));
    assert_eq!(machine.changes(), ["device_del"]);
}
