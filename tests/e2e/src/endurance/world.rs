//! Where it all happens: a small file system, a mount that can hang, and a daemon with three accounts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::binaries::binary;
use crate::fuse::Fuse;
use crate::{Kms, Outcome};

/// The accounts; the first has a disk on the mount that can hang.
pub(super) const ACCOUNTS: [&str; 3] = ["acme", "beta", "gamma"];
/// All disks, the catalogue and the audit log.
const FILE_SYSTEM: &str = "size=320m";
/// In whole credits; more than a run can use.
const CREDIT: &str = "5000000000000000";
/// User of the first account.
const FIRST_UID: u32 = 61_000;

/// What a caller needs.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    program: PathBuf,
    socket: PathBuf,
    /// The file on the mount that can hang.
    pub(super) hanging_file: String,
    pub(super) hangs: Arc<AtomicBool>,
}

/// An answer, and how long it took; none, if none has come in time.
pub(super) type Answer = (Option<Outcome>, Duration);

impl Desk {
    /// Runs `sealctl` as a user of the account.
    pub(super) fn sealctl(&self, account: usize, arguments: &[&str], patience: Duration) -> Answer {
        let uid = FIRST_UID + account as u32;
        let begin = Instant::now();
        let mut child = Command::new(&self.program)
            .env("SEALBLK_SOCKET", &self.socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/")
            .uid(uid)
            .gid(uid)
            .spawn()
            .expect("sealctl runs");
        while matches!(child.try_wait(), Ok(None)) {
            if begin.elapsed() > patience {
                let _ = child.kill();
                let _ = child.wait();
                return (None, begin.elapsed());
            }
            std::thread::sleep(Duration::from_millis(4));
        }
        let time = begin.elapsed();
        let output = child.wait_with_output().expect("its output");
        (Some(output.into()), time)
    }
}

/// Dropping it ends all and unmounts.
#[derive(Debug)]
pub(super) struct World {
    pub(super) kms: Kms,
    pub(super) desk: Desk,
    pub(super) fuse: Fuse,
    /// What libfaketime reads.
    pub(super) clock: Option<PathBuf>,
    /// Where that is: not on a file system that fills.
    _outside: TempDir,
    options: Vec<String>,
    mounted: Mounted,
}

/// The small file system.
#[derive(Debug)]
struct Mounted(TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

impl World {
    /// None, with a word about it, where there can be none.
    pub(super) fn new(faketime: Option<&str>) -> Option<Self> {
        let place = TempDir::with_prefix("sealblk-endurance-").expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", FILE_SYSTEM, "endurance"])
            .arg(place.path())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: a tmpfs cannot be mounted here");
            return None;
        }
        let mounted = Mounted(place);
        let root = mounted.0.path();
        fs::set_permissions(root, Permissions::from_mode(0o711)).expect("its permissions");
        let mut kms = Kms::initialised_in(root);
        let fuse = Fuse::mount(&kms.path("hanging"))?;
        fuse.give(FIRST_UID);
        let accounts = kms.path_text("accounts.json");
        fs::write(&accounts, accounts_file(&kms.path_text("hanging"))).expect("the accounts file");
        fs::set_permissions(&accounts, Permissions::from_mode(0o600)).expect("its mode");
        let outside = TempDir::with_prefix("sealblk-clock-").expect("a directory");
        let clock = faketime.map(|library| {
            let clock = outside.path().join("clock");
            fs::write(&clock, "+0\n").expect("the clock");
            for (name, value) in [
                ("LD_PRELOAD", library),
                ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("UTF-8")),
                ("FAKETIME_NO_CACHE", "1"),
                ("DONT_FAKE_MONOTONIC", "1"),
                ("NO_FAKE_STAT", "1"),
            ] {
                kms.environment.push((name, value.to_owned()));
            }
            clock
        });
        let program = kms.path("sealctl");
        fs::copy(binary("sealctl"), &program).expect("a copy of sealctl");
        let desk = Desk {
            program,
            socket: kms.socket(),
            hanging_file: fuse.file().to_str().expect("UTF-8").to_owned(),
            hangs: Arc::default(),
        };
        let options = ["--socket-mode", "0666", "--accounts", &accounts];
        let options: Vec<_> = options.map(str::to_owned).into();
        let mut world = World {
            kms,
            desk,
            fuse,
            clock,
            _outside: outside,
            options,
            mounted,
        };
        // Others must reach the socket.
        let state = world.kms.state();
        fs::set_permissions(state, Permissions::from_mode(0o711)).expect("its permissions");
        world.serve();
        world.kms.ok(&["kms", "activate"]);
        for (number, account) in ACCOUNTS.iter().enumerate() {
            world.kms.ok(&["account", "credit", account, CREDIT]);
            let patience = Duration::from_secs(30);
            let (answer, _) = world.desk.sealctl(number, &["kms", "activate"], patience);
            answer.expect("an answer").text();
        }
        Some(world)
    }

    /// Starts the daemon.
    pub(super) fn serve(&mut self) {
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        self.kms.serve_with(&options);
    }

    /// The small file system.
    pub(super) fn root(&self) -> &Path {
        self.mounted.0.path()
    }

    /// Moves the daemon's clock, by what libfaketime calls a relative offset.
    pub(super) fn move_clock(&self, offset: &str) {
        if let Some(clock) = &self.clock {
            // Put in place at once: it is read all the time.
            let new = clock.with_extension("new");
            fs::write(&new, format!("{offset}\n")).expect("the clock");
            fs::rename(&new, clock).expect("the clock");
        }
    }
}

fn accounts_file(hanging: &str) -> String {
    let roles = ["admin", "security-administrator", "operator", "auditor"];
    let principals: Vec<_> = ACCOUNTS
        .iter()
        .enumerate()
        .map(|(number, account)| {
            serde_json::json!({"uid": FIRST_UID + number as u32, "account": account, "roles": roles})
        })
        .collect();
    let paths = serde_json::json!({ACCOUNTS[0]: {"paths": [hanging]}});
    serde_json::json!({"principals": principals, "accounts": paths}).to_string()
}
