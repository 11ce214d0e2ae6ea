//! An accounts file that somebody has written.

use sealblk_api::Role;

use super::parse;
use crate::{id, limits};

/// The file's contents.
pub fn accounts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(listed) = parse(text) else { return };
    for (account, prefixes) in listed.allowed.paths.iter() {
        assert!(id::check_name(account).is_ok());
        assert!(prefixes.len() <= limits::ACCOUNT_PATHS);
        assert!(prefixes.iter().all(|prefix| prefix.to_string().starts_with('/')));
    }
    assert!(listed.principals.len() <= limits::PRINCIPALS);
    for principal in listed.principals {
        assert!(id::check_name(&principal.account).is_ok());
        assert!(!principal.roles.is_empty() && principal.roles.len() <= Role::ALL.len());
    }
}
