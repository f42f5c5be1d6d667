//! The fault lab: a device, a LAN, a provider, two resolvers and the cloud in network namespaces of their own, with
//! the real programs in them. Everything it makes is gone when it is dropped.

pub mod binaries;
pub mod cloud;
pub mod device;
pub mod disk;
pub mod fault;
pub mod lab;
pub mod netns;
pub mod package;
pub mod packages;
pub mod program;
pub mod shell;
pub mod stand_in;
pub mod tap;
pub mod vm;
pub mod wait;
pub mod world;
