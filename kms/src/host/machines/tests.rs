//! Both kinds of machines and what they may say, played by threads of the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::*;

/// A socket on which each connection is answered by `serve`.
fn machine(serve: impl Fn(std::os::unix::net::UnixStream) + Send + 'static) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("machine");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream);
        }
    });
    (directory, path)
}

/// QMP that answers the commands so, one after the other.
fn qmp(answers: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
    machine(move |mut stream| {
        let mut commands = BufReader::new(stream.try_clone().unwrap()).lines();
        let _ = stream.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
        for answer in answers {
            if commands.next().is_none() {
                return;
            }
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.write_all(b"\r\n");
        }
    })
}

/// cloud-hypervisor that answers so.
fn api(answer: impl Fn() -> Vec<u8> + Send + 'static) -> (tempfile::TempDir, PathBuf) {
    machine(move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"GET /api/v1/vm.info HTTP/1.1\r\n"));
        let _ = stream.write_all(&answer());
    })
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn own() -> Rights {
    Rights::of(rustix::process::geteuid().as_raw())
}

async fn paths(socket: &Path) -> Vec<String> {
    let devices = writable_devices(socket, own()).await.unwrap().unwrap();
    devices.into_iter().map(|device| device.path).collect()
}

const NODES: &str = concat!(
    r#"{"event": "RESUME", "data": {}, "timestamp": {}}"#,
    "\r\n",
    r#"{"return": ["#,
    r#"{"node-name": "a", "drv": "qcow2", "file": "/a.qcow2", "ro": false},"#,
    r#"{"node-name": "b", "drv": "file", "file": "/a.qcow2", "ro": false, "image": {"filename": "/a.qcow2"}},"#,
    r#"{"node-name": "c", "drv": "file", "file": "/read-only.iso", "ro": true},"#,
    r#"{"node-name": "d", "drv": "rbd", "file": "rbd:pool/image", "ro": false},"#,
    r#"{"node-name": "e", "drv": "null-co", "file": "null-co://", "ro": false},"#,
    r#"{"node-name": "f", "drv": "nbd", "file": "nbd://host/export", "ro": false},"#,
    r#"{"node-name": "g", "drv": "nbd", "file": "nbd+unix:///export?socket=/s", "ro": false},"#,
    r#"{"node-name": "h", "drv": "host_device", "ro": false,"#,
    r#" "file": "json:{\"driver\": \"host_device\", \"filename\": \"/dev/x\"}"},"#,
    r#"{"node-name": "i", "drv": "of-the-future", "file": "", "ro": false}]}"#
);

#[tokio::test]
async fn qmp_tells_local_devices_that_can_be_written() {
    let (_directory, socket) = qmp(&[r#"{"return": {}}"#, NODES]);
    assert_eq!(
        paths(&socket).await,
        ["/a.qcow2", "nbd+unix:///export?socket=/s", "/dev/x", "i"]
    );
}

const VERSION: &str = concat!(
    r#"{"event": "RESUME", "data": {}}"#,
    "\r\n",
    r#"{"return": {"qemu": {"micro": 13, "minor": 0, "major": 10}, "package": "Debian 1:10.0.13"}}"#
);

#[tokio::test]
async fn qmp_tells_its_version() {
    let (_directory, socket) = qmp(&[r#"{"return": {}}"#, VERSION]);
    let version = qemu_version(&socket, own()).await.unwrap();
    assert_eq!(version, Some(QemuVersion { major: 10, minor: 0 }));
    for (answers, expected) in [
        (
            &[r#"{"return": {}}"#, r#"{"return": {}}"#] as &'static [&'static str],
            "Json(",
        ),
        (&[r#"{"error": {"desc": "no"}}"#], "Qmp(\"no\")"),
        (
            &[
                r#"{"return": {}}"#,
                r#"{"return": {"qemu": {"major": -1, "minor": 0}}}"#,
            ],
            "Json(",
        ),
    ] {
        let (_directory, socket) = qmp(answers);
        let error = format!("{:?}", qemu_version(&socket, own()).await.unwrap_err());
        assert!(error.starts_with(expected), "{answers:?}: {error}");
    }
}

#[tokio::test]
async fn who_is_no_qemu_has_no_version() {
    // As cloud-hypervisor answers a first line that is no HTTP.
    let (_directory, socket) = machine(|mut stream| {
        let mut line = String::new();
        let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
        assert!(line.ends_with("\r\n"), "{line:?}");
        let _ = stream.write_all(&http("400", "no"));
    });
    assert_eq!(qemu_version(&socket, own()).await.unwrap(), None);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(
        qemu_version(&directory.path().join("none"), own()).await.unwrap(),
        None
    );
    let (_directory, socket) = machine(|stream| {
        let _kept = stream;
        loop {
            std::thread::park();
        }
    });
    let error = qemu_version(&socket, own()).await.unwrap_err();
    assert!(matches!(error, MachineError::SilentOnVersion), "{error:?}");
}

#[tokio::test]
async fn qmp_may_be_slow_to_speak() {
    let (_directory, socket) = machine(|mut stream| {
        std::thread::sleep(2 * limits::MACHINE_GREETING_TIME);
        let _ = stream.write_all(b"{\"QMP\": {}}\r\n{\"return\": {}}\r\n{\"return\": []}\r\n");
        // A machine stays for as long as it is asked.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_eq!(writable_devices(&socket, own()).await.unwrap(), Some(Vec::new()));
}

#[tokio::test]
async fn qmp_that_is_not_understood_is_no_answer() {
    for (answers, expected) in [
        (
            &[r#"{"error": {"class": "GenericError", "desc": "no"}}"#] as &'static [&'static str],
            "Qmp(\"no\")",
        ),
        (&[r#"{"return": {}}"#, r#"{"return": {}}"#], "Json("),
        (
            &[r#"{"return": {}}"#, r#"{"return": [{"drv": "file"}]}"#],
            "Json(",
        ),
        (&[r#"{"return": {}}"#, r#"{}"#], "Foreign"),
        (&[r#"{"return": {}}"#, "{"], "Json("),
        (&[r#"{"return": {}}"#], "Ended"),
        (&[], "Ended"),
    ] {
        let (_directory, socket) = qmp(answers);
        let error = format!("{:?}", writable_devices(&socket, own()).await.unwrap_err());
        // A machine that hangs up early may break the pipe instead.
        let broken = expected == "Ended" && error.starts_with("Connection(");
        assert!(error.starts_with(expected) || broken, "{answers:?}: {error}");
    }
    for words in ["SSH-2.0-OpenSSH\r\n", "{}\r\n", "[1]\r\n", "{\"QMP\": null}\r\n"] {
        let (_directory, socket) = machine(move |mut stream| {
            let _ = stream.write_all(words.as_bytes());
        });
        let error = writable_devices(&socket, own()).await.unwrap_err();
        assert!(matches!(error, MachineError::Foreign), "{words:?}: {error:?}");
    }
}

#[tokio::test]
async fn answers_without_end_are_cut() {
    let (_directory, socket) = machine(|mut stream| while stream.write_all(&[b' '; 4096]).is_ok() {});
    let error = writable_devices(&socket, own()).await.unwrap_err();
    assert!(matches!(error, MachineError::TooLarge), "{error:?}");
    // In small lines, too.
    let (_directory, socket) = machine(|mut stream| {
        let _ = stream.write_all(b"{\"QMP\": {}}\n");
        while stream.write_all(b"{\"event\": \"RESET\"}\n").is_ok() {}
    });
    let error = writable_devices(&socket, own()).await.unwrap_err();
    assert!(matches!(error, MachineError::TooLarge), "{error:?}");
    let (_directory, socket) = api(|| http("200", &" ".repeat(limits::MACHINE_ANSWER_BYTES + 1)));
    let error = writable_devices(&socket, own()).await.unwrap_err();
    assert!(matches!(error, MachineError::TooLarge), "{error:?}");
}

#[tokio::test]
async fn cloud_hypervisor_tells_disks_that_can_be_written() {
    let info = r#"{"config": {"cpus": {}, "disks": [
        {"path": "/boot.raw", "readonly": false, "id": "_disk0"},
        {"path": "/config.iso", "readonly": true},
        {"path": null, "vhost_user": true, "vhost_socket": "/run/vhost.sock", "id": "_disk2"},
        {"path": "/also", "vhost_user": false, "vhost_socket": "/ignored"}],
      "pmem": [{"file": "/pmem"}, {"file": "/root.img", "discard_writes": true}], "net": null}, "state": "Running"}"#;
    let (_directory, socket) = api(move || http("200", info));
    let device = |path: &str, vhost_socket: Option<&str>| Device {
        path: path.to_owned(),
        vhost_socket: vhost_socket.map(str::to_owned),
    };
    assert_eq!(
        writable_devices(&socket, own()).await.unwrap().unwrap(),
        [
            device("/boot.raw", None),
            device("_disk2", Some("/run/vhost.sock")),
            device("/also", None),
            device("/pmem", None)
        ]
    );
    let (_directory, socket) = api(|| http("200", r#"{"config": {"disks": null}}"#));
    assert_eq!(writable_devices(&socket, own()).await.unwrap(), Some(Vec::new()));
    // Not made yet, in the words of old and new versions.
    for (status, body) in [
        (
            "404",
            r#"["Error from API","The VM info is not available","VM is not created"]"#,
        ),
        ("500", "ApiError(VmInfo(VmNotCreated))"),
    ] {
        let (_directory, socket) = api(move || http(status, body));
        assert_eq!(writable_devices(&socket, own()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn cloud_hypervisor_tells_devices_that_may_store() {
    let directory = tempfile::tempdir().unwrap();
    let host = |name: &str, class: Option<&str>| {
        let device = directory.path().join(name);
        std::fs::create_dir(&device).unwrap();
        if let Some(class) = class {
            std::fs::write(device.join("class"), class).unwrap();
        }
        device.to_str().unwrap().to_owned()
    };
    let nvme = host("nvme", Some("0x010802\n"));
    let network = host("network", Some("0x020000\n"));
    let unknown = host("unknown", None);
    let info = serde_json::json!({"config": {
        "generic_vhost_user": [
            {"socket": "/block", "device_type": 2, "queue_sizes": [128]},
            {"socket": "/network", "device_type": 1, "queue_sizes": [128]},
            {"socket": "/scsi", "device_type": 8, "queue_sizes": [128]}],
        "user_devices": [{"socket": "/vfio-user", "id": "_vfio_user4"}],
        "devices": [{"path": nvme, "id": "_vfio5"}, {"path": network}, {"path": unknown}]},
        "state": "Running"});
    let (_directory, socket) = api(move || http("200", &info.to_string()));
    let devices = writable_devices(&socket, own()).await.unwrap().unwrap();
    let paths: Vec<_> = devices.iter().map(|device| device.path.as_str()).collect();
    assert_eq!(
        paths,
        ["/block", "/scsi", "/vfio-user", nvme.as_str(), unknown.as_str()]
    );
    let sockets: Vec<_> = devices
        .iter()
        .filter_map(|device| device.vhost_socket.as_deref())
        .collect();
    assert_eq!(sockets, ["/block", "/scsi"], "to be compared with ours");
}

#[tokio::test]
async fn an_api_that_is_not_understood_is_no_answer() {
    for (answer, expected) in [
        (http("404", r#"["Not Found"]"#), "Status(404)"),
        (http("200", "{}"), "Json("),
        (http("200", r#"{"config": {"disks": 7}}"#), "Json("),
        // It may be QMP, and is waited for as such.
        (b"hello\r\n\r\n".to_vec(), "Silent"),
        (b"HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{".to_vec(), "Ended"),
        (Vec::new(), "Http("),
    ] {
        let (_directory, socket) = api(move || answer.clone());
        let error = format!("{:?}", writable_devices(&socket, own()).await.unwrap_err());
        assert!(error.starts_with(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn a_machine_that_says_nothing_is_not_waited_for_long() {
    let (_directory, socket) = machine(|stream| {
        let _kept = stream;
        loop {
            std::thread::park();
        }
    });
    let error = writable_devices(&socket, own()).await.unwrap_err();
    assert!(matches!(error, MachineError::Silent), "{error:?}");
}

#[tokio::test]
async fn a_machine_does_not_run_where_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("machine");
    assert_eq!(writable_devices(&path, own()).await.unwrap(), None);
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(
        writable_devices(&path, own()).await.unwrap(),
        None,
        "a stale socket"
    );
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    let error = writable_devices(&path, own()).await.unwrap_err();
    assert!(matches!(error, MachineError::NotASocket), "{error:?}");
}
