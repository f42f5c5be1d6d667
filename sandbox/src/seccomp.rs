//! System calls: an allow list from data files, compiled by the parent, installed by the child as its last step.
//!
//! Two programs, because one has one answer for what it lists: *known* lets listed numbers pass and answers ENOSYS to
//! all others, *denied* answers EPERM. The kernel takes the strictest answer of both; a foreign architecture kills.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use seccompiler::{BpfProgram, TargetArch, sock_filter};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::level::Layer;

/// Why the policy files give no program. A defect of this build, found by its tests.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("the seccomp policy is not readable: {0}")]
    Read(#[from] toml::de::Error),
    #[error("the seccomp policy does not compile: {0}")]
    Compile(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    ordinary: Vec<String>,
    #[serde(default)]
    unusual: Vec<Unusual>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unusual {
    syscall: String,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeniedFile {
    denied: Vec<Denied>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Denied {
    syscalls: Vec<String>,
    only: Option<String>,
    argument: Option<u8>,
    is_not: Option<u32>,
    #[serde(default)]
    is: Vec<u32>,
    #[serde(default)]
    any_bit_of: Vec<u32>,
    #[serde(rename = "reason")]
    _reason: String,
}

/// The programs for this machine in the order of installation, each instruction as one number; none if the compiler
/// doesn't know the architecture.
pub(crate) fn programs() -> Result<Option<Vec<Vec<u64>>>, PolicyError> {
    static COMPILED: OnceLock<Result<Vec<Vec<u64>>, PolicyError>> = OnceLock::new();
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(None);
    };
    let compiled = COMPILED.get_or_init(|| {
        let programs = compile(arch, std::env::consts::ARCH)?;
        Ok(programs.iter().map(pack).collect())
    });
    compiled.clone().map(Some)
}

fn compile(arch: TargetArch, name: &str) -> Result<[BpfProgram; 2], PolicyError> {
    let lists: BTreeMap<String, Listed> = toml::from_str(include_str!("../seccomp/allowed.toml"))?;
    let mut denied: DeniedFile = toml::from_str(include_str!("../seccomp/denied.toml"))?;
    denied
        .denied
        .retain(|entry| entry.only.as_deref().is_none_or(|only| only == name));
    let mut known: BTreeSet<&str> = denied
        .denied
        .iter()
        .flat_map(|entry| &entry.syscalls)
        .map(String::as_str)
        .collect();
    for list in ["every", name].iter().filter_map(|part| lists.get(*part)) {
        known.extend(list.ordinary.iter().map(String::as_str));
        known.extend(list.unusual.iter().map(|entry| entry.syscall.as_str()));
    }
    let passes: Vec<Value> = known
        .iter()
        .map(|name| json!({ "syscall": name }))
        .collect();
    let refuses: Vec<Value> = denied.denied.iter().flat_map(rules).collect();
    Ok([
        // First, because the known one must let the second installation pass while this one doesn't care.
        program(
            arch,
            json!("allow"),
            json!({ "errno": libc::EPERM }),
            refuses,
        )?,
        program(
            arch,
            json!({ "errno": libc::ENOSYS }),
            json!("allow"),
            passes,
        )?,
    ])
}

fn rules(entry: &Denied) -> Vec<Value> {
    let mut conditions = Vec::new();
    conditions.extend(entry.is_not.map(|value| (json!("ne"), value)));
    conditions.extend(entry.is.iter().map(|value| (json!("eq"), *value)));
    let bits = entry.any_bit_of.iter();
    conditions.extend(bits.map(|bit| (json!({ "masked_eq": bit }), *bit)));
    let mut rules = Vec::new();
    for syscall in &entry.syscalls {
        let Some(argument) = entry.argument else {
            rules.push(json!({ "syscall": syscall }));
            continue;
        };
        rules.extend(conditions.iter().map(|(op, value)| {
            json!({ "syscall": syscall,
                    "args": [{ "index": argument, "type": "dword", "op": op, "val": value }] })
        }));
    }
    rules
}

fn program(
    arch: TargetArch,
    otherwise: Value,
    listed: Value,
    rules: Vec<Value>,
) -> Result<BpfProgram, PolicyError> {
    let text = json!({ "script": {
        "mismatch_action": otherwise, "match_action": listed, "filter": rules } })
    .to_string();
    let mut compiled = seccompiler::compile_from_json(text.as_bytes(), arch)
        .map_err(|error| PolicyError::Compile(error.to_string()))?;
    compiled
        .remove("script")
        .ok_or_else(|| PolicyError::Compile("no program came out".to_owned()))
}

fn pack(program: &BpfProgram) -> Vec<u64> {
    let one = |step: &sock_filter| {
        u64::from(step.code) << 48
            | u64::from(step.jt) << 40
            | u64::from(step.jf) << 32
            | u64::from(step.k)
    };
    program.iter().map(one).collect()
}

fn unpack(packed: &[u64]) -> BpfProgram {
    let one = |number: &u64| {
        let [c1, c0, jt, jf, k @ ..] = number.to_be_bytes();
        sock_filter {
            code: u16::from_be_bytes([c1, c0]),
            jt,
            jf,
            k: u32::from_be_bytes(k),
        }
    };
    packed.iter().map(one).collect()
}

/// Installs the programs for the calling thread and all that it starts, for ever.
pub(crate) fn enter(programs: &[Vec<u64>]) -> Layer {
    if programs.is_empty() {
        let why = format!("no policy for {}", std::env::consts::ARCH);
        return Layer::off("seccomp", why);
    }
    for packed in programs {
        if let Err(error) = seccompiler::apply_filter(&unpack(packed)) {
            return Layer::off("seccomp", format!("the kernel took no filter: {error}"));
        }
    }
    Layer::on("seccomp", "allow list; no socket but unix")
}

#[cfg(test)]
mod tests;
