//! Every limit of the daemon in one place; callers of the API meet some of them without it, too.

use std::time::Duration;

pub(crate) use sealblk_api::limits::*;

/// Largest disk, in bytes: 64 TiB.
pub(crate) const LARGEST_DISK: u64 = 64 << 40;
/// A disk's size is a multiple of this many bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Longest name of a disk, instance, region or zone, in characters.
pub(crate) const NAME_CHARACTERS: usize = 64;
/// Longest path of a store, in bytes (`PATH_MAX` less the terminator).
pub(crate) const PATH_BYTES: usize = 4095;
/// Longest path of a Unix socket, in bytes (`sun_path` less the terminator, unix(7)).
pub(crate) const SOCKET_PATH_BYTES: usize = 107;
/// Most snapshots in a volume, with those that were deleted and that clones still read.
pub(crate) const SNAPSHOTS: usize = 512;
/// Most snapshots that a schedule keeps: for a moment there is one more.
pub(crate) const SCHEDULE_KEEP: u32 = SNAPSHOTS as u32 - 1;
/// Shortest and longest time from one snapshot of a schedule to the next, in seconds.
pub(crate) const SCHEDULE_EVERY_LEAST: u64 = 60;
/// See [`SCHEDULE_EVERY_LEAST`].
pub(crate) const SCHEDULE_EVERY_MOST: u64 = 366 * 24 * 3600;
/// How often it is looked whether a snapshot is due.
pub(crate) const SCHEDULE_LOOK_TIME: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again, in seen time, unless the next one is due earlier.
pub(crate) const SCHEDULE_RETRY_TIME: Duration = Duration::from_secs(300);
/// Schedules that are looked after in one round, at most.
pub(crate) const SCHEDULE_BATCH: u32 = 100;
/// Most of them at once: the storage of some may hang.
pub(crate) const SCHEDULES_AT_ONCE: usize = 8;
/// Most schedules that fail of which `kms status` warns.
pub(crate) const SCHEDULES_WARNED: u32 = 16;
/// Most disks of which snapshots are taken as of one moment.
pub(crate) const GROUP_DISKS: usize = 64;
/// How long their guests' requests are held at most, while the snapshots are taken.
pub(crate) const GROUP_HOLD_TIME: Duration = Duration::from_secs(10);
/// Longest wait for one of the disks to come to rest, or to go on: the others' requests are held meanwhile.
pub(crate) const GROUP_REST_TIME: Duration = Duration::from_secs(5);
/// Most images of one snapshot.
pub(crate) const IMAGES_OF_SNAPSHOT: u64 = 64;
/// Most accounts that an image is shared with.
pub(crate) const SHARES_OF_IMAGE: usize = 100;
/// Pages of a store's report that are read; each has up to 128 snapshots.
pub(crate) const REPORT_PAGES: usize = 16;
/// Most disks that are created together with an instance.
pub(crate) const DISKS_WITH_INSTANCE: usize = 16;
/// Most instances that have a shared disk at once (rule D09): as many as the clouds allow, and sealblk serves.
pub(crate) const ATTACHMENTS: usize = 16;
/// Most virtqueues of an attachment.
pub(crate) const QUEUES: u16 = 16;
/// Virtqueues of an attachment that asks for no number.
pub(crate) const DEFAULT_QUEUES: u16 = 4;

/// Most keys of its own that an account has; the service's do not count (rule M03).
pub(crate) const CUSTOMER_KEYS: usize = 1000;
/// Most aliases of a key.
pub(crate) const ALIASES: usize = 16;
/// Most tags of a key.
pub(crate) const TAGS: usize = 50;
/// Longest name of a tag, in characters.
pub(crate) const TAG_NAME_CHARACTERS: usize = 128;
/// Longest value of a tag, in characters.
pub(crate) const TAG_VALUE_CHARACTERS: usize = 256;
/// Shortest wait before a key is destroyed, in days (rule K11).
pub(crate) const DELETION_DAYS_LEAST: u16 = 7;
/// How often it is looked whether a key has to be destroyed, or its fee to be paid.
pub(crate) const KEY_CLOCK_TIME: Duration = Duration::from_secs(60);
/// How often it is looked whether a disk has to leave the bin.
pub(crate) const BIN_LOOK_TIME: Duration = Duration::from_secs(60);
/// Disks that leave the bin in one round, at most.
pub(crate) const BIN_BATCH: u32 = 100;
/// Most of them at once: on a medium that hangs each takes a thread of [`WORKS_OF_MEDIUM`], of which others need some, too.
pub(crate) const BIN_REMOVALS: usize = 8;
/// How long a disk stays in the bin that could not be removed, before that is tried again, in seen time.
pub(crate) const BIN_RETRY_TIME: Duration = Duration::from_secs(3600);
/// How far the wall clock may go another way than the time that passes, before that is a jump.
pub(crate) const CLOCK_JUMP: Duration = Duration::from_secs(3600);
/// What counts as seen at most of the time between two looks.
pub(crate) const LOOK_MOST: Duration = Duration::from_secs(3600);
/// How long a wall clock that has jumped must stay where it is to be believed, in seen time; a jump is shown as long.
pub(crate) const CLOCK_SETTLE_TIME: Duration = Duration::from_secs(24 * 3600);
/// Jumps that wait for the audit log to be writable.
pub(crate) const UNRECORDED_JUMPS: usize = 16;
/// Months of a key's fee that can be owed: a clock that was never set is no debt for decades (rule M03).
pub(crate) const ARREARS_MONTHS: u32 = 24;
/// Time between two alarms that a key is going to be destroyed, in hours.
pub(crate) const ALARM_HOURS: i64 = 24;
/// How long the root key before a rotation is still known.
pub(crate) const OLD_ROOT_TIME: Duration = Duration::from_secs(30);
/// Largest file of a sealed root key, in bytes.
pub(crate) const SEALED_ROOT_BYTES: u64 = 4096;
/// Lineages that are rewrapped in one transaction.
pub(crate) const REWRAP_BATCH: u32 = 64;

/// Imports that an account can await at once.
pub(crate) const IMPORTS: usize = 64;
/// How long an import's parameters can be used: whole hours.
pub(crate) const IMPORT_TIME: Duration = Duration::from_secs(24 * 3600);

/// Largest body of an API request, in bytes.
pub(crate) const BODY_BYTES: usize = 64 * 1024;
/// Largest request line with headers, in bytes.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// Most headers of an API request.
pub(crate) const HEADERS: usize = 64;
/// Most API connections of all users but the owner that are served at once; further ones wait.
pub(crate) const CONNECTIONS: usize = 256;
/// Most connections of the owner that are served at a time, beside those of others.
pub(crate) const CONNECTIONS_OF_OWNER: usize = 128;
/// Most connections of each other user that are served at a time.
pub(crate) const CONNECTIONS_OF_USER: usize = 32;
/// Most connections of a user that wait to be served; further ones are refused.
pub(crate) const CONNECTIONS_WAITING: usize = 96;
/// Most connections to be refused that are awaited at once, of a user, and of all users without an account together;
/// further ones are not awaited.
pub(crate) const CONNECTIONS_REFUSED: usize = 8;
/// Longest wait for the first word of somebody who is refused.
pub(crate) const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Requests a second of each user but the owner; further ones wait.
pub(crate) const REQUESTS_A_SECOND: u32 = 500;
/// Longest time for a request's head, and again for its body, to arrive.
pub(crate) const REQUEST_READ_TIME: Duration = Duration::from_secs(10);
/// Longest wait at the end of `serve` for operations that have begun; the next start ends what is still open.
pub(crate) const SHUTDOWN_TIME: Duration = Duration::from_secs(15);

/// How long the state directory's lock is tried, which a child of a KMS that was killed may still have.
pub(crate) const STATE_LOCK_TIME: Duration = Duration::from_secs(2);
/// See [`STATE_LOCK_TIME`].
pub(crate) const STATE_LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Longest time for a backend's step of the hand-over, and for its answer to a command.
pub(crate) const BACKEND_TIME: Duration = Duration::from_secs(10);
/// Longest examination of a store.
pub(crate) const CHECK_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// First and longest time between two looks at a copy.
pub(crate) const COPY_LOOK_FIRST: Duration = Duration::from_millis(20);
/// See [`COPY_LOOK_FIRST`].
pub(crate) const COPY_LOOK_MOST: Duration = Duration::from_millis(500);
/// Processes of a copy that fail one after another without getting further, before it is given up.
pub(crate) const COPY_ATTEMPTS: u32 = 5;
/// Longest wait for what a store reports, where its disk is shown without that otherwise.
pub(crate) const SHOW_TIME: Duration = Duration::from_secs(5);
/// Most volumes of which it is remembered what their stores have reported last.
pub(crate) const REPORTS: usize = 1024;
/// Longest wait for a backend that is just coming back, where it is to be sent a command.
pub(crate) const RETURN_TIME: Duration = Duration::from_secs(5);
/// How long a forced end waits for a hand-over before it kills the one that is being served.
pub(crate) const FORCED_HAND_OVER_TIME: Duration = Duration::from_secs(1);
/// How long a forced end waits for what the process is doing, before the answer to that is given up.
pub(crate) const FORCED_LOCK_TIME: Duration = Duration::from_secs(2);
/// How long the requests of a process that has ended may go on, holding the store's lock.
pub(crate) const STORE_RELEASE_TIME: Duration = Duration::from_secs(5);
/// Longest wait for a store's file or device, where it is only looked at.
pub(crate) const LOOK_TIME: Duration = Duration::from_secs(1);
/// Longest wait for what a caller names to be looked at.
pub(crate) const NAMED_PATH_TIME: Duration = Duration::from_secs(5);
/// Longest wait for a store's file to be made, emptied or removed.
pub(crate) const STORE_TIME: Duration = Duration::from_secs(15);
/// Bytes a second that a medium takes at least: a new store that is filled may take so much longer.
pub(crate) const SLOWEST_MEDIUM: u64 = 16 << 20;
/// Longest wait for a thread, where all that a medium may have are at work.
pub(crate) const PLACE_TIME: Duration = Duration::from_secs(1);
/// Most threads at once that look at one medium for the KMS, or for callers, or make sockets there.
pub(crate) const LOOKS_OF_MEDIUM: usize = 4;
/// Most threads at once that make, fill, empty or remove stores of one medium.
pub(crate) const WORKS_OF_MEDIUM: usize = 16;
/// Most threads at once of each of these kinds, on all media.
pub(crate) const FILE_THREADS: usize = 128;
/// Longest wait for the KMS's own files, and for what it computes.
pub(crate) const OWN_WORK_TIME: Duration = Duration::from_secs(60);
/// [`LOOK_TIME`], where another has just not answered.
pub(crate) const LOOK_AGAIN_TIME: Duration = Duration::from_millis(20);
/// How often it is looked whether a serving process and its sockets are as they should be.
pub(crate) const WATCH_TIME: Duration = Duration::from_secs(5);
/// Longest wait for volumes that nothing needs any more to be removed with a call; the rest is removed afterwards.
pub(crate) const SWEEP_TIME: Duration = Duration::from_secs(2);
/// Time between two looks whether a process has ended, where the kernel does not tell.
pub(crate) const END_LOOK_TIME: Duration = Duration::from_millis(200);
/// How long a process that was killed before is waited for once more.
pub(crate) const KILLED_TIME: Duration = Duration::from_secs(1);
/// First and longest delay between two attempts at what could not be ended.
pub(crate) const RETRY_DELAY_FIRST: Duration = Duration::from_millis(500);
/// See [`RETRY_DELAY_FIRST`].
pub(crate) const RETRY_DELAY_MOST: Duration = Duration::from_secs(10);
/// Longest wait, at the start and at each further attempt, for calls to be ended that were left open; these go on.
pub(crate) const RECOVERY_TIME: Duration = Duration::from_secs(3);
/// Most requests whose calls are being ended at once.
pub(crate) const RECOVERIES: usize = 16;
/// Longest wait for counters that are shown, where nothing is shown otherwise.
pub(crate) const STATS_TIME: Duration = Duration::from_secs(2);
/// How long a starting KMS waits for backends of its predecessor, which it dials.
pub(crate) const ADOPTION_TIME: Duration = Duration::from_secs(2);
/// Longest time for the program to try what can keep its processes in bounds.
pub(crate) const SANDBOX_CHECK_TIME: Duration = Duration::from_secs(10);
/// First and longest delay between two attempts to dial a backend that is not connected.
pub(crate) const DIAL_DELAY_FIRST: Duration = Duration::from_millis(20);
/// See [`DIAL_DELAY_FIRST`].
pub(crate) const DIAL_DELAY_MOST: Duration = Duration::from_secs(5);
/// Most sockets of backends in a runtime directory that are looked at.
pub(crate) const CONTROL_SOCKETS: usize = 64;
/// Longest time for a backend to hand over to its successor: the successor's start, the end of what is in flight, and the
/// successor's preparations.
pub(crate) const REPLACEMENT_TIME: Duration = Duration::from_secs(25);
/// A backend that lived shorter than this is restarted with a growing delay.
pub(crate) const SHORT_LIFE: Duration = Duration::from_secs(1);
/// First delay of a restart after a short life.
pub(crate) const RESTART_DELAY_FIRST: Duration = Duration::from_millis(100);
/// Longest delay of a restart.
pub(crate) const RESTART_DELAY_MOST: Duration = Duration::from_secs(5);
/// Time between two attempts to take a backend's connection, where there are no descriptors to be had.
pub(crate) const ACCEPT_RETRY_TIME: Duration = Duration::from_millis(100);
/// Hand-overs at once on one attachment's socket, where further connections are closed, and with those that were dialled.
pub(crate) const HANDSHAKES: usize = 4;
/// A backend's log that is longer than this at its start is begun anew.
pub(crate) const BACKEND_LOG_BYTES: u64 = 1 << 20;

/// Most of a backend's log that becomes part of an error, in bytes.
pub(crate) const BACKEND_WORDS_BYTES: u64 = 512;
/// First user id for backends of a root KMS, and how many there are.
pub(crate) const BACKEND_UID_FIRST: u32 = 1_900_000_000;
/// See [`BACKEND_UID_FIRST`].
pub(crate) const BACKEND_UIDS: u32 = 100_000_000;

/// Longest time for a virtual machine to say what it can write to.
pub(crate) const MACHINE_TIME: Duration = Duration::from_secs(5);
/// How often machines with encrypted disks are asked again.
pub(crate) const MACHINE_WATCH_TIME: Duration = Duration::from_secs(180);
/// Longest time for a machine to say it again: QMP has one client at a time, and others wait.
pub(crate) const MACHINE_AGAIN_TIME: Duration = Duration::from_secs(2);
/// Machines that are asked again at once.
pub(crate) const MACHINES_AT_ONCE: usize = 8;
/// Longest time for a virtual machine to be given a disk.
pub(crate) const MACHINE_CHANGE_TIME: Duration = Duration::from_secs(30);
/// Longest time for a guest to let go of a disk.
pub(crate) const UNPLUG_TIME: Duration = Duration::from_secs(30);
/// How often it is asked to.
pub(crate) const UNPLUG_AGAIN_TIME: Duration = Duration::from_secs(6);
/// How often it is looked whether it has.
pub(crate) const MACHINE_LOOK_TIME: Duration = Duration::from_millis(200);
/// Part of a file system, in per cent, from which on it is said that there is little room.
pub(crate) const ROOM_PERCENT: u64 = 90;
/// How often it is looked.
pub(crate) const ROOM_TIME: Duration = Duration::from_secs(60);
/// Longest wait for a virtual machine to say which version it is, where that only chooses what is shown.
pub(crate) const MACHINE_VERSION_TIME: Duration = Duration::from_secs(2);
/// How long a virtual machine may take to speak first, as QMP does.
pub(crate) const MACHINE_GREETING_TIME: Duration = Duration::from_millis(500);
/// Most that is read of what a virtual machine says, in bytes.
pub(crate) const MACHINE_ANSWER_BYTES: usize = 1 << 20;
/// Most of a virtual machine's words that become part of an error, in characters.
pub(crate) const MACHINE_WORD_CHARACTERS: usize = 200;

/// Most copies of an account at once whose file was passed with the call: each keeps that open.
pub(crate) const PASSED_OF_ACCOUNT: usize = 32;

/// Most tokens that are kept of an account: the newest.
pub(crate) const TOKENS: u32 = 1000;
/// How long a token is kept.
pub(crate) const TOKEN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest wait for the catalogue's write lock.
pub(crate) const CATALOGUE_BUSY_TIME: Duration = Duration::from_secs(10);

/// Most copies of the catalogue from before migrations that are kept: the newest.
pub(crate) const KEPT_CATALOGUES: usize = 3;
/// How long one is kept.
pub(crate) const KEPT_CATALOGUE_TIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Most backups that `serve --backup-to` keeps: the newest.
pub(crate) const BACKUPS_KEPT: usize = 10;
/// How often it is looked whether keys have changed and need another backup.
pub(crate) const BACKUP_LOOK_TIME: Duration = Duration::from_secs(1);
/// Longest delay before a backup that has failed is tried again.
pub(crate) const BACKUP_RETRY_TIME: Duration = Duration::from_secs(60);

/// Pages of 4 KiB that the catalogue keeps free for a full file system, half of them at least, and that its log has room for. A
/// restart takes four transactions of up to fifteen pages in the log, which begins anew, and a fifth of a page in the file; a detach
/// or a delete no more than a page there.
pub(crate) const RESERVE_PAGES: i64 = 512;
/// Length of the file that a start on a full file system gives up: for the log, and somewhat more.
pub(crate) const SPARE_BYTES: u64 = (RESERVE_PAGES.unsigned_abs() + 64) * (4096 + 24);
/// Of this, what is given up at a time: twice what SQLite's shared memory takes.
pub(crate) const SPARE_PIECE: u64 = 64 << 10;
/// Pages from which on the log is brought into the file, to begin anew.
pub(crate) const LOG_PAGES: u64 = 256;
/// Writes between two looks at the reserve, while there is room.
pub(crate) const RESERVE_WRITES: u32 = 16;
/// There is little room on the catalogue's file system from so many bytes on, or from this part of it on if that is less.
pub(crate) const TIGHT_BYTES: u64 = 64 << 20;
/// See [`TIGHT_BYTES`].
pub(crate) const TIGHT_PART: u64 = 8;
/// Part of the reserve, in per cent, that is kept for calls that free room, and for restarts.
pub(crate) const RESERVE_FOR_FREEING: u8 = 50;
/// Part of it, in per cent, from which on refusals are no longer written to the audit log.
pub(crate) const RESERVE_FOR_RESTARTS: u8 = 20;
/// Pause before the catalogue's log is emptied again, where readers kept it.
pub(crate) const LOG_RETRY_TIME: Duration = Duration::from_millis(20);

/// Shortest passphrase for a root key in a backup, in bytes.
pub(crate) const PASSPHRASE_BYTES_LEAST: usize = 12;
/// Longest passphrase, in bytes.
pub(crate) const PASSPHRASE_BYTES_MOST: usize = 1024;

/// Largest balance, in micro-units: any JSON reader keeps such a number exactly.
pub(crate) const BALANCE_MOST: u64 = 9_000_000_000_000_000;
/// Largest accounts file, in bytes.
pub(crate) const ACCOUNTS_BYTES: u64 = 4 << 20;
/// Longest object of an audit record, in bytes.
pub(crate) const AUDIT_OBJECT_BYTES: usize = 128;
/// Longest details of a record: a path of 4096 bytes is cut, and many tags or user ids; the rest of what a call can say is whole.
pub(crate) const AUDIT_DETAILS_BYTES: usize = 4096;
/// Longest text in details that are cut.
pub(crate) const AUDIT_TEXT_BYTES: usize = 2048;
/// Most items of a list in details that are cut: two lists of user ids, and what else there is, are within the bytes then. No list of
/// ids is longer.
pub(crate) const AUDIT_ITEMS: usize = 100;
/// Most audit sinks.
pub(crate) const SINKS: usize = 8;
/// How long a required sink may take for the record of a decision; its transaction, and whoever wants to write, waits meanwhile.
pub(crate) const SINK_DECISION_TIME: Duration = Duration::from_secs(1);
/// How long a sink may take for its next records, and how long a call waits, before it is decided or refused, for what a required one
/// lacks.
pub(crate) const SINK_TIME: Duration = Duration::from_secs(5);
/// How long a program may owe an acknowledgement before another is started.
pub(crate) const SINK_HANG_TIME: Duration = Duration::from_secs(30);
/// Records that a sink is given at once.
pub(crate) const SINK_BATCH: u32 = 100;
/// How often it is looked for records that no call has told of, and how far a sink is noted.
pub(crate) const SINK_LOOK_TIME: Duration = Duration::from_secs(1);
/// Pause before a sink that takes no records is tried again, at first.
pub(crate) const SINK_RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest such pause.
pub(crate) const SINK_RETRY_MOST: Duration = Duration::from_secs(30);
/// Records of the audit log that a start verifies before it serves, at most.
pub(crate) const AUDIT_AT_START: u64 = 50_000;
/// Archived records that are removed in one transaction.
pub(crate) const ARCHIVE_BATCH: u32 = 1000;
/// Users without an account whose refused calls are counted apart.
pub(crate) const STRANGERS: usize = 64;
/// How often their number is recorded.
pub(crate) const STRANGERS_TIME: Duration = Duration::from_secs(60);
/// Most paths that an account may have in an accounts file.
pub(crate) const ACCOUNT_PATHS: usize = 64;
/// Most disks of an account, unless the accounts file says otherwise.
pub(crate) const ACCOUNT_DISKS: u32 = 200_000;
/// Most instances of an account, likewise.
pub(crate) const ACCOUNT_INSTANCES: u32 = 200_000;
/// Most images of an account, likewise.
pub(crate) const ACCOUNT_IMAGES: u32 = 10_000;
/// Most backups of an account, likewise.
pub(crate) const ACCOUNT_BACKUPS: u32 = 100_000;
/// Most schedules of snapshots of an account, likewise.
pub(crate) const ACCOUNT_SCHEDULES: u32 = 10_000;
/// Most copies of an account that go on at once, likewise: each is a process, which syncs every two seconds.
pub(crate) const ACCOUNT_COPIES: u32 = 64;
/// Most principals in an accounts file.
pub(crate) const PRINCIPALS: usize = 10_000;
