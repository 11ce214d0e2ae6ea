//! Work on the store of a disk that is not attached: a short-lived backend, without socket and without key, is given
//! the store, obeys the same commands as one that serves, and ends.

use std::sync::Arc;
use std::time::Duration;

use sealblk_proto::message::{Command, Outcome};

use super::connection::CommandError;
use super::failures::start_error;
use super::plan::Plan;
use super::served::{Served, Tokens};
use super::states;
use super::supervisor::{Supervisor, remove_directory};
use crate::error::{Code, Error, Result};
use crate::{limits, state};

/// A process that has a store, until this is ended. Dropped without that, it is killed.
pub(crate) struct Maintenance<'a> {
    supervisor: &'a Supervisor,
    served: Arc<Served>,
}

impl Supervisor {
    /// Starts a process that carries out commands on a store; with a plan to create one, it is made when this returns.
    /// Whoever calls has the lock on the volume.
    ///
    /// # Errors
    /// Why the store cannot be used; then no process is left.
    pub(crate) async fn maintain(&self, plan: Plan) -> Result<Maintenance<'_>> {
        let failed = |error| Error::because(Code::FileFailed, "the process's socket cannot be made", error);
        state::make_directory(&plan.runtime, state::PASSAGE_MODE).map_err(failed)?;
        let id = plan.service.clone();
        self.open(plan, Tokens::default()).map_err(failed)?;
        let maintenance = Maintenance {
            supervisor: self,
            served: self.get(&id)?,
        };
        let started = maintenance.served.start(&self.shared).await;
        started.map_err(|failure| start_error(&failure))?;
        Ok(maintenance)
    }
}

impl Maintenance<'_> {
    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(crate) async fn request(
        &self,
        command: Command,
        time: Duration,
    ) -> std::result::Result<Outcome, CommandError> {
        let connection = self.served.look().connection.clone();
        match connection {
            Some(connection) => connection.request(command, time).await,
            None => Err(CommandError::Closed),
        }
    }

    /// Ends the process and waits until it has.
    pub(crate) async fn end(self) {
        let connection = self.served.look().connection.clone();
        let mut closed = None;
        let asked = match connection {
            Some(connection) => connection.detach(true, &mut closed).await,
            None => Err(CommandError::Closed),
        };
        if let Some(closed) = &closed {
            states::close(&self.served.plan, &self.supervisor.shared, closed).await;
        }
        let process = self.served.look().process.clone();
        let Some(process) = process else { return };
        let patience = match asked {
            Ok(Outcome::Done) | Err(CommandError::Closed) => limits::BACKEND_TIME,
            _ => Duration::ZERO,
        };
        if !process.ended_within(patience).await {
            log::warn!(
                "{}: process {} is killed",
                self.served.plan.service,
                process.pid()
            );
            process.kill();
            process.ended_within(limits::BACKEND_TIME).await;
        }
    }
}

impl Drop for Maintenance<'_> {
    fn drop(&mut self) {
        let process = self.served.look().process.clone();
        if let Some(process) = process {
            // The process has ended, unless nobody waited for it.
            process.kill();
        }
        self.supervisor.forget(&self.served.plan);
        remove_directory(&self.served.plan.runtime);
    }
}
