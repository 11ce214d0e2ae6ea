//! `--watch`: an answer that is asked for again and again.

use std::time::Duration;

use clap::Args;
use sealblk_api::client::Client;

use crate::failure::Failure;
use crate::output::Answer;
use crate::values::Format;

/// How long it waits before it asks again.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether to ask again.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// Show it anew each second, until interrupted.
    #[arg(long)]
    watch: bool,
}

impl Watch {
    /// The answer; with `--watch` it is printed until nobody reads it any more.
    pub(super) async fn answer(
        self,
        client: &mut Client,
        format: Format,
        ask: impl AsyncFn(&mut Client) -> Result<Answer, Failure>,
    ) -> Result<Answer, Failure> {
        if !self.watch {
            return ask(client).await;
        }
        while ask(client).await?.print_again(format)? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Answer::said())
    }
}
