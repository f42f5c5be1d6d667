//! One attempt to get out or to do harm a test, each by a real script in a real sandbox. They need root.

mod bed;
mod file;
mod kernel;
mod lacking;
mod network;
mod power;
mod process;
mod resource;
mod run;
