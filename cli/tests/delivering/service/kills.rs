//! A service that is killed at any moment loses no build that it accepted.

use std::process::Stdio;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::fixture::{Service, Trust};
use super::postgres::Postgres;
use super::seed;
use crate::place::Place;

/// Kills parts so many times while commands ask for builds, and looks at what became of each build.
fn killed(
    service: &mut Service,
    times: u32,
    mut random: StdRng,
    kill: &mut dyn FnMut(&mut Service, &mut StdRng),
) {
    let places: Vec<Place> = (0..6)
        .map(|at| {
            let said = format!("for i in $(seq 1 20); do echo line $i of {at}; sleep 0.1; done");
            let random: u64 = random.random();
            service.place(&format!(
                "[images.app]\ncommands = [\"{said}\"]\n[images.app.env]\nNUMBER = \"{at} {random}\"\n"
            ))
        })
        .collect();
    let registry = service.registry();
    let asking: Vec<_> = places
        .iter()
        .map(|place| {
            let arguments = ["build", "--builder", "union", "--registry", &registry];
            let mut command = place.command(&[&arguments[..], &["--progress", "plain"]].concat());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("the command")
        })
        .collect();
    for _ in 0..times {
        std::thread::sleep(Duration::from_millis(random.random_range(50..1500)));
        kill(service, &mut random);
    }
    for child in asking {
        let output = child.wait_with_output().expect("an end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let name = String::from_utf8(output.stdout).expect("a name");
        let (name, digest) = name.trim().split_once('@').expect("a digest");
        let (repository, tag) = name.rsplit_once(':').expect("a tag");
        let (_, repository) = repository.split_once('/').expect("a repository");
        assert_eq!(service.served.digest(repository, tag), digest);
    }
    for build in service.builds() {
        assert_eq!(build["state"], "done", "{build}");
        let numbers = service.numbers(build["id"].as_str().expect("an id"));
        let expected: Vec<_> = (1..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "{build}");
    }
}

#[test]
fn no_accepted_build_is_lost_when_the_service_is_killed() {
    let Some(mut service) = Service::start(Trust::Trusted) else {
        return;
    };
    let seed = seed();
    println!("seed {seed}");
    rounds(&mut service, 3, seed, &mut power);
}

/// Kills the service.
fn power(service: &mut Service, random: &mut StdRng) {
    service.kill();
    std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
    service.run();
}

#[test]
fn no_accepted_build_is_lost_when_services_that_share_the_work_or_their_database_are_killed() {
    let Some(database) = Postgres::start() else {
        return;
    };
    let Some(mut service) = Service::with_database(Trust::Trusted, Some(database.url())) else {
        return;
    };
    let mut other = service.beside();
    let seed = seed();
    println!("seed {seed}");
    rounds(
        &mut service,
        2,
        seed,
        &mut |service, random| match random.random_range(0..3) {
            0 => power(service, random),
            1 => {
                other.kill();
                other.run();
            }
            _ => {
                database.kill();
                std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
                database.again();
            }
        },
    );
}

/// Several rounds of a few kills: a build whose workers are all lost is given up at some time.
fn rounds(
    service: &mut Service,
    count: usize,
    seed: u64,
    kill: &mut dyn FnMut(&mut Service, &mut StdRng),
) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..count {
        let again = StdRng::seed_from_u64(random.random());
        killed(service, 4, again, kill);
    }
}

#[test]
#[ignore = "long: `cargo xtask soak`"]
fn no_accepted_build_is_lost_when_the_service_is_killed_often() {
    let Some(mut service) = Service::start(Trust::Trusted) else {
        return;
    };
    let seed = seed();
    println!("seed {seed}");
    rounds(&mut service, 50, seed, &mut power);
}
