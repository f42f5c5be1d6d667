//! A repair that an analyst proposes. A proposal changes nothing: it must be rehearsed, composed, approved, verified.

use serde::{Deserialize, Serialize};

use crate::package::Binding;
use crate::package::manifest::Manifest;
use crate::private::{Text, private_fields};

/// A proposed repair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// What it is to achieve, one sentence.
    pub intent: Text,
    /// The script, for `/bin/sh`. It names private values by their bindings only.
    pub script: String,
    /// What the script may do.
    pub manifest: Manifest,
    /// The pseudonyms it needs.
    pub bindings: Vec<Binding>,
}

private_fields! {
    Proposal { intent }
}
