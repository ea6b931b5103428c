use super::*;
use crate::proto::append::{Before, before_literal};
use crate::proto::{DayIs, Framer, SearchKey};

fn read(text: &str) -> Body {
    match parse(format!("a1 {text}").as_bytes()) {
        Ok(command) => {
            assert_eq!(command.tag, "a1");
            command.body
        }
        Err(error) => panic!("{text}: {error}"),
    }
}

/// Compares by debug text: commands hold secrets, which cannot be compared.
fn check(text: &str, expected: &str) {
    assert_eq!(format!("{:?}", read(text)), expected, "{text}");
}

fn refuses(text: &str) {
    assert!(parse(format!("a1 {text}").as_bytes()).is_err(), "{text}");
}

fn raw(name: &str) -> RawName {
    RawName(name.as_bytes().to_vec())
}

#[test]
fn plain_commands() {
    for (text, expected) in [
        ("NOOP", "Noop"),
        ("noop ", "Noop"),
        ("Capability", "Capability"),
        ("ID NIL", "Id"),
        ("ID (\"name\" \"x\" \"version\" NIL)", "Id"),
        ("ENABLE condstore X", "Enable([\"CONDSTORE\", \"X\"])"),
        ("AUTHENTICATE PLAIN", "Authenticate { mechanism: \"PLAIN\", initial: None }"),
        ("AUTHENTICATE PLAIN AGEAYg==", "Authenticate { mechanism: \"PLAIN\", initial: Some([secret]) }"),
        ("LOGIN \"a\\\"b\" {2}\r\nx\"", "Login { login: [97, 34, 98], password: [secret] }"),
    ] {
        check(text, expected);
    }
    for text in ["", "NOOP x", "LOGIN a", "LOGIN \"a b", "LOGIN a \"\\x\"", "ID", "XYZZY", "SELECT", "APPEND x hello"] {
        refuses(text);
    }
    assert_eq!(parse(b"a NOSUCH").unwrap_err().tag.as_deref(), Some("a"));
    for text in ["", " NOOP", "a+ NOOP", "\u{e4} NOOP", "NOOP"] {
        assert!(parse(text.as_bytes()).is_err());
    }
}

#[test]
fn mailbox_commands() {
    let select = |text: &str| match read(text) {
        Body::Select { mailbox, read_only, condstore } => (mailbox, read_only, condstore),
        other => panic!("{other:?}"),
    };
    assert_eq!(select("SELECT INBOX"), (raw("INBOX"), false, false));
    assert_eq!(select("EXAMINE \"a b\" (CONDSTORE)"), (raw("a b"), true, true));
    assert!(matches!(read("CREATE x (USE (\\Drafts))"), Body::Create { role: Some(Ok(Role::Drafts)), .. }));
    assert!(matches!(read("CREATE x (USE (\\All))"), Body::Create { role: Some(Err(())), .. }));
    assert!(matches!(read("RENAME a {1+}\r\nb"), Body::Rename { from, to } if from == raw("a") && to == raw("b")));
    assert!(matches!(read("STATUS x (MESSAGES uidnext SIZE)"), Body::Status { items, .. }
        if items == [StatusItem::Messages, StatusItem::UidNext, StatusItem::Size]));
    assert_eq!(raw("Entw&APw-rfe").decode().unwrap().as_str(), "Entwürfe");
    assert!(raw("a//b").decode().is_none());
}

#[test]
fn list_commands() {
    let list = |text: &str| match read(text) {
        Body::List(list) => list,
        other => panic!("{other:?}"),
    };
    let basic = list("LIST \"\" %");
    assert!(basic.basic && basic.patterns == [b"%"]);
    let full = list(
        "LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (INBOX \"a b*\") RETURN (CHILDREN SPECIAL-USE STATUS (UNSEEN) SUBSCRIBED)",
    );
    assert_eq!(full.patterns, [b"INBOX".to_vec(), b"a b*".to_vec()]);
    assert!(full.select_subscribed && full.select_recursive && full.return_children && full.return_special_use);
    assert_eq!(full.return_status, [StatusItem::Unseen]);
    assert!(list("LIST (SPECIAL-USE) \"\" *").select_special_use);
    assert!(list("LIST () \"\" *").patterns == [b"*"]);
    for text in ["LIST (RECURSIVEMATCH) \"\" *", "LIST (X) \"\" *", "LIST \"\" * RETURN (X)", "LIST \"\""] {
        refuses(text);
    }
}

#[test]
fn fetch_items() {
    let items = |text: &str| match read(&format!("FETCH 1:* {text}")) {
        Body::Fetch { fetch, .. } => fetch.items,
        other => panic!("{other:?}"),
    };
    let label = |text: &str| match &items(text)[..] {
        [FetchItem::Section(item)] => String::from_utf8(item.label.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(items("ALL"), [FetchItem::Flags, FetchItem::InternalDate, FetchItem::Size, FetchItem::Envelope]);
    assert_eq!(items("(UID uid BODY)"), [FetchItem::Uid, FetchItem::Structure { extended: false }]);
    assert_eq!(label("BODY.PEEK[header.fields (from \"To\")]<0.100>"), "BODY[HEADER.FIELDS (FROM TO)]<0>");
    assert_eq!(label("BODY[1.2.MIME]"), "BODY[1.2.MIME]");
    assert_eq!(label("BODY[2.HEADER.FIELDS.NOT (x)]"), "BODY[2.HEADER.FIELDS.NOT (X)]");
    assert_eq!(label("BODY[]<5.6>"), "BODY[]<5>");
    assert_eq!(label("RFC822.TEXT"), "RFC822.TEXT");
    assert!(matches!(&items("(PREVIEW (LAZY) EMAILID)")[..], [FetchItem::Preview, FetchItem::EmailId]));
    assert!(matches!(&items("RFC822.HEADER")[..], [FetchItem::Section(item)] if item.peek));
    assert!(matches!(&items("BODY[TEXT]")[..], [FetchItem::Section(item)] if !item.peek));
    assert!(matches!(read("UID FETCH 1 (FLAGS) (CHANGEDSINCE 5)"), Body::Fetch { by_uid: true, fetch, .. }
        if fetch.changed_since == Some(5)));
    for text in ["()x", "(ALL)", "BODY[0]", "BODY[1.]", "BODY[MIME]", "BODY[]<1>", "BODY[]<1.0>", "X", "BODY[1.X]"] {
        refuses(&format!("FETCH 1 {text}"));
    }
    for set in ["0", "1:", "x", "1,,2", "4294967296"] {
        refuses(&format!("FETCH {set} FLAGS"));
    }
}

#[test]
fn store_commands() {
    let store = |text: &str| match read(text) {
        Body::Store { store, .. } => store,
        other => panic!("{other:?}"),
    };
    let seen = store("STORE 1 +FLAGS.SILENT (\\Seen $Work)");
    assert!(seen.silent && matches!(&seen.change, FlagChange::Add(f) if f.keywords.len() == 1));
    assert!(matches!(store("UID STORE 1,3:4 -flags \\Deleted \\Recent").change, FlagChange::Remove(_)));
    assert_eq!(store("STORE 1 (UNCHANGEDSINCE 0) FLAGS ()").unchanged_since, Some(0));
    for text in ["STORE 1 FLAGS", "STORE 1 X (a)", "STORE 1 +-FLAGS (a)", "STORE 1 FLAGS (a]b)"] {
        refuses(text);
    }
}

#[test]
fn search_keys() {
    let keys = |text: &str| match read(&format!("SEARCH {text}")) {
        Body::Search { search, .. } => search,
        other => panic!("{other:?}"),
    };
    assert_eq!(keys("1:5 UNSEEN").keys.len(), 2);
    assert_eq!(keys("SINCE 1-Feb-1970").keys, [SearchKey::Received(DayIs::Since, 31)]);
    assert_eq!(keys("SENTON \"31-Dec-1969\"").keys, [SearchKey::Sent(DayIs::On, -1)]);
    assert_eq!(keys("OR TEXT a (BODY b NOT SEEN)").keys.len(), 1);
    assert_eq!(keys("HEADER Message-ID \"<x>\"").keys, [SearchKey::Header("message-id".into(), b"<x>".to_vec())]);
    assert!(keys("CHARSET ISO-8859-1 ALL").unknown_charset && !keys("CHARSET utf-8 ALL").unknown_charset);
    assert!(keys("RETURN () ALL").options.unwrap().all);
    assert!(keys("RETURN (MIN COUNT) ALL").options.unwrap().count);
    assert!(matches!(keys("MODSEQ \"/flags/\\\\draft\" all 5").keys[..], [SearchKey::ModSeq(_)]));
    let deep = format!("{}ALL{}", "(".repeat(100), ")".repeat(100));
    let many = "ALL ".repeat(2000);
    for text in ["", "X", "SINCE 40-Feb-1970", "OR ALL", "()", "RETURN (X) ALL", &deep, &many] {
        refuses(&format!("SEARCH {text}"));
    }
}

#[test]
fn append_heads() {
    let Before::Message(head) = before_literal(b"a APPEND x (\\Seen Foo) \" 1-Jan-1970 00:00:01 +0000\" ") else {
        panic!("no message")
    };
    assert_eq!(head.options.internal_date, Some(base::UtcMillis(1000)));
    assert_eq!(head.options.flags.keywords.len(), 1);
    assert_eq!(before_literal(b"a APPEND "), Before::Argument);
    assert_eq!(before_literal(b"a LOGIN "), Before::Argument);
    assert!(matches!(before_literal(b"a APPEND x (bad"), Before::Broken { .. }));
    assert!(matches!(before_literal(b"a APPEND x \"never\" "), Before::Broken { .. }));
}

/// Whatever comes in: no panic, and the stream is in step again at the next line.
#[test]
fn mutations_never_panic_and_never_desynchronise() {
    let seeds: [&[u8]; 6] = [
        b"a UID FETCH 1:*,5 (FLAGS BODY.PEEK[1.HEADER.FIELDS (A \"b\")]<0.5> ENVELOPE) (CHANGEDSINCE 5)\r\n",
        b"a SEARCH RETURN (MIN ALL) CHARSET UTF-8 OR (FROM {3+}\r\nabc NOT 1:*) SINCE 1-Feb-2020\r\n",
        b"a LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (INBOX \"a b*\") RETURN (STATUS (UNSEEN))\r\n",
        b"a APPEND {1+}\r\nx (\\Seen) \" 1-Jan-1970 00:00:01 +0000\" {5+}\r\nhello\r\n",
        b"a LOGIN {2+}\r\nme \"p\\\\w\"\r\n",
        b"a CREATE &AOk- (USE (\\Drafts))\r\n",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0)
    };
    for round in 0..20_000 {
        let mut text = seeds[round % seeds.len()].to_vec();
        for _ in 0..1 + random() % 4 {
            let at = random() % text.len().max(1);
            match random() % 4 {
                _ if text.is_empty() => text.push(b'a'),
                0 => text[at] = u8::try_from(random() % 256).unwrap(),
                1 => drop(text.remove(at)),
                2 => text.insert(at, b"(){}\"\\\r\n *%<>[]9+"[random() % 17]),
                _ => text.truncate(at.max(1)),
            }
        }
        let _ = parse(&text);
        let mut framer = Framer::new(300, 100);
        let mut input = bytes::BytesMut::from(&text[..]);
        while framer.next(&mut input).is_some() {}
        assert!(input.is_empty());
        // Whatever literal it is in ends within these.
        let mut seen = false;
        for _ in 0..200 {
            input.extend_from_slice(b"\r\nz NOOP\r\n");
            while let Some(event) = framer.next(&mut input) {
                seen |= event == crate::proto::Event::Command(b"z NOOP".to_vec());
                if matches!(event, crate::proto::Event::Refused { why: crate::proto::frame::Refusal::Hopeless, .. }) {
                    seen = true;
                }
            }
        }
        assert!(seen || text.windows(4).any(|w| w.iter().filter(|b| b.is_ascii_digit()).count() >= 3), "{text:?}");
    }
}
