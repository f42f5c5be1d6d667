//! Pseudonyms to values: typed, recomputed, and only ever an environment variable.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aizen_protocol::control::Bindings;
use aizen_protocol::package::{Binding, BindingKind};
use aizen_protocol::private::{Mac, Prefix};
use aizen_protocol::reason::Reason;

use crate::verify::Refused;

/// The environment that bindings make: by variable name, canonical values of a checked type.
pub type Values = BTreeMap<String, String>;

/// Finds a value for every binding and checks that it belongs there: `pseudonym_of` is the device's own keyed
/// function, so that whoever hands in the values can't choose them.
///
/// # Errors
/// [`Reason::UnknownBinding`] without a value, or for a script that names a variable which is neither bound nor its
/// own; [`Reason::BindingMismatch`] for a value of another type or another pseudonym.
pub fn resolve(
    bindings: &[Binding],
    given: &Bindings,
    script: &[u8],
    pseudonym_of: impl Fn(BindingKind, &str) -> Option<String>,
) -> Result<Values, Refused> {
    let mut values = Values::new();
    for binding in bindings {
        let name = &binding.pseudonym;
        let unknown = || Refused::because(Reason::UnknownBinding, name.clone());
        let mismatch = || Refused::because(Reason::BindingMismatch, name.clone());
        let real = given.get(name).ok_or_else(unknown)?;
        let value = canonical(binding.kind, real).ok_or_else(mismatch)?;
        if pseudonym_of(binding.kind, &value).as_ref() != Some(name) {
            return Err(mismatch());
        }
        values.insert(binding.variable(), value);
    }
    match unbound(script, &values) {
        Some(variable) => Err(Refused::because(Reason::UnknownBinding, variable)),
        None => Ok(values),
    }
}

/// The one spelling of a value of this kind. None of them holds a character that a shell, `change` or a file of
/// `name value` lines could take for anything but data.
fn canonical(kind: BindingKind, text: &str) -> Option<String> {
    match kind {
        BindingKind::Address => text.parse::<IpAddr>().ok().map(|a| a.to_string()),
        BindingKind::Prefix => text
            .contains('/')
            .then(|| text.parse::<Prefix>().ok())?
            .map(|p| p.to_string()),
        BindingKind::Mac => text.parse::<Mac>().ok().map(|m| m.to_string()),
        BindingKind::Name => is_name(text).then(|| text.to_owned()),
    }
}

/// A host or domain name (RFC 1123 section 2.1, with `_` as services and lease files have it).
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The first variable of a binding's form that the script reads, and that nobody bound and the script does not set.
fn unbound(script: &[u8], values: &Values) -> Option<String> {
    let text = String::from_utf8_lossy(script);
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split('$')
        .skip(1)
        .map(|after| after.strip_prefix('{').unwrap_or(after))
        .map(|after| after.split(|c| !is_part(c)).next().unwrap_or_default())
        .filter(|name| {
            ["IP_", "NET_", "MAC_", "NAME_"]
                .iter()
                .any(|kind| name.starts_with(kind))
        })
        .find(|name| !values.contains_key(*name) && !sets(&text, name))
        .map(str::to_owned)
}

fn sets(script: &str, name: &str) -> bool {
    let own = |word: &str| word.strip_prefix(name).is_some_and(|r| r.starts_with('='));
    script
        .split(|c: char| c.is_whitespace() || c == ';')
        .any(own)
        || script.contains(&format!("read {name}"))
        || script.contains(&format!("for {name} "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binding(kind: BindingKind, pseudonym: &str) -> Binding {
        Binding {
            kind,
            pseudonym: pseudonym.into(),
        }
    }

    /// Stands for the keyed function: `10.0.0.x` hides `192.0.2.x`, names are hidden by `host-`.
    fn hide(kind: BindingKind, real: &str) -> Option<String> {
        match kind {
            BindingKind::Address | BindingKind::Prefix => Some(real.replace("192.0.2.", "10.0.0.")),
            BindingKind::Mac => Some(real.to_owned()),
            BindingKind::Name => Some(format!("host-{real}")),
        }
    }

    fn given(pairs: &[(&str, &str)]) -> Bindings {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn values_become_variables_in_their_one_spelling() {
        let values = resolve(
            &[
                binding(BindingKind::Address, "10.0.0.1"),
                binding(BindingKind::Mac, "02:00:5e:10:00:01"),
                binding(BindingKind::Name, "host-nas"),
            ],
            &given(&[
                ("10.0.0.1", "192.0.2.1"),
                ("02:00:5e:10:00:01", "02:00:5E:10:00:01"),
                ("host-nas", "nas"),
                ("10.9.9.9", "ignored, nobody bound it"),
            ]),
            b"change route replace default via \"$IP_10_0_0_1\" dev wan\n",
            hide,
        )
        .unwrap();
        assert_eq!(values["IP_10_0_0_1"], "192.0.2.1");
        assert_eq!(values["MAC_02_00_5E_10_00_01"], "02:00:5e:10:00:01");
        assert_eq!(values["NAME_HOST_NAS"], "nas");
        assert_eq!(values.len(), 3);
    }

    #[test]
    fn a_pseudonym_without_a_value_is_unknown() {
        let refused = resolve(
            &[binding(BindingKind::Address, "10.0.0.1")],
            &Bindings::new(),
            b"",
            hide,
        )
        .unwrap_err();
        assert_eq!(refused.reason, Reason::UnknownBinding);
        assert_eq!(refused.detail, "10.0.0.1");
    }

    #[test]
    fn a_value_that_does_not_hide_behind_the_pseudonym_is_a_mismatch() {
        for (kind, pseudonym, value) in [
            (BindingKind::Address, "10.0.0.1", "192.0.2.2"),
            (BindingKind::Address, "10.0.0.1", "192.0.2.1; reboot"),
            (BindingKind::Address, "10.0.0.1", "192.0.2.1/24"),
            (BindingKind::Prefix, "10.0.0.0/24", "192.0.2.0"),
            (BindingKind::Mac, "02:00:5e:10:00:01", "02:00:5e:10:00:02"),
            (BindingKind::Name, "host-$(reboot)", "$(reboot)"),
            (BindingKind::Name, "host--rf", "-rf"),
            (BindingKind::Name, "host-a\nb", "a\nb"),
        ] {
            let refused = resolve(
                &[binding(kind, pseudonym)],
                &given(&[(pseudonym, value)]),
                b"",
                hide,
            )
            .unwrap_err();
            assert_eq!(refused.reason, Reason::BindingMismatch, "{value}");
        }
    }

    #[test]
    fn a_script_that_names_a_variable_nobody_bound_is_refused_before_it_starts() {
        for script in [
            "ping $IP_10_9_9_9",
            "ping \"${IP_10_9_9_9}\"",
            "echo ${IP_10_9_9_9:-x}",
        ] {
            let refused = resolve(&[], &Bindings::new(), script.as_bytes(), hide).unwrap_err();
            assert_eq!(
                (refused.reason, refused.detail.as_str()),
                (Reason::UnknownBinding, "IP_10_9_9_9"),
                "{script}"
            );
        }
        for script in [
            "NAME_SERVER=x; echo $NAME_SERVER",
            "for NET_X in a b; do echo $NET_X; done",
            "echo $HOME $1 $$",
            "read NAME_A; echo $NAME_A",
        ] {
            assert!(
                resolve(&[], &Bindings::new(), script.as_bytes(), hide).is_ok(),
                "{script}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_value_of_any_kind_can_become_shell_syntax(text in "\\PC{0,40}|[0-9a-f:./]{1,40}|[a-z0-9._-]{1,70}") {
            for kind in [BindingKind::Address, BindingKind::Prefix, BindingKind::Mac, BindingKind::Name] {
                if let Some(value) = canonical(kind, &text) {
                    prop_assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/".contains(&b)));
                    prop_assert!(!value.starts_with('-') && !value.is_empty());
                }
            }
        }
    }
}
