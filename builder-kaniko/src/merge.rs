//! Strategic merge: what a person says of a pod template, merged into ours as `kubectl patch` does.

use serde_json::{Map, Value};

/// The lists whose members have a name by which they are merged; others replace ours.
const KEYS: [(&str, &str); 12] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("hostAliases", "ip"),
    ("ports", "containerPort"),
    ("topologySpreadConstraints", "topologyKey"),
    ("resourceClaims", "name"),
];
/// What a patch says of the object it stands in.
const DIRECTIVE: &str = "$patch";

/// Merges a patch into an object.
pub(crate) fn merge(ours: &mut Map<String, Value>, patch: &Map<String, Value>) {
    if patch.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") {
        ours.clear();
    }
    for (name, said) in patch {
        match (ours.get_mut(name), said) {
            _ if name == DIRECTIVE => {}
            (_, Value::Null) => {
                ours.remove(name);
            }
            (Some(Value::Object(ours)), Value::Object(patch)) => merge(ours, patch),
            (Some(Value::Array(ours)), Value::Array(patch)) => match key(name) {
                Some(key) => merge_list(ours, patch, key),
                None => ours.clone_from(patch),
            },
            _ => {
                ours.insert(name.clone(), said.clone());
            }
        }
    }
}

fn key(list: &str) -> Option<&'static str> {
    let found = KEYS.iter().find(|(name, _)| *name == list);
    found.map(|(_, key)| *key)
}

fn merge_list(ours: &mut Vec<Value>, patch: &[Value], key: &str) {
    for said in patch {
        let at = ours.iter().position(|our| our.get(key) == said.get(key));
        let deleted = said.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
        match (at, said) {
            (Some(at), _) if deleted => {
                ours.remove(at);
            }
            (Some(at), Value::Object(patch)) => {
                if let Value::Object(our) = &mut ours[at] {
                    merge(our, patch);
                }
            }
            (None, said) if !deleted => ours.push(said.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut ours: Value, patch: &Value) -> Value {
        let target = ours.as_object_mut().expect("an object");
        merge(target, patch.as_object().expect("an object"));
        ours
    }

    #[test]
    fn lists_with_names_are_merged_by_name() {
        let ours = json!({"spec": {
            "containers": [{"name": "executor", "image": "a", "env": [{"name": "A", "value": "1"}]}],
            "volumes": [{"name": "context"}, {"name": "gone"}],
            "tolerations": [{"key": "a"}],
        }});
        let patch = json!({"spec": {
            "hostNetwork": true,
            "containers": [
                {"name": "executor", "env": [{"name": "B", "value": "2"}]},
                {"name": "sidecar"},
            ],
            "volumes": [{"name": "gone", "$patch": "delete"}],
            "tolerations": [{"key": "b"}],
        }});
        let expected = json!({"spec": {
            "containers": [
                {"name": "executor", "image": "a", "env": [
                    {"name": "A", "value": "1"}, {"name": "B", "value": "2"},
                ]},
                {"name": "sidecar"},
            ],
            "volumes": [{"name": "context"}],
            "tolerations": [{"key": "b"}],
            "hostNetwork": true,
        }});
        assert_eq!(merged(ours, &patch), expected);
    }

    #[test]
    fn null_takes_away_and_replace_begins_anew() {
        let ours = json!({"a": 1, "b": {"c": 1}});
        let patch = json!({"a": null, "b": {"$patch": "replace", "d": 2}});
        assert_eq!(merged(ours, &patch), json!({"b": {"d": 2}}));
    }
}
