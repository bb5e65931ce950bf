//! What a command may use, and that nothing outlives it, or us.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use imagespec_sandbox::{Error, Limit, Limits, Mount, run};
use tokio_util::sync::CancellationToken;

use super::place::Place;
use super::tiers;

/// The folder of a process that is going to be killed.
const VICTIM: &str = "IMAGESPEC_TEST_VICTIM";

/// Runs a script that never ends by itself, on every tier.
async fn exceeds(script: &str, limits: Limits, expected: Limit) {
    for tier in tiers() {
        let place = Place::new(tier);
        let mut job = place.job(&["sh", "-c", script]);
        job.limits = limits;
        let started = Instant::now();
        let cancel = CancellationToken::new();
        let ended = run(&place.host, &job, tier, &mut |_| {}, &cancel).await;
        let Err(Error::Limit { limit }) = ended else {
            panic!("{tier:?} {expected:?}: {ended:?}")
        };
        assert_eq!(limit, expected, "{tier:?}");
        assert!(started.elapsed() < Duration::from_mins(1));
    }
}

#[tokio::test]
async fn a_fork_bomb_ends() {
    let limits = Limits {
        processes: Some(200),
        ..Limits::default()
    };
    // What it leaves stays to be counted, whoever of it cannot start another any more.
    exceeds(
        "f() { sleep 1000 & f | f & }; f & exec sleep 1000",
        limits,
        Limit::Processes,
    )
    .await;
}

#[tokio::test]
async fn memory_is_bounded() {
    let limits = Limits {
        memory: Some(64 << 20),
        ..Limits::default()
    };
    let private = "dd if=/dev/zero of=/dev/null bs=200M count=100000";
    exceeds(private, limits, Limit::Memory).await;
    let shared = "dd if=/dev/zero of=/dev/shm/f bs=1M count=100; sleep 1000";
    exceeds(shared, limits, Limit::Memory).await;
}

#[tokio::test]
async fn changes_are_bounded() {
    let limits = Limits {
        disk: Some(16 << 20),
        ..Limits::default()
    };
    exceeds(
        "dd if=/dev/zero of=/srv/f bs=1M count=64; sleep 1000",
        limits,
        Limit::Disk,
    )
    .await;
    let many = "i=0; while true; do dd if=/dev/zero of=/srv/$i bs=1M count=1 2>/dev/null; i=$((i + 1)); done";
    exceeds(many, limits, Limit::Disk).await;
}

#[tokio::test]
async fn time_and_output_are_bounded() {
    let limits = Limits {
        seconds: Some(1),
        ..Limits::default()
    };
    exceeds("sleep 1000", limits, Limit::Seconds).await;
    let limits = Limits {
        output: Some(1 << 20),
        ..Limits::default()
    };
    exceeds("yes", limits, Limit::Output).await;
}

#[tokio::test]
async fn what_stays_within_its_limits_is_left_alone() {
    for tier in tiers() {
        let place = Place::new(tier);
        let script = "sleep 1; dd if=/dev/zero of=/srv/f bs=1M count=4 2>/dev/null; echo done";
        let mut job = place.job(&["sh", "-c", script]);
        job.limits = Limits {
            memory: Some(64 << 20),
            processes: Some(20),
            seconds: Some(60),
            output: Some(5),
            disk: Some(16 << 20),
        };
        let (exit, lines) = place.run(&job).await.unwrap();
        assert!(exit.success(), "{lines:?}");
        assert_eq!(lines, ["done"]);
    }
}

/// The test is its own victim: started once more, it runs a sandbox and waits for its end.
#[tokio::test]
async fn nothing_outlives_us() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        return be_killed(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["limits::nothing_outlives_us", "--exact", "--nocapture"])
        .env(VICTIM, folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut fifo = std::fs::File::open(fifo).unwrap();
        let mut up = [0; 3];
        fifo.read_exact(&mut up).unwrap();
        tell.send(()).unwrap();
        // Ends when no process of the sandbox has it open any more.
        fifo.read_to_end(&mut Vec::new()).unwrap();
        tell.send(()).unwrap();
    });
    let patience = Duration::from_secs(30);
    told.recv_timeout(patience).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    told.recv_timeout(patience).unwrap();
}

async fn be_killed(folder: &Path) {
    let place = Place::new(tiers()[0]);
    let script =
        "setsid sh -c 'exec 3>/mnt/s/fifo; echo up >&3; trap \"\" TERM; sleep 1000' & sleep 1000";
    let mut job = place.job(&["sh", "-c", script]);
    job.mounts = vec![Mount {
        source: folder.to_owned(),
        target: "/mnt/s".into(),
        writable: true,
    }];
    place.run(&job).await.unwrap();
}
