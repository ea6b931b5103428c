//! SEARCH (RFC 3501 §6.4.4, RFC 4731, RFC 5032, RFC 7162).

use base::ModSeq;
use store::SystemFlags;

use super::parse::sequence_set;
use super::scan::{Scan, Scanner};
use super::types::{DayIs, Search, SearchKey, SearchReturn};

/// Keys in one search, and parentheses in each other: far beyond what people ask for.
const KEYS_MAX: usize = 1000;
const DEPTH_MAX: usize = 40;

/// What follows `SEARCH `.
pub fn search(s: &mut Scanner<'_>) -> Scan<Search> {
    let mut options = None;
    if s.take_word("RETURN ") {
        let mut wanted = SearchReturn::default();
        s.list(|s| {
            match s.keyword()?.as_str() {
                "MIN" => wanted.min = true,
                "MAX" => wanted.max = true,
                "ALL" => wanted.all = true,
                "COUNT" => wanted.count = true,
                _ => return Err("unknown search return option"),
            }
            Ok(())
        })?;
        if wanted == SearchReturn::default() {
            wanted.all = true;
        }
        options = Some(wanted);
        s.space()?;
    }
    let mut unknown_charset = false;
    if s.take_word("CHARSET ") {
        let charset = s.astring()?;
        unknown_charset = !["UTF-8", "US-ASCII"].iter().any(|known| known.as_bytes().eq_ignore_ascii_case(&charset));
        s.space()?;
    }
    let mut left = KEYS_MAX;
    let mut keys = vec![key(s, DEPTH_MAX, &mut left)?];
    while s.peek() == Some(b' ') {
        s.space()?;
        if s.is_done() {
            break;
        }
        keys.push(key(s, DEPTH_MAX, &mut left)?);
    }
    Ok(Search { options, keys, unknown_charset })
}

fn key(s: &mut Scanner<'_>, depth: usize, left: &mut usize) -> Scan<SearchKey> {
    *left = left.checked_sub(1).ok_or("too many search keys")?;
    let depth = depth.checked_sub(1).ok_or("search keys are too deep")?;
    match s.peek() {
        Some(b'(') => {
            let mut keys = Vec::new();
            s.list(|s| {
                keys.push(key(s, depth, left)?);
                Ok(())
            })?;
            return if keys.is_empty() { Err("a search key is missing") } else { Ok(SearchKey::And(keys)) };
        }
        Some(b'0'..=b'9' | b'*') => return sequence_set(s).map(SearchKey::Numbers),
        _ => {}
    }
    let name = s.keyword()?;
    Ok(match name.as_str() {
        "ALL" | "OLD" => SearchKey::All,
        "ANSWERED" => SearchKey::Flag(SystemFlags::ANSWERED, true),
        "DELETED" => SearchKey::Flag(SystemFlags::DELETED, true),
        "DRAFT" => SearchKey::Flag(SystemFlags::DRAFT, true),
        "FLAGGED" => SearchKey::Flag(SystemFlags::FLAGGED, true),
        "SEEN" => SearchKey::Flag(SystemFlags::SEEN, true),
        "UNANSWERED" => SearchKey::Flag(SystemFlags::ANSWERED, false),
        "UNDELETED" => SearchKey::Flag(SystemFlags::DELETED, false),
        "UNDRAFT" => SearchKey::Flag(SystemFlags::DRAFT, false),
        "UNFLAGGED" => SearchKey::Flag(SystemFlags::FLAGGED, false),
        "UNSEEN" => SearchKey::Flag(SystemFlags::SEEN, false),
        // Nothing is ever \Recent here, so everything is old.
        "RECENT" | "NEW" => SearchKey::Nothing,
        _ => {
            s.space()?;
            with_argument(&name, s, depth, left)?
        }
    })
}

fn with_argument(name: &str, s: &mut Scanner<'_>, depth: usize, left: &mut usize) -> Scan<SearchKey> {
    let text = |s: &mut Scanner<'_>| s.astring().map(std::borrow::Cow::into_owned);
    Ok(match name {
        "KEYWORD" | "UNKEYWORD" => {
            let keyword = std::str::from_utf8(s.atom()?).ok().and_then(|text| text.parse().ok());
            SearchKey::Keyword(keyword, name == "KEYWORD")
        }
        "BEFORE" => SearchKey::Received(DayIs::Before, day(s)?),
        "ON" => SearchKey::Received(DayIs::On, day(s)?),
        "SINCE" => SearchKey::Received(DayIs::Since, day(s)?),
        "SENTBEFORE" => SearchKey::Sent(DayIs::Before, day(s)?),
        "SENTON" => SearchKey::Sent(DayIs::On, day(s)?),
        "SENTSINCE" => SearchKey::Sent(DayIs::Since, day(s)?),
        "FROM" | "TO" | "CC" | "BCC" | "SUBJECT" => SearchKey::Header(name.to_ascii_lowercase(), text(s)?),
        "HEADER" => {
            let field = String::from_utf8_lossy(&s.astring()?).to_ascii_lowercase();
            s.space()?;
            SearchKey::Header(field, text(s)?)
        }
        "BODY" => SearchKey::Body(text(s)?),
        "TEXT" => SearchKey::Text(text(s)?),
        "LARGER" => SearchKey::Larger(s.number()?),
        "SMALLER" => SearchKey::Smaller(s.number()?),
        "UID" => SearchKey::Uids(sequence_set(s)?),
        "OLDER" => SearchKey::Older(s.number32()?),
        "YOUNGER" => SearchKey::Younger(s.number32()?),
        "EMAILID" => SearchKey::EmailId(s.atom()?.to_vec()),
        "THREADID" => SearchKey::ThreadId(s.atom()?.to_vec()),
        "MODSEQ" => {
            // RFC 7162 §3.1.5: an entry name and type may stand first; all flags share one mod-sequence here.
            if s.peek() == Some(b'"') {
                s.string()?;
                s.space()?;
                s.keyword()?;
                s.space()?;
            }
            ModSeq::new(s.number()?).map_or(SearchKey::All, SearchKey::ModSeq)
        }
        "NOT" => SearchKey::Not(Box::new(key(s, depth, left)?)),
        "OR" => {
            let first = Box::new(key(s, depth, left)?);
            s.space()?;
            SearchKey::Or(first, Box::new(key(s, depth, left)?))
        }
        _ => return Err("unknown search key"),
    })
}

/// `date`: ` 1-Feb-1994` or `"1-Feb-1994"`, as days since 1970-01-01.
fn day(s: &mut Scanner<'_>) -> Scan<i64> {
    let text = s.astring()?;
    let date = std::str::from_utf8(&text).ok().and_then(|text| jiff::civil::Date::strptime("%d-%b-%Y", text).ok());
    let date = date.ok_or("a bad date")?;
    let epoch = jiff::civil::Date::constant(1970, 1, 1);
    Ok(date.duration_since(epoch).as_secs() / 86_400)
}
