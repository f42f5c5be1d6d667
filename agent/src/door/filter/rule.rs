//! One rule of nf_tables in words near to nft's (nft(8), linux/netfilter/nf_tables.h).
//!
//! A rule is a list of expressions over registers; what is loaded into one is named by what uses it. An expression that
//! is not known here stands by its name.

use std::collections::BTreeMap;

use aizen_protocol::private::Text;
use aizen_protocol::record::FilterRule;

use super::load::{Kind, Load};
use crate::door::attribute::{Attributes, text};

/// The rule of one `NFT_MSG_NEWRULE`.
pub(super) fn decode(rule: Attributes<'_>) -> FilterRule {
    let mut words = Words::default();
    let expressions = rule.nest(NFTA_RULE_EXPRESSIONS);
    for (_, expression) in expressions.take(EXPRESSIONS) {
        let expression = Attributes(expression);
        let name = expression.text(NFTA_EXPR_NAME).unwrap_or_default();
        words.take(&name, expression.nest(NFTA_EXPR_DATA));
    }
    if let Some(comment) = comment(rule.find(NFTA_RULE_USERDATA).unwrap_or_default()) {
        words.said.push(format!("comment \"{comment}\""));
    }
    FilterRule {
        handle: rule.be64(NFTA_RULE_HANDLE).unwrap_or_default(),
        verdict: words.verdict,
        packets: words.packets,
        bytes: words.bytes,
        text: Text(words.said.join(" ").chars().take(TEXT).collect()),
    }
}

/// What the expressions read so far say.
#[derive(Debug, Default)]
struct Words {
    said: Vec<String>,
    registers: BTreeMap<u32, Held>,
    l4: Option<u8>,
    verdict: Option<String>,
    packets: Option<u64>,
    bytes: Option<u64>,
}

#[derive(Debug)]
enum Held {
    /// Whether nothing used it yet.
    Loaded(Load, bool),
    Value(Vec<u8>),
}

impl Words {
    fn take(&mut self, name: &str, data: Attributes<'_>) {
        match name {
            "payload" | "meta" | "ct" => self.load(name, data),
            "bitwise" => self.mask(data),
            // Its result compares as before.
            "byteorder" => {}
            "cmp" => self.compare(data),
            "range" => self.range(data),
            "lookup" => self.look_up(data),
            "immediate" => self.immediate(data),
            "counter" => {
                self.packets = data.be64(NFTA_COUNTER_PACKETS);
                self.bytes = data.be64(NFTA_COUNTER_BYTES);
                self.said.push("counter".to_owned());
            }
            "limit" => self.said.push(limit(data)),
            "log" => self.said.push(match data.text(NFTA_LOG_PREFIX) {
                Some(prefix) => format!("log prefix \"{prefix}\""),
                None => "log".to_owned(),
            }),
            "reject" => self.conclude("reject", String::new()),
            "masq" => self.conclude("masquerade", String::new()),
            "redir" => {
                let port = self.translated(data.be32(1), Kind::Number);
                self.conclude(
                    "redirect",
                    port.map(|p| format!(" to :{p}")).unwrap_or_default(),
                );
            }
            "nat" => self.translate(data),
            "notrack" => self.said.push("notrack".to_owned()),
            "objref" => self.said.push(format!(
                "object {}",
                data.text(NFTA_OBJREF_IMM_NAME).unwrap_or_default()
            )),
            "match" => self
                .said
                .push(format!("xt match {}", data.text(1).unwrap_or_default())),
            "target" => {
                let target = data.text(1).unwrap_or_default();
                self.said.push(format!("xt target {target}"));
                self.verdict = Some(target.to_lowercase());
            }
            // A module's own name: it says more than nothing.
            other => self.said.push(other.to_owned()),
        }
    }

    fn load(&mut self, name: &str, data: Attributes<'_>) {
        // Reading and writing expressions differ in the register that they name.
        let (to, from) = match name {
            "payload" => (data.be32(NFTA_PAYLOAD_DREG), data.be32(NFTA_PAYLOAD_SREG)),
            "meta" => (data.be32(1), data.be32(3)),
            _ => (data.be32(1), data.be32(4)),
        };
        let load = match name {
            "payload" => Load::payload(
                data.be32(NFTA_PAYLOAD_BASE).unwrap_or_default(),
                data.be32(NFTA_PAYLOAD_OFFSET).unwrap_or_default(),
                data.be32(NFTA_PAYLOAD_LEN).unwrap_or_default(),
                self.l4,
            ),
            "meta" => Load::meta(data.be32(2).unwrap_or_default()),
            _ => {
                let direction = data.find(3).and_then(|d| d.first().copied());
                Load::ct(data.be32(2).unwrap_or_default(), direction)
            }
        };
        if let Some(register) = to {
            self.registers
                .insert(place(register), Held::Loaded(load, true));
        } else if let Some(register) = from {
            let value = self.translated(Some(register), load.kind);
            self.said.push(format!(
                "{} set {}",
                load.name,
                value.unwrap_or_else(|| "…".to_owned())
            ));
            self.registers.clear();
        }
    }

    fn mask(&mut self, data: Attributes<'_>) {
        let (Some(from), Some(to)) = (data.be32(1), data.be32(2)) else {
            return;
        };
        let mask = data.nest(NFTA_BITWISE_MASK).find(NFTA_DATA_VALUE);
        if let Some(Held::Loaded(mut load, _)) = self.registers.remove(&place(from)) {
            load.mask = mask.map(<[u8]>::to_vec);
            self.registers.insert(place(to), Held::Loaded(load, true));
        }
    }

    /// The loaded value of a register. It stays there: both ends of a range are compared with one load.
    fn loaded(&mut self, register: Option<u32>) -> Load {
        let held = register.and_then(|r| self.registers.get_mut(&place(r)));
        match held {
            Some(Held::Loaded(load, fresh)) => {
                *fresh = false;
                load.clone()
            }
            Some(Held::Value(_)) | None => Load::new("…", Kind::Hex),
        }
    }

    fn compare(&mut self, data: Attributes<'_>) {
        let load = self.loaded(data.be32(1));
        let operator = data.be32(2).unwrap_or_default();
        let value = data.nest(3).find(NFTA_DATA_VALUE).unwrap_or_default();
        if operator == 0 && load.kind == Kind::Protocol {
            self.l4 = value.first().copied();
        }
        self.said.push(load.compared(operator, value));
    }

    fn range(&mut self, data: Attributes<'_>) {
        let load = self.loaded(data.be32(1));
        let sign = if data.be32(2) == Some(1) { "!= " } else { "" };
        let end = |kind| {
            let value = data.nest(kind).find(NFTA_DATA_VALUE).unwrap_or_default();
            load.kind.value(value)
        };
        self.said
            .push(format!("{} {sign}{}-{}", load.name, end(3), end(4)));
    }

    fn look_up(&mut self, data: Attributes<'_>) {
        let from = data.be32(NFTA_LOOKUP_SREG).map(place).unwrap_or_default();
        // A key of several parts lies in registers that follow each other.
        let mut names = Vec::new();
        for (register, held) in self.registers.range_mut(from..) {
            if let Held::Loaded(load, fresh) = held
                && (*register == from || *fresh)
            {
                *fresh = false;
                names.push(load.name.clone());
            }
        }
        let set = data.text(NFTA_LOOKUP_SET).unwrap_or_default();
        let set = if set.starts_with("__") {
            "{…}".to_owned()
        } else {
            format!("@{set}")
        };
        let inverted = data.be32(NFTA_LOOKUP_FLAGS).unwrap_or_default() & 1 != 0;
        let how = match data.be32(NFTA_LOOKUP_DREG) {
            Some(NFT_REG_VERDICT) => "vmap ",
            Some(_) => "map ",
            None if inverted => "!= ",
            None => "",
        };
        self.said.push(format!("{} {how}{set}", names.join(" . ")));
    }

    fn immediate(&mut self, data: Attributes<'_>) {
        let value = data.nest(2);
        match data.be32(1) {
            Some(NFT_REG_VERDICT) => {
                if let Some(verdict) = verdict(value.nest(NFTA_DATA_VERDICT)) {
                    self.said.push(verdict.clone());
                    self.verdict = Some(verdict);
                }
            }
            Some(register) => {
                let value = value.find(NFTA_DATA_VALUE).unwrap_or_default().to_vec();
                self.registers.insert(place(register), Held::Value(value));
            }
            None => {}
        }
    }

    /// What is put into a packet from a register.
    fn translated(&mut self, register: Option<u32>, kind: Kind) -> Option<String> {
        match self.registers.remove(&place(register?))? {
            Held::Value(value) => Some(kind.value(&value)),
            Held::Loaded(load, _) => Some(load.name),
        }
    }

    fn translate(&mut self, data: Attributes<'_>) {
        let name = if data.be32(NFTA_NAT_TYPE) == Some(0) {
            "snat"
        } else {
            "dnat"
        };
        let kind = if data.be32(NFTA_NAT_FAMILY) == Some(10) {
            Kind::Ipv6
        } else {
            Kind::Ipv4
        };
        let address = self.translated(data.be32(NFTA_NAT_REG_ADDR_MIN), kind);
        let port = self.translated(data.be32(NFTA_NAT_REG_PROTO_MIN), Kind::Number);
        let address = match (address, kind) {
            (Some(address), Kind::Ipv6) if port.is_some() => format!("[{address}]"),
            (address, _) => address.unwrap_or_default(),
        };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        self.conclude(name, format!(" to {address}{port}"));
    }

    /// A statement that is a verdict, too.
    fn conclude(&mut self, verdict: &str, more: String) {
        self.verdict = Some(verdict.to_owned());
        self.said.push(format!("{verdict}{more}"));
    }
}

/// `NFT_*` and `NF_*` verdicts.
fn verdict(data: Attributes<'_>) -> Option<String> {
    let chain = || data.text(NFTA_VERDICT_CHAIN).unwrap_or_default();
    let code = data.be32(NFTA_VERDICT_CODE)?.cast_signed();
    Some(match code {
        0 => "drop".to_owned(),
        1 => "accept".to_owned(),
        2 => "stolen".to_owned(),
        -1 => "continue".to_owned(),
        -2 => "break".to_owned(),
        -3 => format!("jump {}", chain()),
        -4 => format!("goto {}", chain()),
        -5 => "return".to_owned(),
        other => match other & 0xff {
            3 => "queue".to_owned(),
            _ => format!("verdict {other}"),
        },
    })
}

fn limit(data: Attributes<'_>) -> String {
    let rate = data.be64(NFTA_LIMIT_RATE).unwrap_or_default();
    let unit = match data.be64(NFTA_LIMIT_UNIT) {
        Some(1) => "second",
        Some(60) => "minute",
        Some(3600) => "hour",
        Some(86_400) => "day",
        _ => "week",
    };
    let over = data.be32(NFTA_LIMIT_FLAGS).unwrap_or_default() & 1 != 0;
    let over = if over { "over " } else { "" };
    let bytes = if data.be32(NFTA_LIMIT_TYPE) == Some(1) {
        " bytes"
    } else {
        ""
    };
    format!("limit rate {over}{rate}{bytes}/{unit}")
}

/// The comment in what nft keeps with a rule: type, length, value (libnftnl udata).
fn comment(data: &[u8]) -> Option<String> {
    let mut rest = data;
    while let [kind, length, more @ ..] = rest {
        let (value, after) = more.split_at_checked(usize::from(*length))?;
        if *kind == NFTNL_UDATA_RULE_COMMENT {
            return Some(text(value));
        }
        rest = after;
    }
    None
}

/// The first 32-bit register of one that may be of 128 bits (`enum nft_registers`).
fn place(register: u32) -> u32 {
    match register {
        1..=4 => 8 + (register - 1) * 4,
        other => other,
    }
}

/// Expressions of one rule that are read; nft makes a few dozen at most (`NFT_RULE_MAXEXPRS` is 128).
const EXPRESSIONS: usize = 128;
/// Characters of a rule's text.
const TEXT: usize = 240;
const NFT_REG_VERDICT: u32 = 0;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_PAYLOAD_SREG: u16 = 5;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_LOOKUP_FLAGS: u16 = 5;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFTA_LIMIT_RATE: u16 = 1;
const NFTA_LIMIT_UNIT: u16 = 2;
const NFTA_LIMIT_TYPE: u16 = 4;
const NFTA_LIMIT_FLAGS: u16 = 5;
const NFTA_LOG_PREFIX: u16 = 2;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFTA_OBJREF_IMM_NAME: u16 = 2;
const NFTNL_UDATA_RULE_COMMENT: u8 = 0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::door::attribute::push;

    fn nest(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in attributes {
            push(&mut bytes, *kind, payload);
        }
        bytes
    }

    fn rule(expressions: &[(&str, Vec<u8>)]) -> FilterRule {
        let mut list = Vec::new();
        for (name, data) in expressions {
            let expression = nest(&[(NFTA_EXPR_NAME, name.as_bytes()), (NFTA_EXPR_DATA, data)]);
            push(&mut list, 1, &expression);
        }
        let bytes = nest(&[
            (NFTA_RULE_HANDLE, &5_u64.to_be_bytes()),
            (NFTA_RULE_EXPRESSIONS, &list),
            (NFTA_RULE_USERDATA, &[1, 1, 9, 0, 4, b'h', b'i', b'!', 0]),
        ]);
        decode(Attributes(&bytes))
    }

    #[test]
    fn an_expression_that_is_not_known_stands_by_its_name() {
        let told = rule(&[("osf", Vec::new()), ("notrack", Vec::new())]);
        assert_eq!(told.text.0, "osf notrack comment \"hi!\"");
        assert_eq!((told.handle, told.verdict), (5, None));
    }

    #[test]
    fn a_use_of_a_register_that_nothing_was_loaded_into_is_told_as_that() {
        let value = nest(&[(NFTA_DATA_VALUE, &[9])]);
        let compared = nest(&[(1, &[0, 0, 0, 1]), (2, &[0, 0, 0, 0]), (3, &value)]);
        assert_eq!(rule(&[("cmp", compared)]).text.0, "… 0x09 comment \"hi!\"");
    }

    #[test]
    fn verdicts_have_nfts_names() {
        let jump = nest(&[
            (NFTA_VERDICT_CODE, &(-3_i32).to_be_bytes()),
            (NFTA_VERDICT_CHAIN, b"lan\0"),
        ]);
        assert_eq!(verdict(Attributes(&jump)).unwrap(), "jump lan");
        let queue = nest(&[(NFTA_VERDICT_CODE, &0x0002_0003_u32.to_be_bytes())]);
        assert_eq!(verdict(Attributes(&queue)).unwrap(), "queue");
        assert_eq!(verdict(Attributes(&[])), None);
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_bounded_rule(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(decode(Attributes(&bytes)).text.0.chars().count() <= TEXT);
        }

        #[test]
        fn any_expression_data_is_read_without_panic(
            name in prop::sample::select(vec!["payload", "meta", "ct", "bitwise", "cmp", "range", "lookup", "immediate", "counter", "limit", "log", "nat", "redir", "objref", "target"]),
            data in prop::collection::vec((0_u16..7, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let data: Vec<(u16, &[u8])> = data.iter().map(|(k, d)| (*k, d.as_slice())).collect();
            rule(&[(name, nest(&data)), (name, nest(&data))]);
        }
    }
}
