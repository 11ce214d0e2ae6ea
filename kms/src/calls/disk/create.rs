//! `POST /v1/disks` (rules K01, K02, K03, K04, K05, K15, D01, D02, D05; from a snapshot or
//! an image: [`crate::rules::source`]).

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::audit::{self, Caller, Decision};
use crate::calls::Operation;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::keys;
use crate::catalogue::snapshots;
use crate::catalogue::volumes::{self, VolumeRow};
use crate::catalogue::{Write, copies, images};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::store::{Expected, Identity};
use crate::host::{aside, store};
use crate::id::{self, Kind};
use crate::intents::Subject;
use crate::rules::disk_kind::check_encryption;
use crate::rules::disk_size::check_size;
use crate::rules::gate;
use crate::rules::key::new_lineage;
use crate::rules::source::Source;
use crate::views;
use crate::volumes::change::unknown;
use crate::volumes::commands::{self, Unmade};
use crate::volumes::path::{self, check_not_taken, taken};
use crate::volumes::{on_full, sweep};
use crate::{clock, limits};
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
        let source = Source::of(self, kms, caller, tx).await?;
        check_size(source.size)?;
        id::check_name(&source.zone)?;
        check_encryption(
            kms.profile,
            source.encrypted,
            &source.kind,
            &source.disk_type,
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
        let row = DiskRow {
            id: id::new(Kind::Disk)?,
            account: caller.account.clone(),
            name: self.name.clone(),
            state: "creating".to_owned(),
            encrypted: source.encrypted,
            size: i64::try_from(source.size).unwrap_or(i64::MAX),
            store: source.store.to_owned(),
            path: self.path.clone(),
            identity: None,
            zone: source.zone,
            lineage,
            base: source.snapshot.map(|snapshot| snapshot.id),
            kind: source.kind,
            disk_type: source.disk_type,
            role: "data".to_owned(),
            system_of: None,
            shared: self.shared,
            on_full: on_full::choose(self.on_full.as_deref())?.to_owned(),
            created: clock::now(),
            key: None,
            key_version: None,
            key_state: None,
            attachment: None,
            instance: None,
        };
        disks::insert(tx, &row).await?;
        let subject = Subject {
            made_key,
            ..Subject::disk(&row)
        };
        kms.open_intent(tx, caller, Self::CALL, subject).await
    }

    async fn act(&self, kms: &Kms, _: &Caller, intent: IntentRow) -> Result<Disk> {
        let volume = volume_of(kms, &intent).await?;
        if let Err(error) = pin(kms, &intent, &volume).await {
            return match error {
                Unmade::Not(error) => {
                    // Nothing holds the snapshot, so nobody has to be asked to let go of it.
                    undo_with(kms, &intent, &error, false).await?;
                    Err(error)
                }
                Unmade::Unknown(error) => Err(unknown(error)),
            };
        }
        if let Err(error) = make_and_commit(kms, &intent, &volume).await {
            undo(kms, &intent, &error).await?;
            return Err(error);
        }
        views::disk::after(kms, &intent.disk).await
    }
}

/// Decides on a disk to which data is copied once it has been made; the copy is decided on by the caller, in the same
/// transaction.
///
/// # Errors
/// Those of `disk.create`.
pub(crate) async fn decide_filled(
    kms: &Kms,
    caller: &Caller,
    tx: &mut Write,
    disk: &CreateDisk,
) -> Result<IntentRow> {
    let intent = disk.decide(kms, caller, tx).await?;
    audit::append(tx, caller, CreateDisk::CALL, &disk.name, Decision::Allowed).await?;
    Ok(intent)
}

/// Makes the disk, and the copying to it begins. If it cannot be made there is no disk, and no copy.
///
/// # Errors
/// The store's; the catalogue's.
pub(crate) async fn act_filled(
    kms: &Kms,
    caller: &Caller,
    call: &str,
    object: &str,
    intent: &IntentRow,
) -> Result<Disk> {
    let made = async {
        let volume = volume_of(kms, intent).await?;
        make_and_commit(kms, intent, &volume).await
    };
    if let Err(error) = made.await {
        undo(kms, intent, &error).await?;
        kms.record(caller, call, object, Decision::Failed(&error)).await?;
        return Err(error);
    }
    kms.copies.begin();
    views::disk::after(kms, &intent.disk).await
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
    match wanted {
        None | Some("data") => Ok(()),
        Some("system") => {
            let text =
                "a system disk comes and goes with its instance: register the instance with --system-disk";
            Err(Error::new(Code::SystemDiskBound, text))
        }
        Some(other) => {
            let text = format!("there is no role of disks {other:?}: use data");
            Err(Error::new(Code::InvalidRequest, text))
        }
    }
}

async fn volume_of(kms: &Kms, intent: &IntentRow) -> Result<VolumeRow> {
    let mut db = kms.catalogue.read().await?;
    Ok(volumes::get(&mut db, &intent.disk).await?)
}

/// A clone's first step: its base keeps the snapshot.
async fn pin(kms: &Kms, intent: &IntentRow, volume: &VolumeRow) -> std::result::Result<(), Unmade> {
    let Some(snapshot) = &volume.base else {
        return Ok(());
    };
    let base = {
        let mut db = kms
            .catalogue
            .read()
            .await
            .map_err(|error| Unmade::Not(error.into()))?;
        let row = snapshots::get(&mut db, snapshot).await;
        row.map_err(|error| Unmade::Not(error.into()))?.volume
    };
    commands::pin(kms, &base, &intent.id, snapshot, &volume.id).await
}

/// Makes a decided disk; its intent stays open.
///
/// # Errors
/// Those of its store and its base; then it must be undone.
pub(crate) async fn build(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let volume = volume_of(kms, intent).await?;
    match pin(kms, intent, &volume).await {
        Ok(()) => make(kms, intent, &volume).await,
        Err(Unmade::Not(error)) => Err(error),
        Err(Unmade::Unknown(error)) => Err(unknown(error)),
    }
}

async fn make_and_commit(kms: &Kms, intent: &IntentRow, volume: &VolumeRow) -> Result<()> {
    make(kms, intent, volume).await?;
    commit(kms, intent).await
}

async fn make(kms: &Kms, intent: &IntentRow, volume: &VolumeRow) -> Result<()> {
    let file = make_file(kms, intent.uid, volume).await?;
    if volume.store == "layered" {
        // Its backend opens it for itself, a device exclusively.
        aside::discard(&volume.location(&kms.state), file).await?;
        let volume = volume_of(kms, intent).await?;
        commands::create(kms, &volume).await
    } else {
        fill_file(kms, volume, file).await
    }
}

/// Makes the layered store of a volume that no disk has, on behalf of a user. Can be repeated: what an earlier attempt has
/// left is removed.
///
/// # Errors
/// The file's, the backend's or the catalogue's.
pub(crate) async fn make_anew(kms: &Kms, uid: u32, id: &str) -> Result<()> {
    let get = async || {
        let mut db = kms.catalogue.read().await?;
        Ok::<_, Error>(volumes::get(&mut db, id).await?)
    };
    let volume = get().await?;
    give_back(kms, &volume).await?;
    let file = make_file(kms, uid, &volume).await?;
    aside::discard(&volume.location(&kms.state), file).await?;
    commands::create(kms, &get().await?).await
}

/// The place of a volume is again as it was before its store was made.
async fn give_back(kms: &Kms, volume: &VolumeRow) -> Result<()> {
    let (path, expected) = (volume.location(&kms.state), volume.expected());
    match &volume.identity {
        Some(text) if matches!(Identity::parse(text, &path)?, Identity::Device { .. }) => {
            let blank = move |path: &Path| store::blank_again(path, &expected);
            aside::work(&path, limits::STORE_TIME, blank).await
        }
        _ => sweep::release(kms, volume).await,
    }
}

/// The file exists, made or taken on behalf of a user, and the catalogue knows which it is.
pub(crate) async fn make_file(kms: &Kms, uid: u32, volume: &VolumeRow) -> Result<File> {
    let path = volume.location(&kms.state);
    // A layered store takes what it needs, and says if there is no room for that.
    let least = volume.length().unwrap_or(0);
    let expected = Expected::of(volume.path.as_deref(), None);
    let guard = kms.paths.guard(uid);
    let open = move |path: &Path| store::Fresh::open(path, least, &expected, &guard);
    let fresh = aside::work(&path, limits::STORE_TIME, open).await?;
    let noted = match &volume.path {
        Some(path) => note_file(kms, volume, path, fresh.identity()).await,
        None => Ok(()),
    };
    path::keep_noted(&path, fresh, noted).await
}

async fn note_file(kms: &Kms, volume: &VolumeRow, path: &str, identity: &Identity) -> Result<()> {
    // Of two calls at once for two names of one file, at least one sees the other here.
    // Noted first, for the other to see.
    path::note_medium(kms, &volume.id, path).await?;
    check_not_taken(kms, path, true).await?;
    let identity = identity.to_text()?;
    let mut tx = kms.catalogue.write().await?;
    volumes::set_identity(&mut tx, &volume.id, &identity).await?;
    Ok(tx.commit().await?)
}

/// A raw store has its size.
pub(crate) async fn fill_file(kms: &Kms, volume: &VolumeRow, file: File) -> Result<()> {
    let (path, size) = (volume.location(&kms.state), volume.size.unsigned_abs());
    let zero = !volume.encrypted;
    let time = limits::STORE_TIME + Duration::from_secs(size / limits::SLOWEST_MEDIUM);
    let fill = move |path: &Path| store::fill(&file, path, size, zero);
    aside::work(&path, time, fill).await
}

async fn commit(kms: &Kms, intent: &IntentRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    // Data is yet to be copied to one that is restored or imported.
    if copies::on_volume(&mut tx, &intent.disk).await?.is_none() {
        disks::set_state(&mut tx, &intent.disk, "available").await?;
    }
    intents::close(&mut tx, intent).await?;
    Ok(tx.commit().await?)
}

/// Removes what was made, and the image that was to be made of it, and refunds. Can be repeated. A file that refuses to go, or a
/// base that does not let go, keeps the volume and nothing else: it is tried again until it succeeds.
///
/// # Errors
/// The catalogue's; then the intent stays open, and this is tried again.
pub(crate) async fn undo(kms: &Kms, intent: &IntentRow, error: &Error) -> Result<()> {
    undo_with(kms, intent, error, true).await
}

async fn undo_with(kms: &Kms, intent: &IntentRow, error: &Error, pinned: bool) -> Result<()> {
    // A file outside the state directory of which the catalogue does not know that we made it stays; it is empty.
    let volume = volume_of(kms, intent).await?;
    let left = match pinned {
        true => sweep::give_up(kms, &volume).await.err(),
        false => None,
    };
    if let Some(why) = &left {
        log::error!(
            "{}: what was made of it stays for now: {}",
            volume.id,
            why.full_message()
        );
    }
    let mut tx = kms.catalogue.write().await?;
    kms.record_undone(&mut tx, intent, error).await?;
    intents::refund(&mut tx, &kms.meta.region, intent).await?;
    disks::delete(&mut tx, &intent.disk).await?;
    if let Some(snapshot) = &intent.snapshot {
        images::delete_with_snapshot(&mut tx, snapshot).await?;
        snapshots::delete(&mut tx, snapshot).await?;
    }
    if left.is_none() {
        volumes::delete(&mut tx, &volume).await?;
    }
    if let Some(key) = &intent.made_key {
        // Nothing was changed by a call that came to nothing, unless somebody else uses the key by now.
        keys::delete_unused(&mut tx, key).await?;
    }
    tx.commit().await?;
    kms.catalogue.forget_deleted().await;
    sweep::sweep_or_leave(kms).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::catalogue::behind;

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
