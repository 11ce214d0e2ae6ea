//! The catalogue against a simple model: random calls by two accounts that use the same names, some of them stopped
//! after their decision by a crash; after each step everything that can be seen is what the model says.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::calls::key::deletion::{CancelDeletion, ScheduleDeletion};
use crate::calls::key::enable::{Disable, Enable};
use crate::calls::key::rotate::Rotate;
use crate::catalogue::accounts::{self, Principal};
use crate::catalogue::instances;
use crate::catalogue::kinds::KeyOrigin;
use crate::catalogue::states::DiskState;
use crate::catalogue::{Page, attachments, behind, keys, meta, services, usage};
use sealblk_api::{self, Attach, CreateDisk, CreateKey, RegisterInstance};

const ACCOUNTS: [&str; 2] = ["default", "acme"];
const INSTANCES: [&str; 2] = ["vm", "local"];

/// A call, with small numbers for names.
#[derive(Clone, Copy, Debug)]
enum Call {
    Activate,
    CreateKey(u8),
    Enable(u8),
    Disable(u8),
    ScheduleDeletion(u8),
    CancelDeletion(u8),
    Rotate(u8),
    /// Of this name, encrypted, with this key.
    CreateDisk(u8, bool, Option<u8>),
    DeleteDisk(u8),
    Attach(u8, usize),
    /// By force, from this instance.
    Detach(u8, bool, Option<usize>),
}

/// A call by an account, and whether the daemon dies after its decision.
#[derive(Clone, Copy, Debug)]
struct Step {
    account: usize,
    call: Call,
    crash: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..2u8;
    let disk = 0..3u8;
    let call = prop_oneof![
        1 => Just(Call::Activate),
        2 => key.clone().prop_map(Call::CreateKey),
        2 => key.clone().prop_map(Call::Enable),
        2 => key.clone().prop_map(Call::Disable),
        1 => key.clone().prop_map(Call::ScheduleDeletion),
        1 => key.clone().prop_map(Call::CancelDeletion),
        1 => key.clone().prop_map(Call::Rotate),
        6 => (disk.clone(), any::<bool>(), proptest::option::of(key))
            .prop_map(|(disk, encrypted, key)| Call::CreateDisk(disk, encrypted, key)),
        3 => disk.clone().prop_map(Call::DeleteDisk),
        5 => (disk.clone(), 0..2usize).prop_map(|(disk, instance)| Call::Attach(disk, instance)),
        4 => (disk, any::<bool>(), proptest::option::of(0..2usize))
            .prop_map(|(disk, force, instance)| Call::Detach(disk, force, instance)),
    ];
    let step = (0..2usize, call, proptest::bool::weighted(0.15)).prop_map(|(account, call, crash)| Step {
        account,
        call,
        crash,
    });
    proptest::collection::vec(step, 1..40)
}

/// What an account has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Account {
    activated: bool,
    /// Name to state.
    keys: BTreeMap<String, &'static str>,
    disks: BTreeMap<String, Disk>,
    /// Whether the service key was made.
    service_key: bool,
    /// Kind to metered calls.
    usage: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Disk {
    encrypted: bool,
    /// Name of the customer key.
    key: Option<String>,
    /// Several only of a shared disk (rule D09).
    instances: BTreeSet<&'static str>,
}

/// Disks of this name are shared.
const SHARED: u8 = 2;

fn key_name(key: u8) -> String {
    format!("key{key}")
}

fn disk_name(disk: u8) -> String {
    format!("disk{disk}")
}

impl Account {
    fn usable(&self, disk: &Disk) -> bool {
        disk.key.as_ref().is_none_or(|key| self.keys[key] == "Enabled")
    }

    /// Does the call, and gives the code of its refusal. What was only decided when the daemon died is undone, or ended
    /// where it cannot be.
    fn apply(&mut self, call: Call, crash: bool) -> Option<Code> {
        match call {
            Call::Activate => self.activated = true,
            Call::CreateKey(key) => {
                if self.keys.contains_key(&key_name(key)) {
                    return Some(Code::NameTaken);
                }
                self.keys.insert(key_name(key), "Enabled");
            }
            Call::Enable(key) => return self.change(key, &["Enabled", "Disabled"], "Enabled"),
            Call::Disable(key) => return self.change(key, &["Enabled", "Disabled"], "Disabled"),
            Call::ScheduleDeletion(key) => {
                return self.change(key, &["Enabled", "Disabled"], "PendingDeletion");
            }
            Call::CancelDeletion(key) => return self.change(key, &["PendingDeletion"], "Disabled"),
            Call::Rotate(key) => return self.change(key, &["Enabled"], "Enabled"),
            Call::CreateDisk(disk, encrypted, key) => return self.create(disk, encrypted, key, crash),
            Call::DeleteDisk(disk) => match self.disks.get(&disk_name(disk)) {
                None => return Some(Code::NotFound),
                Some(disk) if !disk.instances.is_empty() => return Some(Code::DiskAttached),
                Some(_) => drop(self.disks.remove(&disk_name(disk))),
            },
            Call::Attach(disk, instance) => return self.attach(disk, INSTANCES[instance], crash),
            Call::Detach(disk, force, instance) => {
                return self.detach(disk, force, instance.map(|instance| INSTANCES[instance]));
            }
        }
        None
    }

    fn change(&mut self, key: u8, from: &[&str], to: &'static str) -> Option<Code> {
        let Some(state) = self.keys.get_mut(&key_name(key)) else {
            return Some(Code::NotFound);
        };
        if !from.contains(state) {
            return Some(Code::KeyStateInvalid);
        }
        *state = to;
        None
    }

    fn create(&mut self, disk: u8, encrypted: bool, key: Option<u8>, crash: bool) -> Option<Code> {
        if self.disks.contains_key(&disk_name(disk)) {
            return Some(Code::NameTaken);
        }
        if encrypted && !self.activated {
            return Some(Code::KmsNotActivated);
        }
        let key = key.map(key_name);
        match (&key, encrypted) {
            (Some(_), false) => return Some(Code::InvalidRequest),
            (Some(key), true) => match self.keys.get(key) {
                None => return Some(Code::NoSuchKey),
                Some(&"Enabled") => {}
                Some(_) => return Some(Code::KeyNotUsable),
            },
            (None, _) => {}
        }
        if crash {
            return None;
        }
        self.service_key |= encrypted && key.is_none();
        let new = Disk {
            encrypted,
            key,
            instances: BTreeSet::new(),
        };
        self.count("create", &new);
        self.disks.insert(disk_name(disk), new);
        None
    }

    fn attach(&mut self, name: u8, instance: &'static str, crash: bool) -> Option<Code> {
        let Some(disk) = self.disks.get(&disk_name(name)).cloned() else {
            return Some(Code::NotFound);
        };
        if disk.instances.contains(instance) || (name != SHARED && !disk.instances.is_empty()) {
            return Some(Code::AlreadyAttached);
        }
        if disk.encrypted && instance == "local" {
            return Some(Code::LocalStorage);
        }
        if !self.usable(&disk) {
            return Some(Code::KeyNotUsable);
        }
        if !crash {
            self.count("attach", &disk);
            self.disks.get_mut(&disk_name(name))?.instances.insert(instance);
        }
        None
    }

    fn detach(&mut self, name: u8, force: bool, from: Option<&'static str>) -> Option<Code> {
        let Some(disk) = self.disks.get(&disk_name(name)).cloned() else {
            return Some(Code::NotFound);
        };
        let Some(first) = disk.instances.first() else {
            return Some(Code::NotAttached);
        };
        let from = match from {
            Some(from) if !disk.instances.contains(from) => return Some(Code::NotAttached),
            Some(from) => from,
            None if disk.instances.len() > 1 => return Some(Code::InstanceNeeded),
            None => first,
        };
        if !force && !self.usable(&disk) {
            return Some(Code::DetachNeedsForce);
        }
        self.count("detach", &disk);
        self.disks.get_mut(&disk_name(name))?.instances.remove(from);
        None
    }

    fn count(&mut self, kind: &'static str, disk: &Disk) {
        if disk.encrypted {
            *self.usage.entry(kind).or_default() += 1;
        }
    }
}

fn caller_of(account: &str) -> Caller {
    Caller {
        account: account.to_owned(),
        ..caller()
    }
}

async fn new_world() -> World {
    let world = World::inactive().await;
    let mut tx = world.kms.catalogue.write().await.unwrap();
    let principal = Principal {
        uid: 4242,
        account: "acme".to_owned(),
        roles: Vec::new(),
    };
    accounts::insert_listed(&mut tx, &principal).await.unwrap();
    tx.commit().await.unwrap();
    for account in ACCOUNTS {
        for name in INSTANCES {
            let instance = RegisterInstance {
                name: name.to_owned(),
                local_storage: name == "local",
                ..RegisterInstance::default()
            };
            run(&world.kms, caller_of(account), instance).await.unwrap();
        }
    }
    world
}

/// Makes a call, to its end or to the daemon's.
async fn make<O: Operation>(world: &mut World, account: &str, operation: O, crash: bool) -> Option<Code> {
    let caller = caller_of(account);
    if crash {
        let decided = world.kms.decide(&caller, &operation).await;
        let refusal = decided.err().map(|error| error.code());
        world.crash_and_recover().await;
        refusal
    } else {
        let answer = run(&world.kms, caller, operation).await;
        answer.err().map(|error| error.code())
    }
}

async fn call(world: &mut World, step: Step) -> Option<Code> {
    let (account, crash) = (ACCOUNTS[step.account], step.crash);
    match step.call {
        Call::Activate => make(world, account, activate::Activate, crash).await,
        Call::CreateKey(key) => {
            let create = CreateKey {
                name: key_name(key),
                import: false,
            };
            make(world, account, create, crash).await
        }
        Call::Enable(key) => make(world, account, Enable { key: key_name(key) }, crash).await,
        Call::Disable(key) => make(world, account, Disable { key: key_name(key) }, crash).await,
        Call::Rotate(key) => make(world, account, Rotate { key: key_name(key) }, crash).await,
        Call::CancelDeletion(key) => make(world, account, CancelDeletion { key: key_name(key) }, crash).await,
        Call::ScheduleDeletion(key) => {
            let options = sealblk_api::ScheduleDeletion {
                days: None,
                acknowledge: true,
            };
            let schedule = ScheduleDeletion {
                key: key_name(key),
                options,
            };
            make(world, account, schedule, crash).await
        }
        Call::CreateDisk(disk, encrypted, key) => {
            let create = CreateDisk {
                name: disk_name(disk),
                encrypted: Some(encrypted),
                key: key.map(key_name),
                shared: disk == SHARED,
                ..new_disk(None)
            };
            make(world, account, create, crash).await
        }
        Call::DeleteDisk(disk) => {
            let disk = disk_name(disk);
            make(
                world,
                account,
                calls::disk::delete::DeleteDisk::new(disk, Some(0)),
                crash,
            )
            .await
        }
        Call::Attach(disk, instance) => {
            let attach = Attach {
                disk: disk_name(disk),
                instance: INSTANCES[instance].to_owned(),
                // Whose process somebody else would start: what is looked at here is the catalogue.
                start: false,
                qemu_version: None,
                ..new_attach()
            };
            make(world, account, attach, crash).await
        }
        Call::Detach(disk, force, instance) => {
            let detach = detach::Detach {
                disk: disk_name(disk),
                options: sealblk_api::Detach {
                    instance: instance.map(|instance| INSTANCES[instance].to_owned()),
                    force,
                    ..Default::default()
                },
            };
            make(world, account, detach, crash).await
        }
    }
}

/// What can be seen of an account.
async fn seen(world: &World, account: &str) -> Account {
    let mut db = world.kms.catalogue.read().await.unwrap();
    let page = Page {
        after: String::new(),
        limit: 1000,
    };
    let mut seen = Account {
        activated: meta::is_activated(&mut db, account).await.unwrap(),
        ..Account::default()
    };
    let mut names = BTreeMap::new();
    for key in keys::list(&mut db, account, &page).await.unwrap().0 {
        match key.origin {
            KeyOrigin::Service => {
                assert!(!seen.service_key, "rule K03: one service key");
                seen.service_key = true;
            }
            _ => drop(seen.keys.insert(key.name.clone(), key.state.name())),
        }
        names.insert(key.id, (key.name, key.origin));
    }
    for disk in disks::list(&mut db, account, &page).await.unwrap().0 {
        let mut attached = BTreeSet::new();
        for attachment in attachments::of_disk(&mut db, &disk.id).await.unwrap() {
            let row = instances::find(&mut db, account, &attachment.instance)
                .await
                .unwrap()
                .unwrap();
            assert!(!(row.local_storage && disk.encrypted), "rule A03");
            attached.extend(INSTANCES.into_iter().find(|name| *name == row.name));
        }
        assert!(attached.len() < 2 || disk.shared, "rule D09");
        assert_eq!(disk.instance.is_some(), !attached.is_empty());
        assert_eq!(disk.encrypted, disk.lineage.is_some());
        let key = disk.key.as_ref().map(|key| &names[key]);
        let new = Disk {
            encrypted: disk.encrypted,
            key: key
                .filter(|key| key.1 != KeyOrigin::Service)
                .map(|key| key.0.clone()),
            instances: attached,
        };
        let state = if new.instances.is_empty() {
            DiskState::Available
        } else {
            DiskState::InUse
        };
        assert_eq!(disk.state, state);
        seen.disks.insert(disk.name, new);
    }
    for row in usage::of_account(&mut db, account).await.unwrap() {
        let kind = ["create", "attach", "detach"]
            .into_iter()
            .find(|kind| *kind == row.kind);
        *seen.usage.entry(kind.unwrap()).or_default() += row.calls.unsigned_abs();
    }
    seen
}

/// What holds whatever was called.
async fn assert_invariants(world: &World) {
    let mut db = world.kms.catalogue.read().await.unwrap();
    audit::verify(&mut db, None).await.unwrap();
    behind::assert_counted(&mut db).await;
    for (what, query) in [
        (
            "no lineage without wrapped keys",
            "SELECT count(*) FROM lineages WHERE length(wrapped_salt) <> 61 OR length(wrapped_key) NOT IN (0, 61)",
        ),
        (
            "no key of a lineage without material",
            "SELECT count(*) FROM lineages WHERE NOT EXISTS (SELECT 1 FROM key_material
                 WHERE key = lineages.key AND version = lineages.key_version)",
        ),
        (
            "no lineage that nothing has",
            "SELECT count(*) FROM lineages WHERE NOT EXISTS (SELECT 1 FROM volumes WHERE lineage = lineages.id)",
        ),
        (
            "nothing of another account",
            "SELECT count(*) FROM attachments JOIN disks ON disks.id = attachments.disk
             JOIN instances ON instances.id = attachments.instance
             WHERE disks.account <> instances.account OR attachments.account <> disks.account",
        ),
        (
            "no lineage under another account's key",
            "SELECT count(*) FROM lineages JOIN keys ON keys.id = lineages.key WHERE keys.account <> lineages.account",
        ),
    ] {
        let broken: i64 = behind::value(&mut db, query).await;
        assert_eq!(broken, 0, "{what}");
    }
    let files = world.files(world.kms.state.disks());
    let volumes: i64 = behind::value(&mut db, "SELECT count(*) FROM volumes").await;
    assert_eq!(files as i64, volumes, "a file for each volume and no other");
    let services = services::all(&mut db).await.unwrap();
    assert!(services.len() <= files);
    for service in &services {
        assert!(
            !attachments::of_disk(&mut db, &service.disk)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

async fn check(steps: Vec<Step>) {
    let mut world = new_world().await;
    let mut model = [Account::default(), Account::default()];
    for step in steps {
        let expected = model[step.account].apply(step.call, step.crash);
        let refusal = call(&mut world, step).await;
        assert_eq!(refusal, expected, "{step:?}");
        for (account, expected) in ACCOUNTS.iter().zip(&model) {
            assert_eq!(&seen(&world, account).await, expected, "{account} after {step:?}");
        }
        assert_invariants(&world).await;
    }
}

#[test]
fn rule_k03_a03_d09_m01_the_catalogue_does_as_a_simple_model() {
    let config = Config {
        cases: 24,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    TestRunner::new(config)
        .run(&steps(), |steps| {
            runtime.block_on(check(steps));
            Ok(())
        })
        .unwrap();
}
