//! `approve` and `deny`: a person answers. The private key is read here and never leaves this process.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use aizen_protocol::id::{ApprovalId, Digest};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::package::Package;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::devices::Known;
use super::failure::Failure;
use super::{print, print_json, show};
use crate::api::approvals::Shown;

#[derive(Args)]
pub(super) struct Approve {
    /// The question.
    id: ApprovalId,
    /// Your private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The keys of the devices that you know; beside your key if none is named. A new device is added.
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,
    /// Sign without asking.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
pub(super) struct Deny {
    /// The question.
    id: ApprovalId,
    /// Why not.
    #[arg(long)]
    reason: String,
}

impl Approve {
    pub(super) async fn run(self, client: &Client, json: bool) -> anyhow::Result<()> {
        let key = read_key(&self.key)?;
        let shown: Shown = client.get(&format!("/approvals/{}", self.id)).await?;
        let known = Known::beside(&self.key, self.devices);
        let first = known.believe(&shown)?;
        let message = examine(&shown)?;
        if !json {
            if let Some(key) = &first {
                let id = key.id();
                print(&format!(
                    "The first effect of {}: it is signed with {id}, which is the device's key for you from now on.\n",
                    shown.approval.device
                ))?;
            }
            print(&show::question(&shown)?)?;
        }
        if !self.yes {
            ask(&key)?;
        }
        if let Some(key) = first {
            known.add(&shown.approval.device, key)?;
        }
        let signature = STANDARD.encode(key.sign(&message));
        let path = format!("/approvals/{}/signatures", self.id);
        let body = json!({ "signature": signature });
        let counted: Value = client.post(&path, &body).await?;
        if json {
            return print_json(&counted);
        }
        print(&match counted["missing"].as_u64() {
            Some(0) => format!("approved: {} goes to {}\n", self.id, shown.approval.device),
            _ => format!("signed; {} more needed\n", counted["missing"]),
        })
    }
}

/// Checks that what is shown is what will be signed, and gives the bytes to sign. The server is not believed: a
/// package whose effect is not the one on the screen is not signed.
fn examine(shown: &Shown) -> Result<Vec<u8>, Failure> {
    let refused = |code: &str, message: &str| Failure::Refused {
        code: code.into(),
        message: message.into(),
    };
    let approval = &shown.approval;
    let by = |reason: aizen_protocol::reason::Reason| refused(reason.code(), reason.sentence());
    let payload = approval.envelope.unverified_payload().map_err(by)?;
    let package = Package::parse(&payload).map_err(by)?;
    let script = package.script.bytes().map_err(by)?;
    let for_this_device =
        matches!(package.target.as_slice(), [target] if target.device == approval.device);
    let shown_is_signed = approval.envelope.payload_type()
        == aizen_protocol::envelope::PayloadType::Package.as_str()
        && Digest::of(&payload) == approval.digest
        && shown.package.as_ref() == Some(&package)
        && shown.script.as_deref() == Some(String::from_utf8_lossy(&script).as_ref());
    if !shown_is_signed {
        return Err(refused(
            "not_what_is_shown",
            "the server shows another package than it wants signed",
        ));
    }
    if package.effect != Some(approval.effect.digest()) {
        return Err(refused(
            "not_what_is_shown",
            "the package was not composed for the effect that the server shows",
        ));
    }
    if approval.risk != approval.effect.risk.max(package.manifest.risk()) {
        return Err(refused(
            "not_what_is_shown",
            "the server shows another risk than the effect and the manifest have",
        ));
    }
    if !for_this_device {
        return Err(refused(
            "not_what_is_shown",
            "the package is for another device than the server shows",
        ));
    }
    approval.envelope.message().map_err(by)
}

fn ask(key: &PrivateKey) -> anyhow::Result<()> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let message =
            "standard input is no terminal: nobody can be asked; --yes signs without asking";
        return Err(Failure::Usage(message.into()).into());
    }
    let mut out = io::stderr();
    write!(out, "Sign this with {}? Type yes: ", key.public().id())?;
    out.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::Refused {
        code: "not_approved".into(),
        message: "nothing was signed".into(),
    }
    .into())
}

impl Deny {
    pub(super) async fn run(self, client: &Client, json: bool) -> anyhow::Result<()> {
        let path = format!("/approvals/{}/deny", self.id);
        let body = json!({ "reason": self.reason });
        let denied: Value = client.post(&path, &body).await?;
        if json {
            return print_json(&denied);
        }
        print(&format!("denied: {}\n", self.id))
    }
}

/// Reads a private key file.
pub(super) fn read_key(path: &Path) -> anyhow::Result<PrivateKey> {
    let pem = std::fs::read_to_string(path)
        .with_context(|| format!("can't read the key {}", path.display()))?;
    PrivateKey::from_pem(&pem).with_context(|| path.display().to_string())
}
