//! Paths of vhost-user sockets that stay the same over attachments: links of the names of instance and disk, below the directory of
//! the runtime directories.
//!
//! A link is made when its disk is attached, when that is served again after a start, and when disk or instance get another name;
//! then it stays under the old one, too, where the virtual machine may have it from. It goes with the attachment. What is not a
//! link of an attachment that is there is replaced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::plan::SessionPlan;
use crate::limits;
use crate::state::{PASSAGE_MODE, StateDir, make_directory};

/// Of the account that has no directory of its own, and of the others.
const TOPS: [&str; 2] = ["by-name", "by-account"];

/// Held while links and their directories come and go.
static CHANGING: Mutex<()> = Mutex::new(());

/// Where a disk is found that an instance has, and the account if that has a directory of its own; none if a socket's path may not be
/// as long.
pub(crate) fn path(state: &StateDir, account: Option<&str>, instance: &str, disk: &str) -> Option<PathBuf> {
    let [first, others] = TOPS.map(|top| state.run().join(top));
    let top = account.map_or(first, |account| others.join(account));
    let path = top.join(instance).join(format!("{disk}.sock"));
    (path.as_os_str().len() <= limits::SOCKET_PATH_BYTES).then_some(path)
}

/// Whether this is the name of a directory of links, beside the runtime directories.
pub(crate) fn is_top(name: &str) -> bool {
    TOPS.contains(&name)
}

/// Whether a path leads to the attachment's socket.
pub(crate) fn leads_to(path: &Path, attachment: &str) -> bool {
    attachment_at(path).is_ok_and(|found| found.as_deref() == Some(attachment))
}

/// Has the session's path lead to its socket. Where that is not possible the log says so, and the socket has one path.
pub(crate) fn link(session: &SessionPlan) {
    let (Some(path), Some(run)) = (&session.by_name, session.runtime.parent()) else {
        return;
    };
    let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = make(path, run, &session.attachment) {
        log::warn!(
            "{} does not lead to {}: {error}",
            path.display(),
            session.attachment
        );
    }
}

/// Removes all paths that lead to the session's socket.
pub(super) fn unlink(session: &SessionPlan) {
    if let Some(run) = session.runtime.parent() {
        sweep(run, |attachment| attachment != session.attachment);
    }
}

/// Removes what leads to no attachment that is to be kept.
pub(crate) fn sweep(run: &Path, keep: impl Fn(&str) -> bool) {
    let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    for top in TOPS {
        clear(&run.join(top), &keep);
    }
}

fn make(path: &Path, run: &Path, attachment: &str) -> io::Result<()> {
    match attachment_at(path) {
        Ok(Some(found)) if found == attachment => return Ok(()),
        // Disk or instance have had this name, and the machine may connect again.
        Ok(Some(found)) if run.join(&found).exists() => {
            let text = format!("{found} has it, until that is detached");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let below = path.strip_prefix(run).map_err(io::Error::other)?;
    let mut target = PathBuf::new();
    let mut directory = run.to_owned();
    for part in below.parent().into_iter().flatten() {
        target.push("..");
        directory.push(part);
        make_directory(&directory, PASSAGE_MODE)?;
    }
    // Relative, so that it leads there wherever the state directory is.
    target.extend([attachment, "vhost.sock"]);
    let new = directory.join(".new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &new)?;
    std::fs::rename(new, path)
}

/// The attachment that a path leads to; none if it is no link of this module.
fn attachment_at(path: &Path) -> io::Result<Option<String>> {
    let target = std::fs::read_link(path)?;
    let attachment = target.parent().and_then(|runtime| runtime.file_name());
    Ok(attachment.and_then(|name| name.to_str()).map(str::to_owned))
}

/// Removes the links in a directory and below it that are not kept, and each directory that nothing is left in.
fn clear(directory: &Path, keep: &impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => clear(&path, keep),
            Ok(kind) if kind.is_symlink() => {
                let is_kept = attachment_at(&path)
                    .ok()
                    .flatten()
                    .is_some_and(|found| keep(&found));
                if !is_kept && let Err(error) = std::fs::remove_file(&path) {
                    log::warn!("{} stays: {error}", path.display());
                }
            }
            _ => {}
        }
    }
    // Of those that are not empty this is refused.
    let _ = std::fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::backends::vhost_socket::SocketAccess;

    fn session(run: &Path, attachment: &str, path: &str) -> SessionPlan {
        let runtime = run.join(attachment);
        std::fs::create_dir_all(&runtime).unwrap();
        std::fs::write(runtime.join("vhost.sock"), attachment).unwrap();
        SessionPlan {
            attachment: attachment.to_owned(),
            queues: 1,
            read_only: false,
            socket: runtime.join("vhost.sock"),
            access: SocketAccess::OWN,
            by_name: Some(run.join(path)),
            runtime,
        }
    }

    fn found(run: &Path, path: &str) -> Option<String> {
        std::fs::read_to_string(run.join(path)).ok()
    }

    #[test]
    fn a_name_leads_to_one_attachment_until_that_goes() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let (web, moved) = ("by-name/web/data.sock", "by-account/other/web/data.sock");
        let first = session(run, "att-1", web);
        link(&first);
        link(&first);
        assert_eq!(found(run, web).as_deref(), Some("att-1"));
        // Renamed: the machine that runs knows the old name.
        let renamed = SessionPlan {
            by_name: Some(run.join(moved)),
            ..first.clone()
        };
        link(&renamed);
        let second = session(run, "att-2", web);
        link(&second);
        assert_eq!(found(run, web).as_deref(), Some("att-1"), "no disk is another's");
        assert!(leads_to(&run.join(moved), "att-1") && !leads_to(&run.join(web), "att-2"));
        unlink(&renamed);
        assert_eq!((found(run, web), found(run, moved)), (None, None));
        assert!(!run.join("by-name").exists() && !run.join("by-account").exists());
        // What a KMS has left that was killed.
        link(&first);
        std::fs::remove_dir_all(&first.runtime).unwrap();
        link(&second);
        assert_eq!(found(run, web).as_deref(), Some("att-2"));
        sweep(run, |attachment| attachment == "att-2");
        assert_eq!(found(run, web).as_deref(), Some("att-2"));
        sweep(run, |_| false);
        assert!(!run.join("by-name").exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        let path = |account, name: &str| path(&state, account, name, name);
        let run = state.run();
        assert_eq!(path(None, "web"), Some(run.join("by-name/web/web.sock")));
        assert_eq!(
            path(Some("other"), "web"),
            Some(run.join("by-account/other/web/web.sock"))
        );
        assert_eq!(path(None, &"x".repeat(64)), None);
    }
}
