//! Where a file is: found without being led astray, read with all that belongs to it, replaced in one step.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aizen_protocol::limit;
use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, Timespec, Timestamps,
    XattrFlags,
};
use rustix::io::Errno;

use super::{FileError, FileState, Regular, Xattr, plain};

/// Most that the extended attributes of one file may take, bytes.
const XATTRS: usize = 64 << 10;
/// How often openat2(2) is asked again (its manual: "EAGAIN").
const TRIES: usize = 1000;
/// Magic numbers (linux/magic.h) of file systems in which a write is an order to the kernel: proc, sysfs, cgroup,
/// cgroup2, debugfs, tracefs, securityfs, bpf, devpts, selinuxfs, efivarfs, configfs.
const ORDERS: [u32; 12] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1cd1,
    0xf97c_ff8c,
    0xde5e_81e4,
    0x6265_6570,
];

/// The folder of a file, held open so that nobody can swap it, and the file's name in it.
pub(crate) struct Place {
    folder: OwnedFd,
    name: String,
    /// As people know it.
    path: String,
    /// Where it is, links followed.
    target: String,
}

impl Place {
    /// Finds the folder of `path` below `root`. A symbolic link on the way or at the end is followed inside the root
    /// and taken only if `granted` knows where it ends.
    pub(crate) fn find(
        root: &Path,
        path: &str,
        granted: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Self>, FileError> {
        plain(path)?;
        let system = |doing| {
            move |e: Errno| FileError::System {
                path: path.to_owned(),
                doing,
                source: e.into(),
            }
        };
        let root = rustix::fs::open(
            root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(system("open the root"))?;
        let Some(target) = resolve(root.as_fd(), path)? else {
            return Ok(None);
        };
        if target != path && !granted(&target) {
            return Err(FileError::LeadsAway {
                path: path.to_owned(),
                target,
            });
        }
        let (folder, name) = target
            .rsplit_once('/')
            .ok_or_else(|| FileError::NotPlain(path.to_owned()))?;
        let folder = if folder.is_empty() { "/" } else { folder };
        // The way is known to have no link: one that appears since is an attack, and fails.
        let no_links =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let folder = open_inside(
            root.as_fd(),
            folder,
            OFlags::RDONLY | OFlags::DIRECTORY,
            no_links,
        )
        .map_err(system("open its folder"))?;
        let kind = rustix::fs::fstatfs(&folder).map_err(system("ask for its file system"))?;
        // Magic numbers have 32 bits; the field has the width of the machine.
        if ORDERS.contains(&(kind.f_type as u32)) {
            return Err(FileError::NotStorage(path.to_owned()));
        }
        Ok(Some(Self {
            folder,
            name: name.to_owned(),
            path: path.to_owned(),
            target: target.clone(),
        }))
    }

    /// Its path inside the root, links followed.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    fn system(&self, doing: &'static str) -> impl Fn(Errno) -> FileError + use<> {
        let path = self.path.clone();
        move |e| FileError::System {
            path: path.clone(),
            doing,
            source: e.into(),
        }
    }

    pub(crate) fn failed(&self, doing: &'static str, source: io::Error) -> FileError {
        FileError::System {
            path: self.path.clone(),
            doing,
            source,
        }
    }

    fn io(&self, doing: &'static str) -> impl Fn(io::Error) -> FileError + use<> {
        let path = self.path.clone();
        move |source| FileError::System {
            path: path.clone(),
            doing,
            source,
        }
    }

    /// Reads it, refusing all that could not be put back as it was.
    pub(crate) fn read(&self) -> Result<FileState, FileError> {
        let path = || self.path.clone();
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let stat = match rustix::fs::statx(
            &self.folder,
            &self.name,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        ) {
            Err(Errno::NOENT) => return Ok(FileState::Absent),
            stat => stat.map_err(self.system("look at it"))?,
        };
        let kind = match u32::from(stat.stx_mode) & 0o170_000 {
            0o100_000 => None,
            0o040_000 => Some("a folder"),
            0o120_000 => Some("a symbolic link"),
            0o020_000 | 0o060_000 => Some("a device"),
            0o010_000 => Some("a pipe"),
            _ => Some("a socket"),
        };
        if let Some(kind) = kind {
            return Err(FileError::NotRegular { path: path(), kind });
        }
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(FileError::MountPoint(path()));
        }
        let file = rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty())
            .map_err(self.system("open it"))?;
        let mut file = std::fs::File::from(file);
        let meta = file.metadata().map_err(self.io("look at it"))?;
        if !meta.is_file() {
            return Err(FileError::NotRegular {
                path: path(),
                kind: "something else since a moment ago",
            });
        }
        if meta.nlink() > 1 {
            return Err(FileError::HardLinks {
                path: path(),
                names: meta.nlink(),
            });
        }
        let mut content = Vec::new();
        (&mut file)
            .take(limit::FILE_CONTENT as u64 + 1)
            .read_to_end(&mut content)
            .map_err(self.io("read it"))?;
        if content.len() > limit::FILE_CONTENT {
            return Err(FileError::TooLarge {
                path: path(),
                bytes: meta.len(),
                bound: limit::FILE_CONTENT,
            });
        }
        let nanoseconds = |n: i64| u32::try_from(n).unwrap_or(0);
        Ok(FileState::Regular(Regular {
            content,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            modified: (meta.mtime(), nanoseconds(meta.mtime_nsec())),
            accessed: (meta.atime(), nanoseconds(meta.atime_nsec())),
            xattrs: read_xattrs(file.as_fd())
                .map_err(self.system("read its extended attributes"))?,
        }))
    }

    /// Makes it what `state` says: a file appears whole or not at all, also after a power cut. With `times` none the
    /// file is as old as this act.
    pub(crate) fn make(&self, state: &FileState, times: Times) -> Result<(), FileError> {
        self.clean()?;
        match state {
            FileState::Absent => {
                match rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(self.system("remove it")(error)),
                }
            }
            FileState::Regular(file) => self.put(file, times)?,
        }
        rustix::fs::fsync(&self.folder).map_err(self.system("make its folder durable"))
    }

    fn put(&self, state: &Regular, times: Times) -> Result<(), FileError> {
        let temporary = self.temporary();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(self.system("create a file beside it"))?;
        let mut file = std::fs::File::from(file);
        let filled = self.fill(&mut file, state, times);
        let renamed = filled.and_then(|()| {
            rustix::fs::renameat(&self.folder, &temporary, &self.folder, &self.name)
                .map_err(self.system("replace it"))
        });
        if renamed.is_err() {
            // The first failure is the one to tell; a temporary file that stays is removed before the next act.
            rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty()).ok();
        }
        renamed
    }

    fn fill(
        &self,
        file: &mut std::fs::File,
        state: &Regular,
        times: Times,
    ) -> Result<(), FileError> {
        file.write_all(&state.content)
            .map_err(self.io("write it"))?;
        std::os::unix::fs::fchown(&*file, Some(state.uid), Some(state.gid))
            .map_err(self.io("set its owner"))?;
        for xattr in &state.xattrs {
            rustix::fs::fsetxattr(
                &*file,
                xattr.name.as_str(),
                &xattr.value,
                XattrFlags::empty(),
            )
            .map_err(self.system("set its extended attributes"))?;
        }
        // After the owner: chown(2) clears set-id bits.
        rustix::fs::fchmod(&*file, Mode::from_raw_mode(state.mode))
            .map_err(self.system("set its mode"))?;
        if times == Times::Kept {
            let at = |(seconds, nanoseconds): (i64, u32)| Timespec {
                tv_sec: seconds,
                tv_nsec: nanoseconds.into(),
            };
            let times = Timestamps {
                last_access: at(state.accessed),
                last_modification: at(state.modified),
            };
            rustix::fs::futimens(&*file, &times).map_err(self.system("set its times"))?;
        }
        file.sync_all().map_err(self.io("make it durable"))
    }

    fn temporary(&self) -> String {
        format!(".{}.aizen-change", self.name)
    }

    /// Removes what a power cut left beside it.
    pub(crate) fn clean(&self) -> Result<(), FileError> {
        match rustix::fs::unlinkat(&self.folder, self.temporary(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.system("remove a left-over beside it")(error)),
        }
    }
}

/// What times a file gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// Those of its state.
    Kept,
    /// Those of the act.
    Fresh,
}

/// openat2(2), asked again while a rename or mount anywhere on the machine keeps the kernel from being sure about `..`.
fn open_inside(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        opened = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve);
        if !matches!(opened, Err(Errno::AGAIN)) {
            break;
        }
    }
    opened
}

/// Where `path` ends inside the root; none if its folder is not there.
fn resolve(root: BorrowedFd<'_>, path: &str) -> Result<Option<String>, FileError> {
    let system = |doing| {
        move |e: Errno| FileError::System {
            path: path.to_owned(),
            doing,
            source: e.into(),
        }
    };
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let look = |path: &str, flags: OFlags| open_inside(root, path, flags | OFlags::PATH, inside);
    match look(path, OFlags::empty()) {
        Ok(end) => {
            return below(root, end.as_fd())
                .map(Some)
                .map_err(system("find where it is"));
        }
        // Absent, or a link to what is absent.
        Err(Errno::NOENT) => {}
        Err(Errno::LOOP) => {
            return Err(FileError::NotRegular {
                path: path.to_owned(),
                kind: "a symbolic link in a circle",
            });
        }
        Err(Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(system("find it")(error)),
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = match look(
        if folder.is_empty() { "/" } else { folder },
        OFlags::DIRECTORY,
    ) {
        Ok(folder) => folder,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(system("find its folder")(error)),
    };
    if rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Err(FileError::NotRegular {
            path: path.to_owned(),
            kind: "a symbolic link to nothing",
        });
    }
    let folder = below(root, folder.as_fd()).map_err(system("find where its folder is"))?;
    Ok(Some(format!("{}/{name}", folder.trim_end_matches('/'))))
}

/// The path of an open file relative to the root, as the kernel knows it.
fn below(root: BorrowedFd<'_>, end: BorrowedFd<'_>) -> Result<String, Errno> {
    use std::os::fd::AsRawFd as _;
    let path_of = |fd: BorrowedFd<'_>| {
        let link = rustix::fs::readlink(
            format!("/proc/thread-self/fd/{}", fd.as_raw_fd()),
            Vec::new(),
        )?;
        link.into_string().map_err(|_| Errno::ILSEQ)
    };
    let (root, end) = (path_of(root)?, path_of(end)?);
    let root = root.trim_end_matches('/');
    let inside = end.strip_prefix(root).ok_or(Errno::XDEV)?;
    match inside {
        "" => Ok("/".to_owned()),
        inside if inside.starts_with('/') => Ok(inside.to_owned()),
        _ => Err(Errno::XDEV),
    }
}

fn read_xattrs(file: BorrowedFd<'_>) -> Result<Vec<Xattr>, Errno> {
    let mut list = vec![0; XATTRS];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        // The file system has none.
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut xattrs = Vec::new();
    let mut left = XATTRS;
    for name in list[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
    {
        let name = std::str::from_utf8(name).map_err(|_| Errno::ILSEQ)?;
        let mut value = vec![0; left];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        left -= length;
        xattrs.push(Xattr {
            name: name.to_owned(),
            value,
        });
    }
    xattrs.sort();
    Ok(xattrs)
}
