//! Crashes: an operation is stopped between its steps, the state directory is opened again, and the next daemon's
//! recovery brings catalogue, files and backends together.

mod instances;
mod layered;
mod model;
mod shared;
mod sinks;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::audit;
use crate::calls;
use crate::calls::attachment::detach;
use crate::calls::kms::activate;
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::root_key_kind::RootKeyKind;
use crate::catalogue::states::DiskState;
use crate::catalogue::volumes::{self, VolumeRow};
use crate::catalogue::{attachments, behind, clock, services, usage};
use crate::context::find;
use crate::daemon;
use crate::host::backends::Program;
use crate::id::{self, Kind};
use crate::intents::recovery;
use crate::jobs::key_work;
use crate::offline::init;
use crate::state::StateDir;
use crate::timekeeper::Timekeeper;
use crate::timekeeper::fake::Fake;
use crate::volumes::{commands, make, reconcile, report, service_plan};
use sealblk_api::{Attach, CreateDisk, RegisterInstance};

/// A state directory, whose daemons come and go.
pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) kms: Arc<Kms>,
}

pub(crate) fn caller() -> Caller {
    Caller {
        account: "default".to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        pid: 1,
        request: "req-test".to_owned(),
        facts: crate::caller::Facts::default(),
    }
}

pub(crate) fn new_disk(path: Option<String>) -> CreateDisk {
    CreateDisk {
        name: "data".into(),
        size: Some(1 << 20),
        encrypted: Some(true),
        store: Some("raw".into()),
        path,
        ..CreateDisk::default()
    }
}

pub(crate) fn new_attach() -> Attach {
    Attach {
        disk: "data".into(),
        instance: "vm".into(),
        start: true,
        qemu_version: None,
        ..Attach::default()
    }
}

/// The example that speaks the protocol, beside this test's own program.
fn fake_backend() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own
        .parent()
        .unwrap()
        .with_file_name("examples")
        .join("fake_backend");
    assert!(
        path.is_file(),
        "build the examples of this package first: {}",
        path.display()
    );
    path
}

async fn open(state: &std::path::Path) -> Arc<Kms> {
    let program = Program {
        path: fake_backend().into(),
        log: None,
        arguments: Vec::new(),
    };
    Arc::new(
        daemon::open(StateDir::open(state).unwrap(), program, None)
            .await
            .unwrap(),
    )
}

impl World {
    pub(crate) async fn new() -> Self {
        let world = Self::inactive().await;
        run(&world.kms, caller(), activate::Activate).await.unwrap();
        world
    }

    pub(crate) async fn inactive() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let state = directory.path().join("state");
        let region = init::Region {
            region: "eu-1".into(),
            zone: "eu-1a".into(),
            profile: "sealblk".into(),
            balance: 0,
            activate: false,
        };
        init::init(&state, &region, RootKeyKind::File, None)
            .await
            .unwrap();
        World {
            kms: open(&state).await,
            directory,
        }
    }

    pub(crate) async fn with_disk_and_instance() -> Self {
        let world = Self::new().await;
        run(&world.kms, caller(), new_disk(None)).await.unwrap();
        let instance = RegisterInstance {
            name: "vm".into(),
            ..RegisterInstance::default()
        };
        run(&world.kms, caller(), instance).await.unwrap();
        world
    }

    /// Its time is what a test says.
    pub(crate) async fn keep_time_by(&mut self, clocks: &Fake) {
        let noted = {
            let mut db = self.kms.catalogue.read().await.unwrap();
            clock::load(&mut db).await.unwrap()
        };
        let kms = Arc::get_mut(&mut self.kms).expect("nothing runs");
        kms.clock = Timekeeper::new(Box::new(clocks.clone()), noted);
    }

    /// The daemon dies, and another one starts.
    pub(crate) async fn crash_and_recover(&mut self) {
        self.kms.supervisor.abandon();
        self.kms = open(&self.directory.path().join("state")).await;
        recovery::recover(&self.kms).await.unwrap();
        tokio::spawn(key_work::run(Arc::downgrade(&self.kms)));
        let mut db = self.kms.catalogue.read().await.unwrap();
        assert!(
            intents::all(&mut db).await.unwrap().intents.is_empty(),
            "no intent stays open"
        );
        behind::assert_counted(&mut db).await;
    }

    pub(crate) async fn disk(&self) -> Option<DiskRow> {
        let mut db = self.kms.catalogue.read().await.unwrap();
        disks::find(&mut db, "default", "data").await.unwrap()
    }

    pub(crate) async fn volume(&self, id: &str) -> VolumeRow {
        let mut db = self.kms.catalogue.read().await.unwrap();
        volumes::get(&mut db, id).await.unwrap()
    }

    pub(crate) async fn calls(&self, kind: &str) -> u64 {
        let mut db = self.kms.catalogue.read().await.unwrap();
        let rows = usage::of_account(&mut db, "default").await.unwrap();
        rows.iter()
            .filter(|row| row.kind == kind)
            .map(|row| row.calls.unsigned_abs())
            .sum()
    }

    pub(crate) async fn last_decision(&self) -> (String, String) {
        let mut db = self.kms.catalogue.read().await.unwrap();
        audit::verify(&mut db, None).await.unwrap();
        let record = audit::list(&mut db, "default", audit::Wanted::after(0, 1000))
            .await
            .unwrap()
            .pop()
            .unwrap();
        (record.call, record.decision)
    }

    pub(crate) fn files(&self, directory: PathBuf) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    /// All is as if the disk had never been asked for.
    async fn assert_no_disk(&self) {
        assert!(self.disk().await.is_none());
        assert_eq!(
            (self.calls("create").await, self.files(self.kms.state.disks())),
            (0, 0)
        );
        assert_eq!(
            self.last_decision().await,
            ("disk.create".into(), "failed".into())
        );
        let mut db = self.kms.catalogue.read().await.unwrap();
        let lineages: i64 = behind::value(&mut db, "SELECT count(*) FROM lineages").await;
        assert_eq!(lineages, 0, "its keys are destroyed");
    }

    async fn assert_available(&self) {
        let disk = self.disk().await.unwrap();
        assert_eq!((disk.state, disk.attachment), (DiskState::Available, None));
        assert_eq!(self.files(self.kms.state.run()), 0);
    }

    async fn attachment(&self) -> String {
        let mut db = self.kms.catalogue.read().await.unwrap();
        attachments::all(&mut db).await.unwrap().pop().unwrap().id
    }

    /// So that no backend outlives the test.
    pub(crate) async fn end(self) {
        if let Some(attachment) = self.disk().await.unwrap().attachment {
            let plan = {
                let mut db = self.kms.catalogue.read().await.unwrap();
                let service = services::all(&mut db).await.unwrap().pop().unwrap();
                assert_eq!(service.id, attachment);
                service_plan::of(&self.kms, &mut db, &service).await.unwrap()
            };
            self.kms.supervisor.end(&plan, true).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_stopped_after_the_decision() {
    let mut world = World::new().await;
    world.kms.decide(&caller(), &new_disk(None)).await.unwrap();
    assert_eq!(world.calls("create").await, 1);
    world.crash_and_recover().await;
    world.assert_no_disk().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_stopped_after_the_file_was_made_or_filled() {
    for filled in [false, true] {
        for elsewhere in [false, true] {
            let mut world = World::new().await;
            let path = world.directory.path().canonicalize().unwrap().join("file");
            let wanted = elsewhere.then(|| path.to_str().unwrap().to_owned());
            let intent = world.kms.decide(&caller(), &new_disk(wanted)).await.unwrap();
            let row = world.volume(&intent.disk).await;
            let file = make::make_file(&world.kms, caller().uid, &row).await.unwrap();
            if filled {
                make::fill_file(&world.kms, &row, file).await.unwrap();
            }
            world.crash_and_recover().await;
            world.assert_no_disk().await;
            assert!(!path.exists());
            run(&world.kms, caller(), new_disk(None)).await.unwrap();
        }
    }
}

/// A hung mount holds up no other call, for paths are checked without the catalogue's one writer.
#[tokio::test(flavor = "multi_thread")]
async fn paths_are_checked_outside_the_transaction() {
    let world = World::new().await;
    let root = world.directory.path().canonicalize().unwrap();
    std::os::unix::fs::symlink(&root, root.join("alias")).unwrap();
    let mut disk = new_disk(Some(root.join("alias/file").to_str().unwrap().to_owned()));
    let writer = world.kms.catalogue.write().await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), disk.prepare(&world.kms, &caller()))
        .await
        .expect("it does not wait for the writer")
        .unwrap();
    drop(writer);
    assert_eq!(disk.path.as_deref(), root.join("file").to_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_of_one_file_are_not_two_disks() {
    let world = World::new().await;
    let root = world.directory.path().canonicalize().unwrap();
    let names = [root.join("one"), root.join("two")];
    std::fs::write(&names[0], "").unwrap();
    std::fs::hard_link(&names[0], &names[1]).unwrap();
    let mut rows = Vec::new();
    for path in &names {
        let mut disk = new_disk(Some(path.to_str().unwrap().to_owned()));
        disk.name = format!("disk{}", rows.len());
        let intent = world.kms.decide(&caller(), &disk).await.unwrap();
        rows.push(world.volume(&intent.disk).await);
    }
    // Made at once, perhaps neither; one after the other, not the second.
    let uid = caller().uid;
    make::make_file(&world.kms, uid, &rows[0]).await.unwrap();
    let error = make::make_file(&world.kms, uid, &rows[1]).await.unwrap_err();
    assert_eq!(error.code(), Code::FileInUse);
    // Two that have been noted see each other.
    let error = make::make_file(&world.kms, uid, &rows[0]).await.unwrap_err();
    assert_eq!(error.code(), Code::FileInUse);
}

/// Between the decision and the making of the file, somebody else has put a file of that name there: it stays.
#[tokio::test(flavor = "multi_thread")]
async fn create_stopped_before_the_file_was_made_removes_no_foreign_file() {
    let mut world = World::new().await;
    let path = world.directory.path().canonicalize().unwrap().join("file");
    world
        .kms
        .decide(&caller(), &new_disk(Some(path.to_str().unwrap().to_owned())))
        .await
        .unwrap();
    std::fs::write(&path, "precious").unwrap();
    world.crash_and_recover().await;
    world.assert_no_disk().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_stopped_after_the_decision_or_the_removal_is_finished() {
    for removed in [false, true] {
        let mut world = World::with_disk_and_instance().await;
        let delete = calls::disk::delete::DeleteDisk::new("data".into(), Some(0));
        world.kms.decide(&caller(), &delete).await.unwrap();
        if removed {
            let row = world.disk().await.unwrap();
            std::fs::remove_file(world.kms.state.store(&row.id, None)).unwrap();
        }
        world.crash_and_recover().await;
        assert!(world.disk().await.is_none());
        assert_eq!(
            (world.files(world.kms.state.disks()), world.calls("create").await),
            (0, 1)
        );
    }
}

/// Whoever asked for it was told nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_stopped_after_the_decision_has_failed() {
    let mut world = World::new().await;
    let layered = CreateDisk {
        store: Some("layered".into()),
        ..new_disk(None)
    };
    run(&world.kms, caller(), layered).await.unwrap();
    let check = calls::disk::check::Check {
        disk: "data".into(),
        options: Default::default(),
    };
    world.kms.decide(&caller(), &check).await.unwrap();
    world.crash_and_recover().await;
    world.assert_available().await;
    assert_eq!(
        world.last_decision().await,
        ("disk.check".into(), "failed".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_stopped_before_a_backend_served_is_undone() {
    for prepared in [false, true] {
        let mut world = World::with_disk_and_instance().await;
        let intent = world.kms.decide(&caller(), &new_attach()).await.unwrap();
        assert_eq!(
            (world.disk().await.unwrap().state, world.calls("attach").await),
            (DiskState::Attaching, 1)
        );
        if prepared {
            let plan = service_plan::of_disk(&world.kms, &intent.disk).await.unwrap();
            let token = world.kms.state.token(&plan.service);
            world.kms.supervisor.prepare(plan, &token).unwrap();
        }
        world.crash_and_recover().await;
        world.assert_available().await;
        assert_eq!(world.calls("attach").await, 0);
        assert_eq!(world.last_decision().await, ("attach".into(), "failed".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_stopped_when_a_backend_served_is_finished() {
    let mut world = World::with_disk_and_instance().await;
    let intent = world.kms.decide(&caller(), &new_attach()).await.unwrap();
    let plan = service_plan::of_disk(&world.kms, &intent.disk).await.unwrap();
    let token = world.kms.state.token(&plan.service);
    world.kms.supervisor.prepare(plan, &token).unwrap();
    world
        .kms
        .supervisor
        .start(intent.work.attachment().unwrap())
        .await
        .unwrap();
    let pid = world.kms.supervisor.status(intent.work.attachment().unwrap()).pid;
    world.crash_and_recover().await;
    let disk = world.disk().await.unwrap();
    assert_eq!(
        (disk.state, disk.attachment),
        (DiskState::InUse, intent.work.attachment().map(str::to_owned))
    );
    assert_eq!(
        world.kms.supervisor.status(intent.work.attachment().unwrap()).pid,
        pid
    );
    assert_eq!(world.calls("attach").await, 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn detach_stopped_before_the_backend_was_asked_is_undone() {
    let mut world = World::with_disk_and_instance().await;
    run(&world.kms, caller(), new_attach()).await.unwrap();
    let pid = world.kms.supervisor.status(&world.attachment().await).pid;
    let detach = detach::Detach {
        disk: "data".into(),
        options: Default::default(),
    };
    world.kms.decide(&caller(), &detach).await.unwrap();
    world.crash_and_recover().await;
    assert_eq!(world.disk().await.unwrap().state, DiskState::InUse);
    assert_eq!(world.kms.supervisor.status(&world.attachment().await).pid, pid);
    assert_eq!(world.calls("detach").await, 0);
    assert_eq!(world.last_decision().await, ("detach".into(), "failed".into()));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn detach_stopped_after_the_backend_ended_is_finished() {
    let mut world = World::with_disk_and_instance().await;
    run(&world.kms, caller(), new_attach()).await.unwrap();
    let detach = detach::Detach {
        disk: "data".into(),
        options: Default::default(),
    };
    let intent = world.kms.decide(&caller(), &detach).await.unwrap();
    world
        .kms
        .supervisor
        .end(
            &service_plan::of_disk(&world.kms, &intent.disk).await.unwrap(),
            false,
        )
        .await
        .unwrap();
    world.crash_and_recover().await;
    world.assert_available().await;
    assert_eq!((world.calls("attach").await, world.calls("detach").await), (1, 1));
}

/// A caller that hangs up does not leave its call half done.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_ended_without_its_caller() {
    let world = World::new().await;
    let mut create = Box::pin(run(&world.kms, caller(), new_disk(None)));
    // Begun, and dropped at its first wait.
    assert!(tokio::time::timeout(Duration::ZERO, &mut create).await.is_err());
    drop(create);
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while world
        .disk()
        .await
        .is_none_or(|disk| disk.state != DiskState::Available)
    {
        assert!(std::time::Instant::now() < patience);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.kms.end().await;
    let refused = run(&world.kms, caller(), activate::Activate).await.err().unwrap();
    assert_eq!(refused.code(), Code::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_k14_a_deleted_disk_leaves_no_wrapped_key() {
    let world = World::with_disk_and_instance().await;
    let wrapped: Vec<u8> = {
        let mut db = world.kms.catalogue.read().await.unwrap();
        behind::value(&mut db, "SELECT wrapped_key FROM lineages").await
    };
    let state = world.directory.path().join("state");
    let holds = |name: &str| {
        let bytes = std::fs::read(state.join(name)).unwrap_or_default();
        bytes.windows(wrapped.len()).any(|window| window == wrapped)
    };
    assert!(holds("catalogue.db-wal") || holds("catalogue.db"));
    // A reader that is in the middle of something keeps the log for a while.
    let mut reader = world.kms.catalogue.read().await.unwrap();
    behind::run(&mut reader, "BEGIN; SELECT * FROM lineages")
        .await
        .unwrap();
    let reading = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        behind::run(&mut reader, "COMMIT").await.unwrap();
    });
    let delete = calls::disk::delete::DeleteDisk::new("data".into(), Some(0));
    run(&world.kms, caller(), delete).await.unwrap();
    reading.await.unwrap();
    assert!(!holds("catalogue.db-wal") && !holds("catalogue.db"));
}

/// Refuses, and its transaction has ended by itself, as SQLite's do where the medium is full.
struct EndsItsTransaction;

impl Operation for EndsItsTransaction {
    const CALL: &'static str = "test.refused";
    type Decided = ();
    type Answer = ();

    fn object(&self) -> &str {
        "nothing"
    }

    async fn decide(&self, _: &Kms, _: &Caller, tx: &mut Write) -> Result<()> {
        behind::run(tx, "ROLLBACK").await?;
        Err(Error::new(Code::NoSpace, "refused"))
    }

    async fn act(&self, _: &Kms, _: &Caller, (): ()) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_recorded_even_if_its_rollback_fails() {
    let world = World::new().await;
    let refused = run(&world.kms, caller(), EndsItsTransaction).await.unwrap_err();
    assert_eq!(refused.code(), Code::NoSpace);
    assert_eq!(
        world.last_decision().await,
        ("test.refused".into(), "refused".into())
    );
    run(&world.kms, caller(), new_disk(None)).await.unwrap();
}

/// A call that is allowed, fails or panics, and undoes nothing.
struct Fails {
    by_panic: bool,
}

impl Operation for Fails {
    const CALL: &'static str = "backend.restart";
    type Decided = ();
    type Answer = ();

    fn object(&self) -> &str {
        "data"
    }

    async fn decide(&self, _: &Kms, _: &Caller, _: &mut Write) -> Result<()> {
        Ok(())
    }

    async fn act(&self, _: &Kms, _: &Caller, (): ()) -> Result<()> {
        assert!(!self.by_panic, "as a fault of the program does");
        Err(Error::new(Code::BackendFailed, "no"))
    }
}

/// Whatever the call is: where calls are run.
#[tokio::test(flavor = "multi_thread")]
async fn rule_m04_what_was_allowed_and_has_failed_is_recorded_once_by_whoever_runs_it() {
    let world = World::new().await;
    for by_panic in [false, true] {
        run(&world.kms, caller(), Fails { by_panic }).await.unwrap_err();
        let (call, decision) = world.last_decision().await;
        assert_eq!((call.as_str(), decision.as_str()), (Fails::CALL, "failed"));
    }
    let mut db = world.kms.catalogue.read().await.unwrap();
    let count = "SELECT count(*) FROM audit WHERE call = 'backend.restart' AND decision = 'failed'";
    let failed: i64 = behind::value(&mut db, count).await;
    assert_eq!(failed, 2);
}
