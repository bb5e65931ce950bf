//! What a person must be allowed to do in a namespace, asked of the cluster itself.

use std::fmt::Write as _;

use futures::future::try_join_all;
use imagespec_core::error::BuildError;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use crate::cluster::Cluster;

/// How often each is asked about.
const ATTEMPTS: u32 = 2;

/// One right: a group, a resource with its subresource, and the verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    group: &'static str,
    resource: &'static str,
    verbs: Vec<&'static str>,
}

/// All that a build needs. Attaching needs `get` for web sockets and `create` for what came before them.
const NEEDED: [(&str, &str, &[&str]); 7] = [
    (
        "batch",
        "jobs",
        &["create", "get", "list", "watch", "patch", "delete"],
    ),
    ("", "pods", &["get", "list", "watch"]),
    ("", "pods/log", &["get"]),
    ("", "pods/attach", &["get", "create"]),
    ("", "secrets", &["create", "delete"]),
    ("", "configmaps", &["create", "delete"]),
    ("", "events", &["list"]),
];

/// A group, a resource and a verb.
type Question = (&'static str, &'static str, &'static str);

/// The rights that are missing.
pub(crate) async fn missing(cluster: &Cluster) -> Result<Vec<Right>, BuildError> {
    let mut questions: Vec<Question> = Vec::new();
    for (group, resource, verbs) in NEEDED {
        questions.extend(verbs.iter().map(|verb| (group, resource, *verb)));
    }
    let questions = questions.into_iter();
    let answers = questions.map(|question| is_refused(cluster, question));
    let asked = try_join_all(answers).await?;
    let mut missing: Vec<Right> = Vec::new();
    for (group, resource, verb) in asked.into_iter().flatten() {
        match missing.last_mut() {
            Some(right) if (right.group, right.resource) == (group, resource) => {
                right.verbs.push(verb);
            }
            _ => missing.push(Right {
                group,
                resource,
                verbs: vec![verb],
            }),
        }
    }
    Ok(missing)
}

/// The question again, where the answer is no.
async fn is_refused(cluster: &Cluster, question: Question) -> Result<Option<Question>, BuildError> {
    let (group, resource, verb) = question;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let (name, part) = resource.split_once('/').unwrap_or((resource, ""));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(cluster.namespace.clone()),
                group: Some(group.to_owned()),
                resource: Some(name.to_owned()),
                subresource: Some(part.to_owned()),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let asked = || async { reviews.create(&PostParams::default(), &review).await };
    let answer = cluster.ask_at_most(ATTEMPTS, "ask for rights", asked);
    let answer = answer.await?;
    let allowed = answer.status.is_some_and(|status| status.allowed);
    Ok((!allowed).then_some(question))
}

/// Rights in one line.
pub(crate) fn listed(rights: &[Right]) -> String {
    let listed: Vec<_> = rights
        .iter()
        .map(|right| format!("{} {}", right.verbs.join(" and "), right.resource))
        .collect();
    listed.join(", ")
}

/// A Role with these rights.
pub(crate) fn role(namespace: &str, rights: &[Right]) -> String {
    let mut role = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: imagespec\n  namespace: {namespace}\nrules:\n"
    );
    for Right {
        group,
        resource,
        verbs,
    } in rights
    {
        let verbs = verbs.join(", ");
        let _ = writeln!(
            role,
            "- apiGroups: [\"{group}\"]\n  resources: [\"{resource}\"]\n  verbs: [{verbs}]"
        );
    }
    role
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_says_what_is_missing() {
        let rights = [Right {
            group: "batch",
            resource: "jobs",
            verbs: vec!["create", "watch"],
        }];
        let expected = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: imagespec\n  namespace: team\n\
                        rules:\n- apiGroups: [\"batch\"]\n  resources: [\"jobs\"]\n  verbs: [create, watch]\n";
        assert_eq!(role("team", &rights), expected);
        assert_eq!(listed(&rights), "create and watch jobs");
    }
}
