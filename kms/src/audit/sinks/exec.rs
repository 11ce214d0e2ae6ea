//! Records to a program that the daemon starts: one a line on its standard input. Where the sink is required, the program
//! acknowledges each on its standard output, with a line of the record's `seq`. It ends when its input does; if it ends before, or
//! does not take a record in time, another is started.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sealblk_api::AuditRecord;

use super::deliver::{Deliver, line};

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
        Ok(Running { child, input, output })
    }
}

impl Deliver for ToProgram {
    fn deliver(&mut self, records: &[AuditRecord], deadline: Instant) -> io::Result<()> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        for record in records {
            if let Err(error) = running.take(record, deadline) {
                running.kill();
                return Err(error);
            }
        }
        self.running = Some(running);
        Ok(())
    }
}

impl Running {
    fn take(&mut self, record: &AuditRecord, deadline: Instant) -> io::Result<()> {
        let text = line(record)?;
        let mut left = text.as_bytes();
        while !left.is_empty() {
            match self.input.write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if is_retried(&error) => wait(&self.input, PollFlags::OUT, deadline)?,
                Err(error) => return Err(error),
            }
        }
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        let said = acknowledgement(output, deadline)?;
        if said == record.seq.to_string() {
            return Ok(());
        }
        let text = format!(
            "it says {said:?} where record {} is to be acknowledged",
            record.seq
        );
        Err(io::Error::other(text))
    }

    /// It has not done what it should, and another is started.
    fn kill(mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line, without its end.
fn acknowledgement(output: &mut ChildStdout, deadline: Instant) -> io::Result<String> {
    let mut said = Vec::new();
    let mut byte = [0];
    loop {
        match output.read(&mut byte) {
            Ok(0) => return Err(io::Error::other("it has ended")),
            Ok(_) if byte == *b"\n" => return Ok(String::from_utf8_lossy(&said).into_owned()),
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
    poll(&mut [PollFd::new(end, events)], Some(&left))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sinks::sink::tests::record;
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
        sink.deliver(&[record(1), record(2)], far()).unwrap();
        let first = sink.running.as_mut().unwrap();
        first.child.kill().unwrap();
        first.child.wait().unwrap();
        sink.deliver(&[record(3)], far()).unwrap_err();
        sink.deliver(&[record(3)], far()).unwrap();
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
            let error = sink.deliver(&[record(1)], deadline).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
            assert!(sink.running.is_none());
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
            match sink.deliver(&[record(taken)], deadline) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(
            taken > 1 && error.to_string().contains("in time"),
            "{taken}: {error}"
        );
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
        sink.deliver(&[record(1)], far()).unwrap();
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
