//! Where records of the audit log go besides (`serve --audit-sink`).
//!
//! The catalogue has how far each sink is; what it lacks is read from the log, so that nothing is lost while it takes none,
//! over restarts too: each record comes at least once, in the log's order. A sink that is required takes the record of a decision
//! within the transaction of that, before it is committed: what it does not take is not decided. A decision awaits its turn, and that
//! the sink has all before, without the catalogue, which others need meanwhile. Everything else, such as the restart of a process (rule
//! A06), waits for no sink.

pub(crate) mod choice;
mod deliver;
mod exec;
mod file;
mod journald;
pub(crate) mod sink;
#[cfg(test)]
pub(crate) mod tests;
mod turn;
mod worker;

use std::sync::OnceLock;

use tokio::time::{Instant, timeout, timeout_at};

use crate::catalogue::Catalogue;
use crate::error::{Code, Error, Result};
use crate::limits;
use sealblk_api::AuditSink;
use sink::Sink;
pub(crate) use turn::Turn;

/// All sinks.
#[derive(Default)]
pub(crate) struct Sinks(OnceLock<Vec<Sink>>);

impl Sinks {
    /// From now on records go there.
    pub(crate) fn set(&self, sinks: Vec<Sink>) {
        // They are set once, before anything is served.
        let _ = self.0.set(sinks);
    }

    /// Every sink.
    pub(crate) fn all(&self) -> &[Sink] {
        self.0.get().map_or(&[], Vec::as_slice)
    }

    fn required(&self) -> impl Iterator<Item = &Sink> {
        self.all().iter().filter(|sink| sink.required)
    }

    /// Whether each required sink takes records, as far as is known.
    ///
    /// # Errors
    /// [`Code::AuditSinkFailed`].
    pub(crate) fn check(&self) -> Result<()> {
        match self.required().find_map(|sink| Some((sink, sink.failure()?))) {
            Some((sink, failure)) => Err(sink.refusal(&failure.error)),
            None => Ok(()),
        }
    }

    /// A decision's turn at the required sinks, which have all that was committed before: to be awaited without the catalogue.
    ///
    /// # Errors
    /// [`Code::AuditSinkFailed`]; the catalogue's.
    pub(crate) async fn turn(&self, catalogue: &Catalogue) -> Result<Turn<'_>> {
        self.check()?;
        let turn = timeout(limits::CATALOGUE_BUSY_TIME, Turn::of(self.required())).await;
        let mut turn = turn.map_err(|_| {
            let text = "the required audit sinks are slow, and too many calls wait for them: try again";
            Error::new(Code::AuditSinkFailed, text)
        })?;
        // It may be known by now.
        self.check()?;
        turn.catch_up(catalogue, Instant::now() + limits::SINK_TIME)
            .await?;
        Ok(turn)
    }

    /// Waits, for a while, until the required sinks have what was committed; those that are known to take no records get it later.
    pub(crate) async fn settle(&self, catalogue: &Catalogue) {
        let working = self.required().filter(|sink| sink.failure().is_none());
        if let Err(error) = catch_up(working, catalogue, Instant::now() + limits::SINK_TIME).await {
            log::warn!(
                "a call is answered before its record is where it is required: {}",
                error.full_message()
            );
        }
    }

    /// There is a new record.
    pub(crate) fn wake(&self) {
        self.all().iter().for_each(|sink| sink.wake.notify_one());
    }

    /// As the API gives them, where the log ends with the record `newest`.
    pub(crate) fn shown(&self, newest: u64) -> Vec<AuditSink> {
        self.all().iter().map(|sink| sink.shown(newest)).collect()
    }
}

/// Gives a sink some of what it lacks: whether it had all.
///
/// # Errors
/// [`Code::AuditSinkFailed`], if it has taken none; the catalogue's.
pub(crate) async fn round(sink: &Sink, catalogue: &Catalogue) -> Result<bool> {
    let mut turn = Turn::of(std::iter::once(sink)).await;
    turn.round(catalogue, Instant::now() + limits::SINK_TIME).await
}

/// Gives sinks what they lack, if they take that in time.
///
/// # Errors
/// [`Code::AuditSinkFailed`]; the catalogue's.
pub(crate) async fn catch_up<'a>(
    sinks: impl Iterator<Item = &'a Sink>,
    catalogue: &Catalogue,
    deadline: Instant,
) -> Result<()> {
    match timeout_at(deadline, Turn::of(sinks)).await {
        Ok(mut turn) => turn.catch_up(catalogue, deadline).await,
        Err(_) => Err(Error::new(Code::AuditSinkFailed, "others wait for it")),
    }
}
