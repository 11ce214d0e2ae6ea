//! A09: a disk comes to a virtual machine that runs, and goes from it, by one command each.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use sealblk_e2e::frontend::Guest;
use serde_json::{Value, json};

use crate::scene::{mark, marked, with_disk};

/// A played QEMU whose guest marks each disk that it is given.
fn machine(socket: &str) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut chardev, mut device): (Option<Value>, Option<(Value, Guest)>) = (None, None);
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = stream.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
            for line in lines.map_while(Result::ok) {
                let command: Value = serde_json::from_str(&line).unwrap();
                let arguments = &command["arguments"];
                let answer = match command["execute"].as_str().unwrap() {
                    "query-version" => json!({"qemu": {"major": 7, "minor": 2, "micro": 0}}),
                    "query-named-block-nodes" => json!([]),
                    "qom-list" => {
                        let listed = |(id, _): &(Value, Guest)| json!({"name": id, "type": "child<device>"});
                        json!(device.iter().map(listed).collect::<Vec<_>>())
                    }
                    "query-chardev" => {
                        let listed = |added: &Value| json!({"label": added["id"]});
                        json!(chardev.iter().map(listed).collect::<Vec<_>>())
                    }
                    "chardev-add" => {
                        chardev = Some(arguments.clone());
                        json!({})
                    }
                    "device_add" => {
                        let data = &chardev.as_ref().unwrap()["backend"]["data"];
                        let path = data["addr"]["data"]["path"].as_str().unwrap();
                        let mut guest = Guest::connect(Path::new(path));
                        mark(&mut guest, 9);
                        device = Some((arguments["id"].clone(), guest));
                        json!({})
                    }
                    "device_del" => {
                        device = None;
                        json!({})
                    }
                    "chardev-remove" => {
                        chardev = None;
                        json!({})
                    }
                    _ => json!({}),
                };
                let _ = stream.write_all(format!("{}\r\n", json!({"return": answer})).as_bytes());
            }
        }
    });
}

#[test]
fn rule_a09_a_disk_is_plugged_into_a_machine_that_runs_and_taken_out() {
    let kms = with_disk();
    let refused = |words: &[&str]| kms.refused(words, "MachineNotRunning", Some("A09"));
    refused(&["attach", "data", "vm", "--plug"]);
    let socket = kms.path_text("machine");
    kms.ok(&["instance", "set", "vm", "--vm-socket", &socket]);
    refused(&["attach", "data", "vm", "--plug"]);
    assert_eq!(
        (&kms.disk("data")["state"], kms.metered("attach")),
        (&json!("available"), 0)
    );
    machine(&socket);
    for _ in 0..2 {
        let attachment = kms.ok(&["attach", "data", "vm", "--plug"]);
        assert_eq!(attachment["plugged"], true);
        kms.refused(&["detach", "data"], "FrontendConnected", None);
        kms.ok(&["detach", "data", "--unplug"]);
        assert_eq!(kms.disk("data")["state"], "available");
    }
    assert_eq!((kms.metered("attach"), kms.metered("detach")), (2, 2));
    // What its guest has written.
    let attachment = kms.ok(&["attach", "data", "vm"]);
    assert_eq!(attachment["plugged"], false);
    let written = marked(&mut Guest::connect(Path::new(
        attachment["socket"].as_str().unwrap(),
    )));
    assert_eq!(written, 9);
}
