//! The rules, in a sentence each. `docs/rules.md` is made of this.

/// A rule.
pub(crate) struct Rule {
    /// A letter and two digits.
    pub(crate) id: &'static str,
    /// What holds.
    pub(crate) sentence: &'static str,
}

impl Rule {
    /// The module that shows it.
    pub(crate) fn module(&self) -> String {
        format!("tests/rules/{}.rs", self.id.to_lowercase())
    }
}

/// The kinds of rules by their letters, in the order of the document.
pub(crate) const KINDS: [(char, &str); 6] = [
    ('K', "Keys and the KMS"),
    ('D', "Disks"),
    ('A', "Attach and detach"),
    ('S', "Snapshots"),
    ('I', "Images, system disks and backups"),
    ('M', "Metering and audit"),
];

const fn rule(id: &'static str, sentence: &'static str) -> Rule {
    Rule { id, sentence }
}

/// All rules.
pub(crate) const RULES: &[Rule] = &[
    rule(
        "K01",
        "An account activates the KMS of the region before its first encrypted disk; without that only plain disks are created.",
    ),
    rule(
        "K02",
        "Where the gate is a grant, the disk service uses the KMS only after a Security Administrator has granted it; anybody else is told to ask one. A grant that is taken back stops what uses keys anew: creating encrypted disks, attaching, copying, exporting, backing up and restoring.",
    ),
    rule(
        "K03",
        "The first use in a region makes exactly one service key for the account, however many callers come at once. It is shown and listed; nobody deletes, disables or changes it, and nobody names it where the profile has no customer keys.",
    ),
    rule(
        "K04",
        "Data is encrypted with AES-256 under a 256-bit data key that a customer master key wraps; the data key is a disk's own, or one for the account in the region.",
    ),
    rule(
        "K05",
        "A disk, its snapshots and the disks made from them are one lineage, with the same key.",
    ),
    rule(
        "K06",
        "A data key is in plaintext only in the memory of the host that serves the disk: on no medium, in no log, core dump or swap, no argument, environment or answer.",
    ),
    rule(
        "K07",
        "Master keys are kept apart from the data, one service key for each account and region, and no call gives one out.",
    ),
    rule(
        "K08",
        "Customer keys can be created, described, listed, given aliases and tags, enabled, disabled, scheduled for deletion and kept, and disks are created with them.",
    ),
    rule(
        "K09",
        "The key of an encrypted disk or snapshot never changes, and a key is not named together with a snapshot as the source.",
    ),
    rule(
        "K10",
        "Key material can be brought along, wrapped for its way; until it has arrived the key is PendingImport and useless.",
    ),
    rule(
        "K11",
        "A key is Enabled, Disabled, PendingImport, PendingDeletion or Destroyed. A deletion waits 7 to 30 days, or as many as the operator permits, which must be seen to pass, whatever the wall clock says; it is acknowledged if the key protects anything, raises an alarm at each use, and cancelling it leaves the key Disabled.",
    ),
    rule(
        "K12",
        "A rotation gives a new key version at once; data keys are rewrapped in the background and over crashes, old versions unwrap until then, data is not re-encrypted and guests go on.",
    ),
    rule(
        "K13",
        "Only algorithms that FIPS 140 approves are used; the one exception, a root key under a passphrase, is named by `kms status`.",
    ),
    rule(
        "K14",
        "A deleted disk can be restored as long as the profile's bin keeps it. When it leaves the bin, with the last object of a lineage every wrapped copy of its key is destroyed, or its salt where the data key is the region's.",
    ),
    rule("K15", "A disk uses a key of its own region only."),
    rule(
        "D01",
        "A disk is created empty, encrypted or not, and if encrypted under a key of choice.",
    ),
    rule(
        "D02",
        "Cloud disks of the profile's types can be encrypted; local disks never.",
    ),
    rule(
        "D03",
        "An encrypted disk never becomes plain, nor a plain one encrypted.",
    ),
    rule(
        "D04",
        "Who wants the other attribute copies the data to a new disk: in the guest, or on the host with `disk copy`, which shows progress, goes on after a crash and compares.",
    ),
    rule(
        "D05",
        "A new disk is available; each later state permits its calls, and one operation at a time.",
    ),
    rule(
        "D06",
        "A disk grows, attached or not, seen by its guest at once or after re-attach, and never shrinks.",
    ),
    rule(
        "D07",
        "A disk can be made empty: it reads zeros, and keeps its id and its snapshots. A raw one is written whole, over crashes too, with enciphered zeros if it is encrypted.",
    ),
    rule(
        "D08",
        "Of an encrypted disk everything past the guest's virtqueues is encrypted: at rest, on the way to storage, and in every snapshot.",
    ),
    rule(
        "D09",
        "A shared disk is attached to several instances, each by a socket of its own, and served by one process; any other disk to one instance.",
    ),
    rule(
        "D10",
        "A new disk chooses its encryption, alone or with an instance, from a backup too; from a snapshot or an image it inherits it, and asking for the other one is refused.",
    ),
    rule(
        "D11",
        "Disks can be created with an instance, all of them or none, each metered.",
    ),
    rule("A01", "Disk and instance are in the same zone."),
    rule(
        "A02",
        "Data is encrypted on the host of the instance; the guest sees an ordinary virtio disk.",
    ),
    rule(
        "A03",
        "An encrypted disk is not attached to an instance with local storage, declared or found on its running virtual machine; what that gets later is an alarm, found every few minutes.",
    ),
    rule(
        "A04",
        "An encrypted disk is not attached to a bare-metal instance.",
    ),
    rule(
        "A05",
        "Attaching needs a key that is Enabled; the refusal names the key and its state.",
    ),
    rule(
        "A06",
        "What is attached goes on when its key becomes unusable, its fee is not paid or the grant is taken back, over restarts of its process and its host, which are audited and not metered; its status tells the risk.",
    ),
    rule(
        "A07",
        "Detaching a disk whose key is unusable, not paid for or no longer granted warns that it cannot be attached again, and needs `--force`.",
    ),
    rule(
        "A08",
        "One process at a time serves a disk, by a lock on the store itself.",
    ),
    rule(
        "A09",
        "A disk is plugged into a running virtual machine, and taken out of it, by one command each: whatever dies, it is plugged in and in use, or neither. A guest that does not let go of it keeps it.",
    ),
    rule(
        "S01",
        "A snapshot of an encrypted disk is encrypted with its key, one of a plain disk is plain, and neither is converted.",
    ),
    rule(
        "S02",
        "A disk from an encrypted snapshot is encrypted without asking, in the same lineage.",
    ),
    rule("S03", "A disk is rolled back to one of its own snapshots."),
    rule(
        "S04",
        "A snapshot of a disk in use is what a loss of power at one moment would have left, over all queues; the guest hardly notices.",
    ),
    rule(
        "S05",
        "A disk in use is rolled back only by force, since its guest's memory is of another time.",
    ),
    rule("S06", "An encrypted snapshot is not copied to another region."),
    rule(
        "S07",
        "A snapshot on which disks depend can be deleted: it is out of sight at once, and its space returns with the last of them.",
    ),
    rule(
        "I01",
        "A system disk comes with an instance from an image; the choice at purchase and the image decide its encryption, as the profile says.",
    ),
    rule("I02", "An encrypted image never becomes plain."),
    rule(
        "I03",
        "A backup is encrypted as its disk is; a disk restored from it may choose either.",
    ),
    rule(
        "I04",
        "A disk from a snapshot, image or backup has exactly the size of its source, or a larger one that was asked for.",
    ),
    rule(
        "I05",
        "An image with an encrypted snapshot is not shared with another account.",
    ),
    rule("I06", "An encrypted image is not copied to another region."),
    rule("I07", "An encrypted image is not exported."),
    rule(
        "M01",
        "Create, attach, detach, snapshot, rollback and, by the profile, re-initialising of encrypted disks count as one call each; what guests do never counts.",
    ),
    rule(
        "M02",
        "Some calls are free each month over all regions, others are taken from a prepaid balance; without one they are refused before anything happens, and guests go on.",
    ),
    rule(
        "M03",
        "Service keys are free; customer keys cost a monthly fee where the profile says so. What could not be paid is owed, and taken as soon as there is credit.",
    ),
    rule(
        "M04",
        "Every decision, allowed or refused, is in an append-only, hash-chained audit log; what cannot be recorded is not done.",
    ),
];

/// Rules of which something is not built, and what that is. They need no module here.
pub(crate) const NOT_BUILT: &[(&str, &str)] = &[];

/// Where rules hold that no code of a refusal belongs to, or that hold elsewhere, too. Each of the files names the rule.
pub(crate) const HELD_IN: &[(&str, &[&str])] = &[
    ("K04", &["kms/src/keys/keyring.rs"]),
    ("K05", &["kms/src/rules/source.rs", "kms/src/keys/keyring.rs"]),
    ("K06", &["kms/proto/src/locked.rs"]),
    ("K07", &["kms/src/views/key.rs"]),
    ("K11", &["kms/src/keys/deletion.rs", "kms/src/jobs/key_work.rs"]),
    ("K12", &["kms/src/jobs/rewrap.rs", "kms/src/keys/keyring.rs"]),
    ("K13", &["kms/src/catalogue/root_key_kind.rs"]),
    (
        "K14",
        &[
            "kms/src/catalogue/bin.rs",
            "kms/src/catalogue/erasure.rs",
            "kms/src/catalogue/kept.rs",
        ],
    ),
    ("D01", &["kms/src/calls/disk/create.rs"]),
    ("D07", &["kms/src/calls/disk/reinit.rs"]),
    ("D08", &["src/disk.rs"]),
    ("D11", &["kms/src/calls/instance/register.rs"]),
    ("A02", &["src/disk.rs"]),
    ("A06", &["kms/src/host/backends/handover.rs"]),
    ("S02", &["kms/src/rules/source.rs"]),
    ("S03", &["kms/src/calls/disk/rollback.rs"]),
    ("S04", &["kms/src/calls/snapshot/create.rs"]),
    ("S07", &["kms/src/calls/snapshot/delete.rs"]),
    (
        "I03",
        &[
            "kms/src/calls/backup/create.rs",
            "kms/src/calls/backup/restore.rs",
        ],
    ),
    ("M01", &["kms/src/intents/mod.rs"]),
];
