//! Lines of lists: whom to let through, and whom to keep out.

use std::collections::HashMap;

use base::UtcMillis;
use engine::EngineError;
use engine::table::{Columns as _, Place, Row, Statement, Value, having};
use policy::{Level, Listed, Lists, Skips, Word};

use crate::change::What;
use crate::layers::{LayerError, Layers};
use crate::owner::Owner;

/// A line of an owner's list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub id: i64,
    pub word: Word,
    /// An address, a domain with those below it, `@domain` for it alone, or a network.
    pub who: String,
    /// Also counts for whom nothing proves.
    pub takes_unproven: bool,
    pub skips: Skips,
    pub note: String,
    pub until: Option<UtcMillis>,
    pub added_at: UtcMillis,
    pub added_by: String,
    /// Within a minute of the last message that it fitted.
    pub hit_at: Option<UtcMillis>,
}

/// A line to add.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEntry {
    pub word: Word,
    pub who: String,
    pub takes_unproven: bool,
    pub skips: Skips,
    pub note: String,
    pub until: Option<UtcMillis>,
}

impl NewEntry {
    /// Without a limit, for those who prove who they are.
    pub fn new(word: Word, who: &str) -> Self {
        let skips = Skips { spam: true, newsletter: true, auth: false, attachments: false };
        Self { word, who: who.to_owned(), takes_unproven: false, skips, note: String::new(), until: None }
    }
}

const NOTE_MAX: usize = 200;
/// Of one owner, in both lists together.
const ENTRIES_MAX: u64 = 10_000;
const COLUMNS: &str = "id, level, owner, word, who, unproven, skips, note, until, added_at, added_by, hit_at";

/// `None` for one of a later version.
fn read(row: &Row) -> Result<Option<(Owner, Entry)>, EngineError> {
    let level = Level::from_name(row.text(1)?);
    let skips = Skips::from_words(row.text(6)?.split(' ').filter(|word| !word.is_empty()));
    let (Some(level), Some(word), Some(skips)) = (level, Word::from_name(row.text(3)?), skips) else { return Ok(None) };
    let entry = Entry {
        id: row.int(0)?,
        word,
        who: row.text(4)?.to_owned(),
        takes_unproven: row.is(5)?,
        skips,
        note: row.text(7)?.to_owned(),
        until: row.int_opt(8)?.map(UtcMillis),
        added_at: UtcMillis(row.int(9)?),
        added_by: row.text(10)?.to_owned(),
        hit_at: row.int_opt(11)?.map(UtcMillis),
    };
    Ok(Some((Owner { level, id: row.number(2)? }, entry)))
}

/// The lists of those owners that the condition means.
pub(crate) async fn read_lists(
    place: &Place,
    condition: &str,
    values: Vec<Value>,
) -> Result<HashMap<Owner, Lists>, EngineError> {
    let text = format!("SELECT {COLUMNS} FROM sender_entry WHERE {condition} ORDER BY id");
    let mut out: HashMap<Owner, Lists> = HashMap::new();
    for row in place.query(&text, values).await? {
        let Some((owner, entry)) = read(&row)? else { continue };
        let Some(line) = Listed::parse(&entry.who) else { continue };
        let line = line.kept(entry.id, entry.takes_unproven, entry.until, entry.skips);
        let lists = out.entry(owner).or_default();
        match entry.word {
            Word::Allow => lists.allow.push(line),
            Word::Block => lists.block.push(line),
        }
    }
    Ok(out)
}

impl Layers {
    /// Lines of an owner's lists by rising number from after one, with `search` somewhere in who or note, at most `limit`.
    pub async fn entries(
        &self,
        owner: Owner,
        word: Option<Word>,
        search: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Entry>, EngineError> {
        let text = format!(
            "SELECT {COLUMNS} FROM sender_entry WHERE level = $1 AND owner = $2 AND id > $3
             AND (CAST($4 AS text) IS NULL OR word = $4)
             AND (lower(who) LIKE $5 ESCAPE '\\' OR lower(note) LIKE $5 ESCAPE '\\') ORDER BY id LIMIT {limit}"
        );
        let values = vec![
            owner.level.as_str().into(),
            owner.id.into(),
            after.into(),
            word.map(|word| word.to_string()).into(),
            having(&search.to_lowercase()).into(),
        ];
        let rows = self.place.query(&text, values).await?;
        Ok(rows
            .iter()
            .map(read)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .map(|(_, entry)| entry)
            .collect())
    }

    pub async fn entry(&self, owner: Owner, id: i64) -> Result<Option<Entry>, EngineError> {
        let text = format!("SELECT {COLUMNS} FROM sender_entry WHERE level = $1 AND owner = $2 AND id = $3");
        let rows = self.place.query(&text, vec![owner.level.as_str().into(), owner.id.into(), id.into()]).await?;
        Ok(rows.first().map(read).transpose()?.flatten().map(|(_, entry)| entry))
    }

    /// Adds a line, or puts it in the place of one that means the same; gives its number.
    ///
    /// # Errors
    /// [`LayerError::Refused`] if it names nobody, or there are too many.
    pub async fn add_entry(&self, owner: Owner, new: &NewEntry, by: &str) -> Result<i64, LayerError> {
        let refuse = |why: String| LayerError::Refused { option: None, why };
        let line =
            Listed::parse(&new.who).ok_or_else(|| refuse(format!("`{}` is no address, domain or network", new.who)))?;
        let who = line.text.to_lowercase();
        let note: String = new.note.chars().filter(|c| !c.is_control()).take(NOTE_MAX).collect();
        let word = new.word.to_string();
        let (level, id): (Value, Value) = (owner.level.as_str().into(), owner.id.into());
        let room = Statement::new(
            "SELECT 1 WHERE (SELECT count(*) FROM sender_entry WHERE level = $1 AND owner = $2) < $3",
            vec![level.clone(), id.clone(), ENTRIES_MAX.into()],
        );
        let put = Statement::new(
            "INSERT INTO sender_entry (level, owner, word, who, unproven, skips, note, until, added_at, added_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (level, owner, word, who) DO UPDATE SET unproven = excluded.unproven, skips = excluded.skips,
                 note = excluded.note, until = excluded.until, added_at = excluded.added_at, added_by = excluded.added_by
             RETURNING id",
            vec![
                level,
                id,
                word.as_str().into(),
                who.as_str().into(),
                new.takes_unproven.into(),
                new.skips.words().join(" ").into(),
                note.into(),
                new.until.map(|until| until.0).into(),
                self.now().0.into(),
                by.into(),
            ],
        );
        let history = self.history(owner, by, "", &What::Listed { word, who });
        let done = self.change(vec![room.must(), put, history]).await?;
        let done = done.map_err(|_| refuse(format!("the lists hold {ENTRIES_MAX} lines already")))?;
        Ok(done.get(1).and_then(|done| done.rows.first()).map_or(Ok(0), |row| row.int(0))?)
    }

    pub async fn delete_entry(&self, owner: Owner, id: i64, by: &str) -> Result<Entry, LayerError> {
        let missing = || LayerError::Missing { what: format!("the line {id}") };
        let entry = self.entry(owner, id).await?.ok_or_else(missing)?;
        let text = "DELETE FROM sender_entry WHERE level = $1 AND owner = $2 AND id = $3";
        let gone = Statement::new(text, vec![owner.level.as_str().into(), owner.id.into(), id.into()]).must();
        let what = What::Unlisted { word: entry.word.to_string(), who: entry.who.clone() };
        let history = self.history(owner, by, "", &what);
        self.change(vec![gone, history]).await?.map_err(|_| missing())?;
        Ok(entry)
    }

    /// A line fitted the sender of a message just now.
    pub fn hit(&self, id: i64) {
        self.hits.lock().insert(id, self.now());
    }

    /// Writes down which lines fitted; what fails is noted the next time that they do.
    pub(crate) async fn note_hits(&self) -> Result<(), EngineError> {
        let hits = std::mem::take(&mut *self.hits.lock());
        if hits.is_empty() {
            return Ok(());
        }
        let mut hits: Vec<(i64, UtcMillis)> = hits.into_iter().collect();
        // In one order on all nodes: none waits for one that waits for it.
        hits.sort_unstable_by_key(|(id, _)| *id);
        let step = |(id, at): (i64, UtcMillis)| {
            let text = "UPDATE sender_entry SET hit_at = $2 WHERE id = $1 AND (hit_at IS NULL OR hit_at < $3)";
            Statement::new(text, vec![id.into(), at.0.into(), (at.0 - 60_000).into()])
        };
        let _ = self.place.change(hits.into_iter().map(step).collect()).await?;
        Ok(())
    }
}
