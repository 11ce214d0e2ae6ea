//! What every kind of sink does.

use std::io;
use std::time::Instant;

use sealblk_api::AuditRecord;

/// Takes records to where they go. It may block, in a thread of its own.
pub(super) trait Deliver: Send {
    /// All of these records are there when it returns, in this order; some of them may have been before. `taken` counts those that are
    /// there, also where it fails.
    ///
    /// # Errors
    /// Why not all of them are known to be there: then the others come again.
    fn deliver(&mut self, records: &[AuditRecord], deadline: Instant, taken: &mut usize) -> io::Result<()>;
}

/// A record on a line, as `sealctl audit export` has it.
pub(super) fn line(record: &AuditRecord) -> io::Result<String> {
    Ok(serde_json::to_string(record)? + "\n")
}
