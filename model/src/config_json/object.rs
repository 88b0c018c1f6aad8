//! A JSON object whose values are read with a type, and whose errors name file and key.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{ModelError, Result};

/// A JSON object and where it came from, for errors.
pub(super) struct Object<'a> {
    pub(super) map: Map<String, Value>,
    path: &'a Path,
    /// Put before the keys of a nested object in errors: `rope_scaling.`.
    prefix: &'static str,
}

impl<'a> Object<'a> {
    pub(super) fn parse(text: &str, path: &'a Path) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|source| ModelError::Json {
            path: path.to_path_buf(),
            source,
        })?;
        match value {
            Value::Object(map) => Ok(Self {
                map,
                path,
                prefix: "",
            }),
            other => Err(ModelError::value(
                path,
                "(the whole file)",
                "a JSON object",
                shown(&other),
            )),
        }
    }

    pub(super) fn wrong(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> ModelError {
        ModelError::value(self.path, format!("{}{key}", self.prefix), expected, found)
    }

    /// Absent and `null` are the same.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn typed<'v, T>(
        &'v self,
        key: &str,
        expected: &str,
        read: impl Fn(&'v Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| self.wrong(key, expected, shown(value)))
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let read = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.typed(key, "a whole number", read)
    }

    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?
            .ok_or_else(|| self.wrong(key, "a whole number", "nothing"))
    }

    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn number(&self, key: &str) -> Result<f64> {
        self.optional_number(key)?
            .ok_or_else(|| self.wrong(key, "a number", "nothing"))
    }

    pub(super) fn optional_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn optional_text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn optional_object(&self, key: &'static str) -> Result<Option<Object<'a>>> {
        let prefix = match key {
            "rope_scaling" => "rope_scaling.",
            _ => "rope_parameters.",
        };
        let map = self.typed(key, "an object or null", Value::as_object)?;
        Ok(map.map(|map| Object {
            map: map.clone(),
            path: self.path,
            prefix,
        }))
    }

    /// One id, a list of ids, or nothing.
    pub(super) fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let read = |value: &Value| match value {
            Value::Array(values) => values.iter().map(id).collect(),
            // Some exports write -1 for "none".
            Value::Number(n) if n.as_i64() == Some(-1) => Some(Vec::new()),
            one => Some(vec![id(one)?]),
        };
        let mut ids: Vec<u32> = self
            .typed(key, "a token id or a list of token ids", read)?
            .unwrap_or_default();
        let mut seen = std::collections::BTreeSet::new();
        ids.retain(|&id| seen.insert(id));
        Ok(ids)
    }

    /// For a key of which we serve one value only.
    pub(super) fn require_default(&self, key: &str, default: &Value) -> Result<()> {
        let same = |value: &Value| value == default || value.as_f64() == default.as_f64();
        match self.get(key) {
            Some(value) if value != default && !(value.is_number() && same(value)) => {
                Err(self.wrong(key, shown(default), shown(value)))
            }
            _ => Ok(()),
        }
    }
}

/// The value as JSON, cut where a hostile file would fill the screen.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
