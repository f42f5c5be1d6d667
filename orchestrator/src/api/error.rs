//! The one error of the API: a status, a stable code, a sentence.

use aizen_protocol::id::DeviceId;
use aizen_protocol::reason::Reason;
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::approve::ApproveError;
use crate::enroll::TokenError;
use crate::store::StoreError;

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No bearer token.
    #[error("a bearer token is needed: it stands in admin.token of the data directory")]
    NoToken,
    /// Another token.
    #[error("the bearer token is not valid")]
    WrongToken,
    /// No such path.
    #[error("there is nothing at this path")]
    NoSuchPath,
    /// No such thing.
    #[error("there is no {kind} {id}")]
    Unknown {
        /// What was asked for.
        kind: &'static str,
        /// Its name.
        id: String,
    },
    /// The body is not what the path takes.
    #[error("{0}")]
    Body(#[from] JsonRejection),
    /// The query is not what the path takes.
    #[error("{0}")]
    Query(#[from] QueryRejection),
    /// A field of the body.
    #[error("{field}: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The device would refuse it.
    #[error("{device} takes no changes: {reason}")]
    TakesNoChanges {
        /// The device.
        device: DeviceId,
        /// Why.
        reason: Reason,
    },
    /// An answer that does not count.
    #[error(transparent)]
    Approve(#[from] ApproveError),
    /// No token was made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, "no_token"),
            Self::WrongToken => (StatusCode::UNAUTHORIZED, "wrong_token"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path"),
            Self::Unknown { .. } | Self::Approve(ApproveError::Unknown(_)) => {
                (StatusCode::NOT_FOUND, "unknown")
            }
            Self::Body(rejection) => (rejection.status(), "bad_body"),
            Self::Query(rejection) => (rejection.status(), "bad_query"),
            Self::Field { .. } | Self::Approve(ApproveError::Reason) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "bad_field")
            }
            Self::TakesNoChanges { reason, .. } => (StatusCode::CONFLICT, reason.code()),
            Self::Approve(error) => match error {
                ApproveError::Decided { .. } => (StatusCode::CONFLICT, "decided"),
                ApproveError::SignedAlready { .. } => (StatusCode::CONFLICT, "signed_already"),
                ApproveError::Expired { .. } => (StatusCode::GONE, Reason::Expired.code()),
                ApproveError::BadSignature => (StatusCode::FORBIDDEN, Reason::BadSignature.code()),
                ApproveError::NotAuthorised => {
                    (StatusCode::FORBIDDEN, Reason::KeyNotAuthorised.code())
                }
                ApproveError::Unknown(_)
                | ApproveError::Reason
                | ApproveError::Payload(_)
                | ApproveError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
            },
            Self::Token(_) | Self::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let message = if status.is_server_error() {
            tracing::error!(error = %self, "a request failed");
            "the orchestrator failed; its log says why".to_owned()
        } else {
            self.to_string()
        };
        let body = Json(json!({ "error": { "code": code, "message": message } }));
        (status, body).into_response()
    }
}
