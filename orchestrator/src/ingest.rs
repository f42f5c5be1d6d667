//! Accept, authenticate, de-duplicate, store, then acknowledge.

use std::sync::Arc;

use aizen_protocol::frame::SUBPROTOCOL;
use aizen_protocol::limit;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::enroll;
use crate::store::devices;
use crate::tls::listener::Peer;

mod intake;
pub(crate) mod presence;
mod session;

/// tungstenite's defaults cost 256 KiB a connection.
const BUFFER: usize = 4 << 10;

/// `GET /v1/uplink`.
pub(crate) async fn uplink(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Some(key) = peer.key.clone() else {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "the uplink takes devices with a client certificate: enrol first\n",
        );
    };
    let found = app
        .store
        .transact(move |tx| devices::by_uplink_key(tx, &key))
        .await;
    let device = match found {
        Ok(Some(device)) => device,
        Ok(None) => {
            return refuse(
                StatusCode::FORBIDDEN,
                "this client certificate belongs to no enrolled device: enrol again\n",
            );
        }
        Err(error) => {
            tracing::error!(%error, "a device could not be looked up");
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "try again later\n");
        }
    };
    let upgrade = match speaking(upgrade, limit::FRAME) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal,
    };
    upgrade.on_upgrade(move |socket| session::run(app, device, peer.address, socket))
}

/// `GET /v1/enroll`.
pub(crate) async fn enrollment(State(app): State<Arc<App>>, upgrade: WebSocketUpgrade) -> Response {
    match speaking(upgrade, enroll::REQUEST) {
        Ok(upgrade) => upgrade.on_upgrade(move |socket| enroll::converse(app, socket)),
        Err(refusal) => refusal,
    }
}

#[expect(
    clippy::result_large_err,
    reason = "the error is axum's response, made once a connection"
)]
fn speaking(upgrade: WebSocketUpgrade, largest: usize) -> Result<WebSocketUpgrade, Response> {
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(2 * limit::FRAME)
        .max_message_size(largest)
        .max_frame_size(largest);
    if upgrade.selected_protocol().is_none() {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "this port speaks the WebSocket subprotocol aizen.v1\n",
        ));
    }
    Ok(upgrade)
}

fn refuse(status: StatusCode, message: &'static str) -> Response {
    (status, message).into_response()
}
