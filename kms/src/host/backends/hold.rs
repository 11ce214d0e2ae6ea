//! Guests' requests to a disk wait for a moment, in which others are brought to rest as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealblk_proto::message::{Command, Outcome};

use super::connection::{CommandError, Connection};
use super::supervisor::Supervisor;
use crate::error::{Code, Error, Result};
use crate::limits;

/// A serving process, over the connection that it has now: what is asked here, is asked of the process that holds the guests'
/// requests, for another one, or the same one over another connection, does not.
#[derive(Clone)]
pub(crate) struct Holder(Arc<Connection>);

/// The process holds the requests at least until then, as long as the connection lasts.
pub(crate) struct Hold {
    holder: Holder,
    until: Instant,
}

impl Supervisor {
    /// The process of a service, which is waited for if it is just coming back.
    ///
    /// # Errors
    /// [`Code::NotServed`].
    pub(crate) async fn holder(&self, service: &str) -> Result<Holder> {
        let connection = self.get(service)?.connected(limits::RETURN_TIME).await;
        connection.map(Holder).ok_or_else(|| {
            Error::new(
                Code::NotServed,
                "no process serves it at the moment: see `sealctl disk show`",
            )
        })
    }
}

impl Holder {
    /// Holds the guests' requests, with all before them durable. It ends by itself after `time`, or with the connection.
    ///
    /// # Errors
    /// [`CommandError`], or what the process says instead: then nothing is held for longer than `time`.
    pub(crate) async fn hold(
        self,
        time: Duration,
        patience: Duration,
    ) -> std::result::Result<(Outcome, Hold), CommandError> {
        // Before it is asked for: the process's time begins later.
        let until = Instant::now() + time;
        let hold_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let outcome = self.0.try_request(Command::Quiesce { hold_ms }, patience).await?;
        Ok((outcome, Hold { holder: self, until }))
    }

    /// Lets the requests go on, also those that are not known to be held.
    ///
    /// # Errors
    /// [`CommandError`]: then they go on when the hold's time is over.
    pub(crate) async fn resume(&self) -> std::result::Result<Outcome, CommandError> {
        self.0.try_request(Command::Resume, limits::GROUP_REST_TIME).await
    }
}

impl Hold {
    /// Has something done while the requests are held. None: that took too long, so that nobody knows whether they were.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(crate) async fn request(
        &self,
        command: Command,
    ) -> std::result::Result<Option<Outcome>, CommandError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let outcome = self.holder.0.request(command, left).await?;
        Ok((Instant::now() < self.until).then_some(outcome))
    }
}
