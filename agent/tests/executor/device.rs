//! A device of its own for one test: state, policy, a root with `/etc`, keys of everybody, and the executor's process.

use std::fs;
use std::future::Future;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use aizen_agent::control::Connection;
use aizen_agent::execute;
use aizen_agent::executor::{self, Settings};
use aizen_agent::keeper::{self, KEEP_WORD};
use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::{ChangeId, Digest, PackageId};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::outcome::Outcome;
use aizen_protocol::package::manifest::{Class, Confirm, Limits, Manifest, Probe};
use aizen_protocol::package::{DeliveryMode, Package, SCHEMA, Script, Target};
use aizen_protocol::reason::Reason;
use aizen_protocol::statement::{Confirmation, Delivery};
use aizen_protocol::trust::{Role, TrustDocument, TrustedKey};
use jiff::{Timestamp, ToSpan as _};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What `/etc/resolv.conf` holds before every test.
pub(crate) const BEFORE: &str = "nameserver 192.0.2.53\n";
/// A script that changes it, and a kernel parameter.
pub(crate) const MEND: &str = "set -e\nprintf 'nameserver 192.0.2.54\\n' | change file write /etc/resolv.conf\nchange sysctl net.ipv4.ip_forward=1\n";
/// What it holds afterwards.
pub(crate) const AFTER: &str = "nameserver 192.0.2.54\n";

/// No source, type or options of a mount.
pub(crate) const NONE: Option<&str> = None;

/// A user that nothing of this machine runs as.
const SCRIPT_USER: u32 = 61_837;

pub(crate) const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

pub(crate) struct Device {
    folder: tempfile::TempDir,
    pub(crate) approver: PrivateKey,
    pub(crate) orchestrator: PrivateKey,
    pub(crate) result: PrivateKey,
    executor: Option<Child>,
}

/// Runs one test in a network namespace of its own.
pub(crate) fn with_device<F: Future<Output = ()>>(test: impl FnOnce(Device) -> F) {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests run as root");
    // What a test mounts ends with it.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    fs::write(FORWARD, "0").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(Device::new()));
}

fn run(program: &str, words: &[&str]) {
    assert!(
        Command::new(program)
            .args(words)
            .status()
            .unwrap()
            .success()
    );
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let key = || PrivateKey::generate().unwrap();
        let device = Self {
            folder,
            approver: key(),
            orchestrator: key(),
            result: key(),
            executor: None,
        };
        fs::create_dir_all(device.path("root/etc")).unwrap();
        fs::write(device.resolv_conf(), BEFORE).unwrap();
        fs::set_permissions(device.resolv_conf(), fs::Permissions::from_mode(0o640)).unwrap();
        device.policy("allow_changes = true\nmin_isolation = 1\nrehearsed_only = false\n");
        device.enrol();
        device
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn policy(&self, text: &str) {
        fs::write(self.path("policy.toml"), text).unwrap();
    }

    /// A device whose operator made no user for scripts with capabilities.
    pub(crate) fn without_script_user(&self) {
        fs::write(self.path("no-user"), "").unwrap();
    }

    fn enrol(&self) {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(self.path("state"))
            .unwrap();
        let root = PrivateKey::generate().unwrap();
        let key = |key: &PrivateKey, role| TrustedKey {
            key: key.public(),
            role,
            name: "someone".into(),
            classes: vec![Class::Diagnose, Class::Repair, Class::Direct],
            until: Timestamp::now() + 24.hours(),
        };
        let trust = TrustDocument {
            version: 1,
            issued_at: Timestamp::now() - 1.hour(),
            expires: Timestamp::now() + 24.hours(),
            threshold: 1,
            roots: vec![root.public()],
            keys: vec![
                key(&self.approver, Role::Approver),
                key(&self.orchestrator, Role::Orchestrator),
            ],
            revoked: Vec::new(),
        };
        let payload = serde_json::to_vec(&trust).unwrap();
        let envelope = Envelope::sign(PayloadType::Trust, &payload, &[&root]);
        for (name, bytes) in [
            ("trust.json", serde_json::to_vec(&envelope).unwrap()),
            (
                "enrolled.json",
                br#"{"device":"dev-1","epoch":"ep-1","server":"x"}"#.to_vec(),
            ),
            ("epoch", b"ep-1".to_vec()),
            (
                "result.key",
                self.result.to_pem().unwrap().as_bytes().to_vec(),
            ),
        ] {
            fs::write(self.path("state").join(name), bytes).unwrap();
        }
        fs::write(self.path("sanitizer.key"), [7; 32]).unwrap();
        fs::set_permissions(
            self.path("sanitizer.key"),
            fs::Permissions::from_mode(0o640),
        )
        .unwrap();
    }

    pub(crate) fn settings(&self) -> Settings {
        settings(self.folder.path())
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.path("root/etc/resolv.conf")
    }

    /// Everything that the tests' scripts could touch, with what is not content too.
    pub(crate) fn picture(&self) -> String {
        let meta = fs::metadata(self.resolv_conf()).unwrap();
        format!(
            "{}{:o} {} {} {} {}\n{}\n{:?}",
            fs::read_to_string(self.resolv_conf()).unwrap(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            fs::read_to_string(FORWARD).unwrap(),
            fs::read_dir(self.path("root/etc"))
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect::<Vec<_>>()
        )
    }

    /// Starts the executor's process.
    pub(crate) fn spawn(&mut self) {
        let child = Command::new("/proc/self/exe")
            .args(["role", "executor"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.executor = Some(child);
    }

    /// Starts the executor's process and waits until it answers.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        // The socket is there before the recovery is done; the first answer comes after it. One that was killed may
        // have left its socket to a child that ends a moment later.
        let since = Instant::now();
        loop {
            let status = self.try_ask(&ExecutorRequest::Status).await;
            if let Some(ExecutorAnswer::Status(_)) = status {
                return;
            }
            assert!(
                since.elapsed() < patience() * Duration::from_secs(60),
                "the executor does not answer"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// After a restart the network has so long to come up, seconds.
    pub(crate) fn settles_within(&self, seconds: u64) {
        fs::write(self.path("settle"), seconds.to_string()).unwrap();
    }

    /// Waits until no change is open: after a restart its end is told once the network is up.
    pub(crate) async fn told(&self) {
        let since = Instant::now();
        loop {
            // One that was held back is told when somebody asks.
            self.ask(ExecutorRequest::Outcomes).await;
            let status = self.ask(ExecutorRequest::Status).await;
            if matches!(status, ExecutorAnswer::Status(status) if status.pending.is_none()) {
                return;
            }
            assert!(
                since.elapsed() < patience() * Duration::from_secs(120),
                "the end is not told"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it says; none if it is gone.
    pub(crate) async fn try_ask(&self, request: &ExecutorRequest) -> Option<ExecutorAnswer> {
        let connection = Connection::connect(&self.path("executor.sock")).await;
        connection.ok()?.ask(request).await.ok()
    }

    /// The number of the executor's process; it lives.
    pub(crate) fn executor_id(&self) -> u32 {
        let id = self.executor.as_ref().unwrap().id();
        let line = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        assert!(!line.contains(") Z "), "the executor has ended");
        id
    }

    /// Takes an executor that was started in another way.
    pub(crate) fn adopt(&mut self, child: Child) {
        self.executor = Some(child);
    }

    /// True while the executor's process is there.
    pub(crate) fn lives(&mut self) -> bool {
        let executor = self.executor.as_mut();
        executor.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// What a power cut or a service manager ends: the executor, and the keeper beside it.
    pub(crate) fn kill(&mut self) {
        self.kill_alone();
        self.kill_keepers();
    }

    /// `kill -9` of every keeper of this device.
    pub(crate) fn kill_keepers(&self) {
        loop {
            let keepers = self.keepers();
            if keepers.is_empty() {
                return;
            }
            for keeper in keepers {
                // It may have ended meanwhile.
                kill(keeper, Signal::SIGKILL).ok();
            }
        }
    }

    /// The living keepers of this device.
    pub(crate) fn keepers(&self) -> Vec<Pid> {
        let state = self.path("state");
        let keeps = |line: &[u8]| {
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words
                .get(1)
                .is_some_and(|word| *word == KEEP_WORD.as_bytes())
                && words
                    .get(2)
                    .is_some_and(|word| *word == state.as_os_str().as_bytes())
        };
        let found = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let id = entry.file_name().to_string_lossy().parse::<i32>().ok()?;
                // One that ended has no words any more.
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                keeps(&line).then_some(Pid::from_raw(id))
            });
        found.collect()
    }

    /// Another grace and margin than a device's; from the next start on.
    pub(crate) fn keeper_waits(&self, grace: Duration, margin: Duration) {
        let text = format!("{} {}", grace.as_millis(), margin.as_millis());
        fs::write(self.path("keeper"), text).unwrap();
    }

    /// `kill -9` of the executor alone.
    pub(crate) fn kill_alone(&mut self) {
        if let Some(mut child) = self.executor.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.path("executor.sock"))
            .await
            .unwrap()
    }

    pub(crate) async fn ask(&self, request: ExecutorRequest) -> ExecutorAnswer {
        self.connect().await.ask(&request).await.unwrap()
    }

    /// A package that mends, confirmed on the spot.
    pub(crate) fn package(&self, script: &str) -> Package {
        Package {
            schema: SCHEMA,
            id: PackageId::fresh(),
            issuer: "test".into(),
            trust_version: 1,
            issued_at: Timestamp::now() - 1.minute(),
            not_before: Timestamp::now() - 1.minute(),
            expires: Timestamp::now() + 1.hour(),
            target: vec![Target {
                device: "dev-1".parse().unwrap(),
                epoch: "ep-1".parse().unwrap(),
            }],
            interpreter: "/bin/sh".into(),
            script: Script::of(script.as_bytes()),
            bindings: Vec::new(),
            manifest: Manifest {
                class: Class::Repair,
                min_isolation: 1,
                timeout_s: 30,
                risk: None,
                operations: serde_json::from_str(
                    r#"[{"file":{"write":"/etc/resolv.conf"}},{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}]"#,
                )
                .unwrap(),
                capabilities: Vec::new(),
                read: Vec::new(),
                limits: Limits::default(),
                confirm: Confirm {
                    within_s: 60,
                    stable_s: 0,
                    probes: vec![Probe::Ping("127.0.0.1".into())],
                },
            },
            delivery: DeliveryMode::OnSite,
            intent: "mend".into(),
            evidence: Vec::new(),
            effect: None,
            correlation_id: "cor-1".parse().unwrap(),
        }
    }

    pub(crate) fn sign(&self, package: &Package) -> Envelope {
        let payload = package.to_payload().unwrap();
        Envelope::sign(PayloadType::Package, &payload, &[&self.approver])
    }

    pub(crate) fn deliver(&self, package: &Envelope) -> Envelope {
        let statement = Delivery {
            package: Digest::of(&package.unverified_payload().unwrap()),
            device: "dev-1".parse().unwrap(),
            deadline: Timestamp::now() + 10.minutes(),
        };
        let payload = serde_json::to_vec(&statement).unwrap();
        Envelope::sign(PayloadType::Delivery, &payload, &[&self.orchestrator])
    }

    pub(crate) fn confirmation(&self, confirmation: &Confirmation, key: &PrivateKey) -> Envelope {
        let payload = serde_json::to_vec(confirmation).unwrap();
        Envelope::sign(PayloadType::Confirm, &payload, &[key])
    }

    /// Hands a package to the executor; the connection then tells its life.
    pub(crate) async fn execute(
        &self,
        package: Envelope,
        delivery: Option<Envelope>,
    ) -> Connection {
        let mut connection = self.connect().await;
        let request = ExecutorRequest::Execute {
            package,
            delivery,
            bindings: Bindings::new(),
        };
        connection.send(&request).await.unwrap();
        connection
    }

    /// The signed outcomes that wait, each checked against this device's key.
    pub(crate) async fn outcomes(&self) -> Vec<Outcome> {
        let ExecutorAnswer::Outcomes { outcomes } = self.ask(ExecutorRequest::Outcomes).await
        else {
            panic!("no outcomes");
        };
        outcomes.iter().map(|o| self.believe(o)).collect()
    }

    pub(crate) fn believe(&self, outcome: &Envelope) -> Outcome {
        let known = [self.result.public()];
        let opened = outcome.open(PayloadType::Outcome, known.iter()).unwrap();
        serde_json::from_slice(opened.payload()).unwrap()
    }

    /// What another process of this machine is told when it asks.
    pub(crate) fn ask_as(&self, uid: u32, request: &ExecutorRequest) -> ExecutorAnswer {
        self.try_ask_as(uid, request).expect("an answer")
    }

    /// The same; none if the executor is gone.
    pub(crate) fn try_ask_as(&self, uid: u32, request: &ExecutorRequest) -> Option<ExecutorAnswer> {
        let output = Command::new("/proc/self/exe")
            .args(["role", "ask"])
            .arg(self.path("executor.sock"))
            .arg(serde_json::to_string(request).unwrap())
            .uid(uid)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut child) = self.executor.take() {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
        }
        self.kill_keepers();
    }
}

/// Answers until one is found that `wanted` takes.
pub(crate) async fn until<T>(
    connection: &mut Connection,
    mut wanted: impl FnMut(&ExecutorAnswer) -> Option<T>,
) -> T {
    let read = async {
        loop {
            let answer: ExecutorAnswer = connection.recv().await.unwrap().expect("an answer");
            if let Some(found) = wanted(&answer) {
                return found;
            }
            if let ExecutorAnswer::Refused(refusal) = &answer {
                panic!("refused: {refusal:?}");
            }
            if let ExecutorAnswer::Ended { local, .. } = &answer {
                panic!(
                    "ended before: {:?} {} {:?}",
                    local.end, local.detail, local.script
                );
            }
        }
    };
    tokio::time::timeout(patience() * Duration::from_secs(60), read)
        .await
        .expect("an answer in time")
}

/// The end of a change: with real values, and as it is signed.
pub(crate) async fn ended(connection: &mut Connection) -> (Outcome, Envelope) {
    until(connection, |answer| match answer {
        ExecutorAnswer::Ended { local, signed } => Some(((**local).clone(), signed.clone())),
        _ => None,
    })
    .await
}

/// The change that asks to be confirmed on the spot.
pub(crate) async fn wants_on_site(connection: &mut Connection) -> ChangeId {
    until(connection, |answer| match answer {
        ExecutorAnswer::ConfirmOnSiteWanted { change, .. } => Some(change.clone()),
        _ => None,
    })
    .await
}

/// Why it was refused.
pub(crate) async fn refused(connection: &mut Connection) -> Reason {
    until(connection, |answer| match answer {
        ExecutorAnswer::Refused(refusal) => Some(refusal.reason),
        _ => None,
    })
    .await
}

fn settings(folder: &Path) -> Settings {
    let settle = fs::read_to_string(folder.join("settle")).unwrap_or_default();
    let settle = settle.parse().unwrap_or(60);
    Settings {
        state: folder.join("state"),
        sanitizer_key: folder.join("sanitizer.key"),
        policy: folder.join("policy.toml"),
        root: folder.join("root"),
        keeper: keeping(folder),
        settle: patience() * Duration::from_secs(settle),
        execute: execute::Settings {
            direct_user: Some((SCRIPT_USER, SCRIPT_USER))
                .filter(|_| !folder.join("no-user").exists()),
            ..execute::Settings::default()
        },
        ..Settings::default()
    }
}

fn keeping(folder: &Path) -> keeper::Settings {
    let mut settings = keeper::Settings::default();
    if let Ok(text) = fs::read_to_string(folder.join("keeper")) {
        let (grace, margin) = text.split_once(' ').unwrap();
        settings.grace = Duration::from_millis(grace.parse().unwrap());
        settings.margin = Duration::from_millis(margin.parse().unwrap());
    }
    settings
}

/// This program as something else; none if it was not asked to.
pub(crate) fn play_role(words: &[String]) -> Option<ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["role", "executor", folder] => Some(executor(Path::new(folder))),
        ["role", "ask", socket, request] => Some(ask(Path::new(socket), request)),
        ["role", "rounds", ..] => crate::rounds::play(&words),
        [KEEP_WORD, ..] => Some(match keeper::main() {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }),
        [aizen_agent::rehearse::SHADOW_WORD, ..] => aizen_agent::rehearse::shadow_main(),
        _ => None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn executor(folder: &Path) -> ExitCode {
    // It ends with the test, however the test ends.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let listener = aizen_agent::control::listen(&folder.join("executor.sock"), 0o666).unwrap();
    match runtime().block_on(executor::run(settings(folder), listener, None)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(socket: &Path, request: &str) -> ExitCode {
    let request: ExecutorRequest = serde_json::from_str(request).unwrap();
    let answer: ExecutorAnswer = runtime().block_on(async {
        let mut connection = Connection::connect(socket).await.unwrap();
        connection.ask(&request).await.unwrap()
    });
    println!("{}", serde_json::to_string(&answer).unwrap());
    ExitCode::SUCCESS
}

/// How much longer than usual a slow machine is waited for, as in the lab (`AIZEN_PATIENCE`).
fn patience() -> u32 {
    let told = std::env::var("AIZEN_PATIENCE").ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// Waits until it holds.
pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(
            since.elapsed() < patience() * Duration::from_secs(20),
            "{what} did not happen"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// True while a process with this text on its command line lives.
pub(crate) fn runs(text: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let id = entry.file_name().to_string_lossy().parse::<i32>();
        id.is_ok_and(|id| {
            fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
                && kill(Pid::from_raw(id), None).is_ok()
        })
    })
}
