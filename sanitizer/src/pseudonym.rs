//! The whole keyed mapping, pure: what a value becomes depends on key and policy alone.

use std::net::IpAddr;

use aizen_protocol::package::BindingKind;
use aizen_protocol::private::{Mac, Prefix};

use crate::address::AddressTree;
use crate::key::SanitizerKey;
use crate::mac::MacTree;
use crate::name;
use crate::policy::Policy;
use crate::prf::Prf;
use crate::token::TokenKind;

/// Every permutation and digest under one key and policy.
pub(crate) struct Pseudonyms {
    addresses: AddressTree,
    macs: MacTree,
    pub(crate) labels: Prf,
    tokens: Prf,
    pub(crate) policy: Policy,
}

impl Pseudonyms {
    pub(crate) fn new(key: &SanitizerKey, policy: Policy) -> Self {
        let prf = |purpose| Prf::new(key, purpose, policy.period);
        Self {
            addresses: AddressTree::new(prf("ipv4"), prf("ipv6"), &policy.keep_addresses),
            macs: MacTree::new(prf("mac"), policy.vendor),
            labels: prf("label"),
            tokens: prf("token"),
            policy,
        }
    }

    pub(crate) fn address(&self, real: IpAddr) -> IpAddr {
        self.addresses.address(real, &self.macs)
    }

    pub(crate) fn prefix(&self, real: Prefix) -> Prefix {
        self.addresses.prefix(real, &self.macs)
    }

    pub(crate) fn mac(&self, real: Mac) -> Mac {
        self.macs.mac(real, &self.addresses)
    }

    pub(crate) fn token(&self, kind: TokenKind, real: &str) -> String {
        kind.token(&self.tokens, real)
    }

    pub(crate) fn address_stays(&self, address: IpAddr) -> bool {
        self.addresses.stays(address)
    }

    pub(crate) fn prefix_stays(&self, prefix: Prefix) -> bool {
        self.addresses.prefix_stays(prefix)
    }

    pub(crate) fn mac_stays(&self, mac: Mac) -> bool {
        self.macs.stays(mac)
    }

    /// The pseudonym of a value given as text; none if the text is not of that kind.
    pub(crate) fn of(&self, kind: BindingKind, real: &str) -> Option<String> {
        match kind {
            BindingKind::Address => Some(self.address(real.parse().ok()?).to_string()),
            BindingKind::Prefix => Some(self.prefix(real.parse().ok()?).to_string()),
            BindingKind::Mac => Some(self.mac(real.parse().ok()?).to_string()),
            BindingKind::Name => Some(name::pseudonym(self, real, &|_| false, &mut |_| {})),
        }
    }
}
