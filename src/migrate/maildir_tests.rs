use super::*;

fn name(text: &str) -> MailboxName {
    text.parse().unwrap()
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn read(folder: &Path) -> Vec<Result<Message, String>> {
    let reader = Reader::open(folder, ByteSize(1000)).unwrap();
    reader.map(|read| read.map_err(|trouble| trouble.to_string())).collect()
}

#[test]
fn folders_of_every_layout_are_found() {
    let root = tempfile::tempdir().unwrap();
    for folder in [
        "cur",
        ".Sent/new",
        ".Work.2026/cur",
        ".Entw&APw-rfe/cur",
        ".v1&AC4-2/cur",
        "INBOX/cur",
        "Lists/Rust/cur",
        "Deep/.A/.B/cur",
        ".no-folder/x",
    ] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let (found, troubles) = folders(root.path());
    assert!(troubles.is_empty(), "{troubles:?}");
    let found: Vec<&str> = found.iter().map(|folder| folder.name.as_str()).collect();
    assert_eq!(found, ["Deep/A/B", "Entwürfe", "INBOX", "INBOX", "Lists/Rust", "Sent", "Work/2026", "v1.2"]);
    let (found, troubles) = folders(&root.path().join("nowhere"));
    assert!(found.is_empty() && troubles.len() == 1);
}

#[test]
fn files_of_other_programs_are_read() {
    let root = tempfile::tempdir().unwrap();
    let at = |file: &str| root.path().join(file);
    put(&at("dovecot-keywords"), b"0 $Label1\n1 Work\nnonsense\n99 Far\n");
    put(&at("cur/1600000000.M1P1.host,S=9,W=10:2,FRSabz"), b"A: 1\n\nx\n");
    put(&at("cur/1600000001.M1P1.host:2,DPT"), b"A: 2\r\n\r\nbare\nline\r\n");
    put(&at("new/1600000002.M1P1.host"), b"A: 3\n");
    put(&at("new/1600000003.empty"), b"");
    put(&at("new/1600000004.large"), &[b'x'; 1001]);
    put(&at("new/.hidden"), b"x");
    let found = read(root.path());
    assert_eq!(found.len(), 5);
    let first = found[0].as_ref().unwrap();
    assert_eq!(first.content, b"A: 1\r\n\r\nx\r\n");
    assert_eq!(first.internal_date, UtcMillis(1_600_000_000_000), "the file was touched later than its name says");
    let expected = SystemFlags::FLAGGED.with(SystemFlags::ANSWERED).with(SystemFlags::SEEN);
    assert_eq!(first.flags.system, expected);
    assert_eq!(format!("{:?}", first.flags.keywords), "{$Label1, Work}");
    let second = found[1].as_ref().unwrap();
    assert_eq!(second.content, b"A: 2\r\n\r\nbare\nline\r\n");
    assert_eq!(second.flags.system, SystemFlags::DRAFT.with(SystemFlags::DELETED));
    assert_eq!(format!("{:?}", second.flags.keywords), "{$Forwarded}");
    assert_eq!(found[2].as_ref().unwrap().flags, Flags::default());
    assert!(found[3].as_ref().unwrap_err().ends_with("1600000003.empty: an empty file"));
    assert!(found[4].as_ref().unwrap_err().contains("larger than"));
}

#[test]
fn what_is_written_is_read_back_and_known_again() {
    let root = tempfile::tempdir().unwrap();
    let mailbox = name("Wörk.1/Süb");
    let mut flags = Flags::system(SystemFlags::SEEN);
    flags.keywords = ["$Forwarded", "Work", "$Label1"].iter().map(|word| word.parse().unwrap()).collect();
    let message =
        Message { content: b"A: 1\r\n\r\nx\nno end".to_vec(), flags, internal_date: UtcMillis(1_600_000_000_123) };
    let key = Key {
        account: "a/b@example.test",
        uid_validity: 7,
        uid: 3,
        internal_date: message.internal_date,
        size_bytes: message.content.len() as u64,
    };
    let mut writer = Writer::open(root.path(), &mailbox).unwrap();
    assert!(!writer.refresh(&key, &message.flags).unwrap());
    writer.add(&key, &message).unwrap();
    assert_eq!(writer.read(&key).unwrap(), message.content);
    let (found, _) = folders(root.path());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, mailbox);
    assert_eq!(read(&found[0].path), [Ok(message.clone())]);

    // Flags change, the file stays.
    let mut changed = message.clone();
    changed.flags.system = SystemFlags::ANSWERED;
    changed.flags.keywords.extend((0..40).map(|n| format!("k{n}").parse::<Keyword>().unwrap()));
    let mut writer = Writer::open(root.path(), &mailbox).unwrap();
    assert!(writer.refresh(&key, &changed.flags).unwrap());
    assert_eq!(writer.without_letter(&changed.flags).len(), 42 - LETTERS);
    let back = read(&found[0].path).remove(0).unwrap();
    assert_eq!(back.flags.system, SystemFlags::ANSWERED);
    assert_eq!(back.flags.keywords.len(), LETTERS + 1);

    // A file cut short is written again.
    let file = fs::read_dir(found[0].path.join("cur")).unwrap().next().unwrap().unwrap().path();
    File::options().write(true).open(&file).unwrap().set_len(3).unwrap();
    assert!(!Writer::open(root.path(), &mailbox).unwrap().refresh(&key, &message.flags).unwrap());

    assert_eq!(subscriptions(root.path()), None);
    subscribe(root.path(), [mailbox.clone(), name("INBOX")]).unwrap();
    subscribe(root.path(), [name("Sent")]).unwrap();
    assert_eq!(subscriptions(root.path()).unwrap(), BTreeSet::from([mailbox, name("INBOX"), name("Sent")]));
}

#[test]
fn other_lists_of_subscriptions_are_read() {
    let root = tempfile::tempdir().unwrap();
    put(&root.path().join("courierimapsubscribed"), b"INBOX\nINBOX.Sent\nINBOX.Work.Sub\n");
    assert_eq!(subscriptions(root.path()).unwrap(), BTreeSet::from([name("INBOX"), name("Sent"), name("Work/Sub")]));
    put(&root.path().join("subscriptions"), b"V\t2\n\nINBOX\nWork\tSub\nEntw&APw-rfe\n");
    assert_eq!(
        subscriptions(root.path()).unwrap(),
        BTreeSet::from([name("INBOX"), name("Work/Sub"), name("Entwürfe")])
    );
}

#[test]
fn any_name_of_a_file_is_read_without_a_panic() {
    let mut seed = 5u64;
    let mut below = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    const WORDS: [&str; 12] =
        [":2,", "é", "1600000000", ".", "-5", "abz", "S=", ",", "9999999999999999999", "FRS", ":", "{"];
    let root = tempfile::tempdir().unwrap();
    for _ in 0..300 {
        let file: String = (0..=below(6)).map(|_| WORDS[below(WORDS.len())]).collect();
        put(&root.path().join("cur").join(format!("x{file}")), b"A: 1\n");
        put(&root.path().join("new").join(file.trim_start_matches('.').to_owned() + "x"), b"A: 1\n");
    }
    assert!(read(root.path()).iter().all(Result::is_ok));
}
