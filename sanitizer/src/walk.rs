//! Structured values, field by field, by the list that each type gives.

use std::net::IpAddr;

use aizen_protocol::private::{Mac, Name, Prefix, PrivateVisitor, Text};

use crate::exchange::{Backward, Exchange as _, Forward};
use crate::{text, word};

/// Learns the names of typed fields, changes nothing: a text may mention a name that a later field brings.
pub(crate) struct Learn<'a, 'b>(pub(crate) &'a mut Forward<'b>);

impl PrivateVisitor for Learn<'_, '_> {
    fn address(&mut self, value: &mut IpAddr) {
        self.0.address(*value);
    }
    fn prefix(&mut self, value: &mut Prefix) {
        self.0.prefix(*value);
    }
    fn mac(&mut self, value: &mut Mac) {
        self.0.mac(*value);
    }
    fn name(&mut self, value: &mut Name) {
        self.0.typed_name(&value.0);
    }
    fn text(&mut self, _: &mut Text) {}
}

/// Replaces every private field.
pub(crate) struct Replace<'a, 'b>(pub(crate) &'a mut Forward<'b>);

impl PrivateVisitor for Replace<'_, '_> {
    fn address(&mut self, value: &mut IpAddr) {
        *value = self.0.address(*value);
    }
    fn prefix(&mut self, value: &mut Prefix) {
        *value = self.0.prefix(*value);
    }
    fn mac(&mut self, value: &mut Mac) {
        *value = self.0.mac(*value);
    }
    fn name(&mut self, value: &mut Name) {
        value.0 = self.0.typed_name(&value.0);
    }
    fn text(&mut self, value: &mut Text) {
        value.0 = text::sanitize(&value.0, self.0);
    }
}

/// Replaces learned names in texts, once all texts were seen.
pub(crate) struct ReplaceWords<'a, 'b>(pub(crate) &'a mut Forward<'b>);

impl PrivateVisitor for ReplaceWords<'_, '_> {
    fn address(&mut self, _: &mut IpAddr) {}
    fn prefix(&mut self, _: &mut Prefix) {}
    fn mac(&mut self, _: &mut Mac) {}
    fn name(&mut self, _: &mut Name) {}
    fn text(&mut self, value: &mut Text) {
        value.0 = word::sanitize(&value.0, self.0);
    }
}

/// Puts the real values back, as far as they are known.
pub(crate) struct Reveal<'a>(pub(crate) Backward<'a>);

impl PrivateVisitor for Reveal<'_> {
    fn address(&mut self, value: &mut IpAddr) {
        *value = self.0.address(*value);
    }
    fn prefix(&mut self, value: &mut Prefix) {
        *value = self.0.prefix(*value);
    }
    fn mac(&mut self, value: &mut Mac) {
        *value = self.0.mac(*value);
    }
    fn name(&mut self, value: &mut Name) {
        if let Some(real) = self.0.real_name(&value.0) {
            value.0 = real;
        }
    }
    fn text(&mut self, value: &mut Text) {
        value.0 = text::reveal(&value.0, self.0);
    }
}
