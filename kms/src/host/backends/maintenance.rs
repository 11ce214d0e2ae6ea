//! Work on the store of a disk that is not attached: a short-lived backend, without socket and without key, is given
//! the store, obeys the same commands as one that serves, and ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealblk_proto::message::{Command, Outcome};

use super::connection::CommandError;
use super::plan::Plan;
use super::process::{Identity, Process};
use super::served::{Served, Tokens};
use super::{Supervisor, remove_directory, start_error, states};
use crate::error::{Code, Error, Result};
use crate::{limits, state};

/// Beginning of the names of runtime directories.
pub(crate) const PREFIX: &str = "maint-";

/// A process that has a store, until this is ended. Dropped without that, it is killed.
pub(crate) struct Maintenance<'a> {
    supervisor: &'a Supervisor,
    served: Arc<Served>,
}

impl Supervisor {
    /// Starts a process that carries out commands on a store; with a plan to create one, it is made when this returns.
    /// Whoever calls has the turn on the volume.
    ///
    /// # Errors
    /// Why the store cannot be used; then no process is left.
    pub(crate) async fn maintain(&self, plan: Plan) -> Result<Maintenance<'_>> {
        let failed = |error| Error::because(Code::FileFailed, "the process's socket cannot be made", error);
        state::make_directory(&plan.runtime, state::PASSAGE_MODE).map_err(failed)?;
        let id = plan.service.clone();
        self.open(plan, Tokens::default()).map_err(failed)?;
        let maintenance = Maintenance {
            supervisor: self,
            served: self.get(&id)?,
        };
        let started = maintenance.served.start(&self.shared).await;
        started.map_err(|failure| start_error(&failure))?;
        Ok(maintenance)
    }
}

impl Maintenance<'_> {
    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(crate) async fn request(
        &self,
        command: Command,
        time: Duration,
    ) -> std::result::Result<Outcome, CommandError> {
        let connection = self.served.look().connection.clone();
        match connection {
            Some(connection) => connection.request(command, time).await,
            None => Err(CommandError::Closed),
        }
    }

    /// Ends the process and waits until it has.
    pub(crate) async fn end(self) {
        let connection = self.served.look().connection.clone();
        let mut closed = None;
        let asked = match connection {
            Some(connection) => connection.detach(true, &mut closed).await,
            None => Err(CommandError::Closed),
        };
        if let Some(closed) = &closed {
            states::close(&self.served.plan, &self.supervisor.shared, closed).await;
        }
        let process = self.served.look().process.clone();
        let Some(process) = process else { return };
        let patience = match asked {
            Ok(Outcome::Done) | Err(CommandError::Closed) => limits::BACKEND_TIME,
            _ => Duration::ZERO,
        };
        if !process.ended_within(patience).await {
            log::warn!(
                "{}: process {} is killed",
                self.served.plan.service,
                process.pid()
            );
            process.kill();
            process.ended_within(limits::BACKEND_TIME).await;
        }
    }
}

impl Drop for Maintenance<'_> {
    fn drop(&mut self) {
        let process = self.served.look().process.clone();
        if let Some(process) = process {
            // It has ended, unless nobody waited for it.
            process.kill();
        }
        self.supervisor.forget(&self.served.plan);
        remove_directory(&self.served.plan.runtime);
    }
}

fn note_path(runtime: &Path) -> PathBuf {
    runtime.join("process")
}

/// Writes down who gets the store, so that the next KMS can end it: as what a link leads to, which needs no room of its own on a
/// file system that is full.
///
/// # Errors
/// The kernel's.
pub(super) fn note(plan: &Plan, identity: &Identity) -> io::Result<()> {
    write_note(&plan.runtime, identity)
}

fn write_note(runtime: &Path, identity: &Identity) -> io::Result<()> {
    let Identity { pid, start, boot } = identity;
    std::os::unix::fs::symlink(format!("{pid} {start} {boot}"), note_path(runtime))
}

fn noted(runtime: &Path) -> Option<Identity> {
    let Ok(link) = std::fs::read_link(note_path(runtime)) else {
        // An earlier version's, in a file.
        return serde_json::from_slice(&std::fs::read(note_path(runtime)).ok()?).ok();
    };
    let mut words = link.to_str()?.split(' ');
    Some(Identity {
        pid: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
        boot: words.next()?.to_owned(),
    })
}

/// Ends what a KMS that has died was maintaining, and removes its runtime directories below `run`. What it had begun is
/// done or not done when this returns, but for those that the kernel keeps: these have their stores' locks until they end.
pub(crate) async fn end_left(run: &Path) {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(PREFIX)
    };
    let runtimes: Vec<_> = entries.map(|entry| entry.path()).filter(ours).collect();
    let mut killed = Vec::new();
    for runtime in &runtimes {
        if let Some(process) = noted(runtime).as_ref().and_then(Process::find) {
            let pid = process.pid();
            log::warn!("{}: process {pid} was left, and is ended", runtime.display());
            process.kill();
            killed.push(process);
        }
    }
    let all = async {
        for process in &killed {
            process.ended().await;
        }
    };
    if tokio::time::timeout(limits::KILLED_TIME, all).await.is_err() {
        log::warn!("not all processes that were left have ended: they wait for their storage");
    }
    for runtime in runtimes {
        if let Err(error) = std::fs::remove_dir_all(&runtime) {
            log::warn!("{} cannot be removed: {error}", runtime.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_was_left_is_ended_and_no_other() {
        let run = tempfile::tempdir().unwrap();
        let mut left = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let identity = |pid| Process::open(pid).unwrap().identity().unwrap().clone();
        for (name, noted) in [
            ("maint-1", identity(left.id() as i32)),
            (
                "maint-2",
                Identity {
                    boot: "another".into(),
                    ..identity(other.id() as i32)
                },
            ),
            ("att-1", identity(other.id() as i32)),
        ] {
            let runtime = run.path().join(name);
            std::fs::create_dir(&runtime).unwrap();
            write_note(&runtime, &noted).unwrap();
            assert_eq!(super::noted(&runtime), Some(noted));
        }
        // An earlier version's.
        let note = note_path(&run.path().join("maint-2"));
        std::fs::remove_file(&note).unwrap();
        let foreign = r#"{"pid": 1, "start": 0, "boot": "another"}"#;
        std::fs::write(note, foreign).unwrap();
        assert!(super::noted(&run.path().join("maint-2")).is_some());
        end_left(run.path()).await;
        assert!(!left.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        assert_eq!(std::fs::read_dir(run.path()).unwrap().count(), 1);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
