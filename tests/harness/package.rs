//! Packages as an operator or an attacker would make them: every field can be set, any key can sign.

use std::fs;
use std::path::{Path, PathBuf};

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::{CorrelationId, PackageId};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::package::manifest::Manifest;
use aizen_protocol::package::{DeliveryMode, Package, SCHEMA, Script, Target};
use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::device::Device;
use crate::world::World;

/// A manifest for a script that rewrites `/etc/hosts`, confirmed on the spot.
///
/// # Errors
/// Never, unless the manifest's form changes.
pub fn hosts_manifest(within_s: u32) -> Result<Manifest> {
    manifest(&json!({
        "class": "repair", "min_isolation": 2, "timeout_s": 20,
        "operations": [{"file": {"write": "/etc/hosts"}}],
        "read": ["/etc/hosts"],
        "confirm": {"within_s": within_s, "stable_s": 1, "probes": []},
    }))
}

/// Reads a manifest.
///
/// # Errors
/// If it is none.
pub fn manifest(value: &Value) -> Result<Manifest> {
    serde_json::from_value(value.clone()).context("not a manifest")
}

/// A package for this world's device, valid for an hour, for use on the spot.
///
/// # Errors
/// If the device has no identity.
pub fn package(world: &World, script: &str, manifest: Manifest) -> Result<Package> {
    for_device(&world.device, &world.id, script, manifest)
}

/// The same for any enrolled device.
///
/// # Errors
/// If the device has no identity.
pub fn for_device(device: &Device, id: &str, script: &str, manifest: Manifest) -> Result<Package> {
    let identity: Value = serde_json::from_slice(&fs::read(device.state().join("device.json"))?)?;
    let now = Timestamp::now();
    Ok(Package {
        schema: SCHEMA,
        id: PackageId::fresh(),
        issuer: "lab".to_owned(),
        trust_version: 1,
        issued_at: now,
        not_before: now - SignedDuration::from_secs(1),
        expires: now + SignedDuration::from_hours(1),
        target: vec![Target {
            device: id.parse()?,
            epoch: identity["epoch"].as_str().context("no epoch")?.parse()?,
        }],
        interpreter: "/bin/sh".to_owned(),
        script: Script::of(script.as_bytes()),
        bindings: Vec::new(),
        manifest,
        delivery: DeliveryMode::OnSite,
        intent: "a package of the lab".to_owned(),
        evidence: Vec::new(),
        effect: None,
        correlation_id: CorrelationId::fresh(),
    })
}

/// Alice's key.
///
/// # Errors
/// If it can't be read.
pub fn alice(world: &World) -> Result<PrivateKey> {
    key(&world.cloud.approver_key())
}

/// A private key's file.
///
/// # Errors
/// If it can't be read.
pub fn key(file: &Path) -> Result<PrivateKey> {
    Ok(PrivateKey::from_pem(&fs::read_to_string(file)?)?)
}

/// Signs a package.
///
/// # Errors
/// If it can't be written as JSON.
pub fn sign(package: &Package, keys: &[&PrivateKey]) -> Result<Envelope> {
    Ok(Envelope::sign(
        PayloadType::Package,
        &package.to_payload()?,
        keys,
    ))
}

/// Puts an envelope where the technician finds it.
///
/// # Errors
/// If the file can't be written.
pub fn stick(world: &World, name: &str, envelope: &Envelope) -> Result<PathBuf> {
    let file = world.lab.folder().join(name);
    fs::write(&file, serde_json::to_vec(envelope)?)?;
    Ok(file)
}
