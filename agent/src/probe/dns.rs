//! DNS asked by ourselves: one question, one server, one deadline, over UDP, TCP, TLS (RFC 7858) or HTTPS (RFC 8484).
//!
//! A library resolver retries for seconds and hides which server failed. Here a refusal of the kernel ends a question at
//! once, and what is no answer to the question is never taken for one.

mod client;
mod cursor;
pub(crate) mod data;
mod http2;
mod https;
mod kind;
mod lookup;
pub(crate) mod message;
pub(crate) mod name;
pub(crate) mod question;
mod server;
mod stream;
mod udp;

pub use self::client::{Client, Failure, Reply, ask};
pub use self::data::Data;
pub(crate) use self::data::printable;
pub use self::kind::{InvalidKind, Kind};
pub use self::lookup::addresses;
pub use self::message::{Edns, ExtendedError, Flags, Message, Record, rcode_name};
pub use self::name::DomainName;
pub use self::question::{Options, Question};
pub use self::server::{InvalidServer, Server, Transport, Url};
pub use self::udp::Udp;
