//! `trust new` and `trust sign`: which key may sign what, signed by a threshold of root keys.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::DeviceId;
use aizen_protocol::key::PublicKey;
use aizen_protocol::limit;
use aizen_protocol::package::manifest::Class;
use aizen_protocol::trust::{Role, TrustDocument, TrustedKey};
use anyhow::Context as _;
use atomic_write_file::AtomicWriteFile;
use clap::{Args, Subcommand};
use serde_json::json;

use super::answer::read_key;
use super::failure::Failure;
use super::key::read_public;
use super::propose::read;
use super::{print, print_json, screen};
use crate::clock;

#[derive(Subcommand)]
pub(super) enum TrustCommand {
    /// Write an unsigned trust document.
    New(New),
    /// Add a root's signature to a document.
    Sign {
        /// The root's private key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The document, signed in place.
        document: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct New {
    /// A root's public key; repeat for more.
    #[arg(long = "root", value_name = "PUB", required = true, value_parser = read_public)]
    roots: Vec<PublicKey>,
    /// How many roots must sign.
    #[arg(long, default_value_t = 1)]
    threshold: u8,
    /// A person who may approve; repeat for more.
    #[arg(long = "approver", value_name = "NAME=PUB", required = true, value_parser = approver)]
    approvers: Vec<(String, PublicKey)>,
    /// The orchestrator's public key; repeat for more.
    #[arg(long = "orchestrator", value_name = "PUB", required = true, value_parser = read_public)]
    orchestrators: Vec<PublicKey>,
    /// A device whose packages are refused; repeat for more.
    #[arg(long = "revoke", value_name = "DEVICE")]
    revoked: Vec<DeviceId>,
    /// Counts up by one from document to document.
    #[arg(long, default_value_t = 1)]
    version: u64,
    /// How long the document and its keys are valid.
    #[arg(long, default_value = "365d", value_parser = screen::duration)]
    valid: Duration,
    /// The document; replaced if it exists.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

fn approver(text: &str) -> Result<(String, PublicKey), String> {
    let (name, key) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not NAME=PUB"))?;
    if !(1..=100).contains(&name.len()) {
        return Err("a name has 1 to 100 bytes".into());
    }
    Ok((name.to_owned(), read_public(key)?))
}

impl TrustCommand {
    pub(super) fn run(self, json: bool) -> anyhow::Result<()> {
        match self {
            Self::New(new) => new.run(json),
            Self::Sign { key, document } => sign(&key, &document, json),
        }
    }
}

impl New {
    fn run(self, json: bool) -> anyhow::Result<()> {
        let roots = self.roots.len();
        if self.threshold == 0 || usize::from(self.threshold) > roots || roots > limit::SIGNATURES {
            let message = format!(
                "--threshold {} of {roots} roots: it must be at least 1 and at most the number of roots, which is at most {}",
                self.threshold,
                limit::SIGNATURES
            );
            return Err(Failure::Usage(message).into());
        }
        let now = clock::now();
        let until = now.checked_add(self.valid)?;
        let trusted = |role, name, key, classes| TrustedKey {
            key,
            role,
            name,
            classes,
            until,
        };
        let people = self.approvers.into_iter().map(|(name, key)| {
            trusted(
                Role::Approver,
                name,
                key,
                vec![Class::Diagnose, Class::Repair, Class::Direct],
            )
        });
        let orchestrators = self.orchestrators.into_iter().map(|key| {
            trusted(
                Role::Orchestrator,
                "orchestrator".into(),
                key,
                vec![Class::Diagnose],
            )
        });
        let document = TrustDocument {
            version: self.version,
            issued_at: now,
            expires: until,
            threshold: self.threshold,
            roots: self.roots,
            keys: people.chain(orchestrators).collect(),
            revoked: self.revoked,
        };
        let envelope = Envelope::unsigned(PayloadType::Trust, &serde_json::to_vec(&document)?);
        write(&self.out, &envelope)?;
        if json {
            return print_json(&json!({ "document": self.out, "version": document.version }));
        }
        print(&format!(
            "{}: version {}, valid until {}; next: 'trust sign' by {} of {roots} roots\n",
            self.out.display(),
            document.version,
            screen::time(until),
            document.threshold
        ))
    }
}

fn sign(key: &Path, path: &Path, json: bool) -> anyhow::Result<()> {
    let key = read_key(key)?;
    let mut envelope = Envelope::parse(&read(path)?)
        .map_err(|reason| Failure::Usage(format!("{}: {reason}", path.display())))?;
    let refused = |message: String| Failure::Refused {
        code: "not_signed".into(),
        message,
    };
    if envelope.payload_type() != PayloadType::Trust.as_str() {
        let message = format!("{} is not a trust document", path.display());
        return Err(refused(message).into());
    }
    let payload = envelope.unverified_payload()?;
    let document: TrustDocument = aizen_protocol::strict::from_slice(&payload, limit::ENVELOPE)
        .with_context(|| path.display().to_string())?;
    // A successor is also signed by the roots of the document before it, which this one need not name.
    if document.version == 1 && !document.roots.contains(&key.public()) {
        let message = format!("{} is no root of {}", key.public().id(), path.display());
        return Err(refused(message).into());
    }
    let public = key.public();
    if envelope
        .open(PayloadType::Trust, std::iter::once(&public))
        .is_ok()
    {
        return Err(refused(format!("{} signed already", public.id())).into());
    }
    envelope.attach(&public.id(), &key.sign(&envelope.message()?));
    write(path, &envelope)?;
    let all = document.roots.iter().chain(std::iter::once(&public));
    let signed = envelope
        .open(PayloadType::Trust, all)
        .map_or(0, |opened| opened.signers().len());
    if json {
        return print_json(&json!({
            "document": path,
            "signatures": signed,
            "threshold": document.threshold,
        }));
    }
    print(&format!(
        "{}: {signed} of {} signatures\n",
        path.display(),
        document.threshold
    ))
}

/// Writes an envelope file whole or not at all.
pub(super) fn write(path: &Path, envelope: &Envelope) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(envelope)?;
    text.push(b'\n');
    AtomicWriteFile::open(path)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.commit()))
        .with_context(|| format!("can't write {}", path.display()))
}
