//! Rule A03 on the running virtual machine: it may write to disks that are served here, to its boot disk, and to no
//! other device of its host. Where it does not run, what was declared of the instance counts.

use std::path::{Path, PathBuf};

use super::{Kms, off_runtime};
use crate::catalogue::attachments;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::instances::InstanceRow;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::machine::{self, Device};

/// Asks the instance's virtual machine, if it has to be asked and its socket is known. `socket` is the one that is to
/// be served.
///
/// # Errors
/// [`Code::LocalDevice`]; [`Code::MachineNotAsked`] if it runs and nothing is known of it.
pub(super) async fn check(
    kms: &Kms,
    disk: &DiskRow,
    instance: &InstanceRow,
    socket: Option<&str>,
) -> Result<()> {
    let Some(machine) = &instance.vm_socket else {
        return Ok(());
    };
    if !disk.encrypted || !kms.profile.refuse_local_storage {
        return Ok(());
    }
    let devices = machine::writable_devices(Path::new(machine)).await;
    let devices = devices.map_err(|error| {
        let text = format!(
            "what instance {} can write to is not known: let its virtual machine answer at {machine}, or remove \
             what lies there if it does not run",
            instance.name
        );
        Error::because(Code::MachineNotAsked, text, error)
    })?;
    let permitted = permitted(kms, instance, socket).await?;
    let judged = off_runtime(move || {
        let devices = devices.unwrap_or_default();
        Ok::<_, Error>(devices.into_iter().find(|device| !permitted.has(device)))
    });
    // A path may lie on a mount that hangs.
    let foreign = tokio::time::timeout(limits::MACHINE_TIME, judged).await;
    let foreign = foreign.map_err(|error| {
        let text = format!(
            "the paths that instance {} names cannot be looked at",
            instance.name
        );
        Error::because(Code::MachineNotAsked, text, error)
    })??;
    match foreign {
        None => Ok(()),
        Some(device) => Err(refusal(disk, instance, &device)),
    }
}

fn refusal(disk: &DiskRow, instance: &InstanceRow, device: &Device) -> Error {
    let named = machine::short(device.vhost_socket.as_ref().unwrap_or(&device.path));
    let text = format!(
        "the virtual machine of instance {} can write to {named:?}, where data of encrypted disk {} could be left in \
         the clear: remove that device, make it read-only, or declare it as the boot disk if it is",
        instance.name, disk.name
    );
    Error::new(Code::LocalDevice, text)
}

/// What a machine may write to.
#[derive(Default)]
struct Permitted {
    sockets: Vec<PathBuf>,
    boot_disk: Option<PathBuf>,
}

async fn permitted(kms: &Kms, instance: &InstanceRow, socket: Option<&str>) -> Result<Permitted> {
    let rows = {
        let mut db = kms.catalogue.read().await?;
        attachments::all(&mut db).await?
    };
    let sockets = rows
        .iter()
        .map(|row| kms.state.vhost_socket(&row.id, row.socket.as_deref()));
    Ok(Permitted {
        sockets: sockets.chain(socket.map(PathBuf::from)).collect(),
        boot_disk: instance.boot_disk.as_ref().map(PathBuf::from),
    })
}

impl Permitted {
    fn has(&self, device: &Device) -> bool {
        match &device.vhost_socket {
            Some(socket) => {
                let socket = Path::new(socket);
                self.sockets.iter().any(|ours| is_same(ours, socket))
            }
            None => {
                let boot = self.boot_disk.as_deref();
                boot.is_some_and(|boot| is_same(boot, Path::new(&device.path)))
            }
        }
    }
}

/// Whether two absolute paths lead to the same file, by whatever links.
fn is_same(one: &Path, other: &Path) -> bool {
    if one == other {
        return true;
    }
    other.is_absolute()
        && match (one.canonicalize(), other.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, vhost_socket: Option<&str>) -> Device {
        Device {
            path: path.to_owned(),
            vhost_socket: vhost_socket.map(str::to_owned),
        }
    }

    #[test]
    fn rule_a03_a_machine_may_write_to_our_sockets_and_its_boot_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("boot"), "").unwrap();
        std::fs::write(path("other"), "").unwrap();
        std::os::unix::fs::symlink(path("boot"), path("alias")).unwrap();
        let permitted = Permitted {
            sockets: vec!["/run/ours".into()],
            boot_disk: Some(path("boot").into()),
        };
        assert!(permitted.has(&device(&path("boot"), None)));
        assert!(permitted.has(&device(&path("alias"), None)));
        assert!(!permitted.has(&device(&path("other"), None)));
        assert!(!permitted.has(&device(&path("missing"), None)));
        assert!(!permitted.has(&device("boot", None)), "relative to what?");
        assert!(permitted.has(&device("", Some("/run/ours"))));
        assert!(!permitted.has(&device("", Some("/run/another"))));
        // A vhost-user disk is no boot disk because it says so, nor the other way round.
        assert!(!permitted.has(&device(&path("boot"), Some("/run/another"))));
        assert!(!permitted.has(&device("/run/ours", None)));
        assert!(!Permitted::default().has(&device(&path("boot"), None)));
    }
}
