//! Changes of options, with their history.

use base::UtcMillis;
use engine::EngineError;
use engine::table::{Columns as _, Row, Statement, Value};
use policy::layer::Setting;
use policy::{EffectivePolicy, Key, Layer, Level, Origin};
use serde::{Deserialize, Serialize};

use crate::layers::{LayerError, Layers, empty};
use crate::owner::Owner;

/// A change of one option, as it is written.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// By its name.
    pub option: String,
    /// `None`: as inherited.
    #[serde(default)]
    pub value: Option<String>,
    /// Lower levels may not change it.
    #[serde(default)]
    pub locked: bool,
    /// The least strict that it and lower levels may have.
    #[serde(default)]
    pub floor: Option<String>,
    #[serde(default)]
    pub ceiling: Option<String>,
}

impl Edit {
    pub fn value(option: &str, value: &str) -> Self {
        Self { option: option.to_owned(), value: Some(value.to_owned()), locked: false, floor: None, ceiling: None }
    }

    /// As inherited again.
    pub fn inherit(option: &str) -> Self {
        Self { option: option.to_owned(), value: None, locked: false, floor: None, ceiling: None }
    }

    /// What a setting is, as an edit that makes it.
    pub(crate) fn of(key: Key, setting: Option<&Setting>) -> Self {
        let text = |value: &Option<policy::Value>| value.as_ref().map(ToString::to_string);
        let setting = setting.cloned().unwrap_or_default();
        Self {
            option: key.option().name.to_owned(),
            value: text(&setting.value),
            locked: setting.locked,
            floor: text(&setting.floor),
            ceiling: text(&setting.ceiling),
        }
    }

    /// The option and what is to be set; `None`: nothing.
    pub(crate) fn parse(&self, level: Level) -> Result<(Key, Option<Setting>), LayerError> {
        let refuse = |option, why: String| LayerError::Refused { option, why };
        let key =
            Key::from_name(&self.option).ok_or_else(|| refuse(None, format!("unknown option `{}`", self.option)))?;
        let option = key.option();
        if !option.may_be_set_at(level) {
            return Err(refuse(Some(option.name), format!("`{}` cannot be set at the {level} level", option.name)));
        }
        let read = |text: &Option<String>| {
            let wrong = || refuse(Some(option.name), format!("`{}` takes {}", option.name, option.kind));
            text.as_deref().map(|text| option.kind.parse(text).ok_or_else(wrong)).transpose()
        };
        let setting = Setting {
            value: read(&self.value)?,
            locked: self.locked,
            floor: read(&self.floor)?,
            ceiling: read(&self.ceiling)?,
        };
        if (setting.floor.is_some() || setting.ceiling.is_some()) && !option.kind.has_order() {
            return Err(refuse(Some(option.name), format!("`{}` has no floor or ceiling", option.name)));
        }
        Ok((key, (setting != Setting::default()).then_some(setting)))
    }
}

/// What was done to a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub id: i64,
    pub at: UtcMillis,
    pub by: String,
    pub note: String,
    /// Each option's edit that was made, and the one that takes it back; or a word on a list.
    pub what: What,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Options {
        done: Vec<Edit>,
        undone: Vec<Edit>,
    },
    /// A line of a list came.
    Listed {
        word: String,
        who: String,
    },
    /// A line of a list went.
    Unlisted {
        word: String,
        who: String,
    },
}

/// An option as it stands at an owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionState {
    pub key: Key,
    pub value: policy::Value,
    pub origin: Origin,
    /// A level above forbids to change it.
    pub locked_by: Option<Level>,
    /// Its value was moved by a limit.
    pub is_limited: bool,
    pub floor: Option<policy::Value>,
    pub ceiling: Option<policy::Value>,
    /// What the owner itself says of it.
    pub own: Option<Setting>,
    /// Whether the owner's level may say anything.
    pub is_settable: bool,
}

const NOTE_MAX: usize = 500;
const CHANGES_MAX: usize = 500;

impl Layers {
    /// All options as they stand at the last of `owners`, which are those above it and itself, and the version of what it
    /// says, for [`Layers::set`].
    pub async fn show(&self, owners: &[Owner]) -> Result<(Vec<OptionState>, u64), EngineError> {
        let Some(own) = owners.last() else { return Ok((Vec::new(), 0)) };
        let (version, layer) = self.own_layer(*own).await?;
        let policy = self.resolve(owners, None).await?;
        let state = |(key, resolved): (Key, &policy::Resolved)| OptionState {
            key,
            value: resolved.value.clone(),
            origin: resolved.origin.clone(),
            locked_by: resolved.locked_by.filter(|level| *level < own.level),
            is_limited: resolved.limited,
            floor: resolved.floor.clone(),
            ceiling: resolved.ceiling.clone(),
            own: layer.get(key).cloned(),
            is_settable: key.option().may_be_set_at(own.level),
        };
        Ok((policy.iter().map(state).collect(), version))
    }

    /// The policy of the last of `owners`; with `instead`, as if it said that.
    pub async fn resolve(&self, owners: &[Owner], instead: Option<&Layer>) -> Result<EffectivePolicy, EngineError> {
        let file = self.file();
        let mut all = Vec::new();
        for (owner, layer) in owners.iter().zip(self.of(owners).await?) {
            let mut layer = layer.map_or_else(|| empty(*owner), |layer| Layer::clone(&layer));
            if let Some(instead) = instead.filter(|instead| instead.level == owner.level) {
                layer = instead.clone().with_lists(layer.lists().clone());
            }
            all.push(if owner.level == Level::System { layer.over(&file) } else { layer });
        }
        Ok(EffectivePolicy::resolve(&self.presets, &all))
    }

    /// What an owner itself says, without lists, as it is now; not from a cache.
    pub(crate) async fn own_layer(&self, owner: Owner) -> Result<(u64, Layer), EngineError> {
        let text = "SELECT version, text FROM policy_layer WHERE level = $1 AND owner = $2";
        let rows = self.place.query(text, vec![owner.level.as_str().into(), owner.id.into()]).await?;
        let Some(row) = rows.first() else { return Ok((0, empty(owner))) };
        let layer = Layer::parse(owner.level, crate::layers::NAME, row.text(1)?);
        Ok((row.number(0)?, layer.unwrap_or_else(|_| empty(owner))))
    }

    /// What the last of `owners` would say with these edits.
    ///
    /// # Errors
    /// [`LayerError::Refused`] names the option: it is unknown, not of this level, out of its limits, locked above, or the
    /// scores do not rise.
    pub async fn edited(&self, owners: &[Owner], edits: &[Edit]) -> Result<Layer, LayerError> {
        let Some(own) = owners.last() else { return Err(LayerError::Missing { what: "whose policy".to_owned() }) };
        let (_, layer) = self.own_layer(*own).await?;
        self.with_edits(owners, layer, edits).await
    }

    async fn with_edits(&self, owners: &[Owner], mut layer: Layer, edits: &[Edit]) -> Result<Layer, LayerError> {
        let Some((own, above)) = owners.split_last() else { return Ok(layer) };
        let above = self.resolve(above, None).await?;
        for edit in edits {
            let (key, setting) = edit.parse(own.level)?;
            let Some(setting) = setting else {
                layer.unset(key);
                continue;
            };
            check_above(key, &setting, &above, own.level)?;
            layer.set(key, setting);
        }
        layer.check().map_err(|error| LayerError::Refused { option: None, why: error.message })?;
        Ok(layer)
    }

    /// Changes options of the last of `owners`; gives the new version. With `version`, only if it is still that one.
    pub async fn set(
        &self,
        owners: &[Owner],
        edits: &[Edit],
        version: Option<u64>,
        (by, note): (&str, &str),
    ) -> Result<u64, LayerError> {
        let Some(own) = owners.last().copied() else { return Ok(0) };
        // Read once: what somebody else changes from here on is found out when it is written.
        let (was, before) = self.own_layer(own).await?;
        if version.is_some_and(|version| version != was) {
            return Err(LayerError::Changed);
        }
        let layer = self.with_edits(owners, before.clone(), edits).await?;
        let keys: Vec<Key> = edits.iter().filter_map(|edit| Key::from_name(&edit.option)).collect();
        let what = What::Options {
            done: keys.iter().map(|key| Edit::of(*key, layer.get(*key))).collect(),
            undone: keys.iter().map(|key| Edit::of(*key, before.get(*key))).collect(),
        };
        let now = self.now();
        let (level, id): (Value, Value) = (own.level.as_str().into(), own.id.into());
        let put = match was {
            0 => Statement::new(
                "INSERT INTO policy_layer (level, owner, text, version, changed_at, changed_by)
                 VALUES ($1, $2, $3, 1, $4, $5) ON CONFLICT (level, owner) DO NOTHING",
                vec![level, id, layer.to_toml().into(), now.0.into(), by.into()],
            ),
            was => Statement::new(
                "UPDATE policy_layer SET text = $3, version = version + 1, changed_at = $4, changed_by = $5
                 WHERE level = $1 AND owner = $2 AND version = $6",
                vec![level, id, layer.to_toml().into(), now.0.into(), by.into(), was.into()],
            ),
        };
        let steps = vec![put.must(), self.history(own, by, note, &what)];
        self.change(steps).await?.map_err(|_| LayerError::Changed)?;
        Ok(was + 1)
    }

    pub(crate) fn history(&self, owner: Owner, by: &str, note: &str, what: &What) -> Statement {
        let note: String = note.chars().filter(|c| !c.is_control()).take(NOTE_MAX).collect();
        Statement::new(
            "INSERT INTO policy_change (level, owner, changed_at, changed_by, note, what) VALUES ($1, $2, $3, $4, $5, $6)",
            vec![
                owner.level.as_str().into(),
                owner.id.into(),
                self.now().0.into(),
                by.into(),
                note.into(),
                serde_json::to_string(what).unwrap_or_default().into(),
            ],
        )
    }

    /// What was done to an owner's policy, the latest first, from before `below`.
    pub async fn changes(&self, owner: Owner, below: Option<i64>, limit: usize) -> Result<Vec<Change>, EngineError> {
        let limit = limit.min(CHANGES_MAX);
        let text = format!(
            "SELECT id, changed_at, changed_by, note, what FROM policy_change
             WHERE level = $1 AND owner = $2 AND id < $3 ORDER BY id DESC LIMIT {limit}"
        );
        let values = vec![owner.level.as_str().into(), owner.id.into(), below.unwrap_or(i64::MAX).into()];
        let rows = self.place.query(&text, values).await?;
        Ok(rows.iter().map(read_change).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Takes back a change of options; what was changed again since is taken back, too.
    pub async fn undo(&self, owners: &[Owner], id: i64, by: &str) -> Result<u64, LayerError> {
        let Some(own) = owners.last().copied() else { return Ok(0) };
        let text = "SELECT id, changed_at, changed_by, note, what FROM policy_change
            WHERE level = $1 AND owner = $2 AND id = $3";
        let values = vec![own.level.as_str().into(), own.id.into(), id.into()];
        let rows = self.place.query(text, values).await?;
        let found = rows.first().map(read_change).transpose()?.flatten();
        let change = found.ok_or_else(|| LayerError::Missing { what: format!("the change {id}") })?;
        let What::Options { undone, .. } = change.what else {
            let why = "a change of a list is taken back on the list".to_owned();
            return Err(LayerError::Refused { option: None, why });
        };
        self.set(owners, &undone, None, (by, &format!("takes back change {id}"))).await
    }
}

/// What a level above locked stays; what it limited stays within.
fn check_above(key: Key, setting: &Setting, above: &EffectivePolicy, level: Level) -> Result<(), LayerError> {
    let (resolved, option) = (above.get(key), key.option());
    let refuse = |why: String| Err(LayerError::Refused { option: Some(option.name), why });
    if let Some(by) = resolved.locked_by.filter(|by| *by < level) {
        return refuse(format!("`{}` is locked by the {by} level", option.name));
    }
    if let Some(value) = &setting.value {
        if let Some(floor) = resolved.floor.as_ref().filter(|floor| option.kind.is_below(value, floor)) {
            return refuse(format!("`{}` is at least {floor} by a level above", option.name));
        }
        if let Some(ceiling) = resolved.ceiling.as_ref().filter(|ceiling| option.kind.is_below(ceiling, value)) {
            return refuse(format!("`{}` is at most {ceiling} by a level above", option.name));
        }
    }
    Ok(())
}

/// `None` for one that a later version wrote in a form of its own.
fn read_change(row: &Row) -> Result<Option<Change>, EngineError> {
    let Ok(what) = serde_json::from_str(row.text(4)?) else { return Ok(None) };
    let (id, at) = (row.int(0)?, UtcMillis(row.int(1)?));
    Ok(Some(Change { id, at, by: row.text(2)?.to_owned(), note: row.text(3)?.to_owned(), what }))
}
