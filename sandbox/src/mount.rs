//! The script's tree: built from nothing, never masked.
//!
//! Every source is resolved to a descriptor before the first mount is made, and what is bound is the descriptor: a path
//! that is swapped for a symbolic link meanwhile changes nothing (CVE-2026-34078 was that race elsewhere).

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, pivot_root};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};

use crate::message::Order;

/// Where the `change` tool stands: a directory of its own, because nothing can be added to a read-only `/usr/bin`.
pub(crate) const TOOLS: &str = "/run/aizen/bin";

/// The step that failed, on what, and why.
#[derive(Debug)]
pub(crate) struct MountError {
    pub(crate) subject: PathBuf,
    pub(crate) source: io::Error,
}

fn at<E: Into<io::Error>>(subject: &Path) -> impl FnOnce(E) -> MountError {
    move |error| MountError {
        subject: subject.to_path_buf(),
        source: error.into(),
    }
}

enum Kind {
    ReadOnly,
    Device,
}

struct Resolved {
    descriptor: OwnedFd,
    directory: bool,
    target: PathBuf,
    kind: Kind,
}

/// What the tree is made of; holds descriptors of the host's files.
pub(crate) struct Plan {
    links: Vec<(PathBuf, PathBuf)>,
    binds: Vec<Resolved>,
    scratch_bytes: u64,
    uid: u32,
    gid: u32,
}

/// Resolves everything that will be bound. In the new mount namespace: a descriptor from the old one can't be bound.
pub(crate) fn resolve(order: &Order) -> Result<Plan, MountError> {
    let nowhere = Path::new("/");
    // Nothing that is mounted from here on reaches the host, and the host's mounts don't reach in.
    mount(
        None::<&CStr>,
        nowhere,
        None::<&CStr>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&CStr>,
    )
    .map_err(at(nowhere))?;
    let mut plan = Plan {
        links: DEVICE_LINKS
            .iter()
            .map(|(name, target)| (Path::new("/dev").join(name), PathBuf::from(target)))
            .collect(),
        binds: Vec::new(),
        scratch_bytes: order.limits.scratch_bytes,
        uid: order.uid,
        gid: order.gid,
    };
    for place in MINIMAL_ROOT {
        let place = Path::new(place);
        match fs::symlink_metadata(place) {
            // Merged /usr: the link is what programs expect, not a second copy.
            Ok(found) if found.is_symlink() => {
                let target = fs::read_link(place).map_err(at(place))?;
                plan.links.push((place.to_path_buf(), target));
            }
            Ok(_) => plan.bind(place, place, Kind::ReadOnly)?,
            // Not every system has all of them.
            Err(_) => {}
        }
    }
    for device in DEVICES.iter().map(Path::new).filter(|path| path.exists()) {
        plan.bind(device, device, Kind::Device)?;
    }
    if !MINIMAL_ROOT
        .iter()
        .any(|place| order.interpreter.starts_with(place))
    {
        plan.bind(&order.interpreter, &order.interpreter, Kind::ReadOnly)?;
    }
    for read in &order.reads {
        plan.bind(&read.source, &read.target, Kind::ReadOnly)?;
    }
    if let Some(tool) = &order.change_tool {
        plan.bind(tool, &Path::new(TOOLS).join("change"), Kind::ReadOnly)?;
    }
    Ok(plan)
}

impl Plan {
    fn bind(&mut self, source: &Path, target: &Path, kind: Kind) -> Result<(), MountError> {
        let descriptor = open(source).map_err(at(source))?;
        let found = rustix::fs::fstat(&descriptor).map_err(at(source))?;
        let found = FileType::from_raw_mode(found.st_mode);
        let fits = match kind {
            Kind::ReadOnly => matches!(found, FileType::Directory | FileType::RegularFile),
            Kind::Device => found == FileType::CharacterDevice,
        };
        if !fits {
            // A socket or device would be a door, whatever the mount's flags say.
            return Err(at(source)(io::Error::from_raw_os_error(libc::EMEDIUMTYPE)));
        }
        self.binds.push(Resolved {
            descriptor,
            directory: found == FileType::Directory,
            target: target.to_path_buf(),
            kind,
        });
        Ok(())
    }

    /// Builds the tree and makes it the root; the old one is gone afterwards. Says what `/proc` hides.
    pub(crate) fn enter(&self) -> Result<String, MountError> {
        let base = BASES.iter().map(Path::new).find(|path| path.is_dir());
        let base = base.ok_or(MountError {
            subject: PathBuf::from(BASES[0]),
            source: io::ErrorKind::NotFound.into(),
        })?;
        tmpfs(base, "size=1m,nr_inodes=4096,mode=0755", MsFlags::MS_NOEXEC)?;
        let inside = |path: &Path| base.join(path.strip_prefix("/").unwrap_or(path));
        for name in ["/proc", "/dev", "/tmp", "/run"] {
            directory(&inside(Path::new(name)))?;
        }
        for bind in &self.binds {
            bind.attach(&inside(&bind.target))?;
        }
        for (link, target) in &self.links {
            let link = inside(link);
            if let Some(parent) = link.parent() {
                directory(parent)?;
            }
            symlink(target, &link).map_err(at(&link))?;
        }
        let hidden = process_files(&inside(Path::new("/proc")))?;
        self.scratch(&inside(Path::new("/tmp")))?;
        seal(base)?;
        become_root(base)?;
        Ok(hidden)
    }

    fn scratch(&self, place: &Path) -> Result<(), MountError> {
        // One inode for each 4 KiB: the room for names is bounded like the room for bytes.
        let inodes = (self.scratch_bytes >> 12).max(64);
        let options = format!(
            "size={},nr_inodes={inodes},mode=0700,uid={},gid={}",
            self.scratch_bytes, self.uid, self.gid
        );
        tmpfs(place, &options, MsFlags::MS_NOEXEC)
    }
}

impl Resolved {
    fn attach(&self, target: &Path) -> Result<(), MountError> {
        if self.directory {
            directory(target)?;
        } else {
            if let Some(parent) = target.parent() {
                directory(parent)?;
            }
            if !target.exists() {
                File::create(target).map_err(at(target))?;
            }
        }
        let source = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        // Without MS_REC: what is mounted below the source was not granted.
        let bind = MsFlags::MS_BIND;
        mount(
            Some(source.as_str()),
            target,
            None::<&CStr>,
            bind,
            None::<&CStr>,
        )
        .map_err(at(target))?;
        let kept = rustix::fs::fstatvfs(&self.descriptor).map_err(at(target))?;
        let mut flags = bind | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID;
        flags |= match self.kind {
            Kind::ReadOnly => MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
            Kind::Device => MsFlags::MS_NOEXEC,
        };
        // In a container the source's own restrictions are locked: leaving one out would be refused.
        if kept.f_flag.contains(StatVfsMountFlags::NOEXEC) {
            flags |= MsFlags::MS_NOEXEC;
        }
        if kept.f_flag.contains(StatVfsMountFlags::RDONLY) {
            flags |= MsFlags::MS_RDONLY;
        }
        mount(None::<&CStr>, target, None::<&CStr>, flags, None::<&CStr>).map_err(at(target))
    }
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), resolve) {
        // Before Linux 5.6.
        Err(rustix::io::Errno::NOSYS) => rustix::fs::open(path, flags, Mode::empty()),
        result => result,
    }
}

fn directory(path: &Path) -> Result<(), MountError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(path).map_err(at(path))
}

fn tmpfs(place: &Path, options: &str, more: MsFlags) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | more;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options)).map_err(at(place))
}

/// As much of `/proc` hidden as this kernel can: without `subset=pid` (Linux 5.8) its other files are there, owned by a
/// root that the script isn't.
fn process_files(place: &Path) -> Result<String, MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for options in ["hidepid=invisible,subset=pid", "hidepid=2"] {
        match mount(Some("proc"), place, Some("proc"), flags, Some(options)) {
            Ok(()) => return Ok(options.to_owned()),
            Err(error) => refused = error.into(),
        }
    }
    Err(at(place)(refused))
}

fn seal(base: &Path) -> Result<(), MountError> {
    fs::set_permissions(base, Permissions::from_mode(0o755)).map_err(at(base))?;
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(None::<&CStr>, base, None::<&CStr>, flags, None::<&CStr>).map_err(at(base))
}

fn become_root(base: &Path) -> Result<(), MountError> {
    chdir(base).map_err(at(base))?;
    match pivot_root(".", ".") {
        // The old root now lies on top of the new one.
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).map_err(at(base))?,
        // The first root file system (an initramfs) can't be pivoted away, but it can be covered.
        Err(_) => {
            let (here, over) = (Path::new("."), Path::new("/"));
            mount(
                Some(here),
                over,
                None::<&CStr>,
                MsFlags::MS_MOVE,
                None::<&CStr>,
            )
            .map_err(at(over))?;
            chroot(here).map_err(at(over))?;
        }
    }
    chdir("/").map_err(at(Path::new("/")))
}

/// The interpreter's neighbourhood: programs, libraries, and the two files of `/etc` that only say where those are.
const MINIMAL_ROOT: [&str; 11] = [
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib64",
    "/etc/alternatives",
    "/etc/ld.so.cache",
];

const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Any directory will do to build on: the mount is seen by nobody else.
const BASES: [&str; 3] = ["/tmp", "/run", "/var"];
