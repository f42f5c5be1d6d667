//! Enrollment: a one-time token and the proofs of both keys in, a device certificate and the trust document out.

use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::frame::{EnrollAnswer, EnrollRequest, EnrollToken, Enrolled};
use aizen_protocol::id::{DeviceId, Digest};
use aizen_protocol::key::PublicKey;
use aizen_protocol::strict;
use axum::extract::ws::{Message, WebSocket};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rusqlite::Transaction;
use serde_json::json;
use tokio::time::timeout;

use crate::app::App;
use crate::audit::{self, Event, Kind};
use crate::clock;
use crate::sign::Signer;
use crate::store::{StoreError, devices};
use crate::tls::{Authority, AuthorityError};

/// An enrollment request is a few hundred bytes.
pub(crate) const REQUEST: usize = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a device was not enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    /// Nobody made this token.
    #[error("this token is unknown here: was it made by another orchestrator?")]
    UnknownToken,
    /// It enrolled a device already.
    #[error("this token was used already: a token enrols one device, make another one")]
    UsedToken,
    /// Its time is over.
    #[error("this token expired at {at}: make another one")]
    ExpiredToken {
        /// Its end.
        at: Timestamp,
    },
    /// A key did not sign the request.
    #[error("the {key} key did not sign this request")]
    BadProof {
        /// `uplink` or `result`.
        key: &'static str,
    },
    /// One key for two duties.
    #[error("uplink key and result key are the same: each duty has its own")]
    SameKey,
    /// The key belongs to somebody.
    #[error("one of the keys is enrolled already: draw fresh keys")]
    KnownKey,
    /// No certificate could be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a one-time token, as a person carries it.
///
/// # Errors
/// If the store or the system's randomness fails.
pub(crate) fn create_token(
    tx: &Transaction<'_>,
    app: &App,
    life: Duration,
    now: Timestamp,
) -> Result<(String, Timestamp), TokenError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let token = EnrollToken {
        secret: Digest(secret),
        ca: app.authority.digest(),
        roots: app.signer.root_digests(),
    };
    let expires = now.checked_add(life).unwrap_or(Timestamp::MAX);
    devices::insert_token(tx, &token.secret, now, expires)?;
    let event = Event {
        kind: Kind::TokenCreated,
        device: None,
        case: None,
        detail: json!({ "expires_at": expires }),
    };
    audit::append(tx, event, now)?;
    let text = serde_json::to_vec(&token)?;
    Ok((URL_SAFE_NO_PAD.encode(text), expires))
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The system gave no randomness.
    #[error("the system gave no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// It can't be written as JSON.
    #[error("the token can't be written: {0}")]
    Form(#[from] serde_json::Error),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Enrols a device; the token is spent in the same transaction.
pub(crate) fn enroll(
    tx: &Transaction<'_>,
    authority: &Authority,
    signer: &Signer,
    request: &EnrollRequest,
    now: Timestamp,
) -> Result<Enrolled, EnrollError> {
    let token = devices::token(tx, &request.secret)?.ok_or(EnrollError::UnknownToken)?;
    if token.used {
        return Err(EnrollError::UsedToken);
    }
    if now >= token.expires {
        return Err(EnrollError::ExpiredToken { at: token.expires });
    }
    check_proofs(request)?;
    if devices::knows_key(tx, &request.uplink_key, &request.result_key)? {
        return Err(EnrollError::KnownKey);
    }
    devices::spend_token(tx, &request.secret, now)?;
    let device = DeviceId::fresh();
    let certificate = authority.issue_device(&device, &request.uplink_key)?;
    devices::insert(tx, &device, request, now)?;
    let detail = json!({
        "uplink_key": request.uplink_key.id().as_str(),
        "result_key": request.result_key.id().as_str(),
        "epoch": request.epoch.as_str(),
    });
    let event = Event {
        kind: Kind::DeviceEnrolled,
        device: Some(&device),
        case: None,
        detail,
    };
    audit::append(tx, event, now)?;
    Ok(Enrolled {
        device,
        certificate,
        ca: authority.certificate_pem().to_owned(),
        trust: signer.trust_envelope().clone(),
    })
}

fn check_proofs(request: &EnrollRequest) -> Result<(), EnrollError> {
    let (uplink, result) = (&request.uplink_key, &request.result_key);
    if uplink == result {
        return Err(EnrollError::SameKey);
    }
    let message = EnrollRequest::message(&request.secret, uplink, result, &request.epoch);
    let proves = |key: &PublicKey, proof: &str| {
        STANDARD
            .decode(proof)
            .is_ok_and(|signature| key.verifies(&message, &signature))
    };
    if !proves(uplink, &request.uplink_proof) {
        return Err(EnrollError::BadProof { key: "uplink" });
    }
    if !proves(result, &request.result_proof) {
        return Err(EnrollError::BadProof { key: "result" });
    }
    Ok(())
}

/// One request, one answer, on a WebSocket of its own.
pub(crate) async fn converse(app: Arc<App>, mut socket: WebSocket) {
    let answer = match timeout(PATIENCE, socket.recv()).await {
        Ok(Some(Ok(Message::Text(text)))) => {
            match strict::from_slice::<EnrollRequest>(text.as_bytes(), REQUEST) {
                Ok(request) => decide(&app, request).await,
                Err(error) => refused(format!("{error}")),
            }
        }
        Ok(Some(Ok(Message::Binary(_)))) => {
            refused("an enrollment request is a text message".into())
        }
        Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {
            refused("the first message must be the enrollment request".into())
        }
        Ok(Some(Err(error))) => refused(format!("{error}")),
        Ok(Some(Ok(Message::Close(_))) | None) | Err(_) => return,
    };
    let Ok(text) = serde_json::to_string(&answer) else {
        return;
    };
    let farewell = async {
        socket.send(Message::Text(text.into())).await?;
        socket.send(Message::Close(None)).await
    };
    // A device that left before its answer enrols again with another token.
    timeout(PATIENCE, farewell).await.ok();
}

async fn decide(app: &Arc<App>, request: EnrollRequest) -> EnrollAnswer {
    let now = clock::now();
    let work = app.clone();
    let secret = request.secret;
    let enrolled = app
        .store
        .transact(move |tx| enroll(tx, &work.authority, &work.signer, &request, now))
        .await;
    match enrolled {
        Ok(enrolled) => {
            tracing::info!(device = %enrolled.device, "enrolled");
            EnrollAnswer::Enrolled(enrolled)
        }
        Err(error) => {
            tracing::warn!(%error, "enrollment refused");
            note_refusal(app, secret, &error, now).await;
            match error {
                EnrollError::Store(_) | EnrollError::Authority(_) => {
                    refused("the orchestrator failed to enrol this device: try again".into())
                }
                other => refused(other.to_string()),
            }
        }
    }
}

/// Keeps a refusal in the audit, unless the token is unknown: strangers must not be able to fill the disk.
async fn note_refusal(app: &Arc<App>, secret: Digest, error: &EnrollError, now: Timestamp) {
    let reason = error.to_string();
    let noted = app
        .store
        .transact(move |tx| {
            if devices::token(tx, &secret)?.is_none() {
                return Ok(());
            }
            let event = Event {
                kind: Kind::EnrollmentRefused,
                device: None,
                case: None,
                detail: json!({ "reason": reason }),
            };
            audit::append(tx, event, now)
        })
        .await;
    if let Err(error) = noted {
        tracing::error!(%error, "a refused enrollment could not be recorded");
    }
}

fn refused(message: String) -> EnrollAnswer {
    EnrollAnswer::Refused { message }
}
