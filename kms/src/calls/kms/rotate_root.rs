//! `POST /v1/kms/rotate-root` (rule K12, for the key above all others).
//!
//! The next root key is durable before anything is under it; all master keys are put under it in one transaction; then it
//! takes the place of the present one. Whatever a crash interrupts, the next start finds the key that fits.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::root_key_kind::RootKeyKind;
use crate::catalogue::{Write, meta};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside::off_runtime;
use crate::keys::keyring::{Keyring, Root};
use crate::limits;
use crate::views::kms::kms_status;
use sealblk_api::KmsStatus;

/// Puts all master keys, of every account, under a new root key.
#[derive(Default)]
pub(crate) struct RotateRoot {
    next: Option<Root>,
    /// From the next key's making until it is in its place: another rotation in between would put its own key there, under
    /// which the catalogue is not yet.
    lock: Option<OwnedMutexGuard<()>>,
}

impl Operation for RotateRoot {
    const CALL: &'static str = "kms.rotate-root";
    type Decided = Root;
    type Answer = KmsStatus;

    fn object(&self) -> &str {
        "kms"
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        if caller.account != meta::OWNER {
            let text = format!(
                "the root key is above the keys of all accounts: ask a Security Administrator of account {}",
                meta::OWNER
            );
            return Err(Error::new(Code::NotAuthorized, text));
        }
        self.lock = Some(Arc::clone(&kms.rotating_root).lock_owned().await);
        let provider = Arc::clone(&kms.root_provider);
        let next = off_runtime(move || provider.stage()).await?;
        self.next = Some(Arc::new(next));
        Ok(())
    }

    async fn decide(&self, kms: &Kms, _: &Caller, tx: &mut Write) -> Result<Root> {
        let next = self.next.clone();
        let next = next.ok_or_else(|| Error::new(Code::Internal, "there is no next root key"))?;
        // Somebody else has to make a new one there; what this process makes is always new, or of a rotation that has not
        // ended.
        let meta = meta::load(tx).await?;
        if kms.root_provider.kind() == RootKeyKind::Credential && Keyring::check(&next, &meta).is_ok() {
            let text = "the master keys are under this next root key already: give the service another one, and restart it";
            return Err(Error::new(Code::NotSupported, text));
        }
        kms.keyring.rewrap_masters(tx, &next).await?;
        Ok(next)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, next: Root) -> Result<KmsStatus> {
        let provider = Arc::clone(&kms.root_provider);
        off_runtime(move || provider.promote()).await?;
        kms.catalogue.forget_destroyed().await;
        // A task that has read a row before may still open it.
        let keyring = kms.keyring.clone();
        tokio::spawn(async move {
            tokio::time::sleep(limits::OLD_ROOT_TIME).await;
            keyring.forget_before(&next);
        });
        kms_status(kms, caller).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::run;
    use crate::calls::tests::{World, caller};
    use crate::catalogue::schema;

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k12_only_the_owner_s_account_rotates_the_root_key() {
        let world = World::new().await;
        let root = || std::fs::read(world.kms.state.root_key()).unwrap();
        let before = root();
        let other = Caller {
            account: "acme".into(),
            ..caller()
        };
        let refused = run(&world.kms, other, RotateRoot::default()).await.err().unwrap();
        assert_eq!(refused.code(), Code::NotAuthorized);
        assert_eq!(root(), before);
        run(&world.kms, caller(), RotateRoot::default()).await.unwrap();
        assert_ne!(root(), before);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k12_no_copy_of_the_catalogue_is_left_under_the_root_key_from_before() {
        let world = World::new().await;
        let catalogue = world.kms.state.catalogue();
        let copy = catalogue.with_file_name("catalogue.db.before-0002");
        schema::copy(&catalogue, &copy).await.unwrap();
        run(&world.kms, caller(), RotateRoot::default()).await.unwrap();
        assert!(!copy.exists());
    }
}
