//! One running guest: started, given scripts, killed.
//!
//! The guest's `/` is this machine's file system, read-only below a tmpfs; at `/run/vm` it shares a folder with this
//! process. Scripts and their results are files there; a serial port says which script is next.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::disk::Disk;
use super::kernel::Kernel;
use crate::program::Program;

/// Longest boot: ten times what an idle machine with two processors needs without KVM, with systemd.
const BOOT: Duration = Duration::from_secs(400);

/// What runs first in the guest: the rest of the machine, the guest's own start, then whatever is asked for.
const BOOT_SCRIPT: &str = r#"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
cd /
mkdir -p /run/lock /dev/pts /dev/shm
mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd; ln -s fd/0 /dev/stdin; ln -s fd/1 /dev/stdout; ln -s fd/2 /dev/stderr
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t securityfs security /sys/kernel/security
mkdir -p /lib/modules; ln -s "$(cat /run/vm/modules)" "/lib/modules/$(uname -r)"
ip link set lo up; hostname guest
exec 3</dev/ttyS1; stty raw -echo <&3
. /run/vm/start
: >/run/vm/up
while read -r name <&3; do
  ( sh "/run/vm/$name.sh" >"/run/vm/$name.out" 2>&1
    echo $? >"/run/vm/$name.rc.new"; mv "/run/vm/$name.rc.new" "/run/vm/$name.rc" ) &
done
"#;

/// How a guest is made.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Its kernel.
    pub kernel: &'a Kernel,
    /// Memory, MiB.
    pub memory: u32,
    /// Its disk, `/dev/vda`.
    pub disk: Option<&'a Disk>,
    /// Shell lines that run at its start, before it counts as up.
    pub start: &'a str,
}

/// One guest. Killed when dropped.
#[derive(Debug)]
pub struct Machine {
    qemu: Program,
    share: PathBuf,
    console: PathBuf,
    port: UnixStream,
    scripts: u32,
}

/// A script that runs in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    out: PathBuf,
    code: PathBuf,
}

impl Job {
    /// Its exit code, once it ended.
    #[must_use]
    pub fn ended(&self) -> Option<i32> {
        fs::read_to_string(&self.code).ok()?.trim().parse().ok()
    }

    /// What it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        let said = fs::read(&self.out).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Machine {
    /// Starts a guest in an empty folder of its own; it is not up yet.
    ///
    /// # Errors
    /// If qemu does not start.
    pub fn start(shape: &Shape<'_>, folder: &Path) -> Result<Self> {
        let share = folder.join("share");
        fs::create_dir_all(&share)?;
        fs::write(share.join("boot"), BOOT_SCRIPT)?;
        fs::write(share.join("start"), shape.start)?;
        fs::write(
            share.join("modules"),
            shape.kernel.modules.as_os_str().as_encoded_bytes(),
        )?;
        let console = folder.join("console");
        let socket = folder.join("port");
        let mut qemu = Program::start(
            "qemu",
            &mut command(shape, &share, &console, &socket),
            &folder.join("qemu.log"),
        )?;
        let mut port = None;
        qemu.wait_ready(Duration::from_secs(60), || {
            port = UnixStream::connect(&socket).ok();
            port.is_some()
        })?;
        Ok(Self {
            qemu,
            share,
            console,
            port: port.context("no serial port")?,
            scripts: 0,
        })
    }

    /// The folder that it shares with this process: its `/run/vm`.
    #[must_use]
    pub fn share(&self) -> &Path {
        &self.share
    }

    /// Waits until it is up; false if `meanwhile` said that there is no more to wait for.
    ///
    /// # Errors
    /// If it ends or is not up in time: with the end of what its console shows.
    pub fn wait_up(&mut self, meanwhile: impl Fn() -> bool) -> Result<bool> {
        let up = self.share.join("up");
        let mut given_up = false;
        let ready = self.qemu.wait_ready(BOOT, || {
            given_up = meanwhile();
            given_up || up.exists()
        });
        ready.with_context(|| format!("the guest did not come up: {}", self.console()))?;
        Ok(!given_up)
    }

    /// The last lines of its console.
    #[must_use]
    pub fn console(&self) -> String {
        let all = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&all).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Starts a script in it.
    ///
    /// # Errors
    /// If the guest is gone.
    pub fn begin(&mut self, script: &str) -> Result<Job> {
        self.scripts += 1;
        let name = format!("job{}", self.scripts);
        fs::write(self.share.join(format!("{name}.sh")), script)?;
        writeln!(self.port, "{name}").context("the guest is gone")?;
        Ok(Job {
            out: self.share.join(format!("{name}.out")),
            code: self.share.join(format!("{name}.rc")),
        })
    }

    /// Waits for the end of a script; none if `meanwhile` said that there is no more to wait for.
    ///
    /// # Errors
    /// If it does not end in time, or the guest ends.
    pub fn wait(
        &mut self,
        job: &Job,
        within: Duration,
        meanwhile: impl Fn() -> bool,
    ) -> Result<Option<i32>> {
        let mut ended = None;
        self.qemu
            .wait_ready(within, || {
                ended = job.ended();
                ended.is_some() || meanwhile()
            })
            .with_context(|| {
                format!("a script in the guest: {}\n{}", job.said(), self.console())
            })?;
        Ok(ended)
    }

    /// Runs a script that must succeed, and gives what it said.
    ///
    /// # Errors
    /// If it fails or does not end in time.
    pub fn run(&mut self, script: &str, within: Duration) -> Result<String> {
        let job = self.begin(script)?;
        match self.wait(&job, within, || false)? {
            Some(0) => Ok(job.said()),
            code => bail!("a script in the guest ended with {code:?}: {}", job.said()),
        }
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// If qemu can't be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.qemu.kill().map(drop)
    }
}

fn command(shape: &Shape<'_>, share: &Path, console: &Path, socket: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    // TCG: nested KVM is not to be had on the machines that this runs on.
    command
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi,tb-size=256",
            "-cpu",
            "max",
        ])
        .args(["-smp", "2", "-m", &shape.memory.to_string()])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(&shape.kernel.image)
        .arg("-initrd")
        .arg(&shape.kernel.initramfs)
        .args([
            "-append",
            "console=ttyS0 panic=-1 mitigations=off quiet net.ifnames=0",
        ])
        .args(["-serial", &format!("file:{}", console.display())])
        .args([
            "-chardev",
            &format!(
                "socket,id=port,path={},server=on,wait=off",
                socket.display()
            ),
        ])
        .args(["-serial", "chardev:port"])
        .args(["-device", "virtio-rng-pci", "-rtc", "base=utc"])
        .args([
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ])
        .arg("-virtfs")
        .arg(format!(
            "local,path={},mount_tag=share,security_model=none,multidevs=remap",
            share.display()
        ));
    if let Some(disk) = shape.disk {
        command.args([
            "-drive",
            &format!(
                "file={},format=raw,if=virtio,cache=writeback",
                disk.address()
            ),
        ]);
    }
    command
}
