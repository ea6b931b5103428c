//! Webmail and the log as a person uses them, in a real browser.

use std::time::Duration;

use crate::harness::{Browser, Conversation, Node, PASSWORD, Trap, letter, skip, wants_all};

/// Everything that mail has been seen to try, each with the listener's address.
pub(super) fn hostile(trap: u16) -> Vec<u8> {
    // Not the name that our own pages have here: pictures of our own host are not even named.
    let bait = format!("http://localhost:{trap}");
    let attack = "top.owned=1;top.document.title=1";
    format!(
        "From: evil@x.example\r\nTo: user1@example.test\r\nSubject: Hostile\r\nMessage-ID: <h@x.example>\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\
         <html><head><meta http-equiv=refresh content='0;url={bait}/refresh'><base href='{bait}/'>\r\n\
         <link rel=stylesheet href='{bait}/css'><link rel=preconnect href='{bait}'><link rel=prefetch href='{bait}/p'>\r\n\
         <style>@import '{bait}/import'; @font-face {{ font-family: f; src: url({bait}/font) }}\r\n\
         p {{ font-family: f; background: url({bait}/background) }}</style><script>{attack}</script>\r\n\
         <script src='{bait}/script'></script></head><body onload='{attack}' background='{bait}/body'>\r\n\
         <p style=\"background-image:url('{bait}/style')\">Visible words of a letter that looks like any other.</p>\r\n\
         <img src='{bait}/pixel' srcset='{bait}/set 2x' onerror='{attack}'><img src=x onerror='{attack}'>\r\n\
         <picture><source srcset='{bait}/source'><img></picture><video src='{bait}/video' poster='{bait}/poster' autoplay></video>\r\n\
         <audio src='{bait}/audio' autoplay></audio><input type=image src='{bait}/input' autofocus onfocus='{attack}'>\r\n\
         <svg onload='{attack}'><script>{attack}</script><image href='{bait}/svg' /><use href='{bait}/use#a' />\r\n\
         <animate attributeName=href values='javascript:{attack}' /></svg><math><mtext><style><img src=x onerror='{attack}'></style></mtext></math>\r\n\
         <iframe src='{bait}/frame'></iframe><iframe srcdoc='&lt;script>{attack}&lt;/script>'></iframe><object data='{bait}/object'></object>\r\n\
         <embed src='{bait}/embed'><form id=f action='{bait}/form'><input name=a><button>Go</button></form>\r\n\
         <details open ontoggle='{attack}'>d</details><marquee onstart='{attack}'>m</marquee>\r\n\
         <a id=bad href='javascript:{attack}'>click</a><a href=' java&#10;script:{attack}'>here</a><a ping='{bait}/ping' href='#'>ping</a>\r\n\
         <noscript><p title='</noscript><img src=x onerror={attack}>'></noscript></body></html>\r\n"
    )
    .into_bytes()
}

pub(super) fn sign_in(browser: &Browser, node: &Node, user: &str) {
    browser.open(&format!("http://127.0.0.1:{}/", node.port(80)));
    browser.write("#name", &format!("{user}@example.test"));
    browser.write("#password", PASSWORD);
    browser.click("button[type=submit]");
    browser.find(".mail .rows");
    // What is sent leaves at once, but where a test says otherwise.
    browser.run("localStorage.setItem('undosend', '0')").unwrap();
}

/// user1 of a node that has no mail yet, before the webmail; `None` where browsers are not to run.
pub(super) fn signed_in() -> Option<(Node, Browser)> {
    if !wants_all() {
        skip("a browser runs with ORTLER_TESTS=all");
        return None;
    }
    let (node, browser) = (Node::start(), Browser::start());
    sign_in(&browser, &node, "user1");
    Some((node, browser))
}

pub(super) fn row(subject: &str) -> String {
    format!("//li[contains(@class, 'row')][.//b[text()='{subject}']]")
}

pub(super) fn button(text: &str) -> String {
    format!("//button[normalize-space(.)='{text}']")
}

#[test]
fn hostile_mail_runs_nothing_and_asks_nobody() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let (node, trap) = (Node::start(), Trap::set());
    assert!(node.send("evil@x.example", &["user1@example.test"], &hostile(trap.port)).starts_with("250"));
    let browser = Browser::start();
    sign_in(&browser, &node, "user1");
    // Wherever the filter put it: that folder has something unread.
    browser.click("//nav[@class='folders']//a[b]");
    browser.click(&row("Hostile"));
    browser.enter(Some(".read iframe"));
    browser.reads("body", "Visible words");
    // Wherever one can click, nothing happens either.
    assert_eq!(
        browser.run(
            "document.querySelectorAll('a, button, input').forEach((one) => one.click()); return location.pathname.endsWith('/body')"
        ),
        Ok(true.into())
    );
    browser.enter(None);
    // Time for what is slow: refresh, fonts, animations.
    std::thread::sleep(Duration::from_secs(2));
    browser.picture("hostile");
    assert_eq!(
        browser.run("return [window.owned === undefined, document.title]"),
        Ok(serde_json::json!([true, "Ortler"]))
    );
    assert_eq!(browser.console(), Vec::<String>::new());
    assert_eq!(trap.count(), 0, "a remote address was asked");
    // The trap does count.
    drop(Conversation::open(trap.port));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(trap.count(), 1);
}

#[test]
fn the_log_says_where_a_message_is_and_stands_still_for_readers() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let node = Node::start();
    let send =
        |subject: &str| node.send("anna@sender.example", &["user1@example.test"], &letter(subject, "Words enough."));
    send("first");
    let browser = Browser::start();
    sign_in(&browser, &node, "user1");
    browser.click("header nav a[href='/log']");
    browser.find("//td[.='first']");
    browser.becomes("return document.querySelector('.facets b').textContent", &"1".into());

    browser.click("//button[@aria-label='Stand still']");
    send("second");
    browser.reads(".pill", "1 new");
    assert_eq!(browser.run("return document.querySelectorAll('.rowsof tbody tr').length"), Ok(1.into()), "rows move");
    browser.click(".pill");
    browser.find("//td[.='second']");

    // A filter holds for what comes, too.
    browser.write(".question input", "subject:third\u{e007}");
    browser.reads(".rowsof .empty", "Nothing matches");
    send("fourth");
    send("third one");
    browser.find("//td[.='third one']");
    assert_eq!(
        browser.run("return document.querySelectorAll('.rowsof tbody tr').length"),
        Ok(1.into()),
        "the filter leaks"
    );

    // An answer that comes late is not the one to a newer question, and what happens meanwhile is not missed.
    browser.run("window.asked = window.fetch; window.waiting = []; window.fetch = async (path, how) => { const answer = await window.asked(path, how); \
        if (path.includes('log/messages?')) await new Promise((go) => window.waiting.push(go)); return answer; }").unwrap();
    browser.click("header nav a[href='/log']");
    browser.becomes("return window.waiting.length", &1.into());
    browser.write(".question input", "subject:second\u{e007}");
    browser.becomes("return window.waiting.length", &2.into());
    send("second, later");
    std::thread::sleep(Duration::from_millis(500));
    browser.run("window.fetch = window.asked; window.waiting[1]()").unwrap();
    browser.find("//td[.='second, later']");
    browser.run("window.waiting[0]()").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(browser.run("return document.querySelectorAll('.rowsof tbody tr').length"), Ok(2.into()), "stale");

    for (sender, answer) in
        [("nobody.example", "Nothing from nobody.example has reached us since"), ("sender.example", "first")]
    {
        browser.click(&button("Where is my mail?"));
        browser.write("dialog input", sender);
        browser.click(&button("Look"));
        browser.reads(".rowsof", answer);
    }
    browser.click("//tr[.//a[.='first']]//a");
    browser.reads(".story", "Delivered to user1@example.test, folder Inbox");
    browser.click("//aside//button[normalize-space(.)='Open message']");
    browser.reads(".read h2", "first");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_person_writes_and_hears_of_new_mail_and_follows_the_log() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let node = Node::start();
    node.send("anna@sender.example", &["user1@example.test"], &letter("first letter", "It was here before."));
    let browser = Browser::start();
    sign_in(&browser, &node, "user1");
    browser.find(&row("first letter"));
    // A page that is loaded again forgets this.
    browser.run("window.stays = true").unwrap();

    node.send("anna@sender.example", &["user1@example.test"], &letter("by push", "It came while you looked."));
    browser.find(&row("by push"));
    browser.picture("list");
    browser.click(&row("by push"));
    browser.enter(Some(".read iframe"));
    browser.reads("body", "while you looked");
    browser.enter(None);
    browser.picture("message");

    browser.click(&button("Compose"));
    browser.write(".compose [name=to]", "User Two <user2@example.test>");
    browser.write(".compose [name=subject]", "Größe und Maß");
    browser.write(".compose [name=text]", "Written in a browser: äöü.");
    browser.picture("compose");
    browser.click(&button("Send"));
    browser.reads(".note", "Sent.");
    let arrived = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        node.messages("user2", "INBOX").pop()
    });
    let arrived = String::from_utf8(arrived.expect("the message arrives")).unwrap();
    assert!(arrived.contains("User Two") && arrived.contains("<user2@example.test>"), "{arrived}");
    assert_eq!(node.messages("user1", "Sent").len(), 1);
    assert_eq!(node.messages("user1", "Drafts").len(), 0);

    browser.click("header nav a[href='/log']");
    browser.find("//td[.='by push']");
    node.send("anna@sender.example", &["user1@example.test"], &letter("seen live", "In the log at once."));
    browser.find("//td[.='seen live']");
    browser.picture("log");
    browser.click("//td[.='seen live']");
    browser.reads(".story", "Delivered to user1@example.test");
    browser.picture("story");
    assert_eq!(browser.run("return window.stays"), Ok(true.into()), "the page was loaded again");
    assert_eq!(browser.console(), Vec::<String>::new());
}
