//! Commands to a process that copies one store into another.

use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::message::{ClosedStores, Command, Failure, Outcome, Reply, Request, Stats, code};

use super::commands::say_closed;
use super::layers::state_report;
use crate::copy::Copy;

/// Copies, and answers commands until the KMS says that it is over, or goes away; then calls `ends`, the copy stops, and its
/// stores are closed.
///
/// # Errors
/// [`ChannelError`], but not the connection's end.
pub fn copying(copy: &Copy, channel: &Channel, ends: &dyn Fn()) -> Result<(), ChannelError> {
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| copy.run());
        let ended = answer_all(copy, channel);
        ends();
        copy.stop();
        ended
    });
    if let Some(id) = ended? {
        say_closed(channel, id, || {
            let (store, source) = copy.close();
            ClosedStores {
                store: store.as_ref().map(state_report),
                source: source.as_ref().map(state_report),
            }
        });
    }
    Ok(())
}

/// The id of the request to end; none if the KMS has gone.
fn answer_all(copy: &Copy, channel: &Channel) -> Result<Option<u64>, ChannelError> {
    channel.set_timeout(None)?;
    loop {
        let request = match channel.receive::<Request>() {
            Ok((request, _)) => request,
            Err(ChannelError::Closed) => return Ok(None),
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
            return Ok(Some(request.id));
        }
    }
}
