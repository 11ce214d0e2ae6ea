pub(crate) mod change;
pub(crate) mod deletion;
pub(crate) mod envelope;
pub(crate) mod fee;
pub(crate) mod imports;
pub(crate) mod keyring;
pub(crate) mod passphrase;
pub(crate) mod root;
