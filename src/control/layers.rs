//! Commands about a layered store, for attached and detached disks alike.

use sealblk_proto::causes::with_causes;
use sealblk_proto::message::{
    Change, CheckReport, Command, Failure, Outcome, SnapshotReport, StoreReport, code,
};

use crate::store::Store;
use crate::store::layered::{
    self, FileMedium, LayeredError, LayeredStore, ObjectId, Operation, OperationError, Report,
};
use crate::units::SECTOR_BYTES;

/// Snapshots of one answer.
const SNAPSHOTS: usize = 128;

/// Whether a change must find no request in flight.
pub(super) fn needs_rest(change: &Change) -> bool {
    matches!(change, Change::Rollback { .. } | Change::Reinitialise { .. })
}

/// Whether a change that [needs rest](needs_rest) is to be made although a frontend is connected.
pub(super) fn is_forced(change: &Change) -> bool {
    matches!(
        change,
        Change::Rollback { force: true, .. } | Change::Reinitialise { force: true }
    )
}

/// Makes a change, once for each operation.
///
/// # Errors
/// A [`Failure`] for the KMS.
pub(super) fn change(
    store: &LayeredStore<FileMedium>,
    operation: &str,
    change: &Change,
) -> Result<(), Failure> {
    let operation = parse(operation, "op")?;
    let what = match change {
        Change::Snapshot { snapshot } => Operation::Snapshot(parse(snapshot, "snap")?),
        Change::DeleteSnapshot { snapshot } => Operation::Delete(parse(snapshot, "snap")?),
        Change::Rollback { snapshot, .. } => Operation::Rollback(parse(snapshot, "snap")?),
        Change::Reinitialise { .. } => Operation::Reinitialise,
        Change::Resize { size } if !size.is_multiple_of(SECTOR_BYTES as u64) => {
            return Err(Failure::new(
                code::INVALID_SIZE,
                "a size is whole sectors of 512 bytes",
            ));
        }
        Change::Resize { size } => Operation::Resize(size / SECTOR_BYTES as u64),
        Change::Pin { snapshot, disk } => Operation::Pin {
            id: parse(snapshot, "snap")?,
            disk: parse(disk, "disk")?,
        },
        Change::Unpin { snapshot, disk } => Operation::Unpin {
            id: parse(snapshot, "snap")?,
            disk: parse(disk, "disk")?,
        },
    };
    store.operate(operation, what).map_err(|error| {
        let code = match &error {
            OperationError::NoSnapshot(_) => code::NO_SNAPSHOT,
            OperationError::Exists(_) => code::SNAPSHOT_EXISTS,
            OperationError::TooMany => code::TOO_MANY,
            OperationError::InvalidSize => code::INVALID_SIZE,
            OperationError::Busy => "Busy",
            OperationError::Store(error) => store_code(error),
        };
        Failure::new(code, with_causes(&error))
    })
}

/// The layers of a store.
///
/// # Errors
/// A [`Failure`] for the KMS, if it has none.
pub(super) fn layers_of(store: &Store) -> Result<&LayeredStore<FileMedium>, Failure> {
    store.layers().ok_or_else(|| {
        let text = "a raw store has no snapshots and a fixed size";
        Failure::new(code::NOT_SUPPORTED, text)
    })
}

/// Whether the change of an operation was made.
pub(super) fn was_made(store: &LayeredStore<FileMedium>, operation: &str) -> Outcome {
    match parse(operation, "op") {
        Ok(operation) => Outcome::Made(store.was_made(operation)),
        Err(failure) => Outcome::Failed(failure),
    }
}

/// What a store holds, in pages. All are of the report that was made for the first.
#[derive(Default)]
pub(super) struct Reports {
    last: Option<Report>,
}

impl Reports {
    /// The page after the snapshot of this id.
    pub(super) fn page(&mut self, store: &LayeredStore<FileMedium>, after: Option<&str>) -> Outcome {
        self.try_page(store, after)
            .map_or_else(Outcome::Failed, Outcome::Store)
    }

    fn try_page(
        &mut self,
        store: &LayeredStore<FileMedium>,
        after: Option<&str>,
    ) -> Result<StoreReport, Failure> {
        let made = match (after, self.last.take()) {
            (Some(_), Some(last)) => last,
            _ => store
                .report()
                .map_err(|error| Failure::new(store_code(&error), with_causes(&error)))?,
        };
        let report = self.last.insert(made);
        let after = after.map(|after| parse(after, "snap")).transpose()?;
        let rest = report
            .snapshots
            .iter()
            .filter(|snapshot| after.is_none_or(|after| snapshot.id > after));
        let more = rest.clone().count() > SNAPSHOTS;
        Ok(StoreReport {
            size: report.sectors * SECTOR_BYTES as u64,
            allocated: report.allocated,
            shared: report.shared,
            deleting: report.deleting,
            snapshots: rest.take(SNAPSHOTS).map(snapshot_report).collect(),
            more,
        })
    }
}

fn snapshot_report(snapshot: &layered::SnapshotReport) -> SnapshotReport {
    SnapshotReport {
        id: snapshot.id.with_prefix("snap"),
        parent: snapshot
            .parent
            .is_some()
            .then(|| snapshot.parent.with_prefix("snap")),
        size: snapshot.sectors * SECTOR_BYTES as u64,
        unique_bytes: snapshot.unique_bytes,
        pins: snapshot
            .pins
            .iter()
            .map(|disk| disk.with_prefix("disk"))
            .collect(),
        hidden: snapshot.hidden,
    }
}

/// Why a store that can only be examined does not take a command.
pub(super) fn refusal(store: &LayeredStore<FileMedium>, command: &Command) -> Option<Failure> {
    let taken = matches!(
        command,
        Command::Check { .. } | Command::Stats | Command::Detach { .. }
    );
    let damage = store.suspended().filter(|_| !taken)?;
    let text = format!("{damage}; examine and repair the store first");
    Some(Failure::new(code::STORE_DAMAGED, text))
}

/// Examines the store.
pub(super) fn check(store: &LayeredStore<FileMedium>, repair: bool) -> Outcome {
    match store.check_all(repair) {
        Ok(found) => Outcome::Check(CheckReport {
            pages: found.pages,
            leaked: found.leaked,
            double_used: found.double_used,
            bad_pages: found.bad_pages,
            findings: found.findings,
            repaired: found.repaired,
        }),
        Err(error) => Outcome::Failed(Failure::new(store_code(&error), with_causes(&error))),
    }
}

/// The code of a store's error.
pub fn store_code(error: &LayeredError) -> &'static str {
    match error {
        LayeredError::Damage(_) | LayeredError::Journal(_) => code::STORE_DAMAGED,
        LayeredError::Superblock(crate::store::layered::SuperblockError::Version(_)) => code::STORE_VERSION,
        LayeredError::Superblock(_) => code::STORE_DAMAGED,
        LayeredError::NoSpace => code::NO_SPACE,
        LayeredError::NotPinned(_) => code::NO_SNAPSHOT,
        LayeredError::Bases { .. } => code::TOO_MANY,
        LayeredError::Io(error) if error.raw_os_error() == Some(libc::ENOSPC) => code::NO_SPACE,
        _ => code::STORE_UNUSABLE,
    }
}

fn parse(text: &str, prefix: &str) -> Result<ObjectId, Failure> {
    ObjectId::parse(text, prefix).ok_or_else(|| {
        Failure::new(
            "InvalidId",
            format!("{text:?} is not {prefix}- and 16 characters"),
        )
    })
}
