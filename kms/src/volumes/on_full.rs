//! How much room the host has for disks, what becomes of writes that find none, and who is told.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Weak;

use sealblk_proto::message::{OnFull, Stats};

use crate::audit::Decision;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::named::Named;
use crate::catalogue::{kinds, meta, volumes};
use crate::conditions::Condition;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside;
use crate::host::store::{self, Room};
use crate::limits;

/// What was asked for.
///
/// # Errors
/// [`Code::InvalidRequest`].
pub(crate) fn choose(wanted: Option<&str>) -> Result<kinds::OnFull> {
    let Some(wanted) = wanted else {
        return Ok(kinds::OnFull::Error);
    };
    kinds::OnFull::named(wanted).ok_or_else(|| {
        let text = format!(
            "nothing that is done on a full host is {wanted:?}: use {}",
            kinds::OnFull::names(" or ")
        );
        Error::new(Code::InvalidRequest, text)
    })
}

/// What the operator should know of the room for a disk.
pub(crate) fn warning(disk: &DiskRow, stats: Option<&Stats>, room: Option<&Room>) -> Option<String> {
    let told = stats.map(|stats| stats.room.as_ref());
    let reserve =
        |name: &str| format!("make room, or have them held (`sealctl disk set {name} --on-full stop`)");
    match told {
        Some(Some(told)) if told.held > 0 => Some(format!(
            "the host's file system is full: {} requests of the guest are held until there is room (ENOSPC)",
            told.held
        )),
        Some(Some(told)) if told.is_short && told.on_full == OnFull::Error => Some(format!(
            "the host's file system is full: writes that need room fail (ENOSPC); {}",
            reserve(&disk.name)
        )),
        // A process of an earlier version.
        Some(None) if disk.on_full == kinds::OnFull::Stop => Some(format!(
            "the serving process does not know --on-full: `sealctl backend restart {}`",
            disk.name
        )),
        _ => room.and_then(scarcity),
    }
}

/// What the operator should know of little room.
pub(crate) fn scarcity(room: &Room) -> Option<String> {
    room.is_scarce().then(|| nearly_full(room))
}

fn nearly_full(room: &Room) -> String {
    format!(
        "the host's file system or device is {} % full: {} MiB are left",
        room.percent(),
        room.left >> 20
    )
}

/// Says, once for each time, that the host has little room for the catalogue or an attached disk: in the log and the audit log,
/// and in `kms status` as long as it is so. As long as the KMS lives.
pub(crate) async fn watch(kms: Weak<Kms>) {
    let mut told = HashSet::new();
    loop {
        let Some(kms) = kms.upgrade() else { return };
        match look(&kms, &told).await {
            Ok(scarce) => told = scarce,
            Err(error) => log::warn!("the room on the host is not known: {}", error.full_message()),
        }
        drop(kms);
        tokio::time::sleep(limits::ROOM_TIME).await;
    }
}

/// The file systems with little room, of which those that were `told` of before are told of no more.
async fn look(kms: &Kms, told: &HashSet<u64>) -> Result<HashSet<u64>> {
    let mut places = vec![kms.state.catalogue()];
    places.extend(attached(kms).await?);
    let scarce = scarce(places).await;
    match scarce.first() {
        None => kms.conditions.clear(Condition::LittleRoom),
        Some((_, path, room)) => {
            // Every account is shown it, and other paths are their owners'.
            let whose = match *path == kms.state.catalogue() {
                true => format!("in {}", kms.state.root().display()),
                false => "for attached disks (the log of sealblk-kms says where)".to_owned(),
            };
            let text = format!("{whose}: {}", nearly_full(room));
            kms.conditions.raise(Condition::LittleRoom, text);
        }
    }
    kms.catalogue.tend_reserve().await;
    match kms.catalogue.reserve_left() {
        100 => kms.conditions.clear(Condition::ReserveUsed),
        left => {
            let text = format!(
                "of the room that the catalogue keeps for a full file system {left} % are left: make room on that of {}",
                kms.state.root().display()
            );
            kms.conditions.raise(Condition::ReserveUsed, text);
        }
    }
    let caller = kms.own_caller(meta::OWNER)?;
    for (_, path, _) in scarce.iter().filter(|(system, ..)| !told.contains(system)) {
        let path = path.to_string_lossy();
        kms.record(&caller, "kms.little-room", &path, Decision::Allowed)
            .await?;
    }
    Ok(tell(scarce, told))
}

async fn attached(kms: &Kms) -> Result<Vec<PathBuf>> {
    let mut db = kms.catalogue.read().await?;
    let volumes = volumes::attached(&mut db).await?;
    Ok(volumes.iter().map(|volume| volume.location(&kms.state)).collect())
}

/// One file of each file system with little room. What does not answer is passed over.
async fn scarce(places: Vec<PathBuf>) -> Vec<(u64, PathBuf, Room)> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for path in places {
        let room = aside::look(&path, limits::LOOK_TIME, store::room).await.flatten();
        if let Some(room) = room.filter(|room| seen.insert(room.system) && room.is_scarce()) {
            found.push((room.system, path, room));
        }
    }
    found
}

/// Tells of those that were not told of before. Returns all.
fn tell(scarce: Vec<(u64, PathBuf, Room)>, told: &HashSet<u64>) -> HashSet<u64> {
    for (system, path, room) in &scarce {
        if !told.contains(system) {
            log::warn!("{}: {}", path.display(), nearly_full(room));
        }
    }
    scarce.into_iter().map(|(system, ..)| system).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(size: u64, left: u64) -> Room {
        Room {
            system: 1,
            size,
            left,
        }
    }

    #[test]
    fn it_is_scarce_from_nine_tenths_on() {
        for (left, expected) in [(1000, false), (101, false), (100, true), (0, true)] {
            assert_eq!(room(1000, left).is_scarce(), expected, "{left}");
        }
        assert_eq!((room(1000, 95).percent(), room(0, 0).is_scarce()), (90, false));
    }

    #[test]
    fn each_is_told_of_once_until_there_is_room_again() {
        let scarce = || vec![(7, PathBuf::from("/d"), room(1000, 5))];
        let told = tell(scarce(), &HashSet::new());
        assert_eq!(told, HashSet::from([7]));
        assert_eq!(tell(scarce(), &told), told);
        assert_eq!(tell(Vec::new(), &told), HashSet::new());
    }

    #[test]
    fn choices() {
        assert_eq!(
            (choose(None).unwrap(), choose(Some("stop")).unwrap()),
            (kinds::OnFull::Error, kinds::OnFull::Stop)
        );
        assert_eq!(choose(Some("ignore")).unwrap_err().code(), Code::InvalidRequest);
    }
}
