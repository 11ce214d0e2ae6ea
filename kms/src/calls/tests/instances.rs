//! Crashes while an instance is registered with disks: nothing of them is left (rule D11).

use super::*;
use crate::calls::instance::remove::RemoveInstance;
use crate::catalogue::instances;
use crate::catalogue::keys;
use crate::catalogue::states::DiskState;
use crate::intents::{create_disk, delete_disk};
use sealblk_api::{CreateDisk, CreateImage, RegisterInstance, SystemDisk};

fn register() -> RegisterInstance {
    let disk = |name: &str, encrypted| CreateDisk {
        name: name.into(),
        encrypted: Some(encrypted),
        ..new_disk(None)
    };
    RegisterInstance {
        name: "vm".into(),
        disks: vec![disk("plain", false), disk("data", true), disk("logs", true)],
        ..RegisterInstance::default()
    }
}

async fn assert_nothing(world: &World) {
    let mut db = world.kms.catalogue.read().await.unwrap();
    let page = crate::catalogue::Page {
        after: String::new(),
        limit: 10,
    };
    assert!(disks::list(&mut db, "default", &page).await.unwrap().0.is_empty());
    assert!(!instances::has_name(&mut db, "default", "vm").await.unwrap());
    let key = keys::service_key(&mut db, "default", "eu-1").await.unwrap();
    assert!(key.is_none(), "the service key was made for them");
    drop(db);
    assert_eq!(world.calls("create").await, 0);
    assert_eq!(world.files(world.kms.state.disks()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_d11_a_registration_stopped_at_any_disk_is_undone() {
    for made in 0..=3 {
        let mut world = World::new().await;
        let decided = world.kms.decide(&caller(), &register()).await.unwrap();
        assert_eq!(world.calls("create").await, 2, "the plain one is not metered");
        for intent in decided.disks.iter().take(made) {
            create_disk::build(&world.kms, intent).await.unwrap();
        }
        {
            let mut db = world.kms.catalogue.read().await.unwrap();
            let found = instances::find(&mut db, "default", &decided.row.name)
                .await
                .unwrap();
            assert!(found.is_none(), "it is not there yet");
        }
        let refused = world.kms.decide(&caller(), &register()).await;
        assert_eq!(refused.unwrap_err().code(), Code::NameTaken);
        world.crash_and_recover().await;
        assert_nothing(&world).await;
        run(&world.kms, caller(), register()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_d11_a_registration_that_was_ended_stays() {
    let mut world = World::new().await;
    let registered = run(&world.kms, caller(), register()).await.unwrap();
    world.crash_and_recover().await;
    let mut db = world.kms.catalogue.read().await.unwrap();
    let found = instances::find(&mut db, "default", "vm").await.unwrap().unwrap();
    assert_eq!(found.id, registered.instance.id);
    for disk in &registered.new_disks {
        assert_eq!(
            disks::get(&mut db, &disk.id).await.unwrap().state,
            DiskState::Available
        );
    }
    assert_eq!(registered.new_disks.len(), 3);
}

/// With an image, and an instance whose system disk is made from it.
async fn with_system_disk() -> World {
    let world = World::new().await;
    let base = CreateDisk {
        name: "base".into(),
        store: None,
        ..new_disk(None)
    };
    run(&world.kms, caller(), base).await.unwrap();
    let image = CreateImage {
        name: "image".into(),
        disk: Some("base".into()),
        ..CreateImage::default()
    };
    run(&world.kms, caller(), image).await.unwrap();
    run(&world.kms, caller(), with_image()).await.unwrap();
    world
}

fn with_image() -> RegisterInstance {
    RegisterInstance {
        name: "vm".into(),
        system_disk: Some(SystemDisk {
            image: "image".into(),
            ..SystemDisk::default()
        }),
        ..RegisterInstance::default()
    }
}

async fn instance_and_disk(world: &World) -> (bool, Option<DiskRow>) {
    let mut db = world.kms.catalogue.read().await.unwrap();
    let instance = instances::find(&mut db, "default", "vm").await.unwrap();
    let disk = disks::find(&mut db, "default", "vm-system").await.unwrap();
    (instance.is_some(), disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_i01_an_instance_whose_removal_was_stopped_goes_with_its_system_disk() {
    let mut world = with_system_disk().await;
    let remove = RemoveInstance {
        instance: "vm".into(),
    };
    world.kms.decide(&caller(), &remove).await.unwrap();
    let (there, disk) = instance_and_disk(&world).await;
    assert_eq!((there, disk.unwrap().state), (false, DiskState::Deleting));
    let again = world.kms.decide(&caller(), &with_image()).await;
    assert_eq!(again.unwrap_err().code(), Code::NameTaken);
    world.crash_and_recover().await;
    let (there, disk) = instance_and_disk(&world).await;
    assert!(!there && disk.is_none());
    run(&world.kms, caller(), with_image()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_i01_a_registration_stopped_before_its_system_disk_was_made_is_undone() {
    let mut world = with_system_disk().await;
    let remove = RemoveInstance {
        instance: "vm".into(),
    };
    run(&world.kms, caller(), remove).await.unwrap();
    world.kms.decide(&caller(), &with_image()).await.unwrap();
    world.crash_and_recover().await;
    let (there, disk) = instance_and_disk(&world).await;
    assert!(!there && disk.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_i01_an_instance_is_there_again_if_its_system_disk_stays() {
    let world = with_system_disk().await;
    let remove = RemoveInstance {
        instance: "vm".into(),
    };
    let path = world
        .kms
        .state
        .store(&instance_and_disk(&world).await.1.unwrap().id, None);
    for (code, state) in [
        (Code::StoreInUse, DiskState::Available),
        (Code::FileFailed, DiskState::Error),
    ] {
        let (_, intent) = world.kms.decide(&caller(), &remove).await.unwrap();
        let first = std::future::ready(match code {
            Code::StoreInUse => Err(Error::new(code, "it cannot be deleted")),
            _ => {
                std::fs::remove_file(&path).unwrap();
                std::fs::create_dir_all(path.join("in the way")).unwrap();
                Ok(())
            }
        });
        let failed = delete_disk::carry_out(&world.kms, &intent.unwrap(), first).await;
        assert_eq!(failed.unwrap_err().code(), code);
        let (there, disk) = instance_and_disk(&world).await;
        assert_eq!((there, disk.unwrap().state), (true, state));
    }
    std::fs::remove_dir_all(&path).unwrap();
    run(&world.kms, caller(), remove).await.unwrap();
    let (there, disk) = instance_and_disk(&world).await;
    assert!(!there && disk.is_none());
}
