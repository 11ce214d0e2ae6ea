//! What an intent is to do.

use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::named::{Named, named};

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
    /// The same, of one of several disks: all of these snapshots are made, or none.
    GroupSnapshot {
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

named! {
    /// The calls that work is for, as the catalogue and the audit log name them.
    enum Call {
        CreateDisk = "disk.create",
        DeleteDisk = "disk.delete",
        Attach = "attach",
        Detach = "detach",
        CreateSnapshot = "snapshot.create",
        DeleteSnapshot = "snapshot.delete",
        Rollback = "rollback",
        Reinitialise = "disk.reinit",
        Resize = "disk.resize",
        Check = "disk.check",
    }
}

impl Work {
    /// The call that it is for, as the catalogue and the audit log name it.
    pub(crate) fn call(&self) -> &'static str {
        let call = match self {
            Work::CreateDisk { .. } => Call::CreateDisk,
            Work::DeleteDisk => Call::DeleteDisk,
            Work::Attach { .. } => Call::Attach,
            Work::Detach { .. } => Call::Detach,
            Work::CreateSnapshot { .. } | Work::GroupSnapshot { .. } => Call::CreateSnapshot,
            Work::DeleteSnapshot { .. } => Call::DeleteSnapshot,
            Work::Rollback { .. } => Call::Rollback,
            Work::Reinitialise => Call::Reinitialise,
            Work::Resize { .. } => Call::Resize,
            Work::Check => Call::Check,
        };
        call.name()
    }

    /// The attachment that comes or goes.
    pub(crate) fn attachment(&self) -> Option<&str> {
        match self {
            Work::Attach { attachment } | Work::Detach { attachment } => Some(attachment),
            Work::CreateDisk { .. }
            | Work::DeleteDisk
            | Work::CreateSnapshot { .. }
            | Work::GroupSnapshot { .. }
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
            | Work::GroupSnapshot { snapshot }
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
            Call::CreateDisk => Work::CreateDisk {
                snapshot: row.try_get("snapshot")?,
            },
            Call::DeleteDisk => Work::DeleteDisk,
            Call::Attach => Work::Attach {
                attachment: row.try_get("attachment")?,
            },
            Call::Detach => Work::Detach {
                attachment: row.try_get("attachment")?,
            },
            Call::CreateSnapshot if row.try_get("grouped")? => Work::GroupSnapshot {
                snapshot: row.try_get("snapshot")?,
            },
            Call::CreateSnapshot => Work::CreateSnapshot {
                snapshot: row.try_get("snapshot")?,
            },
            Call::DeleteSnapshot => Work::DeleteSnapshot {
                snapshot: row.try_get("snapshot")?,
            },
            Call::Rollback => Work::Rollback {
                snapshot: row.try_get("snapshot")?,
            },
            Call::Reinitialise => Work::Reinitialise,
            Call::Resize => Work::Resize {
                size: row.try_get("size")?,
            },
            Call::Check => Work::Check,
        })
    }
}
