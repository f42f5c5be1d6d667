//! One run with its limits: the sandbox on one side, the broker on the other, until both are done.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use aizen_protocol::effect::{ObjectChange, ScriptEnd, ScriptRun};
use aizen_protocol::outcome::{Isolation, Layer};
use aizen_protocol::package::Package;
use aizen_protocol::package::manifest::{Capability, Class, Manifest, Operation};
use aizen_protocol::private::Text;
use aizen_sandbox::{End, Finished, Limits, Network, Powers, Profile, ReadBind, SandboxError};
use tokio::task::JoinHandle;

use super::Settings;
use super::binding::Values;
use crate::broker::{self, World};
use crate::rollback::Inverse;
use crate::verify::Verified;

/// What a run stands on.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// The verified package.
    pub package: &'a Verified<Package>,
    /// Its bindings' values.
    pub values: &'a Values,
    /// Its operations with values.
    pub grants: &'a [Operation],
    /// The operator's least isolation level; the package's counts if it is higher.
    pub min_isolation: u8,
    /// What the broker acts on.
    pub world: &'a World,
    /// How scripts are run.
    pub settings: &'a Settings,
}

/// After a script's end its operations are answered for so long.
const LINGER: Duration = Duration::from_secs(2);

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// How the script ended.
    pub run: ScriptRun,
    /// What was changed, in order.
    pub changes: Vec<ObjectChange>,
    /// What it changed with its own hands and its manifest does not declare.
    pub undeclared: Vec<Text>,
    /// What it asked for and was denied.
    pub denied: Vec<Text>,
    /// The sandbox it ran in.
    pub isolation: Isolation,
}

impl Attempt {
    /// True if the script says that it succeeded. It takes more than that to keep a change.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.run.end == ScriptEnd::Exited(0)
    }
}

/// A script in its sandbox that has not run yet: it waits, walls and all, for the word. Dropped, it never runs.
#[derive(Debug)]
pub struct Poised {
    spawned: JoinHandle<Result<Finished, SandboxError>>,
    word: mpsc::SyncSender<()>,
    broker: Option<OwnedFd>,
}

/// Has the sandbox for a verified package built, beside whatever else must be done before it may run. `cancel` ends it
/// early.
///
/// # Errors
/// If there is no socket for the broker, or the program that scripts find as `change` is gone.
pub fn poise(ground: Ground<'_>, cancel: Arc<AtomicBool>) -> io::Result<Poised> {
    let mut profile = profile(ground);
    let mut broker = None;
    if ground.package.package().manifest.class != Class::Diagnose {
        let (ours, theirs) = broker::pair()?;
        profile.broker = Some(theirs);
        profile.change_tool = Some(ground.settings.change_tool_file()?);
        broker = Some(ours);
    }
    let (word, spoken) = mpsc::sync_channel(1);
    let spawned = tokio::task::spawn_blocking(move || {
        // A sender that is dropped without a word says no.
        aizen_sandbox::run_when(profile, &cancel, || spoken.recv().is_ok())
    });
    Ok(Poised {
        spawned,
        word,
        broker,
    })
}

impl Poised {
    /// Lets nothing of it run; returns when nothing of it is left.
    pub async fn dismiss(self) {
        drop(self.word);
        // A thread that is lost leaves nothing either: the sandbox dies with it.
        drop(self.spawned.await);
    }

    /// Lets the script run. `before_act` journals each inverse.
    ///
    /// # Errors
    /// Only if the sandbox's thread is lost; a sandbox that can't be built is an [`Attempt`] that did not start.
    pub async fn run(
        self,
        ground: Ground<'_>,
        before_act: &mut dyn FnMut(&Inverse) -> io::Result<()>,
    ) -> io::Result<Attempt> {
        let Self {
            spawned,
            word,
            broker,
        } = self;
        // If nobody listens, the walls do not stand, and the end below says why.
        word.send(()).ok();
        let spawned = async { spawned.await.map_err(io::Error::other) };
        let Some(socket) = broker else {
            return Ok(attempt(spawned.await?, Vec::new(), Vec::new()));
        };
        let mut changes = Vec::new();
        let finished;
        let mut denied = Vec::new();
        {
            let mut spawned = std::pin::pin!(spawned);
            let mut serving = std::pin::pin!(serve(ground, socket, before_act, &mut changes));
            tokio::select! {
                ended = &mut spawned => {
                    finished = ended;
                    // Whoever still holds the script's end of the socket keeps nobody from the deadline.
                    match tokio::time::timeout(LINGER, serving).await {
                        Ok(told) => denied = told,
                        Err(_) => denied.push(Text::from("something still held the broker's socket after the script's end")),
                    }
                }
                told = &mut serving => {
                    denied = told;
                    finished = spawned.await;
                }
            }
        }
        Ok(attempt(finished?, changes, denied))
    }
}

async fn serve(
    ground: Ground<'_>,
    socket: OwnedFd,
    before_act: &mut dyn FnMut(&Inverse) -> io::Result<()>,
    changes: &mut Vec<ObjectChange>,
) -> Vec<Text> {
    let mut after_act = |change: &ObjectChange| {
        tracing::info!(kind = ?change.kind, "changed one object");
    };
    let served = broker::serve(
        ground.world,
        ground.grants,
        socket,
        before_act,
        &mut after_act,
    )
    .await;
    *changes = served.changes;
    served.denied
}

fn profile(ground: Ground<'_>) -> Profile {
    let package = ground.package.package();
    let manifest = &package.manifest;
    let limits = &manifest.limits;
    let mut profile = Profile::new(&package.interpreter, ground.package.script());
    profile.environment.clone_from(ground.values);
    profile.reads = manifest
        .read
        .iter()
        .map(|path| bind(&ground.world.root, path))
        .filter(|bind| bind.source.exists())
        .collect();
    // Reading the network's state needs the namespace that it is in; nothing else does.
    let reads_network = |path: &String| path.starts_with("/proc/net");
    profile.network = if manifest.read.iter().any(reads_network) {
        Network::Host
    } else {
        Network::Empty
    };
    profile.limits = Limits {
        memory_bytes: u64::from(limits.memory_mib) << 20,
        processes: limits.processes,
        output_bytes: (limits.output_kib as usize) << 10,
        scratch_bytes: u64::from(limits.scratch_mib) << 20,
        cpu_seconds: limits.cpu_s,
    };
    profile.timeout = Duration::from_secs(manifest.timeout_s.into());
    profile.grace = ground.settings.grace;
    profile.min_level = manifest.min_isolation.max(ground.min_isolation);
    profile.helper.clone_from(&ground.settings.helper);
    let direct = manifest.class == Class::Direct;
    let user = if direct {
        ground.settings.direct_user
    } else {
        ground.settings.user
    };
    if let Some((uid, gid)) = user {
        profile.uid = uid;
        profile.gid = gid;
    }
    if direct {
        profile.network = Network::Host;
        profile.powers = powers(manifest);
    }
    profile
}

/// What a manifest gives a script's own hands.
#[must_use]
pub(crate) fn powers(manifest: &Manifest) -> Powers {
    let holds = |capability| manifest.capabilities.contains(&capability);
    let tunnels = |operation: &Operation| matches!(operation, Operation::Wireguard(_));
    let net_admin = holds(Capability::NetAdmin);
    Powers {
        net_admin,
        net_raw: holds(Capability::NetRaw),
        generic_netlink: net_admin && manifest.operations.iter().any(tunnels),
    }
}

fn bind(root: &Path, path: &str) -> ReadBind {
    ReadBind {
        source: root.join(path.trim_start_matches('/')),
        target: PathBuf::from(path),
    }
}

fn attempt(
    finished: Result<Finished, SandboxError>,
    changes: Vec<ObjectChange>,
    denied: Vec<Text>,
) -> Attempt {
    match finished {
        Ok(finished) => Attempt {
            run: ScriptRun {
                end: match finished.end {
                    End::Exited(code) => ScriptEnd::Exited(code),
                    End::Signalled(signal) => ScriptEnd::Signalled(signal),
                    End::TimedOut | End::Cancelled => ScriptEnd::TimedOut,
                },
                took_ms: u32::try_from(finished.took.as_millis()).unwrap_or(u32::MAX),
                output: visible(&finished.output).into(),
                output_bytes: finished.output_bytes,
                leftover_processes: finished.leftover_processes,
            },
            changes,
            undeclared: Vec::new(),
            denied,
            isolation: isolation(finished.isolation),
        },
        Err(error) => Attempt {
            run: ScriptRun {
                end: ScriptEnd::NotStarted,
                took_ms: 0,
                output: error.to_string().into(),
                output_bytes: 0,
                leftover_processes: 0,
            },
            changes,
            undeclared: Vec::new(),
            denied,
            isolation: Isolation::default(),
        },
    }
}

/// The sandbox's vector as it stands in reports.
#[must_use]
pub fn isolation(given: aizen_sandbox::Isolation) -> Isolation {
    Isolation {
        level: given.level,
        layers: given
            .layers
            .into_iter()
            .map(|layer| Layer {
                name: layer.name,
                enforced: layer.enforced,
                detail: layer.detail,
            })
            .collect(),
    }
}

/// A script's output as text that no terminal obeys: control, bidirectional and invisible characters are escaped.
#[must_use]
pub fn visible(output: &[u8]) -> String {
    let mut text = String::with_capacity(output.len());
    for c in String::from_utf8_lossy(output).chars() {
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        if hidden || (c.is_control() && c != '\n' && c != '\t') {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_can_not_steer_a_terminal() {
        assert_eq!(
            visible(b"ok\tline\n\x1b[31mred\x07\r\0"),
            "ok\tline\n\\u{1b}[31mred\\u{7}\\r\\u{0}"
        );
        assert_eq!(
            visible("a\u{202e}b\u{200b}".as_bytes()),
            "a\\u{202e}b\\u{200b}"
        );
        assert_eq!(visible(&[b'x', 0xff]), "x\u{fffd}");
    }
}
