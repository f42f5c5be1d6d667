//! Landlock: a second opinion on files, and the only wall before abstract sockets and signals.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::level::Layer;

/// The ABI that the rules were written and tried for.
const TRIED: ABI = ABI::V7;
/// The first ABI with scopes for abstract sockets and signals.
const SCOPES: i32 = 6;

/// Restricts the calling thread: everything that is bound may be read and executed, the scratch and the harmless devices
/// written, no TCP, no signal and no abstract socket across the wall.
pub(crate) fn enter() -> Vec<Layer> {
    match restrict() {
        Ok(layers) => layers,
        Err(error) => vec![
            Layer::off("landlock", error.to_string()),
            Layer::off("landlock_scopes", error.to_string()),
        ],
    }
}

fn restrict() -> Result<Vec<Layer>, RulesetError> {
    let everything = AccessFs::from_all(TRIED);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?;
    let granted = [
        ("/", AccessFs::from_read(TRIED)),
        ("/tmp", everything),
        ("/dev/null", AccessFs::WriteFile.into()),
        ("/dev/zero", AccessFs::WriteFile.into()),
        ("/dev/full", AccessFs::WriteFile.into()),
    ];
    for (path, access) in granted {
        // A device that this host doesn't have needs no rule.
        if let Ok(place) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(place, access))?;
        }
    }
    let status = rules.restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => (effective_abi as i32).min(TRIED as i32),
        LandlockStatus::NotEnabled => return Ok(missing("not enabled at boot")),
        LandlockStatus::NotImplemented => return Ok(missing("not in this kernel")),
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Ok(missing("not enforced"));
    }
    let detail = format!("ABI {abi}");
    let scopes = if abi >= SCOPES {
        Layer::on("landlock_scopes", detail.as_str())
    } else {
        Layer::off(
            "landlock_scopes",
            format!("{detail}; scopes need {SCOPES} (Linux 6.12)"),
        )
    };
    Ok(vec![Layer::on("landlock", detail), scopes])
}

fn missing(why: &str) -> Vec<Layer> {
    vec![
        Layer::off("landlock", why),
        Layer::off("landlock_scopes", why),
    ]
}
