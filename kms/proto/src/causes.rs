//! Errors as both daemons tell them.

use std::error::Error;

/// An error and its causes on one line, each behind a colon, for a log line or a message to an operator: an error's own
/// sentence never repeats what caused it.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
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
}
