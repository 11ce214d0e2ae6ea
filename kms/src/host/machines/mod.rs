//! The running virtual machine of an instance: asked over its own socket what it can write to (rule A03), and which QEMU it
//! is.
//!
//! The socket is QEMU's QMP or cloud-hypervisor's API: QMP speaks first. Whatever is said is an allegation of a process
//! that we do not trust: it is waited for and read within limits, and an answer that is not understood is no answer.

pub(crate) mod answer;
pub(crate) mod cloud_hypervisor;
pub(crate) mod qmp;
pub(crate) mod rights;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::limits;
use sealblk_api::QemuVersion;

pub(crate) use answer::{Device, MachineError, short};
pub(crate) use rights::Rights;

/// The devices of the virtual machine behind a socket; none if nobody listens there, for then it does not run. All that it
/// leads to is looked at with these rights.
///
/// # Errors
/// [`MachineError`].
pub(crate) async fn writable_devices(
    socket: &Path,
    rights: Rights,
) -> Result<Option<Vec<Device>>, MachineError> {
    let asked = timeout(limits::MACHINE_TIME, ask(socket, rights)).await;
    asked.unwrap_or(Err(MachineError::Silent))
}

/// The version of the QEMU behind a socket; none if nobody listens there, or if it is another program.
///
/// # Errors
/// [`MachineError`], if it does not say.
pub(crate) async fn qemu_version(socket: &Path, rights: Rights) -> Result<Option<QemuVersion>, MachineError> {
    let asked = async {
        match connect(socket, rights).await? {
            Some(stream) => qmp::version(stream).await,
            None => Ok(None),
        }
    };
    let asked = timeout(limits::MACHINE_VERSION_TIME, asked).await;
    asked.unwrap_or(Err(MachineError::SilentOnVersion))
}

async fn ask(socket: &Path, rights: Rights) -> Result<Option<Vec<Device>>, MachineError> {
    let Some(stream) = connect(socket, rights).await? else {
        return Ok(None);
    };
    if let Ok(ready) = timeout(limits::MACHINE_GREETING_TIME, stream.readable()).await {
        ready.map_err(MachineError::Connection)?;
        return qmp::writable_devices(stream).await.map(Some);
    }
    match cloud_hypervisor::writable_devices(stream, rights).await {
        // QMP that was slow to speak: on a connection of its own it is waited for.
        Err(MachineError::Http(error)) if error.is_parse() => match connect(socket, rights).await? {
            Some(stream) => qmp::writable_devices(stream).await.map(Some),
            None => Ok(None),
        },
        answer => answer,
    }
}

async fn connect(socket: &Path, rights: Rights) -> Result<Option<UnixStream>, MachineError> {
    let connected = rights.look(socket, connect_now);
    match connected.await.map_err(MachineError::NotLookedAt)?? {
        Some(stream) => UnixStream::from_std(stream)
            .map(Some)
            .map_err(MachineError::Unreachable),
        None => Ok(None),
    }
}

/// Without waiting for a machine that does not accept; but the path may lie on a medium that does not answer.
fn connect_now(path: &Path) -> Result<Option<std::os::unix::net::UnixStream>, MachineError> {
    let unreachable = |errno: Errno| MachineError::Unreachable(errno.into());
    match path.metadata() {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(MachineError::NotASocket),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(MachineError::Unreachable(error)),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = socket.map_err(unreachable)?;
    let address = SocketAddrUnix::new(path).map_err(unreachable)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket.into())),
        // What a machine that has died leaves behind, or takes away just now.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
        Err(errno) => Err(unreachable(errno)),
    }
}
