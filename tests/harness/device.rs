//! The device in the lab: its own `/etc`, state and sockets; daemon and executor as two users, started and restarted
//! as a service manager would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::binaries;
use crate::cloud::{Cloud, PORT, text};
use crate::lab::{CLOUD, DNS1, DNS2, GATEWAY, Lab, OTHER_NAME};
use crate::program::Program;
use crate::{shell, wait};

/// The daemon's user: any account without privileges that every Debian has.
pub const USER: &str = "daemon";

/// One device.
#[derive(Debug)]
pub struct Device {
    daemon: Option<Program>,
    executor: Option<Program>,
    netns: String,
    folder: PathBuf,
    program: PathBuf,
    mounts: Vec<(PathBuf, &'static str)>,
}

impl Device {
    /// Prepares files; nothing runs yet. Changes are allowed by its policy.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn new(lab: &Lab) -> Result<Self> {
        let device = Self::bare(lab.device.name(), lab.folder())?;
        device.furnish_etc(&format!(
            "# made by the lab\nnameserver {DNS1}\noptions timeout:1 attempts:1\n"
        ))?;
        device.write_config("")?;
        device.write_policy(POLICY)?;
        Ok(device)
    }

    /// A device in any namespace, without a fixed configuration; `/run`, `/var/lib` and `/var/log` are its own, too.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn secluded(netns: &str, folder: &Path, resolv_conf: &str, config: &str) -> Result<Self> {
        let mut device = Self::bare(netns, folder)?;
        for (own, place) in [
            ("var-run", "/run"),
            ("var-lib", "/var/lib"),
            ("var-log", "/var/log"),
        ] {
            let own = device.folder.join(own);
            fs::create_dir_all(&own)?;
            device.mounts.push((own, place));
        }
        device.furnish_etc(resolv_conf)?;
        let paths = format!(
            "[paths]\nstate = \"{}\"\nrun = \"{}\"\npolicy = \"/etc/aizen/policy.toml\"\n\n[daemon]\nuser = \"{USER}\"\n\n",
            device.state().display(),
            device.run_folder().display(),
        );
        fs::write(device.etc().join("aizen/aizen.toml"), paths + config)?;
        device.write_policy(POLICY)?;
        Ok(device)
    }

    fn bare(netns: &str, folder: &Path) -> Result<Self> {
        let folder = folder.join("device");
        let device = Self {
            daemon: None,
            executor: None,
            netns: netns.to_owned(),
            mounts: vec![(folder.join("etc"), "/etc")],
            folder,
            program: binaries::aizen()?,
        };
        for folder in ["etc/aizen", "state", "run"] {
            fs::create_dir_all(device.folder.join(folder))?;
        }
        Ok(device)
    }

    /// Takes another build of the device's program.
    pub fn use_program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    fn furnish_etc(&self, resolv_conf: &str) -> Result<()> {
        let etc = self.etc();
        for name in [
            "passwd",
            "group",
            "nsswitch.conf",
            "ld.so.cache",
            "alternatives",
            "protocols",
            "services",
        ] {
            let from = Path::new("/etc").join(name);
            if from.exists() {
                shell::run(Command::new("cp").arg("-a").arg(from).arg(&etc))?;
            }
        }
        fs::write(etc.join("resolv.conf"), resolv_conf)?;
        fs::write(etc.join("hosts"), "127.0.0.1 localhost\n")?;
        Ok(())
    }

    /// Writes the configuration: the lab's, and what is given.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write_config(&self, more: &str) -> Result<()> {
        let config = format!(
            "[paths]\nstate = \"{state}\"\nrun = \"{run}\"\npolicy = \"/etc/aizen/policy.toml\"\n\n[daemon]\nuser = \"{USER}\"\n\n\
             [device]\nrole = \"router\"\nwan = [\"wan\"]\nexpected_up = [\"wan\", \"lan0\"]\ngateway = \"{GATEWAY}\"\n\n\
             [collect]\nevery_s = 2\n\n[probe]\nanchors = [\"{CLOUD}\"]\nkernel_clock = false\nnames = [\"{OTHER_NAME}\"]\nresolvers = [\"{DNS2}\"]\n\n\
             [uplink]\nmax_backoff_s = 2\ndead_after_s = 4\n{more}",
            state = self.state().display(),
            run = self.run_folder().display(),
        );
        Ok(fs::write(self.etc().join("aizen/aizen.toml"), config)?)
    }

    /// Writes the policy on changes.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write_policy(&self, policy: &str) -> Result<()> {
        Ok(fs::write(self.etc().join("aizen/policy.toml"), policy)?)
    }

    /// The device's `/etc`.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.folder.join("etc")
    }

    /// The device's `/var/lib/aizen`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The daemon's socket.
    #[must_use]
    pub fn daemon_socket(&self) -> PathBuf {
        self.run_folder().join("daemon.sock")
    }

    /// The executor's socket.
    #[must_use]
    pub fn executor_socket(&self) -> PathBuf {
        self.run_folder().join("executor.sock")
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// A command that sees the device's network and `/etc`, as root.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.command_as(&[], program)
    }

    fn command_as(&self, become_user: &[&str], program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args([
                "netns",
                "exec",
                &self.netns,
                "sh",
                "-c",
                "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit 125; shift 2; done; shift; exec \"$@\"",
                "sh",
            ])
            .args(self.mounts.iter().flat_map(|(own, place)| [own.as_os_str(), place.as_ref()]))
            .arg("--")
            .args(become_user)
            .arg(program);
        command
    }

    /// `aizen WORDS` as root on the device.
    ///
    /// # Errors
    /// If the program is not built.
    pub fn aizen(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.command(text(&self.program)?);
        command.args(words);
        Ok(command)
    }

    /// Runs `aizen WORDS` and gives whatever came of it.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn try_aizen(&self, words: &[&str]) -> Result<Output> {
        shell::output(&mut self.aizen(words)?)
    }

    /// The same as another user, without any privilege.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn try_aizen_as(&self, user: &str, words: &[&str]) -> Result<Output> {
        let become_user = [&["setpriv", "--reuid", user][..], &UNPRIVILEGED].concat();
        shell::output(
            self.command_as(&become_user, text(&self.program)?)
                .args(words),
        )
    }

    /// Runs `aizen WORDS --json`, which must succeed.
    ///
    /// # Errors
    /// If it fails or gives no JSON.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let output = shell::run(self.aizen(words)?.arg("--json"))?;
        serde_json::from_str(&output).with_context(|| format!("{words:?} gave no JSON: {output}"))
    }

    /// Enrols at the cloud with a fresh token.
    ///
    /// # Errors
    /// If enrollment fails.
    pub fn enroll(&self, cloud: &Cloud) -> Result<String> {
        let token = cloud.token()?;
        shell::run(&mut self.aizen(&[
            "enroll",
            "--server",
            &format!("https://{}:{PORT}", cloud.name()),
            "--token",
            &token,
        ])?)
    }

    /// Starts executor and daemon.
    ///
    /// # Errors
    /// If one is not ready within ten seconds.
    pub fn start(&mut self) -> Result<()> {
        self.start_executor()?;
        self.start_daemon()
    }

    /// Starts the executor; it recovers first.
    ///
    /// # Errors
    /// If it does not listen within ten seconds.
    pub fn start_executor(&mut self) -> Result<()> {
        let mut command = self.command(text(&self.program)?);
        command
            .args(["executor", "--listen"])
            .env("RUST_LOG", "info");
        let socket = self.run_folder().join("executor.sock");
        fs::remove_file(&socket).ok();
        let mut program = Program::start(
            "aizen executor",
            &mut command,
            &self.folder.join("executor.log"),
        )?;
        program.wait_ready(Duration::from_secs(10), || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })?;
        self.executor = Some(program);
        Ok(())
    }

    /// Starts the daemon, without any privilege.
    ///
    /// # Errors
    /// If it does not listen within ten seconds.
    pub fn start_daemon(&mut self) -> Result<()> {
        let unprivileged = [
            "setpriv",
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
        ];
        let mut command = self.command_as(&unprivileged, text(&self.program)?);
        command.arg("daemon").env("RUST_LOG", "info");
        shell::run(Command::new("chown").arg(USER).arg(self.run_folder()))?;
        let socket = self.run_folder().join("daemon.sock");
        fs::remove_file(&socket).ok();
        let mut program = Program::start(
            "aizen daemon",
            &mut command,
            &self.folder.join("daemon.log"),
        )?;
        program.wait_ready(Duration::from_secs(10), || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })?;
        self.daemon = Some(program);
        Ok(())
    }

    /// The executor's process.
    ///
    /// # Errors
    /// If it was not started.
    pub fn executor(&mut self) -> Result<&mut Program> {
        self.executor
            .as_mut()
            .context("the executor was not started")
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// If it was not started.
    pub fn daemon(&mut self) -> Result<&mut Program> {
        self.daemon.as_mut().context("the daemon was not started")
    }

    /// The daemon's process id.
    ///
    /// # Errors
    /// If it was not started.
    pub fn daemon_pid(&self) -> Result<i32> {
        Ok(self
            .daemon
            .as_ref()
            .context("the daemon was not started")?
            .pid()
            .as_raw())
    }

    /// The executor's process id.
    ///
    /// # Errors
    /// If it was not started.
    pub fn executor_pid(&self) -> Result<i32> {
        Ok(self
            .executor
            .as_ref()
            .context("the executor was not started")?
            .pid()
            .as_raw())
    }

    /// Waits until the uplink is connected.
    ///
    /// # Errors
    /// If it is not within the time.
    pub fn wait_connected(&self, within: Duration) -> Result<()> {
        wait::until("the device's uplink", within, || {
            let status = self.ask(&["status"]).ok()?;
            (status["daemon"]["uplink"]["state"] == "connected").then_some(())
        })
    }

    /// Waits until the daemon has looked twice more: what is there at the call is then evidence.
    ///
    /// # Errors
    /// If it does not look within twenty seconds.
    pub fn wait_rounds(&self) -> Result<()> {
        // Its exit code tells of the executor, too, which need not run.
        let judged = || {
            let output = self.try_aizen(&["status", "--json"]).ok()?;
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            Some(status["daemon"]["health_at"].as_str()?.to_owned())
        };
        for _ in 0..2 {
            let before = wait::until("a verdict", Duration::from_secs(10), judged)?;
            wait::until("the next round", Duration::from_secs(10), || {
                judged().filter(|at| *at != before)
            })?;
        }
        Ok(())
    }

    /// What a value of this device is called upstream.
    ///
    /// # Errors
    /// If `aizen sanitize` fails.
    pub fn pseudonym(&self, value: &str) -> Result<String> {
        let file = self.folder.join("value.txt");
        fs::write(&file, value)?;
        let answer = shell::run(&mut self.aizen(&["sanitize", text(&file)?])?)?;
        Ok(answer.trim().to_owned())
    }

    /// What the device's programs said.
    #[must_use]
    pub fn said(&self) -> String {
        ["daemon.log", "executor.log"]
            .iter()
            .map(|name| {
                format!(
                    "== {name}\n{}",
                    fs::read_to_string(self.folder.join(name)).unwrap_or_default()
                )
            })
            .collect()
    }

    /// Everything that a change could touch, as text: for "before" and "after".
    ///
    /// # Errors
    /// If a command fails.
    pub fn state_of_network(&self) -> Result<String> {
        let mut all = String::new();
        for words in [
            "ip -o address show scope global",
            "ip route show table main",
            "ip -6 route show table main",
            "ip rule show",
            "ip -o link show up",
            "sysctl -a --pattern ^net\\.ipv4\\.(ip_forward|tcp_syncookies)$|somaxconn$|rp_filter$|accept_ra$|forwarding$",
            "cat /etc/resolv.conf",
            "stat -c %a:%U:%G:%s /etc/resolv.conf",
        ] {
            let mut parts = words.split(' ');
            let mut command = self.command(parts.next().context("a word")?);
            let said = shell::run(command.args(parts))?;
            all.push_str(&format!("# {words}\n"));
            said.lines().for_each(|line| all.push_str(&timeless(line)));
        }
        Ok(all)
    }
}

/// A line without what is left of lifetimes: that changes by itself.
fn timeless(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        kept.push(word);
        if ["expires", "valid_lft", "preferred_lft"].contains(&word) {
            words.next();
        }
    }
    kept.join(" ") + "\n"
}

const POLICY: &str =
    "allow_changes = true\nmin_isolation = 2\nfiles = [\"/etc/resolv.conf\", \"/etc/hosts\"]\n";

const UNPRIVILEGED: [&str; 6] = [
    "--regid",
    "nogroup",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];
