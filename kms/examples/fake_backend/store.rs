//! What a layered store remembers, without its data.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use sealblk_proto::message::{
    AttachmentConfig, Change, CheckReport, Command, Failure, Mode, Outcome, SnapshotReport, StoreExpected,
    StoreReport, StoreState, code,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Less than the real one's, so that a report has several pages.
const SNAPSHOTS_A_PAGE: usize = 2;

/// A layered store in its file.
pub(crate) struct Store {
    file: File,
    contents: Contents,
    mode: Mode,
}

#[derive(Default, Serialize, Deserialize)]
struct Contents {
    size: u64,
    lineage: Option<String>,
    snapshots: Vec<Snapshot>,
    operations: Vec<String>,
    /// Every change, in order.
    log: Vec<String>,
    /// What `check` finds.
    #[serde(default)]
    leaked: u64,
    /// The disk that it was made for.
    #[serde(default)]
    disk: String,
    /// Counts the times that it was written.
    #[serde(default)]
    sequence: u64,
}

impl Contents {
    fn state(&self) -> StoreState {
        // What leaks is no part of a superblock.
        let mut superblock = serde_json::to_value(self).unwrap();
        superblock["leaked"] = 0.into();
        StoreState {
            sequence: self.sequence,
            digest: hex::encode(Sha256::digest(superblock.to_string())),
        }
    }

    /// As sealblk does, but for what only a real superblock can be.
    fn check(&self, disk: &str, expected: &StoreExpected) -> Result<(), Failure> {
        if self.disk != disk || self.lineage != expected.lineage {
            return Err(Failure::new(code::STORE_FOREIGN, self.disk.clone()));
        }
        let found = self.state();
        match &expected.last {
            Some(last) if found.sequence < last.sequence || expected.closed && found != *last => {
                let text = format!("{found:?}, not {last:?}");
                Err(Failure::new(code::STORE_ROLLED_BACK, text))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    id: String,
    size: u64,
    pins: Vec<String>,
    hidden: bool,
}

fn read(mut file: &File) -> Result<Contents, Failure> {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).map_err(|error| Failure::new(code::STORE_DAMAGED, error.to_string()))
}

impl Store {
    /// Opens or makes it; a clone's base must keep what the clone reads.
    pub(crate) fn take(config: &AttachmentConfig, file: File, bases: Vec<OwnedFd>) -> Result<Self, Failure> {
        assert_eq!(bases.len(), 2 * usize::from(config.bases));
        if let Some(base) = bases.into_iter().next() {
            let base = read(&File::from(base))?;
            let pinned = base
                .snapshots
                .iter()
                .any(|snapshot| snapshot.pins.contains(&config.disk));
            if !pinned {
                return Err(Failure::new(
                    code::STORE_DAMAGED,
                    "the base does not keep the snapshot",
                ));
            }
        }
        let contents = match &config.mode {
            Mode::Create { lineage, .. } => {
                assert_eq!(file.metadata().unwrap().len(), 0, "a new store is empty");
                Contents {
                    size: config.size,
                    lineage: lineage.clone(),
                    disk: config.disk.clone(),
                    ..Contents::default()
                }
            }
            _ => read(&file)?,
        };
        if config.expected != StoreExpected::default() {
            contents.check(&config.disk, &config.expected)?;
        }
        let mut store = Store {
            file,
            contents,
            mode: config.mode.clone(),
        };
        store.write();
        Ok(store)
    }

    pub(crate) fn state(&self) -> StoreState {
        self.contents.state()
    }

    fn write(&mut self) {
        self.contents.sequence += 1;
        let bytes = serde_json::to_vec(&self.contents).unwrap();
        self.file.rewind().unwrap();
        self.file.write_all(&bytes).unwrap();
        self.file.set_len(bytes.len() as u64).unwrap();
        self.file.sync_all().unwrap();
    }

    pub(crate) fn obey(&mut self, command: Command, connected: bool) -> Outcome {
        match command {
            Command::Change { operation, change } => {
                if self.contents.operations.contains(&operation) {
                    return Outcome::Done;
                }
                let text = format!("{change:?}");
                match self.change(change, connected) {
                    Ok(()) => {
                        self.contents.operations.push(operation);
                        self.contents.log.push(text);
                        self.write();
                        Outcome::Done
                    }
                    Err(code) => Outcome::Failed(Failure::new(code, text)),
                }
            }
            Command::WasMade { operation } => Outcome::Made(self.contents.operations.contains(&operation)),
            Command::Store { after } => Outcome::Store(self.report(after)),
            Command::Check { repair } => self.check(repair),
            other => panic!("{other:?}"),
        }
    }

    fn change(&mut self, change: Change, connected: bool) -> Result<(), &'static str> {
        let contents = &mut self.contents;
        let visible = |contents: &Contents, id: &str| {
            let mut snapshots = contents.snapshots.iter();
            snapshots.any(|snapshot| snapshot.id == id && !snapshot.hidden)
        };
        match change {
            Change::Rollback { force: false, .. } | Change::Reinitialise { force: false } if connected => {
                return Err(code::FRONTEND_CONNECTED);
            }
            Change::Snapshot { snapshot } => contents.snapshots.push(Snapshot {
                id: snapshot,
                size: contents.size,
                pins: Vec::new(),
                hidden: false,
            }),
            Change::Rollback { snapshot, .. } if !visible(contents, &snapshot) => {
                return Err(code::NO_SNAPSHOT);
            }
            Change::Rollback { .. } | Change::Reinitialise { .. } => {}
            Change::Resize { size, .. } if size < contents.size => return Err(code::INVALID_SIZE),
            Change::Resize { size, .. } => contents.size = size,
            Change::DeleteSnapshot { snapshot } => find(contents, &snapshot)?.hidden = true,
            Change::Pin { snapshot, .. } if !visible(contents, &snapshot) => return Err(code::NO_SNAPSHOT),
            Change::Pin { snapshot, disk } => {
                let pins = &mut find(contents, &snapshot)?.pins;
                pins.retain(|pin| *pin != disk);
                pins.push(disk);
            }
            Change::Unpin { snapshot, disk } => find(contents, &snapshot)?.pins.retain(|pin| *pin != disk),
        }
        contents
            .snapshots
            .retain(|snapshot| !snapshot.hidden || !snapshot.pins.is_empty());
        Ok(())
    }

    fn report(&self, after: Option<String>) -> StoreReport {
        let mut snapshots: Vec<_> = self.contents.snapshots.iter().collect();
        snapshots.sort_by(|one, other| one.id.cmp(&other.id));
        snapshots.retain(|snapshot| after.as_ref().is_none_or(|after| snapshot.id > *after));
        let page = snapshots
            .iter()
            .take(SNAPSHOTS_A_PAGE)
            .map(|snapshot| SnapshotReport {
                id: snapshot.id.clone(),
                parent: None,
                size: snapshot.size,
                unique_bytes: 4096,
                pins: snapshot.pins.clone(),
                hidden: snapshot.hidden,
            });
        StoreReport {
            size: self.contents.size,
            allocated: 65536,
            shared: 8192,
            deleting: 0,
            snapshots: page.collect(),
            more: snapshots.len() > SNAPSHOTS_A_PAGE,
        }
    }

    fn check(&mut self, repair: bool) -> Outcome {
        if repair && self.mode != Mode::Maintain {
            return Outcome::Failed(Failure::new(code::NOT_SUPPORTED, "it is being served"));
        }
        let leaked = self.contents.leaked;
        if repair {
            self.contents.leaked = 0;
            self.write();
        }
        Outcome::Check(CheckReport {
            pages: 3,
            leaked,
            findings: (0..leaked)
                .map(|number| format!("cluster {number} leaks"))
                .collect(),
            repaired: if repair { leaked } else { 0 },
            ..CheckReport::default()
        })
    }
}

fn find<'a>(contents: &'a mut Contents, id: &str) -> Result<&'a mut Snapshot, &'static str> {
    let mut snapshots = contents.snapshots.iter_mut();
    snapshots
        .find(|snapshot| snapshot.id == id)
        .ok_or(code::NO_SNAPSHOT)
}
