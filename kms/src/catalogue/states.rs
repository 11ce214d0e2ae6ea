//! The states of disks, snapshots, images and backups.

use super::named::named;

named! {
    /// Of a disk.
    pub(crate) enum DiskState {
        /// The disk's store is being made, or what the disk begins as is being copied.
        Creating = "creating",
        Available = "available",
        Attaching = "attaching",
        /// The disk has an attachment.
        InUse = "in-use",
        Detaching = "detaching",
        /// The disk gets another content: a snapshot's, or none.
        RollingBack = "rolling-back",
        Resizing = "resizing",
        /// Nobody knows what it holds, or it could not be removed.
        Error = "error",
        /// The disk's size is in doubt.
        ErrorResizing = "error-resizing",
        Deleting = "deleting",
    }
}

named! {
    /// Of a snapshot.
    pub(crate) enum SnapshotState {
        /// The snapshot is being taken.
        Creating = "creating",
        Available = "available",
        Deleting = "deleting",
        /// The snapshot has been deleted, and clones or images still need it.
        Hidden = "hidden",
        /// The store does not have the snapshot.
        Error = "error",
    }
}

impl SnapshotState {
    /// Whether the snapshot has been deleted, or is being deleted: it is there for nobody.
    pub(crate) fn is_gone(self) -> bool {
        matches!(self, SnapshotState::Hidden | SnapshotState::Deleting)
    }
}

named! {
    /// Of an image.
    pub(crate) enum ImageState {
        /// The image's snapshot is being taken, or data is being copied to it.
        Creating = "creating",
        Available = "available",
        /// The image is being deleted, with its snapshot, which was deleted before.
        Deleting = "deleting",
    }
}

named! {
    /// Of a backup, as its copy says.
    pub(crate) enum BackupState {
        Creating = "creating",
        Available = "available",
        /// It was not copied to its end.
        Error = "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::named::Named;
    use crate::catalogue::{Catalogue, behind};

    /// The catalogue's tables, which older versions have made, and the names here are the same: in each table, those that its
    /// check permits.
    #[tokio::test]
    async fn the_tables_have_these_names_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::create(&directory.path().join("catalogue.db"))
            .await
            .unwrap();
        let mut db = catalogue.read().await.unwrap();
        for (table, names) in [
            ("disks", DiskState::names("|")),
            ("snapshots", SnapshotState::names("|")),
            ("images", ImageState::names("|")),
        ] {
            let made: String = behind::value(
                &mut db,
                &format!("SELECT sql FROM sqlite_schema WHERE name = '{table}'"),
            )
            .await;
            let (_, permitted) = made.split_once("CHECK (state IN (").unwrap();
            let (permitted, _) = permitted.split_once(')').unwrap();
            let mut permitted: Vec<_> = permitted
                .split(',')
                .map(|name| name.trim().trim_matches('\''))
                .collect();
            let mut names: Vec<_> = names.split('|').collect();
            permitted.sort_unstable();
            names.sort_unstable();
            assert_eq!(names, permitted, "{table}");
        }
    }

    /// As the compiler cannot tell that a name is decoded as it is encoded.
    #[tokio::test]
    async fn a_name_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::create(&directory.path().join("catalogue.db"))
            .await
            .unwrap();
        let mut db = catalogue.read().await.unwrap();
        for state in DiskState::ALL {
            let (text, read): (String, DiskState) = sqlx::query_as("SELECT ?1, ?1")
                .bind(state)
                .fetch_one(&mut *db)
                .await
                .unwrap();
            assert_eq!((text.as_str(), read), (state.name(), *state));
        }
        let unknown = sqlx::query_scalar::<_, DiskState>("SELECT 'lost'");
        assert!(unknown.fetch_one(&mut *db).await.is_err());
    }
}
