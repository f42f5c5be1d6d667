//! What an error means to the caller: its exit code.

use std::process::ExitCode;

use serde_json::{Value, json};

/// A failure whose exit code is not 1.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Somebody said no, and why.
    #[error("refused ({code}): {message}")]
    Refused {
        /// The code.
        code: String,
        /// For people.
        message: String,
    },
    /// It may work later.
    #[error("{0}")]
    Later(String),
    /// Everything else.
    #[error("failed")]
    Failed,
}

impl Failure {
    /// The failure in an error's chain.
    pub(super) fn of(error: &anyhow::Error) -> &Self {
        error
            .chain()
            .find_map(|cause| cause.downcast_ref())
            .unwrap_or(&Self::Failed)
    }

    /// The contract of `cli.md`.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed => 1,
            Self::Usage(_) => 2,
            Self::Refused { .. } => 4,
            Self::Later(_) => 75,
        })
    }

    /// The same for programs.
    pub(super) fn report(&self, error: &anyhow::Error) -> Value {
        let (code, message) = match self {
            Self::Usage(message) => ("usage", message.clone()),
            Self::Refused { code, message } => (code.as_str(), message.clone()),
            Self::Later(message) => ("try_again_later", message.clone()),
            Self::Failed => ("failed", format!("{error:#}")),
        };
        json!({ "error": { "code": code, "message": message } })
    }
}
