//! What a cluster tells of a Job, in sentences.

use imagespec_core::error::BuildError;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};

use crate::job::{EXECUTOR, FETCHER};

/// What an object of the cluster says of the build.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// It has not begun, for this reason.
    Waits(String),
    /// It runs.
    Runs,
    /// The executor ended, with this code and this message.
    Ended(i32, String),
    /// The cluster lost it: beginning anew may help.
    Lost(BuildError),
    /// It cannot become anything.
    Fails(BuildError),
}

/// What a pod says.
pub(crate) fn of_pod(pod: &Pod, memory: Option<&str>) -> State {
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or_default();
    let said = status.message.clone().unwrap_or_default();
    match status.reason.as_deref() {
        Some("Evicted") => {
            let failed = BuildError::failed("the cluster evicted the build from its node");
            let hint = if said.contains("ephemeral") {
                "raise `ephemeral-storage` in option `resources`"
            } else {
                "say what the build needs in option `resources`"
            };
            return State::Lost(failed.hint(hint).caused_by(&std::io::Error::other(said)));
        }
        Some("NodeLost" | "NodeAffinity" | "Shutdown" | "Terminated") => {
            return State::Lost(lost(&said));
        }
        // The Job says so, too, and when.
        Some("DeadlineExceeded") => return State::Fails(deadline()),
        _ => {}
    }
    let disrupted = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    let containers = status.container_statuses.unwrap_or_default();
    let executor = containers
        .iter()
        .find(|container| container.name == EXECUTOR);
    if let Some(ended) =
        executor.and_then(|container| container.state.as_ref()?.terminated.as_ref())
    {
        if ended.reason.as_deref() == Some("OOMKilled") {
            return State::Fails(out_of_memory(memory));
        }
        if let Some(disrupted) = disrupted {
            return State::Lost(lost(disrupted.message.as_deref().unwrap_or_default()));
        }
        let message = ended.message.clone().unwrap_or_default();
        return State::Ended(ended.exit_code, message);
    }
    let brings = status.init_container_statuses.unwrap_or_default();
    let failed = brings.iter().find_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        (ended.exit_code != 0).then_some((container, ended))
    });
    if let Some((container, ended)) = failed {
        if container.name == FETCHER {
            let said = ended.message.clone().unwrap_or_default();
            let message = "the build context cannot be fetched from the object store";
            return State::Fails(
                BuildError::unavailable(message)
                    .field("builder_options")
                    .caused_by(&std::io::Error::other(said.trim().to_owned()))
                    .hint("the pod gets it by a URL of option `context_store`: its address must be one for the cluster, too"),
            );
        }
        let message = format!(
            "the executor's program cannot be brought out of its image, with code {}: `{}`",
            ended.exit_code, container.image
        );
        let error = BuildError::failed(message).field("builder_options");
        return State::Fails(error.hint(
            "option `image` names one that this version of `imagespec` pushed, for such nodes",
        ));
    }
    if phase == "Failed" {
        return State::Lost(lost(&said));
    }
    if executor.is_some_and(|container| {
        container
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    }) {
        return State::Runs;
    }
    if let Some(state) = brings.iter().chain(executor).find_map(of_waiting) {
        return state;
    }
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    match unscheduled {
        Some(condition) => {
            let why = condition.message.clone().unwrap_or_default();
            State::Waits(format!("waits for a node: {why}"))
        }
        None => State::Waits("waits for its container".to_owned()),
    }
}

/// What a container says that does not run yet.
fn of_waiting(container: &ContainerStatus) -> Option<State> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let said = waiting.message.clone().unwrap_or_default();
    let image = &container.image;
    let failed = |message: String| {
        let failed = BuildError::unavailable(message).field("builder_options");
        failed.caused_by(&std::io::Error::other(said.clone()))
    };
    Some(match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" if !is_certain(&said) => {
            State::Waits(format!("cannot pull `{image}` yet: {said}"))
        }
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => State::Fails(
            failed(format!("the cluster cannot pull the executor's image: `{image}`")).hint(
                "name one that it has with option `image`, and what it is pulled with in `image_pull_secrets`",
            ),
        ),
        "CreateContainerConfigError" => {
            State::Fails(failed("the cluster cannot start the executor".to_owned()))
        }
        "CreateContainerError" => State::Waits(format!("cannot start the executor yet: {said}")),
        _ => return None,
    })
}

/// Whether an image will not come however often it is asked for.
fn is_certain(said: &str) -> bool {
    let said = said.to_lowercase();
    [
        "not found",
        "manifest unknown",
        "unauthorized",
        "denied",
        "forbidden",
        "invalid reference",
    ]
    .iter()
    .any(|word| said.contains(word))
}

/// What a Job says, where its pod says nothing.
pub(crate) fn of_job(job: &Job) -> Option<State> {
    let status = job.status.as_ref()?;
    let failed = status.conditions.iter().flatten().find(|condition| {
        // The second is said before its pods are gone.
        matches!(condition.type_.as_str(), "Failed" | "FailureTarget") && condition.status == "True"
    })?;
    let said = failed.message.clone().unwrap_or_default();
    Some(match failed.reason.as_deref() {
        Some("DeadlineExceeded") => State::Fails(deadline()),
        _ => State::Lost(lost(&said)),
    })
}

/// Whether a Job came to its good end.
pub(crate) fn is_complete(job: &Job) -> bool {
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "SuccessCriteriaMet")
            && condition.status == "True"
    })
}

/// What an event says that the objects do not.
pub(crate) fn of_event(event: &Event, own: &str) -> Option<State> {
    let said = event.message.clone().unwrap_or_default();
    let refused = |message: &str| {
        BuildError::unavailable(message).caused_by(&std::io::Error::other(said.clone()))
    };
    match event.reason.as_deref()? {
        "FailedCreate" if said.contains("exceeded quota") || said.contains("failed quota") => {
            if said.contains("must specify") {
                return Some(State::Fails(
                    refused("the quota of the namespace wants to know what the build needs")
                        .field("builder_options")
                        .hint("say it in option `resources`"),
                ));
            }
            Some(State::Waits(format!("waits for the namespace's quota: {said}")))
        }
        "FailedCreate" if said.contains("violates PodSecurity") => Some(State::Fails(
            refused("the namespace's Pod Security does not let the executor run").hint(
                "an executor that runs commands as root needs `baseline`: choose another namespace with option `namespace`",
            ),
        )),
        "FailedCreate" if said.contains("forbidden") || said.contains("denied the request") => {
            Some(State::Fails(refused("the cluster does not let the executor's pod be made")))
        }
        // What belongs to the Job itself may still be on its way.
        "FailedMount" if said.contains("not found") && !said.contains(&format!("\"{own}\"")) => Some(State::Fails(
            refused("the cluster does not have what the executor mounts")
                .field("builder_options")
                .hint("look at the names in options `registry_secret` and `pod_template`"),
        )),
        _ => None,
    }
}

/// Which object an event is about.
pub(crate) fn subject(event: &Event) -> &str {
    event.involved_object.name.as_deref().unwrap_or_default()
}

/// The memory that the executor of a pod may use.
pub(crate) fn memory(pod: &Pod) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    let executor = containers
        .iter()
        .find(|container| container.name == EXECUTOR)?;
    let limits = executor.resources.as_ref()?.limits.as_ref()?;
    limits.get("memory").map(|memory| memory.0.clone())
}

/// Whether a pod is on its way out.
pub(crate) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn out_of_memory(limit: Option<&str>) -> BuildError {
    let message = match limit {
        Some(limit) => format!("the build used more memory than it may: {limit}"),
        None => "the build used more memory than its node has".to_owned(),
    };
    BuildError::failed(message)
        .field("builder_options")
        .hint("raise `memory` under `limits` in option `resources`")
}

fn deadline() -> BuildError {
    BuildError::failed("the build took longer than it may")
        .field("builder_options")
        .hint("raise option `deadline`")
}

/// The error of a build that the cluster lost.
pub(crate) fn lost(said: &str) -> BuildError {
    let lost = BuildError::unavailable("the cluster lost the build: its pod is gone, or its node");
    if said.is_empty() {
        return lost;
    }
    lost.caused_by(&std::io::Error::other(said.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> State {
        let pod = json!({ "metadata": { "name": "x" }, "status": status });
        of_pod(&serde_json::from_value(pod).expect("a pod"), Some("1Gi"))
    }

    fn container(state: &Value) -> Value {
        json!({ "containerStatuses": [{
            "name": "executor", "image": "an/executor:1", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }] })
    }

    fn message(state: State) -> String {
        match state {
            State::Fails(error) | State::Lost(error) => error.message,
            State::Waits(why) => why,
            state => panic!("{state:?}"),
        }
    }

    #[test]
    fn a_program_that_does_not_come_is_told_of() {
        let brings = |state: &Value| {
            let mut status = container(&json!({ "waiting": { "reason": "PodInitializing" } }));
            status["initContainerStatuses"] = json!([{
                "name": "program", "image": "our/executor:1", "imageID": "", "ready": false, "restartCount": 0,
                "state": state,
            }]);
            message(pod(&status))
        };
        let missing = json!({ "waiting": { "reason": "ErrImagePull", "message": "not found" } });
        let said = brings(&missing);
        assert_eq!(
            said,
            "the cluster cannot pull the executor's image: `our/executor:1`"
        );
        let said = brings(&json!({ "terminated": { "exitCode": 127 } }));
        assert_eq!(
            said,
            "the executor's program cannot be brought out of its image, with code 127: `our/executor:1`"
        );
        let said = brings(&json!({ "running": {} }));
        assert_eq!(said, "waits for its container");
    }

    #[test]
    fn a_context_that_does_not_come_is_told_of() {
        let mut status = container(&json!({ "waiting": { "reason": "PodInitializing" } }));
        status["initContainerStatuses"] = json!([{
            "name": "context", "image": "our/executor:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 3, "message": "error: gone\n" } },
        }]);
        let State::Fails(error) = pod(&status) else {
            panic!("no failure");
        };
        let lost = "the build context cannot be fetched from the object store";
        assert_eq!(error.message, lost);
        assert_eq!(
            error.source.map(|cause| cause.message).as_deref(),
            Some("error: gone")
        );
    }

    #[test]
    fn a_pod_that_waits_says_for_what() {
        let condition = json!({ "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu.",
        }] });
        let why = "waits for a node: 0/1 nodes are available: 1 Insufficient cpu.";
        assert_eq!(pod(&condition), State::Waits(why.to_owned()));
        let creating = container(&json!({ "waiting": { "reason": "ContainerCreating" } }));
        assert_eq!(
            pod(&creating),
            State::Waits("waits for its container".to_owned())
        );
        let backoff = container(
            &json!({ "waiting": { "reason": "ImagePullBackOff", "message": "dial tcp: timeout" } }),
        );
        assert_eq!(
            message(pod(&backoff)),
            "cannot pull `an/executor:1` yet: dial tcp: timeout"
        );
        let gone = container(
            &json!({ "waiting": { "reason": "ErrImagePull", "message": "x: not found" } }),
        );
        assert_eq!(
            message(pod(&gone)),
            "the cluster cannot pull the executor's image: `an/executor:1`"
        );
    }

    #[test]
    fn a_pod_that_ended_says_how() {
        let oom = container(&json!({ "terminated": { "reason": "OOMKilled", "exitCode": 137 } }));
        assert_eq!(
            message(pod(&oom)),
            "the build used more memory than it may: 1Gi"
        );
        let failed = container(&json!({ "terminated": { "reason": "Error", "exitCode": 3 } }));
        assert_eq!(pod(&failed), State::Ended(3, String::new()));
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "Pod ephemeral local storage usage exceeds" });
        let State::Lost(error) = pod(&evicted) else {
            panic!("not lost");
        };
        assert_eq!(
            error.hints,
            ["raise `ephemeral-storage` in option `resources`"]
        );
    }

    #[test]
    fn events_say_what_objects_do_not() {
        let event = |reason: &str, message: &str| {
            let event = json!({
                "metadata": {}, "involvedObject": { "name": "job" }, "reason": reason, "message": message,
            });
            of_event(&serde_json::from_value(event).expect("an event"), "job")
        };
        let quota = "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1";
        assert!(matches!(
            event("FailedCreate", quota),
            Some(State::Waits(_))
        ));
        let security = "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"";
        let refused = event("FailedCreate", security).map(message);
        assert_eq!(
            refused.as_deref(),
            Some("the namespace's Pod Security does not let the executor run")
        );
        let own = "MountVolume.SetUp failed for volume \"secrets\" : secret \"job\" not found";
        assert_eq!(event("FailedMount", own), None);
        let other = "MountVolume.SetUp failed for volume \"logins\" : secret \"other\" not found";
        assert!(matches!(event("FailedMount", other), Some(State::Fails(_))));
        assert_eq!(event("Scheduled", "x"), None);
    }
}
