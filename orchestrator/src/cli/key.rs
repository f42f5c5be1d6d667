//! `key new`: a person's key pair, on the person's machine.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aizen_protocol::key::{PrivateKey, PublicKey};
use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::{print, print_json};

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Draw a key pair; the public half is written beside it as FILE.pub.
    New {
        /// The private key; must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

impl KeyCommand {
    pub(super) fn run(self, json: bool) -> anyhow::Result<()> {
        let Self::New { out } = self;
        let key = PrivateKey::generate()?;
        let public = public_path(&out);
        create(&out, 0o600, key.to_pem()?.as_bytes())?;
        create(&public, 0o644, format!("{}\n", key.public()).as_bytes())?;
        if json {
            return print_json(&json!({
                "key": out,
                "public": public,
                "id": key.public().id().as_str(),
                "public_key": key.public(),
            }));
        }
        print(&format!(
            "{}: {} (private, keep it)\n{}: the public half\n",
            key.public().id(),
            out.display(),
            public.display()
        ))
    }
}

fn public_path(private: &Path) -> PathBuf {
    let mut path = private.as_os_str().to_owned();
    path.push(".pub");
    path.into()
}

fn create(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .with_context(|| format!("can't write {}", path.display()))
}

/// A public key: the file that `key new` wrote, or its text itself.
pub(super) fn read_public(text: &str) -> Result<PublicKey, String> {
    let content = match std::fs::read_to_string(text) {
        Ok(content) => content,
        Err(_) => text.to_owned(),
    };
    PublicKey::from_base64(&content).map_err(|e| format!("'{text}' is no public key file: {e}"))
}
