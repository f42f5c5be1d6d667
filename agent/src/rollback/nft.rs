//! nftables as text: `nft` lists a table, one batch makes it what a text says (nft(8)).
//!
//! Text and not the kernel's expressions, because a model of them that is not whole would lose what it does not know.
//! Every question and every batch is one process, on a thread beside the runtime, in the caller's network namespace.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write as _};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use aizen_protocol::id::Digest;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use crate::collect::aside;
use crate::door;

/// Where distributions put it; the caller's PATH decides nothing.
const PROGRAMS: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/bin/nft"];
/// Longest wait for one run of it.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest ruleset that is read, bytes.
const RULESET: usize = 32 << 20;
/// What is kept of its complaints, bytes.
const COMPLAINT: u64 = 2 << 10;

/// Why nftables could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no `nft`.
    #[error("the program 'nft' is not installed")]
    Missing,
    /// It could not be run.
    #[error("'nft' could not be run: {0}")]
    Run(#[from] io::Error),
    /// It refused.
    #[error("nft: {0}")]
    Refused(String),
    /// It did not end.
    #[error("'nft' did not end within {} s", ANSWER.as_secs())]
    Silent,
    /// More than is kept.
    #[error("the ruleset has more than {RULESET} bytes of text")]
    TooLarge,
    /// Its listing is not one.
    #[error("what 'nft' lists can't be read")]
    Unreadable,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct TableState {
    /// All of it, with counters and what its sets learned: what is put back.
    pub(crate) text: String,
    /// Without what moves by itself: what is compared and shown. It follows from the text, so it is not stored.
    #[serde(skip_serializing)]
    pub(crate) plain: String,
}

/// As it is stored. What an earlier version stored beside the text is not believed.
#[derive(Deserialize)]
struct Stored {
    text: String,
}

impl From<Stored> for TableState {
    fn from(Stored { text }: Stored) -> Self {
        let plain = plain(&text);
        Self { text, plain }
    }
}

impl fmt::Display for TableState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = digest(Some(&self.plain)).to_string();
        let lines = self.plain.lines().count();
        write!(f, "{lines} lines (SHA-256 {}…)", &digest[..16])
    }
}

/// By `FAMILY NAME`.
pub(crate) type Tables = BTreeMap<String, TableState>;

/// What tells two states of a table apart; an absent one has a digest, too.
pub(crate) fn digest(plain: Option<&str>) -> Digest {
    Digest::of(plain.unwrap_or_default().as_bytes())
}

/// All tables of the current network namespace.
pub(crate) async fn read() -> Result<Tables, NftError> {
    // Without the program nothing could be put back, so that there is none is told whatever there is to list.
    program()?;
    // The kernel says in a moment that there is nothing to list. Where it doesn't know, nft says why.
    if let Ok(false) = door::has_tables().await {
        return Ok(Tables::new());
    }
    run(|| {
        let tables = split(&nft(&["list", "ruleset"], "")?)?;
        let state = |(name, text): (String, String)| {
            let plain = plain(&text);
            (name, TableState { text, plain })
        };
        Ok(tables.into_iter().map(state).collect())
    })
    .await
}

/// Makes a table what the text says, or absent: all or nothing.
pub(crate) async fn put(table: &str, text: Option<&str>) -> Result<(), NftError> {
    let batch = batch(table, text);
    run(move || nft(&["-f", "-"], &batch).map(drop)).await
}

/// Asks whether the kernel would take it, and changes nothing.
pub(crate) async fn check(table: &str, text: Option<&str>) -> Result<(), NftError> {
    let batch = batch(table, text);
    run(move || nft(&["--check", "-f", "-"], &batch).map(drop)).await
}

/// What a table would be once it is made of `text`: tried in an empty network namespace, which ends with the thread.
/// None where that can't tell, because the text names interfaces that are not there.
pub(crate) async fn would_be(table: &str, text: &str) -> Result<Option<String>, NftError> {
    let (table, text) = (table.to_owned(), text.to_owned());
    run(move || {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() || nft(&["-f", "-"], &text).is_err() {
            return Ok(None);
        }
        let words: Vec<&str> = ["list", "table"]
            .into_iter()
            .chain(table.split(' '))
            .collect();
        Ok(Some(plain(&nft(&words, "")?)))
    })
    .await
}

/// True if a listing says all that the table is: what iptables-nft keeps in one is shown as a remark, and a table that
/// a running program owns can be changed by that program alone.
pub(crate) fn is_whole(text: &str) -> bool {
    !text.lines().any(|line| {
        let line = line.trim_start();
        let words = || line.split_whitespace();
        line.starts_with("# xt_")
            || words().any(|word| word == "xt")
            || (line.starts_with("flags ") && words().any(|word| word == "owner"))
    })
}

fn batch(table: &str, text: Option<&str>) -> String {
    // Naming it first makes the removal good for one that is absent.
    format!(
        "table {table}\ndelete table {table}\n{}\n",
        text.unwrap_or_default()
    )
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NftError> + Send + 'static,
) -> Result<T, NftError> {
    aside::run_alone("aizen-nft", work).await?
}

fn program() -> Result<&'static str, NftError> {
    let found = PROGRAMS.iter().find(|path| Path::new(path).exists());
    found.copied().ok_or(NftError::Missing)
}

fn nft(words: &[&str], input: &str) -> Result<String, NftError> {
    let mut child = Command::new(program()?)
        .args(words)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let ended = converse(&mut child, input);
    if ended.is_err() {
        // It may have ended by itself.
        child.kill().ok();
    }
    let status = child.wait()?;
    let (listed, said) = ended?;
    if !status.success() {
        return Err(NftError::Refused(
            String::from_utf8_lossy(&said).trim().to_owned(),
        ));
    }
    String::from_utf8(listed).map_err(|_| NftError::Unreadable)
}

/// Writes its input and reads both outputs at once: each pipe holds 64 KiB.
fn converse(child: &mut Child, input: &str) -> Result<(Vec<u8>, Vec<u8>), NftError> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut stdin = child.stdin.take().ok_or_else(gone)?;
    let stdout = child.stdout.take().ok_or_else(gone)?;
    let stderr = child.stderr.take().ok_or_else(gone)?;
    let input = input.as_bytes().to_vec();
    std::thread::Builder::new().spawn(move || {
        // One that ends early says why on its error output.
        stdin.write_all(&input).ok();
    })?;
    let listed = aside_read(stdout, RULESET as u64 + 1)?;
    let said = aside_read(stderr, COMPLAINT)?;
    let wait = |from: mpsc::Receiver<io::Result<Vec<u8>>>| match from.recv_timeout(ANSWER) {
        Ok(bytes) => Ok(bytes?),
        Err(_) => Err(NftError::Silent),
    };
    let listed = wait(listed)?;
    if listed.len() > RULESET {
        return Err(NftError::TooLarge);
    }
    Ok((listed, wait(said)?))
}

fn aside_read(
    from: impl Read + Send + 'static,
    bound: u64,
) -> io::Result<mpsc::Receiver<io::Result<Vec<u8>>>> {
    let (tell, told) = mpsc::sync_channel(1);
    std::thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        let mut from = from.take(bound);
        let read = from.read_to_end(&mut bytes).map(|_| bytes);
        // What is beyond the bound is drained, so that the writer can end.
        io::copy(&mut from.into_inner(), &mut io::sink()).ok();
        tell.send(read).ok();
    })?;
    Ok(told)
}

/// The tables of a listing, each with its own text.
pub(super) fn split(listing: &str) -> Result<BTreeMap<String, String>, NftError> {
    let mut tables = BTreeMap::new();
    let (mut start, mut depth, mut quoted, mut remark) = (None, 0_usize, false, false);
    for (at, byte) in listing.bytes().enumerate() {
        if remark {
            remark = byte != b'\n';
            continue;
        }
        match byte {
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'#' => remark = true,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1).ok_or(NftError::Unreadable)?;
                if depth == 0
                    && let Some(from) = start.take()
                {
                    let text = &listing[from..=at];
                    let name = name_of(text).ok_or(NftError::Unreadable)?;
                    tables.insert(name, format!("{text}\n"));
                }
            }
            b if !b.is_ascii_whitespace() && depth == 0 && start.is_none() => start = Some(at),
            _ => {}
        }
    }
    match (start, depth) {
        (None, 0) => Ok(tables),
        _ => Err(NftError::Unreadable),
    }
}

fn name_of(text: &str) -> Option<String> {
    let mut words = text.split('{').next()?.split_whitespace();
    let (keyword, family, name) = (words.next()?, words.next()?, words.next()?);
    (keyword == "table" && words.next().is_none()).then(|| format!("{family} {name}"))
}

/// A listing without what moves by itself: the elements of sets that packets and time fill, and what [`still`] leaves
/// out.
pub(super) fn plain(listing: &str) -> String {
    let mut kept = String::with_capacity(listing.len());
    let (mut moving, mut inside, mut quoted) = (false, false, false);
    for line in listing.lines() {
        let bare = line.trim();
        if bare.starts_with("set ") || bare.starts_with("map ") {
            moving = false;
        }
        if let Some(flags) = bare.strip_prefix("flags ") {
            let flag = |f: &str| matches!(f.trim(), "dynamic" | "timeout");
            moving = flags.split(',').any(flag);
        }
        if moving && bare.starts_with("elements = {") {
            inside = true;
        }
        if !inside {
            still(line, &mut quoted, &mut kept);
        } else if bare.ends_with('}') {
            inside = false;
        }
    }
    kept
}

/// Appends a line as `nft --stateless` prints it: without the numbers of counters, what is used of quotas, when
/// something was used last, when an element expires. One listing serves for both forms, as each takes as long as the
/// kernel needs to tell everything. `quoted`: the line begins within a string.
fn still(line: &str, quoted: &mut bool, kept: &mut String) {
    let moves = ["packets ", "used ", "expires "]
        .iter()
        .any(|word| line.contains(word));
    let words = words(line, quoted, moves);
    let word = |at: usize| words.get(at).map_or("", |range| &line[range.clone()]);
    let (mut from, mut at) = (0, 0);
    while at < words.len() {
        let next = |n: usize| word(at + n);
        let leave = match (word(at), next(1)) {
            ("packets", count) if is_number(count) && next(2) == "bytes" && is_number(next(3)) => {
                // A counter that has a name shows its numbers on a line of their own.
                if words.len() == 4 {
                    return;
                }
                if at > 0 && word(at - 1) == "counter" {
                    4
                } else {
                    0
                }
            }
            ("used", count) if is_number(count) && next(2).ends_with("bytes") => 3,
            ("used", time) if at > 0 && word(at - 1) == "last" && is_time(time) => 2,
            ("expires", time) if is_time(time) => 2,
            _ => 0,
        };
        if leave > 0 {
            let last = at + leave - 1;
            // With the space before it, and not the comma after it.
            kept.push_str(line[from..words[at].start].trim_end());
            from = words.get(last).map_or(line.len(), |range| range.end);
        }
        at += leave.max(1);
    }
    kept.push_str(&line[from..]);
    kept.push('\n');
}

/// The words outside of strings and remarks, if they are wanted; a comma ends one.
fn words(line: &str, quoted: &mut bool, wanted: bool) -> Vec<Range<usize>> {
    let (mut words, mut start) = (Vec::new(), None);
    for (at, byte) in line.bytes().enumerate() {
        if byte == b'#' && !*quoted {
            break;
        }
        if !wanted {
            *quoted ^= byte == b'"';
            continue;
        }
        let string = *quoted || byte == b'"';
        *quoted ^= byte == b'"';
        let ends = string || byte == b',' || byte.is_ascii_whitespace();
        match (ends, start) {
            (true, Some(from)) => {
                words.push(from..at);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
        if byte == b'"' {
            // A string is a word as well, so that what stands around it is not taken for neighbours.
            words.push(at..at + 1);
        }
    }
    // What a remark begins in is no word that is looked for.
    words.extend(start.map(|from| from..line.len()));
    words
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// `4m59s976ms`, or `never`.
fn is_time(word: &str) -> bool {
    word == "never"
        || (word.starts_with(|c: char| c.is_ascii_digit())
            && word.ends_with(['w', 'd', 'h', 'm', 's'])
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTING: &str = "table inet t {\n\tset s {\n\t\ttype ipv4_addr\n\t\tflags dynamic,timeout\n\t\telements = { 10.0.0.1 timeout 30s,\n\t\t\t     10.0.0.2 }\n\t}\n\n\tset c {\n\t\ttype ipv4_addr\n\t\telements = { 10.1.0.1 }\n\t}\n\n\tchain in {\n\t\tip saddr @c drop comment \"a } b # c\"\n\t}\n}\ntable ip x { # progname y\n}\n";

    #[test]
    fn a_listing_is_parted_into_its_tables_whatever_its_remarks_and_strings_say() {
        let tables = split(LISTING).unwrap();
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["inet t", "ip x"]);
        assert!(tables["inet t"].ends_with("\t}\n}\n"));
        assert!(split("table ip a {").is_err());
        assert!(split("}").is_err());
        assert!(split("junk { }").is_err());
        assert!(split("").unwrap().is_empty());
    }

    #[test]
    fn what_packets_and_time_put_into_sets_is_not_compared() {
        let plain = plain(LISTING);
        assert!(!plain.contains("10.0.0."), "{plain}");
        assert!(plain.contains("elements = { 10.1.0.1 }"), "{plain}");
        assert!(plain.contains("chain in"), "{plain}");
    }

    /// As nft 1.0.6 lists, with and without `--stateless`.
    const STATES: [(&str, &str); 12] = [
        (
            "\t\tcounter packets 100 bytes 2 accept",
            "\t\tcounter accept",
        ),
        ("\t\tcounter packets 0 bytes 0", "\t\tcounter"),
        (
            "\t\tip saddr @s counter packets 7 bytes 9 accept comment \"counter packets 1 bytes 1\"",
            "\t\tip saddr @s counter accept comment \"counter packets 1 bytes 1\"",
        ),
        (
            "\t\ttcp dport { 22, 80 } counter packets 0 bytes 0 log prefix \"used 5 bytes\" accept",
            "\t\ttcp dport { 22, 80 } counter log prefix \"used 5 bytes\" accept",
        ),
        (
            "\t\telements = { 10.0.0.1 counter packets 5 bytes 7, 10.0.0.2 counter packets 0 bytes 0,",
            "\t\telements = { 10.0.0.1 counter, 10.0.0.2 counter,",
        ),
        (
            "\t\t\t     10.0.0.3 counter packets 0 bytes 0 comment \"expires 5s\" }",
            "\t\t\t     10.0.0.3 counter comment \"expires 5s\" }",
        ),
        (
            "\t\telements = { 10.0.0.1 timeout 1h expires 29m59s976ms, 10.0.0.2 }",
            "\t\telements = { 10.0.0.1 timeout 1h, 10.0.0.2 }",
        ),
        (
            "\t\telements = { 10.0.0.1 counter packets 1 bytes 2 : drop, 10.0.0.2 : jump used }",
            "\t\telements = { 10.0.0.1 counter : drop, 10.0.0.2 : jump used }",
        ),
        ("\t\tover 25 mbytes used 10 bytes", "\t\tover 25 mbytes"),
        (
            "\t\tquota over 30 mbytes used 12 kbytes drop",
            "\t\tquota over 30 mbytes drop",
        ),
        (
            "\t\tlast used 5s counter packets 1 bytes 2",
            "\t\tlast counter",
        ),
        (
            "\t\tlimit rate over 10/second burst 5 packets drop",
            "\t\tlimit rate over 10/second burst 5 packets drop",
        ),
    ];

    #[test]
    fn counters_quotas_and_times_are_left_out_as_nft_itself_leaves_them_out() {
        for (whole, stateless) in STATES {
            assert_eq!(plain(whole), format!("{stateless}\n"));
        }
        let named = "\tcounter c {\n\t\tcomment \"a\"\n\t\tpackets 3 bytes 4\n\t}\n";
        assert_eq!(plain(named), "\tcounter c {\n\t\tcomment \"a\"\n\t}\n");
        let lines =
            "\t\tcounter packets 1 bytes 2 comment \"a\n\t\tcounter packets 1 bytes 2\" accept\n";
        assert_eq!(
            plain(lines),
            "\t\tcounter comment \"a\n\t\tcounter packets 1 bytes 2\" accept\n"
        );
        let remark = "table ip x { # progname \"\n\t\tcounter packets 1 bytes 2\n";
        assert_eq!(plain(remark), "table ip x { # progname \"\n\t\tcounter\n");
    }

    #[test]
    fn a_stored_table_is_read_back_with_its_plain_form_as_before() {
        let state = TableState {
            text: LISTING.to_owned(),
            plain: plain(LISTING),
        };
        let stored = serde_json::to_string(&state).unwrap();
        assert!(!stored.contains("plain"), "{stored}");
        let read: TableState = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, state);
        let earlier = r#"{"text":"table ip x {\n}\n","plain":"other"}"#;
        let read: TableState = serde_json::from_str(earlier).unwrap();
        assert_eq!(read.plain, read.text);
    }

    #[test]
    fn a_table_that_a_listing_does_not_hold_whole_is_told() {
        assert!(is_whole(LISTING));
        assert!(!is_whole(
            "table ip f {\n\tchain c {\n\t\txt match \"conntrack\"\n}\n}\n"
        ));
        assert!(!is_whole("table ip f {\n\t\t# xt_comment counter\n}\n"));
        assert!(!is_whole("table ip f { # progname x\n\tflags owner\n}\n"));
    }

    /// True if `part` is `whole` with something left out.
    fn within(part: &str, whole: &str) -> bool {
        let mut left = whole.chars();
        part.chars().all(|c| left.any(|w| w == c))
    }

    proptest! {
        #[test]
        fn any_listing_is_read_or_refused(text in "[ {}#\"a-z\n,=]{0,80}|\\PC{0,60}") {
            drop(split(&text));
            plain(&text);
        }

        #[test]
        fn a_line_is_only_ever_made_shorter(text in "(counter|packets|bytes|used|last|expires|7|5s|[ ,\"\n\t{}]){0,40}") {
            // A string that is not closed is none that nft lists.
            prop_assume!(text.matches('"').count() % 2 == 0);
            for line in plain(&text).lines() {
                prop_assert!(text.lines().any(|whole| within(line, whole)), "{line}");
            }
        }
    }
}
