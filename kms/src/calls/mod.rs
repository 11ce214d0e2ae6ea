//! What can be asked of the daemon, one file a call: parsed and applied in the same place.
//!
//! A call that changes something is decided in one transaction, together with its intent, its charge and its audit
//! record, before anything is done. Then it acts, and then it commits, or undoes and refunds. What a crash leaves
//! open, [`crate::intents::recovery`] ends at the next start.

pub(crate) mod account;
pub(crate) mod attachment;
pub(crate) mod audit;
pub(crate) mod backend;
pub(crate) mod backup;
pub(crate) mod disk;
pub(crate) mod idempotency;
pub(crate) mod image;
pub(crate) mod instance;
pub(crate) mod key;
pub(crate) mod kms;
pub(crate) mod preconditions;
pub(crate) mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::audit::{Caller, Decision};
use crate::catalogue::Write;
use crate::context::{Kms, state_files};
use crate::error::{Code, Error, Result};
use crate::request;

/// A call that changes something.
pub(crate) trait Operation: Send + Sync + 'static {
    /// The call's name in the audit log.
    const CALL: &'static str;
    /// Whether the call frees room, or does without: then it may take of what is kept for a full file system.
    const FREES: bool = false;
    /// What was decided.
    type Decided: Send;
    /// What the caller gets.
    type Answer: Send + 'static;

    /// Id or name of what it is about, for the audit log.
    fn object(&self) -> &str;

    /// Looks at the file system and at other processes as far as [`Operation::decide`] must know them: before the
    /// transaction, which a hung mount would otherwise hold, and with it all calls.
    fn prepare(&mut self, _: &Kms, _: &Caller) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// Checks all rules, and writes what was decided into the transaction and nowhere else.
    fn decide(
        &self,
        kms: &Kms,
        caller: &Caller,
        tx: &mut Write,
    ) -> impl Future<Output = Result<Self::Decided>> + Send;

    /// Does it, and commits or undoes.
    fn act(
        &self,
        kms: &Kms,
        caller: &Caller,
        decided: Self::Decided,
    ) -> impl Future<Output = Result<Self::Answer>> + Send;
}

impl Kms {
    /// Decides, and commits the decision with its audit record; a refusal is recorded too.
    pub(crate) async fn decide<O: Operation>(&self, caller: &Caller, operation: &O) -> Result<O::Decided> {
        if let Err(error) = state_files::check_root(self).await {
            self.record_refusal(caller, O::CALL, operation.object(), &error)
                .await?;
            return Err(error);
        }
        // Before the transaction, in which others would wait for a slow sink, too.
        let mut turn = match self.sinks.turn(&self.catalogue).await {
            Ok(turn) => turn,
            Err(error) => {
                self.record_refusal(caller, O::CALL, operation.object(), &error)
                    .await?;
                return Err(error);
            }
        };
        let mut tx = state_files::begin(self).await?;
        let decided = async {
            let decided = operation.decide(self, caller, &mut tx).await?;
            crate::audit::append(&mut tx, caller, O::CALL, operation.object(), Decision::Allowed).await?;
            turn.take(&mut tx).await?;
            Ok(decided)
        };
        let decided = match decided.await {
            Ok(decided) => decided,
            Err(error) => {
                drop(turn);
                // The refusal is recorded and answered even so: the catalogue discards such a connection.
                if let Err(rollback) = tx.rollback().await {
                    log::warn!(
                        "{} was refused ({error}), and its rollback failed: {rollback}",
                        O::CALL
                    );
                }
                self.record_refusal(caller, O::CALL, operation.object(), &error)
                    .await?;
                return Err(error);
            }
        };
        tx.commit().await?;
        turn.done();
        self.sinks.wake();
        Ok(decided)
    }

    /// Decides on a call as a part of another one, in its transaction, with an audit record of its own.
    async fn decide_part<O: Operation>(
        &self,
        caller: &Caller,
        tx: &mut Write,
        operation: &O,
    ) -> Result<O::Decided> {
        let part = caller.apart();
        let decided = operation.decide(self, &part, tx).await;
        if decided.is_err() {
            // The whole is refused, and says of what.
            caller.facts.take_over(&part.facts);
        }
        let decided = decided?;
        crate::audit::append(tx, &part, O::CALL, operation.object(), Decision::Allowed).await?;
        Ok(decided)
    }
}

/// Runs a call to its end, even if the caller hangs up.
///
/// # Errors
/// The call's.
pub(crate) async fn run<O: Operation>(kms: &Arc<Kms>, caller: Caller, mut operation: O) -> Result<O::Answer> {
    let kms = Arc::clone(kms);
    let task = tokio::spawn(request::scope(caller.request.clone(), async move {
        let _running = kms.begin().await?;
        if !O::FREES {
            kms.check_reserve().await?;
        }
        if let Err(error) = kms.sinks.check() {
            kms.record_refusal(&caller, O::CALL, operation.object(), &error)
                .await?;
            return Err(error);
        }
        let _tracked = kms.retries.track_call(&caller.request);
        if let Err(error) = operation.prepare(&kms, &caller).await {
            kms.record_refusal(&caller, O::CALL, operation.object(), &error)
                .await?;
            return Err(error);
        }
        let decided = kms.decide(&caller, &operation).await?;
        let result = caught(operation.act(&kms, &caller, decided)).await;
        match &result {
            Ok(_) => log::info!("{} {}: done for uid {}", O::CALL, operation.object(), caller.uid),
            Err(error) => {
                log::warn!("{} {}: {}", O::CALL, operation.object(), error.full_message());
                kms.record_failure(&caller, O::CALL, operation.object(), error)
                    .await;
                kms.sinks.settle(&kms.catalogue).await;
            }
        }
        result
    }));
    task.await
        .unwrap_or_else(|error| Err(Error::because(Code::Internal, "the call was not ended", error)))
}

/// What was allowed and panics has failed, and is recorded so. (In a release, a panic ends the daemon.)
async fn caught<T>(act: impl Future<Output = Result<T>>) -> Result<T> {
    let mut act = std::pin::pin!(act);
    let polled = |context: &mut Context<'_>| {
        let poll = catch_unwind(AssertUnwindSafe(|| act.as_mut().poll(context)));
        poll.unwrap_or_else(|_| Poll::Ready(Err(Error::new(Code::Internal, "the call was not ended"))))
    };
    std::future::poll_fn(polled).await
}
