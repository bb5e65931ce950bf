//! Parsers under random damage: inputs of a corpus, changed in random ways for some seconds, on stable Rust.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// The longest that one input may take.
const LONGEST: Duration = Duration::from_secs(10);
/// The most memory that one input may take beside what there was, in KiB.
const MOST: u64 = 256 << 10;
/// The longest input that is made, in bytes.
const LENGTH: usize = 256 << 10;
/// How many inputs are tried between two looks at the clock.
const ROUND: u32 = 64;
/// Numbers at which readers err, as little-endian bytes of any width.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];

/// One at a time: memory is the process's.
static ALONE: Mutex<()> = Mutex::new(());

/// A random change of an input.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Number(Index, usize, u8),
    Token(Index, Index),
    Remove(Index, u16),
    Repeat(Index, u16, u16),
    Cut(Index),
    Splice(Index, Index, Index),
}

/// What everything that is random in the tests follows from: `IMAGESPEC_TEST_SEED`, by default the clock.
pub fn seed() -> u64 {
    number("IMAGESPEC_TEST_SEED").unwrap_or_else(clock)
}

/// Calls `target` with the files of the folder `corpus`, and then with inputs made from them, for
/// `IMAGESPEC_TEST_SECONDS` seconds, 2 if it is unset. `tokens` are texts that mean something to the parser.
///
/// The inputs follow from `IMAGESPEC_TEST_SEED`, by default from the clock.
///
/// # Panics
///
/// Where `target` does, takes
/// longer than ten seconds or needs more than 256 MiB; the message names the seed, and the file that holds the
/// smallest input found that does it: to be added to the corpus.
pub fn fuzz(corpus: &Path, tokens: &[&str], target: impl Fn(&[u8])) {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let seeds = read(corpus);
    assert!(!seeds.is_empty(), "no corpus in `{}`", corpus.display());
    for seed in &seeds {
        within_bounds(seed, &target).unwrap_or_else(|problem| panic!("{problem}: {seed:?}"));
    }
    let seed = seed();
    let end = Instant::now() + Duration::from_secs(number("IMAGESPEC_TEST_SECONDS").unwrap_or(2));
    let strategy = (any::<Index>(), prop::collection::vec(change(), 1..12));
    let mut round = 0_u64;
    while Instant::now() < end {
        let config = Config {
            cases: ROUND,
            failure_persistence: None,
            max_shrink_iters: 500,
            max_shrink_time: 5_000,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&round.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let made = |(from, changes): &(Index, Vec<Change>)| {
            let mut input = from.get(&seeds).clone();
            for change in changes {
                apply(change, &mut input, &seeds, tokens);
            }
            input
        };
        let found = TestRunner::new_with_rng(config, random).run(&strategy, |case| {
            within_bounds(&made(&case), &target).map_err(TestCaseError::fail)
        });
        if let Err(TestError::Fail(problem, case)) = found {
            let file = std::env::temp_dir().join(format!("imagespec-fuzz-{seed}"));
            let written = fs_err::write(&file, made(&case));
            panic!(
                "seed {seed}: {problem}; the input is in `{}`: {written:?}",
                file.display()
            );
        }
        round += 1;
    }
    assert!(round > 0, "no time for a single round");
}

fn within_bounds(input: &[u8], target: &impl Fn(&[u8])) -> Result<(), String> {
    let before = memory("VmRSS:");
    // Resets the peak; where the system has no such thing, memory is not looked at.
    let watched = fs_err::write("/proc/self/clear_refs", "5").is_ok();
    let start = Instant::now();
    target(input);
    let took = start.elapsed();
    let more = memory("VmHWM:").saturating_sub(before);
    if took > LONGEST {
        return Err(format!("took {took:?}"));
    }
    if watched && more > MOST {
        return Err(format!("took {more} KiB of memory"));
    }
    Ok(())
}

fn memory(field: &str) -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 0..NUMBERS.len(), 0..4_u8)
            .prop_map(|(at, which, width)| Change::Number(at, which, width)),
        (at(), at()).prop_map(|(at, token)| Change::Token(at, token)),
        (at(), 1..200_u16).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), 1..80_u16, 1..400_u16)
            .prop_map(|(at, count, times)| Change::Repeat(at, count, times)),
        at().prop_map(Change::Cut),
        (at(), at(), at()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

fn apply(change: &Change, input: &mut Vec<u8>, seeds: &[Vec<u8>], tokens: &[&str]) {
    let place = |at: &Index, input: &Vec<u8>| at.index(input.len() + 1);
    match change {
        Change::Flip(at, bit) if !input.is_empty() => {
            let at = at.index(input.len());
            input[at] ^= 1 << bit;
        }
        Change::Set(at, byte) if !input.is_empty() => {
            let at = at.index(input.len());
            input[at] = *byte;
        }
        Change::Number(at, which, width) => {
            let at = place(at, input);
            let bytes = &NUMBERS[*which].to_le_bytes()[..1 << width];
            let end = (at + bytes.len()).min(input.len());
            input[at..end].copy_from_slice(&bytes[..end - at]);
        }
        Change::Token(at, token) if !tokens.is_empty() => {
            let at = place(at, input);
            let token = token.get(tokens).bytes();
            input.splice(at..at, token);
        }
        Change::Flip(..) | Change::Set(..) | Change::Token(..) => {}
        Change::Remove(at, count) => {
            let at = place(at, input);
            let end = (at + usize::from(*count)).min(input.len());
            input.drain(at..end);
        }
        Change::Repeat(at, count, times) => {
            let at = place(at, input);
            let end = (at + usize::from(*count)).min(input.len());
            let repeated = input[at..end].repeat(usize::from(*times));
            input.splice(at..at, repeated);
        }
        Change::Cut(at) => input.truncate(place(at, input)),
        Change::Splice(at, other, from) => {
            let other = other.get(seeds);
            input.truncate(place(at, input));
            input.extend(&other[place(from, other)..]);
        }
    }
    input.truncate(LENGTH);
}

fn read(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
        .into_iter()
        .filter_map(|file| fs_err::read(file).ok())
        .collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(content: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs_err::write(folder.path().join("one"), content).expect("a file");
        folder
    }

    fn fails(target: impl Fn(&[u8]) + std::panic::UnwindSafe) -> String {
        let folder = corpus(b"0123456789");
        let tokens: &[&str] = &["fault"];
        let found = std::panic::catch_unwind(|| fuzz(folder.path(), tokens, target));
        let payload = found.expect_err("a fault");
        payload.downcast_ref::<String>().expect("a text").clone()
    }

    #[test]
    fn a_fault_is_found_and_its_seed_named() {
        let said = fails(|input| {
            assert!(!input.windows(5).any(|window| window == b"fault"), "found");
        });
        assert!(
            said.starts_with("seed ") && said.contains("found"),
            "{said}"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let said = fails(|input| {
            if input.len() > 100 {
                std::hint::black_box(vec![1_u8; 400 << 20]);
            }
        });
        assert!(said.contains("KiB of memory"), "{said}");
    }
}
