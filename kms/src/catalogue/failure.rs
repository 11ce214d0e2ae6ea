//! Why there is no catalogue, and what an API call answers when it fails.

use std::path::PathBuf;

use super::files::Replaced;
use crate::error::{Code, Error};

/// Why there is no catalogue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogueError {
    #[error("{0} does not exist: make it with `sealblk-kms init`")]
    Missing(PathBuf),
    #[error("it is not a sealblk catalogue")]
    Foreign,
    #[error("its file cannot be looked at")]
    File(#[from] std::io::Error),
    #[error("SQLite failed")]
    Database(#[from] sqlx::Error),
    #[error("its schema is damaged")]
    Schema(#[from] sqlx::migrate::MigrateError),
    #[error(
        "it is of a later version of sealblk-kms (schema {found}, and this program knows those up to {known}): use that version"
    )]
    Newer { found: i64, known: i64 },
    #[error("its trigger or view {0}, which guards the audit log or a rule, is missing or was changed")]
    Unguarded(String),
}

impl From<CatalogueError> for Error {
    fn from(error: CatalogueError) -> Self {
        let code = match error {
            CatalogueError::Missing(_) => Code::StateMissing,
            _ => Code::StateUnusable,
        };
        Error::because(code, "the catalogue cannot be opened", error)
    }
}

/// SQLITE_FULL (<https://sqlite.org/rescode.html>).
fn is_full(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "13")
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_full(&error) {
            let text =
                "the state directory's file system is full: make room there, or delete disks or snapshots";
            return Error::because(Code::NoSpace, text, error);
        }
        let code = if Replaced::is(&error) {
            Code::StateReplaced
        } else {
            Code::CatalogueFailed
        };
        Error::because(code, "the catalogue cannot be read or written", error)
    }
}
