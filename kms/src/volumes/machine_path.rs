//! Paths on the host that a caller names for an instance: the socket of its virtual machine, the disk that it boots from.

use std::path::Path;

use crate::audit::Caller;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside;

/// Whether the caller may name the socket of a virtual machine, which may not be there yet.
///
/// # Errors
/// [`Code::PathNotAllowed`], [`Code::InvalidPath`].
pub(crate) async fn check_permitted(kms: &Kms, caller: &Caller, vm_socket: Option<&str>) -> Result<()> {
    let Some(path) = vm_socket else { return Ok(()) };
    let named = kms.paths.named(caller, path)?;
    aside::named(path.as_ref(), move |_: &Path| named.check()).await
}

/// A path on the host, of what may not be there yet.
pub(crate) fn check_path(path: Option<&str>, most: usize, what: &str) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    if !path.starts_with('/') || path.contains('\0') || path.len() > most {
        let text = format!("{path:?} cannot be {what}: give an absolute path of at most {most} bytes");
        return Err(Error::new(Code::InvalidPath, text));
    }
    Ok(())
}
