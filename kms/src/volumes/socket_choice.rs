//! What an attach call says about its vhost-user socket.

use std::path::Path;

use nix::unistd::{Group, User};

use crate::audit::Caller;
use crate::catalogue::attachments;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside;
use crate::host::backends::vhost_socket::{self, Occupant, SocketAccess};
use crate::host::paths::{Guard, HostPath};
use crate::limits;

/// The path of a socket that a caller has named: short enough, and nobody else's.
///
/// # Errors
/// [`Code::PathNotAllowed`], [`Code::InvalidPath`], [`Code::SocketInUse`].
pub(crate) async fn choose(kms: &Kms, caller: &Caller, text: &str) -> Result<String> {
    let (named, guard) = (kms.paths.named(caller, text)?, kms.paths.guard(caller.uid));
    let look = move |_: &Path| {
        let path = named.open()?;
        check(&path, &guard).map(|()| path)
    };
    match aside::named(text.as_ref(), look).await {
        Ok(path) => Ok(path.into_string()),
        // Another's default socket is more than a path that cannot be chosen.
        Err(error) if error.code() == Code::InvalidPath => {
            let mut db = kms.catalogue.read().await?;
            match attachments::has_socket(&mut db, text, kms.state.default_socket_of(text)).await? {
                true => Err(attached(text)),
                false => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Another attachment has the socket.
pub(crate) fn attached(path: &str) -> Error {
    in_use(path, "another attachment has the socket")
}

fn check(path: &HostPath, guard: &Guard) -> Result<()> {
    let text = path.as_str();
    let invalid = |why: &str| Error::new(Code::InvalidPath, format!("{text:?} cannot be the socket: {why}"));
    if text.len() > limits::SOCKET_PATH_BYTES {
        return Err(invalid("a socket's path has at most 107 bytes"));
    }
    let unusable = |error| {
        Error::because(
            Code::InvalidPath,
            format!("{text:?} cannot be used as a socket"),
            error,
        )
    };
    let found = vhost_socket::look(path.directory(), path.name()).map_err(unusable)?;
    if let (Some(found), Some(uid)) = (found, guard.user())
        && vhost_socket::is_socket(&found)
        && found.st_uid != uid
    {
        return Err(in_use(text, "there is a socket of another user at"));
    }
    match vhost_socket::occupant_in(path.directory(), path.name()).map_err(unusable)? {
        Occupant::Nobody => Ok(()),
        Occupant::File => Err(invalid("there is something else; it is not replaced")),
        Occupant::Server => Err(in_use(text, "another process serves on")),
    }
}

fn in_use(text: &str, why: &str) -> Error {
    Error::new(Code::SocketInUse, format!("{why} {text}: choose another path"))
}

/// An owner `USER[:GROUP]` by their numbers.
///
/// # Errors
/// [`Code::InvalidSocketOwner`].
pub(crate) fn by_number(owner: &str) -> Result<String> {
    let (user, group) = named(owner);
    let mut numbers = user_id(user)?.to_string();
    if let Some(group) = group {
        numbers += &format!(":{}", group_id(group)?);
    }
    Ok(numbers)
}

fn named(owner: &str) -> (&str, Option<&str>) {
    owner
        .split_once(':')
        .map_or((owner, None), |(user, group)| (user, Some(group)))
}

/// Owner and mode of the socket; those of `otherwise` where nothing is said. Name services are asked for names alone.
///
/// # Errors
/// [`Code::InvalidSocketOwner`], [`Code::InvalidSocketMode`].
pub(crate) fn access(
    owner: Option<&str>,
    mode: Option<&str>,
    otherwise: SocketAccess,
) -> Result<SocketAccess> {
    let mode = match mode {
        None => otherwise.mode,
        Some(text) => parse_mode(text)?,
    };
    let Some(owner) = owner else {
        return Ok(SocketAccess { mode, ..otherwise });
    };
    let (user, group) = named(owner);
    let uid = user_id(user)?;
    let gid = group.map(group_id).transpose()?;
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

/// The number of a user: a number, or a name that the host's name services know (nsswitch.conf(5)), which may take their time.
fn user_id(name: &str) -> Result<u32> {
    number(name, |name| {
        Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
    })
}

/// The number of a group, as [`user_id`].
fn group_id(name: &str) -> Result<u32> {
    number(name, |name| {
        Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
    })
}

fn number(name: &str, find: impl FnOnce(&str) -> nix::Result<Option<u32>>) -> Result<u32> {
    const NOBODY: u32 = u32::MAX; // -1 means "leave it" to chown(2).
    if let Ok(number) = name.parse::<u32>()
        && number != NOBODY
    {
        return Ok(number);
    }
    let found = find(name).map_err(|error| {
        let text = format!("the host's name services cannot be asked for {name:?}");
        Error::because(Code::InvalidSocketOwner, text, error)
    })?;
    found.ok_or_else(|| {
        let text = format!("{name:?} is not known on this host: give a known name or a number");
        Error::new(Code::InvalidSocketOwner, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_counts_and_otherwise_the_default() {
        let own = rustix::process::geteuid().as_raw();
        let default = SocketAccess {
            uid: Some(7),
            gid: Some(8),
            mode: 0o660,
        };
        assert_eq!(access(None, None, default).unwrap(), default);
        let mode = access(None, Some("0600"), default).unwrap();
        assert_eq!((mode.uid, mode.gid, mode.mode), (Some(7), Some(8), 0o600));
        // Another's group is not an owner's that was named alone.
        let owner = access(Some(&own.to_string()), None, default).unwrap();
        assert_eq!((owner.uid, owner.gid, owner.mode), (Some(own), None, 0o660));
    }

    #[test]
    fn modes_and_owners() {
        let access = |owner: Option<&str>, mode: Option<&str>| access(owner, mode, SocketAccess::OWN);
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
        assert_eq!(user_id("root").unwrap(), 0);
        for (owner, numbers) in [("root", "0"), ("root:root", "0:0"), ("7:8", "7:8")] {
            assert_eq!(by_number(owner).unwrap(), numbers);
        }
        for bad in ["", ":", "no such user", "0:no such group"] {
            assert_eq!(
                by_number(bad).unwrap_err().code(),
                Code::InvalidSocketOwner,
                "{bad}"
            );
        }
    }
}
