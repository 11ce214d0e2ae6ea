//! What cannot be undone asks first: at a terminal, and nowhere else.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use sealblk_e2e::kms::{Kms, text};

/// `sealctl` at a terminal of its own, which script(1) makes.
struct AtTerminal {
    script: Child,
    /// What stands on the terminal.
    screen: String,
}

impl AtTerminal {
    fn run(kms: &Kms, arguments: &[&str]) -> Self {
        Self::run_with(kms, arguments, "")
    }

    /// With redirections as a shell has them.
    fn run_with(kms: &Kms, arguments: &[&str], redirected: &str) -> Self {
        let sealctl = kms.sealctl_program(arguments);
        let words = std::iter::once(sealctl.get_program()).chain(sealctl.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
        let script = Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--flush",
                "--command",
                &format!("{} {redirected}", words.join(" ")),
                "/dev/null",
            ])
            .envs(
                sealctl
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of Debian's bsdutils");
        AtTerminal {
            script,
            screen: String::new(),
        }
    }

    /// Reads on; false at the end.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let length = self.script.stdout.as_mut().unwrap().read(&mut bytes).unwrap();
        self.screen += &String::from_utf8_lossy(&bytes[..length]);
        length > 0
    }

    fn question(&mut self) -> &str {
        while !self.screen.contains("[y/N]") {
            assert!(self.read(), "nothing is asked: {}", self.screen);
        }
        &self.screen
    }

    /// Types a line; the exit status, and all that stands on the terminal.
    fn answer(mut self, line: &str) -> (Option<i32>, String) {
        self.question();
        let keyboard = self.script.stdin.as_mut().unwrap();
        keyboard.write_all(line.as_bytes()).unwrap();
        keyboard.flush().unwrap();
        self.end()
    }

    fn end(mut self) -> (Option<i32>, String) {
        // What is typed has no end before the program has.
        let _keyboard = self.script.stdin.take();
        while self.read() {}
        (self.script.wait().unwrap().code(), self.screen)
    }

    /// The exit status of a command that asks nothing.
    fn unasked(self) -> Option<i32> {
        let (status, screen) = self.end();
        assert!(!screen.contains("[y/N]"), "{screen}");
        status
    }
}

/// Asserts that the command asks, with these words, and does nothing unless it is told to; then that it does it.
fn asks(kms: &Kms, arguments: &[&str], words: &[&str], state: impl Fn() -> String) {
    let before = state();
    for no in ["n\n", "\n", "\x04"] {
        let mut asked = AtTerminal::run(kms, arguments);
        let question = asked.question().to_owned();
        for word in words {
            assert!(question.contains(word), "{word}: {question}");
        }
        let (status, screen) = asked.answer(no);
        assert_eq!(status, Some(1), "{arguments:?}: {screen}");
        assert!(screen.contains("error: NotConfirmed"), "{screen}");
        assert_eq!(state(), before, "{arguments:?}");
    }
    let (status, screen) = AtTerminal::run(kms, arguments).answer("y\n");
    assert_eq!(status, Some(0), "{arguments:?}: {screen}");
    assert_ne!(state(), before, "{arguments:?}");
}

#[test]
fn what_cannot_be_undone_asks_at_a_terminal() {
    let kms = Kms::start();
    let disk = kms.create("data", &[]);
    let id = text(&disk, "id").to_owned();
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.ok(&["key", "create", "payroll"]);
    let audited = |call: &'static str| {
        let kms = &kms;
        move || {
            let audit = kms.ok(&["audit", "list"]);
            let records = audit["audit"].as_array().unwrap().iter();
            records
                .filter(|record| record["call"] == call)
                .count()
                .to_string()
        }
    };
    asks(
        &kms,
        &["disk", "reinit", "data"],
        &["data", &id, "lost"],
        audited("disk.reinit"),
    );
    asks(
        &kms,
        &["rollback", "data", "one"],
        &["data", &id, "since its snapshot one of 2"],
        audited("rollback"),
    );
    asks(
        &kms,
        &["snapshot", "delete", "data/one"],
        &["snapshot one", "disk data"],
        audited("snapshot.delete"),
    );
    asks(
        &kms,
        &["key", "schedule-deletion", "payroll", "--days", "8"],
        &["payroll", "after 8 days"],
        audited("key.schedule-deletion"),
    );
    asks(
        &kms,
        &["disk", "delete", "data", "--now"],
        &["Disk data", &id, "for ever"],
        audited("disk.delete"),
    );
}

#[test]
fn a_disk_that_can_be_restored_is_deleted_without_a_question_and_one_from_the_bin_is_not() {
    let kms = Kms::start();
    let disk = kms.create("data", &[]);
    let id = text(&disk, "id").to_owned();
    assert_eq!(
        AtTerminal::run(&kms, &["disk", "delete", "data"]).unasked(),
        Some(0)
    );
    kms.create("data", &[]);
    let in_bin = || kms.ok(&["kms", "status"])["bin"]["disks"].to_string();
    asks(
        &kms,
        &["disk", "delete", &id, "--now"],
        &["Disk data", &id],
        in_bin,
    );
    assert!(kms.ok(&["disk", "show", "data"])["id"] != disk["id"]);
}

#[test]
fn a_disk_is_deleted_with_a_question_where_the_profile_has_no_bin() {
    let kms = Kms::of_profile("huawei-evs", 0);
    kms.ok(&["kms", "grant"]);
    kms.create("data", &[]);
    let disks = || {
        kms.ok(&["disk", "list"])["disks"]
            .as_array()
            .unwrap()
            .len()
            .to_string()
    };
    asks(&kms, &["disk", "delete", "data"], &["Disk data"], disks);
    kms.create("data", &[]);
    let kept = ["disk", "delete", "data", "--retention", "1"];
    assert_eq!(AtTerminal::run(&kms, &kept).unasked(), Some(0));
}

#[test]
fn scripts_say_yes() {
    let kms = Kms::start();
    kms.create("data", &[]);
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.ok(&["key", "create", "payroll"]);
    for call in [
        &["disk", "reinit", "data", "--yes"][..],
        &["rollback", "data", "one", "--yes"],
        &["snapshot", "delete", "data/one", "--yes"],
        &["key", "schedule-deletion", "payroll", "--yes"],
        &["disk", "delete", "data", "--now", "--yes"],
    ] {
        assert_eq!(AtTerminal::run(&kms, call).unasked(), Some(0), "{call:?}");
    }
}

/// Nobody would see the question, or answer it.
#[test]
fn nothing_is_asked_where_one_end_alone_is_a_terminal() {
    let kms = Kms::start();
    kms.create("data", &[]);
    for redirected in ["2>/dev/null", "</dev/null"] {
        let asked = AtTerminal::run_with(&kms, &["disk", "reinit", "data"], redirected);
        assert_eq!(asked.unasked(), Some(0), "{redirected}");
    }
}

#[test]
fn a_rollback_is_to_the_snapshot_that_was_asked_about() {
    let kms = Kms::start();
    kms.create("data", &[]);
    let first = kms.ok(&["snapshot", "create", "data", "one"]);
    let mut asked = AtTerminal::run(&kms, &["rollback", "data", "one"]);
    asked.question();
    kms.ok(&["snapshot", "set", "data/one", "--name", "older"]);
    kms.ok(&["snapshot", "create", "data", "one"]);
    let (status, screen) = asked.answer("y\n");
    assert_eq!(status, Some(0), "{screen}");
    let audit = kms.ok(&["audit", "list"]);
    let records = audit["audit"].as_array().unwrap();
    let rollback = records
        .iter()
        .rfind(|record| record["call"] == "rollback")
        .unwrap();
    assert!(rollback.to_string().contains(text(&first, "id")), "{rollback}");
}

/// The daemon ends connections that say nothing for long.
#[test]
fn whoever_thinks_for_long_is_answered_all_the_same() {
    let mut kms = Kms::start();
    kms.create("data", &[]);
    let mut asked = AtTerminal::run(&kms, &["disk", "reinit", "data"]);
    asked.question();
    kms.kill();
    kms.serve();
    let (status, screen) = asked.answer("yes\n");
    assert_eq!(status, Some(0), "{screen}");
}
