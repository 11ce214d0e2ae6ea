//! `sealctl` and a daemon of an earlier version.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

/// What `disk delete` asks of a daemon with this state, and what comes of it.
fn delete(status: &str, words: &[&str]) -> (Vec<String>, Output) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{status}",
        status.len()
    );
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut asked = Vec::new();
        for line in lines.map_while(Result::ok) {
            if line.is_empty() {
                stream.write_all(answer.as_bytes()).unwrap();
            } else if line.ends_with(" HTTP/1.1") {
                asked.push(line.trim_end_matches(" HTTP/1.1").to_owned());
            }
        }
        asked
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealctl"));
    command
        .arg("--socket")
        .arg(&socket)
        .args(["disk", "delete", "data"]);
    let output = command.args(words).output().unwrap();
    (daemon.join().unwrap(), output)
}

/// It does not know the days, and would delete the disk at once.
#[test]
fn a_daemon_without_a_bin_is_not_asked_to_keep_a_disk_there() {
    let old = r#"{"id": "kms-1", "name": "r", "region": "r", "zone": "z", "profile": "sealblk", "account": "default",
        "state": "active", "root_key": "file", "root_key_note": null, "version": "0.0.9", "disks": 1, "attached": 0,
        "instances": 0, "warnings": []}"#;
    let (asked, output) = delete(old, &["--retention", "9"]);
    assert_eq!(asked, ["GET /v1/kms"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("0.0.9") && told.contains("--now"), "{told}");
    let new = old.replacen('{', r#"{"bin": {"disks": 0, "allocated": 0},"#, 1);
    let (asked, _) = delete(&new, &["--retention", "9"]);
    assert_eq!(asked, ["GET /v1/kms", "DELETE /v1/disks/data?retention_days=9"]);
    let (asked, _) = delete(old, &["--now", "--yes"]);
    assert_eq!(asked, ["DELETE /v1/disks/data?retention_days=0"]);
}
