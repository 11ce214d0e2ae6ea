//! What an attach call says about its vhost-user socket.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::limits;
use crate::supervisor::vhost_socket::{Occupant, SocketAccess, occupant};

/// Mode of a socket for which none is asked.
pub(super) const DEFAULT_MODE: u32 = 0o600;

/// Checks a path for a socket: absolute, in an existing directory, short enough, and nobody else's.
///
/// # Errors
/// [`Code::InvalidPath`], [`Code::SocketInUse`].
pub(super) fn check_path(text: &str) -> Result<String> {
    let invalid = |why: &str| Error::new(Code::InvalidPath, format!("{text:?} cannot be the socket: {why}"));
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err(invalid("give an absolute path"));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid("it names no file"));
    };
    let parent = parent.canonicalize().map_err(|error| {
        Error::because(
            Code::InvalidPath,
            format!("the directory of {text:?} cannot be used"),
            error,
        )
    })?;
    let canonical = parent.join(name);
    let too_long = |path: &Path| path.as_os_str().len() > limits::SOCKET_PATH_BYTES;
    if too_long(&path) || too_long(&canonical) {
        return Err(invalid("a socket's path has at most 107 bytes"));
    }
    let found = occupant(&canonical);
    match found
        .map_err(|error| Error::because(Code::InvalidPath, format!("{text:?} cannot be used"), error))?
    {
        Occupant::Nobody => {}
        Occupant::File => return Err(invalid("there is something else; it is not replaced")),
        Occupant::Server => {
            let text = format!("another process serves on {text}: choose another path");
            return Err(Error::new(Code::SocketInUse, text));
        }
    }
    canonical
        .into_os_string()
        .into_string()
        .map_err(|_| invalid("it is not UTF-8"))
}

/// Owner and mode of the socket.
///
/// # Errors
/// [`Code::InvalidSocketOwner`], [`Code::InvalidSocketMode`].
pub(crate) fn access(owner: Option<&str>, mode: Option<&str>) -> Result<SocketAccess> {
    let mode = match mode {
        None => DEFAULT_MODE,
        Some(text) => parse_mode(text)?,
    };
    let Some(owner) = owner else {
        return Ok(SocketAccess {
            uid: None,
            gid: None,
            mode,
        });
    };
    let (user, group) = owner
        .split_once(':')
        .map_or((owner, None), |(user, group)| (user, Some(group)));
    let uid = resolve(Path::new("/etc/passwd"), user)?;
    let gid = group
        .map(|group| resolve(Path::new("/etc/group"), group))
        .transpose()?;
    let own = rustix::process::geteuid();
    if !own.is_root() && uid != own.as_raw() {
        let text =
            format!("only root can give a socket to {user}: run the KMS as root, or use --socket-mode");
        return Err(Error::new(Code::InvalidSocketOwner, text));
    }
    Ok(SocketAccess {
        uid: Some(uid),
        gid,
        mode,
    })
}

fn parse_mode(text: &str) -> Result<u32> {
    let octal = text.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) && (1..=4).contains(&text.len());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(Error::new(
            Code::InvalidSocketMode,
            format!("{text:?} is no octal mode between 0 and 0777"),
        )),
    }
}

/// The number of a user or group: a number, or a name in the file (passwd(5), group(5)). Other name services are not
/// asked; their users are given by number.
fn resolve(file: &Path, name: &str) -> Result<u32> {
    const NOBODY: u32 = u32::MAX; // -1 means "leave it" to chown(2).
    if let Ok(number) = name.parse::<u32>()
        && number != NOBODY
    {
        return Ok(number);
    }
    let lines = std::fs::read_to_string(file).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(String::new()),
        _ => Err(Error::because(
            Code::InvalidSocketOwner,
            format!("{} cannot be read", file.display()),
            error,
        )),
    })?;
    let number = lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1))
            .flatten()?
            .parse()
            .ok()
    });
    number.filter(|_| !name.is_empty()).ok_or_else(|| {
        let text = format!(
            "{name:?} is not in {}: give a known name or a number",
            file.display()
        );
        Error::new(Code::InvalidSocketOwner, text)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn paths() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        let code = |path: &Path| check_path(path.to_str().unwrap()).unwrap_err().code();
        let good = real.join("socket");
        assert_eq!(
            check_path(good.to_str().unwrap()).unwrap(),
            good.to_str().unwrap()
        );
        assert_eq!(code(Path::new("relative")), Code::InvalidPath);
        assert_eq!(code(Path::new("/")), Code::InvalidPath);
        assert_eq!(code(&real.join("no/socket")), Code::InvalidPath);
        assert_eq!(code(&real.join("x".repeat(107))), Code::InvalidPath);
        let file = real.join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(code(&file), Code::InvalidPath);
        let server = UnixListener::bind(&good).unwrap();
        assert_eq!(code(&good), Code::SocketInUse);
        drop(server);
        assert!(
            check_path(good.to_str().unwrap()).is_ok(),
            "a stale socket is replaced"
        );
    }

    #[test]
    fn modes_and_owners() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0", 0), ("0777", 0o777)] {
            assert_eq!(access(None, Some(text)).unwrap().mode, mode);
        }
        for bad in ["", "8", "01000", "1777", "-1", "+60", "0o60", "00600"] {
            assert_eq!(
                access(None, Some(bad)).unwrap_err().code(),
                Code::InvalidSocketMode,
                "{bad}"
            );
        }
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(access(Some(&own.to_string()), None).unwrap().uid, Some(own));
        for bad in ["", ":", "no such user", "4294967295", "0:no such group"] {
            assert_eq!(
                access(Some(bad), None).unwrap_err().code(),
                Code::InvalidSocketOwner,
                "{bad}"
            );
        }
        assert_eq!(resolve(Path::new("/etc/passwd"), "root").unwrap(), 0);
    }
}
