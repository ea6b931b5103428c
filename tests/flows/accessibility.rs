//! Every face in every language, light and dark, on a desk and in a hand: rules of WCAG 2.2 AA that a machine can check.

use serde_json::{Value, json};

use super::browser::sign_in;
use crate::harness::{Browser, Node, letter, skip, wants_all};

/// `tests/run` fetches it; it is no part of the repository.
fn axe() -> Option<String> {
    std::fs::read_to_string(std::env::var_os("ORTLER_AXE")?).ok()
}

const RULES: &str = "return axe.run(document, { iframes: false, resultTypes: ['violations'], runOnly: \
    ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((found) => found.violations.flatMap((one) => \
    one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 160)} | ${node.any.map((check) => check.message).join('; ').slice(0, 200)}`)))";

/// Pages of the filter and of administration, each with what shows that it is there.
const FURTHER: [(&str, &str); 15] = [
    ("/filter/quarantine", ".pages h2, main h2"),
    ("/filter/strictness", "form, .options, section.card"),
    ("/filter/senders", "form"),
    ("/filter/history", "section.card"),
    ("/filter/forwards", "form"),
    ("/filter/security", "form"),
    ("/filter/record", "section.card"),
    ("/admin/domains/example.test", "[name=hosts]"),
    ("/admin/aliases", "form"),
    ("/admin/tenants", "form"),
    ("/admin/roles", "form"),
    ("/admin/quarantine", "section.card"),
    ("/admin/policy?system=true", "section.card"),
    ("/admin/senders?system=true", "form"),
    ("/admin/node", "section.card"),
];

#[test]
fn pages_break_no_rule_of_accessibility() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let Some(axe) = axe() else {
        return skip("ORTLER_AXE names no axe.min.js; tests/run fetches it where npm is installed");
    };
    let node = Node::start_with_policy("tag-score = 0.5\nquarantine-score = 900\nreject-score = 999\n");
    let with_file = String::from_utf8(letter("with a file", "Words.")).unwrap().replacen(
        "Content-Type: text/plain; charset=utf-8\r\n\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nText.\r\n--b\r\nContent-Type: application/pdf\r\n\
         Content-Disposition: attachment; filename=\"a.pdf\"\r\n\r\nx\r\n--b--\r\n",
        1,
    );
    for mail in [letter("first letter", "It is long enough to be one."), with_file.into_bytes()] {
        assert!(node.send("anna@sender.example", &["admin@example.test"], &mail).starts_with("250"));
    }
    let browser = Browser::start();
    sign_in(&browser, &node, "admin");
    let base = format!("http://127.0.0.1:{}", node.port(80));
    let mut wrong = Vec::new();
    for (language, theme, width, height) in [
        ("de", "light", 1280, 860),
        ("de", "dark", 390, 800),
        ("it", "dark", 1280, 860),
        ("it", "light", 390, 800),
        ("en", "light", 390, 800),
        ("en", "dark", 1280, 860),
        ("de", "dark", 1280, 860),
        ("de", "light", 390, 800),
        ("it", "light", 1280, 860),
        ("it", "dark", 390, 800),
        ("en", "light", 1280, 860),
        ("en", "dark", 390, 800),
    ] {
        browser.resize(width, height);
        browser
            .run(&format!("localStorage.setItem('language', '{language}'); localStorage.setItem('theme', '{theme}')"))
            .unwrap();
        let is_narrow = width < 800;
        let name = |page: &str| format!("{page}-{language}-{theme}-{}", if is_narrow { "phone" } else { "desk" });
        let mut look = |page: &str| {
            browser.run(&format!("{axe};")).unwrap();
            browser.picture(&name(page));
            for found in browser.run(RULES).unwrap().as_array().unwrap() {
                wrong.push(format!("{} {}", name(page), found.as_str().unwrap_or_default()));
            }
            let overflow = "return document.documentElement.scrollWidth > innerWidth + 1";
            if browser.run(overflow) != Ok(json!(false)) {
                wrong.push(format!("{} is wider than the screen", name(page)));
            }
        };
        browser.open(&format!("{base}/mail"));
        browser.find(".row .what");
        look("list");
        browser.run("document.querySelector('.row .what').click()").unwrap();
        browser.becomes("const f = document.querySelector('.read iframe'); return Boolean(f && f.clientHeight > 20 && document.querySelector('.read .proof, .read .files'))", &json!(true));
        look("message");
        browser.run("document.querySelector('.read .foot button').click()").unwrap();
        browser.find(".compose .chip");
        look("composer");
        browser.open(&format!("{base}/log"));
        browser.find(".rowsof tbody tr");
        look("log");
        browser.run("document.querySelector('.rowsof .t-subject a').click()").unwrap();
        browser.find(".story .steps li");
        look("story");
        browser.open(&format!("{base}/admin"));
        browser.find(".admin table");
        look("admin");
        // Each language, theme and width once.
        if !matches!((language, theme, width), ("de", "dark", 390) | ("it", "light", 1280) | ("en", "dark", 1280)) {
            continue;
        }
        for (page, there) in FURTHER {
            browser.open(&format!("{base}{page}"));
            browser.find(there);
            look(&page.replace(['/', '?', '='], "-"));
        }
    }
    let console: Vec<Value> = browser.console().into_iter().map(Value::from).collect();
    assert!(console.is_empty(), "{console:?}");
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}
