//! The arguments that are given out, and QEMU itself where it is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use sealblk_e2e::eventually;
use sealblk_e2e::kms::{Kms, text};
use serde_json::Value;

/// A QEMU that was started by a shell; it ends with the test.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_installed() -> bool {
    let version = Command::new("qemu-system-x86_64").arg("--version").output();
    let installed = version.is_ok_and(|output| output.status.success());
    if !installed {
        eprintln!("skipped: qemu-system-x86_64 is not installed");
    }
    installed
}

/// Pastes the arguments into a shell, and waits until the disks are connected.
fn connects(kms: &Kms, arguments: &str, disks: &[&str]) {
    let arguments = arguments.replace("size=4G", "size=64M");
    let script = format!("exec qemu-system-x86_64 -m 64M -nodefaults -display none -S {arguments}");
    let shell = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn();
    let mut qemu = Qemu(shell.unwrap());
    for disk in disks {
        eventually("QEMU is connected", || {
            assert_eq!(qemu.0.try_wait().unwrap(), None, "{script}");
            (kms.disk(disk)["connected"] == true).then_some(())
        });
    }
}

#[test]
fn qemu_takes_the_arguments_of_one_disk_and_of_several() {
    if !is_installed() {
        return;
    }
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    let attach = |disk: &str, socket: &str| {
        kms.create(disk, &[]);
        kms.ok(&[
            "attach",
            disk,
            "vm",
            "--queues",
            "2",
            "--vhost-socket",
            &kms.path_text(socket),
        ])
    };
    let first = attach("one", "a, b=c's $x.sock");
    connects(&kms, text(&first, "qemu_args"), &["one"]);
    let second = attach("two", "second.sock");
    assert_eq!(
        text(&first, "qemu_machine_args"),
        text(&second, "qemu_machine_args")
    );
    let parts = [
        text(&first, "qemu_machine_args"),
        text(&first, "qemu_disk_args"),
        text(&second, "qemu_disk_args"),
    ];
    connects(&kms, &parts.join(" "), &["one", "two"]);
}

/// Of an attachment in JSON.
fn form(arguments: &Value) -> (Option<&str>, bool) {
    let milliseconds = text(arguments, "qemu_args").contains(",reconnect-ms=1000 ");
    (arguments["qemu_version"].as_str(), milliseconds)
}

#[test]
fn without_a_running_machine_the_installed_qemu_is_asked() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let programs = kms.path("programs");
    fs::create_dir(&programs).unwrap();
    let program = programs.join("qemu-system-x86_64");
    let install = |version: &str| {
        fs::write(
            &program,
            format!("#!/bin/sh\necho 'QEMU emulator version {version} (x)'\n"),
        )
        .unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let sealctl = |arguments: &[&str]| {
        let mut command = kms.sealctl_program(&[&["-o", "json"], arguments].concat());
        let outcome: sealblk_e2e::Outcome = command.env("PATH", &programs).output().unwrap().into();
        outcome.json()
    };
    assert_eq!(
        form(&sealctl(&["attach", "data", "vm"])),
        (None, true),
        "none is installed"
    );
    let shown = |arguments: &[&str]| {
        sealctl(&[&["disk", "show", "data"], arguments].concat())["attachments"][0].clone()
    };
    install("7.2.22");
    assert_eq!(form(&shown(&[])), (Some("7.2"), false));
    install("10.2.0");
    assert_eq!(form(&shown(&[])), (Some("10.2"), true));
    assert_eq!(form(&shown(&["--qemu-version", "9.1"])), (Some("9.1"), false));
    kms.ok(&["detach", "data"]);
    let attached = sealctl(&["attach", "data", "vm", "--qemu-version", "7.2"]);
    assert_eq!(form(&attached), (Some("7.2"), false));
    assert_eq!(
        kms.sealctl(&["attach", "data", "vm", "--qemu-version", "new"])
            .status,
        Some(2)
    );
}
