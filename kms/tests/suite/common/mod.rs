//! A daemon of the test's own, and calls of its API.
#![allow(unreachable_pub)]

pub mod machine;
pub mod mounted;
pub mod users;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection};

pub const MIB: u64 = 1 << 20;

/// The program `sealctl`, which is another package's: built beside the daemon, with the tests of the whole workspace too.
pub fn sealctl() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_sealblk-kms")).with_file_name("sealctl");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build` first",
        path.display()
    );
    path
}

pub struct Kms {
    pub directory: tempfile::TempDir,
    pub daemon: Option<Child>,
    /// Further options of `serve`.
    pub options: Vec<String>,
    behaviour: String,
}

/// Ends the daemon, and then the backends, which outlive it on purpose.
impl Drop for Kms {
    fn drop(&mut self) {
        let pids = self.backends();
        self.kill();
        for pid in pids {
            kill(pid, "KILL");
        }
    }
}

impl Kms {
    /// Initialised, not activated, with backends that do as sealblk does.
    pub fn start() -> Self {
        Self::with_backend("sealblk")
    }

    /// As [`Kms::start`], and activated.
    pub fn active() -> Self {
        Self::active_with_backend("sealblk")
    }

    pub fn active_with_backend(behaviour: &str) -> Self {
        let kms = Self::with_backend(behaviour);
        assert_eq!(kms.post("/v1/kms/activate", json!({})).0, 200);
        kms
    }

    /// With backends that behave as the example `fake_backend` says.
    pub fn with_backend(behaviour: &str) -> Self {
        Self::initialised(behaviour, &[])
    }

    /// Of this profile, not activated, and with a balance in micro-units.
    pub fn of_profile(profile: &str, balance: u64) -> Self {
        let balance = balance.to_string();
        Self::initialised("sealblk", &["--profile", profile, "--balance", &balance])
    }

    fn initialised(behaviour: &str, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Backends of a root daemon have users of their own and must come through.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let mut kms = Kms {
            directory,
            daemon: None,
            options: Vec::new(),
            behaviour: behaviour.to_owned(),
        };
        kms.behave(behaviour);
        let output = kms.run(&[&["init", "--region", "eu-1"], options].concat());
        assert!(output.status.success(), "{output:?}");
        kms.serve();
        kms
    }

    /// From now on backends behave so.
    pub fn behave(&mut self, behaviour: &str) {
        let fake = Path::new(env!("CARGO_BIN_EXE_sealblk-kms"))
            .with_file_name("examples")
            .join("fake_backend");
        assert!(
            fake.is_file(),
            "build the examples of this package first: {}",
            fake.display()
        );
        let link = self.directory.path().join(behaviour);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(fake, link).unwrap();
        self.behaviour = behaviour.to_owned();
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .canonicalize()
            .unwrap()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealblk-kms"));
        command.args(words);
        if !words.contains(&"--state") {
            command.arg("--state").arg(self.state());
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program on this state directory, to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        finish(&mut self.command(words))
    }

    /// Runs the program, which must fail with this code.
    pub fn fails(&self, words: &[&str], code: &str) {
        let output = self.run(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("error: {code}")), "{text}");
    }

    /// Starts the daemon and waits until it says that it serves.
    pub fn serve(&mut self) {
        assert!(self.daemon.is_none());
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"));
        let mut daemon = self
            .command(&["serve", "--sealblk", &self.path(&self.behaviour)])
            .args(&self.options)
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.starts_with("sealblk-kms serves"), "{line}{}", self.log());
        self.daemon = Some(daemon);
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// As by a crash.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Another daemon, after a crash.
    pub fn restart(&mut self) {
        self.kill();
        self.serve();
    }

    /// As [`Kms::restart`], whose backends behave so.
    pub fn restart_with(&mut self, behaviour: &str) {
        self.kill();
        self.behave(behaviour);
        self.serve();
    }

    /// As by systemd. Its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().unwrap();
        kill(daemon.id() as i64, "TERM");
        daemon.wait().unwrap().code()
    }

    /// Process ids of the backends.
    pub fn backends(&self) -> Vec<i64> {
        let run = self.state().join("run");
        let needle = run.to_str().unwrap().as_bytes().to_owned();
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if line.windows(needle.len()).any(|window| window == needle) {
                pids.push(pid);
            }
        }
        pids
    }

    /// Calls the API: status and body.
    pub fn call(&self, method: &str, path: &str, body: Option<&[u8]>) -> (u16, Value) {
        self.try_call(method, path, body).expect("no answer")
    }

    /// As [`Kms::call`]; nothing if the daemon dies before it answers.
    pub fn try_call(&self, method: &str, path: &str, body: Option<&[u8]>) -> Option<(u16, Value)> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n");
        if let Some(body) = body {
            head += &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            );
        }
        self.try_send(&[head.as_bytes(), b"\r\n", body.unwrap_or_default()].concat())
    }

    /// Sends bytes to the API's socket and reads what comes back.
    pub fn send(&self, bytes: &[u8]) -> (u16, Value) {
        self.try_send(bytes).expect("no answer")
    }

    /// As [`Kms::send`]; nothing comes back if the daemon dies before it answers.
    pub fn try_send(&self, bytes: &[u8]) -> Option<(u16, Value)> {
        let mut stream = UnixStream::connect(self.state().join("kms.sock")).ok()?;
        // The daemon may answer and hang up before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8(answer).unwrap();
        let status = text.split(' ').nth(1)?.parse().unwrap();
        let body = text
            .split_once("\r\n\r\n")
            .map(|(_, body)| body)
            .unwrap_or_default();
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, Some(body.to_string().as_bytes()))
    }

    pub fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("PATCH", path, Some(body.to_string().as_bytes()))
    }

    /// A post that must succeed.
    pub fn make(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert!(
            (200..=202).contains(&status),
            "{path}: {status} {answer}\n{}",
            self.log()
        );
        answer
    }

    /// A post that must be refused so.
    pub fn refuses(&self, path: &str, body: Value, code: &str, rule: Option<&str>) -> Value {
        let (status, answer) = self.post(path, body);
        refused(status, &answer, code, rule);
        answer
    }

    pub fn disk(&self, name: &str) -> Value {
        self.make("/v1/disks", json!({"name": name, "size": MIB, "store": "raw"}))
    }

    /// A disk that can have snapshots.
    pub fn layered(&self, name: &str) -> Value {
        self.make("/v1/disks", json!({"name": name, "size": MIB}))
    }

    /// One that is not encrypted.
    pub fn plain(&self, name: &str) -> Value {
        let body = json!({"name": name, "size": MIB, "encrypted": false});
        self.make("/v1/disks", body)
    }

    pub fn snapshot(&self, disk: &str, name: &str) -> Value {
        self.make("/v1/snapshots", json!({"disk": disk, "name": name}))
    }

    pub fn delete(&self, path: &str) -> Value {
        let (status, answer) = self.call("DELETE", path, None);
        assert_eq!(status, 200, "{path}: {answer}\n{}", self.log());
        answer
    }

    /// What the fake backend has written into a layered store.
    pub fn store(&self, disk: &Value) -> Value {
        serde_json::from_slice(&std::fs::read(self.store_path(disk)).unwrap()).unwrap()
    }

    /// Where a disk's store lies in the state directory.
    pub fn store_path(&self, disk: &Value) -> PathBuf {
        self.state().join("disks").join(disk["id"].as_str().unwrap())
    }

    /// The changes that were made to a layered store, without their ids.
    pub fn changes(&self, disk: &Value) -> Vec<String> {
        let log = self.store(disk)["log"].as_array().unwrap().clone();
        let word = |line: &Value| {
            line.as_str()
                .unwrap()
                .split([' ', '{'])
                .next()
                .unwrap()
                .to_owned()
        };
        log.iter().map(word).collect()
    }

    pub fn instance(&self, name: &str) -> Value {
        self.make("/v1/instances", json!({"name": name}))
    }

    pub fn attach(&self, disk: &str, instance: &str) -> Value {
        self.make("/v1/attachments", json!({"disk": disk, "instance": instance}))
    }

    /// How many metered calls of a kind there were.
    pub fn usage(&self, kind: &str) -> u64 {
        let usage = self.get("/v1/usage");
        let rows = usage["usage"].as_array().unwrap().iter();
        rows.filter(|row| row["kind"] == kind)
            .map(|row| row["calls"].as_u64().unwrap())
            .sum()
    }

    /// Decisions in the audit log on a call, in order, each with its code.
    pub fn audit(&self, call: &str) -> Vec<(String, String)> {
        let audit = self.get("/v1/audit?limit=1000");
        let records = audit["audit"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|record| record["call"] == call);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        records
            .map(|record| (text(&record["decision"]), text(&record["code"])))
            .collect()
    }

    /// Waits until `holds`.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let patience = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < patience, "{what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A number from the catalogue.
    pub fn query(&self, statement: &str) -> i64 {
        let value = sqlx::query_scalar(AssertSqlSafe(statement.to_owned()));
        self.in_catalogue(async |db| value.fetch_one(db).await.unwrap())
    }

    /// Bytes from the catalogue.
    pub fn blob(&self, statement: &str) -> Vec<u8> {
        let value = sqlx::query_scalar(AssertSqlSafe(statement.to_owned()));
        self.in_catalogue(async |db| value.fetch_one(db).await.unwrap())
    }

    fn in_catalogue<T>(&self, ask: impl AsyncFnOnce(&mut SqliteConnection) -> T) -> T {
        let options = SqliteConnectOptions::new().filename(self.state().join("catalogue.db"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let mut db = SqliteConnection::connect_with(&options).await.unwrap();
            let answer = ask(&mut db).await;
            db.close().await.unwrap();
            answer
        })
    }

    /// The digest of the key that the attachment's backend, which `tells-key`, was given.
    pub fn given_key(&self, attachment: &Value) -> String {
        let directory = self.state().join("run").join(attachment["id"].as_str().unwrap());
        let files = std::fs::read_dir(directory).unwrap().flatten();
        let texts = files.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        let lines: Vec<_> = texts
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        lines.into_iter().rfind(|line| line.starts_with("key ")).unwrap()
    }

    /// Changes the catalogue behind the daemon's back, which must not be running.
    pub fn tamper(&self, statement: &str) {
        assert!(self.daemon.is_none());
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        self.in_catalogue(async |db| statement.execute(db).await.unwrap());
    }
}

pub fn refused(status: u16, answer: &Value, code: &str, rule: Option<&str>) {
    assert!(status >= 400, "{status} {answer}");
    assert_eq!(
        (answer["code"].as_str(), answer["rule"].as_str()),
        (Some(code), rule),
        "{answer}"
    );
    assert!(!answer["message"].as_str().unwrap().is_empty());
}

/// Runs a program that says little to its end, which must come soon.
pub fn finish(command: &mut Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > patience {
            child.kill().unwrap();
            panic!("it does not end: {command:?} {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

pub fn kill(pid: i64, signal: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
}

pub fn is_alive(pid: i64) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}
