use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::ENTRIES;

/// `fuzz/` of the repository.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(folder().join("seeds").join(name))
        .unwrap_or_else(|error| panic!("fuzz/seeds/{name}: {error}"))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The same numbers in every run (xorshift64, Marsaglia 2003).
struct Stream(u64);

impl Stream {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.number().to_be_bytes()[0]
    }

    /// A seed cut short, changed, grown; or bytes that resemble nothing.
    fn damaged(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        match self.below(5) {
            0 => bytes.truncate(self.below(seed.len() + 1)),
            1 => {
                for _ in 0..=self.below(8) {
                    let at = self.below(seed.len());
                    let bit = 1 << self.below(8);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= bit;
                    }
                }
            }
            2 => {
                let at = self.below(seed.len());
                let extreme = [0, 0xff, 0x7f, 0x80][self.below(4)];
                let length = [1, 2, 4, 8][self.below(4)];
                bytes
                    .iter_mut()
                    .skip(at)
                    .take(length)
                    .for_each(|b| *b = extreme);
            }
            3 => {
                let at = self.below(seed.len());
                let part = seed[at..].iter().copied().take(self.below(64));
                bytes.extend(part);
            }
            _ => bytes = (0..self.below(512)).map(|_| self.byte()).collect(),
        }
        bytes
    }
}

#[test]
fn no_decoder_panics_for_seeds_and_what_becomes_of_them_by_damage() {
    let mut stream = Stream(0x5eed_a12e_0000_0001);
    for (name, entry) in ENTRIES {
        let seeds = seeds(name);
        entry(&[]);
        seeds.iter().for_each(|seed| entry(seed));
        // The stream goes on alike on a slow machine; only its end comes earlier.
        let until = Instant::now() + Duration::from_millis(40);
        for round in 0..400 {
            let bytes = stream.damaged(&seeds[round % seeds.len()]);
            entry(&bytes);
            if Instant::now() >= until {
                break;
            }
        }
    }
}

#[test]
fn every_entry_has_a_target_and_seeds_and_every_target_an_entry() {
    let names = |place: &str| -> BTreeSet<String> {
        fs::read_dir(folder().join(place))
            .unwrap()
            .map(|file| {
                file.unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    };
    let entries: BTreeSet<String> = ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("targets"), entries);
    assert_eq!(names("seeds"), entries);
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    for name in &entries {
        assert!(
            manifest.contains(&format!("path = \"targets/{name}.rs\"")),
            "{name}"
        );
    }
}
