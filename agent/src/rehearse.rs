//! A script's effect before anybody is asked: the same broker and the same sandbox, in a shadow of this device.
//!
//! The shadow is a child process with a network namespace that replicates this one's and private copies of the files.
//! It ends with the rehearsal, and so does everything in it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use aizen_protocol::effect::Effect;
use aizen_protocol::package::manifest::{Limits, Operation, Risk};
use aizen_sandbox::Powers;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

mod exchange;
mod lockout;
mod look;
mod outside;
mod replica;
mod shadow;
pub(crate) mod way;

pub use lockout::Login;
pub(crate) use shadow::irreversible;
pub use shadow::shadow_main;

/// The hidden subcommand of the program.
pub const SHADOW_WORD: &str = "shadow";
/// Building the replica and taking it down again.
const AROUND: Duration = Duration::from_secs(30);
/// Longest answer of the shadow, bytes: an effect is far smaller.
const ANSWER: u64 = 4 << 20;
/// What is kept of what the shadow complained about, bytes.
const COMPLAINT: u64 = 4 << 10;

/// What to rehearse.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowRequest {
    /// Granted operations, as [`crate::broker::resolve_grants`] gives them.
    pub grants: Vec<Operation>,
    /// The verified bytes.
    pub script: Vec<u8>,
    /// What reads them.
    pub interpreter: PathBuf,
    /// The script's variables.
    pub environment: BTreeMap<String, String>,
    /// Paths that the script may read.
    pub reads: Vec<PathBuf>,
    /// Bounds of the run.
    pub limits: Limits,
    /// Seconds until the script is killed.
    pub timeout: Duration,
    /// Where this device's files are.
    pub root: PathBuf,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// The least isolation level.
    pub min_isolation: u8,
    /// The manifest's risk; the effect's may be higher.
    pub risk: Risk,
    /// Addresses of the orchestrator: the way to them is the management path. None known: every default route is it.
    pub uplink: Vec<IpAddr>,
    /// Its port there.
    pub uplink_port: u16,
    /// Whoever asks from a login over the network must be able to log in again.
    pub login: Option<Login>,
    /// The script's user and group, never root; none leaves it to the sandbox.
    pub user: Option<(u32, u32)>,
    /// What the script may do to the shadow's network with its own hands.
    pub powers: Powers,
    /// The program that becomes the shadow, the sandbox's inner side and `change`.
    pub helper: PathBuf,
    /// An existing folder over which the shadow, in a mount namespace of its own, puts its files.
    pub scratch: PathBuf,
}

impl Default for ShadowRequest {
    /// Nothing to run, on this device.
    fn default() -> Self {
        Self {
            grants: Vec::new(),
            script: Vec::new(),
            interpreter: PathBuf::from("/bin/sh"),
            environment: BTreeMap::new(),
            reads: Vec::new(),
            limits: Limits::default(),
            timeout: Duration::from_secs(30),
            root: PathBuf::from("/"),
            grace: Duration::from_secs(2),
            min_isolation: 2,
            risk: Risk::None,
            uplink: Vec::new(),
            uplink_port: 443,
            login: None,
            user: None,
            powers: Powers::default(),
            helper: PathBuf::from("/proc/self/exe"),
            scratch: PathBuf::from("/mnt"),
        }
    }
}

/// What the shadow says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Effect(Effect),
    Failed(String),
}

/// Why there is no effect.
#[derive(Debug, thiserror::Error)]
pub enum RehearseError {
    /// The child could not be started.
    #[error("the shadow could not be started: {0}")]
    Start(#[source] io::Error),
    /// The pipe to it broke.
    #[error("the shadow could not be talked to: {0}")]
    Exchange(#[source] io::Error),
    /// It took too long, and was killed.
    #[error("the shadow was not done after {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It ended without an effect.
    #[error("the shadow ended without an effect ({status}): {said}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The start of what it complained.
        said: String,
    },
    /// It could not be built, or the script not be started in it.
    #[error("{0}")]
    Failed(String),
}

/// Runs the script in a shadow of the current network namespace and of the files below `root`.
///
/// # Errors
/// [`RehearseError`]; nothing of the device was touched in any case.
pub async fn rehearse(request: ShadowRequest) -> Result<Effect, RehearseError> {
    let bound = request.timeout + request.grace + AROUND;
    let input = serde_json::to_vec(&request).map_err(|e| RehearseError::Exchange(e.into()))?;
    let mut child = Command::new(&request.helper)
        .arg(SHADOW_WORD)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(RehearseError::Start)?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(RehearseError::Exchange(io::ErrorKind::BrokenPipe.into()));
    };
    let (mut answer, mut said) = (Vec::new(), Vec::new());
    let exchange = async {
        let write = async {
            // A child that fails early says why on the other pipe.
            stdin.write_all(&input).await.ok();
            drop(stdin);
            Ok(0)
        };
        let (mut stdout, mut stderr) = (stdout.take(ANSWER), stderr.take(COMPLAINT));
        let (read, complain) = (
            stdout.read_to_end(&mut answer),
            stderr.read_to_end(&mut said),
        );
        tokio::try_join!(write, read, complain)?;
        child.wait().await
    };
    let status = match tokio::time::timeout(bound, exchange).await {
        Err(_) => return Err(RehearseError::TimedOut(bound)),
        Ok(status) => status.map_err(RehearseError::Exchange)?,
    };
    match serde_json::from_slice(&answer) {
        Ok(Told::Effect(effect)) => Ok(effect),
        Ok(Told::Failed(why)) => Err(RehearseError::Failed(why)),
        Err(_) => Err(RehearseError::Ended {
            status,
            said: String::from_utf8_lossy(&said).into_owned(),
        }),
    }
}
