//! Probes: what is tried over the network, each with a deadline of its own and a bounded answer.

pub mod dns;
pub mod roots;
pub mod tls;
pub mod web;
