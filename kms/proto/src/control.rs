//! The socket on which a serving process can be reached by a KMS that has come back: `control-PID.sock`, beside the KMS's own.

use std::fs::Permissions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::channel::Bound;

/// Longest path that a socket can be bound to, in bytes (`sun_path` less the terminator, unix(7)).
const PATH_BYTES: usize = 107;

/// The socket's name, by the number of the process.
pub fn name(pid: u32) -> String {
    format!("control-{pid}.sock")
}

/// The number of the process whose socket has this name; none if it is another file's.
pub fn pid_of(name: &str) -> Option<i32> {
    let digits = name.strip_prefix("control-")?.strip_suffix(".sock")?;
    let pid = digits.parse().ok().filter(|pid| *pid > 0)?;
    (name == self::name(pid as u32)).then_some(pid)
}

/// Makes this process's socket in the directory of the KMS's, for its present user alone. One that is there is an ended
/// process's, and replaced.
///
/// # Errors
/// The kernel's.
pub fn bind(kms: &Path) -> io::Result<Bound> {
    let directory = match kms.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let path = directory.join(name(std::process::id()));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let bound = if path.as_os_str().as_bytes().len() <= PATH_BYTES {
        Bound::at(&path)?
    } else {
        // There is room for the shorter name of the KMS's socket.
        let opened = rustix::fs::open(
            directory,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        Bound::at(&short.join(name(std::process::id())))?
    };
    // Until it listens nobody can connect.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::channel::Channel;

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!(pid_of(&name(4_194_304)), Some(4_194_304));
        for other in [
            "kms.sock",
            "control-.sock",
            "control-0.sock",
            "control-07.sock",
            "control-+7.sock",
            "control--7.sock",
            "control-7.sock.old",
            "control-4294967297.sock",
        ] {
            assert_eq!(pid_of(other), None, "{other}");
        }
    }

    #[test]
    fn it_replaces_a_stale_one_and_is_reached_once_it_listens_also_in_a_directory_of_a_long_path() {
        let directory = tempfile::tempdir().unwrap();
        // As long as it may be for `kms.sock`.
        let length = PATH_BYTES - "/kms.sock".len() - directory.path().as_os_str().len() - 1;
        let long = directory.path().join("x".repeat(length));
        std::fs::create_dir(&long).unwrap();
        for directory in [directory.path(), &long] {
            let path = directory.join(name(std::process::id()));
            std::fs::write(&path, "stale").unwrap();
            let bound = bind(&directory.join("kms.sock")).unwrap();
            assert_eq!(path.symlink_metadata().unwrap().mode() & 0o7777, 0o600);
            let refused = Channel::connect_at_once(&path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let listener = bound.listen().unwrap();
            let dialled = Channel::connect_at_once(&path).unwrap();
            let accepted = listener.accept().unwrap();
            accepted.send(&7, &[]).unwrap();
            assert_eq!(dialled.receive::<u32>().unwrap().0, 7);
        }
    }
}
