//! From what each level says to one value per option, and where it comes from.

use std::fmt;
use std::sync::Arc;

use crate::finding::Score;
use crate::layer::Layer;
use crate::list::AllLists;
use crate::option::{
    AdminPreview, AttachmentClass, Digest, DmarcAction, Forwarding, Greylist, Key, KnownContacts, Level, MailLanguage,
    NewsletterAction, OwnDomainAction, PlusAddressing, PresetName, SCORE_GAP, ScannerUnavailable, SpfFail, Value,
    VirusAction, WhenBlocked, WhenCountry, WhenQuarantined, WhenSenderBlocked, WhenSuspicious, WhenTagged,
};
use crate::preset::Presets;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// Set at this level.
    Set { level: Level, owner: Arc<str> },
    /// Part of the preset that was chosen at this level.
    Preset { name: PresetName, level: Level, owner: Arc<str> },
}

impl Origin {
    /// The level that decided; `None` for the default.
    pub const fn level(&self) -> Option<Level> {
        match self {
            Self::Default => None,
            Self::Set { level, .. } | Self::Preset { level, .. } => Some(*level),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Set { level, owner } => write!(f, "{level} {owner}"),
            Self::Preset { name, level, owner } => write!(f, "preset {} of {level} {owner}", name.as_str()),
        }
    }
}

/// One option's value for a recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    pub value: Value,
    pub origin: Origin,
    /// The level that forbids lower ones to change it.
    pub locked_by: Option<Level>,
    /// The origin's value was moved: by a floor, a ceiling, or so that the scores rise.
    pub limited: bool,
    pub floor: Option<Value>,
    pub ceiling: Option<Value>,
}

/// The policy of one recipient: a value for every option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EffectivePolicy {
    values: [Resolved; Key::ALL.len()],
    lists: Arc<AllLists>,
}

impl EffectivePolicy {
    /// Resolves `layers`, which may come in any order; of one level there is at most one.
    pub fn resolve(presets: &Presets, layers: &[Layer]) -> Self {
        let mut ordered: Vec<&Layer> = layers.iter().collect();
        ordered.sort_by_key(|layer| layer.level);
        let preset = resolve_one(Key::Preset, presets, &ordered, None);
        // A preset counts as chosen at the level that chose it: below a lock there, its values do not reach.
        let chosen = preset.origin.level().and_then(|_| chosen_preset(&preset));
        let values = Key::ALL.map(|key| match key {
            Key::Preset => preset.clone(),
            _ => resolve_one(key, presets, &ordered, chosen.as_ref()),
        });
        let lists = ordered.iter().rev().filter(|layer| !layer.lists().is_empty()).map(|layer| {
            let origin = Origin::Set { level: layer.level, owner: layer.owner.clone() };
            (origin, layer.lists().clone())
        });
        let mut policy = Self { values, lists: Arc::new(AllLists(lists.collect())) };
        policy.let_scores_rise();
        policy
    }

    /// What applies where nothing is set.
    pub fn defaults() -> Self {
        Self::resolve(&Presets::shipped(), &[])
    }

    /// Whom to let through and whom to keep out.
    pub fn lists(&self) -> &AllLists {
        &self.lists
    }

    pub fn get(&self, key: Key) -> &Resolved {
        &self.values[key as usize]
    }

    /// Every option with its value, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Resolved)> {
        Key::ALL.into_iter().zip(&self.values)
    }

    /// The value of an option of scores.
    pub fn score(&self, key: Key) -> Score {
        match self.get(key).value {
            Value::Score(score) => score,
            Value::Number(_) | Value::Choice(_) | Value::Words(_) | Value::Text(_) => {
                debug_assert!(false, "{key:?} is no score");
                Score::ZERO
            }
        }
    }

    /// The value of an option of whole numbers.
    pub fn number(&self, key: Key) -> u64 {
        match self.get(key).value {
            Value::Number(number) => u64::try_from(number).unwrap_or(0),
            Value::Score(_) | Value::Choice(_) | Value::Words(_) | Value::Text(_) => {
                debug_assert!(false, "{key:?} is no number");
                0
            }
        }
    }

    pub fn newsletter(&self) -> NewsletterAction {
        self.choice(Key::Newsletter, NewsletterAction::from_word).unwrap_or(NewsletterAction::Deliver)
    }
    pub fn known_contacts(&self) -> KnownContacts {
        self.choice(Key::KnownContacts, KnownContacts::from_word).unwrap_or(KnownContacts::On)
    }
    pub fn own_domain(&self) -> OwnDomainAction {
        self.choice(Key::OwnDomain, OwnDomainAction::from_word).unwrap_or(OwnDomainAction::Score)
    }
    pub fn when_country(&self) -> WhenCountry {
        self.choice(Key::WhenCountry, WhenCountry::from_word).unwrap_or(WhenCountry::Tag)
    }
    pub fn plus_addressing(&self) -> PlusAddressing {
        self.choice(Key::PlusAddressing, PlusAddressing::from_word).unwrap_or(PlusAddressing::Inbox)
    }
    pub fn forwarding(&self) -> Forwarding {
        self.choice(Key::Forwarding, Forwarding::from_word).unwrap_or(Forwarding::Nowhere)
    }
    pub fn digest(&self) -> Digest {
        self.choice(Key::Digest, Digest::from_word).unwrap_or(Digest::Off)
    }
    pub fn mail_language(&self) -> MailLanguage {
        self.choice(Key::MailLanguage, MailLanguage::from_word).unwrap_or(MailLanguage::All)
    }
    pub fn admin_preview(&self) -> AdminPreview {
        self.choice(Key::AdminPreview, AdminPreview::from_word).unwrap_or(AdminPreview::Off)
    }

    /// True if mail from that country (two letters) is not wanted.
    pub fn blocks_country(&self, code: &str) -> bool {
        let listed = self.text(Key::BlockedCountries);
        code.len() == 2 && listed.split([',', ' ']).any(|word| word.trim().eq_ignore_ascii_case(code))
    }

    pub fn when_tagged(&self) -> WhenTagged {
        self.choice(Key::WhenTagged, WhenTagged::from_word).unwrap_or(WhenTagged::Junk)
    }
    pub fn when_quarantined(&self) -> WhenQuarantined {
        self.choice(Key::WhenQuarantined, WhenQuarantined::from_word).unwrap_or(WhenQuarantined::Quarantine)
    }
    pub fn virus(&self) -> VirusAction {
        self.choice(Key::Virus, VirusAction::from_word).unwrap_or(VirusAction::Reject)
    }
    pub fn scanner_unavailable(&self) -> ScannerUnavailable {
        self.choice(Key::ScannerUnavailable, ScannerUnavailable::from_word).unwrap_or(ScannerUnavailable::Defer)
    }
    pub fn spf_fail(&self) -> SpfFail {
        self.choice(Key::SpfFail, SpfFail::from_word).unwrap_or(SpfFail::ScoreHigh)
    }
    pub fn dmarc(&self) -> DmarcAction {
        self.choice(Key::Dmarc, DmarcAction::from_word).unwrap_or(DmarcAction::Follow)
    }

    pub fn when_blocked(&self) -> WhenBlocked {
        self.choice(Key::WhenBlocked, WhenBlocked::from_word).unwrap_or(WhenBlocked::Quarantine)
    }
    pub fn when_suspicious(&self) -> WhenSuspicious {
        self.choice(Key::WhenSuspicious, WhenSuspicious::from_word).unwrap_or(WhenSuspicious::Quarantine)
    }

    pub fn greylist(&self) -> Greylist {
        self.choice(Key::Greylist, Greylist::from_word).unwrap_or(Greylist::Suspicious)
    }
    pub fn when_sender_blocked(&self) -> WhenSenderBlocked {
        self.choice(Key::WhenSenderBlocked, WhenSenderBlocked::from_word).unwrap_or(WhenSenderBlocked::Reject)
    }

    /// True if files of that kind are not wanted.
    pub fn blocks(&self, class: AttachmentClass) -> bool {
        match self.get(Key::BlockedAttachments).value {
            Value::Words(words) => words.has(class.as_str()),
            Value::Score(_) | Value::Number(_) | Value::Choice(_) | Value::Text(_) => false,
        }
    }

    /// True if files with that extension (lower case) are not wanted.
    pub fn blocks_extension(&self, extension: &str) -> bool {
        let listed = self.text(Key::BlockedExtensions);
        let mut words = listed.split([',', ' ']).map(|word| word.trim_start_matches(['*', '.']));
        !extension.is_empty() && words.any(|word| word.eq_ignore_ascii_case(extension))
    }

    pub fn subject_tag(&self) -> Arc<str> {
        self.text(Key::SubjectTag)
    }

    fn text(&self, key: Key) -> Arc<str> {
        match &self.get(key).value {
            Value::Text(text) => text.clone(),
            Value::Score(_) | Value::Number(_) | Value::Choice(_) | Value::Words(_) => Arc::default(),
        }
    }

    fn choice<T>(&self, key: Key, read: fn(&str) -> Option<T>) -> Option<T> {
        match self.get(key).value {
            Value::Choice(word) => read(word),
            Value::Score(_) | Value::Number(_) | Value::Words(_) | Value::Text(_) => None,
        }
    }

    /// Levels set the three scores apart from each other: raise the higher ones where they came too close,
    /// and where a ceiling forbids that, lower those below.
    fn let_scores_rise(&mut self) {
        let keys = [Key::TagScore, Key::QuarantineScore, Key::RejectScore];
        let mut scores = keys.map(|key| self.score(key));
        for at in 1..scores.len() {
            let wanted = scores[at].max(scores[at - 1] + SCORE_GAP);
            scores[at] = match self.get(keys[at]).ceiling {
                Some(Value::Score(ceiling)) => wanted.min(ceiling.max(scores[at])),
                _ => wanted,
            };
        }
        for at in (1..scores.len()).rev() {
            scores[at - 1] = scores[at - 1].min(scores[at] + -SCORE_GAP);
        }
        for (key, score) in keys.into_iter().zip(scores) {
            let resolved = &mut self.values[key as usize];
            if resolved.value != Value::Score(score) {
                resolved.value = Value::Score(score);
                resolved.limited = true;
            }
        }
    }
}

struct Chosen {
    name: PresetName,
    level: Level,
    owner: Arc<str>,
}

fn chosen_preset(resolved: &Resolved) -> Option<Chosen> {
    match (&resolved.value, &resolved.origin) {
        (Value::Choice(word), Origin::Set { level, owner }) => {
            Some(Chosen { name: PresetName::from_word(word)?, level: *level, owner: owner.clone() })
        }
        _ => None,
    }
}

fn resolve_one(key: Key, presets: &Presets, layers: &[&Layer], chosen: Option<&Chosen>) -> Resolved {
    let mut out = Resolved {
        value: key.option().default_value(),
        origin: Origin::Default,
        locked_by: None,
        limited: false,
        floor: None,
        ceiling: None,
    };
    // The file behind the default preset may have been replaced.
    if chosen.is_none()
        && let Some(value) = presets.of(PresetName::Balanced).value(key)
    {
        out.value = value.clone();
    }
    for layer in layers {
        if out.locked_by.is_none() {
            if let Some(chosen) = chosen.filter(|chosen| chosen.level == layer.level)
                && let Some(value) = presets.of(chosen.name).value(key)
            {
                out.value = merged(key, layer.level, value, &out.value);
                out.origin = Origin::Preset { name: chosen.name, level: chosen.level, owner: chosen.owner.clone() };
            }
            if let Some(value) = layer.value(key) {
                out.value = merged(key, layer.level, value, &out.value);
                out.origin = Origin::Set { level: layer.level, owner: layer.owner.clone() };
            }
            // Limits of a level above hold for all below; one below can only narrow them.
            if let Some(setting) = layer.get(key) {
                out.floor = stricter(key, out.floor.take(), setting.floor.clone(), i64::max);
                out.ceiling = stricter(key, out.ceiling.take(), setting.ceiling.clone(), i64::min);
                out.locked_by = setting.locked.then_some(layer.level);
            }
        }
    }
    if let Value::Words(words) = out.value {
        let mut limited = words;
        if let Some(Value::Words(ceiling)) = out.ceiling {
            limited = limited.and(ceiling);
        }
        if let Some(Value::Words(floor)) = out.floor {
            limited = limited.or(floor);
        }
        out.limited = limited != words;
        out.value = Value::Words(limited);
    }
    let rank = |value: &Option<Value>| value.as_ref().and_then(|value| key.option().kind.rank(value));
    if let (Some(now), Some(floor)) = (key.option().kind.rank(&out.value), rank(&out.floor))
        && now < floor
        && let Some(value) = &out.floor
    {
        (out.value, out.limited) = (value.clone(), true);
    }
    if let (Some(now), Some(ceiling)) = (key.option().kind.rank(&out.value), rank(&out.ceiling))
        && now > ceiling
        && let Some(value) = &out.ceiling
    {
        (out.value, out.limited) = (value.clone(), true);
    }
    out
}

/// A value over the one from above.
fn merged(key: Key, level: Level, own: &Value, above: &Value) -> Value {
    match (own, above) {
        (Value::Words(own), Value::Words(above)) if key.option().only_adds_at(level) => Value::Words(own.or(*above)),
        (own, _) => own.clone(),
    }
}

/// Of two limits, the one that `pick` keeps by rank.
fn stricter(key: Key, above: Option<Value>, here: Option<Value>, pick: fn(i64, i64) -> i64) -> Option<Value> {
    match (above, here) {
        // Of words, a floor is those that stay in, a ceiling those that may be in.
        (Some(Value::Words(above)), Some(Value::Words(here))) => {
            let is_floor = pick(0, 1) == 1;
            Some(Value::Words(if is_floor { above.or(here) } else { above.and(here) }))
        }
        (Some(above), Some(here)) => {
            let rank = |value: &Value| key.option().kind.rank(value).unwrap_or(0);
            let kept = pick(rank(&above), rank(&here));
            Some(if rank(&above) == kept { above } else { here })
        }
        (above, here) => above.or(here),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(level: Level, text: &str) -> Layer {
        Layer::parse(level, level.as_str(), text).unwrap()
    }

    /// Each of the five levels' text, then `option=value|origin` as expected.
    fn check(texts: [&str; 5], expected: &[&str]) {
        let mut layers: Vec<Layer> = Level::ALL.into_iter().zip(texts).map(|(l, text)| layer(l, text)).collect();
        layers.reverse();
        let policy = EffectivePolicy::resolve(&Presets::shipped(), &layers);
        for line in expected {
            let key = Key::from_name(line.split_once('=').unwrap().0).unwrap();
            let resolved = policy.get(key);
            let star = if resolved.limited { "*" } else { "" };
            assert_eq!(format!("{}={}{star}|{}", key.option().name, resolved.value, resolved.origin), *line);
        }
    }

    #[test]
    fn a_lower_level_wins_unless_a_higher_one_locks() {
        check(["", "", "", "", ""], &["tag-score=4.0|default", "virus=reject|default"]);
        check(
            ["tag-score = 3", "", "", "tag-score = 2", ""],
            &["tag-score=2.0|domain domain", "reject-score=15.0|default"],
        );
        check(
            ["", "tag-score = { value = 3, locked = true }", "", "tag-score = 2", "tag-score = 5"],
            &["tag-score=3.0|reseller reseller"],
        );
        check(["", "", "virus = { locked = true }", "virus = \"quarantine\"", ""], &["virus=reject|default"]);
    }

    #[test]
    fn a_preset_counts_at_the_level_that_chose_it() {
        check(
            ["tag-score = 3.5", "", "", "preset = \"strict\"", ""],
            &["tag-score=3.0|preset strict of domain domain", "preset=strict|domain domain"],
        );
        check(
            ["", "", "", "preset = \"strict\"\ntag-score = 1", "quarantine-score = 7"],
            &["tag-score=1.0|domain domain", "quarantine-score=7.0|mailbox mailbox"],
        );
        check(
            ["preset = \"relaxed\"", "", "", "", "preset = \"very-strict\""],
            &["reject-score=8.0|preset very-strict of mailbox mailbox"],
        );
        check(
            ["reject-score = { value = 14, locked = true }", "", "", "preset = \"very-strict\"", ""],
            &["reject-score=14.0|system system", "tag-score=2.0|preset very-strict of domain domain"],
        );
    }

    #[test]
    fn floors_and_ceilings_move_values_and_only_narrow() {
        check(
            ["reject-score = { ceiling = 20 }", "", "", "", "reject-score = 50"],
            &["reject-score=20.0*|mailbox mailbox"],
        );
        check(
            ["reject-score = { ceiling = 20 }", "", "reject-score = { ceiling = 18 }", "", "reject-score = 50"],
            &["reject-score=18.0*|mailbox mailbox"],
        );
        check(
            ["reject-score = { ceiling = 20 }", "", "reject-score = { ceiling = 30 }", "", "reject-score = 50"],
            &["reject-score=20.0*|mailbox mailbox"],
        );
        check(
            ["when-quarantined = { floor = \"junk\" }", "", "", "", "when-quarantined = \"deliver\""],
            &["when-quarantined=junk*|mailbox mailbox"],
        );
    }

    #[test]
    fn words_are_added_limited_and_listed() {
        let blocked = "blocked-attachments = [\"macros\"]";
        check(["", "", "", blocked, ""], &["blocked-attachments=macros|domain domain"]);
        check(
            ["", "", "", blocked, "blocked-attachments = [\"encrypted\"]"],
            &["blocked-attachments=macros, encrypted|mailbox mailbox"],
        );
        let floor = "blocked-attachments = { floor = [\"scripts\"] }";
        check([floor, "", "", blocked, ""], &["blocked-attachments=scripts, macros*|domain domain"]);
        check(["", floor, floor, "blocked-attachments = []", ""], &["blocked-attachments=scripts*|domain domain"]);
        let ceiling = "blocked-attachments = { ceiling = [\"macros\"] }";
        check([ceiling, "", "", "", ""], &["blocked-attachments=none*|default"]);
        let own = layer(Level::Domain, "blocked-extensions = \".ace, *.xyz Foo\"");
        let policy = EffectivePolicy::resolve(&Presets::shipped(), &[own]);
        assert!(["ace", "xyz", "foo"].into_iter().all(|extension| policy.blocks_extension(extension)));
        assert!(!policy.blocks_extension("") && !policy.blocks_extension("zip"));
    }

    #[test]
    fn scores_of_different_levels_still_rise() {
        check(
            ["", "", "", "", "tag-score = 7"],
            &["tag-score=7.0|mailbox mailbox", "quarantine-score=7.5*|default", "reject-score=15.0|default"],
        );
        check(
            ["reject-score = { ceiling = 15 }", "", "", "", "tag-score = 40"],
            &["tag-score=14.0*|mailbox mailbox", "quarantine-score=14.5*|default", "reject-score=15.0|default"],
        );
    }
}
