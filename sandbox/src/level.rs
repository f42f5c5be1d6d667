//! Which layers stand, and the one level derived from them.
//!
//! | level | needs |
//! | --- | --- |
//! | 1 | own uid, no capabilities, `no_new_privs`, rlimits, clean descriptors and environment, own session |
//! | 2 | and a seccomp allow list, mount, pid and ipc namespaces |
//! | 3 | and Landlock with scopes (ABI 6), cgroup v2 with pids and memory |
//! | 4 | and the host's network out of reach |

use serde::{Deserialize, Serialize};

/// One layer of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// `landlock`, `seccomp`, `pid_namespace`, …
    pub name: String,
    /// In force.
    pub enforced: bool,
    /// The ABI, the bound, or why it is missing.
    pub detail: String,
}

/// What the sandbox gave: a vector of layers and the level derived from it (0 none to 4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// The level.
    pub level: u8,
    /// Each layer, in the order in which they were put up.
    pub layers: Vec<Layer>,
}

impl Layer {
    pub(crate) fn on(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            enforced: true,
            detail: detail.into(),
        }
    }

    pub(crate) fn off(name: &str, why: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            enforced: false,
            detail: why.into(),
        }
    }
}

impl Isolation {
    /// Derives the level from the layers.
    #[must_use]
    pub fn of(layers: Vec<Layer>) -> Self {
        let stands = |name: &&str| {
            layers
                .iter()
                .any(|layer| layer.name == *name && layer.enforced)
        };
        let reached = NEEDS.iter().take_while(|names| names.iter().all(stands));
        let level = reached.fold(0, |level: u8, _| level + 1);
        Self { level, layers }
    }

    /// What `wanted` needs and this one lacks, each as `name: why`.
    #[must_use]
    pub fn missing(&self, wanted: u8) -> Vec<String> {
        let needed = NEEDS.iter().take(wanted.into()).flat_map(|names| *names);
        needed
            .filter_map(
                |name| match self.layers.iter().find(|layer| layer.name == **name) {
                    Some(layer) if layer.enforced => None,
                    Some(layer) => Some(format!("{name}: {}", layer.detail)),
                    None => Some(format!("{name}: was never put up")),
                },
            )
            .collect()
    }
}

/// What each level needs besides those below it.
const NEEDS: [&[&str]; 4] = [
    &[
        "uid",
        "capabilities",
        "no_new_privs",
        "rlimits",
        "descriptors",
        "environment",
        "session",
    ],
    &[
        "seccomp",
        "mount_namespace",
        "pid_namespace",
        "ipc_namespace",
    ],
    &["landlock", "landlock_scopes", "cgroup_v2"],
    &["network"],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to(level: usize) -> Vec<Layer> {
        let names = NEEDS.iter().take(level).flat_map(|names| *names);
        names.map(|name| Layer::on(name, "")).collect()
    }

    #[test]
    fn each_level_needs_all_below_it() {
        for level in 0..=4 {
            assert_eq!(usize::from(Isolation::of(up_to(level)).level), level);
        }
        let mut holed = up_to(4);
        holed.retain(|layer| layer.name != "seccomp");
        assert_eq!(Isolation::of(holed).level, 1);
    }

    #[test]
    fn a_layer_that_does_not_stand_counts_for_nothing_and_is_named_with_its_reason() {
        let mut layers = up_to(4);
        let v2 = layers
            .iter_mut()
            .find(|layer| layer.name == "cgroup_v2")
            .unwrap();
        *v2 = Layer::off("cgroup_v2", "no controllers");
        let isolation = Isolation::of(layers);
        assert_eq!(isolation.level, 2);
        assert!(isolation.missing(2).is_empty());
        assert_eq!(isolation.missing(4), ["cgroup_v2: no controllers"]);
    }

    #[test]
    fn what_nobody_reported_is_missing() {
        let missing = Isolation::default().missing(1);
        assert_eq!(missing.len(), 7);
        assert_eq!(missing[0], "uid: was never put up");
    }
}
