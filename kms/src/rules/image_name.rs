//! Names of images.

use crate::audit::Caller;
use crate::catalogue::{Write, images};
use crate::error::{Code, Error, Result};

/// Refuses a name that an image of the account has.
///
/// # Errors
/// [`Code::NameTaken`].
pub(crate) async fn check_name_free(tx: &mut Write, caller: &Caller, name: &str) -> Result<()> {
    if images::has_name(tx, &caller.account, name).await? {
        let text = format!("there is an image {name:?} already: choose another name");
        return Err(Error::new(Code::NameTaken, text));
    }
    Ok(())
}
