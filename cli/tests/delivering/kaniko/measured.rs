//! How long executors take.

use std::io::Write as _;
use std::process::Child;

use serde_json::{Value, json};

use super::{begun, namespace, random};
use crate::docker::until;

/// The middle of five.
fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn seconds(does: impl FnOnce()) -> f64 {
    let begin = std::time::Instant::now();
    does();
    begin.elapsed().as_secs_f64()
}

/// The most memory that a build took, in MB.
fn memory(mut child: Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().expect("a build").is_none() {
        let told = fs_err::read_to_string(&status).unwrap_or_default();
        let peak = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
        most = peak.unwrap_or(0).max(most);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(child.wait().expect("an end").success());
    most / 1000
}

#[test]
#[ignore = "figures: `cargo xtask soak`"]
fn what_is_added_to_an_executors_own_time() {
    let Some(cluster) = namespace("measured") else {
        return;
    };
    let base = cluster
        .place("[images.base]\npackages = [\"six\"]\n", "measured", "")
        .says(&["build", "base"]);
    let images = format!(
        "[images.app]\nbase_image = \"{base}\"\npackages = [\"idna\"]\n[images.large]\ncopy = [\"large\"]\n"
    );
    let place = cluster.place(&images, "measured", "");
    let printed = place.says(&["plan", "app", "--format", "job"]);
    let list: Value = serde_json::from_str(&printed).expect("JSON");
    let job = list["items"][2]["metadata"]["name"]
        .as_str()
        .expect("a name");
    let (mut ours, mut theirs, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        ours.push(seconds(|| drop(place.says(&["build", "app", "--force"]))));
        found.push(seconds(|| drop(place.says(&["build", "app"]))));
        until("nothing is left", || cluster.left("measured").is_empty());
        theirs.push(seconds(|| {
            cluster.apply(&list);
            let name = format!("job/{job}");
            let wait = ["wait", "--for=condition=complete", "--timeout=60s", &name];
            cluster.says(&[&wait[..], &["--namespace", "measured"]].concat());
        }));
        cluster.says(&[
            "delete",
            "all,secrets,configmaps",
            "--all",
            "--namespace",
            "measured",
        ]);
        until("nothing is left", || cluster.left("measured").is_empty());
    }
    let mut peaks = Vec::new();
    for megabytes in [1, 200] {
        random(&place, megabytes << 20);
        peaks.push(memory(begun(&place, &["large"])));
    }
    // It is for whoever runs it.
    let _ = writeln!(
        std::io::stderr(),
        "built {:.2} s, the same manifests with kubectl {:.2} s, found {:.3} s; memory with a context of 1 MB {} MB, \
         of 200 MB {} MB",
        median(ours),
        median(theirs),
        median(found),
        peaks[0],
        peaks[1]
    );
}

#[test]
#[ignore = "figures: `cargo xtask soak`"]
fn how_long_executors_take_for_one_requirement_more() {
    const ROUNDS: usize = 3;
    const SCIENCE: &str = "\"numpy==2.2.6\", \"pandas==2.2.3\", \"scikit-learn==1.6.1\", \"scipy==1.15.2\", \
                           \"pyarrow==19.0.1\", \"requests==2.32.3\"";
    const ADDED: [&str; ROUNDS] = ["humanize==4.12.1", "toolz==1.0.0", "xmltodict==0.14.2"];
    let Some(cluster) = namespace("science") else {
        return;
    };
    let images = ADDED.iter().enumerate();
    let images = images
        .map(|(at, added)| format!("[images.more{at}]\npackages = [{SCIENCE}, \"{added}\"]\n"));
    let images = format!(
        "[images.first]\npackages = [{SCIENCE}]\n{}",
        images.collect::<String>()
    );
    let cache = tempfile::tempdir().expect("a folder");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs_err::set_permissions(cache.path(), mode).expect("a mode");
    let volume = format!(
        "executor = \"native\"\ncache_volume = {{ hostPath = {{ path = \"{}\" }} }}",
        cache.path().display()
    );
    let remembers = "executor = \"native\"\ncache = true";
    let flavours = ["", "executor = \"native\"", remembers, &volume];
    // Each with a part of the registry of its own.
    let places = flavours.iter().enumerate().map(|(at, options)| {
        let namespace = format!("science-{at}");
        cluster.namespace(&namespace, &json!({}));
        cluster.place(&images, &namespace, options)
    });
    let places: Vec<_> = places.collect();
    for place in &places {
        place.says(&["build", "first", "--force"]);
    }
    let mut took = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        let image = format!("more{round}");
        for (place, took) in places.iter().zip(&mut took) {
            took.push(seconds(|| drop(place.says(&["build", &image, "--force"]))));
        }
    }
    let [kaniko, native, remembered, kept] = took.map(median);
    // It is for whoever runs it.
    let _ = writeln!(
        std::io::stderr(),
        "one requirement more: kaniko {kaniko:.1} s, native {native:.1} s, native with a memory in the registry \
         {remembered:.1} s, native with a volume {kept:.1} s"
    );
}
