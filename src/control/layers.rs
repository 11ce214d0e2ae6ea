//! Commands about a layered store, for attached and detached disks alike.

use sealblk_proto::causes::with_causes;
use sealblk_proto::message::{
    Change, CheckReport, Command, Failure, Outcome, SnapshotReport, StoreExpected, StoreReport, StoreState,
    code,
};

use crate::store::Store;
use crate::store::layered::{
    self, Expected, FileMedium, LayeredError, LayeredStore, ObjectId, Operation, OperationError, Report,
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
        Change::Resize { size, .. } if !size.is_multiple_of(SECTOR_BYTES as u64) => {
            return Err(Failure::new(
                code::INVALID_SIZE,
                "a size is whole sectors of 512 bytes",
            ));
        }
        Change::Resize { size, .. } => Operation::Resize(size / SECTOR_BYTES as u64),
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
    store.layered().ok_or_else(|| {
        let text = "a raw store has no snapshots and a fixed size";
        Failure::new(code::NOT_SUPPORTED, text)
    })
}

/// What a store must be, as the KMS says it; `disk` is the disk, or backup, that it was made for.
///
/// # Errors
/// A [`Failure`] for the KMS.
pub fn expected(disk: &str, said: &StoreExpected) -> Result<Expected, Failure> {
    let invalid = |text: String| Failure::new("InvalidId", text);
    let lineage = said.lineage.as_deref().map(|id| parse(id, "lin")).transpose()?;
    let last = match &said.last {
        None => None,
        Some(last) => Some(layered::StoreState {
            sequence: last.sequence,
            digest: parse_digest(&last.digest)
                .ok_or_else(|| invalid(format!("{:?} is no SHA-256", last.digest)))?,
        }),
    };
    Ok(Expected {
        // What is no disk and no backup has no store of its own.
        disk: parse(disk, "disk").or_else(|_| parse(disk, "bak")).ok(),
        lineage,
        last,
        closed: said.closed,
    })
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// The state of a store, for the KMS.
pub(super) fn state_report(state: &layered::StoreState) -> StoreState {
    StoreState {
        sequence: state.sequence,
        digest: state.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
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

/// Examines the store, as long as that is wanted.
pub(super) fn check(store: &LayeredStore<FileMedium>, repair: bool, is_wanted: &dyn Fn() -> bool) -> Outcome {
    match store.check_while(repair, is_wanted) {
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
        LayeredError::Foreign { .. } => code::STORE_FOREIGN,
        LayeredError::RolledBack { .. } => code::STORE_ROLLED_BACK,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kms_expects_is_understood_or_refused() {
        let state = layered::StoreState {
            sequence: 7,
            digest: std::array::from_fn(|index| index as u8 * 7),
        };
        let mut said = StoreExpected {
            lineage: Some("lin-aaaaaaaaaaaaaaaa".to_owned()),
            last: Some(state_report(&state)),
            closed: true,
        };
        let known = expected("bak-bbbbbbbbbbbbbbbb", &said).unwrap();
        assert_eq!(
            (known.disk, known.lineage),
            (Some(ObjectId([b'b'; 16])), Some(ObjectId([b'a'; 16])))
        );
        assert_eq!((known.last, known.closed), (Some(state), true));
        assert_eq!(expected("file", &StoreExpected::default()).unwrap().disk, None);
        for digest in ["", "+f", "é"] {
            let digest = digest.to_owned() + &"0".repeat(64 - digest.len());
            said.last = Some(StoreState { sequence: 7, digest });
            assert_eq!(
                expected("file", &said).is_ok(),
                said.last.as_ref().unwrap().digest == "0".repeat(64)
            );
        }
        said.lineage = Some("lin-a".to_owned());
        assert!(expected("file", &said).is_err());
    }
}
