use anyhow::{Result, bail};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use super::{Exit, print};
use crate::auth::{NewKey, Secret, is_key_id};

/// Random bytes of an id.
const ID_BYTES: usize = 6;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key: prints the key, which is shown only once, and the lines for the config
    New {
        /// Id of the key: letters, digits, - and _ [default: random]
        #[arg(long)]
        id: Option<String>,
        /// Role of its clients
        #[arg(long, default_value = "reader")]
        role: String,
        /// Hash with Argon2 instead of SHA-256; slower to check, for no gain with a random secret
        #[arg(long)]
        argon2: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let Command::New { id, role, argon2 } = &arguments.command;
    let id = match id {
        Some(id) if !is_key_id(id) => bail!("--id {id}: expected 1 to 64 letters, digits, - or _"),
        Some(id) => id.clone(),
        None => BASE64URL_NOPAD.encode(&rand::random::<[u8; ID_BYTES]>()),
    };
    let key = NewKey::make(&id, *argon2);
    let hash = match &key.secret {
        Secret::Sha256(hash) => format!("sha256: {}", HEXLOWER.encode(hash)),
        Secret::Argon2(hash) => format!("argon2: \"{}\"", hash.text()),
    };
    let text = format!(
        "# Key for the client; it cannot be shown again:\n{}\n\n# Entry for auth.keys, or for the list keys of auth.keys_file:\n- id: \"{id}\"\n  {hash}\n  role: {role}\n",
        key.token
    );
    print(text.as_bytes())
}
