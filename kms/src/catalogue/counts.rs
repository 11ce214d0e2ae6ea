//! How many objects of a kind an account has.

use super::{Db, value};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Disks,
    Instances,
    Images,
    Backups,
    /// Copies that go on.
    Copies,
    Schedules,
}

/// How many of a kind the account has, or `most` if they are more.
pub(crate) async fn of_account(db: &mut Db, account: &str, counted: Counted, most: u32) -> sqlx::Result<u32> {
    match counted {
        Counted::Disks => {
            value!(db, "SELECT count(*) FROM (SELECT 1 FROM disks WHERE account = ?1 LIMIT ?2)"; account, most).await
        }
        Counted::Instances => {
            value!(db, "SELECT count(*) FROM (SELECT 1 FROM instances WHERE account = ?1 LIMIT ?2)"; account, most).await
        }
        Counted::Images => {
            value!(db, "SELECT count(*) FROM (SELECT 1 FROM images WHERE account = ?1 LIMIT ?2)"; account, most).await
        }
        Counted::Backups => {
            value!(db, "SELECT count(*) FROM (SELECT 1 FROM backups WHERE account = ?1 LIMIT ?2)"; account, most).await
        }
        Counted::Copies => {
            value!(
                db,
                "SELECT count(*) FROM
                 (SELECT 1 FROM copies WHERE phase IN ('copy', 'verify') AND account = ?1 LIMIT ?2)";
                account, most
            )
            .await
        }
        Counted::Schedules => {
            value!(
                db,
                "SELECT count(*) FROM (SELECT 1 FROM snapshot_schedules WHERE account = ?1 LIMIT ?2)";
                account, most
            )
            .await
        }
    }
}
