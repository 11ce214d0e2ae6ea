//! Records on their way to sinks: one after another has its turn.

use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::sink::Sink;
use super::worker::Underway;
use crate::audit::record::record;
use crate::catalogue::{Catalogue, Db, audit_records};
use crate::error::Result;
use crate::limits;

/// Sinks that nobody else gives records to meanwhile.
pub(crate) struct Turn<'a>(Vec<Taking<'a>>);

struct Taking<'a> {
    sink: &'a Sink,
    reached: MutexGuard<'a, u64>,
    /// Position of the last record that it has taken, which may not be committed.
    to: u64,
    missed: u64,
    /// Positions of the records that it was given, and what became of them.
    underway: Option<(Vec<u64>, std::result::Result<Underway, String>)>,
}

impl<'a> Turn<'a> {
    /// Waits until others have had their turns.
    pub(super) async fn of(sinks: impl Iterator<Item = &'a Sink>) -> Self {
        let mut all = Vec::new();
        for sink in sinks {
            let reached = sink.reached.lock().await;
            all.push(Taking {
                sink,
                to: *reached,
                reached,
                missed: 0,
                underway: None,
            });
        }
        Turn(all)
    }

    /// Gives them, at the same time, some of the committed records that they lack: whether they had all.
    ///
    /// # Errors
    /// [`crate::error::Code::AuditSinkFailed`] of one that has not taken any; the catalogue's.
    pub(super) async fn round(&mut self, catalogue: &Catalogue, deadline: Instant) -> Result<bool> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let had_all = !self.send(&mut *catalogue.read().await?, deadline).await?;
        let ended = self.arrive().await;
        self.keep();
        ended?;
        if had_all {
            self.0.iter().for_each(|taking| taking.sink.has_all());
        }
        Ok(had_all)
    }

    /// Gives them all committed records that they lack.
    ///
    /// # Errors
    /// As [`Turn::round`], and of one that still lacks some then.
    pub(super) async fn catch_up(&mut self, catalogue: &Catalogue, deadline: Instant) -> Result<()> {
        while !self.round(catalogue, deadline).await? {}
        Ok(())
    }

    /// Gives them what they lack of what a transaction sees, which waits meanwhile: its own records, and hardly others. They have
    /// them for good when [`Turn::done`] is told so, after the commit.
    ///
    /// # Errors
    /// As [`Turn::catch_up`].
    pub(crate) async fn take(&mut self, tx: &mut Db) -> Result<()> {
        let deadline = Instant::now() + limits::SINK_DECISION_TIME;
        while self.send(tx, deadline).await? {
            self.arrive().await?;
        }
        Ok(())
    }

    /// What they have taken is committed.
    pub(crate) fn done(mut self) {
        self.keep();
    }

    fn keep(&mut self) {
        for taking in &mut self.0 {
            *taking.reached = taking.to;
            taking.sink.has(taking.to, std::mem::take(&mut taking.missed));
        }
    }

    /// Whether any of them lacks records, which are on their way then.
    async fn send(&mut self, db: &mut Db, deadline: Instant) -> Result<bool> {
        for taking in &mut self.0 {
            let rows = audit_records::between(db, taking.to, u64::MAX, limits::SINK_BATCH).await?;
            if rows.is_empty() {
                continue;
            }
            let records: Vec<_> = rows.into_iter().map(record).collect();
            let seqs = records.iter().map(|record| record.seq).collect();
            let sent = match Instant::now() < deadline {
                true => taking.sink.worker.send(records, deadline),
                false => Err("it does not take its records in time".to_owned()),
            };
            taking.underway = Some((seqs, sent));
        }
        Ok(self.0.iter().any(|taking| taking.underway.is_some()))
    }

    /// Awaits what was sent. One that has taken some of it is slow, and gets the rest next.
    async fn arrive(&mut self) -> Result<()> {
        let mut arrived = Ok(());
        for taking in &mut self.0 {
            let Some((seqs, sent)) = taking.underway.take() else {
                continue;
            };
            let (taken, outcome) = match sent {
                Ok(underway) => underway.end().await,
                Err(error) => (0, Err(error)),
            };
            for seq in seqs.into_iter().take(taken) {
                taking.missed += seq.saturating_sub(taking.to + 1);
                taking.to = seq;
            }
            if let (0, Err(error)) = (taken, outcome) {
                arrived = Err(taking.sink.fails(error));
            }
        }
        arrived
    }
}
