//! Rules S06 and I06. A KMS serves one region and knows no other's, so nothing is copied to a region.

use crate::error::{Code, Error};

/// Why an object, such as `snapshot one`, is not copied from its own region to the one that is wanted. `stays` is the rule's
/// code where the rule forbids it, `here` what to do in its own region.
pub(crate) fn refusal(object: &str, stays: Option<Code>, here: &str, own: &str, wanted: &str) -> Error {
    if wanted == own {
        let text = format!("{object} is in region {own} already: {here}");
        return Error::new(Code::SameRegion, text);
    }
    if let Some(code) = stays {
        let text = format!(
            "{object} is encrypted, and its key does not leave region {own}: make a disk from it here, and copy the data \
             in a guest to a disk of region {wanted}"
        );
        return Error::new(code, text);
    }
    let text = format!(
        "this KMS serves region {own} and knows no service of region {wanted}: make a disk from {object} here, and copy \
         the data in a guest to a disk there"
    );
    Error::new(Code::UnknownRegion, text)
}
