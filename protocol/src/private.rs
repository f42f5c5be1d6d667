//! Which fields of a travelling type are private, and of what kind.
//!
//! A type lists its private fields once; the sanitizer replaces them and the device's own screen reveals them by
//! the same list. A field that is not listed must be of a type that can't hold a private value.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something with private fields.
pub trait Private {
    /// Hands each private field to the visitor, in a fixed order.
    fn visit_private(&mut self, visitor: &mut dyn PrivateVisitor);
}

/// What is done to private fields.
pub trait PrivateVisitor {
    /// An IPv4 or IPv6 address.
    fn address(&mut self, value: &mut IpAddr);
    /// An address with a prefix length.
    fn prefix(&mut self, value: &mut Prefix);
    /// A MAC address.
    fn mac(&mut self, value: &mut Mac);
    /// A host, domain or network name.
    fn name(&mut self, value: &mut Name);
    /// Free text that may hold any of these, and secrets.
    fn text(&mut self, value: &mut Text);
}

/// An address with a prefix length; host bits are kept (`192.0.2.7/24` is an interface address).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Length in bits: 0 to 32 or 0 to 128.
    pub length: u8,
}

impl Prefix {
    /// `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.length == 0 && self.address.is_unspecified()
    }

    /// True if the network of this prefix holds `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        fn same(a: u128, b: u128, width: u32, length: u8) -> bool {
            let drop = width - u32::from(length).min(width);
            drop >= width || a >> drop == b >> drop
        }
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                same(u32::from(a).into(), u32::from(b).into(), 32, self.length)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128, self.length),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A text that is no address, prefix or MAC address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not {wanted}")]
pub struct InvalidValue {
    text: String,
    wanted: &'static str,
}

impl FromStr for Prefix {
    type Err = InvalidValue;
    /// Takes `192.0.2.0/24`, `default` not; a bare address is a host prefix.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || InvalidValue {
            text: text.chars().take(80).collect(),
            wanted: "an address with a prefix length",
        };
        let (address, length) = match text.split_once('/') {
            Some((a, l)) => (a, Some(l)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(l) if !l.starts_with('+') => l.parse().map_err(|_| invalid())?,
            Some(_) => return Err(invalid()),
            None => width,
        };
        if length > width {
            Err(invalid())
        } else {
            Ok(Self { address, length })
        }
    }
}

/// A 48-bit MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || InvalidValue {
            text: text.chars().take(80).collect(),
            wanted: "a MAC address",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            Err(invalid())
        } else {
            Ok(Self(bytes))
        }
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(Prefix, Mac);

/// A host, domain, user or network name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(pub String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Free text. It may come from anybody: never an instruction, always bounded where it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

macro_rules! leaf {
    ($($name:ty => $method:ident),*) => {$(
        impl Private for $name {
            fn visit_private(&mut self, visitor: &mut dyn PrivateVisitor) {
                visitor.$method(self);
            }
        }
    )*};
}
leaf!(IpAddr => address, Prefix => prefix, Mac => mac, Name => name, Text => text);

impl<T: Private> Private for Option<T> {
    fn visit_private(&mut self, visitor: &mut dyn PrivateVisitor) {
        if let Some(value) = self {
            value.visit_private(visitor);
        }
    }
}

impl<T: Private> Private for Vec<T> {
    fn visit_private(&mut self, visitor: &mut dyn PrivateVisitor) {
        self.iter_mut()
            .for_each(|value| value.visit_private(visitor));
    }
}

/// Lists the private fields of a struct.
macro_rules! private_fields {
    ($($name:ty { $($field:ident),* $(,)? })*) => {$(
        impl $crate::private::Private for $name {
            fn visit_private(&mut self, visitor: &mut dyn $crate::private::PrivateVisitor) {
                $($crate::private::Private::visit_private(&mut self.$field, visitor);)*
                // A type may have none at all.
                let _: &mut dyn $crate::private::PrivateVisitor = visitor;
            }
        }
    )*};
}
pub(crate) use private_fields;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_its_own_network_only() {
        let prefix: Prefix = "192.0.2.7/24".parse().unwrap();
        assert!(prefix.contains("192.0.2.255".parse().unwrap()));
        assert!(!prefix.contains("192.0.3.1".parse().unwrap()));
        assert!(!prefix.contains("::1".parse().unwrap()));
        assert!(
            "0.0.0.0/0"
                .parse::<Prefix>()
                .unwrap()
                .contains("8.8.8.8".parse().unwrap())
        );
        assert!(
            "::/0"
                .parse::<Prefix>()
                .unwrap()
                .contains("2001:db8::1".parse().unwrap())
        );
    }

    #[test]
    fn prefixes_and_macs_refuse_what_is_too_long_or_signed() {
        for text in [
            "192.0.2.1/33",
            "::/129",
            "192.0.2.1/+1",
            "192.0.2/8",
            "192.0.2.1/",
            "x",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        for text in [
            "0:1:2:3:4:5",
            "00:11:22:33:44",
            "00:11:22:33:44:55:66",
            "00:11:22:33:44:gg",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        assert_eq!(
            "02:00:5E:10:00:01".parse::<Mac>().unwrap().to_string(),
            "02:00:5e:10:00:01"
        );
    }
}
