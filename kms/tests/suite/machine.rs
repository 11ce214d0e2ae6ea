//! Rule A03 on virtual machines that run: played ones, and QEMU where it is installed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Kms, MIB, Value, json};

/// A played virtual machine; it counts who asks what it can write to.
struct Machine {
    asked: Arc<AtomicUsize>,
}

impl Machine {
    fn serve(socket: &str, answer: impl Fn(UnixStream) + Send + 'static) {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    }

    fn qmp(socket: &str, nodes: Value) -> Self {
        Self::qmp_of((7, 2), socket, nodes)
    }

    /// Of this version.
    fn qmp_of((major, minor): (u16, u16), socket: &str, nodes: Value) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        Self::serve(socket, move |mut stream| {
            let commands = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = stream.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
            for command in commands.map_while(Result::ok) {
                let command: Value = serde_json::from_str(&command).unwrap();
                let answer = match command["execute"].as_str().unwrap() {
                    "qmp_capabilities" => json!({}),
                    "query-version" => json!({"qemu": {"major": major, "minor": minor, "micro": 1}}),
                    "query-named-block-nodes" => {
                        counter.fetch_add(1, Ordering::SeqCst);
                        nodes.clone()
                    }
                    other => panic!("{other}"),
                };
                let _ = stream.write_all(format!("{}\r\n", json!({"return": answer})).as_bytes());
            }
        });
        Machine { asked }
    }

    fn cloud_hypervisor(socket: &str, config: Value) {
        let body = json!({"config": config, "state": "Running"}).to_string();
        let answer = format!(
            "HTTP/1.1 200 \r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::serve(socket, move |mut stream| {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            if request[..read].starts_with(b"GET /api/v1/vm.info HTTP/1.1\r\n") {
                let _ = stream.write_all(answer.as_bytes());
            } else {
                let _ = stream.write_all(b"HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n");
            }
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn node(name: &str, driver: &str, file: &str, read_only: bool) -> Value {
    json!({"node-name": name, "drv": driver, "file": file, "ro": read_only, "cache": {}})
}

/// A daemon with an encrypted and a plain disk and an instance whose machine and boot disk lie at these paths.
fn world() -> (Kms, String, String) {
    let kms = Kms::active();
    kms.disk("secret");
    kms.make(
        "/v1/disks",
        json!({"name": "plain", "size": MIB, "store": "raw", "encrypted": false}),
    );
    let (socket, boot) = (kms.path("machine"), kms.path("boot.raw"));
    std::fs::write(&boot, [0; 4096]).unwrap();
    let instance = kms.make(
        "/v1/instances",
        json!({"name": "vm", "vm_socket": socket, "boot_disk": boot}),
    );
    assert_eq!(
        (&instance["vm_socket"], &instance["boot_disk"]),
        (&json!(socket), &json!(boot))
    );
    assert_eq!(kms.get("/v1/instances/vm"), instance);
    (kms, socket, boot)
}

fn attach(disk: &str) -> Value {
    json!({"disk": disk, "instance": "vm"})
}

/// Refused, with nothing changed, and recorded so.
fn refuses(kms: &Kms, code: &str, words: &str) {
    let answer = kms.refuses("/v1/attachments", attach("secret"), code, Some("A03"));
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
    assert_eq!((kms.backends().len(), kms.usage("attach")), (0, 0));
    assert_eq!(kms.get("/v1/disks/secret")["state"], "available");
    let last = kms.audit("attach").pop().unwrap();
    assert_eq!(last, ("refused".to_owned(), code.to_owned()));
}

fn detach(kms: &Kms, disk: &str) {
    kms.make(&format!("/v1/disks/{disk}/detach"), json!({}));
}

#[test]
fn rule_a03_a_running_qemu_with_local_storage_is_refused() {
    let (kms, socket, boot) = world();
    let machine = Machine::qmp(
        &socket,
        json!([
            node("boot", "file", &boot, false),
            node("scratch", "file", "/scratch.raw", false)
        ]),
    );
    refuses(&kms, "LocalDevice", "/scratch.raw");
    kms.make("/v1/attachments", attach("plain"));
    assert_eq!(machine.asked(), 1, "a plain disk may go anywhere");
}

#[test]
fn rule_a03_a_running_qemu_with_its_boot_disk_and_nothing_else_is_allowed() {
    let (kms, socket, boot) = world();
    let machine = Machine::qmp(
        &socket,
        json!([
            node("top", "qcow2", &boot, false),
            node("boot", "file", &boot, false),
            node("iso", "file", "/install.iso", true),
            node("remote", "rbd", "rbd:pool/image", false)
        ]),
    );
    kms.make("/v1/attachments", attach("secret"));
    assert_eq!(machine.asked(), 1);
}

#[test]
fn rule_a03_a_running_cloud_hypervisor_is_asked() {
    let (kms, socket, boot) = world();
    kms.disk("first");
    kms.instance("other");
    let served = kms.attach("first", "other")["socket"].clone();
    let disks = |more: Value| {
        let mut disks = json!([
            {"path": boot, "readonly": false},
            {"path": null, "vhost_user": true, "vhost_socket": served},
            {"path": "/install.iso", "readonly": true}
        ]);
        disks.as_array_mut().unwrap().push(more);
        json!({"disks": disks, "pmem": null})
    };
    for (more, words) in [
        (json!({"path": "/scratch.raw"}), "/scratch.raw"),
        // Served, and not by us.
        (
            json!({"vhost_user": true, "vhost_socket": "/run/spdk.sock"}),
            "/run/spdk.sock",
        ),
    ] {
        Machine::cloud_hypervisor(&socket, disks(more));
        let body = attach("secret");
        let answer = kms.refuses("/v1/attachments", body, "LocalDevice", Some("A03"));
        assert!(answer["message"].as_str().unwrap().contains(words), "{answer}");
        std::fs::remove_file(&socket).unwrap();
    }
    Machine::cloud_hypervisor(&socket, disks(json!({"path": boot})));
    kms.make("/v1/attachments", attach("secret"));
}

#[test]
fn rule_a03_what_was_declared_counts_where_no_machine_runs() {
    let (kms, socket, _) = world();
    kms.make("/v1/attachments", attach("secret"));
    detach(&kms, "secret");
    // A machine that has died leaves its socket.
    drop(UnixListener::bind(&socket).unwrap());
    kms.make("/v1/attachments", attach("secret"));
    detach(&kms, "secret");
    let local = json!({"name": "local", "local_storage": true, "vm_socket": kms.path("none")});
    kms.make("/v1/instances", local);
    let body = json!({"disk": "secret", "instance": "local"});
    kms.refuses("/v1/attachments", body, "LocalStorage", Some("A03"));
}

#[test]
fn rule_a03_a_machine_that_does_not_say_what_it_has_is_refused() {
    let (kms, socket, _) = world();
    std::fs::write(&socket, "").unwrap();
    refuses(&kms, "MachineNotAsked", "no socket");
    std::fs::remove_file(&socket).unwrap();
    Machine::serve(&socket, |mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
    });
    refuses(&kms, "MachineNotAsked", "neither QMP nor");
    std::fs::remove_file(&socket).unwrap();
    Machine::qmp(&socket, json!({"no": "list"}));
    refuses(&kms, "MachineNotAsked", "not understood");
    std::fs::remove_file(&socket).unwrap();
    // Nothing at all; meanwhile other calls go on.
    Machine::serve(&socket, |stream| {
        let _kept = stream;
        loop {
            std::thread::park();
        }
    });
    std::thread::scope(|scope| {
        let silent = scope.spawn(|| refuses(&kms, "MachineNotAsked", "no answer"));
        let begun = Instant::now();
        kms.instance("another");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        silent.join().unwrap();
    });
}

#[test]
fn a_machine_is_not_asked_about_what_is_refused_anyhow() {
    let (kms, socket, _) = world();
    let machine = Machine::qmp(&socket, json!([]));
    kms.make("/v1/attachments", attach("secret"));
    kms.refuses(
        "/v1/attachments",
        attach("secret"),
        "AlreadyAttached",
        Some("D09"),
    );
    kms.refuses("/v1/attachments", attach("no"), "NotFound", None);
    assert_eq!(machine.asked(), 1);
}

/// Which form of `reconnect` is in arguments for QEMU, and for which version they are said to be.
fn form(arguments: &Value) -> (Option<&str>, &str) {
    let [args, disk] = ["qemu_args", "qemu_disk_args"].map(|name| arguments[name].as_str().unwrap());
    assert!(args.ends_with(disk), "{args} {disk}");
    let form = match (
        disk.contains(",reconnect=1 "),
        disk.contains(",reconnect-ms=1000 "),
    ) {
        (true, false) => "seconds",
        (false, true) => "milliseconds",
        _ => panic!("{disk}"),
    };
    (arguments["qemu_version"].as_str(), form)
}

#[test]
fn arguments_are_for_the_qemu_that_runs_or_is_asked_for() {
    let (kms, socket, _) = world();
    Machine::qmp_of((9, 1), &socket, json!([]));
    let attachment = kms.make("/v1/attachments", attach("secret"));
    assert_eq!(form(&attachment), (Some("9.1"), "seconds"));
    let path = format!("/v1/attachments/{}", attachment["id"].as_str().unwrap());
    let of_disk = |query: &str| kms.get(&format!("/v1/disks/secret{query}"))["attachments"][0].clone();
    assert_eq!(form(&kms.get(&path)), (Some("9.1"), "seconds"));
    assert_eq!(form(&of_disk("")), (Some("9.1"), "seconds"));
    // What is asked for counts more.
    let asked = kms.get(&format!("{path}?qemu_version=10.2.1"));
    assert_eq!(form(&asked), (Some("10.2"), "milliseconds"));
    assert_eq!(form(&of_disk("?qemu_version=11")), (Some("11.0"), "milliseconds"));
    // In lists nobody is asked.
    for (query, expected) in [
        ("", (None, "milliseconds")),
        ("?qemu_version=7.2&limit=5", (Some("7.2"), "seconds")),
    ] {
        let attachments = kms.get(&format!("/v1/attachments{query}"));
        assert_eq!(form(&attachments["attachments"][0]), expected);
        let disks = kms.get(&format!("/v1/disks{query}"));
        let disks = disks["disks"].as_array().unwrap();
        let secret = disks.iter().find(|disk| disk["name"] == "secret").unwrap();
        assert_eq!(form(&secret["attachments"][0]), expected);
    }
    detach(&kms, "secret");
    // A machine that is started later, and one that is no QEMU.
    std::fs::remove_file(&socket).unwrap();
    assert_eq!(
        form(&kms.make("/v1/attachments", attach("secret"))),
        (None, "milliseconds")
    );
    detach(&kms, "secret");
    Machine::cloud_hypervisor(&socket, json!({}));
    assert_eq!(
        form(&kms.make("/v1/attachments", attach("plain"))),
        (None, "milliseconds")
    );
    detach(&kms, "plain");
    let mut body = attach("plain");
    body["qemu_version"] = json!("9.1.3");
    assert_eq!(
        form(&kms.make("/v1/attachments", body.clone())),
        (Some("9.1"), "seconds")
    );
    detach(&kms, "plain");
    body["qemu_version"] = json!("new");
    kms.refuses("/v1/attachments", body, "InvalidRequest", None);
    let (status, refusal) = kms.call("GET", &format!("{path}?qemu_version=1.x"), None);
    assert_eq!((status, &refusal["code"]), (400, &json!("InvalidRequest")));
}

#[test]
fn paths_of_machines_are_absolute() {
    let kms = Kms::start();
    let long = format!("/{}", "x".repeat(107));
    for (field, path) in [
        ("vm_socket", "relative"),
        ("vm_socket", ""),
        ("vm_socket", &long),
        ("vm_socket", "/a\0b"),
        ("boot_disk", "boot.raw"),
    ] {
        let body = json!({"name": "vm", field: path});
        kms.refuses("/v1/instances", body, "InvalidPath", None);
    }
    assert_eq!(kms.get("/v1/instances")["instances"], json!([]));
}

/// QEMU itself, which ends with the test.
struct Qemu(Child);

impl Qemu {
    /// None if it is not installed.
    fn start(socket: &str, more: &[&str]) -> Option<Self> {
        let _ = std::fs::remove_file(socket);
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "q35,accel=tcg",
                "-m",
                "16M",
                "-nodefaults",
                "-display",
                "none",
                "-S",
            ])
            .args(["-qmp", &format!("unix:{socket},server=on,wait=off")])
            .args(more)
            .stdin(Stdio::null())
            .spawn();
        let qemu = Qemu(child.ok()?);
        let patience = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < patience, "QEMU does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(qemu)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn rule_a03_qemu_itself_is_asked() {
    let (kms, socket, boot) = world();
    let scratch = kms.path("scratch.raw");
    std::fs::write(&scratch, [0; 4096]).unwrap();
    let drive = |file: &str, more: &str| format!("if=none,format=raw,file={file}{more}");
    let (boot_drive, scratch_drive) = (drive(&boot, ""), drive(&scratch, ""));
    let boot_arguments = [
        "-drive",
        boot_drive.as_str(),
        "-device",
        "virtio-blk-pci,drive=none0",
    ];
    let with_scratch = [&boot_arguments[..], &["-drive", scratch_drive.as_str()]].concat();
    let read_only = drive(&scratch, ",readonly=on");
    let with_read_only = [&boot_arguments[..], &["-drive", read_only.as_str()]].concat();
    let temporary = drive(&scratch, ",snapshot=on");
    let blockdev = format!("driver=file,node-name=spare,filename={scratch}");
    for arguments in [
        with_scratch.as_slice(),
        &["-drive", temporary.as_str()],
        &["-blockdev", blockdev.as_str()],
    ] {
        let Some(_qemu) = Qemu::start(&socket, arguments) else {
            eprintln!("skipped: qemu-system-x86_64 is not installed");
            return;
        };
        refuses(&kms, "LocalDevice", "");
    }
    for arguments in [&[] as &[_], boot_arguments.as_slice(), with_read_only.as_slice()] {
        let _qemu = Qemu::start(&socket, arguments).unwrap();
        kms.make("/v1/attachments", attach("secret"));
        detach(&kms, "secret");
    }
}
