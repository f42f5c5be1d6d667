//! `propose`: a person's own script for one device.

use std::path::{Path, PathBuf};

use aizen_protocol::id::DeviceId;
use aizen_protocol::limit;
use aizen_protocol::package::manifest::Manifest;
use aizen_protocol::package::{Binding, BindingKind};
use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::{print, print_json};

#[derive(Args)]
pub(super) struct Propose {
    /// The device.
    #[arg(long)]
    device: DeviceId,
    /// The script, for /bin/sh.
    #[arg(long, value_name = "FILE")]
    script: PathBuf,
    /// What it may do (JSON).
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// What it is to achieve, one sentence.
    #[arg(long)]
    intent: String,
    /// A pseudonym that the script names: address=10.83.7.1; kinds: address, prefix, mac, name. Repeat for more.
    #[arg(long = "binding", value_name = "KIND=PSEUDONYM", value_parser = binding)]
    bindings: Vec<Binding>,
}

impl Propose {
    pub(super) async fn run(self, client: &Client, json: bool) -> anyhow::Result<()> {
        let script = String::from_utf8(read(&self.script)?)
            .with_context(|| format!("{} is not text", self.script.display()))?;
        let body = json!({
            "device": self.device.as_str(),
            "intent": self.intent,
            "script": script,
            "manifest": read_manifest(&self.manifest)?,
            "bindings": self.bindings,
        });
        let created: Value = client.post("/proposals", &body).await?;
        if json {
            return print_json(&created);
        }
        print(&format!(
            "proposed: case {}\nThe device rehearses it; then 'approvals' shows the effect.\n",
            created["case"].as_str().unwrap_or("")
        ))
    }
}

/// `KIND=PSEUDONYM`.
pub(super) fn binding(text: &str) -> Result<Binding, String> {
    let (kind, pseudonym) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not KIND=PSEUDONYM"))?;
    let kind = match kind {
        "address" => BindingKind::Address,
        "prefix" => BindingKind::Prefix,
        "mac" => BindingKind::Mac,
        "name" => BindingKind::Name,
        other => return Err(format!("'{other}' is not address, prefix, mac or name")),
    };
    Ok(Binding {
        kind,
        pseudonym: pseudonym.to_owned(),
    })
}

/// Reads a manifest strictly.
pub(super) fn read_manifest(path: &Path) -> anyhow::Result<Manifest> {
    let manifest: Manifest = aizen_protocol::strict::from_slice(&read(path)?, limit::ENVELOPE)
        .map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    if manifest.is_bounded() {
        Ok(manifest)
    } else {
        let message = format!("{}: a list or number is out of its bounds", path.display());
        Err(Failure::Usage(message).into())
    }
}

/// Reads a file that the protocol bounds.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("can't read {}", path.display()))
}
