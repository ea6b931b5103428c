//! The presets: named sets of values, shipped in `policies/` and replaceable by files of the same name.

use crate::layer::{Layer, PolicyError};
use crate::option::{Key, Level, PresetName};

/// The values behind each preset.
#[derive(Clone, Debug)]
pub struct Presets([Layer; 4]);

const SHIPPED: [(PresetName, &str, &str); 4] = [
    (PresetName::Relaxed, "policies/relaxed.toml", include_str!("../../policies/relaxed.toml")),
    (PresetName::Balanced, "policies/balanced.toml", include_str!("../../policies/balanced.toml")),
    (PresetName::Strict, "policies/strict.toml", include_str!("../../policies/strict.toml")),
    (PresetName::VeryStrict, "policies/very-strict.toml", include_str!("../../policies/very-strict.toml")),
];

impl Presets {
    pub fn shipped() -> Self {
        Self(SHIPPED.map(|(_, file, text)| read(file, text).expect("a test reads every shipped preset")))
    }

    /// Puts the content of an administrator's file in the place of a shipped preset.
    pub fn replace(&mut self, name: PresetName, file: &str, text: &str) -> Result<(), PolicyError> {
        self.0[name as usize] = read(file, text)?;
        Ok(())
    }

    pub(crate) fn of(&self, name: PresetName) -> &Layer {
        &self.0[name as usize]
    }
}

impl Default for Presets {
    fn default() -> Self {
        Self::shipped()
    }
}

/// A preset is plain values: no preset in it, no locks or limits, and all three scores.
fn read(file: &str, text: &str) -> Result<Layer, PolicyError> {
    let layer = Layer::parse(Level::System, file, text)?;
    let fail = |message: String| PolicyError { file: file.into(), line: 1, message };
    if layer.get(Key::Preset).is_some() {
        return Err(fail("a preset cannot name a preset".into()));
    }
    if !layer.lists().is_empty() {
        return Err(fail("a preset has no lists of senders".into()));
    }
    for key in layer.keys() {
        if layer.get(key).is_some_and(|s| s.locked || s.floor.is_some() || s.ceiling.is_some()) {
            return Err(fail(format!("a preset gives plain values, without limits: `{}`", key.option().name)));
        }
        if key.option().lowest_level == Level::System {
            return Err(fail(format!("`{}` is the system's and no part of a preset", key.option().name)));
        }
    }
    for key in [Key::TagScore, Key::QuarantineScore, Key::RejectScore] {
        if layer.value(key).is_none() {
            return Err(fail(format!("a preset sets all three scores: `{}` is missing", key.option().name)));
        }
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_preset_reads_and_stands_at_its_name() {
        let presets = Presets::shipped();
        for (name, file, _) in SHIPPED {
            assert_eq!(&*presets.of(name).owner, file);
        }
    }

    #[test]
    fn a_file_replaces_a_preset_if_it_is_one() {
        let mut presets = Presets::shipped();
        for (text, message) in [
            ("preset = \"strict\"", "a preset cannot name a preset"),
            ("allow = [\"x.test\"]", "no lists of senders"),
            ("tag-score = 1", "all three scores"),
            ("tag-score = 1\nquarantine-score = 2\nreject-score = { value = 3, locked = true }", "without limits"),
        ] {
            let error = presets.replace(PresetName::Strict, "own.toml", text).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        let own = "tag-score = 1\nquarantine-score = 2\nreject-score = 3";
        presets.replace(PresetName::Strict, "own.toml", own).unwrap();
        assert_eq!(&*presets.of(PresetName::Strict).owner, "own.toml");
    }
}
