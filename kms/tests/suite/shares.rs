//! How much of the API each user has: nobody keeps others from being served.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::{Kms, Value, json};
use rustix::process::Uid;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

/// Users of the tests; they need no entry anywhere.
const BUSY: u32 = 1_800_000_001;
const OTHER: u32 = 1_800_000_002;
const STRANGER: u32 = 65534;

/// Far below the ten seconds after which the daemon gives up a connection that says nothing.
const SOON: Duration = Duration::from_secs(5);

fn with_accounts() -> Option<Kms> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can call as other users");
        return None;
    }
    let mut kms = Kms::start();
    kms.kill();
    let entry = |uid, account| json!({"uid": uid, "account": account, "roles": ["operator"]});
    let principals = [entry(BUSY, "acme"), entry(OTHER, "beta")];
    let file = kms.path("accounts.json");
    std::fs::write(&file, json!({"principals": principals}).to_string()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    kms.options = ["--accounts", &file, "--socket-mode", "0666"]
        .map(str::to_owned)
        .to_vec();
    kms.serve();
    Some(kms)
}

fn socket(kms: &Kms) -> PathBuf {
    kms.state().join("kms.sock")
}

/// Runs `work` in a thread of its own, which belongs to this user, and waits for what comes of it.
fn as_user<T: Send + 'static>(
    uid: u32,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let uid = Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let _ = sender.send(work());
    });
    receiver.recv_timeout(patience).ok()
}

/// Connections of this user, as many as can be made, each of which says this.
fn connections(kms: &Kms, uid: u32, count: usize, words: &'static [u8]) -> Vec<UnixStream> {
    let socket = socket(kms);
    let made = as_user(uid, SOON, move || {
        let connect = |_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            // Those that were refused are closed already.
            let _ = stream.write_all(words);
            stream
        };
        (0..count).map(connect).collect()
    });
    made.expect("connections are not taken")
}

/// Status and body of a call that is made at once; nothing if it is not answered soon.
fn call(kms: &Kms, uid: u32) -> Option<(u16, Value)> {
    call_within(kms, uid, SOON)
}

fn call_within(kms: &Kms, uid: u32, patience: Duration) -> Option<(u16, Value)> {
    let socket = socket(kms);
    as_user(uid, patience, move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        // Who is refused may be answered before.
        let _ = stream.write_all(b"GET /v1/disks HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n\r\n");
        answer(&mut stream)
    })
}

fn answer(stream: &mut UnixStream) -> (u16, Value) {
    let mut answer = Vec::new();
    // Who is refused may be reset after the answer.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("no answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
    let id = id.unwrap_or_else(|| panic!("an answer without its request's id: {head}"));
    assert!(status == 200 || body["request"] == id, "{body}");
    (status, body)
}

fn assert_served(kms: &Kms, uid: u32) {
    let (status, body) = call(kms, uid).unwrap_or_else(|| panic!("uid {uid} is not served"));
    assert_eq!(status, 200, "{body}");
}

#[test]
fn half_requests_of_strangers_disturb_nobody() {
    let Some(kms) = with_accounts() else { return };
    let strangers = connections(&kms, STRANGER, 400, b"GET /v");
    for uid in [0, OTHER, BUSY] {
        assert_served(&kms, uid);
    }
    // Each is told why, and hung up on, without having to say more.
    for mut stream in strangers {
        let (status, body) = answer(&mut stream);
        assert_eq!(
            (status, body["code"].as_str()),
            (403, Some("NotAuthorized")),
            "{body}"
        );
    }
    // Nor do those who say nothing at all.
    let silent = connections(&kms, STRANGER, 400, b"");
    for uid in [0, OTHER, STRANGER] {
        assert!(call(&kms, uid).is_some());
    }
    drop(silent);
}

#[test]
fn a_user_with_many_connections_leaves_room_for_others() {
    let Some(kms) = with_accounts() else { return };
    let mut busy = connections(&kms, BUSY, 400, b"GET /v");
    for uid in [0, OTHER] {
        assert_served(&kms, uid);
    }
    // What is more than can wait is refused, and the rest is served when there is room again.
    let (status, body) = answer(busy.last_mut().unwrap());
    assert_eq!((status, body["code"].as_str()), (429, Some("TooManyCalls")));
    drop(busy);
    kms.until("it is served again", || {
        call(&kms, BUSY).is_some_and(|(status, _)| status == 200)
    });
}

/// What the caller has asked for goes on when it has hung up, and so it keeps its place.
#[test]
fn who_hangs_up_has_its_place_until_the_call_has_ended() {
    let Some(kms) = with_accounts() else { return };
    let held = Held::catalogue(&kms);
    let create = b"POST /v1/instances HTTP/1.1\r\nHost: kms\r\nContent-Length: 13\r\n\r\n{\"name\":\"vm\"}";
    let callers = connections(&kms, BUSY, 32, create);
    let is_answered = || call_within(&kms, BUSY, Duration::from_millis(500)).is_some();
    kms.until("all places are taken", || !is_answered());
    drop(callers);
    assert!(!is_answered());
    for uid in [0, OTHER] {
        assert_served(&kms, uid);
    }
    drop(held);
    assert_served(&kms, BUSY);
}

/// The catalogue's write lock, so that no change is decided.
struct Held {
    runtime: tokio::runtime::Runtime,
    db: Option<SqliteConnection>,
}

impl Held {
    fn catalogue(kms: &Kms) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let options = SqliteConnectOptions::new().filename(kms.state().join("catalogue.db"));
        let db = runtime.block_on(async {
            let mut db = SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut db).await.unwrap();
            db
        });
        Held {
            runtime,
            db: Some(db),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            self.runtime.block_on(db.close()).unwrap();
        }
    }
}

#[test]
fn a_stranger_that_asks_for_much_is_told_what_is_wrong() {
    let Some(kms) = with_accounts() else { return };
    let socket = socket(&kms);
    let told = as_user(STRANGER, SOON, move || {
        let mut stream = UnixStream::connect(Path::new(&socket)).unwrap();
        let body = [b' '; 60_000];
        let head = format!(
            "POST /v1/disks HTTP/1.1\r\nHost: kms\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        start
    });
    assert_eq!(
        told.as_ref().map(<[u8; 12]>::as_slice),
        Some(&b"HTTP/1.1 403"[..])
    );
}
