//! The socket on which the backend of one attachment dials.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sealblk_proto::channel::Listener;

use super::Shared;
use super::handover::hand_over;
use super::plan::Plan;
use super::served::Served;
use crate::limits;

/// Binds the socket, so that only the backend's user can dial; one that is there is replaced without a gap, and a
/// living backend finds the new one when it dials again.
///
/// # Errors
/// The kernel's.
pub(super) fn bind(plan: &Plan) -> io::Result<Listener> {
    let temporary = plan.runtime.join(".kms.sock.new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = Listener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    if plan.uid != rustix::process::geteuid().as_raw() {
        std::os::unix::fs::lchown(&temporary, Some(plan.uid), Some(plan.uid))?;
    }
    std::fs::rename(&temporary, &plan.backend_socket)?;
    Ok(listener)
}

/// Takes connections until the listener is shut down, each in a thread of its own.
pub(super) fn serve(listener: Listener, served: Arc<Served>, shared: Arc<Shared>) -> io::Result<()> {
    let hand_overs = Arc::new(AtomicUsize::new(0));
    let name = format!("dial {}", served.plan.attachment);
    let accept = move || {
        loop {
            let channel = match listener.accept() {
                Ok(channel) => channel,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                Err(error) => {
                    // Out of descriptors or memory: that may pass.
                    log::error!("{}: accept: {error}", served.plan.attachment);
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if hand_overs.fetch_add(1, Ordering::Relaxed) >= limits::HANDSHAKES {
                hand_overs.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (served, shared, running) =
                (Arc::clone(&served), Arc::clone(&shared), Arc::clone(&hand_overs));
            let started = thread::Builder::new().name("hand-over".into()).spawn(move || {
                hand_over(&served, &shared, channel);
                running.fetch_sub(1, Ordering::Relaxed);
            });
            if started.is_err() {
                hand_overs.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    thread::Builder::new().name(name).spawn(accept).map(|_| ())
}
