//! Errors as both daemons tell them.

use std::error::Error;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// An error and its causes on one line, each behind a colon, for a log line or a message to an operator: an error's own
/// sentence never repeats what caused it. A limit of open files that was the cause is named.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut limit = None;
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        limit = limit.or_else(|| limit_of_files(cause));
        source = cause.source();
    }
    if let Some(limit) = limit {
        text.push_str(": ");
        text.push_str(&limit);
    }
    text
}

/// Which limit of open files it is that was reached, if it is one, and what to do.
fn limit_of_files(error: &(dyn Error + 'static)) -> Option<String> {
    let number = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
        .or_else(|| error.downcast_ref::<Errno>().map(|errno| errno.raw_os_error()))?;
    match Errno::from_raw_os_error(number) {
        Errno::MFILE => {
            let most = getrlimit(Resource::Nofile).current;
            let most = most.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
            Some(format!(
                "this process has all of the {most} open files that it may have: raise LimitNOFILE= of its unit"
            ))
        }
        Errno::NFILE => Some(
            "the host has all of the open files that it may have: raise fs.file-max, see sysctl(8)"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::channel::ChannelError;

    #[test]
    fn every_cause_is_told_once() {
        let bad = ChannelError::Io(io::Error::from_raw_os_error(libc::EIO));
        let told = "the connection failed: Input/output error (os error 5)";
        assert_eq!(with_causes(&bad), told);
        assert_eq!(with_causes(&io::Error::other(bad)), told);
    }

    #[test]
    fn a_limit_of_open_files_is_named() {
        let most = getrlimit(Resource::Nofile).current.unwrap();
        for (number, told) in [
            (libc::EMFILE, format!("all of the {most} open files")),
            (libc::EMFILE, "LimitNOFILE=".to_owned()),
            (libc::ENFILE, "fs.file-max".to_owned()),
        ] {
            let all = with_causes(&ChannelError::Io(io::Error::from_raw_os_error(number)));
            assert!(all.contains(&told), "{all}");
        }
    }
}
