//! The parent's side: starts the helper, judges the walls, says go, watches, ends, cleans up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::Signal;

use crate::capture::{Capture, Drained};
use crate::cgroup::Group;
use crate::enter::ARGV0;
use crate::level::{Isolation, Layer};
use crate::message::{self, Message, Order, RawEnd};
use crate::mount::TOOLS;
use crate::profile::{Profile, ProfileError};
use crate::seccomp;

/// How the script's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Exit status.
    Exited(i32),
    /// Killed by this signal, not by us.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
    /// The caller wanted it to end.
    Cancelled,
}

/// A run that is over, with nothing left of it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How the script's process ended.
    pub end: End,
    /// From the word go to its end.
    pub took: Duration,
    /// Standard output and error in the order of writing: head, a line that counts what is left out, tail. Raw bytes.
    pub output: Vec<u8>,
    /// Bytes it wrote in all.
    pub output_bytes: u64,
    /// Processes that were still there at its end and were killed.
    pub leftover_processes: u32,
    /// What it ran in.
    pub isolation: Isolation,
}

/// Why a run did not happen, or could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The profile makes no sense.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Changing the user and building namespaces needs root.
    #[error("the sandbox is built by root; this is user {uid}")]
    NotRoot {
        /// The caller.
        uid: u32,
    },
    /// This side of the sandbox could not get what it needs.
    #[error("could not prepare {what}: {source}")]
    Prepare {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The policy files of this build are wrong.
    #[error("{detail}")]
    Policy {
        /// What is wrong.
        detail: String,
    },
    /// A step of the child failed; nothing of the script ran.
    #[error("step {step} failed on {subject:?}: {source}")]
    Step {
        /// Which step.
        step: String,
        /// The path or object, if it has one.
        subject: String,
        /// Why.
        source: io::Error,
    },
    /// The helper ended without a word; nothing of the script ran.
    #[error("the helper ended before the walls stood: {said}")]
    HelperEnded {
        /// The end of what it wrote.
        said: String,
    },
    /// The walls took too long; nothing of the script ran.
    #[error("the walls did not stand after {0:?}")]
    SetupTimedOut(Duration),
    /// The caller cancelled before the word go; nothing of the script ran.
    #[error("cancelled before the script was started")]
    CancelledBeforeStart,
    /// This host gives less than the profile asks for; nothing of the script ran.
    #[error("isolation level {} is below {wanted}: {}", isolation.level, missing.join("; "))]
    BelowMinimum {
        /// What was asked for.
        wanted: u8,
        /// What it needs and this host lacks.
        missing: Vec<String>,
        /// What this host gives.
        isolation: Isolation,
    },
    /// Something of it can't be killed (a process in an uninterruptible wait).
    #[error("a process of the script is still there {after:?} after SIGKILL")]
    Unkillable {
        /// How long it was waited for.
        after: Duration,
    },
}

fn prepare<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |error| SandboxError::Prepare {
        what,
        source: error.into(),
    }
}

/// Runs a script to its end. Blocks the calling thread, which must live until then: the sandbox dies with it.
///
/// # Errors
/// Every error but [`SandboxError::Unkillable`] means that no byte of the script ran.
pub fn run(profile: Profile, cancel: &AtomicBool) -> Result<Finished, SandboxError> {
    run_when(profile, cancel, || true)
}

/// As [`run`], but when the walls stand, the script's process waits in them until `permitted` returns: only true lets the
/// first instruction happen. So walls can be built while what must come before the script is still being done.
///
/// # Errors
/// As [`run`], and [`SandboxError::CancelledBeforeStart`] without the permission.
pub fn run_when(
    profile: Profile,
    cancel: &AtomicBool,
    permitted: impl FnOnce() -> bool,
) -> Result<Finished, SandboxError> {
    let (timeout, grace, min_level) = (profile.timeout, profile.grace, profile.min_level);
    let mut sandbox = Sandbox::start(profile)?;
    let isolation = sandbox.ready(cancel)?;
    if isolation.level < min_level {
        return Err(SandboxError::BelowMinimum {
            wanted: min_level,
            missing: isolation.missing(min_level),
            isolation,
        });
    }
    if !permitted() {
        return Err(SandboxError::CancelledBeforeStart);
    }
    sandbox.go()?;
    let over = sandbox.watch(timeout, grace, cancel)?;
    let output = std::mem::replace(&mut sandbox.capture, Capture::new(0));
    let (output, output_bytes) = output.finish();
    Ok(Finished {
        end: over.end,
        took: over.took,
        output,
        output_bytes,
        leftover_processes: over.leftovers,
        isolation,
    })
}

/// What this host gives to a script, found by building the walls around nothing with the current program as helper.
#[must_use]
pub fn check() -> Isolation {
    check_with(Path::new("/proc/self/exe"))
}

/// As [`check`], with another helper.
#[must_use]
pub fn check_with(helper: &Path) -> Isolation {
    let mut profile = Profile::new("/bin/sh", "");
    profile.helper = helper.to_path_buf();
    let built =
        Sandbox::start(profile).and_then(|mut sandbox| sandbox.ready(&AtomicBool::new(false)));
    built.unwrap_or_else(|error| Isolation::of(vec![Layer::off("sandbox", error.to_string())]))
}

struct Over {
    end: End,
    took: Duration,
    leftovers: u32,
}

/// A started helper. Dropping it kills all that is left.
struct Sandbox {
    keeper: Child,
    control: OwnedFd,
    gate: Option<OwnedFd>,
    init: Option<OwnedFd>,
    output: Option<File>,
    capture: Capture,
    /// The keeper said by closing its socket that all is over.
    ended: bool,
    /// Dropped last: a group can be removed when its processes are gone.
    group: Group,
}

impl Sandbox {
    fn start(profile: Profile) -> Result<Self, SandboxError> {
        profile.validate()?;
        let uid = nix::unistd::geteuid();
        if !uid.is_root() {
            return Err(SandboxError::NotRoot { uid: uid.as_raw() });
        }
        let filters = seccomp::programs(profile.powers).map_err(|error| SandboxError::Policy {
            detail: error.to_string(),
        })?;
        let group = Group::create(&profile.limits);
        let order = Order {
            parent: std::process::id(),
            environment: environment(&profile.environment),
            interpreter: profile.interpreter,
            reads: profile.reads,
            change_tool: profile.change_tool,
            network: profile.network,
            powers: profile.powers,
            limits: profile.limits,
            uid: profile.uid,
            gid: profile.gid,
            unified: group.unified().map(Path::to_path_buf),
            legacy: group.legacy(),
            memory_grouped: group.bounds_memory(),
            layers: group.layers(),
            filters: filters.unwrap_or_default(),
        };
        let order = serde_json::to_vec(&order).map_err(prepare("the order"))?;
        let order = message::sealed("aizen-order", &order).map_err(prepare("the order"))?;
        let script =
            message::sealed("aizen-script", &profile.script).map_err(prepare("the script"))?;
        let (control, helper_control) = message::pair().map_err(prepare("a socket"))?;
        let (gate, helper_gate) = message::pair().map_err(prepare("a socket"))?;
        let (output, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(prepare("a pipe"))?;
        rustix::io::ioctl_fionbio(&output, true).map_err(prepare("a pipe"))?;
        // Into the socket before there is a reader: a helper that ends at once is then seen to end, not to refuse.
        let mut handed = vec![order.as_fd(), script.as_fd(), helper_gate.as_fd()];
        handed.extend(profile.broker.as_ref().map(AsFd::as_fd));
        message::send_bytes(control.as_fd(), b"order", &handed).map_err(prepare("the order"))?;
        let keeper = spawn(&profile.helper, helper_control, writer)?;
        Ok(Self {
            keeper,
            control,
            gate: Some(gate),
            init: None,
            output: Some(output.into()),
            capture: Capture::new(profile.limits.output_bytes),
            ended: false,
            group,
        })
    }

    /// Waits until the walls stand and says which do.
    fn ready(&mut self, cancel: &AtomicBool) -> Result<Isolation, SandboxError> {
        let deadline = Instant::now() + SETUP;
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(SandboxError::CancelledBeforeStart);
            }
            if Instant::now() >= deadline {
                return Err(SandboxError::SetupTimedOut(SETUP));
            }
            match self.hear(deadline) {
                Heard::Said(Message::Ready(layers)) => return Ok(Isolation::of(layers)),
                Heard::Said(other) => self.refuse(other)?,
                Heard::GateClosed | Heard::Nothing => {}
                Heard::KeeperEnded => return Err(self.helper_ended()),
            }
        }
    }

    /// Lets the script be executed; returns when it is, or when that can't be told apart from running any more.
    fn go(&mut self) -> Result<(), SandboxError> {
        if let Some(gate) = &self.gate {
            message::send_bytes(gate.as_fd(), &[message::GO], &[]).map_err(prepare("the gate"))?;
        }
        let deadline = Instant::now() + SETUP;
        while Instant::now() < deadline {
            match self.hear(deadline) {
                Heard::Said(other) => self.refuse(other)?,
                Heard::GateClosed => break,
                Heard::KeeperEnded => return Err(self.helper_ended()),
                Heard::Nothing => {}
            }
        }
        Ok(())
    }

    fn refuse(&self, message: Message) -> Result<(), SandboxError> {
        match message {
            Message::Failed {
                step,
                subject,
                errno,
            } => Err(SandboxError::Step {
                step,
                subject,
                source: io::Error::from_raw_os_error(errno),
            }),
            Message::Init | Message::Ready(_) | Message::Ended { .. } => Ok(()),
        }
    }

    fn helper_ended(&mut self) -> SandboxError {
        self.drain();
        let said = std::mem::replace(&mut self.capture, Capture::new(0));
        let (said, _) = said.finish();
        SandboxError::HelperEnded {
            said: String::from_utf8_lossy(&said).trim().to_owned(),
        }
    }

    /// Waits for the next thing to happen, no longer than until `deadline` or the next look at the caller's wish.
    fn hear(&mut self, deadline: Instant) -> Heard {
        let wait = deadline
            .saturating_duration_since(Instant::now())
            .min(GLANCE);
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut watched = vec![watch(self.control.as_fd())];
        let gate = self.gate.as_ref().map(|gate| {
            watched.push(watch(gate.as_fd()));
            watched.len() - 1
        });
        let output = self.output.as_ref().map(|output| {
            watched.push(watch(output.as_fd()));
            watched.len() - 1
        });
        if let Err(error) = poll(&mut watched, wait) {
            // The host is out of memory at worst; the caller's deadline ends the waiting.
            if error != nix::errno::Errno::EINTR {
                std::thread::sleep(GLANCE);
            }
            return Heard::Nothing;
        }
        let happened =
            |index: Option<usize>| index.is_some_and(|index| watched[index].any().unwrap_or(true));
        let (at_control, at_gate, at_output) =
            (happened(Some(0)), happened(gate), happened(output));
        if at_output {
            self.drain();
        }
        if at_gate && let Some(gate) = &self.gate {
            return match message::receive(gate.as_fd()) {
                Ok(Some((message, _))) => Heard::Said(message),
                // Closed by the exec, or by the end of the script's process.
                Ok(None) | Err(_) => {
                    self.gate = None;
                    Heard::GateClosed
                }
            };
        }
        if at_control {
            return match message::receive(self.control.as_fd()) {
                Ok(Some((message, mut descriptors))) => {
                    if message == Message::Init {
                        self.init = descriptors.pop();
                    }
                    Heard::Said(message)
                }
                Ok(None) => {
                    self.ended = true;
                    Heard::KeeperEnded
                }
                Err(_) => Heard::KeeperEnded,
            };
        }
        Heard::Nothing
    }

    fn drain(&mut self) {
        if let Some(output) = &mut self.output
            && !matches!(
                self.capture.drain(output),
                Ok(Drained::Dry | Drained::Flowing)
            )
        {
            self.output = None;
        }
    }

    /// Until the keeper has ended: that is after init, and init is after everything.
    fn watch(
        &mut self,
        timeout: Duration,
        grace: Duration,
        cancel: &AtomicBool,
    ) -> Result<Over, SandboxError> {
        let started = Instant::now();
        let mut stage = Stage::Running;
        let mut deadline = started + timeout;
        let mut forced = None;
        let mut ended: Option<(RawEnd, u32, Duration)> = None;
        let mut survivors = 0;
        loop {
            let wanted = stage == Stage::Running && cancel.load(Ordering::Relaxed);
            if wanted || Instant::now() >= deadline {
                forced = forced.or(Some(if wanted {
                    End::Cancelled
                } else {
                    End::TimedOut
                }));
                (stage, deadline) = match stage {
                    Stage::Running => {
                        self.tell(message::TERMINATE);
                        (Stage::Terminating, Instant::now() + grace)
                    }
                    Stage::Terminating => {
                        self.tell(message::KILL);
                        (Stage::Killing, Instant::now() + ORDERLY)
                    }
                    Stage::Killing => {
                        // Without init and the script's own process.
                        survivors = self.group.population().saturating_sub(2);
                        self.force();
                        (Stage::Forced, Instant::now() + UNKILLABLE)
                    }
                    Stage::Forced => {
                        return Err(SandboxError::Unkillable { after: UNKILLABLE });
                    }
                };
            }
            match self.hear(deadline) {
                Heard::Said(Message::Ended { end, leftovers }) => {
                    ended = Some((end, leftovers, started.elapsed()));
                    // What is left to do is ours, and must not count as the script's time.
                    if stage != Stage::Forced {
                        (stage, deadline) = (Stage::Killing, Instant::now() + ORDERLY);
                    }
                }
                Heard::KeeperEnded => break,
                Heard::Said(_) | Heard::GateClosed | Heard::Nothing => {}
            }
        }
        for _ in 0..LAST_ROUNDS {
            self.drain();
        }
        // Init was killed with the rest (a memory bound takes the whole group): the script was, too.
        let unheard = (
            RawEnd::Signalled(libc::SIGKILL),
            u32::try_from(survivors).unwrap_or(u32::MAX),
            started.elapsed(),
        );
        let (end, leftovers, took) = ended.unwrap_or(unheard);
        let end = match (forced, end) {
            (Some(forced), _) => forced,
            (None, RawEnd::Exited(status)) => End::Exited(status),
            (None, RawEnd::Signalled(signal)) => End::Signalled(signal),
        };
        Ok(Over {
            end,
            took,
            leftovers,
        })
    }

    fn tell(&self, word: u8) {
        // If init is gone, the keeper's end says so.
        message::send_bytes(self.control.as_fd(), &[word], &[]).ok();
    }

    fn force(&mut self) {
        self.group.kill();
        match &self.init {
            // The namespace dies with its init, and the keeper ends after it.
            Some(init) => {
                rustix::process::pidfd_send_signal(init, Signal::KILL).ok();
            }
            // Init has the keeper's death as its parent-death signal.
            None => {
                self.keeper.kill().ok();
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A gate that closes without a word is a no.
        self.gate = None;
        let deadline = Instant::now() + UNKILLABLE;
        let mut forced = self.ended;
        let mut pause = SHORTEST;
        while Instant::now() < deadline {
            match self.keeper.try_wait() {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return,
            }
            if !forced {
                self.force();
                forced = true;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
        // What can't be killed keeps its zombie; the keeper must not keep waiting for it.
        self.keeper.kill().ok();
    }
}

enum Heard {
    Said(Message),
    GateClosed,
    KeeperEnded,
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Terminating,
    Killing,
    Forced,
}

fn spawn(helper: &PathBuf, control: OwnedFd, writer: OwnedFd) -> Result<Child, SandboxError> {
    let second = writer.try_clone().map_err(prepare("a pipe"))?;
    Command::new(helper)
        .arg0(ARGV0)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(control))
        .stdout(Stdio::from(writer))
        .stderr(Stdio::from(second))
        .spawn()
        .map_err(prepare("the helper"))
}

/// The same for every script, and what its profile declares; nothing of the agent's own.
fn environment(declared: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let path = format!("{TOOLS}:/usr/bin:/bin:/usr/sbin:/sbin");
    let given = [
        ("PATH", path.as_str()),
        ("HOME", "/tmp"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
    ];
    let mut all: BTreeMap<String, String> = given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    all.extend(declared.clone());
    all.into_iter().collect()
}

/// Walls that take longer than this stand on a host that is not well.
const SETUP: Duration = Duration::from_secs(10);
/// How often the caller's wish to cancel is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// What init needs at most to kill and reap.
const ORDERLY: Duration = Duration::from_secs(2);
/// After SIGKILL to the namespace.
const UNKILLABLE: Duration = Duration::from_secs(5);
/// Between the keeper's last word and its end there is hardly anything.
const SHORTEST: Duration = Duration::from_micros(20);
const PAUSE: Duration = Duration::from_millis(2);
/// A pipe holds 64 KiB by default and 1 MiB at most; one round reads 256 KiB.
const LAST_ROUNDS: usize = 5;
