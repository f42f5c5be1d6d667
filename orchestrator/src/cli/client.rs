//! The API of a server, found by its data directory or by its address.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Certificate, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Reach;
use super::failure::Failure;
use crate::data::DataDir;

/// Asks a server.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: Words,
}

#[derive(Deserialize)]
struct Words {
    code: String,
    message: String,
}

impl Client {
    /// Finds the server.
    pub(super) fn new(reach: &Reach) -> anyhow::Result<Self> {
        let (url, token, ca) = match (&reach.server, &reach.data) {
            (Some(url), data) => {
                let data = data.as_deref().map(DataDir::at);
                let or = |given: &Option<_>, file: fn(&DataDir) -> _, what: &str| {
                    given
                        .clone()
                        .or_else(|| data.as_ref().map(file))
                        .ok_or_else(|| Failure::Usage(format!("--server needs {what} as well")))
                };
                let token = or(&reach.token_file, DataDir::admin_token, "--token-file")?;
                let ca = or(&reach.ca, DataDir::ca_certificate, "--ca")?;
                (url.clone(), token, ca)
            }
            (None, Some(data)) => {
                let data = DataDir::at(data);
                let path = data.server_url();
                let url = std::fs::read_to_string(&path).map_err(|e| {
                    Failure::Later(format!(
                        "{}: {e}: start the server with 'aizen-orchestrator serve' first",
                        path.display()
                    ))
                })?;
                (url, data.admin_token(), data.ca_certificate())
            }
            (None, None) => {
                let message = "name the server: --data DIR on its machine, or --server URL --token-file FILE --ca FILE";
                return Err(Failure::Usage(message.into()).into());
            }
        };
        let ca = Certificate::from_pem(&read(&ca)?)
            .with_context(|| format!("{} is not a certificate", ca.display()))?;
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .https_only(true)
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self {
            http,
            base: format!("{}/api/v1", url.trim().trim_end_matches('/')),
            token: String::from_utf8(read(&token)?)?.trim().to_owned(),
        })
    }

    /// `GET`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(self.http.get(format!("{}{path}", self.base)))
            .await
    }

    /// `POST`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.send(self.http.post(format!("{}{path}", self.base)).json(body))
            .await
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let answer = request.bearer_auth(&self.token).send().await.map_err(|e| {
            let cause = anyhow::Error::from(e);
            Failure::Later(format!("no answer from {}: {cause:#}", self.base))
        })?;
        let status = answer.status();
        let body = answer.bytes().await.context("the answer broke off")?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .context("the server's answer has an unknown form: is it of another version?");
        }
        let (code, message) = match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => (refusal.error.code, refusal.error.message),
            Err(_) => (status.as_str().to_owned(), status.to_string()),
        };
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                Failure::Usage(message).into()
            }
            StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::GONE => {
                Failure::Refused { code, message }.into()
            }
            StatusCode::SERVICE_UNAVAILABLE => Failure::Later(message).into(),
            _ => anyhow::anyhow!("{message} ({code})"),
        })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("can't read {}", path.display()))
}
