//! Passphrases: asked for on a terminal, and what is made of them where little memory can be locked.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use sealblk_e2e::binaries::binary;
use sealblk_e2e::kms::{Kms, REGION, is_root};
use sealblk_e2e::{eventually, keys};

const PASSPHRASE: &str = "correct höurse battery";
const QUESTION: &str = "Passphrase for the root key: ";
const INIT: [&str; 5] = ["init", "--region", REGION, "--root-key", "passphrase"];

/// `sealblk-kms` on a terminal of its own.
struct Terminal {
    keyboard: File,
    program: Child,
    shown: String,
}

impl Terminal {
    fn start(kms: &Kms, arguments: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let name = OsStr::from_bytes(name.as_bytes());
        let terminal = || File::options().read(true).write(true).open(name).unwrap();
        rustix::fs::fcntl_setfl(&keyboard, OFlags::NONBLOCK).unwrap();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(binary("sealblk-kms")).args(arguments);
        command.arg("--state").arg(kms.state());
        command.stdin(terminal()).stdout(terminal()).stderr(terminal());
        Terminal {
            keyboard: keyboard.into(),
            program: command.spawn().unwrap(),
            shown: String::new(),
        }
    }

    /// Waits until this is shown, and forgets what was shown until then.
    fn wait_for(&mut self, text: &str) {
        eventually(text, || {
            self.read();
            let (_, rest) = self.shown.split_once(text)?;
            self.shown = rest.to_owned();
            Some(())
        });
    }

    fn read(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.keyboard.read(&mut bytes) {
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.keyboard).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    fn end(&mut self) -> ExitStatus {
        eventually("the program's end", || self.program.try_wait().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn a_passphrase_is_typed_unseen_and_corrected() {
    let kms = Kms::empty();
    let mut terminal = Terminal::start(&kms, &INIT);
    terminal.wait_for(QUESTION);
    assert!(!terminal.echoes());
    terminal.type_in("nonsense\u{15}correct hä\u{7f}öurse battery\n");
    terminal.wait_for("The same again: ");
    terminal.type_in(&format!("{PASSPHRASE}\n"));
    assert!(terminal.end().success(), "{}", terminal.shown);
    assert!(terminal.echoes());
    terminal.read();
    for typed in ["correct", "battery", "nonsense"] {
        assert!(!terminal.shown.contains(typed), "{}", terminal.shown);
    }
    // It opens: otherwise this panics.
    let [_, root] = keys::sealed_root_key(&kms.state(), PASSPHRASE);
    assert_eq!(root.len(), 32);
}

#[test]
fn a_key_that_ends_the_program_leaves_a_terminal_that_echoes() {
    for (key, signal) in [("\u{3}", Signal::INT), ("\u{1c}", Signal::QUIT)] {
        let kms = Kms::empty();
        let mut terminal = Terminal::start(&kms, &INIT);
        terminal.wait_for(QUESTION);
        terminal.type_in(&format!("correct{key}"));
        assert_eq!(terminal.end().signal(), Some(signal.as_raw()));
        assert!(terminal.echoes());
        assert!(!kms.state().join("root.key.sealed").exists());
    }
}

#[test]
fn a_signal_that_ends_the_program_leaves_a_terminal_that_echoes() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let kms = Kms::empty();
        let mut terminal = Terminal::start(&kms, &INIT);
        terminal.wait_for(QUESTION);
        assert!(!terminal.echoes());
        kill_process(Pid::from_child(&terminal.program), signal).unwrap();
        assert_eq!(terminal.end().signal(), Some(signal.as_raw()));
        assert!(terminal.echoes(), "{signal:?}");
    }
}

#[test]
fn after_a_pause_the_passphrase_is_asked_for_anew() {
    let kms = Kms::empty();
    let mut terminal = Terminal::start(&kms, &INIT);
    terminal.wait_for(QUESTION);
    // Nobody controls the jobs of this terminal, so that the pause is none.
    terminal.type_in("forgotten\u{1a}");
    terminal.wait_for(QUESTION);
    terminal.type_in(&format!("{PASSPHRASE}\n"));
    terminal.wait_for("The same again: ");
    terminal.type_in("another one\n");
    terminal.wait_for("InvalidPassphrase");
    assert!(!terminal.end().success());
}

/// `init` as a user who may lock so much memory. None if this is not root, who alone can lower that and become another user.
fn init_with_little_memory(memlock: &str) -> Option<(Kms, Output)> {
    if !is_root() {
        eprintln!("skipped: only root can lower what it may lock, and become another user");
        return None;
    }
    const USER: &str = "65534";
    let (kms, user) = (Kms::empty(), USER.parse().unwrap());
    let program = kms.path("sealblk-kms");
    fs::copy(binary("sealblk-kms"), &program).unwrap();
    fs::write(kms.path("passphrase"), PASSPHRASE).unwrap();
    let state = kms.path("of-user");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(user), Some(user)).unwrap();
    std::os::unix::fs::chown(kms.path("passphrase"), Some(user), Some(user)).unwrap();
    let mut command = Command::new("prlimit");
    command.arg(format!("--memlock={memlock}"));
    command.args(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]);
    command.arg(&program).args(INIT);
    command.arg("--state").arg(state.join("state"));
    command.arg("--passphrase-file").arg(kms.path("passphrase"));
    let output = command.current_dir("/").output().unwrap();
    Some((kms, output))
}

#[test]
fn rule_k06_memory_that_cannot_be_locked_for_a_passphrase_is_no_file_that_cannot_be_read() {
    if let Some((_, output)) = init_with_little_memory("0") {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("error: Internal") && said.contains("memory for the passphrase cannot be locked"),
            "{said}"
        );
    }
}

#[test]
fn rule_k06_memory_that_cannot_be_locked_for_argon2_is_said_and_does_without() {
    let Some((kms, output)) = init_with_little_memory("1048576") else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("cannot be locked"),
        "{said}"
    );
    let [_, root] = keys::sealed_root_key(&kms.path("of-user").join("state"), PASSPHRASE);
    assert_eq!(root.len(), 32);
}
