//! `sealctl key rewrap`.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use sealblk_api::client::{Client, route};
use sealblk_api::{Key, KeyState, Rewrapping};

use crate::failure::Failure;
use crate::output::{Answer, Block};
use crate::values::object;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

const HELP: &str = "\
Begun by `key rotate` already, it goes on in the background and after a crash, and stands still while the key is not Enabled. \
This command waits until nothing is under an older version and those are retired.

Examples:
  sealctl key rewrap payroll
  sealctl key rewrap payroll --no-wait
  sealctl key rewrap payroll --status";

/// Arguments of `key rewrap`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Rewrap {
    /// Id, name or alias of the key.
    #[arg(value_parser = object)]
    key: String,
    /// Only show how far it is.
    #[arg(long, conflicts_with = "no_wait")]
    status: bool,
    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,
}

impl Rewrap {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let path = route(&["keys", &self.key, "rewrap"]);
        let mut state: Rewrapping = if self.status {
            client.get(&path).await?
        } else {
            client.post_empty(&path).await?
        };
        if !self.status && !self.no_wait {
            state = self.wait(client, state).await?;
        }
        Answer::new(&state, vec![text(&state)])
    }

    /// Until it has ended, or stands still.
    async fn wait(&self, client: &mut Client, mut state: Rewrapping) -> Result<Rewrapping, Failure> {
        // Nothing is drawn where standard error is no terminal.
        let bar = ProgressBar::new(state.total);
        while state.done < state.total || state.versions.len() > 1 {
            bar.set_length(state.total);
            bar.set_position(state.done);
            tokio::time::sleep(LOOK_INTERVAL).await;
            let key: Key = client.get(&route(&["keys", &self.key])).await?;
            state = client.get(&route(&["keys", &self.key, "rewrap"])).await?;
            if !key.is(KeyState::Enabled) {
                break;
            }
        }
        bar.finish_and_clear();
        Ok(state)
    }
}

fn text(state: &Rewrapping) -> Block {
    let versions: Vec<_> = state.versions.iter().map(u32::to_string).collect();
    Block::Fields(vec![
        ("key", format!("{} ({})", state.name, state.id)),
        ("version", state.version.to_string()),
        ("rewrapped", format!("{} of {}", state.done, state.total)),
        ("versions with material", versions.join(", ")),
    ])
}
