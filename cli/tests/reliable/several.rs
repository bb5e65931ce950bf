//! Several processes over one cache.

use std::collections::HashMap;

use crate::index::{Fault, Index};
use crate::place::{Cache, Place, Ran, wheels};

fn together(builds: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let index = Index::serve(&wheels(folder.path()), None);
    let place = Place::new(Cache::Base, &index);
    let start = || place.start(&["build", "--output", "store", "--progress", "plain"]);
    let started: Vec<_> = (0..builds).map(|_| start()).collect();
    let mut images = Vec::new();
    for child in started {
        let ran = Ran::wait(child);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        images.push(ran.stdout);
    }
    images.dedup();
    assert_eq!(images.len(), 1, "{images:?}");
    let mut asked = HashMap::<_, usize>::new();
    for wheel in index.asked() {
        *asked.entry(wheel).or_default() += 1;
    }
    assert!(
        asked.len() == 3 && asked.values().all(|times| *times == 1),
        "{asked:?}"
    );
    place.verify();
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn two_builds_at_once_do_the_work_once() {
    together(2);
}

#[test]
fn a_hundred_builds_at_once_do_the_work_once() {
    together(100);
}

#[test]
fn a_prune_while_a_build_runs_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = Index::serve(&wheels(folder.path()), None);
    index.set(Fault::Held);
    let place = Place::new(Cache::Base, &index);
    let build = place.start(&["build", "--output", "store", "--progress", "quiet"]);
    index.until_held();
    let prune = place.run(&["cache", "prune", "--all"]);
    assert_eq!(prune.code, Some(3), "{}", prune.stderr);
    index.set(Fault::None);
    let ran = Ran::wait(build);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    place.verify();
    place.says(&["cache", "prune", "--all"]);
}
