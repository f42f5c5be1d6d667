//! `change wireguard`: the words of `wg set`. Keys that are secret have none.

use aizen_protocol::package::manifest::{
    Operation, Value, WireguardOperation, WireguardPeer, WireguardPeerName,
};

use super::{UsageError, after, number, once, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    match after(&mut words, "set")? {
        "set" => {}
        other => {
            return Err(UsageError::Command {
                object: "wireguard",
                word: shown(other),
                known: "set",
            });
        }
    }
    let dev = after(&mut words, "the interface")?.to_owned();
    match after(&mut words, "peer KEY")? {
        "peer" => {}
        other => return Err(UsageError::Unknown(shown(other))),
    }
    let peer = after(&mut words, "the key after peer")?.to_owned();
    let (mut endpoint, mut port, mut keepalive, mut allowed) = (None, None, None, None);
    while let Some(word) = words.next() {
        match word {
            "remove" if endpoint.is_none() && keepalive.is_none() && allowed.is_none() => {
                return match words.next() {
                    None => Ok(Operation::Wireguard(WireguardOperation::RemovePeer(
                        WireguardPeerName { dev, peer },
                    ))),
                    Some(other) => Err(UsageError::Unknown(shown(other))),
                };
            }
            "endpoint" => {
                let address = Value::from(after(&mut words, "the address after endpoint")?);
                once(&mut endpoint, word, address)?;
            }
            "port" => once(&mut port, word, short(words.next(), "a port")?)?,
            "persistent-keepalive" => {
                once(
                    &mut keepalive,
                    word,
                    short(words.next(), "a number of seconds")?,
                )?;
            }
            "allowed-ips" => {
                let list = after(&mut words, "the prefixes after allowed-ips")?;
                let list: Vec<Value> = list.split(',').map(Value::from).collect();
                once(&mut allowed, word, list)?;
            }
            other => return Err(UsageError::Unknown(shown(other))),
        }
    }
    Ok(Operation::Wireguard(WireguardOperation::SetPeer(
        WireguardPeer {
            dev,
            peer,
            endpoint,
            port,
            keepalive,
            allowed_ips: allowed.unwrap_or_default(),
        },
    )))
}

fn short(word: Option<&str>, what: &'static str) -> Result<u16, UsageError> {
    let value = number(word, "a number", what)?;
    u16::try_from(value).map_err(|_| UsageError::NotA {
        what,
        word: value.to_string(),
    })
}
