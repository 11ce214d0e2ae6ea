//! `GET` and `POST /v1/audit/archive` (rule M04): the oldest records leave the catalogue for a file that somebody keeps.
//!
//! The records of all accounts are read first, and their removal is asked for with the hash of the last of them, which only
//! who has them all can have computed. Then the log begins after a head under a seal, from which the rest verifies. The rows go
//! in small transactions; what a crash leaves of them is no part of the log any more, and goes later.

use crate::audit::{self, Caller, Head};
use crate::calls::Operation;
use crate::catalogue::audit_heads::{self, ARCHIVED, HeadRow};
use crate::catalogue::{Write, meta};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::jobs::audit_passes;
use sealblk_api::{ArchiveAudit, AuditHead, AuditPage};

/// Removes the records up to one.
pub(crate) struct Archive {
    /// The last record that goes, as `SEQ:HASH`.
    text: String,
    last: Head,
}

impl Archive {
    /// # Errors
    /// [`Code::InvalidRequest`] for what is no hash.
    pub(crate) fn new(options: &ArchiveAudit) -> Result<Self> {
        let text = format!("{}:{}", options.before.saturating_sub(1), options.hash);
        let last = audit_passes::parse(&text)?;
        Ok(Archive { text, last })
    }

    async fn check(&self, kms: &Kms) -> Result<()> {
        let (begin, newest) = {
            let mut db = kms.catalogue.read().await?;
            (audit::archived(&mut db).await?, audit::newest(&mut db).await?)
        };
        let before = self.last.seq + 1;
        if self.last.seq <= begin.seq {
            let text = format!(
                "all before record {before} is archived already: the log begins with record {}",
                begin.seq + 1
            );
            return Err(Error::new(Code::AuditArchived, text));
        }
        if self.last.seq > newest.seq {
            let text = format!(
                "there is no record {before} yet: the newest one is {}",
                newest.seq
            );
            return Err(Error::new(Code::InvalidRequest, text));
        }
        // What is removed must be sound: nobody can look at it here again.
        let reached = audit::verify_apart(&kms.catalogue, begin, self.last.seq, || true).await?;
        if reached != self.last {
            let text = format!(
                "record {} has another hash than what was archived: keep the log, and the file as evidence",
                self.last.seq
            );
            return Err(Error::new(Code::AuditBroken, text));
        }
        Ok(())
    }
}

/// The archive is of all accounts' records.
fn check_owner(caller: &Caller) -> Result<()> {
    if caller.account == meta::OWNER {
        return Ok(());
    }
    let text = format!(
        "the log is one for all accounts: ask a Security Administrator of account {}",
        meta::OWNER
    );
    Err(Error::new(Code::NotAuthorized, text))
}

impl Operation for Archive {
    const CALL: &'static str = "audit.archive";
    type Decided = ();
    type Answer = AuditHead;

    fn object(&self) -> &str {
        &self.text
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        check_owner(caller)?;
        self.check(kms).await
    }

    async fn decide(&self, kms: &Kms, _: &Caller, tx: &mut Write) -> Result<()> {
        // Another archive may have come first.
        if audit::archived(tx).await?.seq >= self.last.seq {
            let text = "the records were archived by another call meanwhile";
            return Err(Error::new(Code::AuditArchived, text));
        }
        let mut head = HeadRow {
            kind: ARCHIVED.to_owned(),
            seq: self.last.seq.cast_signed(),
            hash: self.last.hash.clone(),
            seal: Vec::new(),
        };
        head.seal = kms.keyring.seal(tx, &head.statement()).await?;
        Ok(audit_heads::set(tx, &head).await?)
    }

    async fn act(&self, kms: &Kms, _: &Caller, (): ()) -> Result<AuditHead> {
        kms.key_work.notify_one();
        Ok(AuditHead::from(&self.last))
    }
}

/// A page of the records of all accounts, for an archive.
///
/// # Errors
/// [`Code::NotAuthorized`].
pub(crate) async fn page(kms: &Kms, caller: &Caller, after: u64, limit: u32) -> Result<AuditPage> {
    check_owner(caller)?;
    let mut db = kms.catalogue.read().await?;
    let archived = audit::archived(&mut db).await?;
    let mut records = audit::list_all(&mut db, after, limit + 1).await?;
    let more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let next = records.last().map(|record| record.seq).filter(|_| more);
    Ok(AuditPage {
        audit: records,
        next,
        archived: Some(AuditHead::from(&archived)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::kms::activate;
    use crate::calls::run;
    use crate::calls::tests::{World, caller};
    use crate::catalogue::behind;
    use crate::jobs::archived::sweep;
    use crate::jobs::housekeeping;

    async fn count(world: &World) -> i64 {
        let mut db = world.kms.catalogue.read().await.unwrap();
        behind::value(&mut db, "SELECT count(*) FROM audit").await
    }

    /// A crash after the decision leaves rows that are no part of the log any more, and go later.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_that_was_interrupted_is_ended_by_the_next_daemon() {
        let mut world = World::new().await;
        for _ in 0..5 {
            run(&world.kms, caller(), activate::Activate).await.unwrap();
        }
        housekeeping::write(&world.kms, false).await.unwrap();
        let page = super::page(&world.kms, &caller(), 0, 100).await.unwrap();
        let options = ArchiveAudit {
            before: 5,
            hash: page.audit[3].hash.clone(),
        };
        let archive = Archive::new(&options).unwrap();
        world.kms.decide(&caller(), &archive).await.unwrap();
        let rows = count(&world).await;
        let begin = async |world: &World| {
            let page = super::page(&world.kms, &caller(), 0, 100).await.unwrap();
            (page.archived.unwrap().seq, page.audit[0].seq)
        };
        assert_eq!(begin(&world).await, (4, 5));
        // Neither the triggers nor a start mind.
        world.crash_and_recover().await;
        assert_eq!(begin(&world).await, (4, 5));
        audit_passes::verify(&world.kms, meta::OWNER, None).await.unwrap();
        sweep(&world.kms).await.unwrap();
        assert!(count(&world).await <= rows - 3, "the rows have gone");
        audit_passes::verify(&world.kms, meta::OWNER, None).await.unwrap();
        // What is not archived stays, whoever tries.
        let mut db = world.kms.catalogue.write_alone().await.unwrap();
        let refused = behind::run(&mut db, "DELETE FROM audit").await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}
