//! Policy rules: `add`, `delete`, with the meaning that `ip rule` gives them.

use super::grant::Verb;
use super::{BrokerError, Plan};
use crate::rollback::checkpoint::Network;
use crate::rollback::inverse::Inverse;
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::rule::{self, RuleKey, RuleState};

/// What is about to be done.
pub(super) struct Act {
    rule: RuleState,
    add: bool,
}

impl Act {
    pub(super) async fn run(&self, kernel: &Kernel) -> Result<(), KernelError> {
        if self.add {
            rule::add(kernel, &self.rule).await
        } else {
            rule::remove(kernel, &self.rule).await
        }
    }
}

pub(super) fn plan(
    network: &Network,
    verb: Verb,
    key: RuleKey,
) -> Result<Option<Plan>, BrokerError> {
    let before = rule::beside(&network.rules, &key);
    let existing = before.iter().find(|r| r.key().as_ref() == Some(&key));
    let (rule, add) = match (verb, existing) {
        (Verb::Delete, None) => {
            let near: Vec<String> = before.iter().take(4).map(|r| format!("'{r}'")).collect();
            let near = match near.as_slice() {
                [] => String::new(),
                near => format!("; there is {}", near.join(" and ")),
            };
            let rule = key.to_string();
            return Err(BrokerError::NoRule { rule, near });
        }
        (Verb::Delete, Some(rule)) => (rule.clone(), false),
        (Verb::Add | Verb::Replace, Some(_)) => {
            return Err(BrokerError::RuleExists(key.to_string()));
        }
        (Verb::Add | Verb::Replace, None) => (RuleState::asked(&key), true),
    };
    Ok(Some(Plan {
        inverse: Inverse::Rule {
            key,
            before,
            after: add,
        },
        act: super::Act::Rule(Act { rule, add }),
    }))
}
