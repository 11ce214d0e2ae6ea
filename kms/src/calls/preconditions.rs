//! Changes of an object that is still as the caller read it (`ETag` and `If-Match`, RFC 9110, 13.1.1).
//!
//! An object's tag tells what calls change of it: what the catalogue has, and not the counters of serving processes.

use std::fmt::Debug;

use sha2::{Digest, Sha256};
use sqlx::SqliteConnection;

use super::Operation;
use crate::audit::Caller;
use crate::catalogue::{Write, attachments, instances, keys};
use crate::context::Kms;
use crate::context::find::{self, not_found};
use crate::error::{Code, Error, Result};
use crate::views;
use sealblk_api::Key;

/// A kind of object that has tags.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tagged {
    Disk,
    Image,
    Instance,
    Key,
    Snapshot,
}

impl Tagged {
    /// The kind that a call's path names.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "disk" => Tagged::Disk,
            "image" => Tagged::Image,
            "instance" => Tagged::Instance,
            "key" => Tagged::Key,
            "snapshot" => Tagged::Snapshot,
            _ => return None,
        })
    }

    /// The tag of the caller's object of this id or name, with its quotes. A disk in the bin has the one that it had before.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::AmbiguousName`].
    pub(crate) async fn tag(
        self,
        db: &mut SqliteConnection,
        caller: &Caller,
        wanted: &str,
    ) -> Result<String> {
        Ok(match self {
            Tagged::Disk => {
                let row = find::disk_or_deleted(db, caller, wanted).await?;
                let attachments = attachments::of_disk(db, &row.id).await?;
                let ids: Vec<_> = attachments.into_iter().map(|attachment| attachment.id).collect();
                tag_of(&(row, ids))
            }
            Tagged::Image => {
                let row = find::image(db, caller, wanted).await?;
                tag_of(&views::image::answer(db, caller, row).await?)
            }
            Tagged::Instance => {
                let row = find::instance(db, caller, wanted).await?;
                let disks = instances::disks(db, &row.id).await?;
                let ids: Vec<_> = disks.into_iter().map(|(id, _)| id).collect();
                tag_of(&(row, ids))
            }
            Tagged::Key => {
                let row = keys::find(db, &caller.account, wanted).await?;
                let key = views::key::answer(db, row.ok_or_else(|| not_found("key", wanted))?).await?;
                // Calls on disks do not change the key.
                tag_of(&Key { disks: 0, ..key })
            }
            Tagged::Snapshot => tag_of(&find::snapshot(db, caller, None, wanted).await?),
        })
    }
}

/// A row as it is written for debugging has all of its fields.
fn tag_of(row: &impl Debug) -> String {
    let digest = Sha256::digest(format!("{row:?}").as_bytes());
    format!("\"{}\"", hex::encode(&digest[..16]))
}

/// The tags of an `If-Match`, of which the object must have one; empty: any object will do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tags(Vec<String>);

impl Tags {
    /// # Errors
    /// [`Code::InvalidRequest`].
    pub(crate) fn parse(header: &str) -> Result<Self> {
        if header.trim() == "*" {
            return Ok(Tags::default());
        }
        let tags: Vec<String> = header.split(',').map(|tag| tag.trim().to_owned()).collect();
        let is_tag = |tag: &String| tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"');
        if tags.iter().all(is_tag) {
            return Ok(Tags(tags));
        }
        let text = "If-Match is *, or the value of an ETag with its quotes";
        Err(Error::new(Code::InvalidRequest, text))
    }
}

/// A call that changes an object only if it has one of the tags.
pub(crate) struct Matching<O> {
    /// What kind of object [`Operation::object`] names.
    pub(crate) kind: Tagged,
    pub(crate) operation: O,
    pub(crate) tags: Tags,
}

impl<O: Operation> Operation for Matching<O> {
    const CALL: &'static str = O::CALL;
    const FREES: bool = O::FREES;
    type Decided = O::Decided;
    type Answer = O::Answer;

    fn object(&self) -> &str {
        self.operation.object()
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        self.operation.prepare(kms, caller).await
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<O::Decided> {
        let wanted = self.operation.object();
        // If any object will do, the operation says whether there is one.
        if !self.tags.0.is_empty() && !self.tags.0.contains(&self.kind.tag(tx, caller, wanted).await?) {
            let text = format!("{wanted} is not as If-Match says: read it again, and decide anew");
            return Err(Error::new(Code::PreconditionFailed, text));
        }
        self.operation.decide(kms, caller, tx).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, decided: O::Decided) -> Result<O::Answer> {
        self.operation.act(kms, caller, decided).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::disk::delete::DeleteDisk;

    /// A deletion frees room, also where it depends on a tag: on a full file system it was refused then.
    #[test]
    fn what_frees_room_does_so_with_a_tag_too() {
        const { assert!(Matching::<DeleteDisk>::FREES) }
    }

    #[test]
    fn tags_are_parsed_as_rfc_9110_has_them() {
        assert_eq!(Tags::parse("*").unwrap().0, Vec::<String>::new());
        assert_eq!(Tags::parse(" \"a\" , \"b\"").unwrap().0, ["\"a\"", "\"b\""]);
        for wrong in ["", "a", "\"", "\"a\",", "W/\"a\"", "*, \"a\""] {
            assert!(Tags::parse(wrong).is_err(), "{wrong}");
        }
    }
}
