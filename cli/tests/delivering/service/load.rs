//! How much a service bears, and what it adds to a build. Printed, and not asserted but for what is counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use imagespec_build_api::{Accepted, Builds, Wanted};
use imagespec_core::context::{BuildSettings, Destination};
use imagespec_core::plan::BuildPlan;
use imagespec_http::Client;
use serde_json::Value;

use super::fixture::{Service, Trust};
use super::slow;

/// Asks a service as many clients do.
#[derive(Clone)]
struct Asker {
    http: reqwest::Client,
    service: String,
    token: String,
    wanted: Wanted,
}

impl Asker {
    fn new(service: &Service, declaration: &str) -> Self {
        let place = service.place(declaration);
        let mut plans: Value =
            serde_json::from_str(&place.says(&["plan", "--format", "json"])).expect("JSON");
        let plan: BuildPlan =
            serde_json::from_value(plans["plans"][0]["plan"].take()).expect("a plan");
        let destination = Destination {
            registry: Some(service.registry()),
            pull_registry: None,
            name: "app".to_owned(),
            tag: plan.digest().hex(),
            extra_tags: Vec::new(),
        };
        Self {
            http: Client::local(None).expect("a client").inner().clone(),
            service: format!("http://{}/v1", service.address),
            token: service.token.clone(),
            wanted: Wanted {
                secrets: BTreeMap::new(),
                image: "app".to_owned(),
                plan,
                destination,
                base: None,
                settings: BuildSettings::default(),
            },
        }
    }

    /// The same with another image.
    fn other(&self, number: usize) -> Self {
        let mut other = self.clone();
        let env = &mut other.wanted.plan.env;
        env.insert("NUMBER".to_owned(), number.to_string());
        other.wanted.destination.tag = other.wanted.plan.digest().hex();
        other
    }

    async fn submit(&self) -> Accepted {
        let request = self.http.post(format!("{}/builds", self.service));
        let request = request.bearer_auth(&self.token).json(&self.wanted);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
        answer.json().await.expect("JSON")
    }

    /// Follows a build until a text is told, and returns how many events were.
    async fn follow(&self, id: &str, until: &str) -> usize {
        let url = format!("{}/builds/{id}/events", self.service);
        let request = self.http.get(url).bearer_auth(&self.token);
        let mut answer = request.send().await.expect("an answer");
        let mut said = String::new();
        while let Some(bytes) = answer.chunk().await.expect("events") {
            said.push_str(&String::from_utf8_lossy(&bytes));
            if said.contains(until) {
                break;
            }
        }
        said.matches("event: build").count()
    }

    async fn list(&self) -> Builds {
        let url = format!("{}/builds?limit=50", self.service);
        let request = self.http.get(url).bearer_auth(&self.token);
        let answer = request.send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "figures: `cargo xtask bench --service`"]
fn how_much_a_service_bears() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let quick = Asker::new(&service, "[images.app]\npackages = [\"six==1.16.0\"]\n");
    runtime.block_on(async {
        // The base is made once.
        let first = quick.submit().await;
        quick.follow(&first.id, "event: end").await;
        let mut heard = Vec::new();
        for number in 0..50 {
            let other = quick.other(number);
            let started = Instant::now();
            let accepted = other.submit().await;
            other.follow(&accepted.id, "event: build").await;
            heard.push(started.elapsed());
            other.follow(&accepted.id, "event: end").await;
        }
        println!("submit to first event: {:?} (median of 50)", median(heard));

        let many = Asker::new(&service, &slow(5));
        let started = Instant::now();
        let accepted = join_all((0..200).map(|_| many.submit())).await;
        let created = accepted.iter().filter(|accepted| accepted.created).count();
        println!(
            "200 clients with the same image: {:?}, {created} build",
            started.elapsed()
        );
        assert_eq!(created, 1);
        let id = &accepted[0].id;
        let started = Instant::now();
        let heard = join_all((0..500).map(|_| many.follow(id, "event: end"))).await;
        assert!(
            heard.iter().all(|count| *count == heard[0] && *count > 50),
            "{heard:?}"
        );
        println!(
            "500 streams of {} events each, to the end of a build of 5 s: {:?}",
            heard[0],
            started.elapsed()
        );

        let started = Instant::now();
        let queued: Vec<_> = (1000..2000).map(|number| many.other(number)).collect();
        for some in queued.chunks(50) {
            join_all(some.iter().map(Asker::submit)).await;
        }
        println!("1000 builds queued: {:?}", started.elapsed());
        let mut listed = Vec::new();
        for _ in 0..21 {
            let started = Instant::now();
            assert_eq!(many.list().await.builds.len(), 50);
            listed.push(started.elapsed());
        }
        println!(
            "50 of more than 1000 builds listed: {:?} (median of 21)",
            median(listed)
        );
    });
}

#[test]
#[ignore = "figures: `cargo xtask bench --service`"]
fn what_a_service_adds_to_a_build() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let place = service.place(
        "[images.app]\npackages = [\"numpy==2.2.6\", \"pandas==2.2.3\", \"requests==2.32.3\"]\n",
    );
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..8 {
        for (builder, times) in ["native", "union"].into_iter().zip(&mut times) {
            // A tag of its own each: nothing is found, the registry has the layers, and packages are resolved anew.
            let registry = format!("{}/{builder}-{round}", service.registry());
            let started = Instant::now();
            place.builds(&["--force", "--builder", builder, "--registry", &registry]);
            if round > 0 {
                times.push(started.elapsed());
            }
        }
    }
    let [native, union] = times.map(median);
    let more = (union.as_secs_f64() / native.as_secs_f64() - 1.0) * 100.0;
    println!(
        "the same build directly and through the service: {native:?}, {union:?} ({more:+.1} %), medians of 7"
    );
}
