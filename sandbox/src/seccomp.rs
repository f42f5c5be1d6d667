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
use crate::profile::Powers;

mod narrow;

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
    /// Looked at only where another argument is one of these.
    #[serde(rename = "where")]
    place: Option<Place>,
    argument: Option<u8>,
    /// Denied unless it is one of these, or of those that a power opens.
    #[serde(default)]
    is_none_of: Vec<u32>,
    #[serde(default)]
    opened_by: BTreeMap<String, Vec<u32>>,
    /// Bits that are compared; none are all.
    mask: Option<u32>,
    #[serde(default)]
    is: Vec<u32>,
    #[serde(default)]
    any_bit_of: Vec<u32>,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    argument: u8,
    is: Vec<u32>,
}

/// The programs for this machine in the order of installation, each instruction as one number; none if the compiler
/// doesn't know the architecture.
pub(crate) fn programs(powers: Powers) -> Result<Option<Vec<Vec<u64>>>, PolicyError> {
    type Compiled = Result<Vec<Vec<u64>>, PolicyError>;
    // One for each set of powers.
    static COMPILED: [OnceLock<Compiled>; 8] = [const { OnceLock::new() }; 8];
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(None);
    };
    let bits = [powers.net_admin, powers.net_raw, powers.generic_netlink];
    let index = bits
        .iter()
        .fold(0, |index, bit| index << 1 | usize::from(*bit));
    let compiled = COMPILED[index].get_or_init(|| {
        let programs = compile(arch, std::env::consts::ARCH, powers)?;
        Ok(programs.iter().map(pack).collect())
    });
    compiled.clone().map(Some)
}

fn compile(arch: TargetArch, name: &str, powers: Powers) -> Result<[BpfProgram; 2], PolicyError> {
    let [refuses, passes] = policy(name, powers)?;
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

/// The rules of what is denied, and of what is known.
fn policy(name: &str, powers: Powers) -> Result<[Vec<Value>; 2], PolicyError> {
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
    let refuses: Vec<Value> = denied
        .denied
        .iter()
        .flat_map(|entry| rules(entry, powers))
        .collect();
    Ok([refuses, passes])
}

fn rules(entry: &Denied, powers: Powers) -> Vec<Value> {
    let condition = |argument: u8, op: Value, value: u32| json!({ "index": argument, "type": "dword", "op": op, "val": value });
    let Some(argument) = entry.argument else {
        let whole = |syscall| json!({ "syscall": syscall });
        return entry.syscalls.iter().map(whole).collect();
    };
    // Each of these alone is a reason; the conditions within one hold together.
    let mut reasons: Vec<Vec<Value>> = Vec::new();
    let equals = entry
        .mask
        .map_or(json!("eq"), |mask| json!({ "masked_eq": mask }));
    reasons.extend(
        entry
            .is
            .iter()
            .map(|value| vec![condition(argument, equals.clone(), *value)]),
    );
    let bits = entry.any_bit_of.iter();
    reasons.extend(bits.map(|bit| vec![condition(argument, json!({ "masked_eq": bit }), *bit)]));
    if !entry.is_none_of.is_empty() {
        let opened = opened(&entry.opened_by, powers);
        let allowed = entry.is_none_of.iter().chain(opened);
        reasons.push(
            allowed
                .map(|value| condition(argument, json!("ne"), *value))
                .collect(),
        );
    }
    let places: Vec<Option<Value>> = match &entry.place {
        None => vec![None],
        Some(place) => {
            let one = |value: &u32| Some(condition(place.argument, json!("eq"), *value));
            place.is.iter().map(one).collect()
        }
    };
    let mut rules = Vec::new();
    for syscall in &entry.syscalls {
        for place in &places {
            rules.extend(reasons.iter().map(|reason| {
                let args: Vec<&Value> = place.iter().chain(reason).collect();
                json!({ "syscall": syscall, "args": args })
            }));
        }
    }
    rules
}

fn opened(by: &BTreeMap<String, Vec<u32>>, powers: Powers) -> impl Iterator<Item = &u32> {
    let held = move |power: &str| match power {
        "net_admin" => powers.net_admin,
        "net_raw" => powers.net_raw,
        "generic_netlink" => powers.generic_netlink,
        // Nobody holds what there is not.
        _ => false,
    };
    by.iter()
        .filter(move |(power, _)| held(power))
        .flat_map(|(_, values)| values)
}

fn program(
    arch: TargetArch,
    otherwise: Value,
    listed: Value,
    rules: Vec<Value>,
) -> Result<BpfProgram, PolicyError> {
    let conditional = rules.iter().filter(|rule| rule.get("args").is_some());
    let tail = compiled(arch, &otherwise, &listed, &conditional.collect::<Vec<_>>())?;
    let whole = compiled(arch, &otherwise, &listed, &rules.iter().collect::<Vec<_>>())?;
    Ok(narrow::narrow(whole, tail))
}

fn compiled(
    arch: TargetArch,
    otherwise: &Value,
    listed: &Value,
    rules: &[&Value],
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
pub(crate) fn enter(programs: &[Vec<u64>], powers: Powers) -> Layer {
    if programs.is_empty() {
        let why = format!("no policy for {}", std::env::consts::ARCH);
        return Layer::off("seccomp", why);
    }
    for packed in programs {
        if let Err(error) = seccompiler::apply_filter(&unpack(packed)) {
            return Layer::off("seccomp", format!("the kernel took no filter: {error}"));
        }
    }
    if powers.any() {
        let sockets = match (powers.net_admin, powers.generic_netlink, powers.net_raw) {
            (true, true, true) => "unix, netlink, generic netlink, raw",
            (true, true, false) => "unix, netlink, generic netlink",
            (true, false, true) => "unix, netlink, raw",
            (true, false, false) => "unix, netlink",
            (false, _, _) => "unix, raw",
        };
        return Layer::on("seccomp", format!("allow list; no socket but {sockets}"));
    }
    Layer::on("seccomp", "allow list; no socket but unix")
}

#[cfg(test)]
mod tests;
