//! The one door for foreign JSON: bounded, without duplicate keys, nothing after the value.
//!
//! serde_json alone lets the last of two equal keys win in maps; two readers of one signed text would then
//! disagree about what was signed.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::limit;

/// Why bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub enum StrictError {
    /// More bytes than the reader's bound.
    #[error("{actual} bytes, at most {bound} are taken")]
    TooLarge {
        /// The bound, in bytes.
        bound: usize,
        /// What came, in bytes.
        actual: usize,
    },
    /// Not JSON, too deep, a duplicate or unknown key, a wrong type, or something after the value.
    #[error("not a valid message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Parses one JSON value (RFC 8259) of at most `bound` bytes into `T`.
///
/// # Errors
/// [`StrictError::TooLarge`] before anything is parsed; [`StrictError::Malformed`] otherwise.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], bound: usize) -> Result<T, StrictError> {
    if bytes.len() > bound {
        return Err(StrictError::TooLarge {
            bound,
            actual: bytes.len(),
        });
    }
    let mut shape = serde_json::Deserializer::from_slice(bytes);
    Shape { depth: 0 }.deserialize(&mut shape)?;
    shape.end()?;
    Ok(serde_json::from_slice(bytes)?)
}

/// Walks a value and keeps nothing but the keys of the objects it is inside.
#[derive(Clone, Copy)]
struct Shape {
    depth: usize,
}

impl Shape {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= limit::JSON_DEPTH {
            return Err(E::custom(format_args!(
                "nested deeper than {}",
                limit::JSON_DEPTH
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = BTreeSet::new();
        while let Some(Key(key)) = entries.next_key()? {
            if let Some(key) = seen.replace(key) {
                return Err(de::Error::custom(format_args!("key '{key}' appears twice")));
            }
            entries.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Key(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Map = BTreeMap<String, serde_json::Value>;

    #[test]
    fn a_key_that_appears_twice_is_refused_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":[{"b":1,"b":2}]}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            let error = from_slice::<Map>(text.as_bytes(), 100)
                .unwrap_err()
                .to_string();
            assert!(error.contains("appears twice"), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_may_follow_the_value_but_white_space() {
        assert!(from_slice::<Map>(b"{} \n", 100).is_ok());
        assert!(from_slice::<Map>(b"{}{}", 100).is_err());
        assert!(from_slice::<Map>(b"{}\0", 100).is_err());
    }

    #[test]
    fn depth_and_size_have_a_bound() {
        let deep = format!(
            "{{\"a\":{}{}}}",
            "[".repeat(limit::JSON_DEPTH),
            "]".repeat(limit::JSON_DEPTH)
        );
        assert!(
            from_slice::<Map>(deep.as_bytes(), 10_000)
                .unwrap_err()
                .to_string()
                .contains("nested deeper")
        );
        assert!(matches!(
            from_slice::<Map>(b"{}", 1),
            Err(StrictError::TooLarge {
                bound: 1,
                actual: 2
            })
        ));
    }
}
