//! Signals that must not end the serving process.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Bits of a signal set in `/proc/PID/status` (proc_pid_status(5)); none if the process has ended.
fn signals(process: &mut Child, field: &str) -> Option<u64> {
    if process.try_wait().unwrap().is_some() {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()
}

fn until(process: &mut Child, field: &str, signal: i32) {
    let patience = Instant::now() + Duration::from_secs(8);
    loop {
        let set = signals(process, field).expect("the process has ended");
        if set & (1 << (signal - 1)) != 0 {
            return;
        }
        assert!(Instant::now() < patience, "{field} {set:x}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The kernel sends it to a stopped process when the KMS that has started it ends.
#[test]
fn a_hangup_does_not_end_it() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "0".repeat(64)).unwrap();
    // It waits for the KMS's socket, with its signals as they stay.
    let mut process = Command::new(env!("CARGO_BIN_EXE_sealblk"))
        .args(["--attachment", "att-1", "--kms"])
        .arg(directory.path().join("kms.sock"))
        .arg("--token-file")
        .arg(&token)
        .spawn()
        .unwrap();
    until(&mut process, "SigBlk:", libc::SIGHUP);
    let hangup = Command::new("kill")
        .args(["-HUP", &process.id().to_string()])
        .status();
    assert!(hangup.unwrap().success());
    until(&mut process, "ShdPnd:", libc::SIGHUP);
    process.kill().unwrap();
    process.wait().unwrap();
}
