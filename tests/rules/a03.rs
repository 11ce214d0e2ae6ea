//! A03: encrypted disks and local storage do not meet, where the profile says so.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms};
use sealblk_e2e::{eventually, process};
use serde_json::{Value, json};

use crate::scene::{Side, assert_side, audited, each, mark, marked};

#[test]
fn rule_a03_local_storage_is_refused_where_the_profile_says_so() {
    const REFUSED: Side = Err(("LocalStorage", "A03"));
    let table = [
        ("tencent-cbs", REFUSED),
        ("alibaba-ecs-classic", Ok(())),
        ("alibaba-ecs", Ok(())),
        ("huawei-evs", Ok(())),
        ("sealblk", REFUSED),
    ];
    each(table, |kms, side| {
        kms.ok(&["instance", "register", "local", "--local-storage"]);
        kms.ok(&["instance", "register", "vm"]);
        kms.create("plain", &["--encrypted=false"]);
        kms.create("data", &[]);
        kms.create("more", &[]);
        kms.ok(&["attach", "plain", "local"]);
        assert_side(kms, &["attach", "data", "local"], side);
        kms.ok(&["attach", "more", "vm"]);
        // Nor is it declared afterwards.
        assert_side(kms, &["instance", "set", "vm", "--local-storage"], side);
    });
}

/// A played QEMU that answers QMP with these nodes of its block layer.
fn machine(socket: &str, nodes: Arc<Mutex<Value>>) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = stream.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
            for line in lines.map_while(Result::ok) {
                let command: Value = serde_json::from_str(&line).unwrap();
                let answer = match command["execute"].as_str().unwrap() {
                    "query-named-block-nodes" => nodes.lock().unwrap().clone(),
                    "query-version" => json!({"qemu": {"major": 9, "minor": 2, "micro": 0}}),
                    _ => json!({}),
                };
                let _ = stream.write_all(format!("{}\r\n", json!({"return": answer})).as_bytes());
            }
        }
    });
}

/// The process that serves the disk is killed, and the next one serves.
fn restart(kms: &Kms) {
    let killed = kms.backend("data").unwrap();
    process::kill(killed);
    eventually("a new process", || {
        kms.backend("data").filter(|pid| *pid != killed)
    });
}

#[test]
fn rule_a03_local_storage_that_comes_later_is_an_alarm_and_takes_no_disk() {
    let kms = Kms::start();
    let [socket, silent] = ["machine", "silent"].map(|name| kms.path_text(name));
    let nodes = Arc::new(Mutex::new(json!([])));
    machine(&socket, Arc::clone(&nodes));
    for (name, socket, disk) in [("vm", &socket, "data"), ("hung", &silent, "other")] {
        kms.ok(&["instance", "register", name, "--vm-socket", socket]);
        kms.create(disk, &[]);
        kms.ok(&["attach", disk, name]);
    }
    // A machine that hangs keeps nobody from asking another.
    let _hung = UnixListener::bind(&silent).unwrap();
    let guest = || Guest::connect(kms::path(&kms.disk("data"), "socket"));
    mark(&mut guest(), 3);
    let status = || kms.ok(&["kms", "status"])["conditions"].to_string();
    let alarms = || audited(&kms, "machine.alarm", "failed");
    restart(&kms);
    assert!(!status().contains("LocalDeviceFound"));
    *nodes.lock().unwrap() =
        json!([{"node-name": "local", "drv": "file", "file": "/srv/scratch.img", "ro": false}]);
    restart(&kms);
    eventually("the alarm", || (alarms() == 1).then_some(()));
    assert!(status().contains("/srv/scratch.img") && status().contains("LocalDeviceFound"));
    assert_eq!(marked(&mut guest()), 3, "it goes on");
    // Said once, as long as it lasts.
    restart(&kms);
    *nodes.lock().unwrap() = json!([]);
    restart(&kms);
    eventually("its end", || {
        (!status().contains("LocalDeviceFound")).then_some(())
    });
    assert_eq!(alarms(), 1);
    // One that is off is none.
    std::fs::remove_file(&socket).unwrap();
    restart(&kms);
    assert_eq!((alarms(), marked(&mut guest())), (1, 3));
}
