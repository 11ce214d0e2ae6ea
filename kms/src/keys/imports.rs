//! Imports that are awaited (rule K10): for each token the pair that opens what is imported with it. They are in memory
//! alone: after a restart new parameters have to be asked for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::keys::envelope::TransportKey;
use crate::limits;
use crate::timekeeper::boottime;

/// The imports of key material that are awaited, by token.
#[derive(Default)]
pub(crate) struct Imports(Mutex<HashMap<String, Awaited>>);

struct Awaited {
    account: String,
    /// Id of the key.
    key: String,
    transport: TransportKey,
    /// When the import was asked for, in time since the boot: the wall clock may jump.
    since: Duration,
}

impl Imports {
    /// Awaits an import for the key, instead of any that was awaited before, and gives its token: 256 random bits in
    /// hexadecimal.
    ///
    /// # Errors
    /// As [`Imports::check_room`]; [`Code::Internal`] if the operating system has no randomness to give.
    pub(crate) fn expect(&self, account: &str, key: &str, transport: TransportKey) -> Result<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| {
            Error::because(Code::Internal, "the operating system gives no randomness", error)
        })?;
        let token = hex::encode(random);
        self.check_room(account, key)?;
        let mut awaited = self.living(boottime());
        awaited.retain(|_, other| other.key != key);
        let import = Awaited {
            account: account.to_owned(),
            key: key.to_owned(),
            transport,
            since: boottime(),
        };
        awaited.insert(token.clone(), import);
        Ok(token)
    }

    /// Whether the account can await another import, for this key.
    ///
    /// # Errors
    /// [`Code::TooMany`].
    pub(crate) fn check_room(&self, account: &str, key: &str) -> Result<()> {
        let awaited = self.living(boottime());
        let others = awaited
            .values()
            .filter(|other| other.account == account && other.key != key);
        if others.count() < limits::IMPORTS {
            return Ok(());
        }
        let text = format!(
            "account {account} awaits {} imports already: try again when some of them have arrived or expired",
            limits::IMPORTS
        );
        Err(Error::new(Code::TooMany, text))
    }

    /// Takes the pair of a token, which is for one attempt: the id of its key comes with it.
    ///
    /// # Errors
    /// [`Code::ImportTokenInvalid`].
    pub(crate) fn take(&self, account: &str, token: &str) -> Result<(String, TransportKey)> {
        self.take_at(account, token, boottime())
    }

    fn take_at(&self, account: &str, token: &str, now: Duration) -> Result<(String, TransportKey)> {
        let mut awaited = self.living(now);
        let is_ours = awaited.get(token).is_some_and(|found| found.account == account);
        match awaited.remove(token).filter(|_| is_ours) {
            Some(found) => Ok((found.key, found.transport)),
            None => Err(Error::new(
                Code::ImportTokenInvalid,
                "the import token is unknown, used or expired: ask for new ones with `sealctl key import-params`, and \
                 wrap the material for them",
            )),
        }
    }

    fn living(&self, now: Duration) -> MutexGuard<'_, HashMap<String, Awaited>> {
        let mut awaited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.retain(|_, import| now.saturating_sub(import.since) < limits::IMPORT_TIME);
        awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::envelope::transport_pair;

    #[test]
    fn rule_k10_an_account_awaits_so_many_imports_and_no_more() {
        let imports = Imports::default();
        let expect = |account: &str, key: &str| {
            let expected = imports.expect(account, key, transport_pair());
            expected.map_err(|error| error.code())
        };
        for number in 0..limits::IMPORTS {
            expect("a", &format!("key-{number}")).unwrap();
        }
        assert_eq!(expect("a", "key-more"), Err(Code::TooMany));
        expect("b", "key-b").unwrap();
        // Instead of the one that the key awaited.
        let token = expect("a", "key-0").unwrap();
        assert!(imports.take("a", &token).is_ok());
        expect("a", "key-more").unwrap();
    }

    #[test]
    fn rule_k10_a_token_is_for_one_attempt_in_time_and_of_its_account() {
        let imports = Imports::default();
        let expect = || {
            let transport = TransportKey::generate().unwrap();
            imports.expect("a", "key-1", transport).unwrap()
        };
        let refused = |account: &str, token: &str, now| {
            let taken = imports.take_at(account, token, now);
            assert_eq!(
                taken.err().map(|error| error.code()),
                Some(Code::ImportTokenInvalid)
            );
        };
        let now = boottime();
        let token = expect();
        assert_eq!(imports.take_at("a", &token, now).unwrap().0, "key-1");
        refused("a", &token, now);
        let token = expect();
        refused("b", &token, now);
        let (old, new) = (expect(), expect());
        refused("a", &old, now);
        refused(
            "a",
            &new,
            boottime() + limits::IMPORT_TIME + Duration::from_secs(1),
        );
    }
}
