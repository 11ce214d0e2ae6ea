//! `DELETE /v1/backups/{backup}` (rule K14).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::backups::{self, BackupRow};
use crate::catalogue::{Write, copies};
use crate::context::Kms;
use crate::copies::job;
use crate::error::Result;
use crate::rules::available::not_available;
use crate::views;
use crate::volumes::sweep;
use sealblk_api::Backup;

/// Deletes a backup; the key goes with the last that has it. One that is being made is not made.
pub(crate) struct DeleteBackup {
    /// Id or name.
    pub(crate) backup: String,
}

impl Operation for DeleteBackup {
    const CALL: &'static str = "backup.delete";
    const FREES: bool = true;
    type Decided = BackupRow;
    type Answer = Backup;

    fn object(&self) -> &str {
        &self.backup
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<BackupRow> {
        let row = views::backup::find(tx, caller, &self.backup).await?;
        match copies::on_volume(tx, &row.id).await? {
            Some(copy) if copy.destination.volume() != Some(&row.id) => {
                Err(not_available("backup", &row.name, "being restored"))
            }
            _ => Ok(row),
        }
    }

    async fn act(&self, kms: &Kms, _: &Caller, row: BackupRow) -> Result<Backup> {
        let making = {
            let mut db = kms.catalogue.read().await?;
            copies::on_volume(&mut db, &row.id).await?
        };
        if let Some(copy) = making.filter(|copy| copy.destination.volume() == Some(&row.id)) {
            job::cancel(kms, &copy).await?;
        }
        let (id, name) = (row.id.clone(), row.name.clone());
        let shown = views::backup::answer(kms, row).await?;
        let mut tx = kms.catalogue.write().await?;
        // Restoring the backup may have begun since.
        if copies::on_volume(&mut tx, &id).await?.is_some() {
            tx.rollback().await?;
            return Err(not_available("backup", &name, "being restored"));
        }
        backups::delete(&mut tx, &id).await?;
        tx.commit().await?;
        sweep::sweep_or_leave(kms).await;
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::backup::restore::RestoreBackup;
    use crate::calls::run;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::catalogue::copies::Phase;
    use crate::error::Code;
    use sealblk_api::{CreateBackup, CreateDisk};

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_d05_a_backup_whose_restoring_has_begun_meanwhile_is_not_deleted() {
        let world = World::new().await;
        run(&world.kms, caller(), new_disk(None)).await.unwrap();
        let create = CreateBackup {
            name: "b".into(),
            disk: Some("data".into()),
            snapshot: None,
            path: None,
        };
        run(&world.kms, caller(), create).await.unwrap();
        {
            let mut tx = world.kms.catalogue.write().await.unwrap();
            let copy = copies::unended(&mut tx).await.unwrap().pop().unwrap();
            copies::set_position(&mut tx, &copy, Phase::Done, 1, 1)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        let delete = DeleteBackup { backup: "b".into() };
        let decided = world.kms.decide(&caller(), &delete).await.unwrap();
        let restore = RestoreBackup {
            backup: "b".into(),
            disk: CreateDisk {
                name: "r".into(),
                ..new_disk(None)
            },
        };
        world.kms.decide(&caller(), &restore).await.unwrap();
        let refused = delete.act(&world.kms, &caller(), decided).await.err().unwrap();
        assert_eq!(refused.code(), Code::DiskNotAvailable);
        let mut tx = world.kms.catalogue.write().await.unwrap();
        assert!(views::backup::find(&mut tx, &caller(), "b").await.is_ok());
    }
}
