//! A running sealblk-kms with a state directory of its own.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries::binary;
use crate::outcome::Outcome;
use crate::process;
use crate::{PATIENCE, eventually};

/// Region of the test's KMS.
pub const REGION: &str = "test-1";
/// Its default zone.
pub const ZONE: &str = "test-1a";

/// A state directory, and the daemon that serves it. Dropping it ends the daemon and its backends.
#[derive(Debug)]
pub struct Kms {
    directory: TempDir,
    daemon: Option<Child>,
    /// As whom everything runs, if not as the test's own user.
    user: Option<u32>,
    /// Of the daemon, besides the test's own.
    pub environment: Vec<(&'static str, String)>,
}

impl Kms {
    /// A fresh state directory that nobody serves yet.
    pub fn initialised() -> Self {
        Kms::initialised_in(&std::env::temp_dir())
    }

    pub(crate) fn initialised_in(directory: &Path) -> Self {
        Kms::initialised_with(directory, &[])
    }

    fn initialised_with(directory: &Path, options: &[&str]) -> Self {
        let kms = Kms::empty_in(directory);
        let init = ["init", "--region", REGION, "--zone", ZONE];
        kms.daemon_command(&[&init, options].concat()).text();
        kms
    }

    /// A directory without state.
    ///
    /// # Panics
    /// If there is no temporary directory to be had.
    pub fn empty() -> Self {
        Kms::empty_in(&std::env::temp_dir())
    }

    fn empty_in(directory: &Path) -> Self {
        let directory = TempDir::with_prefix_in("sealblk-", directory).expect("a temporary directory");
        // A KMS of root runs its backends under other users, who must reach their sockets.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).expect("its permissions");
        Kms {
            directory,
            daemon: None,
            user: None,
            environment: Vec::new(),
        }
    }

    /// As [`Kms::start`], as this user. Only root can.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_as(user: u32) -> Self {
        let mut kms = Kms::empty();
        kms.user = Some(user);
        std::os::unix::fs::chown(kms.directory.path(), Some(user), Some(user)).expect("its owner");
        for name in ["sealblk", "sealblk-kms", "sealctl"] {
            // Where the tests are built, other users may not come.
            fs::copy(binary(name), kms.path(name)).expect("a copy of the program");
        }
        kms.daemon_command(&["init", "--region", REGION, "--zone", ZONE])
            .text();
        kms.serve();
        kms.ok(&["kms", "activate"]);
        kms
    }

    fn program(&self, name: &str) -> Command {
        let Some(user) = self.user else {
            return Command::new(binary(name));
        };
        let mut command = Command::new(self.path(name));
        command.uid(user).gid(user).current_dir("/");
        command
    }

    /// A daemon with fresh state, not activated.
    pub fn inactive() -> Self {
        let mut kms = Kms::initialised();
        kms.serve();
        kms
    }

    /// A daemon of this profile with fresh state and a balance in micro-units, neither activated nor granted anything.
    pub fn of_profile(profile: &str, balance: u64) -> Self {
        let options = ["--profile", profile, "--balance", &balance.to_string()];
        let mut kms = Kms::initialised_with(&std::env::temp_dir(), &options);
        kms.serve();
        kms
    }

    /// A daemon with fresh state, activated.
    pub fn start() -> Self {
        let kms = Kms::inactive();
        kms.ok(&["kms", "activate"]);
        kms
    }

    /// As [`Kms::start`], with everything below `directory`.
    pub fn start_in(directory: &Path) -> Self {
        Kms::start_with(directory, &[])
    }

    /// As [`Kms::start_in`], with these options of `serve`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(directory: &Path, options: &[&str]) -> Self {
        let mut kms = Kms::initialised_in(directory);
        kms.serve_with(options);
        kms.ok(&["kms", "activate"]);
        kms
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A path for the test's own files, on which nothing is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As [`Kms::path`], for a command line.
    pub fn path_text(&self, name: &str) -> String {
        self.path(name)
            .to_str()
            .expect("temporary paths are UTF-8")
            .to_owned()
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.state().join("kms.sock")
    }

    /// Id of the daemon's process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> i32 {
        self.daemon.as_ref().expect("the daemon runs").id() as i32
    }

    /// Runs `sealblk-kms COMMAND --state DIR …` to its end.
    ///
    /// # Panics
    /// If the program cannot be run.
    pub fn daemon_command(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.daemon_program(arguments);
        command.output().expect("sealblk-kms runs").into()
    }

    fn daemon_program(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("sealblk-kms");
        command
            .arg(arguments[0])
            .arg("--state")
            .arg(self.state())
            .args(&arguments[1..])
            .envs(self.environment.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn serve(&mut self) {
        self.serve_with(&[]);
    }

    /// As [`Kms::serve`], with these options.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn serve_with(&mut self, options: &[&str]) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("the log's file");
        let mut command = self.daemon_program(&[&["serve"], options].concat());
        command
            .stdout(log.try_clone().expect("the log's descriptor"))
            .stderr(log);
        let mut daemon = command.spawn().expect("sealblk-kms runs");
        eventually("sealblk-kms listens", || {
            let ended = daemon.try_wait().expect("its status");
            assert!(
                ended.is_none(),
                "sealblk-kms has ended: {ended:?}\n{}",
                self.log_text()
            );
            UnixStream::connect(self.socket()).ok()
        });
        self.daemon = Some(daemon);
    }

    /// Starts the daemon where it is expected to refuse.
    ///
    /// # Panics
    /// If it serves.
    pub fn serve_refused(&self) -> Outcome {
        self.serve_refused_with(&[])
    }

    /// As [`Kms::serve_refused`], with these options.
    ///
    /// # Panics
    /// If it serves.
    pub fn serve_refused_with(&self, options: &[&str]) -> Outcome {
        let mut daemon = self.daemon_program(&[&["serve"], options].concat());
        let mut daemon = daemon
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let pid = daemon.id() as i32;
        let end = std::time::Instant::now() + PATIENCE;
        while daemon.try_wait().expect("its status").is_none() {
            if std::time::Instant::now() > end {
                process::kill(pid);
                panic!("sealblk-kms serves, and should have refused");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        daemon.wait_with_output().expect("its output").into()
    }

    /// Ends the daemon as a service manager does, and gives back its exit status.
    ///
    /// # Panics
    /// If it does not run.
    pub fn stop(&mut self) -> Option<i32> {
        self.end(Signal::TERM)
    }

    /// Kills the daemon.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        process::signal(daemon.id() as i32, signal);
        let status = eventually("the end of sealblk-kms", || {
            daemon.try_wait().expect("its status")
        });
        status.code()
    }

    /// A `sealctl` for this daemon, to be run.
    pub fn sealctl_program(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("sealctl");
        command
            .env("SEALBLK_SOCKET", self.socket())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `sealctl` to its end.
    ///
    /// # Panics
    /// If the program cannot be run.
    pub fn sealctl(&self, arguments: &[&str]) -> Outcome {
        self.sealctl_program(arguments)
            .output()
            .expect("sealctl runs")
            .into()
    }

    /// Runs `sealctl` as another user, whom the accounts file need not know. Only root can.
    ///
    /// # Panics
    /// If the program cannot be run.
    pub fn sealctl_as(&self, uid: u32, arguments: &[&str]) -> Outcome {
        // Where the tests are built, other users may not come.
        let program = self.path("sealctl");
        if !program.exists() {
            fs::copy(binary("sealctl"), &program).expect("a copy of sealctl");
        }
        let mut command = Command::new(program);
        command
            .env("SEALBLK_SOCKET", self.socket())
            .args(arguments)
            .stdin(Stdio::null())
            .current_dir("/")
            .uid(uid)
            .gid(uid);
        command.output().expect("sealctl runs").into()
    }

    /// Runs `sealctl -o json …`, asserts success and gives back the answer.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        self.sealctl(&[&["-o", "json"], arguments].concat()).json()
    }

    /// Runs `sealctl`, asserts the refusal and that it has changed nothing, and gives back its sentence.
    ///
    /// # Panics
    /// If it is not refused so, or something has changed.
    pub fn refused(&self, arguments: &[&str], code: &str, rule: Option<&str>) -> String {
        let before = self.contents();
        let sentence = self.sealctl(arguments).refusal(code, rule);
        assert_eq!(self.contents(), before, "a refused call has changed something");
        sentence
    }

    /// Disks, snapshots, images, instances, keys and usage, without what changes by itself.
    fn contents(&self) -> [Value; 6] {
        let mut disks = self.get("/v1/disks?limit=1000");
        for disk in disks["disks"].as_array_mut().into_iter().flatten() {
            for field in ["stats", "connected", "allocated", "warnings"] {
                disk[field].take();
            }
        }
        let list = |kind: &str| self.get(&format!("/v1/{kind}?limit=1000"));
        [
            disks,
            list("snapshots"),
            list("images"),
            list("instances"),
            list("keys"),
            self.get("/v1/usage"),
        ]
    }

    /// Asks the API itself: sooner answered than `sealctl` is started.
    fn get(&self, path: &str) -> Value {
        let mut stream = UnixStream::connect(self.socket()).expect("the API's socket");
        let head = format!("GET {path} HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Creates a 1 MiB disk.
    pub fn create(&self, name: &str, arguments: &[&str]) -> Value {
        self.ok(&[&["disk", "create", name, "--size", "1MiB"], arguments].concat())
    }

    /// Registers the instance `vm`, creates the disk `data` and attaches it; gives back the attachment.
    pub fn attached(&self) -> Value {
        self.ok(&["instance", "register", "vm"]);
        self.create("data", &[]);
        self.ok(&["attach", "data", "vm"])
    }

    /// The disk as `disk show` shows it.
    pub fn disk(&self, name: &str) -> Value {
        self.ok(&["disk", "show", name])
    }

    /// The pid of the process that serves the disk, if one does.
    pub fn backend(&self, name: &str) -> Option<i32> {
        self.disk(name)["pid"].as_i64().map(|pid| pid as i32)
    }

    /// Metered calls of a kind, all months together.
    pub fn metered(&self, kind: &str) -> u64 {
        let usage = self.ok(&["usage"]);
        let rows = usage["usage"].as_array().expect("rows");
        rows.iter()
            .filter(|row| row["kind"] == kind)
            .filter_map(|row| row["calls"].as_u64())
            .sum()
    }

    fn log(&self) -> PathBuf {
        self.path("kms.log")
    }

    /// What the daemon has logged.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn show_logs(&self) {
        eprintln!("--- log of sealblk-kms\n{}", self.log_text());
        let attachments = fs::read_dir(self.state().join("run"))
            .into_iter()
            .flatten()
            .flatten();
        for attachment in attachments {
            let log = attachment.path().join("sealblk.log");
            eprintln!(
                "--- {}\n{}",
                log.display(),
                fs::read_to_string(&log).unwrap_or_default()
            );
        }
    }
}

impl Drop for Kms {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        if let Some(mut daemon) = self.daemon.take() {
            process::signal(daemon.id() as i32, Signal::TERM);
            let end = std::time::Instant::now() + PATIENCE;
            while matches!(daemon.try_wait(), Ok(None)) && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            // Both fail only if it has ended.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // With the daemon gone, nobody starts backends any more.
        for pid in process::processes_of(self.directory.path()) {
            process::signal(pid, Signal::KILL);
        }
    }
}

/// Whether this test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Text of a JSON field.
///
/// # Panics
/// If it is no text.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} in {object}"))
}

/// A process id in a JSON field.
///
/// # Panics
/// If it is none.
pub fn pid(object: &Value) -> i32 {
    object["pid"]
        .as_i64()
        .unwrap_or_else(|| panic!("pid in {object}")) as i32
}

/// A path in a JSON field.
///
/// # Panics
/// If it is no text.
pub fn path<'a>(object: &'a Value, field: &str) -> &'a Path {
    Path::new(text(object, field))
}
