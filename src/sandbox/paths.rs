//! Landlock (landlock(7)): no path can be opened, run, made or removed, no port bound or connected to, nobody outside
//! signalled, whatever the rights of the user.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

/// The newest that the crate knows. What the kernel does not know of it, it leaves out: files are restricted since Linux 5.13.
const NEWEST: ABI = ABI::V10;

/// Forbids everything, except to remove a file from `directory`.
pub(super) fn forbid(directory: Option<BorrowedFd<'_>>) -> Result<(), String> {
    match restrict(directory) {
        Ok(RulesetStatus::NotEnforced) => Err("the kernel does not have it, or it is not enabled".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn restrict(directory: Option<BorrowedFd<'_>>) -> Result<RulesetStatus, RulesetError> {
    let removing = directory.map(|directory| Ok(PathBeneath::new(directory, AccessFs::RemoveFile)));
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(removing.into_iter().collect::<Vec<Result<_, RulesetError>>>())?
        .restrict_self()?;
    log::debug!("landlock: {:?}", status.landlock);
    Ok(status.ruleset)
}
