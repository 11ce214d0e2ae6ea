//! What a copy of data goes from and to.

use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use crate::id;

/// How data lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "lowercase")]
pub(crate) enum Format {
    Raw,
    Qcow2,
}

/// A file that is no volume's.
#[derive(Clone, Debug)]
pub(crate) struct CopiedFile {
    /// `-` for one that the caller has passed, which none but the daemon that got it can open.
    pub(crate) path: String,
    /// Which file that is; see `store::Identity`. None: not made yet.
    pub(crate) identity: Option<String>,
    /// Bytes of data in it.
    pub(crate) size: i64,
}

impl CopiedFile {
    fn from_row(row: &SqliteRow, path: String) -> sqlx::Result<Self> {
        let size: Option<i64> = row.try_get("size")?;
        Ok(CopiedFile {
            path,
            identity: row.try_get("identity")?,
            size: size.map_or_else(|| row.try_get("total"), Ok)?,
        })
    }
}

/// Stands for a file where zeros are written: no path, for these are absolute.
const ZEROS: &str = "zeros";

/// What is copied. A volume that has gone since is none.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Volume(Option<String>),
    /// A clone of a snapshot, which may have gone since: it is made for this copy alone.
    Clone {
        volume: Option<String>,
        snapshot: String,
    },
    File {
        file: CopiedFile,
        format: Format,
    },
    /// Nothing: the destination is made empty.
    Zeros,
}

impl Origin {
    pub(super) fn volume(&self) -> Option<&str> {
        match self {
            Origin::Volume(volume) | Origin::Clone { volume, .. } => volume.as_deref(),
            Origin::File { .. } | Origin::Zeros => None,
        }
    }

    pub(super) fn snapshot(&self) -> Option<&str> {
        match self {
            Origin::Clone { snapshot, .. } => Some(snapshot),
            Origin::Volume(_) | Origin::File { .. } | Origin::Zeros => None,
        }
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Origin::File { format, .. } => *format,
            Origin::Volume(_) | Origin::Clone { .. } | Origin::Zeros => Format::Raw,
        }
    }

    /// What stands where a file's path would, if it is not copied from anything.
    pub(super) fn stand_in(&self) -> Option<&'static str> {
        matches!(self, Origin::Zeros).then_some(ZEROS)
    }
}

impl<'r> FromRow<'r, SqliteRow> for Origin {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        let (destination, file): (Option<String>, Option<String>) =
            (row.try_get("destination")?, row.try_get("file")?);
        if file.as_deref() == Some(ZEROS) {
            return Ok(Origin::Zeros);
        }
        if let (Some(_), Some(path)) = (destination, file) {
            return Ok(Origin::File {
                file: CopiedFile::from_row(row, path)?,
                format: row.try_get("format")?,
            });
        }
        let volume = row.try_get("source")?;
        Ok(match row.try_get("snapshot")? {
            Some(snapshot) => Origin::Clone { volume, snapshot },
            None => Origin::Volume(volume),
        })
    }
}

/// Where it is copied to.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Disk(String),
    Backup(String),
    /// The volume that an image is made of.
    Image {
        volume: String,
        image: String,
    },
    File {
        file: CopiedFile,
        /// The image that is written to it, if it is one.
        image: Option<String>,
    },
}

impl Destination {
    /// The volume, unless it is a file.
    pub(crate) fn volume(&self) -> Option<&str> {
        match self {
            Destination::Disk(volume) | Destination::Backup(volume) | Destination::Image { volume, .. } => {
                Some(volume)
            }
            Destination::File { .. } => None,
        }
    }

    pub(super) fn image(&self) -> Option<&str> {
        match self {
            Destination::Image { image, .. } => Some(image),
            Destination::File { image, .. } => image.as_deref(),
            Destination::Disk(_) | Destination::Backup(_) => None,
        }
    }
}

impl<'r> FromRow<'r, SqliteRow> for Destination {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        let (volume, image): (Option<String>, Option<String>) =
            (row.try_get("destination")?, row.try_get("image")?);
        Ok(match (volume, image) {
            (Some(volume), Some(image)) => Destination::Image { volume, image },
            (Some(volume), None) if id::is_backup(&volume) => Destination::Backup(volume),
            (Some(volume), None) => Destination::Disk(volume),
            (None, image) => Destination::File {
                file: CopiedFile::from_row(row, row.try_get("file")?)?,
                image,
            },
        })
    }
}
