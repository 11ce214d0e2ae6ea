//! Calls of the API itself: sooner answered than `sealctl` is started, and with a limit to their patience.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::PATIENCE;
use crate::kms::Kms;

/// Status and body of the answer; the status is 0 if there is none within the tests' patience.
///
/// # Panics
/// If nobody listens.
pub fn call(socket: &Path, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).expect("the API's socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("its time-out");
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let sent = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
    let mut answer = String::new();
    if sent.is_err() || stream.read_to_string(&mut answer).is_err() {
        return (0, Value::Null);
    }
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    (status.unwrap_or(0), body)
}

/// The answer to a call that succeeds.
///
/// # Panics
/// If it does not.
pub fn succeeds(kms: &Kms, method: &str, path: &str, body: Option<Value>) -> Value {
    let (status, answer) = call(&kms.socket(), method, path, body);
    assert!(
        (200..=202).contains(&status),
        "{method} {path}: {status} {answer}"
    );
    answer
}

/// As [`call`], by another user. Only root can.
///
/// # Panics
/// If that is not permitted.
pub fn call_as(uid: u32, socket: &Path, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let answered = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            // Of this thread alone; the kernel tells the daemon who has connected.
            rustix::thread::set_thread_uid(rustix::thread::Uid::from_raw(uid)).expect("another user");
            call(socket, method, path, body)
        });
        caller.join()
    });
    answered.expect("the call's thread")
}
