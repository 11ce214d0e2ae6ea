//! What processes say of the stores that they have, and what that makes of the next process's expectations.

use sealblk_proto::message::{ClosedStores, Failure, Mode, StoreExpected, StoreKind, StoreState, code};

use super::plan::Plan;
use super::served::Served;
use super::shared::Shared;
use crate::error::Error;
use crate::host::records::Volumes;

/// What the stores of a process must be that is about to be given them: its own, and what it copies from.
pub(super) struct Expectations {
    pub(super) own: StoreExpected,
    pub(super) source: StoreExpected,
    /// Whether those were said to be closed.
    pub(super) were_closed: (bool, bool),
}

/// Notes that the stores are given away, and says what they must be.
///
/// # Errors
/// Those of the records.
pub(super) async fn open(served: &Served, shared: &Shared) -> Result<Expectations, Error> {
    let plan = &served.plan;
    let volumes = Volumes {
        own: &plan.config.disk,
        is_new: matches!(plan.config.mode, Mode::Create { .. }),
        source: source_of(plan),
    };
    let (opened, source) = shared.records.open(volumes).await?;
    let (mut own, was_closed) = (opened.expected, opened.was_closed);
    let said = served.said();
    if sequence(said.as_ref()) > sequence(own.last.as_ref()) {
        (own.last, own.closed) = (said, false);
    }
    Ok(Expectations {
        own,
        source: source.expected,
        were_closed: (was_closed, source.was_closed),
    })
}

/// Codes with which a process refuses its stores before it has changed any of them but, where it copies, its own.
const UNTOUCHED: [&str; 4] = [
    code::STORE_FOREIGN,
    code::STORE_ROLLED_BACK,
    code::STORE_IN_USE,
    code::KEY_UNUSABLE,
];

/// A process does not have the stores that it was to be given: if it has not changed them, the next one looks just as closely.
/// `were_closed`: its own, and the source.
pub(super) async fn refused(plan: &Plan, shared: &Shared, failure: &Failure, were_closed: (bool, bool)) {
    if !UNTOUCHED.contains(&failure.code.as_str()) {
        return;
    }
    let mut untouched = Vec::new();
    // Of two the destination is opened first.
    if were_closed.0 && plan.source.is_none() {
        untouched.push(plan.config.disk.as_str());
    }
    untouched.extend(source_of(plan).filter(|_| were_closed.1));
    warn(plan, shared.records.close_again(&untouched).await);
}

/// A process serves, and says what it has unless it is of an earlier version. If that cannot be noted, less is known, and the
/// process serves all the same.
pub(super) async fn note(served: &Served, shared: &Shared, state: Option<&StoreState>) {
    let config = &served.plan.config;
    if config.store != StoreKind::Layered {
        return;
    }
    if state.is_some() {
        served.reports(state);
    }
    warn(&served.plan, shared.records.serves(&config.disk, state).await);
}

/// A process has closed its stores. If that cannot be noted, the next process takes whatever is not older than what is known.
pub(super) async fn close(plan: &Plan, shared: &Shared, closed: &ClosedStores) {
    let own = closed
        .store
        .as_ref()
        .map(|state| (plan.config.disk.as_str(), state));
    let source = source_of(plan).zip(closed.source.as_ref());
    let stores: Vec<_> = own.into_iter().chain(source).collect();
    warn(plan, shared.records.closed(&stores).await);
}

fn warn(plan: &Plan, noted: Result<(), Error>) {
    if let Err(error) = noted {
        log::error!(
            "{}: what its store is now cannot be noted: {}",
            plan.service,
            error.full_message()
        );
    }
}

/// The volume that is copied from; none where it is a file of somebody's.
fn source_of(plan: &Plan) -> Option<&str> {
    let source = plan.source.as_ref().filter(|source| !source.config.foreign);
    source.map(|source| source.object.as_str())
}

fn sequence(state: Option<&StoreState>) -> Option<u64> {
    state.map(|state| state.sequence)
}
