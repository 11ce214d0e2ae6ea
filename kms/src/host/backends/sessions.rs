//! The attachments of one served disk (rule D09), and their sockets.
//!
//! The KMS keeps a handle on each socket that it has made. Whoever connects while one process has ended and the next does not
//! serve yet waits for that one, instead of being refused. A socket lies where a caller has said, so its file is touched only
//! in threads that may be left behind ([`aside`]).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt;
use sealblk_proto::message::Failure;
use tokio::runtime::Handle;

use super::plan::SessionPlan;
use super::vhost_socket::{self, SocketFile};
use crate::error::Error;
use crate::host::aside;
use crate::limits;

/// What is to be served.
#[derive(Debug)]
pub(crate) struct Sessions {
    wanted: Mutex<Vec<Wanted>>,
    /// Held while a process is being brought to serve them.
    pub(super) reconciling: Mutex<()>,
    /// Whether somebody tries again what has failed.
    pub(super) retried: AtomicBool,
    /// The attachment whose socket another supervisor makes, or the process that it starts.
    elsewhere: Option<String>,
}

#[derive(Debug)]
struct Wanted {
    plan: SessionPlan,
    /// Why it is not served although there is a process.
    failure: Option<Failure>,
    /// The socket, if it is the KMS's.
    socket: Option<Kept>,
    /// What the log says of its file.
    trouble: Option<&'static str>,
}

/// A listening socket that is kept for the next process.
#[derive(Debug)]
struct Kept {
    socket: OwnedFd,
    file: Option<SocketFile>,
}

impl Wanted {
    fn new(plan: SessionPlan) -> Self {
        Wanted {
            plan,
            failure: None,
            socket: None,
            trouble: None,
        }
    }
}

impl Sessions {
    /// `elsewhere` is the attachment whose socket is not the KMS's.
    pub(super) fn new(plans: Vec<SessionPlan>, elsewhere: Option<String>) -> Self {
        Sessions {
            wanted: Mutex::new(plans.into_iter().map(Wanted::new).collect()),
            reconciling: Mutex::default(),
            retried: AtomicBool::new(false),
            elsewhere,
        }
    }

    /// The attachment's, if it is to be served.
    pub(super) fn find(&self, attachment: &str) -> Option<SessionPlan> {
        let wanted = self.look();
        let found = wanted.iter().find(|wanted| wanted.plan.attachment == attachment);
        found.map(|wanted| wanted.plan.clone())
    }

    /// The queues of all.
    pub(super) fn queues(&self) -> u16 {
        self.look().iter().map(|wanted| wanted.plan.queues).sum()
    }

    /// Whether the attachment is to be served.
    pub(super) fn has(&self, attachment: &str) -> bool {
        self.find(attachment).is_some()
    }

    /// All.
    pub(super) fn all(&self) -> Vec<SessionPlan> {
        self.look().iter().map(|wanted| wanted.plan.clone()).collect()
    }

    /// Why an attachment is not served although there is a process.
    pub(super) fn failure(&self, attachment: &str) -> Option<Failure> {
        let wanted = self.look();
        let found = wanted.iter().find(|wanted| wanted.plan.attachment == attachment);
        found.and_then(|wanted| wanted.failure.clone())
    }

    /// One more is to be served.
    pub(super) fn want(&self, plan: SessionPlan) {
        let mut wanted = self.look();
        wanted.retain(|other| other.plan.attachment != plan.attachment);
        wanted.push(Wanted::new(plan));
    }

    /// Notes that the attachment is not to be served any more. For one that a process may serve, see `attend::take_away`.
    pub(super) fn forget(&self, attachment: &str) {
        self.look().retain(|wanted| wanted.plan.attachment != attachment);
    }

    /// Notes that no attachment is to be served any more.
    pub(super) fn forget_all(&self) {
        self.look().clear();
    }

    /// A handle on the attachment's socket, for a process that is to serve it: the one that is kept, unless its file has gone
    /// or has been replaced, or one that is made now.
    ///
    /// # Errors
    /// As [`vhost_socket::bind`]; [`io::ErrorKind::TimedOut`] if none is kept and the path's medium does not answer, or has
    /// no thread.
    pub(super) async fn socket(&self, plan: &SessionPlan) -> io::Result<OwnedFd> {
        let kept = |wanted: &mut Wanted| wanted.socket.as_ref().map(|kept| kept.socket.try_clone());
        if self.socket_trouble(&plan.attachment).await.is_none()
            && let Some(given) = self.change(&plan.attachment, kept).flatten()
        {
            return given;
        }
        let of = plan.clone();
        // What is made goes again where it comes too late.
        let made = move |_: &Path| Ok::<_, Error>(Bound::new(&of));
        let made = aside::bind(&plan.socket, made).await;
        let hangs = |error: Error| io::Error::new(io::ErrorKind::TimedOut, error.full_message());
        let (given, mut bound) = made.map_err(hangs)??;
        if self
            .change(&plan.attachment, |wanted| wanted.socket = bound.keep())
            .is_none()
        {
            drop(given);
            if let Some(bound) = bound.0.take() {
                remove_bound(bound).await;
            }
            let gone = "the attachment has gone meanwhile";
            return Err(io::Error::new(io::ErrorKind::NotFound, gone));
        }
        Ok(given)
    }

    /// A process has given its handle on the socket of an attachment, which it has from an earlier KMS.
    pub(super) async fn take_back(&self, attachment: &str, socket: OwnedFd) {
        let listens = sockopt::socket_acceptconn(&socket) == Ok(true);
        if !listens || !self.has_own_socket(attachment) {
            return;
        }
        let Some(plan) = self.find(attachment) else { return };
        let file = match Kept::noted(&plan) {
            Some(file) => Some(file),
            None => aside::look(&plan.socket, limits::LOOK_TIME, SocketFile::at)
                .await
                .and_then(|found| found.ok().flatten()),
        };
        self.change(attachment, |wanted| {
            wanted.socket.get_or_insert(Kept { socket, file });
        });
    }

    /// Whether a process may have a socket that should be kept and is not.
    pub(super) fn lacks_socket(&self) -> bool {
        let is_lacking =
            |wanted: &Wanted| wanted.socket.is_none() && self.has_own_socket(&wanted.plan.attachment);
        self.look().iter().any(is_lacking)
    }

    /// Whether the KMS makes the attachment's socket.
    pub(super) fn has_own_socket(&self, attachment: &str) -> bool {
        self.elsewhere.as_deref() != Some(attachment)
    }

    /// Keeps no socket any more: whoever connects is refused, unless a process listens.
    pub(super) fn let_go(&self) {
        for wanted in self.look().iter_mut() {
            wanted.socket = None;
        }
    }

    /// From now on nobody can connect to the attachment, or to any; whoever has a handle on the socket.
    pub(super) fn refuse(&self, attachment: Option<&str>) {
        for wanted in self.look().iter_mut() {
            if attachment.is_none_or(|attachment| wanted.plan.attachment == attachment)
                && let Some(kept) = wanted.socket.take()
            {
                // The only failure is that it has been done.
                let _ = rustix::net::shutdown(&kept.socket, rustix::net::Shutdown::Both);
            }
        }
    }

    /// What is wrong with the file of the attachment's socket; none if that does not answer.
    pub(super) async fn socket_trouble(&self, attachment: &str) -> Option<&'static str> {
        let (socket, file) = self.change(attachment, |wanted| {
            let file = wanted.socket.as_ref().and_then(|kept| kept.file);
            (wanted.plan.socket.clone(), file)
        })?;
        let look = move |socket: &Path| trouble(socket, file);
        aside::look(&socket, limits::LOOK_TIME, look).await.flatten()
    }

    /// Logs what has happened to a socket's file since the last look.
    pub(super) async fn watch_socket(&self, plan: &SessionPlan) {
        let trouble = self.socket_trouble(&plan.attachment).await;
        let before = self.change(&plan.attachment, |wanted| {
            std::mem::replace(&mut wanted.trouble, trouble)
        });
        match trouble {
            Some(trouble) if before != Some(Some(trouble)) => log::warn!(
                "{}: the socket {} {trouble}: no virtual machine can connect until `sealctl backend restart`",
                plan.attachment,
                plan.socket.display()
            ),
            _ => {}
        }
    }

    /// The socket that is kept is no good.
    pub(super) fn drop_socket(&self, attachment: &str) {
        self.change(attachment, |wanted| wanted.socket = None);
    }

    fn change<T>(&self, attachment: &str, change: impl FnOnce(&mut Wanted) -> T) -> Option<T> {
        let mut wanted = self.look();
        let found = wanted
            .iter_mut()
            .find(|wanted| wanted.plan.attachment == attachment);
        found.map(change)
    }

    /// Whether the process serves it, or why not.
    pub(super) fn note(&self, attachment: &str, failure: Option<Failure>) {
        self.change(attachment, |wanted| wanted.failure = failure);
    }

    /// Whether one is not served although there is a process.
    pub(super) fn has_failed(&self) -> bool {
        self.look().iter().any(|wanted| wanted.failure.is_some())
    }

    fn look(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that was bound; its file goes again if nobody keeps it.
struct Bound(Option<(Kept, PathBuf)>);

impl Bound {
    /// A new socket, and a handle on it.
    fn new(plan: &SessionPlan) -> io::Result<(OwnedFd, Self)> {
        let (listener, file) = vhost_socket::bind(&plan.socket, plan.access)?;
        let kept = Kept {
            socket: listener.into(),
            file: Some(file),
        };
        kept.note_file(plan);
        let bound = Bound(Some((kept, plan.socket.clone())));
        let given = bound.0.as_ref().map(|(kept, _)| kept.socket.try_clone());
        Ok((given.ok_or(io::ErrorKind::NotFound)??, bound))
    }

    fn keep(&mut self) -> Option<Kept> {
        self.0.take().map(|(kept, _)| kept)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let Some((kept, path)) = self.0.take() else { return };
        match Handle::try_current() {
            // A thread of the runtime does not wait for a medium.
            Ok(runtime) => drop(runtime.spawn(remove_bound((kept, path)))),
            Err(_) => kept.remove_file(&path),
        }
    }
}

/// Removes its file, unless that does not answer.
async fn remove_bound((kept, path): (Kept, PathBuf)) {
    let remove = move |path: &Path| {
        kept.remove_file(path);
        Ok::<_, Error>(())
    };
    if let Err(error) = aside::bind(&path, remove).await {
        log::warn!("a new socket stays: {}", error.full_message());
    }
}

impl Kept {
    /// Of a socket that was just made.
    fn remove_file(self, path: &Path) {
        let removed = self.file.map(|file| vhost_socket::remove_own(path, file));
        if let Some(Err(error)) = removed {
            log::warn!("{}, a new socket, stays: {error}", path.display());
        }
    }

    /// For the next KMS, which can ask the process for the socket, but not which file is the socket's.
    fn note_file(&self, plan: &SessionPlan) {
        let noted = serde_json::to_vec(&self.file)
            .map_err(io::Error::from)
            .and_then(|file| std::fs::write(Self::note(plan), file));
        if let Err(error) = noted {
            log::warn!("{}: its socket's file cannot be noted: {error}", plan.attachment);
        }
    }

    fn note(plan: &SessionPlan) -> PathBuf {
        plan.runtime.join("vhost.file")
    }

    fn noted(plan: &SessionPlan) -> Option<SocketFile> {
        serde_json::from_slice(&std::fs::read(Self::note(plan)).ok()?).ok()
    }
}

/// What is wrong with a socket's file, of which it may be known which it is.
fn trouble(socket: &Path, file: Option<SocketFile>) -> Option<&'static str> {
    match (SocketFile::at(socket), file) {
        (Ok(Some(found)), Some(file)) if found != file => Some("has been replaced by another"),
        (Ok(Some(_)), _) => None,
        (Ok(None), _) if socket.symlink_metadata().is_ok() => Some("has been replaced by another file"),
        (Ok(None), _) => Some("has been removed"),
        (Err(_), _) => Some("cannot be looked at"),
    }
}

/// Removes the attachment's socket, if nobody listens there; it stays where its medium does not answer.
pub(super) async fn remove_socket(plan: &SessionPlan) {
    aside::look(&plan.socket, limits::LOOK_TIME, vhost_socket::remove_stale).await;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::error::Code;
    use crate::host::backends::vhost_socket::SocketAccess;

    fn plan(directory: &Path) -> SessionPlan {
        SessionPlan {
            attachment: "att-1".to_owned(),
            queues: 1,
            read_only: false,
            socket: directory.join("socket"),
            access: SocketAccess {
                uid: None,
                gid: None,
                mode: 0o600,
            },
            by_name: None,
            runtime: directory.to_owned(),
        }
    }

    /// The medium answers when nobody waits any more.
    #[tokio::test]
    async fn a_socket_that_was_bound_too_late_goes() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(directory.path());
        let (answer, hangs) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let of = plan.clone();
        let bind = move |_: &Path| {
            let _ = hangs.recv();
            let bound = Bound::new(&of);
            tell.send(bound.is_ok() && of.socket.exists()).unwrap();
            Ok::<_, Error>(bound)
        };
        let late = tokio::time::timeout(Duration::from_millis(20), aside::bind(&plan.socket, bind)).await;
        assert!(late.is_err());
        drop(answer);
        assert!(told.recv().unwrap(), "it was bound");
        // Nothing else is begun there before the first has ended.
        while aside::bind(&plan.socket, |_| Ok::<_, Error>(())).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert!(!plan.socket.exists());
    }

    /// A create or a fill takes places of a medium until that answers, and a disk's process needs its socket meanwhile.
    #[tokio::test]
    async fn a_socket_is_made_where_work_at_a_store_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(directory.path());
        let (answer, hangs) = mpsc::channel::<()>();
        let fill = move |_: &Path| Ok::<_, Error>(hangs.recv().is_ok());
        let late = aside::work(&plan.socket, Duration::from_millis(20), fill).await;
        assert_eq!(late.unwrap_err().code(), Code::StorageHangs);
        let sessions = Sessions::new(vec![plan.clone()], None);
        drop(sessions.socket(&plan).await.unwrap());
        drop(answer);
    }

    /// A child that has not begun its program yet has a handle on all that this process has, and so listens.
    #[tokio::test]
    async fn a_socket_that_nobody_keeps_goes_while_a_child_has_it_and_what_has_its_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(directory.path());
        let (child, bound) = Bound::new(&plan).unwrap();
        drop(bound);
        while plan.socket.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(child);
        let (_child, bound) = Bound::new(&plan).unwrap();
        std::fs::remove_file(&plan.socket).unwrap();
        std::fs::write(&plan.socket, "precious").unwrap();
        std::thread::spawn(move || drop(bound)).join().unwrap();
        assert_eq!(std::fs::read_to_string(&plan.socket).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_socket_is_kept_for_the_next_process_as_long_as_it_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(directory.path());
        let sessions = Sessions::new(vec![plan.clone()], None);
        drop(sessions.socket(&plan).await.unwrap());
        let made = SocketFile::at(&plan.socket).unwrap();
        assert!(made.is_some());
        drop(sessions.socket(&plan).await.unwrap());
        assert_eq!(SocketFile::at(&plan.socket).unwrap(), made, "the same");
        sessions.forget(&plan.attachment);
        assert!(sessions.socket(&plan).await.is_err());
        assert!(!plan.socket.exists(), "nobody would ever remove it");
    }
}
