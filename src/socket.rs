//! The vhost-user socket: inherited from a supervisor, or bound here.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use sealblk_proto::process::inherited_descriptor;

/// First descriptor of systemd's socket activation (`sd_listen_fds(3)`).
const FIRST_ACTIVATED: RawFd = 3;

/// Longest path of a Unix socket, in bytes (`sun_path` less the terminator, unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens there.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// Something else has that name; it is left alone.
    #[error("{0} exists and is no socket")]
    NotASocket(PathBuf),
    /// The inherited descriptor is no listening Unix stream socket.
    #[error("descriptor {0} is no listening Unix stream socket")]
    NotListening(RawFd),
    /// The kernel's.
    #[error("{what} cannot be used as the vhost-user socket")]
    Io {
        /// Path or descriptor.
        what: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// Who may connect to a socket that is bound here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Owner, if not this process's user.
    pub uid: Option<u32>,
    /// Group, if not this process's.
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: u32,
}

/// The text does not say who may connect.
#[derive(Debug, thiserror::Error)]
#[error("expected UID[:GID] in numbers, or a mode of at most three octal digits")]
pub struct InvalidAccess;

impl SocketAccess {
    /// Only this process's user.
    pub const PRIVATE: SocketAccess = SocketAccess {
        uid: None,
        gid: None,
        mode: 0o600,
    };

    /// From `UID[:GID]` and octal digits.
    ///
    /// # Errors
    /// [`InvalidAccess`].
    pub fn parse(owner: Option<&str>, mode: Option<&str>) -> Result<Self, InvalidAccess> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| InvalidAccess);
        let mut access = Self::PRIVATE;
        if let Some(owner) = owner {
            let (uid, gid) = owner
                .split_once(':')
                .map_or((owner, None), |(uid, gid)| (uid, Some(gid)));
            access.uid = Some(number(uid)?);
            access.gid = gid.map(number).transpose()?;
        }
        if let Some(mode) = mode {
            access.mode = u32::from_str_radix(mode, 8).map_err(|_| InvalidAccess)?;
        }
        if access.mode > 0o777 {
            Err(InvalidAccess)
        } else {
            Ok(access)
        }
    }
}

/// A listening socket, and the path to remove at the end.
#[derive(Debug)]
pub struct VhostSocket {
    listener: UnixListener,
    owned_path: Option<OwnedPath>,
}

/// A socket's path that this process has made. Removed when dropped, unless something else has taken the name.
#[derive(Debug)]
pub struct OwnedPath {
    /// Where it is. A confined process has no other way to it.
    directory: OwnedFd,
    name: OsString,
    device_and_inode: (u64, u64),
    /// Keeps the inode from becoming another file's.
    _file: OwnedFd,
}

impl VhostSocket {
    /// Takes over an inherited, listening socket. Its path, if it has one, belongs to the supervisor.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn inherit(number: RawFd) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io {
            what: format!("descriptor {number}"),
            source,
        };
        let listener = UnixListener::from(inherited_descriptor(number).map_err(failed)?);
        let is_stream = rustix::net::sockopt::socket_type(&listener) == Ok(rustix::net::SocketType::STREAM);
        if !is_stream || rustix::net::sockopt::socket_acceptconn(&listener) != Ok(true) {
            return Err(SocketError::NotListening(number));
        }
        Ok(VhostSocket {
            listener,
            owned_path: None,
        })
    }

    /// Takes over systemd's socket, if there is just one for this process.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn activated() -> Result<Option<Self>, SocketError> {
        match activated_descriptors().as_slice() {
            [number] => Self::inherit(*number).map(Some),
            _ => Ok(None),
        }
    }

    /// Binds `path` for those whom `access` names; a stale socket there is replaced. It is bound at its own absolute path, so
    /// that `/proc/net/unix` has that, where those look who clean directories up.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path, access: SocketAccess) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io {
            what: path.display().to_string(),
            source,
        };
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(SocketError::InUse(path.to_owned())),
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let absolute = std::path::absolute(path).map_err(failed)?;
        // One that is too long as a socket's can still be bound by a shorter name.
        let fits = absolute.as_os_str().len() <= SOCKET_PATH_BYTES;
        let path = if fits { absolute } else { path.to_owned() };
        let listener = bind_privately(&path).map_err(failed)?;
        let owned_path = OwnedPath::of(&path).map_err(failed)?;
        // From here on it is removed if the rest fails.
        open_to(&path, access).map_err(failed)?;
        Ok(VhostSocket {
            listener,
            owned_path: Some(owned_path),
        })
    }

    /// The directory of its path, if it was made here.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.owned_path.as_ref().map(OwnedPath::directory)
    }

    /// The listener, and the path to be dropped when nobody shall connect any more.
    pub fn into_parts(self) -> (UnixListener, Option<OwnedPath>) {
        (self.listener, self.owned_path)
    }
}

/// What systemd has left open for this process.
pub fn activated_descriptors() -> Vec<RawFd> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let count = match number("LISTEN_PID") == Some(std::process::id()) {
        true => number("LISTEN_FDS").unwrap_or(0).min(1024) as RawFd,
        false => 0,
    };
    (FIRST_ACTIVATED..FIRST_ACTIVATED + count).collect()
}

impl OwnedPath {
    /// Leaves the path to a successor.
    pub fn leave(mut self) {
        self.device_and_inode = (0, 0);
    }

    /// The directory that it is in.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    fn of(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = rustix::fs::open(parent.unwrap_or(".".as_ref()), flags, Mode::empty())?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(OwnedPath {
            name: name.to_owned(),
            _file: rustix::fs::openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty())?,
            device_and_inode: device_and_inode(&directory, name)?,
            directory,
        })
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        let now = device_and_inode(&self.directory, &self.name);
        if now.is_ok_and(|now| now == self.device_and_inode) {
            // Leaving a stale socket behind is harmless: the next bind replaces it.
            let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

fn device_and_inode(directory: &OwnedFd, name: &OsStr) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The owner first: a change of owner could take mode bits away.
fn open_to(path: &Path, access: SocketAccess) -> io::Result<()> {
    if access.uid.is_some() || access.gid.is_some() {
        std::os::unix::fs::lchown(path, access.uid, access.gid)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(access.mode))
}

/// The mode is set by umask, so that there is no moment in which others could connect.
fn bind_privately(path: &Path) -> io::Result<UnixListener> {
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vhost.sock");
        drop(UnixListener::bind(&path).unwrap());
        let socket = VhostSocket::bind(&path, SocketAccess::PRIVATE).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(
            VhostSocket::bind(&path, SocketAccess::PRIVATE),
            Err(SocketError::InUse(_))
        ));
        UnixStream::connect(&path).unwrap();
        let listed = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(listed.lines().any(|line| line.ends_with(path.to_str().unwrap())));
        let (listener, owned_path) = socket.into_parts();
        drop(listener);
        assert!(path.exists());
        drop(owned_path);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_path_of_a_successor_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vhost.sock");
        let (listener, first) = VhostSocket::bind(&path, SocketAccess::PRIVATE)
            .unwrap()
            .into_parts();
        drop(listener);
        let _second = VhostSocket::bind(&path, SocketAccess::PRIVATE).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn a_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            VhostSocket::bind(&path, SocketAccess::PRIVATE),
            Err(SocketError::NotASocket(_))
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        assert!(
            VhostSocket::bind(
                &directory.path().join("missing/vhost.sock"),
                SocketAccess::PRIVATE
            )
            .is_err()
        );
    }

    #[test]
    fn access_is_parsed_and_given() {
        let access = SocketAccess::parse(Some("7:8"), Some("0660")).unwrap();
        assert_eq!(
            access,
            SocketAccess {
                uid: Some(7),
                gid: Some(8),
                mode: 0o660
            }
        );
        assert_eq!(SocketAccess::parse(None, None).unwrap(), SocketAccess::PRIVATE);
        for (owner, mode) in [
            (Some("qemu"), None),
            (Some("1:"), None),
            (None, Some("8")),
            (None, Some("1777")),
        ] {
            assert!(SocketAccess::parse(owner, mode).is_err(), "{owner:?} {mode:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vhost.sock");
        let own = rustix::process::geteuid().as_raw();
        let access = SocketAccess {
            uid: Some(own),
            gid: None,
            mode: 0o660,
        };
        let _socket = VhostSocket::bind(&path, access).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    }
}
