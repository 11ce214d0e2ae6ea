//! Commands on a store that is not attached: by a process without key and without guest, as long as the KMS wants it.

use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::message::{ClosedStores, Command, Failure, Outcome, Reply, Request, Stats, code};

use super::commands::say_closed;
use super::layers::{self, Reports};
use crate::store::LayeredFile;

/// Answers commands until the KMS says that it is over, or goes away. Then calls `ends`, before the last checkpoint.
///
/// # Errors
/// [`ChannelError`], but not the connection's end.
pub fn maintain(store: &LayeredFile, channel: &Channel, ends: &dyn Fn()) -> Result<(), ChannelError> {
    let ended = answer_all(store, channel);
    ends();
    if let Some(id) = ended? {
        say_closed(channel, id, || ClosedStores {
            store: store.close().as_ref().map(layers::state_report),
            source: None,
        });
    }
    Ok(())
}

/// The id of the request to end; none if the KMS has gone.
fn answer_all(store: &LayeredFile, channel: &Channel) -> Result<Option<u64>, ChannelError> {
    channel.set_timeout(None)?;
    let mut reports = Reports::default();
    loop {
        let request = match channel.receive::<Request>() {
            Ok((request, _)) => request,
            Err(ChannelError::Closed) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (outcome, ends) = carry_out(store, &mut reports, &request.command);
        let sent = channel.send(&Reply::to(request.id, outcome), &[]);
        if ends {
            // What is done is done, whether the KMS hears of it or not.
            return Ok(Some(request.id));
        }
        sent?;
    }
}

fn carry_out(store: &LayeredFile, reports: &mut Reports, command: &Command) -> (Outcome, bool) {
    let layers = store.layered();
    if let Some(failure) = layers::refusal(layers, command) {
        return (Outcome::Failed(failure), false);
    }
    let outcome = match command {
        Command::Stats => Outcome::Stats(Stats {
            poisoned: layers.has_failed(),
            cause: layers.ensure_usable().err().map(|error| with_causes(&error)),
            allocated: store.allocated().map_or(0, |bytes| bytes.0),
            store: Some(layers::state_report(&layers.store_state())),
            ..Stats::default()
        }),
        Command::Change { operation, change } => {
            layers::change(layers, operation, change).map_or_else(Outcome::Failed, |()| Outcome::Done)
        }
        Command::WasMade { operation } => layers::was_made(layers, operation),
        Command::Store { after } => reports.page(layers, after.as_deref()),
        Command::Check { repair } => layers::check(layers, *repair, &|| true),
        Command::Detach { .. } => return (Outcome::Done, true),
        Command::Quiesce { .. }
        | Command::Resume
        | Command::OnFull(_)
        | Command::HandOver
        | Command::Progress
        | Command::AddSession(_)
        | Command::RemoveSession { .. }
        | Command::Listen { .. }
        | Command::Sessions => {
            let text =
                "no guest is served and nothing is copied: there is nothing to hold, to hand over or to tell";
            Outcome::Failed(Failure::new(code::NOT_SUPPORTED, text))
        }
    };
    (outcome, false)
}
