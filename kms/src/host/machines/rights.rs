//! With whose rights a virtual machine is asked: the caller's, where this process has root's. Otherwise a path would lead any
//! caller to every socket of the host, and what is answered would tell what lies where only root may look.

use std::io;
use std::path::Path;

use nix::unistd::{User, getgrouplist};
use rustix::process::{Gid, Uid};

use crate::error::{Code, Error, Result};
use crate::host::aside;

/// Group of a user that the user database does not know.
const NO_GROUP: u32 = 65534;

/// A user's rights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rights(u32);

impl Rights {
    /// The rights of a caller. A process that is not root's has its own alone.
    pub(crate) fn of(uid: u32) -> Self {
        Rights(uid)
    }

    /// A look at a path with these rights; see [`aside::of_user`].
    ///
    /// # Errors
    /// As [`aside::of_user`]; [`Code::Internal`] if the rights are not to be had.
    pub(crate) async fn look<T: Send + 'static>(
        self,
        path: &Path,
        look: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T> {
        let with_rights = move |path: &Path| {
            // The thread is for the look alone, and ends with it.
            if rustix::process::geteuid().is_root() && self.0 != 0 {
                take(self.0).map_err(|error| {
                    let text = format!("the rights of uid {} are not to be had", self.0);
                    Error::because(Code::Internal, text, error)
                })?;
            }
            Ok::<_, Error>(look(path))
        };
        aside::of_user(self.0, path, with_rights).await
    }
}

/// Gives this thread a user's rights. Its real and saved user stay root's, so that the user cannot send it signals.
fn take(uid: u32) -> io::Result<()> {
    let user = Uid::from_raw(uid);
    let (gid, groups) = groups_of(uid)?;
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(None, gid, None)?;
    // From root to another user: this takes all capabilities that are in effect (capabilities(7)).
    rustix::thread::set_thread_res_uid(None, user, None)?;
    match rustix::process::geteuid() == user {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// The user's own group, and all.
fn groups_of(uid: u32) -> io::Result<(Gid, Vec<Gid>)> {
    let Some(user) = User::from_uid(nix::unistd::Uid::from_raw(uid))? else {
        return Ok((Gid::from_raw(NO_GROUP), Vec::new()));
    };
    let name = std::ffi::CString::new(user.name)?;
    let groups = getgrouplist(&name, user.gid)?;
    let groups = groups.into_iter().map(|group| Gid::from_raw(group.as_raw()));
    Ok((Gid::from_raw(user.gid.as_raw()), groups.collect()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_caller_reads_what_it_may_and_its_thread_alone() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let set_mode =
            |mode| std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let open = async |rights: Rights| {
            rights
                .look(&file, |file| std::fs::File::open(file))
                .await
                .unwrap()
        };
        set_mode(0o700).unwrap();
        let refused = open(Rights::of(1_800_000_001)).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let there = open(Rights::of(0)).await;
        assert!(there.is_ok());
        set_mode(0o711).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open(Rights::of(1_800_000_001)).await.is_ok());
        // A program that answers sees the caller as its peer.
        let (uid, groups) = Rights::of(1_800_000_001)
            .look(&file, |_| {
                (
                    rustix::process::geteuid().as_raw(),
                    rustix::process::getgroups().unwrap(),
                )
            })
            .await
            .unwrap();
        assert_eq!((uid, groups), (1_800_000_001, Vec::new()));
        assert!(rustix::process::geteuid().is_root());
    }

    /// A caller's path can lead by a link to whatever storage that caller has mounted.
    #[tokio::test]
    async fn what_a_caller_s_path_leads_to_holds_up_its_own_looks_alone() {
        let (caller, other) = (Rights::of(1_800_000_001), Rights::of(1_800_000_002));
        let (answer, hangs) = std::sync::mpsc::channel::<()>();
        let hangs = std::sync::Arc::new(std::sync::Mutex::new(hangs));
        for number in 0..crate::limits::LOOKS_OF_MEDIUM {
            let hangs = std::sync::Arc::clone(&hangs);
            let (begun, begins) = tokio::sync::oneshot::channel();
            let look = move |_: &Path| {
                begun.send(()).unwrap();
                let _ = hangs.lock().unwrap().recv();
            };
            let path = format!("/srv/machine-{number}");
            // Nobody waits for it any more.
            tokio::select! {
                biased;
                _ = caller.look(path.as_ref(), look) => panic!("it has answered"),
                begun = begins => begun.unwrap(),
            }
        }
        let refused = caller.look(Path::new("/srv/machine"), |_| ()).await;
        assert_eq!(refused.unwrap_err().code(), Code::StorageHangs);
        other.look(Path::new("/srv/machine"), |_| ()).await.unwrap();
        let named = aside::named(Path::new("/srv/disk"), |_: &Path| Ok::<_, Error>(()));
        named.await.unwrap();
        drop(answer);
    }
}
