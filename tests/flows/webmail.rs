//! What a person does with mail all day, in a real browser: writing, reading, sorting, with the mouse and with keys.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::browser::{button, hostile, row, sign_in, signed_in};
use crate::harness::{Browser, Node, Trap, letter, ortler, skip, wants_all, written};

const ENTER: char = '\u{e007}';
const ESCAPE: char = '\u{e00c}';
const TAB: char = '\u{e004}';
const CONTROL: char = '\u{e009}';

fn folder(name: &str) -> String {
    format!("//nav[@class='folders']//a[span[text()='{name}']]")
}

fn labelled(label: &str) -> String {
    format!("//*[@aria-label='{label}']")
}

/// The first message that arrives.
fn arrived(node: &Node, user: &str) -> String {
    let found = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        node.messages(user, "INBOX").pop()
    });
    String::from_utf8(found.expect("the message arrives")).unwrap()
}

#[test]
fn a_draft_is_kept_and_its_file_arrives_unchanged() {
    let Some((node, browser)) = signed_in() else { return };
    // Every octet, and no text in any charset.
    let content: Vec<u8> =
        (0..200_000_u32).map(|n| u8::try_from((n.wrapping_mul(2_654_435_761) >> 13) % 256).unwrap()).collect();
    let file = node.dir().join("Übersicht 1.bin");
    std::fs::write(&file, &content).unwrap();

    browser.click(&button("Compose"));
    browser.write(".compose [name=to]", "user2@example.test,");
    browser.write(".compose [name=subject]", "Kept and sent");
    browser.write(".compose [name=text]", "First words.");
    browser.write(".compose input[type=file]", file.to_str().unwrap());
    browser.reads(".compose .state", "Saved at");
    assert_eq!(node.messages("user1", "Drafts").len(), 1);
    // Dropped and pasted files come, too, and go again.
    for (event, from) in
        [("DragEvent('drop', { dataTransfer", "dropped"), ("ClipboardEvent('paste', { clipboardData", "pasted")]
    {
        let script = format!(
            "const files = new DataTransfer(); files.items.add(new File(['x'], '{from}.txt', {{ type: 'text/plain' }})); \
             document.querySelector('.compose textarea').dispatchEvent(new {event}: files, bubbles: true, cancelable: true }}))"
        );
        browser.run(&script).unwrap();
        browser.reads(".compose .files", &format!("{from}.txt"));
        browser.becomes("return document.querySelector('.compose progress')", &json!(null));
    }
    browser.click(&labelled("Remove dropped.txt"));
    browser.click(&labelled("Remove pasted.txt"));
    browser.becomes("return document.querySelectorAll('.compose .files li').length", &json!(1));
    browser.write(".compose [name=text]", " More words.");
    browser.becomes("return document.querySelector('.compose .state').textContent", &json!("Not saved yet"));
    browser.reads(".compose .state", "Saved at");
    assert_eq!(node.messages("user1", "Drafts").len(), 1, "a newer draft takes the place of the older");
    browser.picture("draft");

    // The browser may go away: the draft stays.
    browser.open(&format!("http://127.0.0.1:{}/mail", node.port(80)));
    browser.click(&folder("Drafts"));
    browser.click(&row("Kept and sent"));
    browser.becomes("return document.querySelector('.compose [name=text]').value", &json!("First words. More words."));
    browser.reads(".compose .files", "Übersicht 1.bin");
    browser.reads(".compose .chips", "user2@example.test");
    browser.click(&button("Send"));
    browser.reads(".note", "Sent.");
    let message = arrived(&node, "user2");
    let (head, body) = message.split_once("application/octet-stream").unwrap();
    assert!(head.contains("First words. More words."), "{head}");
    let encoded = body.split_once("\r\n\r\n").unwrap().1.split_once("\r\n--").unwrap().0.replace("\r\n", "");
    assert!(BASE64_STANDARD.decode(encoded).unwrap() == content, "the file changed on its way");
    assert_eq!((node.messages("user1", "Drafts").len(), node.messages("user1", "Sent").len()), (0, 1));
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// Requests to a path or with a body that holds `word` fail from now on.
fn fail(browser: &Browser, word: &str) {
    let script = format!(
        "window.asked = window.asked || window.fetch; window.fetch = (path, how = {{}}) => \
         (`${{path}} ${{how.body || ''}}`.includes('{word}') ? Promise.reject(new TypeError('{word}')) : window.asked(path, how))"
    );
    browser.run(&script).unwrap();
}

/// Answers to such requests are held from the next one on, until `window.release()`.
fn hold(browser: &Browser, word: &str) {
    let script = format!(
        "window.asked = window.asked || window.fetch; window.held = 0; const free = new Promise((go) => {{ window.release = go; }}); \
         window.fetch = async (path, how = {{}}) => {{ const answer = await window.asked(path, how); \
         if (`${{path}} ${{how.body || ''}}`.includes('{word}')) {{ window.held += 1; await free; }} return answer; }}"
    );
    browser.run(&script).unwrap();
}

/// The subject of the row that has the keyboard.
const AT_ROW: &str =
    "const row = document.activeElement.closest('.what'); return row && row.querySelector('b').textContent";
const HELD: &str = "return window.held > 0";
const MEND: &str = "window.fetch = window.asked";

#[test]
fn a_draft_outlives_failures_and_other_faces() {
    let Some((node, browser)) = signed_in() else { return };
    let written =
        |text: &str| browser.becomes("return document.querySelector('.compose [name=text]').value", &json!(text));
    fail(&browser, "Identity/get");
    browser.click(&button("Compose"));
    browser.write(".compose [name=subject]", "Kept");
    browser.write(".compose [name=text]", "First.");
    browser.reads(".compose .state", "Not saved: The server cannot be reached");
    browser.run(MEND).unwrap();
    browser.write(".compose [name=text]", " More.");
    browser.reads(".compose .state", "Saved at");

    // Folders that come late lead nobody away from another face, and what is written goes along to it.
    hold(&browser, "Mailbox/get");
    node.send("anna@sender.example", &["user1@example.test"], &letter("push", "Words enough."));
    browser.becomes(HELD, &json!(true));
    browser.click("header nav a[href='/log']");
    browser.find("//td[.='push']");
    browser.run("window.release()").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(browser.run("return [location.pathname, document.title]"), Ok(json!(["/log", "Log · Ortler"])));
    browser.run(MEND).unwrap();
    browser.write(".compose [name=text]", " Elsewhere.");
    browser.click(&labelled("Close and keep as draft"));
    browser.reads(".note", "Kept among the drafts");
    assert_eq!(node.messages("user1", "Drafts").len(), 1);

    // What cannot be read is not taken for empty.
    browser.click("header nav a[href='/mail']");
    browser.click(&folder("Drafts"));
    fail(&browser, "fetchTextBodyValues");
    browser.click(&row("Kept"));
    browser.reads(".compose .error", "cannot be reached");
    assert_eq!(
        browser.run("return document.querySelector('.compose textarea, .compose [aria-label=\"Discard draft\"]')"),
        Ok(json!(null))
    );
    browser.run(MEND).unwrap();
    browser.click("//section[contains(@class, 'compose')]//button[.='Try again']");
    written("First. More. Elsewhere.");
    // Nor is what is still to come.
    browser.click(&labelled("Close and keep as draft"));
    hold(&browser, "fetchTextBodyValues");
    browser.click(&row("Kept"));
    browser.becomes(HELD, &json!(true));
    browser.click(&labelled("Close and keep as draft"));
    browser.becomes("return document.querySelector('.compose')", &json!(null));
    assert_eq!(node.messages("user1", "Drafts").len(), 1);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn junk_is_undone_whole_and_a_forward_takes_pictures_along() {
    let Some((node, browser)) = signed_in() else { return };
    let mail = "From: anna@sender.example\r\nTo: user1@example.test\r\nSubject: With a picture\r\nMessage-ID: <p@x.example>\r\n\
        Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n\
        --b\r\nContent-Type: text/html\r\n\r\n<p>Words of a letter to a friend.</p><img src=\"cid:logo@x\">\r\n\
        --b\r\nContent-Type: image/png; name=logo.png\r\nContent-ID: <logo@x>\r\nContent-Disposition: inline; filename=logo.png\r\n\
        Content-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--b--\r\n"
        .replace("Mon, 23 Nov 2026 10:00:00 +0000", written());
    assert!(node.send("anna@sender.example", &["user1@example.test"], mail.as_bytes()).starts_with("250"));
    browser.find(&row("With a picture"));
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    imap.tagged("STORE 1 +FLAGS ($NotJunk)");
    browser.click(&row("With a picture"));
    browser.click(&button("Forward"));
    browser.reads(".compose .files", "logo.png");
    browser.becomes(
        "return document.querySelector('.compose [name=text]').value.includes('Words of a letter')",
        &json!(true),
    );
    browser.click(&labelled("Close and keep as draft"));

    browser.click(&labelled("Junk"));
    browser.reads(".note", "Moved to Junk");
    browser.click(&button("Undo"));
    browser.find(&row("With a picture"));
    imap.tagged("SELECT INBOX");
    let flags = imap.tagged("FETCH 1:* (FLAGS)").join("\n").to_lowercase();
    assert!(flags.contains("$notjunk") && !flags.contains("$junk"), "{flags}");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn sent_mail_is_taken_back_in_time() {
    let Some((node, browser)) = signed_in() else { return };
    browser.run("localStorage.removeItem('undosend')").unwrap();
    let write = |subject: &str| {
        browser.click(&button("Compose"));
        browser.write(".compose [name=to]", "user2@example.test,");
        browser.write(".compose [name=subject]", subject);
        browser.write(".compose [name=text]", "Words that were too quick.");
        browser.click(&button("Send"));
        browser.reads(".note", "Sent.");
    };
    write("Too quick");
    browser.click(&button("Undo"));
    browser
        .becomes("return document.querySelector('.compose [name=text]').value", &json!("Words that were too quick."));
    assert_eq!((node.messages("user1", "Drafts").len(), node.messages("user1", "Sent").len()), (1, 0));
    browser.reads(".compose .chips", "user2@example.test");
    browser.write(".compose [name=subject]", " no more");
    // A shorter while, chosen among the keys.
    browser.press(&ESCAPE.to_string());
    browser.becomes("return document.querySelector('.compose')", &json!(null));
    browser.press("?");
    browser.find("//label[contains(., 'can be taken back')]/select");
    let choose = "const choice = [...document.querySelectorAll('select')].find((one) => one.closest('label').textContent.includes('taken back')); \
        choice.value = '5'; choice.dispatchEvent(new Event('change', { bubbles: true }))";
    browser.run(choose).unwrap();
    browser.press(&ESCAPE.to_string());
    write("In time");
    assert!(node.messages("user2", "INBOX").is_empty());
    assert!(arrived(&node, "user2").contains("Subject: In time"));
    assert_eq!(node.messages("user2", "INBOX").len(), 1);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn wrong_recipients_and_forgotten_files_are_told_before_sending() {
    let Some((node, browser)) = signed_in() else { return };
    browser.click(&button("Compose"));
    browser.write(".compose [name=to]", "user2@example.test, nobody@example.test; a@other.example, no address,");
    browser.reads(".compose .faults", "no address is not an address");
    browser.write(".compose [name=subject]", "Three wrong");
    browser.write(".compose [name=text]", "Please find the report attached.");
    browser.click(&labelled("Remove no address"));
    browser.click(&button("Send"));
    browser.reads(".compose .banner", "You mention an attachment");
    browser.click(&button("Send anyway"));
    browser.reads(".compose .faults", "There is no nobody@example.test here");
    assert!(node.messages("user2", "INBOX").is_empty(), "nothing leaves while an address is wrong");
    browser.becomes("return document.querySelector('.compose [name=text]').value.length", &json!(32));
    browser.click(&labelled("Remove nobody@example.test"));
    browser.click(&labelled("Remove a@other.example"));
    browser.click(&button("Send anyway"));
    browser.reads(".note", "Sent.");
    assert!(arrived(&node, "user2").contains("Three wrong"));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_is_written_outlives_its_session() {
    let Some((node, browser)) = signed_in() else { return };
    browser.click(&button("Compose"));
    browser.write(".compose [name=to]", "user2@example.test,");
    browser.write(".compose [name=text]", "Not to be lost.");
    browser.forget_cookies();
    browser.click(&button("Send"));
    browser.reads(".compose .error", "Sign in in another tab, then go on here");
    // As from another tab.
    let sign_in_there = |user: &str| {
        let script = format!(
            "return fetch('/login', {{ method: 'POST', body: new URLSearchParams({{ name: '{user}@example.test', password: 'demo' }}) }})\
             .then((answer) => answer.status)"
        );
        browser.run(&script).unwrap();
    };
    // Somebody else there: what is written here is not theirs.
    sign_in_there("user2");
    browser.run("document.querySelector('.compose .error').dataset.old = 1").unwrap();
    browser.write(".compose input[type=file]", node.config().to_str().unwrap());
    browser.reads(".compose .files", "You are no longer signed in");
    browser.click("//ul[@class='files']//button");
    browser.click(&button("Send"));
    browser.reads(".compose .error:not([data-old])", "Sign in in another tab, then go on here");
    assert_eq!((node.messages("user2", "Sent").len(), node.messages("user2", "Drafts").len()), (0, 0));
    sign_in_there("user1");
    browser.click(&button("Send"));
    browser.reads(".note", "Sent.");
    assert!(arrived(&node, "user2").contains("Not to be lost."));
}

#[test]
fn an_answer_to_hostile_mail_holds_text_alone() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let (node, trap) =
        (Node::start_with_policy("tag-score = 900\nquarantine-score = 950\nreject-score = 999\n"), Trap::set());
    let mail = String::from_utf8(hostile(trap.port)).unwrap().replacen(
        "\r\nTo:",
        "\r\nReply-To: user2@example.test\r\nTo:",
        1,
    );
    assert!(node.send("evil@x.example", &["user1@example.test"], mail.as_bytes()).starts_with("250"));
    let browser = Browser::start();
    sign_in(&browser, &node, "user1");
    browser.click(&row("Hostile"));
    browser.reads(".read .banner", "not loaded");
    browser.click(&button("Reply"));
    browser.becomes(
        "return document.querySelector('.compose [name=text]').value.includes('> Visible words of a letter')",
        &json!(true),
    );
    let quoted = browser.run("return document.querySelector('.compose [name=text]').value").unwrap();
    assert!(!quoted.as_str().unwrap().contains("top.owned"), "{quoted}");
    browser.click(&button("Send"));
    browser.reads(".note", "Sent.");
    let answer = arrived(&node, "user2");
    assert!(answer.contains("In-Reply-To: <h@x.example>") && answer.contains("Content-Type: text/plain"), "{answer}");
    assert!(!answer.to_lowercase().contains("text/html") && !answer.contains("<script"), "{answer}");
    // On request alone does anything go out.
    assert_eq!(trap.count(), 0, "a remote address was asked");
    browser.click(&button("Show images"));
    browser.reads(".read .banner", "shown this once");
    (0..100).find(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        trap.count() > 0
    });
    assert!(trap.count() > 0, "the pictures that were asked for come");
    assert_eq!(browser.run("return window.owned === undefined"), Ok(json!(true)));
}

#[test]
fn everything_is_done_with_keys_alone() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let node = Node::start();
    for number in 1..=3 {
        let text = letter(&format!("letter {number}"), "Words that are long enough to be taken for a letter.");
        let text = String::from_utf8(text).unwrap().replacen("\r\nTo:", "\r\nReply-To: user2@example.test\r\nTo:", 1);
        node.send("anna@sender.example", &["user1@example.test"], text.as_bytes());
    }
    let browser = Browser::start();
    sign_in(&browser, &node, "user1");
    browser.find(&row("letter 3"));
    // A key may come before anything has been painted.
    browser.press(&format!("jj{ENTER}"));
    browser.reads(".read h2", "letter 2");
    browser.press("u");
    browser.becomes(AT_ROW, &json!("letter 2"));
    browser.press("s");
    browser.find("//li[contains(@class, 'row')][.//b[text()='letter 2']]//button[@aria-pressed='true']");
    browser.press(&ENTER.to_string());
    browser.reads(".read h2", "letter 2");
    browser.becomes("return document.activeElement.tagName", &json!("H2"));
    browser.press("?");
    browser.reads("dialog", "Keyboard shortcuts");
    browser.press(&ESCAPE.to_string());
    browser.becomes("return document.querySelector('dialog')", &json!(null));
    browser.press("r");
    browser.becomes("return document.activeElement.name", &json!("text"));
    browser.press("Typed.");
    let send = json!([{ "type": "keyDown", "value": CONTROL }, { "type": "keyDown", "value": ENTER }, { "type": "keyUp", "value": ENTER }, { "type": "keyUp", "value": CONTROL }]);
    browser.strokes(&send);
    browser.reads(".note", "Sent.");
    assert!(arrived(&node, "user2").contains("Typed."));
    browser.becomes("return document.activeElement.tagName", &json!("H2"));
    browser.press("u");
    browser.becomes(AT_ROW, &json!("letter 2"));
    browser.press("e");
    browser.reads(".note", "Moved to Archive");
    assert_eq!(node.messages("user1", "Archive").len(), 1);
    browser.press("z");
    browser.becomes("return document.querySelectorAll('.row').length", &json!(3));
    // Letters do nothing once they are switched off; Tab leads everywhere all the same.
    browser.run("localStorage.setItem('shortcuts', 'off')").unwrap();
    browser.press("c");
    assert_eq!(browser.run("return document.querySelector('.compose')"), Ok(json!(null)));
    let mut reached = String::new();
    browser.run("document.activeElement.blur()").unwrap();
    for _ in 0..60 {
        browser.press(&TAB.to_string());
        let name =
            "const e = document.activeElement; return e.getAttribute('aria-label') || e.textContent.trim() || e.title";
        let _ = write!(reached, "{}|", browser.run(name).unwrap().as_str().unwrap_or_default());
    }
    for name in ["Log", "Compose", "Inbox", "New folder", "Search mail", "Unread", "letter"] {
        assert!(reached.contains(name), "{name} is not reached: {reached}");
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn folders_are_made_named_filled_and_deleted() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let node = Node::start();
    node.send(
        "anna@sender.example",
        &["user1@example.test"],
        &letter("to be sorted", "Words that are long enough to be a letter."),
    );
    let browser = Browser::start();
    sign_in(&browser, &node, "user1");
    browser.find(&row("to be sorted"));
    browser.click(&button("New folder"));
    browser.write("dialog input", "Bills");
    browser.click(&button("Create"));
    browser.find(&folder("Bills"));
    browser.reads(".list .empty", "This folder is empty");
    browser.click(&labelled("Rename folder"));
    browser.write("dialog input", " 2026");
    browser.click(&button("Rename"));
    browser.find("//nav[@class='folders']//span[contains(text(), '2026')]");
    browser.click(&folder("Inbox"));
    browser.click(&row("to be sorted"));
    browser.find("//*[contains(@class, 'read')]//*[contains(@class, 'moveto')]//select");
    browser.run("const menu = document.querySelector('.read .moveto select'); menu.value = [...menu.options].find((one) => one.text.includes('2026')).value; menu.dispatchEvent(new Event('change'))").unwrap();
    browser.reads(".note", "Moved to");
    browser.click("//nav[@class='folders']//a[span[contains(text(), '2026')]]");
    browser.find(&row("to be sorted"));
    browser.click(&labelled("Delete folder"));
    browser.reads("dialog", "and the message in it will be deleted");
    browser.click("//dialog//button[@class='danger']");
    browser.becomes(
        "return [...document.querySelectorAll('.folders .name')].some((one) => one.textContent.includes('2026'))",
        &json!(false),
    );
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn quarantine_says_why_and_lets_go() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let node = Node::start_with_policy("tag-score = 0.5\nquarantine-score = 1\nreject-score = 999\n");
    let mail = b"From: Prize Office <x99123@free.example>\r\nTo: user1@example.test\r\nSubject: Held back\r\nMessage-ID: <q@x.example>\r\n\
        Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nX-Priority: 1\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\
        <font color=red size=6>BUY NOW</font> viagra <a href=\"http://1.2.3.4/\">http://bank.example</a>\r\n";
    assert!(node.send("x@free.example", &["user1@example.test"], mail).starts_with("250"));
    let browser = Browser::start();
    sign_in(&browser, &node, "user1");
    browser.click(&folder("Quarantine"));
    browser.click("li.hold .what");
    browser.reads(".caught", "Looks like junk");
    browser.reads(".holding", "Words, links or form are typical of junk");
    browser.click(".story button.link");
    browser.reads(".story", "Held back for user1@example.test in quarantine");
    browser.click("//a[.='Show in quarantine']");
    browser.click(&button("Deliver"));
    browser.reads(".note", "Delivered to your inbox");
    assert_eq!((node.messages("user1", "INBOX").len(), node.held_ids("user1").len()), (1, 0));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn ten_thousand_messages_are_a_short_list_to_the_browser() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let node = Node::start();
    let mut mbox = String::new();
    for number in 0..10_000 {
        let _ = write!(
            mbox,
            "From a@x.example Mon Nov 23 10:00:00 2026\nFrom: a@x.example\nTo: user1@example.test\nSubject: number {number}\n\
             Date: Mon, 23 Nov 2026 {:02}:{:02}:{:02} +0000\n\nText.\n\n",
            number / 3600,
            number / 60 % 60,
            number % 60
        );
    }
    let file = node.dir().join("many.mbox");
    std::fs::write(&file, mbox).unwrap();
    let dir = node.dir().to_str().unwrap().to_owned();
    ortler(&["mailbox", "import", "user1@example.test", "--from", file.to_str().unwrap(), "--dir", &dir]);
    let browser = Browser::start();
    sign_in(&browser, &node, "user1");
    // An import of one mbox may be a folder of its own.
    browser.run("const wait = setInterval(() => { const full = [...document.querySelectorAll('.folders a')].find((one) => one.textContent.includes('10,000')); if (full) { full.click(); clearInterval(wait); } }, 100)").unwrap();
    browser.reads(".views small", "10,000");
    browser.find(&row("number 9999"));
    browser.run("document.querySelector('.list .rows').scrollTop = 1e9").unwrap();
    browser.find(&row("number 0"));
    browser.run("document.querySelector('.list .rows').scrollTop = 5000 * 62").unwrap();
    browser.find(&row("number 4995"));
    let rows = browser.run("return document.querySelectorAll('.row').length").unwrap();
    assert!(rows.as_u64().is_some_and(|rows| rows < 60), "{rows}");
    browser.write("input[type=search]", &format!("subject:4711{ENTER}"));
    browser.becomes("return document.querySelector('.views small').textContent", &json!("1"));
    browser.find(&row("number 4711"));
    assert_eq!(browser.console(), Vec::<String>::new());
}
