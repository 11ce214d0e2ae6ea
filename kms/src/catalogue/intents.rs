//! Intents: what was decided and charged, and has not ended. Charge and intent come and go together.

use sqlx::{FromRow, Row};

use super::{Db, accounts, execute, find_value, rows, usage, value};
use crate::caller::{Caller, Facts};

pub(crate) use super::work::Work;

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
    /// Whether the disk is plugged into a running virtual machine, or taken out of it (rule A09).
    pub(crate) machine: bool,
}

impl IntentRow {
    /// The caller that the intent was opened for.
    pub(crate) fn caller(&self) -> Caller {
        let facts = Facts::default();
        facts.note("disk", self.disk.as_str());
        facts.note_if("attachment", self.work.attachment());
        facts.note_if("snapshot", self.work.snapshot());
        Caller {
            account: self.account.clone(),
            uid: self.uid,
            pid: self.pid,
            request: self.request.clone(),
            facts,
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
                              month, created, charged, machine)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
        &intent.id, &intent.account, intent.work.call(), &intent.disk, intent.work.attachment(),
        intent.work.snapshot(), intent.work.size(), intent.uid, intent.pid, &intent.request, &intent.made_key,
        &intent.metered, &intent.month, &intent.created, intent.charged, intent.machine
    )
    .await?;
    match &intent.metered {
        Some(kind) => usage::count(db, &intent.account, region, &intent.month, kind, intent.charged).await,
        None => Ok(()),
    }
}

/// Changes whether an intent counts as the one that has made the service key.
pub(crate) async fn set_made_key(db: &mut Db, id: &str, key: Option<&str>) -> sqlx::Result<()> {
    execute!(db, "UPDATE intents SET made_key = ?1 WHERE id = ?2"; key, id).await
}

/// Notes that a snapshot is one of a group.
pub(crate) async fn set_grouped(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE intents SET grouped = 1 WHERE id = ?1"; id).await
}

/// Ends an intent that was fulfilled; the charge stays.
pub(crate) async fn close(db: &mut Db, intent: &IntentRow) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM intents WHERE id = ?1"; &intent.id).await
}

/// Ends an intent that was undone: its call does not count, and what was taken for it is given back. How much that was; none if the
/// call was not metered, or has ended before.
pub(crate) async fn refund(db: &mut Db, region: &str, intent: &IntentRow) -> sqlx::Result<Option<i64>> {
    let charged: Option<i64> = find_value!(
        db,
        "DELETE FROM intents WHERE id = ?1 RETURNING charged";
        &intent.id
    )
    .await?;
    let (Some(charged), Some(kind)) = (charged, &intent.metered) else {
        return Ok(None);
    };
    usage::take_back(db, (&intent.account, region, &intent.month, kind), (1, charged)).await?;
    accounts::credit(db, &intent.account, charged).await?;
    Ok(Some(charged))
}

/// One call of the month, for which `price` was taken, is free after all: an open one, or else any. Whether there was one.
pub(crate) async fn make_free(
    db: &mut Db,
    (account, region, month): (&str, &str, &str),
    price: i64,
) -> sqlx::Result<bool> {
    // Should it be undone as well, nothing more is given back for it.
    let open: Option<String> = find_value!(
        db,
        "UPDATE intents SET charged = 0 WHERE id =
             (SELECT id FROM intents WHERE account = ?1 AND month = ?2 AND charged = ?3 AND metered IS NOT NULL
              ORDER BY rowid LIMIT 1) RETURNING metered";
        account, month, price
    )
    .await?;
    let kind = match open {
        Some(kind) => Some(kind),
        None => usage::paid_kind(db, account, region, month, price).await?,
    };
    let Some(kind) = kind else { return Ok(false) };
    usage::take_back(db, (account, region, month, &kind), (0, price)).await?;
    accounts::credit(db, account, price).await?;
    Ok(true)
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

/// The intents on this volume, in the order in which they were decided.
pub(crate) async fn opened_on(db: &mut Db, volume: &str) -> sqlx::Result<Vec<IntentRow>> {
    rows!(db, "SELECT * FROM intents WHERE disk = ?1 ORDER BY rowid"; volume).await
}

/// All operations on this volume that have not ended: one, and perhaps a detach that ends its process.
pub(crate) async fn all_on_volume(db: &mut Db, volume: &str) -> sqlx::Result<Vec<Work>> {
    rows!(
        db,
        "SELECT call, attachment, snapshot, size, grouped FROM intents WHERE disk = ?1 ORDER BY rowid";
        volume
    )
    .await
}
