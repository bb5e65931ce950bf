//! Jobs as a cluster is given them.

use insta::assert_snapshot;

use super::*;

fn order<'a>(options: &'a Options, declared: &'a [SecretMount]) -> Order<'a> {
    Order {
        name: "imagespec-0123".to_owned(),
        belongings: "imagespec-0123-45".to_owned(),
        namespace: "builds",
        reference: "registry.example/team/app:1".to_owned(),
        options,
        image: options.image().to_owned(),
        program: None,
        platform: Platform::amd64(),
        arguments: vec!["--context=tar://stdin".to_owned()],
        way: Way::Streamed,
        fetcher: None,
        lent: BTreeMap::from([("imagespec-ca".to_owned(), b"pem".to_vec())]),
        declared,
        logins: Some(json!({ "auths": {} })),
        proxies: BTreeMap::from([(
            "HTTPS_PROXY".to_owned(),
            "http://me:x@proxy.example".to_owned(),
        )]),
    }
}

fn shown(order: &Order<'_>) -> String {
    let job = json!(order.job().expect("a Job"));
    serde_json::to_string_pretty(&job["spec"]).expect("JSON")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a whole Job")]
fn a_job_says_all_that_a_pod_needs() {
    let declared = [SecretMount {
        source: "/here/netrc".into(),
        target: "/run/netrc".into(),
    }];
    let options = Options::default();
    let order = order(&options, &declared);
    assert_snapshot!(shown(&order), @r#"
    {
      "activeDeadlineSeconds": 3600,
      "backoffLimit": 0,
      "suspend": true,
      "template": {
        "metadata": {
          "annotations": {
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "linkerd.io/inject": "disabled",
            "sidecar.istio.io/inject": "false"
          },
          "labels": {
            "app.kubernetes.io/managed-by": "imagespec",
            "app.kubernetes.io/name": "imagespec",
            "sidecar.istio.io/inject": "false"
          }
        },
        "spec": {
          "automountServiceAccountToken": false,
          "containers": [
            {
              "args": [
                "--context=tar://stdin"
              ],
              "env": [
                {
                  "name": "HTTPS_PROXY",
                  "valueFrom": {
                    "secretKeyRef": {
                      "key": "HTTPS_PROXY",
                      "name": "imagespec-0123-45"
                    }
                  }
                }
              ],
              "image": "ghcr.io/osscontainertools/kaniko:v1.28.3",
              "imagePullPolicy": "IfNotPresent",
              "name": "executor",
              "resources": {
                "requests": {
                  "cpu": "500m",
                  "memory": "512Mi"
                }
              },
              "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {
                  "add": [
                    "CHOWN",
                    "DAC_OVERRIDE",
                    "FOWNER",
                    "FSETID",
                    "KILL",
                    "SETFCAP",
                    "SETGID",
                    "SETUID"
                  ],
                  "drop": [
                    "ALL"
                  ]
                },
                "runAsGroup": 0,
                "runAsUser": 0,
                "seccompProfile": {
                  "type": "RuntimeDefault"
                }
              },
              "stdin": true,
              "stdinOnce": true,
              "volumeMounts": [
                {
                  "mountPath": "/dev/imagespec",
                  "name": "lent"
                },
                {
                  "mountPath": "/kaniko/buildcontext",
                  "name": "unpacked"
                },
                {
                  "mountPath": "/run/netrc",
                  "name": "secrets",
                  "readOnly": true,
                  "subPath": "imagespec-pip-0"
                },
                {
                  "mountPath": "/kaniko/secrets",
                  "name": "secrets",
                  "readOnly": true
                },
                {
                  "mountPath": "/kaniko/.docker",
                  "name": "logins",
                  "readOnly": true
                }
              ]
            }
          ],
          "enableServiceLinks": false,
          "nodeSelector": {
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux"
          },
          "restartPolicy": "Never",
          "terminationGracePeriodSeconds": 5,
          "volumes": [
            {
              "emptyDir": {},
              "name": "lent"
            },
            {
              "emptyDir": {},
              "name": "unpacked"
            },
            {
              "name": "secrets",
              "secret": {
                "defaultMode": 292,
                "items": [
                  {
                    "key": "imagespec-ca",
                    "path": "imagespec-ca"
                  }
                ],
                "secretName": "imagespec-0123-45"
              }
            },
            {
              "name": "logins",
              "secret": {
                "defaultMode": 256,
                "items": [
                  {
                    "key": ".dockerconfigjson",
                    "path": "config.json"
                  }
                ],
                "secretName": "imagespec-0123-45"
              }
            }
          ]
        }
      },
      "ttlSecondsAfterFinished": 3600
    }
    "#);
    // What is secret is in the Secret alone.
    let secret = order
        .secret(None)
        .and_then(|secret| secret.data)
        .expect("a Secret");
    let keys: Vec<_> = secret.keys().map(String::as_str).collect();
    assert_eq!(keys, [".dockerconfigjson", "HTTPS_PROXY", "imagespec-ca"]);
    assert!(!shown(&order).contains("me:x"));
}

#[test]
fn options_are_where_a_pod_has_them() {
    let said = json!({
        "service_account": "builder",
        "image_pull_secrets": ["pull"],
        "registry_secret": "push",
        "node_selector": { "pool": "builds" },
        "tolerations": [{ "key": "builds", "operator": "Exists" }],
        "priority_class": "low",
        "resources": { "limits": { "memory": "2Gi" } },
        "labels": { "team": "ml" },
        "pod_template": { "spec": {
            "hostNetwork": true,
            "containers": [{ "name": "executor", "env": [{ "name": "A", "value": "b" }] }],
        } },
    });
    let options = Options::read(said.as_object().expect("options")).expect("options");
    let job = json!(order(&options, &[]).job().expect("a Job"));
    let spec = &job["spec"]["template"]["spec"];
    assert_eq!(spec["serviceAccountName"], "builder");
    assert_eq!(spec["automountServiceAccountToken"], true);
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "pull" }]));
    assert_eq!(spec["nodeSelector"]["pool"], "builds");
    assert_eq!(spec["nodeSelector"]["kubernetes.io/arch"], "amd64");
    assert_eq!(spec["tolerations"][0]["key"], "builds");
    assert_eq!(spec["priorityClassName"], "low");
    assert_eq!(spec["hostNetwork"], true);
    let executor = &spec["containers"][0];
    assert_eq!(
        executor["resources"],
        json!({ "limits": { "memory": "2Gi" } })
    );
    assert_eq!(executor["env"][1], json!({ "name": "A", "value": "b" }));
    assert_eq!(job["metadata"]["labels"]["team"], "ml");
    let volumes = spec["volumes"].as_array().expect("volumes");
    let logins = volumes.iter().find(|volume| volume["name"] == "logins");
    assert_eq!(logins.expect("a volume")["secret"]["secretName"], "push");
}

#[test]
fn an_executor_of_ours_asks_for_no_right() {
    let given = json!({ "executor": "native", "cache_volume": { "emptyDir": {} } });
    let options = Options::read(given.as_object().expect("options")).expect("options");
    let mut order = order(&options, &[]);
    order.image = "registry.example/base@sha256:0".to_owned();
    order.program = Some(Brought {
        image: "registry.example/imagespec-executor:1".to_owned(),
        command: vec!["/imagespec/program/bin/imagespec".to_owned()],
    });
    order.lent = BTreeMap::from([(AUTHORITIES.to_owned(), b"pem".to_vec())]);
    let job = json!(order.job().expect("a Job"));
    let pod = &job["spec"]["template"]["spec"];
    let (brings, executor) = (&pod["initContainers"][0], &pod["containers"][0]);
    for container in [brings, executor] {
        let rights = &container["securityContext"];
        assert_eq!(rights["runAsNonRoot"], true);
        assert_eq!(rights["allowPrivilegeEscalation"], false);
        assert_eq!(rights["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(rights["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(rights["readOnlyRootFilesystem"], true);
        assert_eq!(container["command"][0], "/imagespec/program/bin/imagespec");
    }
    assert_eq!(brings["image"], "registry.example/imagespec-executor:1");
    assert_eq!(executor["image"], "registry.example/base@sha256:0");
    let secret = json!(order.secret(None));
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
    assert_eq!(
        pod["imagePullSecrets"],
        json!([{ "name": "imagespec-0123-45" }])
    );
    let authorities = json!({ "name": "SSL_CERT_FILE", "value": "/imagespec/lent/ca.pem" });
    let env = executor["env"].as_array().expect("variables");
    assert!(env.contains(&authorities), "{env:?}");
    let volumes = pod["volumes"].as_array().expect("volumes");
    let names: Vec<_> = volumes.iter().map(|volume| &volume["name"]).collect();
    assert_eq!(names, ["work", "program", "cache", "secrets", "logins"]);
}
