//! The vhost-user socket that a backend inherits. It is bound at its own path, so that `/proc/net/unix` has that, where those
//! look who clean directories up; nobody can connect before it has its owner and mode.
//!
//! The directory that it lies in is opened once, following no link of others, and all is done there: whoever may rename directories on
//! the way leads this process nowhere else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::host::paths;
use crate::state::rename_new;

/// Connections that may wait to be accepted, as in the standard library.
const BACKLOG: i32 = 128;

/// Users that may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketAccess {
    /// The socket's owner; none is this process's user.
    pub(crate) uid: Option<u32>,
    /// The socket's group; none is this process's group.
    pub(crate) gid: Option<u32>,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl SocketAccess {
    /// This process's user alone.
    pub(crate) const OWN: SocketAccess = SocketAccess {
        uid: None,
        gid: None,
        mode: 0o600,
    };
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
    match place(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Occupant::Nobody),
        Err(error) => Err(error),
        Ok((directory, name)) => occupant_in(directory.as_fd(), &name),
    }
}

/// Finds out who has a name in a directory.
///
/// # Errors
/// The kernel's.
pub(crate) fn occupant_in(directory: BorrowedFd<'_>, name: &str) -> io::Result<Occupant> {
    match open(directory, name)? {
        None => Ok(Occupant::Nobody),
        Some(file) => occupant_of(&file),
    }
}

/// What has a name in a directory, whatever becomes of the name; none if nothing does.
fn open(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn occupant_of(file: &OwnedFd) -> io::Result<Occupant> {
    if !is_socket(&rustix::fs::fstat(file)?) {
        return Ok(Occupant::File);
    }
    match connect(file) {
        Err(Errno::CONNREFUSED) => Ok(Occupant::Nobody),
        // Somebody is there, also if too many wait, or if the socket is of another type or may not be connected to.
        _ => Ok(Occupant::Server),
    }
}

/// What has a name in a directory; none if nothing does.
///
/// # Errors
/// The kernel's.
pub(crate) fn look(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether that is a socket.
pub(crate) fn is_socket(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Socket
}

/// Without waiting for a server that does not accept.
fn connect(file: &OwnedFd) -> rustix::io::Result<()> {
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    rustix::net::connect(&socket, &address)
}

/// The address of a name in an open directory, wherever that is.
fn beneath(directory: BorrowedFd<'_>, name: &str) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

fn socket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// A socket's file, as long as the socket lives: that keeps its inode from becoming another file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketFile {
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(found: &Stat) -> Self {
        SocketFile {
            device: found.st_dev,
            inode: found.st_ino,
        }
    }

    /// The socket at a path; none if nothing or something else is there.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        let (directory, name) = match place(path) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = look(directory.as_fd(), &name)?;
        Ok(found.filter(is_socket).map(|found| SocketFile::of(&found)))
    }
}

/// Binds and prepares the socket; a socket on which nobody listens is replaced.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::AddrInUse`] if somebody listens there.
pub(crate) fn bind(path: &Path, access: SocketAccess) -> io::Result<(UnixListener, SocketFile)> {
    let (parent, name) = place(path)?;
    // A name cannot be bound while it is there. Whoever has come here was refused until now, too.
    match remove_stale_in(parent.as_fd(), &name)? {
        Occupant::Nobody => {}
        Occupant::Server => return Err(taken(io::ErrorKind::AddrInUse, "another process listens there")),
        Occupant::File => {
            return Err(taken(
                io::ErrorKind::AlreadyExists,
                "the path is taken by something that is no socket",
            ));
        }
    }
    let address = match paths::is_ours_alone(&parent)? {
        true => SocketAddrUnix::new(path)?,
        // Others can rename on the way, and bind(2) follows links. Then `/proc/net/unix` has this.
        false => beneath(parent.as_fd(), &name)?,
    };
    let listener = socket(SocketFlags::CLOEXEC)?;
    // The file gets the mode that the socket has (unix(7) is silent; net/unix/af_unix.c). With none it can be told
    // from whatever somebody else puts in its place, and nobody can connect too early.
    rustix::fs::fchmod(&listener, Mode::empty())?;
    rustix::net::bind(&listener, &address)?;
    let (opened, file) = match find_own(&parent, &name) {
        Ok(found) => found,
        Err(error) => {
            // Perhaps for want of a descriptor: then there is one now.
            drop(listener);
            if let Ok((opened, _)) = find_own(&parent, &name) {
                remove_new(&parent, &name, &opened);
            }
            return Err(error);
        }
    };
    open_or_remove(&listener, (&parent, &name), &opened, access)?;
    Ok((UnixListener::from(listener), file))
}

/// Lets others connect to the new socket; if that is not possible it goes again, and nothing that has taken its name.
fn open_or_remove(
    listener: &OwnedFd,
    (parent, name): (&OwnedFd, &str),
    opened: &OwnedFd,
    access: SocketAccess,
) -> io::Result<()> {
    let listens = rustix::net::listen(listener, BACKLOG).map_err(io::Error::from);
    listens
        .and_then(|()| give(opened, access))
        .inspect_err(|_| remove_new(parent, name, opened))
}

fn remove_new(parent: &OwnedFd, name: &str, opened: &OwnedFd) {
    if let Err(error) = remove(parent.as_fd(), name, opened) {
        log::warn!("{name}, a new socket, stays: {error}");
    }
}

/// The new socket's file, which is still as it was made: others may be able to rename in its directory, or above it.
fn find_own(parent: &OwnedFd, name: &str) -> io::Result<(OwnedFd, SocketFile)> {
    let opened = open(parent.as_fd(), name)?.ok_or(io::ErrorKind::NotFound)?;
    let found = rustix::fs::fstat(&opened)?;
    let is_ours = is_socket(&found)
        && Mode::from_raw_mode(found.st_mode).is_empty()
        && found.st_uid == rustix::process::geteuid().as_raw();
    if !is_ours {
        return Err(taken(
            io::ErrorKind::PermissionDenied,
            "somebody has replaced the new socket",
        ));
    }
    Ok((opened, SocketFile::of(&found)))
}

/// Gives the new socket its owner and mode, by its descriptor.
fn give(opened: &OwnedFd, access: SocketAccess) -> io::Result<()> {
    if access.uid.is_some() || access.gid.is_some() {
        let (uid, gid) = (access.uid.map(Uid::from_raw), access.gid.map(Gid::from_raw));
        rustix::fs::chownat(opened, "", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    // fchmod(2) refuses such a descriptor; its link in /proc leads to nothing else.
    let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
    Ok(rustix::fs::chmod(link, Mode::from_raw_mode(access.mode))?)
}

fn taken(kind: io::ErrorKind, text: &str) -> io::Error {
    io::Error::new(kind, text)
}

/// Removes the socket, if it is one on which nobody listens any more: another's is left alone.
pub(crate) fn remove_stale(path: &Path) {
    let occupant = place(path).and_then(|(directory, name)| remove_stale_in(directory.as_fd(), &name));
    match occupant {
        Ok(Occupant::Nobody) => {}
        Ok(_) => log::warn!("{} is another's, and stays", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("{} cannot be looked at, and stays: {error}", path.display()),
    }
}

/// Removes the file of a socket that this process has, whoever else has a handle on it, such as a child that has not begun its
/// program yet; nothing that has taken its name.
///
/// # Errors
/// The kernel's.
pub(crate) fn remove_own(path: &Path, file: SocketFile) -> io::Result<()> {
    let (parent, name) = place(path)?;
    match open(parent.as_fd(), &name)? {
        Some(opened) if SocketFile::of(&rustix::fs::fstat(&opened)?) == file => {
            remove(parent.as_fd(), &name, &opened)
        }
        _ => Ok(()),
    }
}

/// Removes a stale socket by its name in a directory. Gives back who has the name, which is free if that is nobody.
fn remove_stale_in(directory: BorrowedFd<'_>, name: &str) -> io::Result<Occupant> {
    let Some(file) = open(directory, name)? else {
        return Ok(Occupant::Nobody);
    };
    let occupant = occupant_of(&file)?;
    if occupant == Occupant::Nobody {
        remove(directory, name, &file)?;
    }
    Ok(occupant)
}

/// Removes this file and nothing that has taken its name meanwhile: it is moved aside, and looked at once more.
fn remove(directory: BorrowedFd<'_>, name: &str, file: &OwnedFd) -> io::Result<()> {
    let Some(aside) = move_aside(directory, name)? else {
        return Ok(());
    };
    let moved = rustix::fs::statat(directory, &aside, AtFlags::SYMLINK_NOFOLLOW)?;
    if SocketFile::of(&moved) == SocketFile::of(&rustix::fs::fstat(file)?) {
        return Ok(rustix::fs::unlinkat(directory, &aside, AtFlags::empty())?);
    }
    rename_new(directory, &*aside, name)?;
    Err(taken(
        io::ErrorKind::AlreadyExists,
        "something else has taken the place of a socket that was to be removed",
    ))
}

/// Gives whatever has a name in a directory a name that nothing has; none if nothing has the name.
fn move_aside(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<String>> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let aside = format!(".{name}.{}-{number}", std::process::id());
        match rename_new(directory, name, &*aside) {
            Ok(()) => return Ok(Some(aside)),
            Err(Errno::NOENT) => return Ok(None),
            // Of a process that had this id and was killed before it had removed it.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The directory that a path leads to without any link that others can have made, and the path's last part.
fn place(path: &Path) -> io::Result<(OwnedFd, String)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(invalid)?;
    let parent = path.parent().ok_or_else(invalid)?;
    Ok((paths::open_trusted(parent)?, name.to_owned()))
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
        let (first, file) = bind(&path, ACCESS).unwrap();
        assert_eq!(SocketFile::at(&path).unwrap(), Some(file));
        let listed = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(listed.lines().any(|line| line.ends_with(path.to_str().unwrap())));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o660);
        assert_eq!(occupant(&path).unwrap(), Occupant::Server);
        drop(first);
        assert_eq!(occupant(&path).unwrap(), Occupant::Nobody);
        let (second, _) = bind(&path, ACCESS).unwrap();
        assert_ne!(SocketFile::at(&path).unwrap(), None);
        assert_eq!(occupant(&path).unwrap(), Occupant::Server);
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary name stays"
        );
        drop(second);
        remove_stale(&path);
        assert_eq!(SocketFile::at(&path).unwrap(), None);
    }

    /// A user who may rename a directory on the way puts a link in its place.
    #[test]
    fn a_socket_is_not_made_removed_or_found_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        // As the administrator of the state directory may have made it.
        drop(bind(&link.join("trusted"), ACCESS).unwrap());
        remove_stale(&real.join("trusted"));
        std::fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o1777),
        )
        .unwrap();
        assert!(bind(&link.join("socket"), ACCESS).is_err());
        assert_eq!(std::fs::read_dir(&real).unwrap().count(), 0);
        drop(bind(&real.join("socket"), ACCESS).unwrap());
        assert!(occupant(&link.join("socket")).is_err());
        assert!(SocketFile::at(&link.join("socket")).is_err());
        remove_stale(&link.join("socket"));
        assert_eq!(occupant(&real.join("socket")).unwrap(), Occupant::Nobody);
        assert!(real.join("socket").symlink_metadata().is_ok());
    }

    /// The directory is exchanged after it was opened, which bind(2) must not notice.
    #[test]
    fn where_others_may_rename_the_path_counts_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let (first, moved) = (directory.path().join("first"), directory.path().join("moved"));
        std::fs::create_dir(&first).unwrap();
        std::fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        let path = first.join("socket");
        let (opened, name) = place(&path).unwrap();
        assert!(!paths::is_ours_alone(&opened).unwrap());
        let (listener, _) = bind(&path, ACCESS).unwrap();
        let listed = listener.local_addr().unwrap();
        assert!(listed.as_pathname().unwrap().starts_with("/proc/self/fd"));
        std::fs::rename(&first, &moved).unwrap();
        std::fs::create_dir(&first).unwrap();
        assert_eq!(occupant_in(opened.as_fd(), &name).unwrap(), Occupant::Server);
        assert_eq!(occupant(&path).unwrap(), Occupant::Nobody);
    }

    #[test]
    fn a_file_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(occupant(&path).unwrap(), Occupant::File);
        assert!(bind(&path, ACCESS).is_err());
        remove_stale(&path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// A user who may write in the directory has exchanged the socket after it was looked at.
    #[test]
    fn what_has_taken_the_name_of_a_stale_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let (parent, name) = place(&path).unwrap();
        let stale = open(parent.as_fd(), &name).unwrap().unwrap();
        assert_eq!(occupant_of(&stale).unwrap(), Occupant::Nobody);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        let kind = remove(parent.as_fd(), &name, &stale).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// A user who may rename in the directory has exchanged the socket after it was made.
    #[test]
    fn what_has_taken_the_name_of_a_new_socket_that_cannot_be_given_stays() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        let path = directory.path().join("socket");
        let listener = OwnedFd::from(UnixListener::bind(&path).unwrap());
        let (parent, name) = place(&path).unwrap();
        let opened = open(parent.as_fd(), &name).unwrap().unwrap();
        let give = || {
            // Root could give it to anybody.
            let user = Uid::from_raw(rustix::process::geteuid().as_raw().max(1));
            rustix::thread::set_thread_res_uid(None, user, None).unwrap();
            let access = SocketAccess {
                uid: Some(user.as_raw() + 1),
                ..ACCESS
            };
            open_or_remove(&listener, (&parent, &name), &opened, access).map_err(|error| error.kind())
        };
        let gives = || std::thread::scope(|scope| scope.spawn(give).join().unwrap());
        std::fs::rename(&path, directory.path().join("moved")).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(gives(), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::rename(directory.path().join("moved"), &path).unwrap();
        assert_eq!(gives(), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_new_socket_on_which_nobody_can_listen_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let deaf = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
        rustix::net::bind(&deaf, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let (parent, name) = place(&path).unwrap();
        let opened = open(parent.as_fd(), &name).unwrap().unwrap();
        let error = open_or_remove(&deaf, (&parent, &name), &opened, ACCESS).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::OPNOTSUPP.raw_os_error()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    /// A process of the same id was killed between the two steps, more than once.
    #[test]
    fn what_a_killed_process_has_moved_aside_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let left = |number| {
            let name = format!(".socket.{}-{number}", std::process::id());
            directory.path().join(name)
        };
        for number in 0..64 {
            std::fs::write(left(number), "").unwrap();
        }
        drop(UnixListener::bind(&path).unwrap());
        remove_stale(&path);
        assert!(!path.exists());
        assert!((0..64).all(|number| left(number).exists()), "others' files stay");
    }

    #[test]
    fn a_server_is_neither_replaced_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _other = UnixListener::bind(&path).unwrap();
        assert_eq!(bind(&path, ACCESS).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        remove_stale(&path);
        assert_eq!(occupant(&path).unwrap(), Occupant::Server);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_server_that_does_not_accept_does_not_stop_us() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let busy = socket(SocketFlags::CLOEXEC).unwrap();
        rustix::net::bind(&busy, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&busy, 0).unwrap();
        // The first waits; with a blocking connect the second would wait for ever.
        let waiting = socket(SocketFlags::CLOEXEC).unwrap();
        rustix::net::connect(&waiting, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let (parent, name) = place(&path).unwrap();
        let file = open(parent.as_fd(), &name).unwrap().unwrap();
        assert_eq!(connect(&file), Err(Errno::AGAIN));
        assert_eq!(occupant(&path).unwrap(), Occupant::Server);
    }

    #[test]
    fn what_has_taken_the_place_of_the_new_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, "").unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&secret, directory.path().join("link")).unwrap();
        let (parent, _) = place(&secret).unwrap();
        for name in ["link", "secret"] {
            assert!(find_own(&parent, name).is_err());
        }
        assert_eq!(secret.metadata().unwrap().mode() & 0o777, 0o600);
    }
}
