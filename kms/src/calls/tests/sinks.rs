//! Calls whose records are required elsewhere.

use super::*;
use crate::audit::sinks::tests::gated;

async fn newest(kms: &Kms) -> u64 {
    let mut db = kms.catalogue.read().await.unwrap();
    audit::newest(&mut db).await.unwrap().seq
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_awaits_its_turn_and_what_a_slow_sink_lacks_without_the_catalogue() {
    let world = World::new().await;
    let newest = newest(&world.kms).await;
    let (sink, mut gate) = gated("slow", true, newest - 1);
    world.kms.sinks.set(vec![sink]);
    let disks = ["one", "two"].map(|name| {
        let kms = Arc::clone(&world.kms);
        let disk = CreateDisk {
            name: name.into(),
            ..new_disk(None)
        };
        tokio::spawn(async move { kms.decide(&caller(), &disk).await.map(drop) })
    });
    assert_eq!(gate.given().await, [newest]);
    // Others need the catalogue.
    world
        .kms
        .catalogue
        .write()
        .await
        .unwrap()
        .rollback()
        .await
        .unwrap();
    gate.takes(1);
    for seq in [newest + 1, newest + 2] {
        assert_eq!(gate.given().await, [seq]);
        gate.takes(1);
    }
    for disk in disks {
        disk.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_caller_s_own_whatever_becomes_of_its_record_elsewhere() {
    let world = World::new().await;
    run(&world.kms, caller(), new_disk(None)).await.unwrap();
    let newest = newest(&world.kms).await;
    let (sink, mut gate) = gated("away", true, newest);
    world.kms.sinks.set(vec![sink]);
    let kms = Arc::clone(&world.kms);
    let refused = tokio::spawn(async move { run(&kms, caller(), new_disk(None)).await.map(drop) });
    assert_eq!(gate.given().await, [newest + 1]);
    // It awaits the record's arrival without the catalogue.
    world
        .kms
        .catalogue
        .write()
        .await
        .unwrap()
        .rollback()
        .await
        .unwrap();
    gate.takes(0);
    let refusal = refused.await.unwrap().unwrap_err();
    assert_eq!(refusal.code(), Code::NameTaken);
    // From now on it is known, and nothing is decided.
    let refusal = run(&world.kms, caller(), new_disk(None)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::AuditSinkFailed);
}
