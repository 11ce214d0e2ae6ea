//! The codes of refusals and failures.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal $(, $rule:literal)?;)*) => {
        /// Stable code of a refusal or failure; its HTTP status and the rule behind it come with it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// As it stands in [`ApiError::code`](crate::ApiError::code).
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)* }
            }

            /// HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }

            /// Number of the rule that refuses, as it stands in [`ApiError::rule`](crate::ApiError::rule).
            pub fn rule(self) -> Option<&'static str> {
                match self { $(Code::$name => codes!(@rule $($rule)?),)* }
            }
        }
    };
    (@rule) => { None };
    (@rule $rule:literal) => { Some($rule) };
}

codes! {
    /// The body, a path or a parameter cannot be understood.
    InvalidRequest = 400;
    /// A size that no disk can have.
    InvalidSize = 400;
    /// A name that is none.
    InvalidName = 400;
    /// A path that cannot be used for what it is given for.
    InvalidPath = 400;
    /// A path that the caller's account may not name.
    PathNotAllowed = 403;
    /// An open file was to be passed with the request, and none came that can be used.
    DescriptorUnusable = 400;
    /// An open file that was passed is not open any more.
    DescriptorLost = 409;
    /// More or fewer queues than there can be.
    InvalidQueues = 400;
    /// Not `USER[:GROUP]`, or unknown, or not to be had by this process.
    InvalidSocketOwner = 400;
    /// Not an octal mode up to 0777.
    InvalidSocketMode = 400;
    /// The caller's uid belongs to no account, or has not the role that the call needs.
    NotAuthorized = 403;
    /// Only a Security Administrator grants the use of the KMS.
    NotSecurityAdministrator = 403, "K02";
    /// The account's balance does not suffice for the call.
    BalanceExhausted = 402, "M02";
    /// Not an amount that can be added to the balance.
    InvalidAmount = 400;
    /// No such object in the caller's account.
    NotFound = 404;
    /// The disk was deleted, and can be restored.
    DiskDeleted = 404;
    /// No such route.
    NoSuchRoute = 404;
    /// The route does not know this method.
    MethodNotAllowed = 405;
    /// The request's body did not arrive in time.
    RequestTimeout = 408;
    /// Not what can stand in the header `Idempotency-Key`.
    InvalidToken = 400;
    /// The token came with another call before.
    TokenReused = 409;
    /// The call that the token came with first has not ended.
    TokenUnderWay = 409;
    /// The object has none of the tags of `If-Match`.
    PreconditionFailed = 412;
    /// The name belongs to another object of the kind.
    NameTaken = 409;
    /// The request's body is too large.
    BodyTooLarge = 413;
    /// The request's body is not declared as JSON.
    UnsupportedMediaType = 415;
    /// The account has not activated the KMS in this region.
    KmsNotActivated = 409, "K01";
    /// The disk service has not been granted the use of the KMS.
    KmsNotGranted = 409, "K02";
    /// No key can be named, the service's neither.
    KeyNotAllowed = 403, "K03";
    /// The service key is the service's: nobody else changes it.
    ServiceKeyFixed = 403, "K03";
    /// The profile has no keys of customers.
    CustomerKeysNotOffered = 409, "K08";
    /// The key's state does not permit the call.
    KeyStateInvalid = 409, "K11";
    /// The key still protects something, and its deletion must be acknowledged.
    KeyInUse = 409, "K11";
    /// Not a number of days that a deletion can wait.
    InvalidDays = 400, "K11";
    /// A tag that is none.
    InvalidTag = 400;
    /// The key's material was imported, and only its owner has it.
    KeyImported = 409, "K12";
    /// The key's material was made here.
    KeyNotImported = 409, "K10";
    /// The token is unknown, used, or has expired.
    ImportTokenInvalid = 409, "K10";
    /// What was imported is not a wrapped 256-bit key.
    ImportInvalid = 400, "K10";
    /// The key was imported before, with other material.
    ImportDiffers = 409, "K10";
    /// The month's fee for the key has not been paid.
    KeyFeeUnpaid = 402, "M03";
    /// The disk's key is not usable, so it could not be attached again.
    DetachNeedsForce = 409, "A07";
    /// A new disk was to have a key that the account does not have.
    NoSuchKey = 404;
    /// The key is of another region.
    WrongRegion = 409, "K15";
    /// The key is not Enabled.
    KeyNotUsable = 409, "A05";
    /// A wrapped key is not what was stored in this place.
    WrappedKeyInvalid = 500;
    /// The store layout does not exist.
    StoreNotAvailable = 400;
    /// A file with contents was given for a new disk.
    FileNotEmpty = 409;
    /// Neither regular file nor block device.
    NotAFileOrBlockDevice = 400;
    /// Another disk or process uses the file or device.
    FileInUse = 409;
    /// The block device is smaller than the disk.
    DeviceTooSmall = 409;
    /// The medium does not answer, and the kernel does not let go of the process that waits for it.
    StorageHangs = 504;
    /// The medium has not the room.
    NoSpace = 507;
    /// The disk's state does not permit the call.
    DiskNotAvailable = 409, "D05";
    /// The disk is attached.
    DiskAttached = 409;
    /// The disk is attached already, and not shared; or to this instance.
    AlreadyAttached = 409, "D09";
    /// The shared disk is attached to as many instances as can have it.
    TooManyAttachments = 409, "D09";
    /// The shared disk is attached to several instances, and none was named.
    InstanceNeeded = 409, "D09";
    /// Whether a disk is shared never changes.
    SharedFixed = 409, "D09";
    /// The disk is not attached, or not to this instance.
    NotAttached = 409;
    /// The disk is attached, and no process serves it now.
    NotServed = 409;
    /// The disk's store, or this version, cannot do it.
    NotSupported = 409;
    /// The disk is in use: its guest would not learn that its data is another.
    DiskInUse = 409, "S05";
    /// A disk does not become smaller.
    CannotShrink = 409, "D06";
    /// The disk is attached, a new size is seen after re-attach, and its process does not know of that.
    ResizeNeedsDetach = 409, "D06";
    /// A disk from a snapshot or an image has at least its size.
    SizeBelowSource = 409, "I04";
    /// A disk from a snapshot or an image has its encryption attribute.
    EncryptionInherited = 409, "D10";
    /// A disk from a snapshot or an image has its key.
    KeyInherited = 409, "K09";
    /// A system disk exists only with its instance.
    SystemDiskBound = 409, "I01";
    /// System disks are not encrypted in this profile.
    SystemDiskPlain = 409, "I01";
    /// In this profile the image alone decides on a system disk's encryption.
    SystemDiskByImage = 409, "I01";
    /// Local disks are never encrypted.
    LocalDisk = 409, "D02";
    /// Disks of the type are not encrypted in this profile.
    TypeNotEncryptable = 409, "D02";
    /// A disk's encryption attribute never changes.
    EncryptionFixed = 409, "D03";
    /// The encryption attribute of a snapshot never changes.
    SnapshotEncryptionFixed = 409, "S01";
    /// The key of a disk or snapshot never changes.
    KeyFixed = 409, "K09";
    /// Encrypted snapshots are not copied across regions.
    EncryptedSnapshotStays = 409, "S06";
    /// The image is being made, or its snapshot cannot be used.
    ImageNotAvailable = 409;
    /// Encryption and key of an image never change.
    ImageEncryptionFixed = 409, "I02";
    /// Encrypted images are not shared with other accounts.
    EncryptedImageNotShared = 409, "I05";
    /// Encrypted images are not copied across regions.
    EncryptedImageStays = 409, "I06";
    /// Encrypted images are not written to files.
    EncryptedImageNotExported = 409, "I07";
    /// No service of that region is known.
    UnknownRegion = 409;
    /// The object is in that region already.
    SameRegion = 409;
    /// A disk's data is copied to another disk.
    SameDisk = 409, "D04";
    /// The data does not fit.
    DestinationTooSmall = 409, "D04";
    /// The disk to be copied to may hold data.
    DiskNotEmpty = 409, "D04";
    /// An encrypted disk is exported as plain data only if that is asked for.
    DecryptionNotAsked = 409;
    /// The format of the file is not one that can be imported.
    FormatNotSupported = 409;
    /// Nothing is being copied to the disk.
    NoCopy = 409;
    /// The copy is not what its source is.
    CopyDiffers = 500;
    /// Several objects have the name.
    AmbiguousName = 409;
    /// The snapshot is being made, or its store does not have it.
    SnapshotNotAvailable = 409;
    /// The store does not have the snapshot.
    SnapshotMissing = 500;
    /// There are as many as there can be.
    TooMany = 409;
    /// The store's metadata is damaged.
    StoreDamaged = 500;
    /// The store was written by a later version.
    StoreVersion = 409;
    /// The store is another disk's.
    StoreForeign = 409;
    /// The store is older than it was, or was changed while nobody had it.
    StoreRolledBack = 409;
    /// Disk and instance are in different zones.
    ZoneMismatch = 409, "A01";
    /// An encrypted disk and an instance with local storage.
    LocalStorage = 409, "A03";
    /// The running virtual machine can write to a device of its host.
    LocalDevice = 409, "A03";
    /// A virtual machine that runs has not said what it can write to.
    MachineNotAsked = 409, "A03";
    /// No virtual machine of the instance runs that a disk could be plugged into, or its socket is not known.
    MachineNotRunning = 409, "A09";
    /// The virtual machine does not take the disk, or does not let it go.
    MachineRefuses = 409, "A09";
    /// The virtual machine does not answer, or another client has its socket.
    MachineSilent = 504, "A09";
    /// The guest does not let go of the disk.
    GuestDoesNotAnswer = 504, "A09";
    /// An encrypted disk and a bare-metal instance.
    BareMetal = 409, "A04";
    /// Disks are attached to the instance.
    InstanceInUse = 409;
    /// Someone serves on the socket's path.
    SocketInUse = 409;
    /// The store's lock is held by another process.
    StoreInUse = 409, "A08";
    /// The store is not what the catalogue says.
    StoreUnusable = 500;
    /// The key did not arrive at the backend.
    KeyUnusable = 500;
    /// The backend cannot serve on its socket.
    SocketUnusable = 500;
    /// A virtual machine is connected.
    FrontendConnected = 409;
    /// Serving processes lack a part of their sandbox, all of which is required.
    SandboxMissing = 500;
    /// The serving process failed or does not answer.
    BackendFailed = 500;
    /// The audit record cannot be written.
    AuditFailed = 500, "M04";
    /// A required sink has not taken the audit record.
    AuditSinkFailed = 503, "M04";
    /// The audit log is not what was written.
    AuditBroken = 409, "M04";
    /// The record has been archived.
    AuditArchived = 409, "M04";
    /// A file operation failed.
    FileFailed = 500;
    /// The catalogue failed.
    CatalogueFailed = 500;
    /// Catalogue or root key are not the files that the daemon has opened.
    StateReplaced = 500;
    /// The caller's user has as many connections as it can have.
    TooManyCalls = 429;
    /// The daemon is ending.
    ShuttingDown = 503;
    /// A bug.
    Internal = 500;

    /// The directory holds a catalogue already.
    StateExists = 409;
    /// The directory holds no catalogue.
    StateMissing = 404;
    /// Another KMS serves the state directory.
    StateInUse = 409;
    /// The state directory cannot be used.
    StateUnusable = 500;
    /// There is no root key file.
    RootKeyMissing = 500;
    /// Others than its owner can reach the root key file, or the owner is another.
    RootKeyPermissions = 403;
    /// The root key file does not hold a root key.
    RootKeyInvalid = 400;
    /// The root key is not the one of this catalogue.
    RootKeyMismatch = 409;
    /// No such policy profile.
    UnknownProfile = 400;
    /// The accounts file cannot be used.
    InvalidAccounts = 400;
    /// The file exists already.
    FileExists = 409;
    /// Not a backup, or a damaged one.
    BackupInvalid = 400;
    /// The passphrase is not the one of the backup.
    WrongPassphrase = 403;
    /// Too short, too long, or not entered twice alike.
    InvalidPassphrase = 400;
}
