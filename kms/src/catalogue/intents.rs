//! Intents: what was decided and charged, and has not ended. Charge and intent come and go together.

use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::{Db, accounts, execute, rows, value};
use crate::caller::Caller;
use sealblk_api::UsageRow;

/// What is to be done with a volume: one variant a kind of intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// The volume's store is made, for a disk, or for an image if there is to be a snapshot.
    CreateDisk {
        snapshot: Option<String>,
    },
    DeleteDisk,
    Attach {
        attachment: String,
    },
    Detach {
        attachment: String,
    },
    CreateSnapshot {
        snapshot: String,
    },
    DeleteSnapshot {
        snapshot: String,
    },
    Rollback {
        snapshot: String,
    },
    Reinitialise,
    Resize {
        /// The size asked for, in bytes.
        size: i64,
    },
    Check,
}

impl Work {
    /// The call that it is for, as the catalogue and the audit log name it.
    pub(crate) fn call(&self) -> &'static str {
        match self {
            Work::CreateDisk { .. } => "disk.create",
            Work::DeleteDisk => "disk.delete",
            Work::Attach { .. } => "attach",
            Work::Detach { .. } => "detach",
            Work::CreateSnapshot { .. } => "snapshot.create",
            Work::DeleteSnapshot { .. } => "snapshot.delete",
            Work::Rollback { .. } => "rollback",
            Work::Reinitialise => "disk.reinit",
            Work::Resize { .. } => "disk.resize",
            Work::Check => "disk.check",
        }
    }

    /// The attachment that comes or goes.
    pub(crate) fn attachment(&self) -> Option<&str> {
        match self {
            Work::Attach { attachment } | Work::Detach { attachment } => Some(attachment),
            Work::CreateDisk { .. }
            | Work::DeleteDisk
            | Work::CreateSnapshot { .. }
            | Work::DeleteSnapshot { .. }
            | Work::Rollback { .. }
            | Work::Reinitialise
            | Work::Resize { .. }
            | Work::Check => None,
        }
    }

    /// The snapshot that is made, deleted or gone back to.
    pub(crate) fn snapshot(&self) -> Option<&str> {
        match self {
            Work::CreateDisk { snapshot } => snapshot.as_deref(),
            Work::CreateSnapshot { snapshot }
            | Work::DeleteSnapshot { snapshot }
            | Work::Rollback { snapshot } => Some(snapshot),
            Work::DeleteDisk
            | Work::Attach { .. }
            | Work::Detach { .. }
            | Work::Reinitialise
            | Work::Resize { .. }
            | Work::Check => None,
        }
    }

    /// The size asked for, in bytes.
    pub(crate) fn size(&self) -> Option<i64> {
        match self {
            Work::Resize { size } => Some(*size),
            _ => None,
        }
    }
}

impl<'r> FromRow<'r, SqliteRow> for Work {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        Ok(match row.try_get("call")? {
            "disk.create" => Work::CreateDisk {
                snapshot: row.try_get("snapshot")?,
            },
            "disk.delete" => Work::DeleteDisk,
            "attach" => Work::Attach {
                attachment: row.try_get("attachment")?,
            },
            "detach" => Work::Detach {
                attachment: row.try_get("attachment")?,
            },
            "snapshot.create" => Work::CreateSnapshot {
                snapshot: row.try_get("snapshot")?,
            },
            "snapshot.delete" => Work::DeleteSnapshot {
                snapshot: row.try_get("snapshot")?,
            },
            "rollback" => Work::Rollback {
                snapshot: row.try_get("snapshot")?,
            },
            "disk.reinit" => Work::Reinitialise,
            "disk.resize" => Work::Resize {
                size: row.try_get("size")?,
            },
            "disk.check" => Work::Check,
            other => {
                return Err(sqlx::Error::ColumnDecode {
                    index: "call".to_owned(),
                    source: format!("{other:?} is not known to this version").into(),
                });
            }
        })
    }
}

/// A decided operation.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct IntentRow {
    pub(crate) id: String,
    pub(crate) account: String,
    #[sqlx(flatten)]
    pub(crate) work: Work,
    /// The disk, or the volume whose disk has been deleted.
    pub(crate) disk: String,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    pub(crate) request: String,
    /// The service key, if this first use has made it.
    pub(crate) made_key: Option<String>,
    /// What is charged, if anything (rule M01).
    pub(crate) metered: Option<String>,
    pub(crate) month: String,
    pub(crate) created: String,
    /// What was taken from the balance for it, in micro-units (rule M02).
    pub(crate) charged: i64,
}

impl IntentRow {
    /// The caller that the intent was opened for.
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            account: self.account.clone(),
            uid: self.uid,
            pid: self.pid,
            request: self.request.clone(),
        }
    }

    /// The attachment that comes or goes; empty if none does.
    pub(crate) fn attachment(&self) -> &str {
        self.work.attachment().unwrap_or_default()
    }
}

/// Whether the intent has not ended.
pub(crate) async fn is_open(db: &mut Db, id: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT EXISTS (SELECT 1 FROM intents WHERE id = ?1)"; id).await
}

/// Whether one of this request is open.
pub(crate) async fn of_request(db: &mut Db, request: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT EXISTS (SELECT 1 FROM intents WHERE request = ?1)"; request).await
}

/// Stores the intent and counts its call, whose price has been taken from the account's balance.
pub(crate) async fn open(db: &mut Db, region: &str, intent: &IntentRow) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO intents (id, account, call, disk, attachment, snapshot, size, uid, pid, request, made_key, metered,
                              month, created, charged)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        &intent.id, &intent.account, intent.work.call(), &intent.disk, intent.work.attachment(),
        intent.work.snapshot(), intent.work.size(), intent.uid, intent.pid, &intent.request, &intent.made_key,
        &intent.metered, &intent.month, &intent.created, intent.charged
    )
    .await?;
    match &intent.metered {
        Some(kind) => count(db, &intent.account, region, &intent.month, kind, intent.charged).await,
        None => Ok(()),
    }
}

/// Counts one of a kind in the month, with what was taken from the balance for it.
pub(crate) async fn count(
    db: &mut Db,
    account: &str,
    region: &str,
    month: &str,
    kind: &str,
    charged: i64,
) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO usage (account, region, month, kind, calls, charged) VALUES (?1, ?2, ?3, ?4, 1, ?5)
         ON CONFLICT DO UPDATE SET calls = calls + 1, charged = charged + excluded.charged";
        account, region, month, kind, charged
    )
    .await
}

/// Changes whether an intent counts as the one that has made the service key.
pub(crate) async fn set_made_key(db: &mut Db, id: &str, key: Option<&str>) -> sqlx::Result<()> {
    execute!(db, "UPDATE intents SET made_key = ?1 WHERE id = ?2"; key, id).await
}

/// Ends an intent that was fulfilled; the charge stays.
pub(crate) async fn close(db: &mut Db, intent: &IntentRow) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM intents WHERE id = ?1"; &intent.id).await
}

/// Ends an intent that was undone, and refunds its charge.
pub(crate) async fn refund(db: &mut Db, region: &str, intent: &IntentRow) -> sqlx::Result<()> {
    close(db, intent).await?;
    if let Some(kind) = &intent.metered {
        execute!(
            db,
            "UPDATE usage SET calls = calls - 1, charged = charged - ?1
             WHERE account = ?2 AND region = ?3 AND month = ?4 AND kind = ?5";
            intent.charged, &intent.account, region, &intent.month, kind
        )
        .await?;
        accounts::credit(db, &intent.account, intent.charged).await?;
    }
    Ok(())
}

/// Metered calls of an account in a month, over all regions.
pub(crate) async fn calls_in(db: &mut Db, account: &str, month: &str) -> sqlx::Result<i64> {
    value!(
        db,
        "SELECT coalesce(sum(calls), 0) FROM usage WHERE account = ?1 AND month = ?2 AND kind <> 'key-month'";
        account, month
    )
    .await
}

/// The open intents, in the order in which they were decided.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(crate) intents: Vec<IntentRow>,
    /// The ids of those that this version cannot read, and why.
    pub(crate) unreadable: Vec<(String, sqlx::Error)>,
}

/// All open intents. One that cannot be read keeps nobody from the others.
pub(crate) async fn all(db: &mut Db) -> sqlx::Result<Open> {
    let rows = sqlx::query("SELECT * FROM intents ORDER BY rowid")
        .fetch_all(db)
        .await?;
    let mut open = Open::default();
    for row in &rows {
        match IntentRow::from_row(row) {
            Ok(intent) => open.intents.push(intent),
            Err(error) => open.unreadable.push((row.try_get("id")?, error)),
        }
    }
    Ok(open)
}

/// The operation on this volume that has not ended, if there is one.
pub(crate) async fn on_volume(db: &mut Db, volume: &str) -> sqlx::Result<Option<Work>> {
    Ok(all_on_volume(db, volume).await?.into_iter().next())
}

/// All operations on this volume that have not ended: one, and perhaps a detach that ends its process.
pub(crate) async fn all_on_volume(db: &mut Db, volume: &str) -> sqlx::Result<Vec<Work>> {
    rows!(
        db,
        "SELECT call, attachment, snapshot, size FROM intents WHERE disk = ?1 ORDER BY rowid";
        volume
    )
    .await
}

/// Metered calls of an account, newest month first.
pub(crate) async fn usage(db: &mut Db, account: &str) -> sqlx::Result<Vec<UsageRow>> {
    let rows: Vec<(String, String, String, i64, i64)> = rows!(
        db,
        "SELECT month, region, kind, calls, charged FROM usage WHERE account = ?1 AND calls > 0
         ORDER BY month DESC, region, kind";
        account
    )
    .await?;
    let row = |(month, region, kind, calls, charged): (String, String, String, i64, i64)| UsageRow {
        id: format!("{month}.{region}.{kind}"),
        name: format!("{month}.{region}.{kind}"),
        month,
        region,
        kind,
        calls: calls.unsigned_abs(),
        charged: charged.unsigned_abs(),
    };
    Ok(rows.into_iter().map(row).collect())
}
