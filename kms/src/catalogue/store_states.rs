//! What is known of the stores of layered volumes: what a process has said last of each, and whether that was at its end.

use sealblk_proto::message::{StoreExpected, StoreState};
use sqlx::{FromRow, SqliteConnection};

/// Columns of a volume.
#[derive(FromRow)]
struct Known {
    lineage: Option<String>,
    sequence: Option<i64>,
    superblock: Option<Vec<u8>>,
    closed: bool,
}

/// What is known of a volume's store, which is about to be given to a process: from now on its end is not known.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn open(db: &mut SqliteConnection, volume: &str) -> Result<StoreExpected, sqlx::Error> {
    let known: Option<Known> = sqlx::query_as(
        "SELECT lineage, sequence, superblock, closed FROM volumes WHERE id = ? AND store = 'layered'",
    )
    .bind(volume)
    .fetch_optional(&mut *db)
    .await?;
    // What is copied to a file has no volume.
    let Some(known) = known else {
        return Ok(StoreExpected::default());
    };
    if known.closed {
        sqlx::query("UPDATE volumes SET closed = 0 WHERE id = ?")
            .bind(volume)
            .execute(db)
            .await?;
    }
    let last = known.sequence.zip(known.superblock);
    let last = last.map(|(sequence, superblock)| StoreState {
        sequence: sequence.unsigned_abs(),
        digest: hex::encode(superblock),
    });
    Ok(StoreExpected {
        lineage: known.lineage,
        closed: known.closed && last.is_some(),
        last,
    })
}

/// A process that has the store says what it is now.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn note(
    db: &mut SqliteConnection,
    volume: &str,
    state: &StoreState,
    closed: bool,
) -> Result<(), sqlx::Error> {
    let digest = hex::decode(&state.digest).unwrap_or_default();
    let sequence = i64::try_from(state.sequence);
    let (Ok(sequence), 32) = (sequence, digest.len()) else {
        log::warn!("{volume}: its process says what no store is: {state:?}");
        return Ok(());
    };
    sqlx::query(
        "UPDATE volumes SET sequence = ?, superblock = ?, closed = ? WHERE id = ? AND store = 'layered'",
    )
    .bind(sequence)
    .bind(digest)
    .bind(closed)
    .bind(volume)
    .execute(db)
    .await?;
    Ok(())
}

/// Nobody has written to the store since it was said to be closed.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn close_again(db: &mut SqliteConnection, volume: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE volumes SET closed = 1 WHERE id = ? AND sequence IS NOT NULL")
        .bind(volume)
        .execute(db)
        .await?;
    Ok(())
}

/// Nothing is known of the store any more. Whether there was something.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn forget(db: &mut SqliteConnection, volume: &str) -> Result<bool, sqlx::Error> {
    let forgotten = sqlx::query(
        "UPDATE volumes SET sequence = NULL, superblock = NULL, closed = 0 WHERE id = ? AND sequence IS NOT NULL",
    )
    .bind(volume)
    .execute(db)
    .await?;
    Ok(forgotten.rows_affected() > 0)
}
