//! `sealctl key`.

use clap::Subcommand;
use sealblk_kms::api::types::{self, KeyList};

use super::object;
use crate::client::{Client, route};
use crate::failure::Failure;
use crate::output::{Answer, Block, fixed, flexible};

/// Keys that wrap the disks' data keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List keys.
    #[command(after_help = "Example:\n  sealctl key list")]
    List,
    /// Show one key. Key material is never shown (rule K07).
    #[command(after_help = "Example:\n  sealctl -o json key show key-0123456789abcdef")]
    Show {
        /// Id or name of the key.
        #[arg(value_parser = object)]
        key: String,
    },
}

impl Key {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        match self {
            Key::List => {
                let list: KeyList = client.list(&route(&["keys"])).await?;
                Answer::new(&list, vec![table(&list)])
            }
            Key::Show { key } => {
                let key: types::Key = client.get(&route(&["keys", &key])).await?;
                Answer::new(&key, vec![fields(&key)])
            }
        }
    }
}

fn table(list: &KeyList) -> Block {
    let columns = [
        fixed("ID"),
        flexible("NAME"),
        fixed("ORIGIN"),
        fixed("STATE"),
        fixed("DISKS"),
    ];
    let row = |key: &types::Key| {
        vec![
            key.id.clone(),
            key.name.clone(),
            key.origin.clone(),
            key.state.clone(),
            key.disks.to_string(),
        ]
    };
    Block::table(&columns, list.keys.iter().map(row))
}

fn fields(key: &types::Key) -> Block {
    Block::Fields(vec![
        ("id", key.id.clone()),
        ("name", key.name.clone()),
        ("origin", key.origin.clone()),
        ("state", key.state.clone()),
        ("region", key.region.clone()),
        ("version", key.version.to_string()),
        ("algorithm", key.algorithm.clone()),
        ("disks", key.disks.to_string()),
        ("created", key.created.clone()),
    ])
}
