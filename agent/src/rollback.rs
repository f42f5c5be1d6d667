//! The state before: taken as a [`Checkpoint`], put back by [`restore`], until a comparison finds nothing.

pub(crate) mod address;
mod beyond;
pub(crate) mod checkpoint;
pub(crate) mod difference;
pub(crate) mod file;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
pub(crate) mod inverse;
pub mod journal;
pub(crate) mod kernel;
pub(crate) mod link;
pub(crate) mod neighbour;
pub(crate) mod nft;
pub(crate) mod restore;
pub(crate) mod route;
pub(crate) mod rule;
pub(crate) mod seal;
pub(crate) mod service;
pub(crate) mod sysctl;
pub(crate) mod touched;
pub(crate) mod uci;
pub(crate) mod wireguard;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use file::{FileError, FileState};
pub use inverse::Inverse;
pub use kernel::KernelError;
pub use nft::NftError;
pub use restore::{Restored, restore, undo_alone};
pub use seal::SealError;
pub use service::ServiceError;
pub use sysctl::InvalidSysctl;
pub use uci::UciError;
pub use wireguard::WireguardError;
