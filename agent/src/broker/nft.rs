//! Tables of nftables: replaced whole or removed, in one transaction of the kernel.

use aizen_protocol::limit;

use super::{BrokerError, Plan};
use crate::rollback::inverse::Inverse;
use crate::rollback::nft::{self, NftError, TableState, Tables};

/// What is about to be done.
pub(super) struct Act {
    table: String,
    text: Option<String>,
}

impl Act {
    pub(super) async fn run(&self) -> Result<(), NftError> {
        nft::put(&self.table, self.text.as_deref()).await
    }
}

/// What is wrong with a table or its text.
#[derive(Debug, thiserror::Error)]
pub enum NftTextError {
    /// Too long.
    #[error("the text has {0} bytes, at most {max} are taken", max = limit::NFT_TABLE)]
    TooLong(usize),
    /// Not text, or text that moves a cursor.
    #[error("the text is not plain text")]
    NotPlain,
    /// Another table, several, or none.
    #[error("the text must be 'table {0} {{ … }}' and nothing else")]
    NotThisTable(String),
    /// It would read files as root.
    #[error("'include' is not taken: say what the file says")]
    Include,
    /// What is there could not be put back.
    #[error(
        "the table has parts that only iptables or its owner can put back, so it is not touched"
    )]
    NotWhole,
    /// There is none.
    #[error("no such table")]
    NoTable,
    /// nft.
    #[error(transparent)]
    Nft(#[from] NftError),
}

pub(super) async fn plan(
    table: String,
    content: Option<Vec<u8>>,
) -> Result<Option<Plan>, BrokerError> {
    let failed = |source: NftTextError| BrokerError::Nft {
        table: table.clone(),
        source,
    };
    looked_at(&table, content).await.map_err(failed)
}

async fn looked_at(table: &str, content: Option<Vec<u8>>) -> Result<Option<Plan>, NftTextError> {
    let text = content.map(|c| one_table(table, c)).transpose()?;
    if text.as_ref().is_some_and(|text| !nft::is_whole(text)) {
        return Err(NftTextError::NotWhole);
    }
    let before = nft::read().await?.remove(table);
    if let Some(before) = &before {
        if !nft::is_whole(&before.text) {
            return Err(NftTextError::NotWhole);
        }
        if before.text.len() > limit::NFT_TABLE {
            return Err(NftTextError::TooLong(before.text.len()));
        }
        // A way back that the kernel would not take is none.
        nft::check(table, Some(&before.text)).await?;
    }
    let after = match &text {
        None if before.is_none() => return Err(NftTextError::NoTable),
        None => Some(nft::digest(None)),
        Some(text) => {
            nft::check(table, Some(text)).await?;
            let plain = nft::would_be(table, text).await?;
            if plain.is_some() && plain.as_deref() == before.as_ref().map(|b| b.plain.as_str()) {
                return Ok(None);
            }
            plain.map(|plain| nft::digest(Some(&plain)))
        }
    };
    Ok(Some(Plan {
        inverse: Inverse::Nft {
            table: table.to_owned(),
            before,
            after,
        },
        act: super::Act::Nft(Act {
            table: table.to_owned(),
            text,
        }),
    }))
}

/// The text, if it holds this table and nothing else. `nft` runs as root: what it would do beyond is refused here.
fn one_table(table: &str, content: Vec<u8>) -> Result<String, NftTextError> {
    if content.len() > limit::NFT_TABLE {
        return Err(NftTextError::TooLong(content.len()));
    }
    let text = String::from_utf8(content).map_err(|_| NftTextError::NotPlain)?;
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
    {
        return Err(NftTextError::NotPlain);
    }
    let other = || NftTextError::NotThisTable(table.to_owned());
    let (mut head, mut word) = (String::new(), String::new());
    let (mut depth, mut closed, mut quoted, mut remark) = (0_usize, false, false, false);
    for c in text.chars().chain(['\n']) {
        if remark {
            remark = c != '\n';
            continue;
        }
        if quoted {
            quoted = c != '"';
            continue;
        }
        // As the scanner of nft makes words (`string` in scanner.l).
        if c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '\\') {
            word.push(c);
        } else if std::mem::take(&mut word) == "include" {
            return Err(NftTextError::Include);
        }
        match c {
            '#' => remark = true,
            '"' if depth == 0 => return Err(other()),
            '"' => quoted = true,
            '{' if closed => return Err(other()),
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1).ok_or_else(other)?;
                closed |= depth == 0;
            }
            c if depth == 0 && closed && !c.is_whitespace() => return Err(other()),
            c if depth == 0 => head.push(c),
            _ => {}
        }
    }
    let words: Vec<&str> = head.split_whitespace().collect();
    let wanted: Vec<&str> = std::iter::once("table").chain(table.split(' ')).collect();
    if !closed || depth != 0 || quoted || words != wanted {
        return Err(other());
    }
    Ok(text)
}

/// What changed in the table, as a unified diff of its rules without what moves by itself.
pub(super) fn diff(table: &str, before: Option<&TableState>, tables: &Tables) -> String {
    let plain = |state: Option<&TableState>| state.map_or("", |s| s.plain.as_str()).to_owned();
    let (old, new) = (plain(before), plain(tables.get(table)));
    let head = |text: &str| match text {
        "" => "/dev/null".to_owned(),
        _ => format!("table {table}"),
    };
    let (from, to) = (head(&old), head(&new));
    if super::file::is_long(&old, &new) {
        return super::file::coarse(&from, &to, &old, &new);
    }
    super::file::fine(&from, &to, &old, &new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(text: &str) -> Result<String, NftTextError> {
        one_table("inet t", text.as_bytes().to_vec())
    }

    #[test]
    fn a_text_with_this_table_alone_is_taken() {
        for text in [
            "table inet t {\n}\n",
            "# made by a person\ntable inet t {\n\tchain c {\n\t\tdrop comment \"} table ip x {\"\n\t} # }\n}\n# end\n",
            "table\ninet t { chain included { accept\n } }",
        ] {
            taken(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
    }

    #[test]
    fn whatever_reaches_beyond_the_table_is_refused() {
        for text in [
            "",
            "table ip t { }",
            "table inet u { }",
            "table t { }",
            "table inet t { } table inet t { }",
            "table inet t { } ; flush ruleset",
            "table inet t { }\nflush ruleset",
            "flush ruleset\ntable inet t { }",
            "table inet t { } }",
            "table inet t { { }",
            "table inet t { chain c { comment \"x } }",
            "delete table inet t",
            "define x = { 1 }\ntable inet t { }",
            "\"table\" inet t { }",
        ] {
            assert!(
                matches!(taken(text), Err(NftTextError::NotThisTable(_))),
                "{text}"
            );
        }
        for text in [
            "include \"/etc/shadow\"",
            "table inet t { include \"/etc/shadow\"\n }",
            "table inet t {\n\tinclude\"/etc/*\"\n}",
            "table inet t { chain c { }; include \"x\" }",
        ] {
            assert!(matches!(taken(text), Err(NftTextError::Include)), "{text}");
        }
        assert!(matches!(
            taken("table inet t { \u{1b} }"),
            Err(NftTextError::NotPlain)
        ));
        assert!(matches!(
            one_table("inet t", vec![0xff]),
            Err(NftTextError::NotPlain)
        ));
        let long = vec![b' '; limit::NFT_TABLE + 1];
        assert!(matches!(
            one_table("inet t", long),
            Err(NftTextError::TooLong(_))
        ));
    }

    proptest! {
        #[test]
        fn what_is_taken_has_no_word_outside_its_one_block(text in "(table inet t|table ip x|flush ruleset|[ {}#\";\n]|include \"/x\"){0,8}") {
            if let Ok(text) = taken(&text) {
                prop_assert!(!text.contains("include") || text.contains(['"', '#']));
                let outside: String = text.lines().map(|l| l.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
                let after = outside.rsplit('}').next().unwrap_or_default();
                prop_assert!(after.trim().is_empty() || after.contains('"'), "{text}");
            }
        }
    }
}
