//! The socket on which the backend of one attachment dials.

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sealblk_proto::channel::{Channel, Listener};
use tokio::net::UnixListener;
use tokio::task::AbortHandle;

use super::handover::hand_over;
use super::plan::Plan;
use super::served::Served;
use super::shared::Shared;
use crate::limits;

/// Binds the socket, so that only the backend's user can dial; one that is there is replaced, and a living backend finds the
/// new one when it dials again. It is bound at its own path, as `/proc/net/unix` shows it to those who clean directories up.
///
/// # Errors
/// The kernel's.
pub(super) fn bind(plan: &Plan) -> io::Result<Listener> {
    let path = &plan.backend_socket;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The daemon's umask keeps others out until then.
    let listener = Listener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    if plan.uid != rustix::process::geteuid().as_raw() {
        std::os::unix::fs::lchown(path, Some(plan.uid), Some(plan.uid))?;
    }
    Ok(listener)
}

/// A place for one of the hand-overs that may go on at once; free again when dropped, also by a panic.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let slot = Slot(Arc::clone(taken));
        // Where none is free, the drop takes it back.
        (taken.fetch_add(1, Ordering::Relaxed) < limits::HANDSHAKES).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket on which connections are taken, until this is dropped.
pub(super) struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        // The socket is not shut down: the runtime would take it for ever for one that has a connection.
        self.0.abort();
    }
}

/// Takes connections: a task of the runtime waits for them, and each has a thread of its own until its backend serves.
///
/// # Errors
/// The kernel's.
pub(super) fn serve(listener: Listener, served: Arc<Served>, shared: Arc<Shared>) -> io::Result<Listening> {
    // To the runtime, sockets of packets are as those of streams.
    let listener = std::os::unix::net::UnixListener::from(OwnedFd::from(listener));
    listener.set_nonblocking(true)?;
    let _entered = shared.runtime.enter();
    let listener = UnixListener::from_std(listener)?;
    let runtime = shared.runtime.clone();
    let task = runtime.spawn(accept_all(listener, served, shared));
    Ok(Listening(task.abort_handle()))
}

async fn accept_all(listener: UnixListener, served: Arc<Served>, shared: Arc<Shared>) {
    let hand_overs = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept().await.and_then(|(socket, _)| {
            let socket = socket.into_std()?;
            socket.set_nonblocking(false)?;
            Ok(Channel::from(OwnedFd::from(socket)))
        });
        let channel = match accepted {
            Ok(channel) => channel,
            Err(error) => {
                // Out of descriptors or memory: that may pass.
                log::error!("{}: accept: {error}", served.plan.service);
                tokio::time::sleep(limits::ACCEPT_RETRY_TIME).await;
                continue;
            }
        };
        let Some(slot) = Slot::take(&hand_overs) else {
            continue;
        };
        let (served, shared) = (Arc::clone(&served), Arc::clone(&shared));
        let started = thread::Builder::new().name("hand-over".into()).spawn(move || {
            let _slot = slot;
            hand_over(&served, &shared, channel);
        });
        if let Err(error) = started {
            log::error!("no thread for a hand-over: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_also_from_a_panic() {
        let taken = Arc::default();
        let slots: Vec<_> = (0..limits::HANDSHAKES)
            .map(|_| Slot::take(&taken).unwrap())
            .collect();
        assert!(Slot::take(&taken).is_none());
        let panicked = thread::spawn(move || {
            let _slots = slots;
            panic!("as a hand-over could");
        });
        assert!(panicked.join().is_err());
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }
}
