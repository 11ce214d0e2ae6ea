//! `GET /v1/audit/verify`, and what each start verifies (rule M04).

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::audit::{self, AuditError, Decision, Head};
use crate::catalogue::audit_heads::{self, HeadRow, SEALED};
use crate::catalogue::{Catalogue, Write, meta};
use crate::conditions::Condition;
use crate::context::Kms;
use crate::context::passes::Outcome;
use crate::error::{Code, Error, Result};
use crate::keys::keyring::Keyring;
use crate::limits;
use sealblk_api::AuditHead;

/// Recomputes the whole log, of all accounts, and compares it with a head that was `noted` earlier, as `SEQ:HASH`. The answer is
/// the head, or for an account that has not the whole log its own newest record: how many the others have is theirs.
///
/// # Errors
/// [`Code::AuditBroken`], [`Code::AuditArchived`]; [`Code::InvalidRequest`] for what is no head.
pub(crate) async fn verify(kms: &Arc<Kms>, account: &str, noted: Option<&str>) -> Result<AuditHead> {
    let noted = noted.map(parse).transpose()?;
    let outcome = pass(kms).await?;
    let head = outcome.map_err(|error| Error::because(error.code(), audit::NO_EVIDENCE, error))?;
    let mut db = kms.catalogue.read().await?;
    if let Some(noted) = noted {
        audit::compare(&mut db, &head, &noted).await?;
    }
    if account == meta::OWNER {
        return Ok(AuditHead::from(&head));
    }
    let own = audit::newest_of(&mut db, account, &head).await?;
    Ok(AuditHead::from(&own))
}

/// What a pass finds that begins from now on.
async fn pass(kms: &Arc<Kms>) -> Result<Outcome> {
    let (sender, outcome) = oneshot::channel();
    let is_first = {
        let mut waiting = kms.passes.lock();
        waiting.callers.push(sender);
        !std::mem::replace(&mut waiting.runs, true)
    };
    if is_first {
        tokio::spawn(run_passes(Arc::clone(kms)));
    }
    outcome
        .await
        .map_err(|error| Error::because(Code::Internal, "the audit log was not verified to its end", error))
}

async fn run_passes(kms: Arc<Kms>) {
    loop {
        let callers = {
            let mut waiting = kms.passes.lock();
            waiting.runs = !waiting.callers.is_empty();
            std::mem::take(&mut waiting.callers)
        };
        if callers.is_empty() {
            return;
        }
        let outcome = whole(&kms, || callers.iter().any(|caller| !caller.is_closed())).await;
        let outcome = outcome.map_err(Arc::new);
        for caller in callers {
            // A caller that has gone needs no answer.
            let _ = caller.send(outcome.clone());
        }
    }
}

async fn whole(kms: &Kms, wanted: impl Fn() -> bool) -> std::result::Result<Head, AuditError> {
    let begin = audit::archived(&mut *kms.catalogue.read().await?).await?;
    audit::verify_apart(&kms.catalogue, begin, u64::MAX, wanted).await
}

/// Verifies what a start has to know: the seals, and the whole log if it has no more than `most` records, else those since the
/// last seal, of which there are few. All follow in the [background](in_background), so that no log is too long for a start.
///
/// # Errors
/// [`Code::AuditBroken`].
pub(crate) async fn at_start(catalogue: &Catalogue, keyring: &Keyring, most: u64) -> Result<()> {
    let mut db = catalogue.read().await?;
    let meta = meta::load(&mut db).await?;
    for row in audit_heads::all(&mut db).await? {
        if !keyring.is_sealed(&meta, &row.statement(), &row.seal) {
            return Err(AuditError::Forged(row.seq.unsigned_abs()).into());
        }
    }
    let begin = audit::archived(&mut db).await?;
    let sealed = audit_heads::find(&mut db, SEALED).await?.map(Head::from);
    // The sealed head may have been archived since.
    let sealed = sealed.filter(|sealed| sealed.seq > begin.seq);
    let newest = audit::newest(&mut db).await?;
    if let Some(sealed) = &sealed {
        audit::compare(&mut db, &newest, sealed).await?;
    }
    drop(db);
    let is_short = newest.seq - begin.seq <= most;
    let from = sealed.filter(|_| !is_short).unwrap_or(begin);
    let up_to = from.seq.saturating_add(most);
    audit::verify_apart(catalogue, from, up_to, || true).await?;
    Ok(())
}

/// Verifies the whole log once. What is wrong with it is an alarm.
pub(crate) async fn in_background(kms: Arc<Kms>) {
    let error = loop {
        let error = match pass(&kms).await {
            Ok(Ok(head)) => {
                return log::info!("the audit log is what was written, up to record {}", head.seq);
            }
            Ok(Err(error)) => Error::because(error.code(), audit::NO_EVIDENCE, error),
            Err(error) => error,
        };
        if error.code() == Code::AuditBroken {
            break error;
        }
        log::warn!("it will be tried again: {}", error.full_message());
        tokio::time::sleep(limits::KEY_CLOCK_TIME).await;
    };
    let text = format!(
        "{}: keep a copy of the catalogue as evidence",
        error.full_message()
    );
    kms.conditions.raise(Condition::AuditBroken, text);
    let recorded = async {
        let caller = kms.own_caller(meta::OWNER)?;
        let decision = Decision::Failed(&error);
        kms.record(&caller, "audit.alarm", &error.full_message(), decision)
            .await
    };
    if let Err(error) = recorded.await {
        log::error!("{}", error.full_message());
    }
}

/// Seals the head of the log, so that the next start begins there.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn seal(kms: &Kms, tx: &mut Write) -> Result<()> {
    let newest = audit::newest(tx).await?;
    let sealed = audit_heads::find(tx, SEALED).await?;
    if newest.seq == 0 || sealed.is_some_and(|sealed| Head::from(sealed) == newest) {
        return Ok(());
    }
    let mut head = HeadRow {
        kind: SEALED.to_owned(),
        seq: newest.seq.cast_signed(),
        hash: newest.hash,
        seal: Vec::new(),
    };
    head.seal = kms.keyring.seal(tx, &head.statement()).await?;
    Ok(audit_heads::set(tx, &head).await?)
}

/// A head as `SEQ:HASH`.
///
/// # Errors
/// [`Code::InvalidRequest`].
pub(crate) fn parse(text: &str) -> Result<Head> {
    let parts = text.split_once(':').and_then(|(seq, hash)| {
        let hash = hex::decode(hash).ok().filter(|hash| hash.len() == 32)?;
        Some(Head {
            seq: seq.parse().ok()?,
            hash,
        })
    });
    parts.ok_or_else(|| {
        let text = "head is SEQ:HASH, as `sealctl audit verify` prints it: the position of a record, and 64 hexadecimal digits";
        Error::new(Code::InvalidRequest, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::kms::activate;
    use crate::calls::run;
    use crate::calls::tests::{World, caller};
    use crate::catalogue::behind;
    use crate::jobs::housekeeping;

    async fn with_records() -> World {
        let world = World::new().await;
        for _ in 0..4 {
            run(&world.kms, caller(), activate::Activate).await.unwrap();
        }
        world
    }

    /// Changes a record as somebody does who can write to the catalogue.
    async fn falsify(world: &World, statement: &'static str) {
        let mut db = world.kms.catalogue.write_alone().await.unwrap();
        let unguard = "DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_never_cut";
        behind::run(&mut db, unguard).await.unwrap();
        behind::run(&mut db, statement).await.unwrap();
    }

    async fn starts(world: &World, most: u64) -> Option<Code> {
        let started = at_start(&world.kms.catalogue, &world.kms.keyring, most).await;
        started.err().map(|error| error.code())
    }

    /// All who come during a pass share the next one: it begins when they have asked.
    #[tokio::test(flavor = "multi_thread")]
    async fn one_pass_is_for_all_who_ask_meanwhile() {
        let world = with_records().await;
        // The first pass waits for a connection.
        let mut readers = Vec::new();
        for _ in 0..4 {
            readers.push(world.kms.catalogue.read().await.unwrap());
        }
        let ask = || {
            let kms = Arc::clone(&world.kms);
            tokio::spawn(async move { verify(&kms, meta::OWNER, None).await })
        };
        let mut asked = vec![ask()];
        let waiting = || {
            let waiting = world.kms.passes.lock();
            (waiting.runs, waiting.callers.len())
        };
        while waiting() != (true, 0) {
            tokio::task::yield_now().await;
        }
        asked.extend((0..20).map(|_| ask()));
        while waiting() != (true, 20) {
            tokio::task::yield_now().await;
        }
        drop(readers);
        let head = asked.remove(0).await.unwrap().unwrap();
        for other in asked {
            assert_eq!(other.await.unwrap().unwrap().hash, head.hash);
        }
        assert_eq!(waiting().1, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_m04_a_start_verifies_from_the_sealed_head_and_the_rest_follows() {
        let world = with_records().await;
        housekeeping::write(&world.kms, false).await.unwrap();
        run(&world.kms, caller(), activate::Activate).await.unwrap();
        falsify(&world, "UPDATE audit SET pid = 77 WHERE seq = 2").await;
        assert_eq!(
            starts(&world, 1000).await,
            Some(Code::AuditBroken),
            "a short log is verified whole"
        );
        assert_eq!(starts(&world, 2).await, None, "a long one from the seal on");
        in_background(Arc::clone(&world.kms)).await;
        assert_eq!(world.kms.conditions.all()[0].code, "AuditBroken");
        assert_eq!(last_call(&world).await, "audit.alarm");
        // What has come since the seal is verified at once.
        falsify_more(
            &world,
            "UPDATE audit SET pid = 77 WHERE seq = (SELECT seq + 1 FROM audit_heads)",
        )
        .await;
        assert_eq!(starts(&world, 2).await, Some(Code::AuditBroken));
    }

    async fn last_call(world: &World) -> String {
        let mut db = world.kms.catalogue.read().await.unwrap();
        behind::value(&mut db, "SELECT call FROM audit ORDER BY seq DESC LIMIT 1").await
    }

    async fn falsify_more(world: &World, statement: &'static str) {
        let mut db = world.kms.catalogue.write_alone().await.unwrap();
        behind::run(&mut db, statement).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_m04_a_log_that_was_cut_behind_its_seal_or_sealed_by_another_is_not_served() {
        for statement in [
            "DELETE FROM audit WHERE seq >= 3",
            "UPDATE audit SET hash = zeroblob(32) WHERE seq = (SELECT seq FROM audit_heads)",
            "UPDATE audit_heads SET seq = seq - 1",
            "UPDATE audit_heads SET hash = zeroblob(32)",
            "UPDATE audit_heads SET kind = 'archived'",
        ] {
            let world = with_records().await;
            housekeeping::write(&world.kms, false).await.unwrap();
            assert_eq!(starts(&world, 1).await, None);
            falsify(&world, statement).await;
            assert_eq!(starts(&world, 1).await, Some(Code::AuditBroken), "{statement}");
        }
    }
}
