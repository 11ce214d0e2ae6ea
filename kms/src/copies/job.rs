//! Copies that go on, for as long as they take. A process that was killed, or a KMS that was, is followed by another one,
//! which goes on from the last position that is known to be durable. Whoever waits for one of the two volumes meanwhile,
//! such as a disk from a snapshot that is deleted, is let in between.

use std::sync::{Arc, Weak};

use sealblk_proto::message::{Change, CopyPhase, FileFormat, Mode};

use crate::audit::{self, Decision};
use crate::catalogue::copies::{self, CopiedFile, CopyRow, Destination, Format, Origin, Phase};
use crate::catalogue::named::Named;
use crate::catalogue::states::DiskState;
use crate::catalogue::{disks, images, volumes};
use crate::context::Kms;
use crate::copies::process::{plan_between, plan_to, progress, source_plan};
use crate::copies::{export_file, fresh, snapshot};
use crate::error::{Code, Error, Result};
use crate::host::backends::maintenance::Maintenance;
use crate::host::backends::{Plan, SourcePlan, code_of};
use crate::host::passed::{Passed, is_passed};
use crate::limits;
use crate::volumes::commands::{self, Unmade};
use crate::volumes::make;
use sealblk_api::Copy;

/// Why a copy's process was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// There is nothing more to do.
    Ended,
    /// Somebody else has something to do with one of the volumes.
    LetIn,
}

/// Carries out what is begun, as long as the KMS lives.
pub(crate) async fn carry_out(kms: Weak<Kms>) {
    loop {
        let Some(kms) = kms.upgrade() else { return };
        if let Err(error) = start_missing(&kms).await {
            log::error!("copies cannot go on for the moment: {}", error.full_message());
        }
        let wake = Arc::clone(&kms.copies.wake);
        drop(kms);
        let _ = tokio::time::timeout(limits::RETRY_DELAY_MOST, wake.notified()).await;
    }
}

async fn start_missing(kms: &Arc<Kms>) -> Result<()> {
    let unended = {
        let mut db = kms.catalogue.read().await?;
        copies::startable(&mut db).await?
    };
    for id in unended {
        if kms.copies.look().contains_key(&id) {
            continue;
        }
        kms.copies.look().insert(id.clone(), None);
        let kms = Arc::clone(kms);
        tokio::spawn(async move {
            go_on(&kms, &id).await;
            kms.copies.passed.forget(&id);
            kms.copies.look().remove(&id);
        });
    }
    Ok(())
}

/// One process after the other, until it has ended.
async fn go_on(kms: &Kms, id: &str) {
    let mut delay = limits::RESTART_DELAY_FIRST;
    let mut vain = 0;
    let mut position = None;
    loop {
        match with_process(kms, id).await {
            Ok(Pause::Ended) => return,
            Ok(Pause::LetIn) => continue,
            Err(error) => {
                // An examination of a store, which takes hours, is waited for.
                if error.code() == Code::DiskNotAvailable {
                    log::debug!("{id}: it waits: {}", error.full_message());
                } else {
                    log::warn!("{id}: {}", error.full_message());
                    let reached = position_of(kms, id).await;
                    vain = if reached == position { vain + 1 } else { 1 };
                    position = reached;
                }
                // No further attempt finds it again.
                let over = vain >= limits::COPY_ATTEMPTS || error.code() == Code::DescriptorLost;
                match give_up(kms, id, &error, over).await {
                    Ok(false) => {}
                    Ok(true) => return,
                    Err(error) if error.code() == Code::ShuttingDown => return,
                    Err(error) => log::error!("{id}: {}", error.full_message()),
                }
            }
        }
        tokio::time::sleep(delay).await;
        delay = (2 * delay).min(limits::RESTART_DELAY_MOST);
    }
}

async fn position_of(kms: &Kms, id: &str) -> Option<(Phase, i64)> {
    let mut db = kms.catalogue.read().await.ok()?;
    let row = copies::get(&mut db, id).await.ok()??;
    Some((row.phase, row.position))
}

/// Starts a process, and follows it to its end.
async fn with_process(kms: &Kms, id: &str) -> Result<Pause> {
    let Some(row) = prepared(kms, id).await? else {
        return Ok(Pause::Ended);
    };
    // In one order, so that no two copies wait for each other.
    let mut locks = Vec::new();
    for volume in row.volumes() {
        locks.push(kms.supervisor.lock(&volume).await);
    }
    // Cancelled meanwhile, perhaps.
    let Some(row) = unended(kms, id).await? else {
        return Ok(Pause::Ended);
    };
    let process = kms.supervisor.maintain(plan(kms, &row).await?).await?;
    let followed = follow(kms, &row, &process).await;
    process.end().await;
    match followed? {
        Followed::Pause(pause) => Ok(pause),
        Followed::Done => {
            if row.makes_image() {
                // The new image's snapshot is taken by a process that takes the volume's lock itself.
                drop(locks);
            }
            commit(kms, &row).await.map(|()| Pause::Ended)
        }
        Followed::Failed(error) => give_up(kms, id, &error, true).await.map(|_| Pause::Ended),
    }
}

async fn unended(kms: &Kms, id: &str) -> Result<Option<CopyRow>> {
    let mut db = kms.catalogue.read().await?;
    Ok(copies::get(&mut db, id).await?.filter(CopyRow::goes_on))
}

/// The copy, if it still goes on, when its destination is ready for it.
async fn prepared(kms: &Kms, id: &str) -> Result<Option<CopyRow>> {
    let _preparing = kms.copies.preparing.take(id).await;
    let row = unended(kms, id).await?;
    if let Some(row) = row.as_ref().filter(|row| row.unprepared) {
        prepare(kms, row).await?;
    }
    Ok(row)
}

/// What the destination held goes, once; its snapshots stay. A file or backup is made, and the clone of a snapshot.
async fn prepare(kms: &Kms, row: &CopyRow) -> Result<()> {
    fresh::make_copied(kms, row).await?;
    match &row.destination {
        Destination::Backup(backup) => make::make_backup(kms, row.uid, backup).await?,
        Destination::Disk(volume) | Destination::Image { volume, .. } => {
            let change = Change::Reinitialise { force: true };
            let changed = commands::change(kms, volume, &row.id, change).await;
            changed.map_err(Unmade::into_error)?;
        }
        Destination::File { file, .. } => export_file::make_file(kms, row, file).await?,
    }
    let _running = kms.begin().await?;
    let mut tx = kms.catalogue.write().await?;
    copies::set_prepared(&mut tx, &row.id).await?;
    Ok(tx.commit().await?)
}

async fn plan(kms: &Kms, row: &CopyRow) -> Result<Plan> {
    let mode = Mode::Copy {
        phase: match row.phase {
            Phase::Verify => CopyPhase::Verify,
            Phase::Copy | Phase::Done | Phase::Failed | Phase::Cancelled => CopyPhase::Copy,
        },
        position: row.position.unsigned_abs(),
        clean: row.clean,
    };
    let gone = || Error::new(Code::Internal, "a volume of the copy is missing");
    match (&row.origin, &row.destination) {
        (
            Origin::Volume(source) | Origin::Clone { volume: source, .. },
            Destination::Disk(to) | Destination::Backup(to) | Destination::Image { volume: to, .. },
        ) => plan_between(kms, source.as_deref().ok_or_else(gone)?, to, mode).await,
        (Origin::Volume(source) | Origin::Clone { volume: source, .. }, Destination::File { file, .. }) => {
            let source = source.as_deref().ok_or_else(gone)?;
            let mut plan = commands::plan_of(kms, &export_file::volume(row, file), &[], mode).await?;
            plan.store.passed = passed(kms, row, file)?;
            Ok(plan.copying(None, source_plan(kms, source).await?))
        }
        (
            Origin::File { file, format },
            Destination::Disk(to) | Destination::Backup(to) | Destination::Image { volume: to, .. },
        ) => {
            let format = match format {
                Format::Qcow2 => FileFormat::Qcow2,
                Format::Raw => FileFormat::Raw,
            };
            let size = file.size.unsigned_abs();
            let mut source = SourcePlan::file(&file.path, file.identity.as_deref(), size, format);
            source.store.passed = passed(kms, row, file)?;
            plan_to(kms, source, to, mode).await
        }
        (Origin::Zeros, Destination::Disk(to)) => {
            let size = row.total.unsigned_abs();
            let mut source = SourcePlan::file("zeros", None, size, FileFormat::Raw);
            source.store.passed = Some(Arc::new(Passed::zeros(size)?));
            plan_to(kms, source, to, mode).await
        }
        (Origin::File { .. } | Origin::Zeros, _) => Err(gone()),
    }
}

/// The file that was passed for a copy, if one was.
fn passed(kms: &Kms, row: &CopyRow, file: &CopiedFile) -> Result<Option<Arc<Passed>>> {
    is_passed(&file.path)
        .then(|| kms.copies.passed.get(&row.id))
        .transpose()
}

/// What has come of a process.
enum Followed {
    Pause(Pause),
    Done,
    /// The copy cannot be done.
    Failed(Error),
}

/// Asks again and again how far the process has come, and writes it down.
async fn follow(kms: &Kms, row: &CopyRow, process: &Maintenance<'_>) -> Result<Followed> {
    let mut interval = limits::COPY_LOOK_FIRST;
    let mut known = (row.phase, row.position.unsigned_abs());
    loop {
        let progress = progress(process).await?;
        kms.copies.say(&row.id, &progress);
        if let Some(failure) = &progress.failure {
            return Ok(Followed::Failed(Error::new(
                code_of(failure),
                failure.message.clone(),
            )));
        }
        if progress.phase == CopyPhase::Done {
            return Ok(Followed::Done);
        }
        let reached = (phase_of(progress.phase), progress.position);
        if reached != known {
            let _running = kms.begin().await?;
            let mut tx = kms.catalogue.write().await?;
            copies::set_position(&mut tx, &row.id, reached.0, reached.1, progress.total).await?;
            tx.commit().await?;
            known = reached;
        }
        if row
            .volumes()
            .iter()
            .any(|volume| kms.supervisor.is_awaited(volume))
        {
            return Ok(Followed::Pause(Pause::LetIn));
        }
        tokio::time::sleep(interval).await;
        interval = (2 * interval).min(limits::COPY_LOOK_MOST);
    }
}

fn phase_of(phase: CopyPhase) -> Phase {
    match phase {
        CopyPhase::Copy => Phase::Copy,
        CopyPhase::Verify => Phase::Verify,
        CopyPhase::Done => Phase::Done,
    }
}

async fn commit(kms: &Kms, row: &CopyRow) -> Result<()> {
    let snapshot = snapshot::take_copied(kms, row).await?;
    let _running = kms.begin().await?;
    let mut tx = kms.catalogue.write().await?;
    copies::set_position(
        &mut tx,
        &row.id,
        Phase::Done,
        row.total.unsigned_abs(),
        row.total.unsigned_abs(),
    )
    .await?;
    if let Some(destination) = row.destination.volume() {
        disks::set_idle(&mut tx, destination).await?;
        if let Origin::Zeros = row.origin {
            volumes::set_written(&mut tx, destination, false).await?;
        }
    }
    if let Some(snapshot) = snapshot {
        images::set_available(&mut tx, &snapshot).await?;
    }
    let object = row.object().unwrap_or(&row.id);
    audit::append(&mut tx, &row.caller(), "copy.end", object, Decision::Allowed).await?;
    tx.commit().await?;
    // The clone that it has read is needed no more.
    kms.retries.flag();
    log::info!("{} {}: copied and compared", row.call, row.id);
    Ok(())
}

/// Notes why a copy does not go on; if it is `over`, for good, and the audit log has it. Whether it has ended.
async fn give_up(kms: &Kms, id: &str, error: &Error, over: bool) -> Result<bool> {
    let _running = kms.begin().await?;
    let Some(row) = unended(kms, id).await? else {
        return Ok(true);
    };
    let mut trouble = error.full_message();
    // Before it counts as ended: nobody looks for the file of one that has.
    if over && let Err(error) = export_file::remove_file(kms, &row).await {
        trouble = format!("{trouble}; its file stays: {}", error.full_message());
    }
    if !over && row.trouble.as_ref() == Some(&trouble) {
        return Ok(false);
    }
    let mut tx = kms.catalogue.write().await?;
    let Some(row) = copies::get(&mut tx, id).await?.filter(CopyRow::goes_on) else {
        return Ok(true);
    };
    let phase = over.then_some(Phase::Failed);
    copies::set_trouble(&mut tx, id, phase, Some(&trouble)).await?;
    if over {
        if let Some(destination) = row.destination.volume() {
            disks::set_state(&mut tx, destination, DiskState::Error).await?;
        }
        let object = row.object().unwrap_or(id);
        audit::append(&mut tx, &row.caller(), &row.call, object, Decision::Failed(error)).await?;
    }
    tx.commit().await?;
    if over {
        // A volume may have waited for this to be removed.
        kms.retries.flag();
    }
    Ok(over)
}

/// As the API gives it.
pub(crate) fn shown(kms: &Kms, row: CopyRow) -> Copy {
    let live = kms.copies.look().get(&row.id).cloned().flatten();
    let file = row.file().map(|file| file.path.clone());
    let mut copy = Copy {
        from: match row.origin {
            Origin::Volume(volume) => volume,
            Origin::Clone { snapshot, .. } => Some(snapshot),
            Origin::File { .. } => None,
            Origin::Zeros => Some("zeros".to_owned()),
        },
        to: match row.destination {
            Destination::Disk(volume) | Destination::Backup(volume) => Some(volume),
            Destination::Image { image, .. } => Some(image),
            Destination::File { .. } => None,
        },
        id: row.id,
        file,
        phase: row.phase.name().to_owned(),
        done: row.position.unsigned_abs(),
        total: row.total.unsigned_abs(),
        trouble: row.trouble,
        created: row.created,
    };
    if let Some(live) = live.filter(|live| row.phase.goes_on() && live.phase != CopyPhase::Done) {
        copy.phase = phase_of(live.phase).name().to_owned();
        copy.done = live.done;
        copy.total = live.total;
    }
    copy
}

/// Ends a copy that goes on, or has failed: its process has ended when this returns, and an export's file is removed.
///
/// # Errors
/// The file's, which stays, and then the copy goes on; the catalogue's.
pub(crate) async fn cancel(kms: &Kms, row: &CopyRow) -> Result<()> {
    let _preparing = kms.copies.preparing.take(&row.id).await;
    // A call that waits for the locks makes the copy's process end.
    let mut locks = Vec::new();
    for volume in row.volumes() {
        locks.push(kms.supervisor.lock(&volume).await);
    }
    let found = {
        let mut db = kms.catalogue.read().await?;
        copies::get(&mut db, &row.id).await?
    };
    // Nothing else ends it while we have the locks, except for one without volumes.
    let Some(row) = found.filter(|row| row.phase != Phase::Done) else {
        return Ok(());
    };
    export_file::remove_file(kms, &row).await?;
    let mut tx = kms.catalogue.write().await?;
    copies::set_trouble(&mut tx, &row.id, Some(Phase::Cancelled), None).await?;
    if let Some(destination) = row.destination.volume() {
        disks::set_idle(&mut tx, destination).await?;
    }
    tx.commit().await?;
    kms.copies.passed.forget(&row.id);
    kms.retries.flag();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::disk::copy::CopyDisk;
    use crate::calls::disk::export::ExportDisk;
    use crate::calls::run;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::copies::chosen_file::Chosen;
    use sealblk_api::{self, CreateDisk};

    /// The copy that was begun last.
    async fn last(world: &World) -> CopyRow {
        let mut db = world.kms.catalogue.read().await.unwrap();
        let id = copies::unended(&mut db).await.unwrap().pop().unwrap();
        copies::get(&mut db, &id).await.unwrap().unwrap()
    }

    async fn end(world: &World, copy: &CopyRow) {
        let mut tx = world.kms.catalogue.write().await.unwrap();
        copies::set_position(&mut tx, &copy.id, Phase::Done, 1, 1)
            .await
            .unwrap();
        if let Some(destination) = copy.destination.volume() {
            disks::set_idle(&mut tx, destination).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn with_disks(names: &[(&str, bool)]) -> World {
        let world = World::new().await;
        for (name, encrypted) in names {
            let disk = CreateDisk {
                name: (*name).to_owned(),
                encrypted: Some(*encrypted),
                ..new_disk(None)
            };
            run(&world.kms, caller(), disk).await.unwrap();
        }
        world
    }

    /// What a copy leaves out, since its destination reads zeros, would be old data or noise elsewhere.
    #[tokio::test(flavor = "multi_thread")]
    async fn zeros_are_left_out_of_new_plain_disks_alone() {
        let world = with_disks(&[("from", false), ("plain", false), ("sealed", true)]).await;
        for (disk, expected) in [("plain", true), ("plain", false), ("sealed", false)] {
            let copy = CopyDisk {
                disk: disk.to_owned(),
                options: sealblk_api::CopyDisk {
                    source: "from".to_owned(),
                    overwrite: true,
                },
            };
            run(&world.kms, caller(), copy).await.unwrap();
            let row = last(&world).await;
            let plan = plan(&world.kms, &row).await.unwrap();
            let Mode::Copy { clean, position, .. } = plan.config.mode else {
                panic!("{plan:?}");
            };
            assert_eq!((clean, position), (expected, 0), "{disk}");
            end(&world, &row).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn trouble_that_is_known_is_not_written_again() {
        let world = with_disks(&[("from", false), ("to", false)]).await;
        let copy = CopyDisk {
            disk: "to".to_owned(),
            options: sealblk_api::CopyDisk {
                source: "from".to_owned(),
                overwrite: false,
            },
        };
        run(&world.kms, caller(), copy).await.unwrap();
        let id = last(&world).await.id;
        let error = Error::new(Code::StorageHangs, "it does not answer");
        assert!(!give_up(&world.kms, &id, &error, false).await.unwrap());
        assert_eq!(last(&world).await.trouble, Some(error.full_message()));
        let writing = world.kms.catalogue.write().await.unwrap();
        assert!(!give_up(&world.kms, &id, &error, false).await.unwrap());
        drop(writing);
        let other = Error::new(Code::BackendFailed, "something else");
        assert!(!give_up(&world.kms, &id, &other, false).await.unwrap());
        assert_eq!(last(&world).await.trouble, Some(other.full_message()));
    }

    /// The copy's end came after cancelling it was decided on.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_export_that_is_done_is_not_cancelled_and_its_file_stays() {
        let world = with_disks(&[("from", false)]).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().canonicalize().unwrap().join("file");
        let to = Chosen::Path(file.to_str().unwrap().to_owned());
        let export = ExportDisk::new("from".into(), sealblk_api::ExportDisk::default(), to);
        run(&world.kms, caller(), export).await.unwrap();
        let begun = last(&world).await;
        export_file::make_file(&world.kms, &begun, begun.file().unwrap())
            .await
            .unwrap();
        let going_on = last(&world).await;
        end(&world, &going_on).await;
        cancel(&world.kms, &going_on).await.unwrap();
        assert!(file.exists());
        let mut db = world.kms.catalogue.read().await.unwrap();
        let row = copies::get(&mut db, &begun.id).await.unwrap().unwrap();
        assert_eq!(row.phase, Phase::Done);
    }
}
