//! Rules D03, S01, I02 and K09: encryption and key of a disk, a snapshot or an image never change. To ask for what they are
//! changes nothing.

use crate::audit::Caller;
use crate::catalogue::{Write, keys};
use crate::error::{Code, Error, Result};

/// What keeps its encryption and its key.
pub(crate) struct Fixed<'a> {
    pub(crate) object: Object,
    pub(crate) name: &'a str,
    pub(crate) encrypted: bool,
    /// Id of the key; of a plain one there is none.
    pub(crate) key: Option<&'a str>,
}

/// What it is.
#[derive(Clone, Copy)]
pub(crate) enum Object {
    Disk,
    Snapshot,
    Image,
}

impl Fixed<'_> {
    /// Refuses another encryption, or another key, than there is.
    ///
    /// # Errors
    /// [`Code::EncryptionFixed`], [`Code::SnapshotEncryptionFixed`], [`Code::ImageEncryptionFixed`]; [`Code::KeyFixed`].
    pub(crate) async fn check(
        &self,
        caller: &Caller,
        tx: &mut Write,
        encrypted: Option<bool>,
        key: Option<&str>,
    ) -> Result<()> {
        let (code, key_code) = match self.object {
            Object::Disk => (Code::EncryptionFixed, Code::KeyFixed),
            Object::Snapshot => (Code::SnapshotEncryptionFixed, Code::KeyFixed),
            Object::Image => (Code::ImageEncryptionFixed, Code::ImageEncryptionFixed),
        };
        match encrypted.filter(|wanted| *wanted != self.encrypted) {
            Some(true) => return Err(self.refusal(code, "is plain, and stays so", "an encrypted disk")),
            Some(false) => return Err(self.refusal(code, "is encrypted, and stays so", "a plain disk")),
            None => {}
        }
        let Some(wanted) = key else { return Ok(()) };
        let Some(present) = self.key else {
            let keeps = "is plain and has no key, and stays so";
            return Err(self.refusal(code, keeps, "an encrypted disk"));
        };
        let named = keys::find(tx, &caller.account, wanted).await?;
        if named.is_some_and(|key| key.id == present) {
            return Ok(());
        }
        let keeps = format!("has key {present}, and keeps it");
        Err(self.refusal(key_code, &keeps, "a disk with the other key"))
    }

    fn refusal(&self, code: Code, keeps: &str, other: &str) -> Error {
        let name = self.name;
        let text = match self.object {
            Object::Disk => format!("disk {name} {keeps}: create {other}, and copy the data to it"),
            Object::Snapshot => format!(
                "snapshot {name} {keeps}, as its disk does: make a disk from it, and copy the data to {other}"
            ),
            Object::Image => format!(
                "image {name} {keeps}, as its snapshot does: make a disk from it, copy the data to {other}, and make an \
                 image of that"
            ),
        };
        Error::new(code, text)
    }
}
