//! Private values out, pseudonyms in, and back on the device alone.
//!
//! | step | file | what it knows |
//! | --- | --- | --- |
//! | keyed pseudonyms, pure | `key`, `prf`, `tree`, `address`, `mac`, `name`, `token` | the key and the policy |
//! | structured records, field by field | `walk` | [`aizen_protocol::private`] |
//! | free text | `plain`, `rule`, `secret`, `context`, `shape`, `text`, `word` | patterns, and the names learned so far |
//! | the way back | `map`, `seal` | what was replaced; never a secret |
//! | a second look at what is about to leave | [`leak`] | the map, and nothing of the first pass |
//!
//! [`Sanitized`] is made here and nowhere else, can be written out, and is never read back in.

mod address;
mod context;
mod count;
mod exchange;
mod key;
pub mod leak;
mod mac;
mod map;
mod name;
mod observation;
mod plain;
mod policy;
mod prf;
mod pseudonym;
mod rule;
mod sanitized;
mod sanitizer;
mod seal;
mod secret;
mod shape;
mod text;
mod token;
mod tree;
mod vocabulary;
mod walk;
mod word;

pub use count::Counts;
pub use key::{KeyError, SanitizerKey};
pub use observation::{Local, Observation};
pub use policy::{Policy, Vendor};
pub use sanitized::Sanitized;
pub use sanitizer::{Sanitizer, Withheld};
pub use seal::SealError;
