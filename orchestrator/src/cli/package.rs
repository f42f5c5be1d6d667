//! `package build` and `package inspect`: the way to a package on a USB stick.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::{CorrelationId, DeviceId, Digest, Epoch, KeyId, PackageId};
use aizen_protocol::package::{Binding, DeliveryMode, Package, SCHEMA, Script, Target};
use aizen_protocol::trust::TrustDocument;
use aizen_protocol::{limit, strict};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::answer::read_key;
use super::failure::Failure;
use super::propose::{binding, read, read_manifest};
use super::trust::write;
use super::{print, print_json, screen};
use crate::{clock, compose};

#[derive(Subcommand)]
pub(super) enum PackageCommand {
    /// Compose a package and sign it with an approver's key.
    Build(Box<Build>),
    /// Show what a package says, and who signed it.
    Inspect {
        /// The package.
        file: PathBuf,
        /// The trust document whose keys are looked for; without it, no signature is believed.
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(super) struct Build {
    /// The script.
    #[arg(long, value_name = "FILE")]
    script: PathBuf,
    /// What it may do (JSON).
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The device it is for.
    #[arg(long)]
    device: DeviceId,
    /// The device's state generation, as `aizen status` and `devices --json` show it.
    #[arg(long)]
    epoch: Epoch,
    /// The approver's private key; repeat for more signatures.
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// The package.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// What it is to achieve, one sentence.
    #[arg(long, default_value = "composed by hand")]
    intent: String,
    /// Confirmed by a technician at the device instead of by the orchestrator.
    #[arg(long)]
    on_site: bool,
    /// A pseudonym that the script names: address=10.83.7.1; repeat for more.
    #[arg(long = "binding", value_name = "KIND=PSEUDONYM", value_parser = binding)]
    bindings: Vec<Binding>,
    /// Absolute path of the interpreter.
    #[arg(long, default_value = "/bin/sh")]
    interpreter: String,
    /// Version of the device's trust document.
    #[arg(long, default_value_t = 1)]
    trust_version: u64,
    /// Digest of a rehearsed effect that the approver saw.
    #[arg(long)]
    effect: Option<Digest>,
    /// How long it is valid.
    #[arg(long, default_value = "1d", value_parser = screen::duration)]
    valid: Duration,
}

impl PackageCommand {
    pub(super) fn run(self, json: bool) -> anyhow::Result<()> {
        match self {
            Self::Build(build) => build.run(json),
            Self::Inspect { file, trust } => inspect(&file, trust.as_deref(), json),
        }
    }
}

impl Build {
    fn run(self, json: bool) -> anyhow::Result<()> {
        let keys = self
            .keys
            .iter()
            .map(|path| read_key(path))
            .collect::<Result<Vec<_>, _>>()?;
        let now = clock::now();
        let package = Package {
            schema: SCHEMA,
            id: PackageId::fresh(),
            issuer: "aizen-orchestrator package build".into(),
            trust_version: self.trust_version,
            issued_at: now,
            not_before: compose::not_before(now),
            expires: now.checked_add(self.valid)?,
            target: vec![Target {
                device: self.device,
                epoch: self.epoch,
            }],
            interpreter: self.interpreter,
            script: Script::of(&read(&self.script)?),
            bindings: self.bindings,
            manifest: read_manifest(&self.manifest)?,
            delivery: if self.on_site {
                DeliveryMode::OnSite
            } else {
                DeliveryMode::Uplink
            },
            intent: self.intent,
            evidence: Vec::new(),
            effect: self.effect,
            correlation_id: CorrelationId::fresh(),
        };
        let wrong = |reason| Failure::Usage(format!("no valid package: {reason}"));
        package.script.bytes().map_err(wrong)?;
        package.check_form().map_err(wrong)?;
        let payload = package.to_payload()?;
        let signers: Vec<_> = keys.iter().collect();
        let envelope = Envelope::sign(PayloadType::Package, &payload, &signers);
        write(&self.out, &envelope)?;
        let digest = Digest::of(&payload);
        if json {
            return print_json(&json!({
                "file": self.out,
                "package": package.id.as_str(),
                "digest": digest,
                "expires": package.expires,
            }));
        }
        print(&format!(
            "{}: {} sha256 {digest}, valid until {}\n",
            self.out.display(),
            package.id,
            screen::time(package.expires)
        ))
    }
}

fn inspect(file: &Path, trust: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let refused = |reason: aizen_protocol::reason::Reason| Failure::Refused {
        code: reason.code().into(),
        message: format!("{}: {}", file.display(), reason.sentence()),
    };
    let envelope = Envelope::parse(&read(file)?).map_err(refused)?;
    let payload = envelope.unverified_payload().map_err(refused)?;
    let package = Package::parse(&payload).map_err(refused)?;
    let script = package.script.bytes().map_err(refused)?;
    let signers = trust.map(|path| signers(&envelope, path)).transpose()?;
    let script = String::from_utf8_lossy(&script);
    if json {
        return print_json(&json!({
            "payload_type": envelope.payload_type(),
            "digest": Digest::of(&payload),
            "package": package,
            "risk": package.manifest.risk(),
            "script": script,
            "signers": signers,
        }));
    }
    let signed = match &signers {
        None => "not checked (give --trust FILE)".into(),
        Some(names) if names.is_empty() => "by nobody that the trust document names".into(),
        Some(names) => format!("by {}", names.join(", ")),
    };
    let mut body = serde_json::to_value(&package)?;
    // The script follows as text.
    body["script"] = json!({ "length": package.script.length, "sha256": package.script.sha256 });
    print(&screen::visible(&format!(
        "{}\nsha256 {}\nsigned {signed}\nrisk   {}\n{}\nScript:\n{script}",
        envelope.payload_type(),
        Digest::of(&payload),
        format!("{:?}", package.manifest.risk()).to_lowercase(),
        serde_json::to_string_pretty(&body)?
    )))
}

/// Names of the people and orchestrators whose signatures hold.
fn signers(envelope: &Envelope, trust: &Path) -> anyhow::Result<Vec<String>> {
    let document = Envelope::parse(&read(trust)?)
        .and_then(|e| e.unverified_payload())
        .with_context(|| trust.display().to_string())?;
    let document: TrustDocument = strict::from_slice(&document, limit::ENVELOPE)?;
    let kind = if envelope.payload_type() == PayloadType::Rehearsal.as_str() {
        PayloadType::Rehearsal
    } else {
        PayloadType::Package
    };
    let Ok(opened) = envelope.open(kind, document.signers()) else {
        return Ok(Vec::new());
    };
    let name = |id: &KeyId| {
        let key = document.keys.iter().find(|k| k.key.id() == *id)?;
        Some(format!("{} ({id})", key.name))
    };
    Ok(opened.signers().iter().filter_map(name).collect())
}
