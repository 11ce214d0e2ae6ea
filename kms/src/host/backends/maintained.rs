//! Which process maintains a store: noted, so that a KMS that comes after one that died can end it.

use std::io;
use std::path::{Path, PathBuf};

use super::plan::Plan;
use super::process::{Identity, Process};
use crate::limits;

/// Beginning of the names of runtime directories.
pub(crate) const PREFIX: &str = "maint-";

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
