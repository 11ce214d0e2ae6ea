//! Creating calls that come with a token (the header `Idempotency-Key`): a repeat creates nothing, and gets the first
//! answer.
//!
//! The token is stored by the transaction that decides, so it is there if and only if something may have been created; the
//! answer is added when the call ends. Where a crash came between, a repeat is answered by the object itself. After a
//! refusal, and where what was begun is undone, a repeat is decided anew.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Operation;
use crate::audit::Caller;
use crate::catalogue::Write;
use crate::catalogue::intents;
use crate::catalogue::tokens::{self, TokenRow};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::timekeeper::millis;
use crate::{clock, limits};

/// What a caller gives with a creating call.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    token: String,
    digest: [u8; 32],
}

impl Token {
    /// The token of a call with this name and body.
    ///
    /// # Errors
    /// [`Code::InvalidToken`].
    pub(crate) fn new(token: &str, call: &str, body: &Value) -> Result<Self> {
        let is_printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_printable || token.is_empty() || token.len() > limits::TOKEN_CHARACTERS {
            let text = format!(
                "Idempotency-Key has 1 to {} printable characters of ASCII, without spaces",
                limits::TOKEN_CHARACTERS
            );
            return Err(Error::new(Code::InvalidToken, text));
        }
        // Of a value, so that neither spaces nor the order of fields count.
        let asked = format!("{call} {body}");
        Ok(Token {
            token: token.to_owned(),
            digest: Sha256::digest(asked.as_bytes()).into(),
        })
    }
}

/// A call that creates something.
pub(crate) trait Creates: Operation {
    /// Id of what is created.
    fn created(decided: &Self::Decided) -> &str;

    /// What a repeat is answered whose first answer is not known: what was created, as it is now.
    fn present(
        kms: &Arc<Kms>,
        caller: &Caller,
        id: &str,
    ) -> impl Future<Output = Result<Self::Answer>> + Send;
}

/// Runs a creating call, unless it ran before: what it was answered.
///
/// # Errors
/// [`Code::TokenReused`], [`Code::TokenUnderWay`], and the call's.
pub(crate) async fn run<O>(kms: &Arc<Kms>, caller: Caller, operation: O, token: Token) -> Result<Value>
where
    O: Creates,
    O::Answer: Serialize + Sync,
{
    match recall::<O>(kms, &caller, &token).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => {
            let answer = super::run(kms, caller, Once { operation, token }).await?;
            serde_json::to_value(answer).map_err(unreadable)
        }
        Err(error) => {
            kms.record_refusal(&caller, O::CALL, operation.object(), &error)
                .await?;
            Err(error)
        }
    }
}

/// A creating call whose answer is kept.
struct Once<O> {
    operation: O,
    token: Token,
}

impl<O: Creates> Operation for Once<O>
where
    O::Answer: Serialize + Sync,
{
    const CALL: &'static str = O::CALL;
    const FREES: bool = O::FREES;
    type Decided = O::Decided;
    type Answer = O::Answer;

    fn object(&self) -> &str {
        self.operation.object()
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        self.operation.prepare(kms, caller).await
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<O::Decided> {
        // The token was not there when the call began.
        if tokens::find(tx, &caller.account, &self.token.token, oldest(kms))
            .await?
            .is_some()
        {
            return Err(under_way());
        }
        let decided = self.operation.decide(kms, caller, tx).await?;
        let row = TokenRow {
            account: caller.account.clone(),
            token: self.token.token.clone(),
            digest: self.token.digest.to_vec(),
            call: O::CALL.to_owned(),
            object: O::created(&decided).to_owned(),
            request: caller.request.clone(),
            answer: None,
            created: clock::now(),
            seen: kms.clock.now().seen,
        };
        tokens::insert(tx, &row, oldest(kms), limits::TOKENS).await?;
        Ok(decided)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, decided: O::Decided) -> Result<O::Answer> {
        let answer = self.operation.act(kms, caller, decided).await?;
        if let Err(error) = keep(kms, caller, &answer).await {
            // A repeat is answered by what there is.
            log::warn!("{}: its answer is not kept: {}", O::CALL, error.full_message());
        }
        Ok(answer)
    }
}

async fn keep(kms: &Kms, caller: &Caller, answer: &impl Serialize) -> Result<()> {
    let answer = serde_json::to_string(answer).map_err(unreadable)?;
    let mut tx = kms.catalogue.write().await?;
    tokens::set_answer(&mut tx, &caller.request, &answer).await?;
    Ok(tx.commit().await?)
}

async fn forget(kms: &Kms, request: &str) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    tokens::delete(&mut tx, request).await?;
    Ok(tx.commit().await?)
}

/// What the call with this token was answered, if there was one.
async fn recall<O>(kms: &Arc<Kms>, caller: &Caller, token: &Token) -> Result<Option<Value>>
where
    O: Creates,
    O::Answer: Serialize,
{
    let (row, busy) = {
        let mut db = kms.catalogue.read().await?;
        let Some(row) = tokens::find(&mut db, &caller.account, &token.token, oldest(kms)).await? else {
            return Ok(None);
        };
        let busy = intents::of_request(&mut db, &row.request).await?;
        (row, busy)
    };
    if row.digest != token.digest {
        let text = format!(
            "Idempotency-Key {:?} came with another call before: repeat that one as it was, or take a new key",
            row.token
        );
        return Err(Error::new(Code::TokenReused, text));
    }
    if let Some(answer) = &row.answer {
        return serde_json::from_str(answer).map(Some).map_err(unreadable);
    }
    if busy {
        return Err(under_way());
    }
    match O::present(kms, caller, &row.object).await {
        Ok(answer) => serde_json::to_value(answer).map(Some).map_err(unreadable),
        // The call that had the token was undone.
        Err(error) if error.code() == Code::NotFound => {
            forget(kms, &row.request).await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn under_way() -> Error {
    let text = "the first call with this Idempotency-Key is under way: repeat it when that has ended";
    Error::new(Code::TokenUnderWay, text)
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::because(Code::Internal, "an answer cannot be kept as JSON", error)
}

/// When the oldest token was given that counts, by the seen time.
fn oldest(kms: &Kms) -> i64 {
    kms.clock.now().seen - millis(limits::TOKEN_AGE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::calls::tests::{World, caller};
    use crate::jobs::key_work;
    use crate::timekeeper::DAY;
    use crate::timekeeper::fake::Fake;
    use sealblk_api::CreateKey;

    /// A token that was forgotten too early creates twice; one that is kept for years answers with what is long gone.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_is_kept_for_a_day_that_passes_whatever_the_clock_says() {
        let (mut world, clocks) = (World::new().await, Fake::new());
        world.keep_time_by(&clocks).await;
        let create = async |name: &str| {
            let body = json!({"name": "mine"});
            let create = serde_json::from_value::<CreateKey>(body.clone()).unwrap();
            let token = Token::new(name, CreateKey::CALL, &body).unwrap();
            run(&world.kms, caller(), create, token)
                .await
                .map(|key| key["id"].clone())
        };
        let first = create("token").await.unwrap();
        for by in [30 * DAY, -60 * DAY, 30 * DAY] {
            clocks.jump(by);
            key_work::once(&world.kms).await.unwrap();
            assert_eq!(create("token").await.unwrap(), first, "{by}");
        }
        clocks.jump(-60 * DAY);
        for _ in 0..24 {
            clocks.pass(Duration::from_secs(3600));
            key_work::once(&world.kms).await.unwrap();
        }
        assert_eq!(create("token").await.unwrap(), first, "a day to the millisecond");
        clocks.pass(Duration::from_millis(1));
        assert_eq!(create("token").await.unwrap_err().code(), Code::NameTaken);
    }
}
