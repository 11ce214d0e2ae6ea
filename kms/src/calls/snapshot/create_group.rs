//! `POST /v1/instances/{instance}/snapshots`: snapshots of all disks of a machine, as of one moment (rules S04, M01).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::instances::{self, InstanceRow};
use crate::catalogue::intents::{self, IntentRow, Work};
use crate::catalogue::kinds::Store;
use crate::catalogue::{Write, snapshots};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::group;
use crate::{limits, views};
use sealblk_api::{self, CreateSnapshot, SnapshotGroup};

/// Takes a snapshot of each disk that is attached to an instance.
pub(crate) struct CreateSnapshotGroup {
    /// Id or name.
    pub(crate) instance: String,
    /// The call's body.
    pub(crate) options: sealblk_api::CreateSnapshotGroup,
}

/// What was decided.
pub(crate) struct Group {
    instance: InstanceRow,
    /// An intent for each disk, with the disk's name.
    parts: Vec<(IntentRow, String)>,
    /// Ids of the disks of which there is no snapshot.
    skipped: Vec<String>,
}

impl Operation for CreateSnapshotGroup {
    const CALL: &'static str = "snapshot.create-group";
    type Decided = Group;
    type Answer = SnapshotGroup;

    fn object(&self) -> &str {
        &self.instance
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Group> {
        let instance = find::instance(tx, caller, &self.instance).await?;
        let (layered, skipped) = self.disks(tx, &instance).await?;
        let mut parts = Vec::with_capacity(layered.len());
        for disk in layered {
            let part = CreateSnapshot {
                disk: disk.id.clone(),
                name: self.options.name.clone(),
            };
            let decided = kms.decide_part(caller, tx, &part).await;
            let mut intent = decided
                .map_err(|error| Error::because(error.code(), format!("disk {}", disk.name), error))?;
            intents::set_grouped(tx, &intent.id).await?;
            intent.work = Work::GroupSnapshot {
                snapshot: intent.work.snapshot().unwrap_or_default().to_owned(),
            };
            parts.push((intent, disk.name));
        }
        let ids: Vec<_> = parts.iter().map(|(intent, _)| intent.disk.as_str()).collect();
        caller.facts.note("disks", ids);
        Ok(Group {
            instance,
            parts,
            skipped,
        })
    }

    async fn act(&self, kms: &Kms, _: &Caller, group: Group) -> Result<SnapshotGroup> {
        group::carry_out(kms, &group.parts).await?;
        let mut db = kms.catalogue.read().await?;
        let mut taken = Vec::with_capacity(group.parts.len());
        for (intent, _) in &group.parts {
            let row = snapshots::get(&mut db, intent.work.snapshot().unwrap_or_default()).await?;
            taken.push(views::snapshot::answer(row, None));
        }
        Ok(SnapshotGroup {
            name: self.options.name.clone(),
            instance: group.instance.id,
            snapshots: taken,
            skipped: group.skipped,
        })
    }
}

impl CreateSnapshotGroup {
    /// The instance's layered disks, and the ids of the others.
    async fn disks(&self, tx: &mut Write, instance: &InstanceRow) -> Result<(Vec<DiskRow>, Vec<String>)> {
        let mut all = Vec::new();
        for (id, _) in instances::disks(tx, &instance.id).await? {
            all.push(disks::get(tx, &id).await?);
        }
        let (layered, raw): (Vec<_>, Vec<_>) = all.into_iter().partition(|disk| disk.store == Store::Layered);
        if let Some(first) = raw.first().filter(|_| !self.options.skip_raw) {
            let text = format!(
                "disk {} of instance {} has a raw store, which has no snapshots: use --skip-raw to do without it",
                first.name, instance.name
            );
            return Err(Error::new(Code::NotSupported, text));
        }
        if layered.is_empty() {
            let text = format!(
                "instance {} has no disk that snapshots can be taken of: attach one with a layered store first",
                instance.name
            );
            return Err(Error::new(Code::InvalidRequest, text));
        }
        if layered.len() > limits::GROUP_DISKS {
            let text = format!(
                "instance {} has {} disks, and snapshots of at most {} are taken at once: take them one by one",
                instance.name,
                layered.len(),
                limits::GROUP_DISKS
            );
            return Err(Error::new(Code::TooMany, text));
        }
        Ok((layered, raw.into_iter().map(|disk| disk.id).collect()))
    }
}

#[cfg(test)]
mod tests {
    use sealblk_proto::message::Change;

    use super::*;
    use crate::calls::run;
    use crate::calls::tests::{World, caller, new_attach, new_disk};
    use crate::catalogue::{behind, services};
    use crate::volumes::{commands, service_plan};
    use sealblk_api::{Attach, CreateDisk, RegisterInstance};

    async fn with_machine() -> World {
        let world = World::new().await;
        let instance = RegisterInstance {
            name: "vm".into(),
            ..RegisterInstance::default()
        };
        run(&world.kms, caller(), instance).await.unwrap();
        for name in ["data", "log"] {
            let disk = CreateDisk {
                name: name.into(),
                store: None,
                ..new_disk(None)
            };
            run(&world.kms, caller(), disk).await.unwrap();
            let attach = Attach {
                disk: name.into(),
                ..new_attach()
            };
            run(&world.kms, caller(), attach).await.unwrap();
        }
        world
    }

    fn group() -> CreateSnapshotGroup {
        CreateSnapshotGroup {
            instance: "vm".into(),
            options: sealblk_api::CreateSnapshotGroup {
                name: "one".into(),
                skip_raw: false,
            },
        }
    }

    /// Whatever the stores have: those that the next daemon would take would be of another moment.
    #[tokio::test(flavor = "multi_thread")]
    async fn none_is_there_after_a_daemon_that_was_killed_at_any_step() {
        for made in 0..=2 {
            let mut world = with_machine().await;
            let decided = world.kms.decide(&caller(), &group()).await.unwrap();
            assert_eq!(world.calls("snapshot").await, 2);
            for (intent, _) in &decided.parts[..made] {
                let snapshot = intent.work.snapshot().unwrap().to_owned();
                let change = Change::Snapshot { snapshot };
                commands::change(&world.kms, &intent.disk, &intent.id, change)
                    .await
                    .unwrap();
            }
            world.crash_and_recover().await;
            let mut db = world.kms.catalogue.read().await.unwrap();
            let left: i64 = behind::value(&mut db, "SELECT count(*) FROM snapshots").await;
            drop(db);
            assert_eq!((left, world.calls("snapshot").await), (0, 0), "{made} were made");
            assert_eq!(
                world.last_decision().await,
                ("snapshot.create".into(), "failed".into())
            );
            for (intent, _) in &decided.parts {
                let report = commands::report(&world.kms, &intent.disk).await.unwrap();
                assert!(report.snapshots.iter().all(|snapshot| snapshot.hidden));
            }
            run(&world.kms, caller(), group()).await.unwrap();
            let mut db = world.kms.catalogue.read().await.unwrap();
            let taken = "SELECT count(*) FROM snapshots WHERE state = 'available'";
            let taken: i64 = behind::value(&mut db, taken).await;
            drop(db);
            assert_eq!((taken, world.calls("snapshot").await), (2, 2));
            let mut db = world.kms.catalogue.read().await.unwrap();
            for service in services::all(&mut db).await.unwrap() {
                let plan = service_plan::of(&world.kms, &mut db, &service).await.unwrap();
                world.kms.supervisor.end(&plan, true).await.unwrap();
            }
        }
    }
}
