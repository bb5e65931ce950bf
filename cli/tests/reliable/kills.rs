//! The command is ended at random moments: by a kill, which it cannot hear, and by signals, which it can.

use std::process::Child;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use rustix::process::{Pid, Signal, kill_process};

use crate::index::Index;
use crate::place::{Cache, Place, Ran, all_ended, wheels};
use crate::registry::Registry;
use crate::scale;

/// Image, index and registry of all rounds of one test, and what is right.
struct Rounds {
    index: Index,
    registry: Registry,
    digest: String,
    /// How long a build takes from each kind of cache.
    takes: [(Cache, Duration); 2],
    _wheels: tempfile::TempDir,
}

impl Rounds {
    fn new() -> Option<Self> {
        let registry = Registry::start(false)?;
        let folder = tempfile::tempdir().expect("a folder");
        let index = Index::serve(&wheels(folder.path()), None);
        let mut digests = Vec::new();
        let takes = [Cache::Base, Cache::Downloads].map(|cache| {
            let place = Place::new(cache, &index);
            let start = Instant::now();
            digests.push(place.build(&["--registry", &format!("{}/first", registry.name())]));
            (cache, start.elapsed())
        });
        assert_eq!(digests[0], digests[1]);
        Some(Self {
            index,
            registry,
            digest: digests.remove(0),
            takes,
            _wheels: folder,
        })
    }

    /// Ends a build with a signal, at a random moment of the time it takes. Answers the place, where the image
    /// was to go, and how the command ended.
    fn end(&self, random: &mut StdRng, round: u64, signal: Signal) -> (Place, [String; 2], Ran) {
        // The base takes long, and is the same code as all other layers.
        let (cache, takes) = self.takes[usize::from(random.random_ratio(1, 8))];
        let place = Place::new(cache, &self.index);
        let output = if random.random_ratio(1, 4) {
            ["--output".to_owned(), "store".to_owned()]
        } else {
            let to = format!("{}/round-{round}", self.registry.name());
            ["--registry".to_owned(), to]
        };
        let child = place.start(&["build", &output[0], &output[1], "--progress", "plain"]);
        // Before that, the command does not listen for signals yet.
        let early = Duration::from_millis(150);
        std::thread::sleep(random.random_range(early..takes.max(early * 2)));
        send(&child, signal);
        (place, output, Ran::wait(child))
    }

    /// The next build makes the right image, and everything that is kept is what it says.
    #[track_caller]
    fn recovers(&self, place: &Place, output: &[String; 2], because: &str) {
        all_ended(place);
        place.verify();
        self.registry.verified_blobs();
        let digest = place.build(&[&output[0], &output[1]]);
        assert_eq!(digest, self.digest, "{because}");
        place.verify();
        self.registry.verified_blobs();
        place.says(&["cache", "prune", "--all"]);
        assert_eq!(place.leftovers(), [""; 0], "{because}");
    }
}

fn send(child: &Child, signal: Signal) {
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // It may have ended already.
    let _ = kill_process(process.expect("a process"), signal);
}

#[test]
fn a_build_that_is_ended_is_made_right_by_the_next() {
    let Some(rounds) = Rounds::new() else {
        return;
    };
    let (seed, mut random) = scale::seed(1);
    for round in 0..scale::kills() {
        let because = format!("seed {seed}, round {round}");
        let (place, output, ran) = rounds.end(&mut random, round, Signal::KILL);
        let finished = ran.code == Some(0);
        assert!(
            finished || ran.signal == Some(9),
            "{because}: {}",
            ran.stderr
        );
        rounds.recovers(&place, &output, &because);
    }
    for round in scale::kills()..scale::kills() * 3 / 2 {
        let because = format!("seed {seed}, round {round}");
        let signal = [Signal::INT, Signal::TERM][usize::from(round % 2 == 0)];
        let (place, output, ran) = rounds.end(&mut random, round, signal);
        assert!(
            matches!(ran.code, Some(0 | 130)),
            "{because}: {:?} {:?} {}",
            ran.code,
            ran.signal,
            ran.stderr
        );
        all_ended(&place);
        // Who hears the signal leaves nothing half-written.
        assert_eq!(place.leftovers(), [""; 0], "{because}");
        rounds.recovers(&place, &output, &because);
    }
    assert!(rounds.registry.verified_blobs().len() > 5);
}
