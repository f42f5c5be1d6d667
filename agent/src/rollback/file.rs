//! A regular file with all that belongs to it, or its absence.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use aizen_protocol::id::Digest;
use serde::{Deserialize, Serialize};

mod place;

pub(crate) use place::{Place, Times};

/// Longest path, bytes (`PATH_MAX`).
const PATH: usize = 4096;

/// Why a path is not one that can be changed and put back.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not absolute, or with `.`, `..`, an empty or a too long part.
    #[error("'{0}' is not a plain absolute path")]
    NotPlain(String),
    /// A symbolic link leads elsewhere.
    #[error("{path} leads to {target}, which the manifest does not grant")]
    LeadsAway {
        /// As asked.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A folder, device, socket, …
    #[error("{path} is {kind}, not a regular file")]
    NotRegular {
        /// As asked.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// Something is mounted on it, so it can't be replaced.
    #[error("{0} is a mount point: it can't be replaced in one step")]
    MountPoint(String),
    /// It has another name.
    #[error("{path} has {names} names (hard links): replacing one would part them")]
    HardLinks {
        /// As asked.
        path: String,
        /// How many.
        names: u64,
    },
    /// In `/proc`, `/sys` and the like.
    #[error("{0} is not on a file system that holds files")]
    NotStorage(String),
    /// More than is kept for the way back.
    #[error("{path} has {bytes} bytes, more than the {bound} that can be put back")]
    TooLarge {
        /// As asked.
        path: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        bound: usize,
    },
    /// What the system says.
    #[error("{path}: {doing}: {source}")]
    System {
        /// As asked.
        path: String,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xattr {
    name: String,
    value: Vec<u8>,
}

/// A regular file with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Regular {
    /// Content.
    #[serde(with = "as_base64")]
    pub content: Vec<u8>,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Last access; never compared.
    pub accessed: (i64, u32),
    /// Extended attributes (ACLs, labels, capabilities).
    pub xattrs: Vec<Xattr>,
}

impl Regular {
    /// As a program of root would create it.
    pub(crate) fn fresh(content: Vec<u8>) -> Self {
        Self {
            content,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: (0, 0),
            accessed: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

/// A file, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// There is none of this name.
    Absent,
    /// A regular file.
    Regular(Regular),
}

impl FileState {
    /// What a comparison looks at.
    pub(crate) fn canonical(&self) -> Self {
        match self {
            Self::Absent => Self::Absent,
            Self::Regular(file) => Self::Regular(Regular {
                accessed: (0, 0),
                ..file.clone()
            }),
        }
    }

    pub(crate) fn content(&self) -> &[u8] {
        match self {
            Self::Absent => &[],
            Self::Regular(file) => &file.content,
        }
    }
}

impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Regular(file) => {
                let digest = Digest::of(&file.content).to_string();
                write!(
                    f,
                    "{} bytes (SHA-256 {}…), mode {:04o}, owner {}:{}",
                    file.content.len(),
                    &digest[..16],
                    file.mode,
                    file.uid,
                    file.gid
                )
            }
        }
    }
}

/// Standard base64 in JSON.
mod as_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

/// Checks that a path names one thing in one way.
///
/// # Errors
/// [`FileError::NotPlain`].
pub(crate) fn plain(path: &str) -> Result<(), FileError> {
    let parts = Path::new(path).components();
    let normal = parts
        .clone()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    let rebuilt: PathBuf = parts.collect();
    let same = rebuilt.as_os_str() == path && path.len() > 1;
    if path.starts_with('/')
        && normal
        && same
        && path.len() < PATH
        && !path.chars().any(char::is_control)
    {
        Ok(())
    } else {
        Err(FileError::NotPlain(path.chars().take(200).collect()))
    }
}
