//! The state directory: where everything lies, how it is made, and the lock that one KMS holds on it.
//!
//! The directory has mode 0711: each backend of a root KMS runs under a uid of its own and must be able to reach its
//! socket in it, but nobody else can list it. `root.key`, `catalogue.db` and `lock` have mode 0600, `disks/` 0700.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, FlockOperation, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::error::{Code, Error, Result};
use crate::{id, limits};

/// Mode of the directories that backends pass through.
pub(crate) const PASSAGE_MODE: u32 = 0o711;
/// Longest path that is appended to the state directory's for a socket.
const SOCKET_SUFFIX: &str = "/run/att-aaaaaaaaaaaaaaaa/.vhost.sock.new";

/// Paths in a state directory.
#[derive(Clone, Debug)]
pub(crate) struct StateDir(PathBuf);

/// Held while a KMS serves the directory.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

impl StateDir {
    /// Makes the directory with its subdirectories, and locks it. It may exist if it is empty, or if it holds only what
    /// an `init` or `restore` leaves that was stopped; then its mode stays as it is.
    ///
    /// # Errors
    /// [`Code::StateUnusable`]; [`Code::StateExists`] if there is a catalogue or anything else; [`Code::StateInUse`].
    pub(crate) fn create(path: &Path) -> Result<(Self, StateLock)> {
        let failed = |error| unusable(path, error);
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(PASSAGE_MODE)
                .create(path)
                .map_err(failed)?;
            std::fs::set_permissions(path, Permissions::from_mode(PASSAGE_MODE)).map_err(failed)?;
        }
        let state = Self::open(path)?;
        // Once before the lock, which would be a file in a directory that is not ours; and once with it.
        state.check_unfinished()?;
        let lock = state.lock()?;
        state.check_unfinished()?;
        for (directory, mode) in [(state.disks(), 0o700), (state.run(), PASSAGE_MODE)] {
            make_directory(&directory, mode).map_err(failed)?;
        }
        state.warn_if_closed();
        Ok((state, lock))
    }

    /// Refuses a directory that holds more than an unfinished `init` or `restore`.
    fn check_unfinished(&self) -> Result<()> {
        let exists = |text: String| Err(Error::new(Code::StateExists, text));
        if self.catalogue().exists() {
            return exists(format!(
                "{} is initialised already: choose another directory",
                self.0.display()
            ));
        }
        for entry in std::fs::read_dir(&self.0).map_err(|error| unusable(&self.0, error))? {
            let name = entry.map_err(|error| unusable(&self.0, error))?.file_name();
            let is_left_over = match name.to_str().unwrap_or_default() {
                "disks" | "run" => {
                    std::fs::read_dir(self.0.join(&name)).is_ok_and(|mut entries| entries.next().is_none())
                }
                "lock" | "root.key" | "root.key.new" | "root.key.sealed" | "root.key.unfinished" => true,
                name => name.starts_with("catalogue.db.new") || name.starts_with("restore.db.new"),
            };
            if !is_left_over {
                return exists(format!(
                    "{} is not empty, it holds {}: choose another directory",
                    self.0.display(),
                    name.display()
                ));
            }
        }
        Ok(())
    }

    /// Backends of a root KMS have users of their own.
    fn warn_if_closed(&self) {
        let closed = self.0.metadata().is_ok_and(|found| found.mode() & 0o001 == 0);
        if closed && rustix::process::geteuid().is_root() {
            log::warn!(
                "other users cannot reach sockets in {}, which existed with its mode: chmod 0711 it if virtual machines run as such",
                self.0.display()
            );
        }
    }

    /// The existing directory at `path`.
    ///
    /// # Errors
    /// [`Code::StateMissing`] and [`Code::StateUnusable`]: not a directory, another owner's, or a path too long.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::because(
                    Code::StateMissing,
                    format!(
                        "{} does not exist: make it with `sealblk-kms init`",
                        path.display()
                    ),
                    error,
                ));
            }
            Err(error) => return Err(unusable(path, error)),
        };
        let metadata = path.metadata().map_err(|error| unusable(&path, error))?;
        let refuse = |text: String| Err(Error::new(Code::StateUnusable, text));
        if !metadata.is_dir() || path.to_str().is_none() {
            return refuse(format!("{} is not a directory with a UTF-8 path", path.display()));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return refuse(format!(
                "{} must belong to this user, and nobody else may write to it",
                path.display()
            ));
        }
        if path.as_os_str().as_bytes().len() + SOCKET_SUFFIX.len() > limits::SOCKET_PATH_BYTES {
            return refuse(format!(
                "{} is too long a path for sockets to lie in it",
                path.display()
            ));
        }
        Ok(StateDir(path))
    }

    /// Takes the directory for this process, until the lock is dropped.
    ///
    /// A KMS that was killed may leave a child that has not come to its program yet, and has the lock for as long: so a lock that is
    /// held is tried for a moment.
    ///
    /// # Errors
    /// [`Code::StateInUse`] if another KMS has it.
    pub(crate) fn lock(&self) -> Result<StateLock> {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(self.0.join("lock"))
        };
        let file = open().map_err(|error| unusable(&self.0, error))?;
        let patience = Instant::now() + limits::STATE_LOCK_TIME;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(StateLock { _file: file }),
                Err(Errno::WOULDBLOCK) if Instant::now() < patience => {
                    std::thread::sleep(limits::STATE_LOCK_PAUSE);
                }
                Err(Errno::WOULDBLOCK) => {
                    let text = format!("another sealblk-kms is using {}: stop it first", self.0.display());
                    return Err(Error::new(Code::StateInUse, text));
                }
                Err(errno) => return Err(unusable(&self.0, errno.into())),
            }
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn root_key(&self) -> PathBuf {
        self.0.join("root.key")
    }

    /// The root key under a passphrase.
    pub(crate) fn sealed_root_key(&self) -> PathBuf {
        self.0.join("root.key.sealed")
    }

    pub(crate) fn catalogue(&self) -> PathBuf {
        self.0.join("catalogue.db")
    }

    /// Where a catalogue is made before it gets its name.
    pub(crate) fn unfinished_catalogue(&self) -> PathBuf {
        self.0.join("catalogue.db.new")
    }

    /// Where a catalogue is restored before it gets its name.
    pub(crate) fn unfinished_restore(&self) -> PathBuf {
        self.0.join("restore.db.new")
    }

    /// Where a backup is made before it is brought to its directory.
    pub(crate) fn unfinished_backup(&self) -> PathBuf {
        self.0.join("backup.db.new")
    }

    /// On which mount the directory for backups is.
    pub(crate) fn backup_medium(&self) -> PathBuf {
        self.0.join("backup.medium")
    }

    /// The API's socket, if no other is asked for.
    pub(crate) fn api_socket(&self) -> PathBuf {
        self.0.join("kms.sock")
    }

    /// Stores of disks that were given no path.
    pub(crate) fn disks(&self) -> PathBuf {
        self.0.join("disks")
    }

    /// Backups that were given no path.
    pub(crate) fn backups(&self) -> PathBuf {
        self.0.join("backups")
    }

    /// The store of a disk or backup, whose path is `path` if it has one.
    pub(crate) fn store(&self, volume: &str, path: Option<&str>) -> PathBuf {
        let directory = if id::is_backup(volume) {
            self.backups()
        } else {
            self.disks()
        };
        path.map_or_else(|| directory.join(volume), PathBuf::from)
    }

    /// Runtime directories of attachments.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The runtime directory of one attachment.
    pub(crate) fn runtime(&self, attachment: &str) -> PathBuf {
        self.run().join(attachment)
    }

    /// Where the attachment's backend dials.
    pub(crate) fn backend_socket(&self, attachment: &str) -> PathBuf {
        self.runtime(attachment).join("kms.sock")
    }

    /// The vhost-user socket of an attachment, whose path is `path` if it has one.
    pub(crate) fn vhost_socket(&self, attachment: &str, path: Option<&str>) -> PathBuf {
        path.map_or_else(|| self.runtime(attachment).join("vhost.sock"), PathBuf::from)
    }

    /// Id of the attachment whose [socket](Self::vhost_socket) this canonical path is, if that was given none.
    pub(crate) fn default_socket_of<'p>(&self, socket: &'p str) -> Option<&'p str> {
        let attachment = Path::new(socket).parent()?.file_name()?.to_str()?;
        (Path::new(socket) == self.vhost_socket(attachment, None)).then_some(attachment)
    }

    /// The token for a backend that another supervisor starts.
    pub(crate) fn token(&self, attachment: &str) -> PathBuf {
        self.runtime(attachment).join("token")
    }

    /// What the attachment's backend logs.
    pub(crate) fn backend_log(&self, attachment: &str) -> PathBuf {
        self.runtime(attachment).join("sealblk.log")
    }
}

/// Makes a directory of this mode, whatever the umask; it may exist.
///
/// # Errors
/// The kernel's.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// The kernel's.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a file that this user alone can read, durably: it has the whole contents, or what it had before.
///
/// # Errors
/// The kernel's.
pub(crate) fn write_durably(path: &Path, contents: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    // Of a process that was killed: the state directory's lock keeps others out.
    let _ = std::fs::remove_file(&unfinished);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Gives a file another name in a directory (or a path: [`CWD`](rustix::fs::CWD)), which nothing has. File systems that cannot do
/// that in one step, such as NFS and many by FUSE, give it both names for a moment; those without links look first, so that who
/// takes the name in the same moment loses it.
///
/// # Errors
/// The kernel's, [`Errno::EXIST`] among them.
pub(crate) fn rename_new(
    directory: BorrowedFd<'_>,
    from: impl Arg + Copy,
    to: impl Arg + Copy,
) -> std::result::Result<(), Errno> {
    match rustix::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        renamed => return renamed,
    }
    match rustix::fs::linkat(directory, from, directory, to, AtFlags::empty()) {
        Ok(()) => return rustix::fs::unlinkat(directory, from, AtFlags::empty()),
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno),
    }
    match rustix::fs::statat(directory, to, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => rustix::fs::renameat(directory, from, directory, to),
        found => Err(found.err().unwrap_or(Errno::EXIST)),
    }
}

fn unusable(path: &Path, error: io::Error) -> Error {
    Error::because(
        Code::StateUnusable,
        format!("{} cannot be used as state directory", path.display()),
        error,
    )
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    use super::*;

    #[test]
    fn a_directory_is_made_once_and_locked_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (state, lock) = StateDir::create(&path).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(
            (mode(&path), mode(&state.disks()), mode(&state.run())),
            (0o711, 0o700, 0o711)
        );
        assert_eq!(state.lock().unwrap_err().code(), Code::StateInUse);
        drop(lock);
        state.lock().unwrap();
        // A child of a KMS that was killed has the lock until it has come to its program.
        let inherited = state.lock().unwrap();
        let child = std::thread::spawn(move || {
            std::thread::sleep(limits::STATE_LOCK_TIME / 8);
            drop(inherited);
        });
        state.lock().unwrap();
        child.join().unwrap();
        std::fs::write(state.catalogue(), "").unwrap();
        assert_eq!(StateDir::create(&path).unwrap_err().code(), Code::StateExists);
    }

    #[test]
    fn a_default_socket_is_its_attachment_s() {
        let state = StateDir("/s".into());
        assert_eq!(state.default_socket_of("/s/run/att-1/vhost.sock"), Some("att-1"));
        for other in [
            "/s/run/att-1/kms.sock",
            "/t/run/att-1/vhost.sock",
            "/vhost.sock",
            "/",
        ] {
            assert_eq!(state.default_socket_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_directory_that_exists_keeps_its_mode_and_must_be_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("home");
        make_directory(&path, 0o700).unwrap();
        std::fs::write(path.join("letter"), "").unwrap();
        assert_eq!(StateDir::create(&path).unwrap_err().code(), Code::StateExists);
        assert_eq!(
            std::fs::read_dir(&path).unwrap().count(),
            1,
            "nothing was made in it"
        );
        std::fs::remove_file(path.join("letter")).unwrap();
        let (state, lock) = StateDir::create(&path).unwrap();
        drop(lock);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o700);
        // What is left of this call hinders no other, unless something is in it.
        std::fs::write(state.root_key(), "").unwrap();
        std::fs::write(path.join("catalogue.db.new-wal"), "").unwrap();
        StateDir::create(&path).unwrap();
        std::fs::write(state.disks().join("disk-1"), "precious").unwrap();
        assert_eq!(StateDir::create(&path).unwrap_err().code(), Code::StateExists);
    }

    #[test]
    fn unfit_directories_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert_eq!(StateDir::open(&missing).unwrap_err().code(), Code::StateMissing);
        let long = directory.path().join("x".repeat(100));
        assert_eq!(StateDir::create(&long).unwrap_err().code(), Code::StateUnusable);
        let open = directory.path().join("open");
        make_directory(&open, 0o777).unwrap();
        assert_eq!(StateDir::open(&open).unwrap_err().code(), Code::StateUnusable);
    }

    /// From here on this thread's calls fail so, as on file systems that have none of them.
    fn forbid(call: libc::c_long, rules: Vec<SeccompRule>, errno: i32) {
        let filter = SeccompFilter::new(
            [(call, rules)].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno as u32),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
    }

    fn renames_and_never_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("one"), "1").unwrap();
        std::fs::write(path("two"), "2").unwrap();
        let rename = |from, to| rename_new(CWD, &path(from), &path(to));
        assert_eq!(rename("one", "two"), Err(Errno::EXIST));
        assert_eq!(rename("none", "three"), Err(Errno::NOENT));
        assert_eq!(rename("one", "three"), Ok(()));
        assert_eq!(std::fs::read(path("three")).unwrap(), b"1");
        assert_eq!(std::fs::read(path("two")).unwrap(), b"2");
        assert!(!path("one").exists());
    }

    #[test]
    fn a_new_name_is_given_also_where_the_file_system_has_no_call_for_it() {
        renames_and_never_replaces();
        let flags = SeccompCondition::new(4, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0);
        let with_flags = SeccompRule::new(vec![flags.unwrap()]).unwrap();
        forbid(libc::SYS_renameat2, vec![with_flags], libc::EINVAL);
        renames_and_never_replaces();
        forbid(libc::SYS_linkat, vec![], libc::EPERM);
        renames_and_never_replaces();
    }
}
