//! `POST /v1/disks` (rules K01, K02, K03, K04, K05, K15, D01, D02, D05; from a snapshot or
//! an image: [`crate::rules::source`]).

use std::path::Path;

use std::sync::Arc;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::calls::idempotency::Creates;
use crate::catalogue::counts::Counted;
use crate::catalogue::intents::{IntentRow, Work};
use crate::catalogue::kinds::Role;
use crate::catalogue::named::Named;
use crate::catalogue::volumes::{self, VolumeRow};
use crate::catalogue::{Write, disks};
use crate::context::{Kms, facts};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::intents::{Subject, create_disk};
use crate::rules::disk_kind::check_encryption;
use crate::rules::disk_size::check_size;
use crate::rules::gate;
use crate::rules::key::new_lineage;
use crate::rules::quota;
use crate::rules::source::Source;
use crate::views;
use crate::volumes::on_full;
use crate::volumes::path::{self, taken};
use sealblk_api::{CreateDisk, Disk};

impl Operation for CreateDisk {
    const CALL: &'static str = "disk.create";
    type Decided = IntentRow;
    type Answer = Disk;

    fn object(&self) -> &str {
        &self.name
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        if let Some(path) = &self.path {
            self.path = Some(path::choose(kms, caller, path).await?);
        }
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<IntentRow> {
        id::check_name(&self.name)?;
        check_role(self.role.as_deref())?;
        quota::check(kms, tx, &caller.account, Counted::Disks).await?;
        let source = Source::of(self, kms, caller, tx).await?;
        check_size(source.size)?;
        id::check_name(&source.zone)?;
        check_encryption(
            kms.profile,
            source.encrypted,
            source.kind,
            source.disk_type,
            self.shared,
        )?;
        if disks::find(tx, &caller.account, &self.name).await?.is_some() {
            let text = format!("there is a disk {:?} already: choose another name", self.name);
            return Err(Error::new(Code::NameTaken, text));
        }
        if let Some(path) = &self.path
            && volumes::has_path(tx, path).await?
        {
            return Err(taken(Path::new(path)));
        }
        if source.encrypted {
            gate::check(kms, caller, tx).await?;
        }
        let (lineage, made_key) = match &source.snapshot {
            // Rules S02 and K05: the same data key.
            Some(snapshot) => (snapshot.lineage.clone(), None),
            None => choose_lineage(kms, caller, tx, self.key.as_deref(), source.encrypted).await?,
        };
        let size = i64::try_from(source.size).unwrap_or(i64::MAX);
        let volume = VolumeRow {
            encrypted: source.encrypted,
            store: source.store,
            path: self.path.clone(),
            zone: source.zone,
            lineage,
            base: source.snapshot.as_ref().map(|snapshot| snapshot.id.clone()),
            kind: source.kind,
            disk_type: source.disk_type,
            ..VolumeRow::new(id::new(Kind::Disk)?, caller.account.clone(), size)
        };
        let on_full = on_full::choose(self.on_full.as_deref())?;
        disks::insert(tx, &volume, &self.name, self.shared, on_full).await?;
        let origin = source.snapshot.map(|snapshot| snapshot.volume);
        caller.facts.note_if("source", origin);
        caller.facts.note("size", size);
        facts::volume(&caller.facts, &volume);
        let subject = Subject {
            volume: &volume.id,
            encrypted: volume.encrypted,
            made_key,
            ..Subject::default()
        };
        kms.open_intent(tx, caller, Work::CreateDisk { snapshot: None }, subject)
            .await
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Disk> {
        create_disk::carry_out(kms, &intent).await?;
        views::disk::after(kms, &intent.disk).await
    }
}

impl Creates for CreateDisk {
    fn created(intent: &IntentRow) -> &str {
        &intent.disk
    }

    async fn present(kms: &Arc<Kms>, caller: &Caller, id: &str) -> Result<Disk> {
        views::disk::show(kms, caller, id, None).await
    }
}

async fn choose_lineage(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    key: Option<&str>,
    encrypted: bool,
) -> Result<(Option<String>, Option<String>)> {
    if encrypted {
        let (lineage, made_key) = new_lineage(kms, caller, tx, key).await?;
        return Ok((Some(lineage), made_key));
    }
    if key.is_some() {
        let text = "a plain disk has no key: leave the key out, or create the disk encrypted";
        return Err(Error::new(Code::InvalidRequest, text));
    }
    Ok((None, None))
}

/// Rule I01: a system disk exists only with an instance.
fn check_role(wanted: Option<&str>) -> Result<()> {
    match wanted.map(|wanted| Role::named(wanted).ok_or(wanted)) {
        None | Some(Ok(Role::Data)) => Ok(()),
        Some(Ok(Role::System)) => {
            let text =
                "a system disk comes and goes with its instance: register the instance with --system-disk";
            Err(Error::new(Code::SystemDiskBound, text))
        }
        Some(Err(other)) => {
            let text = format!("there is no role of disks {other:?}: use data");
            Err(Error::new(Code::InvalidRequest, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::catalogue::behind;
    use crate::volumes::sweep;

    /// What is in the place of its file can be neither used nor removed.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_whose_file_refuses_to_go_is_gone_all_the_same_and_the_file_follows() {
        let world = World::new().await;
        let kms = &world.kms;
        let intent = kms.decide(&caller(), &new_disk(None)).await.unwrap();
        let id = intent.disk.clone();
        let file = kms.state.store(&id, None);
        std::fs::create_dir_all(file.join("in the way")).unwrap();
        assert!(new_disk(None).act(kms, &caller(), intent).await.is_err());
        let exists = async || {
            let mut db = kms.catalogue.read().await.unwrap();
            let disk = disks::find(&mut db, &caller().account, &id).await.unwrap();
            (disk.is_some(), volumes::exists(&mut db, &id).await.unwrap())
        };
        assert_eq!(exists().await, (false, true));
        crate::calls::run(kms, caller(), new_disk(None)).await.unwrap();
        sweep::sweep(kms).await.unwrap_err();
        std::fs::remove_dir_all(&file).unwrap();
        sweep::sweep(kms).await.unwrap();
        assert_eq!(exists().await, (false, false));
    }

    /// The repeat of the call would find what was made, and not know whose it is.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_cannot_be_noted_goes_and_one_that_was_there_stays() {
        let world = World::new().await;
        let kms = &world.kms;
        let mut tx = kms.catalogue.write().await.unwrap();
        let trigger = "CREATE TRIGGER failing BEFORE UPDATE OF identity ON volumes BEGIN SELECT RAISE(ABORT, 'no'); END";
        behind::run(&mut tx, trigger).await.unwrap();
        tx.commit().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        std::fs::write(directory.join("there"), "").unwrap();
        for (name, stays) in [("new", false), ("there", true)] {
            let path = directory.join(name);
            let disk = new_disk(Some(path.to_str().unwrap().to_owned()));
            let refused = crate::calls::run(kms, caller(), disk).await.unwrap_err();
            assert_eq!(refused.code(), Code::CatalogueFailed);
            assert_eq!(path.exists(), stays, "{name}");
        }
    }
}
