//! What is known of the stores of layered volumes: what a process has said last of each, and whether that was at its end.

use sealblk_proto::message::{StoreExpected, StoreState};
use sqlx::FromRow;

use super::{Db, changed, execute, find_row};

/// Columns of a volume.
#[derive(FromRow)]
struct Known {
    lineage: Option<String>,
    sequence: Option<i64>,
    superblock: Option<Vec<u8>>,
    closed: bool,
    /// An older one is taken, too.
    accepts_older: bool,
}

/// A store that is about to be given to a process.
#[derive(Default)]
pub(crate) struct Opened {
    /// What it must be.
    pub(crate) expected: StoreExpected,
    /// Whether the last process that had it has said its end.
    pub(crate) was_closed: bool,
}

/// What is known of a volume's store, which is about to be given to a process: from now on its end is not known.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn open(db: &mut Db, volume: &str) -> sqlx::Result<Opened> {
    let known: Option<Known> = find_row!(
        db,
        "SELECT lineage, sequence, superblock, closed,
                EXISTS (SELECT 1 FROM services WHERE disk = volumes.id AND services.accepts_older) AS accepts_older
         FROM volumes WHERE id = ?1 AND store = 'layered'";
        volume
    )
    .await?;
    // What is copied to a file has no volume.
    let Some(known) = known else {
        return Ok(Opened::default());
    };
    if known.closed {
        execute!(db, "UPDATE volumes SET closed = 0 WHERE id = ?1"; volume).await?;
    }
    let last = known.sequence.zip(known.superblock);
    let last = last.filter(|_| !known.accepts_older);
    let last = last.map(|(sequence, superblock)| StoreState {
        sequence: sequence.unsigned_abs(),
        digest: hex::encode(superblock),
    });
    Ok(Opened {
        expected: StoreExpected {
            lineage: known.lineage,
            closed: known.closed && last.is_some(),
            last,
        },
        was_closed: known.closed,
    })
}

/// The next process of a disk's service may find an older store. Whether anything is known that this one may be older than.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn accept_older(db: &mut Db, disk: &str) -> sqlx::Result<bool> {
    let changed = changed!(
        db,
        "UPDATE services SET accepts_older = 1
         WHERE disk = ?1 AND EXISTS (SELECT 1 FROM volumes WHERE id = ?1 AND sequence IS NOT NULL)";
        disk
    )
    .await?;
    Ok(changed > 0)
}

/// The process of a disk's service has the store: if that may be older, nothing is known any more but what the process says.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn accepted(db: &mut Db, disk: &str) -> sqlx::Result<()> {
    let accepted = changed!(
        db,
        "UPDATE services SET accepts_older = 0 WHERE disk = ?1 AND accepts_older";
        disk
    )
    .await?;
    match accepted {
        0 => Ok(()),
        _ => forget(db, disk).await,
    }
}

/// A process that has the store says what it is now.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn note(db: &mut Db, volume: &str, state: &StoreState, closed: bool) -> sqlx::Result<()> {
    let digest = hex::decode(&state.digest).unwrap_or_default();
    let sequence = i64::try_from(state.sequence);
    let (Ok(sequence), 32) = (sequence, digest.len()) else {
        log::warn!("{volume}: its process says what no store is: {state:?}");
        return Ok(());
    };
    execute!(
        db,
        "UPDATE volumes SET sequence = ?1, superblock = ?2, closed = ?3 WHERE id = ?4 AND store = 'layered'";
        sequence, digest, closed, volume
    )
    .await
}

/// Nobody has written to the store since it was said to be closed.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn close_again(db: &mut Db, volume: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE volumes SET closed = 1 WHERE id = ?1 AND sequence IS NOT NULL"; volume).await
}

/// Nothing is known of the store any more.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn forget(db: &mut Db, volume: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE volumes SET sequence = NULL, superblock = NULL, closed = 0 WHERE id = ?1 AND sequence IS NOT NULL";
        volume
    )
    .await
}
