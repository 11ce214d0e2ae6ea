//! An accounts file that somebody has written.

use super::parse;
use crate::{id, limits, role};

/// The file's contents.
pub fn accounts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(principals) = parse(text) else { return };
    assert!(principals.len() <= limits::PRINCIPALS);
    for principal in principals {
        assert!(id::check_name(&principal.account).is_ok());
        assert!(!principal.roles.is_empty() && principal.roles.len() <= role::ALL.len());
    }
}
