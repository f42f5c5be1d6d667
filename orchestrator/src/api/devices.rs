//! Devices.

use std::sync::Arc;

use aizen_protocol::id::DeviceId;
use axum::Json;
use axum::extract::{Path, State};
use rusqlite::Transaction;
use serde::{Deserialize, Serialize};

use super::ApiError;
use crate::app::App;
use crate::store::devices::Device;
use crate::store::{StoreError, devices, records};

/// A device and its presence.
#[derive(Deserialize, Serialize)]
pub(crate) struct Shown {
    /// It is connected.
    pub(crate) online: bool,
    /// Records held of it.
    pub(crate) records: i64,
    /// The device itself.
    #[serde(flatten)]
    pub(crate) device: Device,
}

fn shown(tx: &Transaction<'_>, app: &App, device: Device) -> Result<Shown, StoreError> {
    Ok(Shown {
        online: app.presence.is_online(&device.device),
        records: records::count(tx, &device.device)?,
        device,
    })
}

/// All devices, oldest first.
#[derive(Deserialize, Serialize)]
pub(crate) struct List {
    pub(crate) devices: Vec<Shown>,
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<List>, ApiError> {
    let work = app.clone();
    let devices = app
        .store
        .transact::<_, StoreError, _>(move |tx| {
            let all = devices::all(tx)?;
            all.into_iter().map(|d| shown(tx, &work, d)).collect()
        })
        .await?;
    Ok(Json(List { devices }))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Shown>, ApiError> {
    let work = app.clone();
    app.store
        .transact(move |tx| {
            let device = named(tx, &id)?;
            Ok(Json(shown(tx, &work, device)?))
        })
        .await
}

/// The device with this name.
pub(super) fn named(tx: &Transaction<'_>, id: &str) -> Result<Device, ApiError> {
    let found = match id.parse::<DeviceId>() {
        Ok(id) => devices::by_id(tx, &id)?,
        Err(_) => None,
    };
    found.ok_or_else(|| ApiError::Unknown {
        kind: "device",
        id: id.to_owned(),
    })
}
