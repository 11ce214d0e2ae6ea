//! The client against a server that answers from a script.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::*;

/// Answers each request on one connection with the next of `answers`; gives back the requests.
fn server(listener: UnixListener, answers: Vec<String>) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut requests = Vec::new();
        for answer in answers {
            requests.push(read_request(&mut stream));
            stream.write_all(answer.as_bytes()).unwrap();
        }
        requests
    })
}

fn read_request(stream: &mut impl Read) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let head = String::from_utf8(request.clone()).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn key(id: &str) -> Value {
    json!({"id": id, "name": id, "origin": "service", "state": "Enabled", "region": "r", "version": 1,
        "algorithm": "AES-256-GCM", "disks": 0, "aliases": [], "tags": {}, "created": "2026-01-01T00:00:00Z"})
}

struct Script {
    _directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    client: Client,
    server: JoinHandle<Vec<String>>,
}

fn script(answers: Vec<String>) -> Script {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.sock");
    let server = server(UnixListener::bind(&path).unwrap(), answers);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = runtime.block_on(Client::connect(&path)).unwrap();
    Script {
        _directory: directory,
        runtime,
        client,
        server,
    }
}

fn connect_code(path: &Path) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime.block_on(Client::connect(path)).unwrap_err();
    error.code().to_owned()
}

#[test]
fn lists_are_followed_to_their_end_over_one_connection() {
    let pages = vec![
        http(
            "200 OK",
            &json!({"keys": [key("key-a")], "next": "key-a"}).to_string(),
        ),
        http(
            "200 OK",
            &json!({"keys": [key("key-b")], "next": "key-b"}).to_string(),
        ),
        http("200 OK", &json!({"keys": [key("key-c")]}).to_string()),
    ];
    let mut script = script(pages);
    let list: KeyList = script.runtime.block_on(script.client.list("/v1/keys")).unwrap();
    let ids: Vec<&str> = list.keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(ids, ["key-a", "key-b", "key-c"]);
    assert!(list.next.is_none());
    let requests = script.server.join().unwrap();
    assert!(
        requests[0].starts_with("GET /v1/keys?limit=1000 HTTP/1.1\r\n"),
        "{}",
        requests[0]
    );
    assert!(
        requests[2].starts_with("GET /v1/keys?after=key-b&limit=1000 "),
        "{}",
        requests[2]
    );
}

#[test]
fn a_list_that_does_not_advance_is_an_error() {
    let page = http(
        "200 OK",
        &json!({"keys": [key("key-a")], "next": "key-a"}).to_string(),
    );
    let mut script = script(vec![page.clone(), page]);
    let listed = script.runtime.block_on(script.client.list::<KeyList>("/v1/keys"));
    assert_eq!(listed.unwrap_err().code(), "ProtocolError");
}

#[test]
fn a_body_is_sent_as_json() {
    let mut script = script(vec![http("201 Created", "{\"id\":\"x\"}")]);
    let body = json!({"name": "d"});
    let post = script.client.post::<Value>("/v1/disks", &body, Patience::Change);
    assert_eq!(script.runtime.block_on(post).unwrap(), json!({"id": "x"}));
    let request = &script.server.join().unwrap()[0];
    assert!(request.starts_with("POST /v1/disks HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("content-type: application/json\r\n"),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\n{\"name\":\"d\"}"), "{request}");
}

#[test]
fn refusals_are_handed_on() {
    let body = json!({"code": "LocalStorage", "rule": "A03", "message": "no"}).to_string();
    let mut script = script(vec![http("409 Conflict", &body)]);
    let refused = script.runtime.block_on(script.client.get::<Value>("/v1/kms"));
    let ClientError::Refused(error) = refused.unwrap_err() else {
        panic!("not a refusal")
    };
    assert_eq!(
        (error.code.as_str(), error.rule.as_deref()),
        ("LocalStorage", Some("A03"))
    );
}

#[test]
fn other_servers_answers_are_protocol_errors() {
    for answer in [
        http("200 OK", "hello"),
        http("502 Bad Gateway", "<html>"),
        http("200 OK", "{\"keys\": 1}"),
    ] {
        let mut script = script(vec![answer.clone()]);
        let result = script.runtime.block_on(script.client.get::<KeyList>("/v1/keys"));
        assert_eq!(result.unwrap_err().code(), "ProtocolError", "{answer}");
    }
    for answer in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let mut script = script(vec![answer.to_owned()]);
        let result = script.runtime.block_on(script.client.get::<Value>("/v1/kms"));
        assert_eq!(result.unwrap_err().code(), "ConnectionFailed", "{answer}");
    }
}

#[test]
fn an_endless_answer_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while stream.write_all(&[b' '; 65536]).is_ok() {}
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut client = runtime.block_on(Client::connect(&path)).unwrap();
    let error = runtime.block_on(client.get::<Value>("/v1/kms")).unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
    drop((client, runtime));
    server.join().unwrap();
}

#[test]
fn a_daemon_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.sock");
    assert_eq!(connect_code(&path), "KmsNotRunning");
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(connect_code(&path), "KmsNotRunning");
    assert_eq!(connect_code(Path::new(&"x".repeat(200))), "InvalidSocket");
    let denied = connect_error(&path, io::Error::from(io::ErrorKind::PermissionDenied));
    assert_eq!(denied.code(), "PermissionDenied");
}

#[test]
fn waiting_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let wait = in_time(Some(Duration::from_millis(1)), std::future::pending::<()>());
    assert_eq!(runtime.block_on(wait).unwrap_err().code(), "KmsTimeout");
}

#[test]
fn names_cannot_leave_their_path_segment() {
    assert_eq!(route(&["disks", "data-1.x_~"]), "/v1/disks/data-1.x_~");
    assert_eq!(
        route(&["disks", "a/../b?c#é d"]),
        "/v1/disks/a%2F..%2Fb%3Fc%23%C3%A9%20d"
    );
    assert_eq!(route(&["disks", "..", "detach"]), "/v1/disks/%2E%2E/detach");
}
