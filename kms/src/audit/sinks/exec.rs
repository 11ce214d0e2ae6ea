//! Records to a program that the daemon starts: one a line on its standard input. Where the sink is required, the program
//! acknowledges each on its standard output, with a line of the record's `seq`. It ends when its input does; if it ends before,
//! another is started. One that is slow goes on with the record that it has; only one that owes an acknowledgement for long is
//! ended, since what it has taken is known.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sealblk_api::AuditRecord;

use super::deliver::{Deliver, line};
use crate::limits;

/// An acknowledgement is shorter, in bytes.
const LINE_BYTES: usize = 64;

/// Writes to a program.
pub(super) struct ToProgram {
    program: PathBuf,
    /// Each record is acknowledged.
    acknowledged: bool,
    running: Option<Running>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    /// Where it acknowledges.
    output: Option<ChildStdout>,
    underway: Option<Underway>,
}

/// A record that it has not taken yet.
struct Underway {
    seq: u64,
    text: String,
    /// So much of the text, in bytes, it has.
    written: usize,
    /// What it has said of its acknowledgement.
    said: Vec<u8>,
    since: Instant,
}

impl ToProgram {
    pub(super) fn new(program: PathBuf, acknowledged: bool) -> Self {
        ToProgram {
            program,
            acknowledged,
            running: None,
        }
    }

    /// Starts it with nothing of the daemon's but its standard error, where it can complain.
    fn start(&self) -> io::Result<Running> {
        let output = match self.acknowledged {
            true => Stdio::piped(),
            false => Stdio::null(),
        };
        let mut child = Command::new(&self.program)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(output)
            // What interrupts the daemon from a terminal does not interrupt it.
            .process_group(0)
            .spawn()?;
        let input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        rustix::io::ioctl_fionbio(&input, true)?;
        let output = child.stdout.take();
        if let Some(output) = &output {
            rustix::io::ioctl_fionbio(output, true)?;
        }
        Ok(Running {
            child,
            input,
            output,
            underway: None,
        })
    }
}

impl Deliver for ToProgram {
    fn deliver(&mut self, records: &[AuditRecord], deadline: Instant, taken: &mut usize) -> io::Result<()> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        let outcome = running.take(records, deadline, taken);
        match &outcome {
            Err(error) if !running.is_slow(error) => running.kill(),
            _ => self.running = Some(running),
        }
        outcome
    }
}

impl Running {
    fn take(&mut self, records: &[AuditRecord], deadline: Instant, taken: &mut usize) -> io::Result<()> {
        for record in records {
            let text = line(record)?;
            // What it has begun may be of a transaction that was not committed.
            if self.underway.as_ref().is_some_and(|begun| begun.text != text) {
                self.go_on(deadline)?;
            }
            self.underway.get_or_insert_with(|| Underway {
                seq: record.seq,
                text,
                written: 0,
                said: Vec::new(),
                since: Instant::now(),
            });
            self.go_on(deadline)?;
            *taken += 1;
        }
        Ok(())
    }

    /// Until it has taken what it has begun with.
    fn go_on(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(record) = &mut self.underway else {
            return Ok(());
        };
        while record.written < record.text.len() {
            match self.input.write(&record.text.as_bytes()[record.written..]) {
                Ok(written) => record.written += written,
                Err(error) if is_retried(&error) => wait(&self.input, PollFlags::OUT, deadline)?,
                Err(error) => return Err(error),
            }
        }
        if let Some(output) = &mut self.output {
            acknowledgement(output, &mut record.said, deadline)?;
            if record.said != record.seq.to_string().as_bytes() {
                let said = String::from_utf8_lossy(&record.said);
                let seq = record.seq;
                let text = format!("it says {said:?} where record {seq} is to be acknowledged");
                return Err(io::Error::other(text));
            }
        }
        self.underway = None;
        Ok(())
    }

    /// Whether it may go on. Of one that acknowledges nothing it is not known what it has taken: that would be lost.
    fn is_slow(&self, error: &io::Error) -> bool {
        let owes =
            |record: &Underway| self.output.is_some() && record.since.elapsed() >= limits::SINK_HANG_TIME;
        error.kind() == io::ErrorKind::TimedOut && !self.underway.as_ref().is_some_and(owes)
    }

    /// It has not done what it should, and another is started.
    fn kill(mut self) {
        // What it has started goes with it. One that has ended cannot be killed.
        let group = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A line, without its end.
fn acknowledgement(output: &mut ChildStdout, said: &mut Vec<u8>, deadline: Instant) -> io::Result<()> {
    let mut byte = [0];
    loop {
        match output.read(&mut byte) {
            Ok(0) => return Err(io::Error::other("it has ended")),
            Ok(_) if byte == *b"\n" => return Ok(()),
            Ok(_) if said.len() == LINE_BYTES => return Err(io::Error::other("it says too much")),
            Ok(_) => said.push(byte[0]),
            Err(error) if is_retried(&error) => wait(output, PollFlags::IN, deadline)?,
            Err(error) => return Err(error),
        }
    }
}

fn is_retried(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn wait(end: &impl AsFd, events: PollFlags, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left == Duration::ZERO {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it does not take a record in time",
        ));
    }
    let left = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::new(end, events)], Some(&left)) {
        // Whoever waits looks again.
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sinks::tests::{fail, record};
    use std::os::unix::fs::PermissionsExt;

    fn program(directory: &std::path::Path, text: &str) -> PathBuf {
        let path = directory.join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// An end of which the program's own loop is told by `read`.
    const ACKNOWLEDGES: &str = r#"while read -r line; do
        printf '%s\n' "$line" >> "$(dirname "$0")/taken"
        rest=${line#*\"seq\":}; echo "${rest%%,*}"
    done"#;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_program_acknowledges_each_record_and_is_started_anew_when_it_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = ToProgram::new(program(directory.path(), ACKNOWLEDGES), true);
        sink.deliver(&[record(1), record(2)], far(), &mut 0).unwrap();
        let first = sink.running.as_mut().unwrap();
        first.child.kill().unwrap();
        first.child.wait().unwrap();
        sink.deliver(&[record(3)], far(), &mut 0).unwrap_err();
        sink.deliver(&[record(3)], far(), &mut 0).unwrap();
        let taken = std::fs::read_to_string(directory.path().join("taken")).unwrap();
        let seqs = taken
            .lines()
            .map(|line| serde_json::from_str::<AuditRecord>(line).unwrap().seq);
        assert_eq!(seqs.collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_program_that_says_nothing_or_something_else_has_taken_nothing() {
        let directory = tempfile::tempdir().unwrap();
        for (text, why) in [
            ("cat > /dev/null", "in time"),
            ("while read -r line; do echo ok; done", "\"ok\""),
            (
                "exec yes yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
                "too much",
            ),
            ("read -r line", "ended"),
        ] {
            let mut sink = ToProgram::new(program(directory.path(), text), true);
            let deadline = match why {
                "in time" => Instant::now() + Duration::from_millis(50),
                _ => far(),
            };
            let error = sink.deliver(&[record(1)], deadline, &mut 0).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
            assert_eq!(sink.running.is_some(), why == "in time");
        }
    }

    #[test]
    fn a_program_that_is_slow_goes_on_with_its_record_and_gets_none_twice() {
        let directory = tempfile::tempdir().unwrap();
        let text = ACKNOWLEDGES.replace("do\n", "do sleep 0.02\n");
        let mut sink = ToProgram::new(program(directory.path(), &text), true);
        let records: Vec<_> = (1..=30).map(record).collect();
        let mut left = &records[..];
        let mut rounds = 0;
        while !left.is_empty() {
            let mut taken = 0;
            // That is too little for all.
            let deadline = Instant::now() + Duration::from_millis(100);
            let outcome = sink.deliver(left, deadline, &mut taken);
            assert_eq!(outcome.is_ok(), taken == left.len());
            left = &left[taken..];
            rounds += 1;
        }
        assert!(rounds > 1);
        let taken = std::fs::read_to_string(directory.path().join("taken")).unwrap();
        let seqs = taken
            .lines()
            .map(|line| serde_json::from_str::<AuditRecord>(line).unwrap().seq);
        assert!(seqs.eq(1..=30), "{taken}");
    }

    #[test]
    fn a_program_that_owes_an_acknowledgement_for_long_is_ended_with_all_that_it_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"sleep 600 & echo $! > "$(dirname "$0")/started"; wait"#;
        let mut sink = ToProgram::new(program(directory.path(), text), true);
        let started = directory.path().join("started");
        let deliver = |sink: &mut ToProgram| {
            let deadline = Instant::now() + Duration::from_millis(20);
            sink.deliver(&[record(1)], deadline, &mut 0).unwrap_err();
        };
        while std::fs::read_to_string(&started).map_or(true, |text| !text.ends_with('\n')) {
            deliver(&mut sink);
        }
        let pid = std::fs::read_to_string(&started).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let running = sink.running.as_mut().unwrap();
        let record = running.underway.as_mut().unwrap();
        record.since = record.since.checked_sub(limits::SINK_HANG_TIME).unwrap();
        deliver(&mut sink);
        assert!(sink.running.is_none());
        // Whoever inherits it may not have looked after it yet.
        let state = |pid: rustix::process::Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
            stat.split(' ').nth(2).map(str::to_owned)
        };
        while state(pid).is_some_and(|state| state != "Z") {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_program_that_is_not_asked_need_not_acknowledge_and_one_that_hangs_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = ToProgram::new(program(directory.path(), "exec sleep 600"), false);
        let deadline = Instant::now() + Duration::from_millis(100);
        let mut taken = 0;
        // Until the pipe is full.
        let error = loop {
            match sink.deliver(&[record(taken)], deadline, &mut 0) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(
            taken > 1 && error.to_string().contains("in time"),
            "{taken}: {error}"
        );
        let running = sink.running.take().expect("what is in the pipe is not lost");
        running.kill();
    }

    #[test]
    fn a_signal_to_the_daemon_ends_no_program() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = ToProgram::new(program(directory.path(), ACKNOWLEDGES), true);
        sink.deliver(&[record(1)], far(), &mut 0).unwrap();
        fail(libc::SYS_ppoll, libc::EINTR);
        let records: Vec<_> = (2..=30).map(record).collect();
        sink.deliver(&records, far(), &mut 0).unwrap();
    }

    #[test]
    fn a_program_has_nothing_of_the_daemon_s() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"read -r line
            (ls /proc/self/fd; env; pwd) > "$(dirname "$0")/has"
            echo 1; read -r line"#;
        // As the daemon does when it begins.
        sealblk_proto::process::keep_inherited().unwrap();
        let open = std::fs::File::open("/dev/null").unwrap();
        let mut sink = ToProgram::new(program(directory.path(), text), true);
        sink.deliver(&[record(1)], far(), &mut 0).unwrap();
        drop(open);
        let has = std::fs::read_to_string(directory.path().join("has")).unwrap();
        let has: Vec<_> = has.lines().collect();
        // The fourth is the directory that `ls` reads, and where there is a fifth, the shell reads its program there.
        let mut descriptors = has.iter().filter(|line| line.parse::<u32>().is_ok());
        assert!(
            descriptors.all(|fd| ["0", "1", "2", "3", "10"].contains(fd)),
            "{has:?}"
        );
        let variables: Vec<_> = has
            .iter()
            .filter_map(|line| Some(line.split_once('=')?.0))
            .collect();
        let expected = ["OLDPWD", "PATH", "PWD", "SHLVL", "_"];
        assert!(
            variables.iter().all(|name| expected.contains(name)),
            "{variables:?}"
        );
        assert_eq!(has.last(), Some(&"/"));
    }
}
