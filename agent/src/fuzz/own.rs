//! What this product writes itself, and what therefore a stranger can send in its name.

use std::path::Path;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest};
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::frame::{CloudFrame, DeviceFrame};
use aizen_protocol::id::Digest;
use aizen_protocol::package::manifest::Manifest;
use aizen_protocol::package::{Package, Rehearsal};
use aizen_protocol::record::Record;
use aizen_protocol::trust::TrustDocument;
use aizen_protocol::{limit, strict};
use aizen_sanitizer::{Policy, Sanitizer, SanitizerKey};

use super::{in_file, survives};
use crate::config::Config;

/// Envelopes of DSSE.
pub fn envelope(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::parse(bytes) {
        survives(&envelope);
    }
}

/// Packages: the payload of an envelope.
pub fn package(bytes: &[u8]) {
    if let Ok(package) = Package::parse(bytes) {
        survives(&package);
    }
    drop(Rehearsal::parse(bytes));
}

/// Trust documents: the payload of an envelope, as if its roots had signed it.
pub fn trust(bytes: &[u8]) {
    let Ok(document) = strict::from_slice::<TrustDocument>(bytes, limit::ENVELOPE) else {
        return;
    };
    survives(&document);
    let pins: Vec<Digest> = document
        .roots
        .iter()
        .map(|root| Digest::of(&root.to_bytes()))
        .collect();
    let envelope = Envelope::sign(PayloadType::Trust, bytes, &[]);
    // Whatever it says of its threshold.
    let trusted = TrustDocument::first(&envelope, &pins).is_ok();
    assert!(!trusted, "a document that nobody signed");
    assert!(document.successor(&envelope).is_err());
}

/// Manifests.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = strict::from_slice::<Manifest>(bytes, limit::ENVELOPE) {
        survives(&manifest);
    }
}

/// Frames of the stream and of the local socket, both ways.
pub fn frame(bytes: &[u8]) {
    if let Ok(frame) = strict::from_slice::<CloudFrame>(bytes, limit::FRAME) {
        survives(&frame);
    }
    if let Ok(frame) = strict::from_slice::<DeviceFrame>(bytes, limit::FRAME) {
        survives(&frame);
    }
    drop(strict::from_slice::<ExecutorRequest>(bytes, limit::FRAME));
    drop(strict::from_slice::<ExecutorAnswer>(bytes, limit::FRAME));
}

/// Records.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = strict::from_slice::<Record>(bytes, limit::FRAME) {
        survives(&record);
    }
}

/// Recordings.
pub fn recording(bytes: &[u8]) {
    in_file(bytes, |path| {
        if let Ok(records) = crate::cli::diagnose::recording::read(path) {
            records.iter().for_each(survives);
        }
    });
}

/// The configuration file.
pub fn configuration(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Config::parse(Path::new("aizen.toml"), text));
    }
}

/// Free text on its way out.
pub fn sanitizer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut sanitizer = Sanitizer::new(SanitizerKey::from_bytes([7; 32]), Policy::default());
    let out = sanitizer.sanitize_text(&text).into_inner().0;
    assert!(
        aizen_sanitizer::leak::secrets(&out).is_none(),
        "a secret left: {out}"
    );
    drop(sanitizer.reveal_text(&out));
}
