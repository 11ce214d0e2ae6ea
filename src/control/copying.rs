//! Commands to a process that copies one store into another.

use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::message::{Command, Failure, Outcome, Reply, Request, Stats, code};

use crate::copy::Copy;

/// Answers commands until the KMS says that it is over, or goes away; then the copy is asked to stop.
///
/// # Errors
/// [`ChannelError`], but not the connection's end.
pub fn copying(copy: &Copy, channel: &Channel) -> Result<(), ChannelError> {
    let outcome = answer_all(copy, channel);
    copy.stop();
    outcome
}

fn answer_all(copy: &Copy, channel: &Channel) -> Result<(), ChannelError> {
    channel.set_timeout(None)?;
    loop {
        let request = match channel.receive::<Request>() {
            Ok((request, _)) => request,
            Err(ChannelError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (outcome, ends) = match request.command {
            Command::Progress => (Outcome::Progress(copy.progress()), false),
            Command::Stats => (Outcome::Stats(Stats::default()), false),
            // What has been copied since the last position is copied again.
            Command::Detach { .. } => (Outcome::Done, true),
            _ => {
                let text = "data is being copied: wait until that has ended";
                (Outcome::Failed(Failure::new(code::NOT_SUPPORTED, text)), false)
            }
        };
        channel.send(&Reply::to(request.id, outcome), &[])?;
        if ends {
            return Ok(());
        }
    }
}
