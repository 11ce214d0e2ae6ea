//! What disks and keys are, for good or until it is changed.

use super::named::named;

named! {
    /// How a volume's data lie in its file or device.
    pub(crate) enum Store {
        /// In clusters, with snapshots.
        Layered = "layered",
        /// From the first byte to the last.
        Raw = "raw",
    }
}

named! {
    /// Rule D02. The type of a disk says more, as the profile has it.
    pub(crate) enum DiskKind {
        Cloud = "cloud",
        Local = "local",
    }
}

named! {
    /// Of a disk; the profile says which can be encrypted (rule D02).
    pub(crate) enum DiskType {
        Basic = "basic",
        Efficiency = "efficiency",
        Ssd = "ssd",
        Essd = "essd",
    }
}

named! {
    /// Rule I01.
    pub(crate) enum Role {
        Data = "data",
        /// A disk that comes and goes with its instance.
        System = "system",
    }
}

named! {
    /// What becomes of writes that the host has no room for.
    pub(crate) enum OnFull {
        /// Writes without room fail.
        Error = "error",
        /// Writes are held until there is room.
        Stop = "stop",
    }
}

named! {
    /// Whose a master key is.
    pub(crate) enum KeyOrigin {
        /// The service's, one for each account and region (rule K03).
        Service = "service",
        /// The account's, made here.
        Customer = "customer",
        /// The account's, whose material it imports (rule K10).
        Imported = "imported",
    }
}
