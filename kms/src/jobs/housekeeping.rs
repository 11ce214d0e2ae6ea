//! What the daemon writes down once a minute, and when it ends: the time that has passed, and what the audit log is owed.

use super::audit_passes;
use crate::audit::{self, Caller, Decision};
use crate::catalogue::{Write, clock, meta};
use crate::conditions::Condition;
use crate::context::strangers::Refused;
use crate::context::{Kms, state_files};
use crate::error::{Code, Error, Result};
use crate::request;
use crate::timekeeper::{Times, boottime};

/// Writes it, in one transaction.
///
/// # Errors
/// The catalogue's: then nothing is lost, and a later call writes it.
pub(crate) async fn write(kms: &Kms, at_end: bool) -> Result<()> {
    state_files::look(kms).await;
    let (times, jumps) = kms.clock.look();
    say_jump(kms, &times);
    let refused = kms.strangers.due(boottime(), at_end);
    let written = async {
        let mut tx = kms.catalogue.write().await?;
        clock::store(&mut tx, &times).await?;
        for jump in &jumps {
            let caller = kms.own_caller(meta::OWNER)?;
            audit::append(&mut tx, &caller, "clock.alarm", jump, Decision::Allowed).await?;
        }
        for refused in &refused {
            record_stranger(kms, &mut tx, *refused).await?;
        }
        audit_passes::seal(kms, &mut tx).await?;
        Ok(tx.commit().await?)
    };
    let written: Result<()> = written.await;
    match written {
        Ok(()) => kms.clock.recorded(jumps.len()),
        Err(_) => refused
            .into_iter()
            .for_each(|refused| kms.strangers.back(refused)),
    }
    written
}

fn say_jump(kms: &Kms, times: &Times) {
    match times.late_jump() {
        Some(jump) => kms.conditions.raise(
            Condition::ClockJumped,
            format!(
                "the wall clock went {jump}: see that it is right, and stays so; keys' deletion days, months and \
                 Idempotency-Keys go by the time that passed"
            ),
        ),
        None => kms.conditions.clear(Condition::ClockJumped),
    }
}

/// Records the first call of somebody who belongs to no account.
///
/// # Errors
/// [`Code::AuditFailed`].
pub(crate) async fn record_first(kms: &Kms, refused: Refused) -> Result<()> {
    let lost = |error| Error::because(Code::AuditFailed, "the audit log cannot be written", error);
    let mut tx = kms.catalogue.write().await.map_err(lost)?;
    record_stranger(kms, &mut tx, refused).await?;
    tx.commit().await.map_err(lost)
}

async fn record_stranger(kms: &Kms, tx: &mut Write, refused: Refused) -> Result<()> {
    let own = kms.own_caller(meta::OWNER)?;
    let caller = Caller {
        account: String::new(),
        uid: refused.uid,
        pid: refused.pid,
        // The first refusal's own; those that are only counted have one together.
        request: request::current().unwrap_or(own.request),
        facts: own.facts,
    };
    let refusal = Error::new(Code::NotAuthorized, "belongs to no account");
    audit::append(tx, &caller, "api", &refused.object(), Decision::Refused(&refusal)).await
}
