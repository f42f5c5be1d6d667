//! The devices that an approver knows: each signs its effects with its own key. The server says which key that is the
//! first time; afterwards it is not believed when it says another.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use aizen_protocol::effect::{RehearsalResult, Rehearsed};
use aizen_protocol::envelope::PayloadType;
use aizen_protocol::id::DeviceId;
use aizen_protocol::key::PublicKey;
use aizen_protocol::{limit, strict};
use anyhow::Context as _;

use super::failure::Failure;
use crate::api::approvals::Shown;

/// A file of keys, by device.
pub(super) struct Known {
    file: PathBuf,
}

impl Known {
    /// The file that was named, or `KEY.devices`.
    pub(super) fn beside(key: &Path, named: Option<PathBuf>) -> Self {
        let file = named.unwrap_or_else(|| {
            let mut name = key.as_os_str().to_owned();
            name.push(".devices");
            name.into()
        });
        Self { file }
    }

    fn read(&self) -> anyhow::Result<BTreeMap<DeviceId, PublicKey>> {
        let place = || format!("the known devices in {}", self.file.display());
        match std::fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error).with_context(place),
        }
    }

    /// Writes another device's key.
    pub(super) fn add(&self, device: &DeviceId, key: PublicKey) -> anyhow::Result<()> {
        let mut known = self.read()?;
        known.insert(device.clone(), key);
        let text = serde_json::to_string_pretty(&known)?;
        // Whole or not at all.
        let mut new = self.file.as_os_str().to_owned();
        new.push(".new");
        let written =
            std::fs::write(&new, text + "\n").and_then(|()| std::fs::rename(&new, &self.file));
        written.with_context(|| format!("can't keep the device's key in {}", self.file.display()))
    }

    /// Checks that the device signed the effect that is shown, for the script that is shown. Gives its key if it is
    /// seen for the first time.
    pub(super) fn believe(&self, shown: &Shown) -> anyhow::Result<Option<PublicKey>> {
        let device = &shown.approval.device;
        let stated = shown.device_key.clone();
        let known = self.read()?.remove(device);
        if let (Some(known), Some(stated)) = (&known, &stated)
            && known != stated
        {
            return Err(forged(&format!(
                "the server says that {device} has the key {}; you know it by {} ({}). If it was enrolled anew, remove \
                 it from that file",
                stated.id(),
                known.id(),
                self.file.display()
            ))
            .into());
        }
        let first = known.is_none();
        let key = known
            .or(stated)
            .ok_or_else(|| forged(&format!("the server names no key of {device}")))?;
        signed(shown, &key).map_err(|what| forged(&what))?;
        Ok(first.then_some(key))
    }
}

fn forged(what: &str) -> Failure {
    Failure::Refused {
        code: "not_signed_by_device".into(),
        message: what.to_owned(),
    }
}

/// Checks that `key` signed exactly what is shown.
fn signed(shown: &Shown, key: &PublicKey) -> Result<(), String> {
    let approval = &shown.approval;
    let envelope = shown
        .rehearsed
        .as_ref()
        .ok_or("the server has no signature of the device over this effect")?;
    let opened = envelope
        .open(PayloadType::Effect, std::iter::once(key))
        .map_err(|reason| format!("the effect is not signed by the device: {reason}"))?;
    let rehearsed: Rehearsed = strict::from_slice(opened.payload(), limit::FRAME)
        .map_err(|error| format!("what the device signed is no effect: {error}"))?;
    let same =
        matches!(&rehearsed.result, RehearsalResult::Effect(effect) if *effect == approval.effect);
    let deed = shown
        .package
        .as_ref()
        .and_then(|package| package.deed().ok());
    if rehearsed.device != approval.device {
        Err("the effect was shown by another device".to_owned())
    } else if !same {
        Err("the server shows another effect than the device signed".to_owned())
    } else if deed.is_none() || rehearsed.deed != deed {
        Err("the device showed this effect for another script or manifest".to_owned())
    } else {
        Ok(())
    }
}
