//! Looks at the clocks: what has passed since the last look is counted and kept, and a wall clock that jumped is an alarm.

use super::Kms;
use crate::audit::{self, Decision};
use crate::catalogue::{clock, meta};
use crate::conditions::Condition;
use crate::error::Result;

/// One look.
///
/// # Errors
/// The catalogue's: then the time counts all the same, and jumps are recorded by a later look.
pub(super) async fn look(kms: &Kms) -> Result<()> {
    let (times, jumps) = kms.clock.look();
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
    let mut tx = kms.catalogue.write().await?;
    clock::store(&mut tx, &times).await?;
    for jump in &jumps {
        let caller = kms.own_caller(meta::OWNER)?;
        audit::append(&mut tx, &caller, "clock.alarm", jump, Decision::Allowed).await?;
    }
    tx.commit().await?;
    kms.clock.recorded(jumps.len());
    Ok(())
}
