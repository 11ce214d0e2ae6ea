//! The vhost-user socket that a backend inherits: bound under a temporary name, given its owner and mode, and only
//! then renamed over its path. So a frontend never finds it missing, refused for the wrong reason, or open to others.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketAccess {
    /// None: this process's user.
    pub(crate) uid: Option<u32>,
    /// None: this process's group.
    pub(crate) gid: Option<u32>,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// What is at a path where a socket shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// Nothing, or a socket on which nobody listens.
    Nobody,
    /// A socket on which somebody listens.
    Server,
    /// Something that is no socket.
    File,
}

/// Finds out who has the path.
///
/// # Errors
/// The kernel's.
pub(crate) fn occupant(path: &Path) -> io::Result<Occupant> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Occupant::Nobody),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => Ok(Occupant::File),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Occupant::Nobody),
            // Also a socket of another type, or one that may not be connected to: someone's.
            _ => Ok(Occupant::Server),
        },
    }
}

/// Binds, prepares and names the socket; a socket that is there is replaced.
///
/// # Errors
/// The kernel's.
pub(crate) fn bind(path: &Path, access: SocketAccess) -> io::Result<UnixListener> {
    let (parent, name) = parent_and_name(path)?;
    let temporary = temporary_name()?;
    // By way of the open directory, since the temporary path may be longer than a socket's can be.
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{temporary}", parent.as_raw_fd()))?;
    let prepared = prepare(&parent, &temporary, &name, access);
    if prepared.is_err() {
        let _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::empty());
    }
    prepared?;
    Ok(listener)
}

fn prepare(parent: &OwnedFd, temporary: &str, name: &str, access: SocketAccess) -> io::Result<()> {
    if access.uid.is_some() || access.gid.is_some() {
        let (uid, gid) = (access.uid.map(Uid::from_raw), access.gid.map(Gid::from_raw));
        rustix::fs::chownat(parent, temporary, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::chmodat(
        parent,
        temporary,
        Mode::from_raw_mode(access.mode),
        AtFlags::empty(),
    )?;
    if rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode) != rustix::fs::FileType::Socket)
    {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path is taken by something that is no socket",
        ));
    }
    Ok(rustix::fs::renameat(parent, temporary, parent, name)?)
}

/// Removes the socket, if it is one.
pub(crate) fn remove(path: &Path) {
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
}

fn parent_and_name(path: &Path) -> io::Result<(OwnedFd, String)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(invalid)?;
    let parent = path.parent().ok_or_else(invalid)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((
        rustix::fs::openat(CWD, parent, flags, Mode::empty())?,
        name.to_owned(),
    ))
}

fn temporary_name() -> io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(format!(".sealblk-{}", hex::encode(random)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const ACCESS: SocketAccess = SocketAccess {
        uid: None,
        gid: None,
        mode: 0o660,
    };

    #[test]
    fn a_stale_socket_is_replaced_and_others_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory
            .path()
            .join("x".repeat(90 - directory.path().as_os_str().len()));
        assert_eq!(occupant(&path).unwrap(), Occupant::Nobody);
        let first = bind(&path, ACCESS).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o660);
        assert_eq!(occupant(&path).unwrap(), Occupant::Server);
        drop(first);
        assert_eq!(occupant(&path).unwrap(), Occupant::Nobody);
        let _second = bind(&path, ACCESS).unwrap();
        assert_eq!(occupant(&path).unwrap(), Occupant::Server);
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary name stays"
        );
        remove(&path);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(occupant(&path).unwrap(), Occupant::File);
        assert!(bind(&path, ACCESS).is_err());
        remove(&path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
