//! The running virtual machine of an instance: asked over its own socket what it can write to (rule A03), which QEMU it
//! is, and given disks or asked to let them go (rule A09).
//!
//! The socket is QEMU's QMP or cloud-hypervisor's API: QMP speaks first. Whatever is said is an allegation of a process
//! that we do not trust: it is waited for and read within limits, and an answer that is not understood is no answer.

pub(crate) mod answer;
pub(crate) mod cloud_hypervisor;
pub(crate) mod qmp;
mod qmp_plug;
pub(crate) mod rights;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::limits;
use sealblk_api::QemuVersion;

pub(crate) use answer::{Device, Disk, MachineError, short};
pub(crate) use rights::Rights;

/// A virtual machine that runs, on a connection of its own.
pub(crate) enum Machine {
    Qemu(qmp::Session),
    CloudHypervisor(cloud_hypervisor::Api),
}

/// The devices of the virtual machine behind a socket; none if nobody listens there, for then it does not run. All that it
/// leads to is looked at with these rights.
///
/// # Errors
/// [`MachineError`].
pub(crate) async fn writable_devices(
    socket: &Path,
    rights: Rights,
) -> Result<Option<Vec<Device>>, MachineError> {
    Ok(open(socket, rights).await?.map(|(_, devices)| devices))
}

/// As [`writable_devices`], with the machine, which can be asked more.
///
/// # Errors
/// [`MachineError`].
pub(crate) async fn open(
    socket: &Path,
    rights: Rights,
) -> Result<Option<(Machine, Vec<Device>)>, MachineError> {
    let asked = timeout(limits::MACHINE_TIME, ask(socket, rights)).await;
    asked.unwrap_or(Err(MachineError::Silent))
}

impl Machine {
    /// Whether there is a device of this id, whoever has plugged it in.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) async fn has(&mut self, id: &str) -> Result<bool, MachineError> {
        Ok(self.device_of(id).await?.is_some())
    }

    /// What the disk of this id is called here: as we call it, or as libvirt does by the alias in our XML.
    async fn device_of(&mut self, id: &str) -> Result<Option<String>, MachineError> {
        let asked = async {
            for name in [id.to_owned(), format!("ua-{id}")] {
                let there = match self {
                    Machine::Qemu(qemu) => qemu.has(&name).await?,
                    Machine::CloudHypervisor(api) => api.has(&name).await?,
                };
                if there {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        };
        in_time(limits::MACHINE_CHANGE_TIME, asked).await
    }

    /// Whether there is room for one more device, of this id.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) async fn check_room(&mut self, id: &str) -> Result<(), MachineError> {
        if self.has(id).await? {
            return Err(MachineError::Taken(id.to_owned()));
        }
        if let Machine::Qemu(qemu) = self {
            in_time(limits::MACHINE_CHANGE_TIME, qemu.room()).await?;
        }
        Ok(())
    }

    /// Plugs a disk in, which is served.
    ///
    /// # Errors
    /// [`MachineError`]. After a refusal there is nothing of it; otherwise it is not known what there is.
    pub(crate) async fn plug(&mut self, disk: &Disk) -> Result<(), MachineError> {
        self.check_room(&disk.id).await?;
        let plugged = async {
            match self {
                Machine::Qemu(qemu) => qemu.plug(disk).await,
                Machine::CloudHypervisor(api) => api.plug(disk).await,
            }
        };
        in_time(limits::MACHINE_CHANGE_TIME, plugged).await
    }

    /// Has the guest let go of a disk, and removes what else there is of it.
    ///
    /// # Errors
    /// [`MachineError`]. Then it is still there, or may be.
    pub(crate) async fn unplug(&mut self, id: &str) -> Result<(), MachineError> {
        let device = self.device_of(id).await?;
        let device = device.as_deref().unwrap_or(id);
        let unplugged = async {
            match self {
                Machine::Qemu(qemu) => qemu.unplug(device).await,
                Machine::CloudHypervisor(api) => api.unplug(device).await,
            }
        };
        in_time(limits::UNPLUG_TIME + limits::MACHINE_TIME, unplugged).await
    }

    /// Removes what is left of a disk that is not there.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) async fn clean(&mut self, id: &str) -> Result<(), MachineError> {
        match self {
            Machine::Qemu(qemu) => in_time(limits::MACHINE_CHANGE_TIME, qemu.remove_chardev(id)).await,
            Machine::CloudHypervisor(_) => Ok(()),
        }
    }
}

async fn in_time<T>(
    time: Duration,
    asked: impl Future<Output = Result<T, MachineError>>,
) -> Result<T, MachineError> {
    timeout(time, asked)
        .await
        .unwrap_or(Err(MachineError::SilentOnChange))
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

async fn ask(socket: &Path, rights: Rights) -> Result<Option<(Machine, Vec<Device>)>, MachineError> {
    let Some(stream) = connect(socket, rights).await? else {
        return Ok(None);
    };
    if let Ok(ready) = timeout(limits::MACHINE_GREETING_TIME, stream.readable()).await {
        ready.map_err(MachineError::Connection)?;
        return ask_qemu(stream).await.map(Some);
    }
    let mut api = cloud_hypervisor::Api::new(stream).await?;
    match api.writable_devices(rights).await {
        // QMP that was slow to speak: on a connection of its own it is waited for.
        Err(MachineError::Http(error)) if error.is_parse() => match connect(socket, rights).await? {
            Some(stream) => ask_qemu(stream).await.map(Some),
            None => Ok(None),
        },
        answer => Ok(answer?.map(|devices| (Machine::CloudHypervisor(api), devices))),
    }
}

async fn ask_qemu(stream: UnixStream) -> Result<(Machine, Vec<Device>), MachineError> {
    let mut session = qmp::Session::begin(stream).await?;
    let devices = session.writable_devices().await?;
    Ok((Machine::Qemu(session), devices))
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
