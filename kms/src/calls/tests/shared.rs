//! Crashes while a shared disk (rule D09) is attached to one more instance, or detached from one of several.

use super::*;
use crate::catalogue::attachments;
use crate::catalogue::states::DiskState;
use crate::volumes::service_plan;
use sealblk_api::{self, Attach, CreateDisk, RegisterInstance};

/// A shared disk, attached to `vm`.
async fn attached() -> (World, String) {
    let world = World::new().await;
    let disk = CreateDisk {
        shared: true,
        ..new_disk(None)
    };
    run(&world.kms, caller(), disk).await.unwrap();
    for name in ["vm", "other"] {
        let instance = RegisterInstance {
            name: name.into(),
            ..RegisterInstance::default()
        };
        run(&world.kms, caller(), instance).await.unwrap();
    }
    let first = run(&world.kms, caller(), new_attach()).await.unwrap();
    (world, first.id)
}

fn further() -> Attach {
    Attach {
        instance: "other".into(),
        ..new_attach()
    }
}

fn detach(instance: &str) -> detach::Detach {
    detach::Detach {
        disk: "data".into(),
        options: sealblk_api::Detach {
            instance: Some(instance.into()),
            force: false,
            ..Default::default()
        },
    }
}

impl World {
    async fn attachments(&self) -> Vec<String> {
        let disk = self.disk().await.unwrap();
        assert_eq!(disk.state, DiskState::InUse);
        let mut db = self.kms.catalogue.read().await.unwrap();
        let rows = attachments::of_disk(&mut db, &disk.id).await.unwrap();
        rows.into_iter().map(|row| row.id).collect()
    }

    fn pid(&self, attachment: &str) -> Option<i32> {
        assert!(self.kms.supervisor.is_serving(attachment));
        self.kms.supervisor.status(attachment).pid
    }

    fn listens(&self, attachment: &str) -> bool {
        std::os::unix::net::UnixStream::connect(self.kms.state.vhost_socket(attachment, None)).is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_attach_stopped_after_the_decision_is_finished_by_the_process_that_returns() {
    let (mut world, first) = attached().await;
    let pid = world.pid(&first);
    let intent = world.kms.decide(&caller(), &further()).await.unwrap();
    let second = intent.work.attachment().unwrap().to_owned();
    assert_eq!(
        world.disk().await.unwrap().state,
        DiskState::InUse,
        "the first goes on"
    );
    world.crash_and_recover().await;
    assert_eq!(world.attachments().await, [first.clone(), second.clone()]);
    assert_eq!((world.pid(&first), world.pid(&second)), (pid, pid));
    assert!(world.listens(&first) && world.listens(&second));
    assert_eq!(world.calls("attach").await, 2);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detach_of_one_stopped_before_or_after_its_socket_was_closed_is_undone() {
    for closed in [false, true] {
        for instance in ["vm", "other"] {
            let (mut world, first) = attached().await;
            let second = run(&world.kms, caller(), further()).await.unwrap().id;
            let pid = world.pid(&first);
            let intent = world.kms.decide(&caller(), &detach(instance)).await.unwrap();
            let attachment = intent.work.attachment().unwrap().to_owned();
            assert_eq!(attachment == first, instance == "vm");
            if closed {
                let plan = service_plan::of_disk(&world.kms, &intent.disk).await.unwrap();
                let supervisor = &world.kms.supervisor;
                supervisor.end_session(&plan, &attachment, false).await.unwrap();
                assert!(!world.listens(&attachment));
            }
            world.crash_and_recover().await;
            assert_eq!(world.attachments().await, [first.clone(), second.clone()]);
            assert_eq!((world.pid(&first), world.pid(&second)), (pid, pid));
            assert!(world.listens(&first) && world.listens(&second));
            assert_eq!(world.calls("detach").await, 0);
            world.end().await;
        }
    }
}

/// The process dies with the daemon: the next one is begun with what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_detach_of_one_stopped_when_the_process_had_died_is_finished() {
    let (mut world, first) = attached().await;
    let second = run(&world.kms, caller(), further()).await.unwrap().id;
    let pid = world.pid(&first).unwrap();
    world.kms.decide(&caller(), &detach("vm")).await.unwrap();
    world.kms.supervisor.abandon();
    let process = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    world.crash_and_recover().await;
    assert_eq!(world.attachments().await, std::slice::from_ref(&second));
    for _ in 0..1500 {
        if world.kms.supervisor.is_serving(&second) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_ne!(world.pid(&second), Some(pid));
    assert!(world.listens(&second) && !world.listens(&first));
    assert_eq!(world.calls("detach").await, 1);
    run(&world.kms, caller(), detach("other")).await.unwrap();
    assert_eq!(world.disk().await.unwrap().state, DiskState::Available);
    assert_eq!(world.files(world.kms.state.run()), 0);
}
