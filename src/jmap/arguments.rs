//! Reading a method's arguments.

use base::ModSeq;
use serde_json::{Map, Value};

use crate::error::MethodError;

/// Objects in one get or set call (RFC 8620 §2).
pub(crate) const OBJECTS_MAX: usize = 500;

pub(crate) struct Arguments(pub Map<String, Value>);

impl Arguments {
    /// `None` for a missing argument and for null.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, MethodError> {
        self.typed(name, "a string", Value::as_str)
    }

    pub fn flag(&self, name: &str) -> Result<bool, MethodError> {
        Ok(self.typed(name, "a boolean", Value::as_bool)?.unwrap_or(false))
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, MethodError> {
        self.typed(name, "an integer", Value::as_i64)
    }

    pub fn count(&self, name: &str) -> Result<Option<usize>, MethodError> {
        let number = self.typed(name, "a number of zero or more", Value::as_u64)?;
        Ok(number.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    pub fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, MethodError> {
        self.typed(name, "an object", Value::as_object)
    }

    pub fn array(&self, name: &str) -> Result<Option<&Vec<Value>>, MethodError> {
        self.typed(name, "an array", Value::as_array)
    }

    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, MethodError> {
        let Some(values) = self.array(name)? else { return Ok(None) };
        let texts = values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
        texts.map(Some).ok_or_else(|| wrong(name, "an array of strings"))
    }

    /// `ids` of a get: each once, at most [`OBJECTS_MAX`].
    pub fn ids(&self) -> Result<Option<Vec<String>>, MethodError> {
        let Some(mut ids) = self.texts("ids")? else { return Ok(None) };
        if ids.len() > OBJECTS_MAX {
            return Err(MethodError::new("requestTooLarge", "at most 500 ids in one call"));
        }
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| seen.insert(id.clone()));
        Ok(Some(ids))
    }

    /// A state this server gave.
    pub fn state(&self, name: &str) -> Result<Option<ModSeq>, MethodError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let state = text.parse().ok().and_then(ModSeq::new);
        state.map(Some).ok_or_else(|| MethodError::new("cannotCalculateChanges", "not a state of this server"))
    }

    /// `sinceState` of a changes call.
    pub fn since(&self) -> Result<ModSeq, MethodError> {
        self.state("sinceState")?.ok_or_else(|| MethodError::invalid("sinceState is missing"))
    }

    /// `maxChanges`, which must be positive (RFC 8620 §5.2).
    pub fn changes_max(&self) -> Result<usize, MethodError> {
        match self.count("maxChanges")? {
            Some(0) => Err(MethodError::invalid("maxChanges must be above zero")),
            Some(n) => Ok(n.min(CHANGES_MAX)),
            None => Ok(CHANGES_MAX),
        }
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, MethodError> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong(name, wanted)),
        }
    }
}

/// Ids in one answer to a changes call; the client asks again for the rest.
const CHANGES_MAX: usize = 5000;

fn wrong(name: &str, wanted: &str) -> MethodError {
    MethodError::invalid(format!("{name} must be {wanted}"))
}

/// The properties of an object that were asked for, and always its id.
pub(crate) fn select(mut object: Map<String, Value>, properties: Option<&[String]>) -> Value {
    if let Some(properties) = properties {
        object.retain(|name, _| name == "id" || properties.iter().any(|wanted| wanted == name));
    }
    Value::Object(object)
}

/// Refuses properties that a type does not have.
pub(crate) fn check_properties(properties: Option<&[String]>, known: &[&str]) -> Result<(), MethodError> {
    match properties.and_then(|wanted| wanted.iter().find(|name| !known.contains(&name.as_str()))) {
        None => Ok(()),
        Some(name) => Err(MethodError::invalid(format!("no such property: {name}"))),
    }
}
