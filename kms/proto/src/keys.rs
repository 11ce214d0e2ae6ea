//! Key material as types: no `Debug`, no `Clone`, no `Serialize`; filled in place, wiped on drop.

use std::io;

use crate::locked::Locked;

/// Length in bytes of every symmetric key here: AES-256 and HKDF-SHA-256 alike.
pub const KEY_BYTES: usize = 32;

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Locked<[u8; KEY_BYTES]>);

        impl $name {
            /// Lets `fill` write the key in place, in locked memory.
            ///
            /// # Errors
            /// The kernel's, if memory cannot be locked.
            pub fn new_with(fill: impl FnOnce(&mut [u8; KEY_BYTES])) -> io::Result<Self> {
                let mut bytes = Locked::zeroed()?;
                fill(&mut bytes);
                Ok($name(bytes))
            }

            /// A key that `fill` writes in its place in locked memory, where filling may fail.
            ///
            /// # Errors
            /// Those of `fill`, and the kernel's if memory cannot be locked.
            pub fn try_new_with<E: From<io::Error>>(
                fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>,
            ) -> Result<Self, E> {
                let mut bytes = Locked::zeroed()?;
                fill(&mut bytes)?;
                Ok($name(bytes))
            }

            /// 256 bits from the operating system's generator (SP 800-90A behind `getrandom(2)`).
            ///
            /// # Errors
            /// The kernel's, if it has no randomness to give or memory cannot be locked.
            pub fn generate() -> io::Result<Self> {
                Self::try_new_with(|bytes| getrandom::fill(bytes).map_err(io::Error::other))
            }

            /// The bytes, for a cipher or a key derivation. They must not be copied elsewhere.
            pub fn expose(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }
        }
    };
}

secret_key! {
    /// Data key (DK): 256 bits, wrapped by a version of a customer master key. It never leaves the KMS.
    DataKey
}
secret_key! {
    /// Key of one lineage (a disk, its snapshots and their clones): HKDF of the data key and the lineage's salt.
    /// This is all that a serving process is given.
    LineageKey
}
secret_key! {
    /// A version of a customer master key (CMK), wrapped by the root key. It never leaves the KMS.
    MasterKey
}
secret_key! {
    /// Root key (KEK) of a state directory. It never leaves the KMS.
    RootKey
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_differ() {
        let one = DataKey::generate().unwrap();
        let other = DataKey::generate().unwrap();
        assert_ne!(one.expose(), other.expose());
        assert_ne!(one.expose(), &[0; KEY_BYTES]);
    }
}
