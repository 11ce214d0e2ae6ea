//! sealblk with its daemons, as an operator has them.

use std::path::Path;

use sealblk_e2e::kms::{self, Kms};

use super::Peer;

/// A KMS with an instance, whose disks are the peers.
pub(crate) struct Daemons {
    kms: Kms,
}

impl Daemons {
    /// Started, with everything in a directory of its own below `directory`.
    ///
    /// # Panics
    /// If the daemons do not start.
    pub(crate) fn start_in(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// The same, with these options of `sealblk-kms serve`.
    ///
    /// # Panics
    /// If the daemons do not start.
    pub(crate) fn start_with(directory: &Path, options: &[&str]) -> Self {
        let kms = Kms::start_with(directory, options);
        kms.ok(&["instance", "register", "bench"]);
        Daemons { kms }
    }

    /// Creates a disk of `size` bytes and attaches it.
    ///
    /// # Panics
    /// If that is refused.
    pub(crate) fn attach(
        &self,
        name: &'static str,
        size: u64,
        queues: u16,
        store: &str,
        encrypted: bool,
    ) -> Peer {
        let disk = name.replace(' ', "-");
        let size = size.to_string();
        let encrypted = format!("--encrypted={encrypted}");
        self.kms.ok(&[
            "disk", "create", &disk, "--size", &size, "--store", store, &encrypted,
        ]);
        self.attach_existing(name, &disk, queues)
    }

    /// Attaches a disk that there is.
    ///
    /// # Panics
    /// If that is refused.
    pub(crate) fn attach_existing(&self, name: &'static str, disk: &str, queues: u16) -> Peer {
        let attachment = self
            .kms
            .ok(&["attach", disk, "bench", "--queues", &queues.to_string()]);
        let pid = sealblk_e2e::eventually("a serving process", || self.kms.backend(disk));
        Peer {
            name,
            socket: kms::path(&attachment, "socket").to_owned(),
            pid,
        }
    }

    /// The operator's command line.
    pub(crate) fn kms(&self) -> &Kms {
        &self.kms
    }
}
