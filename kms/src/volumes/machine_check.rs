//! Rule A03 on the running virtual machine: it may write to disks that are served here, to its boot disk, and to no
//! other device of its host. Where it does not run, what was declared of the instance counts. It is asked at each attach, and again while
//! it runs ([`crate::jobs::machine_watch`]).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::audit::Caller;
use crate::catalogue::attachments;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::instances::InstanceRow;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside::off_runtime;
use crate::host::machines::{self, Device, Rights};

/// Asks the instance's virtual machine with the caller's rights, if it has to be asked and its socket is known. `socket` is
/// the one that is to be served.
///
/// # Errors
/// [`Code::LocalDevice`]; [`Code::MachineNotAsked`] if it runs and nothing is known of it.
pub(crate) async fn check(
    kms: &Kms,
    caller: &Caller,
    disk: &DiskRow,
    instance: &InstanceRow,
    socket: Option<&str>,
) -> Result<()> {
    if instance.vm_socket.is_none() || !is_asked(kms, disk) {
        return Ok(());
    }
    let mut sockets = Sockets::of(kms).await?;
    sockets.0.extend(socket.map(PathBuf::from));
    match forbidden(&sockets, Rights::of(caller.uid), instance).await? {
        Some(device) => Err(refusal(instance, &device)),
        None => Ok(()),
    }
}

/// As [`check`], of a machine that has said already what it has.
///
/// # Errors
/// [`Code::LocalDevice`] and others.
pub(crate) async fn check_devices(
    kms: &Kms,
    rights: Rights,
    (disk, instance): (&DiskRow, &InstanceRow),
    socket: Option<&str>,
    devices: Vec<Device>,
) -> Result<()> {
    if !is_asked(kms, disk) {
        return Ok(());
    }
    let mut sockets = Sockets::of(kms).await?;
    sockets.0.extend(socket.map(PathBuf::from));
    match first_forbidden(&sockets, rights, instance, devices).await? {
        Some(device) => Err(refusal(instance, &device)),
        None => Ok(()),
    }
}

/// Whether it matters to the disk what a machine has.
fn is_asked(kms: &Kms, disk: &DiskRow) -> bool {
    disk.encrypted && kms.profile.refuse_local_storage
}

/// The first device that the instance's virtual machine can write to and may not; none if it does not run.
///
/// # Errors
/// [`Code::MachineNotAsked`].
pub(crate) async fn forbidden(
    sockets: &Sockets,
    rights: Rights,
    instance: &InstanceRow,
) -> Result<Option<Device>> {
    let Some(machine) = &instance.vm_socket else {
        return Ok(None);
    };
    let devices = machines::writable_devices(Path::new(machine), rights).await;
    let devices = devices.map_err(|error| {
        let text = format!(
            "what instance {} can write to is not known: let its virtual machine answer at {machine}, or remove \
             what lies there if it does not run",
            instance.name
        );
        Error::because(Code::MachineNotAsked, text, error)
    })?;
    first_forbidden(sockets, rights, instance, devices.unwrap_or_default()).await
}

async fn first_forbidden(
    sockets: &Sockets,
    rights: Rights,
    instance: &InstanceRow,
    devices: Vec<Device>,
) -> Result<Option<Device>> {
    let permitted = Permitted {
        sockets: &sockets.0,
        boot_disk: instance.boot_disk.as_ref().map(PathBuf::from),
    };
    for device in devices {
        let has = permitted.has(&device, rights).await.map_err(|error| {
            let text = format!("what instance {} names cannot be looked at", instance.name);
            Error::because(Code::MachineNotAsked, text, error)
        });
        if !has? {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// Why an encrypted disk is not given to the instance, or would not be now.
pub(crate) fn refusal(instance: &InstanceRow, device: &Device) -> Error {
    let named = machines::short(device.vhost_socket.as_ref().unwrap_or(&device.path));
    let text = format!(
        "the virtual machine of instance {} can write to {named:?}, where data of its encrypted disks could be left in \
         the clear: remove that device, make it read-only, or declare it as the boot disk if it is",
        instance.name
    );
    Error::new(Code::LocalDevice, text)
}

/// The sockets on which disks are served here.
pub(crate) struct Sockets(HashSet<PathBuf>);

impl Sockets {
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn of(kms: &Kms) -> Result<Self> {
        let rows = {
            let mut db = kms.catalogue.read().await?;
            attachments::all(&mut db).await?
        };
        let ours = rows
            .iter()
            .map(|row| kms.state.vhost_socket(&row.id, row.socket.as_deref()));
        let mut sockets: HashSet<_> = ours.collect();
        // The directory of those that nobody has named may be a link.
        let run = kms.state.run();
        let linked = run.clone();
        let real_run = off_runtime(move || Ok::<_, Error>(linked.canonicalize().unwrap_or(linked))).await?;
        let moved = sockets.iter().filter_map(|socket| {
            let within = socket.strip_prefix(&run).ok()?;
            Some(real_run.join(within))
        });
        let moved: Vec<_> = moved.collect();
        sockets.extend(moved);
        Ok(Sockets(sockets))
    }
}

/// What a machine may write to.
struct Permitted<'a> {
    sockets: &'a HashSet<PathBuf>,
    boot_disk: Option<PathBuf>,
}

impl Permitted<'_> {
    /// # Errors
    /// [`Code::StorageHangs`].
    async fn has(&self, device: &Device, rights: Rights) -> Result<bool> {
        match &device.vhost_socket {
            // Ours are known without links in their directories, so that they need not be looked at.
            Some(socket) if self.sockets.contains(Path::new(socket)) => Ok(true),
            Some(socket) => {
                let real = real(Path::new(socket), rights).await?;
                Ok(real.is_some_and(|real| self.sockets.contains(&real)))
            }
            None => match &self.boot_disk {
                Some(boot) => is_same(boot, Path::new(&device.path), rights).await,
                None => Ok(false),
            },
        }
    }
}

/// Whether two absolute paths lead to the same file, by whatever links.
async fn is_same(one: &Path, other: &Path, rights: Rights) -> Result<bool> {
    if one == other {
        return Ok(true);
    }
    match (real(one, rights).await?, real(other, rights).await?) {
        (Some(one), Some(other)) => Ok(one == other),
        _ => Ok(false),
    }
}

/// Where an absolute path leads; none if that is nowhere.
async fn real(path: &Path, rights: Rights) -> Result<Option<PathBuf>> {
    if !path.is_absolute() {
        return Ok(None);
    }
    rights.look(path, |path| path.canonicalize().ok()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Rights {
        Rights::of(rustix::process::geteuid().as_raw())
    }

    fn device(path: &str, vhost_socket: Option<&str>) -> Device {
        Device {
            path: path.to_owned(),
            vhost_socket: vhost_socket.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn rule_a03_a_machine_may_write_to_our_sockets_and_its_boot_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("boot"), "").unwrap();
        std::fs::write(path("other"), "").unwrap();
        std::os::unix::fs::symlink(path("boot"), path("alias")).unwrap();
        let sockets = HashSet::from(["/run/ours".into()]);
        let permitted = Permitted {
            sockets: &sockets,
            boot_disk: Some(path("boot").into()),
        };
        assert!(permitted.has(&device(&path("boot"), None), own()).await.unwrap());
        assert!(permitted.has(&device(&path("alias"), None), own()).await.unwrap());
        assert!(!permitted.has(&device(&path("other"), None), own()).await.unwrap());
        assert!(
            !permitted
                .has(&device(&path("missing"), None), own())
                .await
                .unwrap()
        );
        assert!(
            !permitted.has(&device("boot", None), own()).await.unwrap(),
            "relative to what?"
        );
        assert!(
            permitted
                .has(&device("", Some("/run/ours")), own())
                .await
                .unwrap()
        );
        assert!(
            !permitted
                .has(&device("", Some("/run/another")), own())
                .await
                .unwrap()
        );
        // A vhost-user disk is no boot disk because it says so, nor the other way round.
        assert!(
            !permitted
                .has(&device(&path("boot"), Some("/run/another")), own())
                .await
                .unwrap()
        );
        assert!(!permitted.has(&device("/run/ours", None), own()).await.unwrap());
        let nothing = Permitted {
            sockets: &HashSet::new(),
            boot_disk: None,
        };
        assert!(!nothing.has(&device(&path("boot"), None), own()).await.unwrap());
    }
}
