//! Values of a JSON object by a key with dots: `doc.question`, `resps.0.0`.

use serde_json::Value;

/// The value under `key`: names of keys and places in lists, joined by dots. A key that holds dots
/// itself is found too. The error says what is there instead.
pub(super) fn value<'a>(line: &'a Value, key: &str) -> Result<&'a Value, String> {
    let (mut at, mut rest) = (line, key);
    loop {
        if let Some(found) = at.get(rest) {
            return Ok(found);
        }
        let (name, after) = rest.split_once('.').unwrap_or((rest, ""));
        let found = match at {
            Value::Array(list) => name.parse().ok().and_then(|place: usize| list.get(place)),
            _ => at.get(name),
        };
        let Some(found) = found else {
            let parent = key[..key.len() - rest.len()].trim_end_matches('.');
            return Err(missing(key, parent, at));
        };
        if after.is_empty() {
            return Ok(found);
        }
        (at, rest) = (found, after);
    }
}

fn missing(key: &str, parent: &str, at: &Value) -> String {
    let place = match parent {
        "" => "the line".to_owned(),
        parent => format!("{parent:?}"),
    };
    let what = match at {
        Value::Object(object) => {
            let names: Vec<&str> = object.keys().map(String::as_str).collect();
            format!("has the keys {}", names.join(", "))
        }
        Value::Array(list) => format!("is a list of {} values", list.len()),
        _ => "has no keys".to_owned(),
    };
    format!("there is no key {key:?}: {place} {what}")
}
