//! Every maximum of the protocol, in one place. Sizes are bytes unless the name says otherwise.

/// One uplink frame, and one line of a local socket.
pub const FRAME: usize = 1 << 20;
/// One DSSE envelope as received.
pub const ENVELOPE: usize = 512 << 10;
/// The decoded script of a package.
pub const SCRIPT: usize = 256 << 10;
/// Signatures looked at in one envelope: more would let a stranger burn CPU.
pub const SIGNATURES: usize = 4;
/// Nesting of JSON objects and arrays.
pub const JSON_DEPTH: usize = 24;
/// Typed operations one manifest may grant.
pub const OPERATIONS: usize = 64;
/// Paths one manifest may read.
pub const READ_PATHS: usize = 32;
/// Pseudonyms one package may bind.
pub const BINDINGS: usize = 64;
/// Probes that decide about a change.
pub const PROBES: usize = 8;
/// Keys of one trust document.
pub const TRUSTED_KEYS: usize = 256;
/// Devices one package may name.
pub const TARGETS: usize = 1024;
/// A free text that a person wrote (intent, reason).
pub const SENTENCE: usize = 500;
/// Output of a script that is kept: head and tail together.
pub const OUTPUT: usize = 256 << 10;
/// Objects of one kind (links, routes, neighbours, …) in one record; what is beyond is counted, not sent.
pub const OBJECTS: usize = 2000;
/// Content of one file that a change may write.
pub const FILE_CONTENT: usize = 256 << 10;
/// Text of one nft table that a change may write, or replace.
pub const NFT_TABLE: usize = 1 << 20;
/// Longest validity of a package, seconds.
pub const PACKAGE_LIFE_S: i64 = 7 * 24 * 3600;
/// Longest validity of a rehearsal package, seconds.
pub const REHEARSAL_LIFE_S: i64 = 15 * 60;
