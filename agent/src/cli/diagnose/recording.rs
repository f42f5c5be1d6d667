//! Recordings: sanitized evidence in a file, from which the same verdict can be reached anywhere.
//!
//! JSON lines: a [`Head`], then one [`Record`] a line. Nothing else is in it: the verdict follows from the records.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};

use aizen_protocol::limit;
use aizen_protocol::record::Record;
use aizen_sanitizer::Sanitized;
use atomic_write_file::AtomicWriteFile;
use serde::{Deserialize, Serialize};

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Format of the lines that follow.
    aizen_recording: u32,
    /// Version of the agent that wrote it.
    agent: String,
}

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    #[error("can't write the recording {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("can't read the recording {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is no recording of `aizen diagnose --record`: line {line}: {why}",
        path.display()
    )]
    Foreign {
        path: PathBuf,
        line: usize,
        why: String,
    },
    #[error("{} is larger than {} MiB", path.display(), LONGEST >> 20)]
    TooLarge { path: PathBuf },
    #[error(
        "{} has format {format}; this program reads format {FORMAT}: use a newer one",
        path.display()
    )]
    Format { path: PathBuf, format: u32 },
}

/// Writes a recording whole or not at all.
pub(super) fn write(path: &Path, records: &[Sanitized<Record>]) -> Result<(), RecordingError> {
    let written = || -> io::Result<()> {
        let mut file = AtomicWriteFile::open(path)?;
        let head = Head {
            aizen_recording: FORMAT,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
        };
        serde_json::to_writer(&mut file, &head)?;
        writeln!(file)?;
        for record in records {
            serde_json::to_writer(&mut file, &record)?;
            writeln!(file)?;
        }
        file.commit()
    };
    written().map_err(|source| RecordingError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Reads one. The file may come from anybody: sizes are bounded, and a line that isn't ours ends the reading.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>, RecordingError> {
    let failed = |source| RecordingError::Read {
        path: path.to_owned(),
        source,
    };
    let foreign = |line, why| RecordingError::Foreign {
        path: path.to_owned(),
        line,
        why,
    };
    let file = File::open(path).map_err(failed)?;
    let mut reader = BufReader::new(file.take(LONGEST + 1));
    let mut line = Vec::new();
    let mut records = Vec::new();
    let mut total = 0_u64;
    for number in 1.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
        total = total.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if total > LONGEST {
            return Err(RecordingError::TooLarge {
                path: path.to_owned(),
            });
        }
        if read == 0 {
            break;
        }
        if read > limit::FRAME {
            return Err(foreign(number, "the line is too long".to_owned()));
        }
        if number == 1 {
            let head: Head =
                serde_json::from_slice(&line).map_err(|e| foreign(number, e.to_string()))?;
            if head.aizen_recording != FORMAT {
                return Err(RecordingError::Format {
                    path: path.to_owned(),
                    format: head.aizen_recording,
                });
            }
            continue;
        }
        records.push(serde_json::from_slice(&line).map_err(|e| foreign(number, e.to_string()))?);
    }
    if total == 0 {
        return Err(foreign(1, "the file is empty".to_owned()));
    }
    Ok(records)
}

const FORMAT: u32 = 1;
/// Two rounds of a large router are less than one MiB.
const LONGEST: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Record>, RecordingError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn what_is_no_recording_is_named_with_its_line() {
        let error = read_text("").unwrap_err().to_string();
        assert!(error.contains("line 1: the file is empty"), "{error}");
        let error = read_text("{\"round\":1}\n").unwrap_err().to_string();
        assert!(error.contains("line 1: unknown field"), "{error}");
        let head = "{\"aizen_recording\":1,\"agent\":\"0.1.0\"}\n";
        let error = read_text(&format!("{head}garbage\n")).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(read_text(head).unwrap().is_empty());
        let error = read_text("{\"aizen_recording\":7,\"agent\":\"9\"}\n").unwrap_err();
        assert!(matches!(error, RecordingError::Format { format: 7, .. }));
    }

    #[test]
    fn a_line_without_end_costs_no_more_than_its_bound() {
        let long = format!("{}\n", "x".repeat(limit::FRAME + 1));
        let error = read_text(&long).unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
    }
}
