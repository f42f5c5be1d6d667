//! Files of OpenWrt's configuration (`/etc/config`, uci(1)): read as statements, changed in place, so that comments,
//! order and blank lines stay as the person wrote them.
//!
//! ```text
//! config TYPE ['NAME']
//!         option NAME 'VALUE'
//!         list NAME 'VALUE'
//! ```

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Statements of one file.
const STATEMENTS: usize = 20_000;
/// Longest value, bytes.
pub(crate) const VALUE: usize = 4096;

/// Why a file is not touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UciError {
    /// Not text.
    #[error("it is not text")]
    NotText,
    /// A statement of another form.
    #[error("line {0} can't be read as a statement of uci")]
    Line(usize),
    /// Larger than any that this reads.
    #[error("it has more than {STATEMENTS} statements")]
    TooLong,
    /// Not `PACKAGE.SECTION` or `PACKAGE.SECTION.OPTION`.
    #[error("'{0}' is not PACKAGE.SECTION or PACKAGE.SECTION.OPTION")]
    Key(String),
    /// A value that no line can hold.
    #[error("a value is empty, too long, or has control characters")]
    Value,
    /// No such section.
    #[error("{0}: there is no such section")]
    NoSection(Key),
    /// Nothing to remove.
    #[error("{0}: there is no such option")]
    NoOption(Key),
    /// Two places that mean the same.
    #[error("{0} stands twice in the file: it is not clear which one counts")]
    Twice(Key),
    /// A section can be made only with a name.
    #[error("{0}: a section without a name can't be made")]
    Nameless(Key),
}

/// Which section.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Section {
    Named(String),
    /// `@TYPE[INDEX]`, from the end if it is negative.
    At(String, i32),
}

/// `PACKAGE.SECTION` or `PACKAGE.SECTION.OPTION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Key {
    package: String,
    section: Section,
    option: Option<String>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.section {
            Section::Named(name) => write!(f, "{}.{name}", self.package)?,
            Section::At(kind, index) => write!(f, "{}.@{kind}[{index}]", self.package)?,
        }
        self.option
            .as_ref()
            .map_or(Ok(()), |option| write!(f, ".{option}"))
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = UciError;

    fn try_from(text: String) -> Result<Self, UciError> {
        Self::parse(&text)
    }
}

/// A name of uci; packages and types may have a dash, too.
fn is_name(text: &str, dash: bool) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || (dash && b == b'-'))
}

/// True for the name of a file in `/etc/config`.
pub(crate) fn is_package(text: &str) -> bool {
    is_name(text, true)
}

impl Key {
    /// Takes `network.lan.ipaddr`, `network.lan` and `network.@route[0].target`.
    ///
    /// # Errors
    /// [`UciError::Key`].
    pub fn parse(text: &str) -> Result<Self, UciError> {
        let bad = || UciError::Key(text.chars().take(80).collect());
        let mut parts = text.splitn(3, '.');
        let (package, section) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
        let option = parts.next();
        let section = match section.strip_prefix('@') {
            None => Section::Named(section.to_owned()),
            Some(rest) => {
                let (kind, index) = rest
                    .strip_suffix(']')
                    .and_then(|r| r.split_once('['))
                    .ok_or_else(bad)?;
                let digits = index.strip_prefix('-').unwrap_or(index);
                if !is_name(kind, true) || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(bad());
                }
                Section::At(kind.to_owned(), index.parse().map_err(|_| bad())?)
            }
        };
        let good = is_package(package)
            && !matches!(&section, Section::Named(name) if !is_name(name, false))
            && option.is_none_or(|o| is_name(o, false));
        if !good {
            return Err(bad());
        }
        Ok(Self {
            package: package.to_owned(),
            section,
            option: option.map(str::to_owned),
        })
    }

    pub(crate) fn package(&self) -> &str {
        &self.package
    }

    /// True if what it holds is nobody's to read: `network.wg0.private_key`, `wireless.default_radio0.key`.
    pub(crate) fn is_secret(&self) -> bool {
        let words = [
            "key",
            "password",
            "passwd",
            "psk",
            "secret",
            "token",
            "pin",
            "sae_password",
        ];
        let of = |option: &str| {
            words.contains(&option)
                || option.ends_with("_key")
                || option.ends_with("_password")
                || option.ends_with("_secret")
                || option.ends_with("_psk")
        };
        self.option
            .as_ref()
            .is_some_and(|o| of(&o.to_ascii_lowercase()) && o != "public_key")
    }
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Nothing.
    Absent,
    /// An option.
    Text(String),
    /// A list.
    List(Vec<String>),
    /// A section, with all lines of it.
    Section {
        /// Its type.
        kind: String,
        /// Its lines.
        lines: String,
    },
}

/// What is done to a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edit {
    Set(String),
    AddList(String),
    DelList(String),
    Delete,
}

/// One statement: its words, and where they stand.
#[derive(Clone, Debug)]
struct Statement {
    words: Vec<String>,
    /// From its first letter to the end of its last word.
    at: Range<usize>,
}

/// A file's text and its statements.
pub(crate) struct File {
    text: String,
    statements: Vec<Statement>,
}

impl File {
    /// Reads a file whole.
    ///
    /// # Errors
    /// [`UciError`] for what the uci library would not read, or read in another way.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, UciError> {
        let text = std::str::from_utf8(bytes).map_err(|_| UciError::NotText)?;
        let mut statements: Vec<Statement> = Vec::new();
        let mut at = 0;
        while at < text.len() {
            if statements.len() == STATEMENTS {
                return Err(UciError::TooLong);
            }
            let (statement, end) = statement(text, at)?;
            // Two on one line could not be changed one by one.
            if let (Some(this), Some(last)) = (&statement, statements.last())
                && !text[last.at.end..this.at.start].contains('\n')
            {
                return Err(UciError::Line(text[..at].matches('\n').count() + 1));
            }
            statements.extend(statement);
            at = end;
        }
        let file = Self {
            text: text.to_owned(),
            statements,
        };
        let mut open = false;
        for statement in &file.statements {
            let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
            let known = match words.as_slice() {
                ["package", _] => true,
                ["config", kind] | ["config", kind, _] => {
                    open = true;
                    is_name(kind, true)
                }
                ["option" | "list", name, _] => open && is_name(name, false),
                _ => false,
            };
            if !known {
                let before = &file.text[..statement.at.start];
                return Err(UciError::Line(before.matches('\n').count() + 1));
            }
        }
        Ok(file)
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn word(&self, index: usize, word: usize) -> &str {
        let statement = self.statements.get(index);
        statement
            .and_then(|s| s.words.get(word))
            .map_or("", String::as_str)
    }

    /// The statements of a section: `config` first.
    fn section(&self, key: &Key) -> Result<Option<Range<usize>>, UciError> {
        let heads: Vec<usize> = (0..self.statements.len())
            .filter(|i| self.word(*i, 0) == "config")
            .collect();
        let found = match &key.section {
            Section::Named(name) => {
                let mut same = heads.iter().filter(|i| self.word(**i, 2) == name);
                let first = same.next();
                if same.next().is_some() {
                    return Err(UciError::Twice(key.clone()));
                }
                first
            }
            Section::At(kind, index) => {
                let same: Vec<&usize> =
                    heads.iter().filter(|i| self.word(**i, 1) == kind).collect();
                let place = match usize::try_from(*index) {
                    Ok(index) => Some(index),
                    Err(_) => same.len().checked_sub(index.unsigned_abs() as usize),
                };
                place.and_then(|place| same.get(place).copied())
            }
        };
        let Some(start) = found.copied() else {
            return Ok(None);
        };
        let end = heads.iter().find(|i| **i > start);
        Ok(Some(start..end.copied().unwrap_or(self.statements.len())))
    }

    fn of_option(&self, section: &Range<usize>, option: &str) -> Vec<usize> {
        section
            .clone()
            .skip(1)
            .filter(|i| self.word(*i, 1) == option)
            .collect()
    }

    /// What a key holds.
    pub(crate) fn get(&self, key: &Key) -> Result<Held, UciError> {
        let Some(section) = self.section(key)? else {
            return Ok(Held::Absent);
        };
        let Some(option) = &key.option else {
            let lines = self.text[self.lines(&section)].to_owned();
            let kind = self.word(section.start, 1).to_owned();
            return Ok(Held::Section { kind, lines });
        };
        let at = self.of_option(&section, option);
        let kinds: Vec<&str> = at.iter().map(|i| self.word(*i, 0)).collect();
        match kinds.as_slice() {
            [] => Ok(Held::Absent),
            ["option"] => Ok(Held::Text(self.word(at[0], 2).to_owned())),
            kinds if kinds.iter().all(|k| *k == "list") => Ok(Held::List(
                at.iter().map(|i| self.word(*i, 2).to_owned()).collect(),
            )),
            _ => Err(UciError::Twice(key.clone())),
        }
    }

    /// The whole lines on which statements stand.
    fn lines(&self, statements: &Range<usize>) -> Range<usize> {
        let of = |i: usize| self.statements.get(i).map_or(0..0, |s| s.at.clone());
        let (first, last) = (of(statements.start), of(statements.end.saturating_sub(1)));
        let start = self.text[..first.start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[last.end..]
            .find('\n')
            .map_or(self.text.len(), |at| last.end + at + 1);
        start..end
    }

    /// Does it, in the text.
    pub(crate) fn edit(self, key: &Key, edit: &Edit) -> Result<Self, UciError> {
        let held = self.get(key)?;
        let wanted = match (edit, held) {
            (Edit::Set(kind), Held::Section { lines, .. }) if key.option.is_none() => {
                Held::Section {
                    kind: kind.clone(),
                    lines,
                }
            }
            (Edit::Set(kind), _) if key.option.is_none() => Held::Section {
                kind: kind.clone(),
                lines: String::new(),
            },
            (Edit::Set(value), _) => Held::Text(value.clone()),
            (Edit::Delete, Held::Absent) => return Err(UciError::NoOption(key.clone())),
            (Edit::Delete, _) => Held::Absent,
            (Edit::AddList(_) | Edit::DelList(_), Held::Section { .. }) => {
                return Err(UciError::Key(key.to_string()));
            }
            (Edit::AddList(value), Held::Absent) => Held::List(vec![value.clone()]),
            (Edit::AddList(value), Held::Text(first)) => Held::List(vec![first, value.clone()]),
            (Edit::AddList(value), Held::List(mut list)) => {
                list.push(value.clone());
                Held::List(list)
            }
            (Edit::DelList(value), Held::List(mut list)) if list.contains(value) => {
                list.retain(|item| item != value);
                if list.is_empty() {
                    Held::Absent
                } else {
                    Held::List(list)
                }
            }
            (Edit::DelList(_), _) => return Err(UciError::NoOption(key.clone())),
        };
        self.put(key, &wanted)
    }

    /// Makes a key hold exactly this, with as little of the text changed as can be.
    pub(crate) fn put(self, key: &Key, wanted: &Held) -> Result<Self, UciError> {
        let section = self.section(key)?;
        let text = match (&key.option, section, wanted) {
            (None, None, Held::Absent) => return Ok(self),
            (None, None, Held::Section { kind, lines }) => self.with_section(key, kind, lines)?,
            (None, Some(section), Held::Absent) => self.without(self.lines(&section)),
            (None, Some(section), Held::Section { kind, .. }) => {
                self.with_kind(section.start, kind)
            }
            (None, ..) | (Some(_), _, Held::Section { .. }) => {
                return Err(UciError::Key(key.to_string()));
            }
            (Some(_), None, Held::Absent) => return Ok(self),
            (Some(_), None, _) => return Err(UciError::NoSection(key.clone())),
            (Some(option), Some(section), wanted) => {
                if self.get(key)? == *wanted {
                    return Ok(self);
                }
                self.with_option(&section, option, wanted)
            }
        };
        Self::parse(text.as_bytes())
    }

    fn without(&self, lines: Range<usize>) -> String {
        format!("{}{}", &self.text[..lines.start], &self.text[lines.end..])
    }

    fn with_section(&self, key: &Key, kind: &str, lines: &str) -> Result<String, UciError> {
        let Section::Named(name) = &key.section else {
            // One that was removed comes back with its lines; another one has no name to be found by.
            if lines.is_empty() {
                return Err(UciError::Nameless(key.clone()));
            }
            return Ok(self.ended() + lines);
        };
        if lines.is_empty() {
            return Ok(format!("{}\nconfig {kind} '{name}'\n", self.ended()));
        }
        Ok(self.ended() + lines)
    }

    /// The text with a newline at its end.
    fn ended(&self) -> String {
        let newline = !self.text.is_empty() && !self.text.ends_with('\n');
        format!("{}{}", self.text, if newline { "\n" } else { "" })
    }

    fn with_kind(&self, head: usize, kind: &str) -> String {
        let at = self.statements.get(head).map_or(0..0, |s| s.at.clone());
        let name = match self.word(head, 2) {
            "" => String::new(),
            name => format!(" {}", quoted(name)),
        };
        format!(
            "{}config {kind}{name}{}",
            &self.text[..at.start],
            &self.text[at.end..]
        )
    }

    fn with_option(&self, section: &Range<usize>, option: &str, wanted: &Held) -> String {
        let line = |word: &str, value: &str| format!("{word} {option} {}", quoted(value));
        let wanted: Vec<String> = match wanted {
            Held::Text(value) => vec![line("option", value)],
            Held::List(values) => values.iter().map(|v| line("list", v)).collect(),
            Held::Absent | Held::Section { .. } => Vec::new(),
        };
        let there = self.of_option(section, option);
        let last = there
            .last()
            .copied()
            .unwrap_or(section.end.saturating_sub(1));
        let after = self.lines(&(last..last + 1)).end;
        let mut text = String::with_capacity(self.text.len() + 64);
        let mut from = 0;
        // Each line that stays a line is rewritten where it stands; what is too many goes, what is missing comes last.
        for (n, index) in there.iter().enumerate() {
            let at = match wanted.get(n) {
                Some(_) => self.statements.get(*index).map_or(0..0, |s| s.at.clone()),
                None => self.lines(&(*index..index + 1)),
            };
            text += &self.text[from..at.start];
            text += wanted.get(n).map_or("", String::as_str);
            from = at.end;
        }
        if wanted.len() > there.len() {
            text += &self.text[from..after];
            if !text.ends_with('\n') {
                text.push('\n');
            }
            for line in wanted.iter().skip(there.len()) {
                text += &format!("\t{line}\n");
            }
            from = after;
        }
        text + &self.text[from..]
    }
}

/// `'value'`, as uci writes it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// One statement from `at`, and where the next one begins: as the library's `uci_parse_line` parts words.
fn statement(text: &str, at: usize) -> Result<(Option<Statement>, usize), UciError> {
    let line = || UciError::Line(text[..at].matches('\n').count() + 1);
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let (mut start, mut end) = (None, at);
    let mut chars = text[at..].char_indices().map(|(i, c)| (at + i, c));
    let mut next = text.len();
    while let Some((i, c)) = chars.next() {
        let past = i + c.len_utf8();
        match c {
            '\n' | ';' => {
                next = past;
                break;
            }
            '#' if word.is_none() => {
                // A remark goes to the end of its line.
                next = text[i..].find('\n').map_or(text.len(), |n| i + n + 1);
                break;
            }
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' | '"' => {
                start.get_or_insert(i);
                let word = word.get_or_insert_with(String::new);
                loop {
                    let (i, inner) = chars.next().ok_or_else(line)?;
                    match inner {
                        inner if inner == c => {
                            end = i + 1;
                            break;
                        }
                        '\\' if c == '"' => word.push(chars.next().ok_or_else(line)?.1),
                        inner => word.push(inner),
                    }
                }
            }
            '\\' => {
                start.get_or_insert(i);
                let (i, escaped) = chars.next().ok_or_else(line)?;
                if escaped != '\n' {
                    word.get_or_insert_with(String::new).push(escaped);
                }
                end = i + escaped.len_utf8();
            }
            c => {
                start.get_or_insert(i);
                word.get_or_insert_with(String::new).push(c);
                end = past;
            }
        }
    }
    words.extend(word.take());
    let statement = start.filter(|_| !words.is_empty());
    Ok((
        statement.map(|start| Statement {
            words,
            at: start..end,
        }),
        next,
    ))
}

#[cfg(test)]
mod tests;
