//! The child's side: the irreversible steps in their order, each with its reason.
//!
//! keeper (outside, root, only waits) → init (inside, nobody, reaps and kills) → script.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid};

use crate::level::Layer;
use crate::message::{self, Message, Order, RawEnd};
use crate::{capability, cgroup, landlock, mount, namespace, rlimit, seccomp, sys};

/// The name that the helper is called by; nobody types it.
pub(crate) const ARGV0: &str = "aizen-sandbox-enter";

/// Becomes the sandbox's child side if the program was started as that, and never returns then. The first line of the
/// helper's `main`, before any thread is started.
pub fn enter_if_asked() {
    if std::env::args_os().next().is_some_and(|name| name == ARGV0) {
        let control = sys::placed(0);
        if let Err(failure) = keep(control) {
            failure.tell(control);
        }
        sys::exit(REFUSED);
    }
}

/// A step that failed: nothing of the script runs.
struct Failure {
    step: &'static str,
    subject: String,
    errno: i32,
}

impl Failure {
    fn tell(self, socket: BorrowedFd<'_>) {
        let message = Message::Failed {
            step: self.step.to_owned(),
            subject: self.subject,
            errno: self.errno,
        };
        // If nobody listens any more, nobody needs to know.
        message::send(socket, &message, &[]).ok();
    }
}

fn step<T, E: Into<io::Error>>(name: &'static str, result: Result<T, E>) -> Result<T, Failure> {
    on(name, "", result)
}

fn on<T, E: Into<io::Error>>(
    step: &'static str,
    subject: impl AsRef<Path>,
    result: Result<T, E>,
) -> Result<T, Failure> {
    result.map_err(|error| Failure {
        step,
        subject: subject.as_ref().display().to_string(),
        errno: error.into().raw_os_error().unwrap_or(libc::EIO),
    })
}

impl From<mount::MountError> for Failure {
    fn from(error: mount::MountError) -> Self {
        Self {
            step: "mount",
            subject: error.subject.display().to_string(),
            errno: error.source.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// The descriptors that come with the order.
struct Handed {
    null: OwnedFd,
    script: OwnedFd,
    gate: OwnedFd,
    broker: Option<OwnedFd>,
}

fn keep(control: BorrowedFd<'_>) -> Result<(), Failure> {
    // What the agent may have left open for its children is none of the script's business.
    step("close", sys::close_from(3))?;
    let (order, handed) = step("order", receive(control))?;
    // The keeper dies with the thread that started it, and init with the keeper.
    step("parent_death", prctl::set_pdeathsig(Signal::SIGKILL))?;
    // The parent may have died before that line.
    if parent_id() != order.parent {
        sys::exit(REFUSED);
    }
    // No terminal, no job control from outside.
    step("session", nix::unistd::setsid())?;
    // The agent's own may be anything; files that scripts make are readable and nobody else's to write.
    umask(Mode::from_bits_truncate(0o022));
    let (ours, theirs) = step("socket", message::pair())?;
    // The next child is the first of the new pid namespace.
    let layers = [order.layers.clone(), vec![namespace::processes()]].concat();
    let (forked, join) = step("fork", fork_grouped(&order))?;
    match forked {
        ForkResult::Child => {
            drop(ours);
            build(&order, handed, control, &theirs, layers)
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            drop(handed);
            // The keeper holds no end of the script's output.
            sys::close(1);
            sys::close(2);
            attend(&order, child, join.as_deref(), control, &ours)
        }
    }
}

/// Forks init, in its group of version 2 where this kernel can do that; otherwise that is the group to move it into.
fn fork_grouped(order: &Order) -> io::Result<(ForkResult, Option<PathBuf>)> {
    if let Some(unified) = &order.unified {
        // Not before Linux 5.7, and not where the group says no: then the move says why.
        if let Ok(forked) = fs::File::open(unified).and_then(sys::fork_into) {
            return Ok((forked, None));
        }
    }
    Ok((sys::fork()?, order.unified.clone()))
}

fn receive(control: BorrowedFd<'_>) -> io::Result<(Order, Handed)> {
    let (_, received) = message::receive_bytes(control)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut raised = Vec::with_capacity(received.len());
    for descriptor in received {
        // Away from the numbers that the script's descriptors will be placed at.
        raised.push(rustix::io::fcntl_dupfd_cloexec(&descriptor, FIRST_FREE)?);
    }
    let mut raised = raised.into_iter();
    let mut next = || raised.next().ok_or(io::ErrorKind::UnexpectedEof);
    let order = message::read_order(next()?)?;
    let (script, gate) = (next()?, next()?);
    let null = fs::File::open("/dev/null")?;
    let handed = Handed {
        null: rustix::io::fcntl_dupfd_cloexec(null, FIRST_FREE)?,
        script,
        gate,
        broker: raised.next(),
    };
    Ok((order, handed))
}

/// The keeper's life: tell the parent about init, move it into its group, write its user map when asked, wait for its
/// end.
fn attend(
    order: &Order,
    init: Pid,
    join: Option<&Path>,
    control: BorrowedFd<'_>,
    requests: &OwnedFd,
) -> Result<(), Failure> {
    let pidfd = rustix::process::Pid::from_raw(init.as_raw()).and_then(|pid| {
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
    });
    let passed: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
    step("tell", message::send(control, &Message::Init, &passed))?;
    // This move waits until every processor was idle once: meanwhile init builds its tree.
    if let Some(group) = join {
        on("cgroup", group, cgroup::join(group, init.as_raw()))?;
    }
    while let Ok(Some((request, _))) = message::receive_bytes(requests.as_fd()) {
        let answer = match request.as_slice() {
            MAP => namespace::map(init.as_raw(), order.uid, order.gid),
            _ => Ok(()),
        };
        let errno = answer.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
        // If init is gone, the wait below says so.
        message::send_bytes(requests.as_fd(), &errno.to_ne_bytes(), &[]).ok();
    }
    while waitpid(init, None) == Err(Errno::EINTR) {}
    sys::exit(0)
}

/// Init asks the keeper and gets an errno.
fn ask(keeper: &OwnedFd, request: &[u8]) -> io::Result<()> {
    message::send_bytes(keeper.as_fd(), request, &[])?;
    let answer = message::receive_bytes(keeper.as_fd())?;
    let Some((answer, _)) = answer else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    match answer.try_into().map(i32::from_ne_bytes) {
        Ok(0) => Ok(()),
        Ok(errno) => Err(io::Error::from_raw_os_error(errno)),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn build(
    order: &Order,
    handed: Handed,
    control: BorrowedFd<'_>,
    keeper: &OwnedFd,
    mut layers: Vec<Layer>,
) -> Result<(), Failure> {
    // Before it has any child, and while the host's paths are there.
    for group in &order.legacy {
        on("cgroup", group, cgroup::enter(group))?;
    }
    // If memory runs out, the script goes before the agent does.
    layers.push(match fs::write("/proc/self/oom_score_adj", "1000") {
        Ok(()) => Layer::on("first_to_go", "oom_score_adj 1000"),
        Err(error) => Layer::off("first_to_go", error.to_string()),
    });
    // While still root of the initial user namespace: that is who they shall belong to.
    layers.extend(namespace::surroundings(order.network));
    if namespace::stands(&layers, "uts_namespace") {
        step("hostname", nix::unistd::sethostname("sandbox"))?;
    }
    layers.push(tree(order, &layers)?);
    // The root of its control groups is where the process is when it is made: so not before it was moved.
    step("cgroup", ask(keeper, ALIVE))?;
    layers.push(namespace::groups());
    // Before the user namespace, which has no way to drop groups.
    step("groups", nix::unistd::setgroups(&[]))?;
    layers.push(if order.powers.any() {
        namespace::no_user("capabilities mean something in the host's alone")
    } else {
        let mut user = namespace::user();
        if user.enforced {
            step("user_map", ask(keeper, MAP))?;
            user.detail = "nothing in it but the script's own user and group".to_owned();
        }
        user
    });
    // Before the change of user: afterwards the process may not.
    step("capabilities", capability::bound(order.powers))?;
    let (uid, gid) = (Uid::from_raw(order.uid), Gid::from_raw(order.gid));
    step("group", nix::unistd::setresgid(gid, gid, gid))?;
    step("user", nix::unistd::setresuid(uid, uid, uid))?;
    step("capabilities", capability::settle(order.powers))?;
    // No program that it starts can gain anything, and seccomp needs it.
    step("no_new_privs", prctl::set_no_new_privs())?;
    // After the change of user, which clears it.
    step("parent_death", prctl::set_pdeathsig(Signal::SIGKILL))?;
    // The keeper may have died before that line.
    step("keeper", ask(keeper, ALIVE))?;
    // Init's memory, descriptors and executable can't be reached from a process of the same user.
    step("dumpable", prctl::set_dumpable(false))?;
    let contained = namespace::stands(&layers, "pid_namespace");
    if !contained {
        // Orphans come to init instead of the host's.
        step("subreaper", prctl::set_child_subreaper(true))?;
    }
    let children = SigSet::from(Signal::SIGCHLD);
    step("signals", children.thread_block())?;
    let signals = step(
        "signals",
        SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC),
    )?;
    match step("fork", sys::fork())? {
        ForkResult::Child => {
            let gate = become_script(order, &handed, layers);
            gate.tell(sys::placed(GATE));
            sys::exit(REFUSED)
        }
        ForkResult::Parent { child } => {
            drop(handed);
            sys::close(1);
            sys::close(2);
            // What the script may is not for whoever only waits for it.
            step("capabilities", capability::drop_all())?;
            let mut tended = Tended {
                script: child,
                contained,
                end: None,
                leftovers: 0,
            };
            step("tend", tended.tend(control, &signals))
        }
    }
}

fn tree(order: &Order, layers: &[Layer]) -> Result<Layer, Failure> {
    if !namespace::stands(layers, "mount_namespace") {
        return Ok(Layer::off("tree", "no mount namespace to build it in"));
    }
    let plan = mount::resolve(order)?;
    let hidden = plan.enter()?;
    Ok(Layer::on("tree", format!("from nothing; proc {hidden}")))
}

/// The script's own process; returns only if it can't be executed.
fn become_script(order: &Order, handed: &Handed, layers: Vec<Layer>) -> Failure {
    match dress(order, handed, layers) {
        Err(failure) => failure,
        Ok(never) => match never {},
    }
}

fn dress(
    order: &Order,
    handed: &Handed,
    mut layers: Vec<Layer>,
) -> Result<std::convert::Infallible, Failure> {
    // First of all the gate, through which every failure from here on is told.
    step("gate", sys::place(&handed.gate, GATE))?;
    let gate = sys::placed(GATE);
    step(
        "gate",
        rustix::io::fcntl_setfd(gate, rustix::io::FdFlags::CLOEXEC),
    )?;
    step("stdin", sys::place(&handed.null, 0))?;
    if let Some(broker) = &handed.broker {
        step("broker", sys::place(broker, BROKER))?;
    }
    step("script", sys::place(&handed.script, SCRIPT))?;
    // The tree's sources, the keeper's socket and init's control go; what is left is listed here.
    step("close", sys::close_from(GATE + 1))?;
    layers.push(Layer::on(
        "descriptors",
        if handed.broker.is_some() {
            "0 1 2, broker 3, script 4"
        } else {
            "0 1 2, script 4"
        },
    ));
    // A process group of its own, so that SIGTERM reaches the script's children and not init.
    step("session", nix::unistd::setsid())?;
    layers.push(Layer::on("session", "own, no terminal"));
    // What the agent ignores or blocks, the script must not inherit.
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        step("signals", sys::default_action(signal))?;
    }
    step(
        "signals",
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None),
    )?;
    // The agent's own timers come first; and after the walls, which somebody waits for.
    rustix::process::nice(NICE).ok();
    layers.push(step("rlimits", rlimit::enter(order))?);
    layers.push(Layer::on(
        "environment",
        format!("{} variables, none inherited", order.environment.len()),
    ));
    let program = step(
        "interpreter",
        text(order.interpreter.as_os_str().as_bytes()),
    )?;
    let arguments = [
        program.clone(),
        step("script", text(SCRIPT_PATH.as_bytes()))?,
    ];
    let environment = order
        .environment
        .iter()
        .map(|(name, value)| text(format!("{name}={value}").as_bytes()));
    let environment: Vec<_> = step("environment", environment.collect::<io::Result<_>>())?;
    if namespace::stands(&layers, "tree") {
        step("directory", nix::unistd::chdir("/tmp"))?;
    }
    layers.extend(landlock::enter());
    layers.extend(capability::read_back(order.uid, order.powers));
    // Last: from here on only what the script itself may call.
    layers.push(seccomp::enter(&order.filters, order.powers));
    layers.push(namespace::network(&layers, order.powers));
    step("tell", message::send(gate, &Message::Ready(layers), &[]))?;
    match step("wait", message::receive_bytes(gate))? {
        Some((word, _)) if word == [message::GO] => {}
        // The parent said no by going away, or is gone.
        _ => sys::exit(REFUSED),
    }
    step("rlimits", rlimit::last(order))?;
    on(
        "execute",
        &order.interpreter,
        nix::unistd::execve(&program, &arguments, &environment),
    )
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Init's life.
struct Tended {
    script: Pid,
    contained: bool,
    end: Option<RawEnd>,
    leftovers: u32,
}

impl Tended {
    fn tend(&mut self, control: BorrowedFd<'_>, signals: &SignalFd) -> io::Result<()> {
        loop {
            let mut watched = [
                PollFd::new(control, PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let [spoken, died] = watched.map(|one| one.any().unwrap_or(true));
            if spoken {
                match message::receive_bytes(control)? {
                    Some((word, _)) if word == [message::TERMINATE] => {
                        // It may have ended meanwhile.
                        killpg(self.script, Signal::SIGTERM).ok();
                    }
                    _ => return self.finish(control),
                }
            }
            if died {
                signals.read_signal()?;
                while self.reap(Some(WaitPidFlag::WNOHANG)) {}
                if self.end.is_some() {
                    return self.finish(control);
                }
            }
        }
    }

    /// Kills what is left, counts it, tells the parent.
    fn finish(&mut self, control: BorrowedFd<'_>) -> io::Result<()> {
        self.leftovers = 0;
        loop {
            if self.contained {
                // Every process of the namespace but init; that there is none is the usual case.
                kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
            } else {
                for child in children() {
                    kill(child, Signal::SIGKILL).ok();
                }
            }
            if !self.reap(None) {
                break;
            }
        }
        let ended = Message::Ended {
            end: self.end.unwrap_or(RawEnd::Signalled(libc::SIGKILL)),
            leftovers: self.leftovers,
        };
        message::send(control, &ended, &[])?;
        sys::exit(0)
    }

    /// Reaps one process; false if there is none.
    fn reap(&mut self, flags: Option<WaitPidFlag>) -> bool {
        let (pid, end) = match waitpid(None, flags) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, RawEnd::Exited(status)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, RawEnd::Signalled(signal as i32)),
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) | Err(Errno::EINTR) => return true,
            Err(_) => return false,
        };
        if pid == self.script {
            self.end = Some(end);
        } else {
            self.leftovers += 1;
        }
        true
    }
}

/// Where there is no pid namespace: init's own children, to which all orphans come.
fn children() -> Vec<Pid> {
    let listed = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let pids = listed
        .split_whitespace()
        .filter_map(|word| word.parse().ok());
    pids.map(Pid::from_raw).collect()
}

const REFUSED: i32 = 125;
const BROKER: i32 = 3;
const SCRIPT: i32 = 4;
const GATE: i32 = 5;
const FIRST_FREE: i32 = 16;
const SCRIPT_PATH: &str = "/proc/self/fd/4";
const NICE: i32 = 5;
const MAP: &[u8] = b"map";
const ALIVE: &[u8] = b"alive";
