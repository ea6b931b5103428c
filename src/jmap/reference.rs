//! Arguments that refer to the result of an earlier call (RFC 8620 §3.7).

use serde_json::{Map, Value};

use crate::error::MethodError;

/// One invocation of the answer: method name, arguments, call id.
pub(crate) type Invocation = (String, Value, String);

/// Values a wildcard may gather: a reference must not multiply without end.
const VALUES_MAX: usize = 100_000;

/// Replaces each `#name` by what it refers to.
pub(crate) fn resolve(arguments: Map<String, Value>, done: &[Invocation]) -> Result<Map<String, Value>, MethodError> {
    let mut out = Map::new();
    for (name, value) in &arguments {
        let Some(plain) = name.strip_prefix('#') else {
            out.insert(name.clone(), value.clone());
            continue;
        };
        if arguments.contains_key(plain) {
            return Err(MethodError::invalid(format!("{plain} is given twice")));
        }
        let found = look_up(value, done)
            .ok_or_else(|| MethodError::new("invalidResultReference", format!("{name} refers to nothing")))?;
        out.insert(plain.to_owned(), found);
    }
    Ok(out)
}

fn look_up(reference: &Value, done: &[Invocation]) -> Option<Value> {
    let field = |name: &str| reference.get(name)?.as_str();
    let (call, name, path) = (field("resultOf")?, field("name")?, field("path")?);
    let (_, result, _) = done.iter().find(|(_, _, id)| id == call).filter(|(method, _, _)| method == name)?;
    let steps: Vec<String> =
        if path.is_empty() { Vec::new() } else { path.strip_prefix('/')?.split('/').map(unescape).collect() };
    follow(result, &steps)
}

/// RFC 6901, with `*` for every item of an array; arrays within arrays are joined.
fn follow(value: &Value, steps: &[String]) -> Option<Value> {
    let Some((first, rest)) = steps.split_first() else { return Some(value.clone()) };
    match value {
        Value::Object(fields) => follow(fields.get(first)?, rest),
        Value::Array(items) if first == "*" => {
            let mut out = Vec::new();
            for item in items {
                match follow(item, rest)? {
                    Value::Array(inner) => out.extend(inner),
                    other => out.push(other),
                }
                if out.len() > VALUES_MAX {
                    return None;
                }
            }
            Some(Value::Array(out))
        }
        Value::Array(items) => follow(items.get(first.parse::<usize>().ok()?)?, rest),
        _ => None,
    }
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The example of RFC 8620 §3.7.
    #[test]
    fn paths_reach_into_earlier_results() {
        let done: Vec<Invocation> = vec![
            ("Foo/changes".into(), json!({ "created": ["f1", "f4"], "a/b": [[1], [2, 3]] }), "t0".into()),
            ("Thread/get".into(), json!({ "list": [{ "emailIds": ["1", "2"] }, { "emailIds": ["3"] }] }), "t1".into()),
        ];
        for (call, name, path, expected) in [
            ("t0", "Foo/changes", "/created", Some(json!(["f1", "f4"]))),
            ("t0", "Foo/changes", "/created/1", Some(json!("f4"))),
            ("t1", "Thread/get", "/list/*/emailIds", Some(json!(["1", "2", "3"]))),
            ("t0", "Foo/changes", "/a~1b/*", Some(json!([1, 2, 3]))),
            ("t0", "Bar/changes", "/created", None),
            ("t9", "Foo/changes", "/created", None),
            ("t0", "Foo/changes", "/created/x", None),
            ("t0", "Foo/changes", "created", None),
        ] {
            let arguments = json!({ "#ids": { "resultOf": call, "name": name, "path": path } });
            let resolved = resolve(arguments.as_object().unwrap().clone(), &done);
            assert_eq!(resolved.ok().and_then(|found| found.get("ids").cloned()), expected, "{path}");
        }
        let twice = json!({ "ids": [], "#ids": {} });
        assert_eq!(resolve(twice.as_object().unwrap().clone(), &done).unwrap_err().kind, "invalidArguments");
    }
}
