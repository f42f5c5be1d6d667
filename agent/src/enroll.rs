//! `aizen enroll`: from a one-time token to keys, a certificate and a trust document, or to nothing at all.
//!
//! The token says which CA and which roots to believe, so nothing is believed because it answered. Nothing is written
//! before everything was checked; `device.json` is written last and stands for the whole.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::frame::{ENROLL_PATH, EnrollAnswer, EnrollRequest, EnrollToken, Enrolled};
use aizen_protocol::id::{Digest, Epoch};
use aizen_protocol::key::{KeyError, PrivateKey};
use aizen_protocol::reason::Reason;
use aizen_protocol::trust::TrustDocument;
use aizen_protocol::{limit, strict};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use zeroize::Zeroizing;

use crate::identity::{
    Access, Account, DeviceFile, IdentityError, Layout, certificates, pem_certificates,
    private_dir, write_file,
};
use crate::stream::dial::{Connection, DialError, Dialer, Patience, Server};
use crate::stream::meter::Meter;
use crate::stream::tls::{self, TlsError};
use authority::Authority;

mod authority;

/// What an enrollment needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The orchestrator.
    pub server: Server,
    /// The token as the person got it.
    pub token: String,
    /// A file with the CA, if the orchestrator doesn't send it.
    pub ca: Option<PathBuf>,
    /// Where everything is written.
    pub layout: Layout,
    /// The daemon's user, who gets the daemon's files.
    pub user: String,
    /// Replace an enrollment that is there.
    pub force: bool,
    /// The agent's version.
    pub agent: String,
    /// Bounds of the connection.
    pub patience: Patience,
}

/// Why a device is not enrolled. Nothing was written, except after [`EnrollError::Write`].
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The token is none.
    #[error(
        "this is no enrollment token ({0}): copy it whole, as 'aizen-orchestrator token create' printed it"
    )]
    Token(String),
    /// There is an enrollment already.
    #[error("this device is enrolled already ({0} is there): --force replaces the enrollment")]
    Already(PathBuf),
    /// The folder can't be written.
    #[error("{path} can't be written ({source}): run this as root, on a disk with space")]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file of `--ca` can't be read.
    #[error(transparent)]
    CaFile(IdentityError),
    /// The file of `--ca` holds another CA.
    #[error("{path} does not hold the CA that the token names ({wanted})")]
    CaFileMismatch {
        /// The file.
        path: PathBuf,
        /// SHA-256 in the token.
        wanted: Digest,
    },
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection.
    #[error(transparent)]
    Unreachable(#[from] DialError),
    /// The server has another CA.
    #[error(
        "{server} is not the orchestrator that the token is for: its certificate does not lead to the CA {wanted}. Check the address; if the server doesn't send its CA, give it with --ca"
    )]
    WrongCa {
        /// The server.
        server: Server,
        /// SHA-256 in the token.
        wanted: Digest,
    },
    /// The server's certificate is out of time by this device's clock.
    #[error(
        "{server} shows a certificate that expired by this device's clock, which says {now}. If that is wrong, set the clock and try again"
    )]
    Clock {
        /// The server.
        server: Server,
        /// The device's clock.
        now: jiff::Timestamp,
    },
    /// The orchestrator refused.
    #[error("the orchestrator refused: {0}")]
    Refused(String),
    /// The connection broke off.
    #[error("no answer from {0}: {1}. If the token was used up meanwhile, ask for another")]
    NoAnswer(Server, String),
    /// The answer is not one.
    #[error("the orchestrator's answer can't be believed: {0}. Nothing was written")]
    Answer(AnswerError),
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Written in part; the device is not enrolled.
    #[error("{path} can't be written: {source}. The token is used up: ask for another")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not in the protocol's form.
    #[error(transparent)]
    Form(#[from] strict::StrictError),
    /// A certificate that is none.
    #[error("a certificate in it is damaged: {0}")]
    Pem(String),
    /// Another CA than the token's.
    #[error("its CA is not the one that the token names")]
    Ca,
    /// A certificate that is not for our key, or not from that CA.
    #[error("the certificate it gave is not for this device's key or not from its CA: {0}")]
    Certificate(rustls::Error),
    /// A trust document that the token's roots did not sign.
    #[error("its trust document was not signed by the roots that the token names ({0})")]
    Trust(Reason),
}

/// Keys and answer, checked: all that is written.
struct Checked {
    file: DeviceFile,
    uplink: PrivateKey,
    result: PrivateKey,
    answer: Enrolled,
}

/// Enrols this device.
///
/// # Errors
/// An [`EnrollError`] in words for the person who typed the command.
pub async fn enroll(settings: &Settings) -> Result<DeviceFile, EnrollError> {
    let token = read_token(&settings.token)?;
    writable(settings)?;
    let given = settings
        .ca
        .as_deref()
        .map(|path| given_ca(path, &token.ca))
        .transpose()?;
    let authority = Authority::new(token.ca, given);
    let mut dialer = Dialer::new(
        settings.server.clone(),
        ENROLL_PATH,
        tls::enroll_config(authority.clone())?,
        settings.patience,
        Meter::default(),
    );
    let connection = match dialer.dial().await {
        Ok((connection, _)) => connection,
        Err(error) => return Err(explain(settings, &authority, &token, error)),
    };
    let (uplink, result) = (PrivateKey::generate()?, PrivateKey::generate()?);
    let request = request(&token, &uplink, &result, &settings.agent);
    let epoch = request.epoch.clone();
    let answer = exchange(settings, connection, &request).await?;
    let answer = check(answer, &token, &uplink).map_err(EnrollError::Answer)?;
    let file = DeviceFile {
        device: answer.device.clone(),
        epoch,
        server: settings.server.to_string(),
        result_key: result.public(),
    };
    let checked = Checked {
        file,
        uplink,
        result,
        answer,
    };
    write(&settings.layout, &settings.user, &checked)?;
    Ok(checked.file)
}

fn read_token(text: &str) -> Result<EnrollToken, EnrollError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text.trim().trim_end_matches('='))
        .map_err(|e| EnrollError::Token(e.to_string()))?;
    strict::from_slice(&bytes, TOKEN_BYTES).map_err(|e| EnrollError::Token(e.to_string()))
}

/// Finds out before the token is used whether its fruit can be kept.
fn writable(settings: &Settings) -> Result<(), EnrollError> {
    let layout = &settings.layout;
    let there = [layout.device_file(), layout.result_key()]
        .into_iter()
        .find(|path| path.exists());
    if let Some(path) = there.filter(|_| !settings.force) {
        return Err(EnrollError::Already(path));
    }
    let existing = layout
        .root()
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
    // Only writing tells: root may write where it can't, and a disk may be full.
    let trial = existing.join(format!(".aizen-enroll.{}", std::process::id()));
    write_file(&trial, &vec![0; TRIAL_BYTES], Access::private())
        .and_then(|()| std::fs::remove_file(&trial))
        .map_err(|source| EnrollError::NotWritable {
            path: existing.to_owned(),
            source,
        })
}

fn given_ca(path: &Path, wanted: &Digest) -> Result<CertificateDer<'static>, EnrollError> {
    certificates(path)
        .map_err(EnrollError::CaFile)?
        .into_iter()
        .find(|ca| Digest::of(ca) == *wanted)
        .ok_or_else(|| EnrollError::CaFileMismatch {
            path: path.to_owned(),
            wanted: *wanted,
        })
}

fn explain(
    settings: &Settings,
    authority: &Authority,
    token: &EnrollToken,
    error: DialError,
) -> EnrollError {
    let server = settings.server.clone();
    if authority.was_missing() {
        return EnrollError::WrongCa {
            server,
            wanted: token.ca,
        };
    }
    if authority.saw_expired() {
        return EnrollError::Clock {
            server,
            now: crate::clock::now(),
        };
    }
    error.into()
}

fn request(
    token: &EnrollToken,
    uplink: &PrivateKey,
    result: &PrivateKey,
    agent: &str,
) -> EnrollRequest {
    let epoch = Epoch::fresh();
    let message = EnrollRequest::message(&token.secret, &uplink.public(), &result.public(), &epoch);
    EnrollRequest {
        secret: token.secret,
        uplink_key: uplink.public(),
        result_key: result.public(),
        epoch,
        agent: agent.to_owned(),
        uplink_proof: STANDARD.encode(uplink.sign(&message)),
        result_proof: STANDARD.encode(result.sign(&message)),
    }
}

async fn exchange(
    settings: &Settings,
    mut connection: Connection,
    request: &EnrollRequest,
) -> Result<Enrolled, EnrollError> {
    let no_answer = |why: String| EnrollError::NoAnswer(settings.server.clone(), why);
    let text = serde_json::to_string(request).map_err(|e| no_answer(e.to_string()))?;
    let talk = async {
        connection
            .send(Message::text(text))
            .await
            .map_err(|e| e.to_string())?;
        loop {
            match connection.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err(format!("{} {}", close.code, close.reason.escape_default()));
                }
                Some(Ok(Message::Binary(_) | Message::Frame(_) | Message::Close(None))) | None => {
                    return Err("it closed the connection".to_owned());
                }
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    };
    let text = timeout(ANSWER_WITHIN, talk)
        .await
        .unwrap_or_else(|_| Err(format!("nothing within {ANSWER_WITHIN:?}")))
        .map_err(no_answer)?;
    // The answer is complete; a goodbye that fails changes nothing.
    connection.close(None).await.ok();
    match strict::from_slice(text.as_bytes(), limit::FRAME) {
        Ok(EnrollAnswer::Enrolled(enrolled)) => Ok(enrolled),
        Ok(EnrollAnswer::Refused { message }) => Err(EnrollError::Refused(
            message
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect(),
        )),
        Err(error) => Err(EnrollError::Answer(error.into())),
    }
}

fn check(
    answer: Enrolled,
    token: &EnrollToken,
    uplink: &PrivateKey,
) -> Result<Enrolled, AnswerError> {
    let pem =
        |text: &str| pem_certificates(text.as_bytes()).map_err(|e| AnswerError::Pem(e.to_string()));
    let ca = pem(&answer.ca)?.swap_remove(0);
    if Digest::of(&ca) != token.ca {
        return Err(AnswerError::Ca);
    }
    authority::issued(&ca, &pem(&answer.certificate)?, uplink)?;
    TrustDocument::first(&answer.trust, &token.roots).map_err(AnswerError::Trust)?;
    Ok(answer)
}

fn write(layout: &Layout, user: &str, checked: &Checked) -> Result<(), EnrollError> {
    let account = Account::named(user);
    let account = account.as_ref();
    let (daemon, executor) = (Access::of(account), Access::private());
    let json = |value: &DeviceFile| serde_json::to_vec_pretty(value).map_err(io::Error::from);
    let device = at(layout.device_file(), json(&checked.file))?;
    let trust = serde_json::to_vec(&checked.answer.trust).map_err(io::Error::from);
    let trust = at(layout.executor().join("trust.json"), trust)?;
    at(layout.daemon(), private_dir(&layout.daemon(), account))?;
    at(layout.executor(), private_dir(&layout.executor(), None))?;
    at(
        layout.root().to_owned(),
        std::fs::set_permissions(
            layout.root(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        ),
    )?;
    if !layout.sanitizer_key().exists() {
        let mut key = Zeroizing::new([0_u8; 32]);
        let random = getrandom::fill(key.as_mut()).map_err(io::Error::from);
        at(layout.sanitizer_key(), random)?;
        put(
            &layout.sanitizer_key(),
            key.as_ref(),
            Access::shared(account),
        )?;
    }
    let result_key = checked.result.to_pem()?;
    let executor_files: [(&str, &[u8]); 4] = [
        ("result.key", result_key.as_bytes()),
        ("epoch", checked.file.epoch.as_str().as_bytes()),
        ("enrolled.json", &device),
        // Last: to the executor it stands for the whole.
        ("trust.json", &trust),
    ];
    for (name, bytes) in executor_files {
        put(&layout.executor().join(name), bytes, executor)?;
    }
    put(
        &layout.uplink_key(),
        checked.uplink.to_pem()?.as_bytes(),
        daemon,
    )?;
    put(
        &layout.certificate(),
        checked.answer.certificate.as_bytes(),
        daemon,
    )?;
    put(&layout.ca(), checked.answer.ca.as_bytes(), daemon)?;
    put(&layout.daemon().join("enrolled.json"), &device, daemon)?;
    put(&layout.device_file(), &device, Access::public())
}

fn put(path: &Path, bytes: &[u8], access: Access) -> Result<(), EnrollError> {
    at(path.to_owned(), write_file(path, bytes, access))
}

fn at<T>(path: PathBuf, result: io::Result<T>) -> Result<T, EnrollError> {
    result.map_err(|source| EnrollError::Write { path, source })
}

/// More than all files of an enrollment together have.
const TRIAL_BYTES: usize = 64 << 10;
const TOKEN_BYTES: usize = 8 << 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests;
