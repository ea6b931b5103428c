//! What opens an account, and the end of what it opened.

use std::time::Duration;

use access::{Grant, Reach, Role};
use base::{AccountId, Clock as _, FakeClock, Secret};
use engine::postgres::Server;
use engine::table::{Columns as _, Statement};

use crate::tests::{
    START, address, change, contract_in_time, fill, id_of, leads_to, on_server_at, password, sign_in, told,
};
use crate::{
    Access, Account, AccountChange, ApiToken, AppPassword, Directory as _, Hold, Login, LoginError, Protocol, Registry,
    TOKEN_PREFIX,
};
use Protocol::{Imap, ManageSieve, Pop3, Submission, Web};

contract_in_time!(
    app_passwords_open_their_protocols_alone,
    an_app_password_opens_no_browser,
    app_passwords_have_names_and_an_end,
    tokens_stand_for_their_account,
    a_second_factor_goes_with_the_password,
    a_second_factor_is_made_with_its_program,
    codes_and_recovery_codes_open_once,
    what_was_opened_ends_when_it_should,
    what_an_app_password_opened_ends_with_its_time,
    hashes_of_other_systems_are_replaced_at_sign_in,
    a_replaced_hash_lifts_no_lock,
);

const DAY: Duration = Duration::from_secs(86_400);
const ANNA: &str = "anna@example.test";

async fn enter(
    directory: &Registry,
    name: &str,
    password: &str,
    protocol: Protocol,
    code: Option<&str>,
) -> Result<Account, LoginError> {
    let (password, peer) = (Secret::new(password.to_owned()), "127.0.0.1".parse().unwrap());
    directory.authenticate(Login { name, password: &password, protocol, peer, code }).await
}

/// What comes of anna's attempt.
async fn tried(directory: &Registry, password: &str, protocol: Protocol, code: Option<&str>) -> &'static str {
    match enter(directory, ANNA, password, protocol, code).await {
        Ok(_) => "opens",
        Err(LoginError::Refused { .. }) => "refused",
        Err(LoginError::SecondFactor) => "code",
        Err(error) => panic!("{error}"),
    }
}

async fn app_passwords_open_their_protocols_alone(directory: &Registry, clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    directory.set_account(&address(ANNA), change(|change| change.access = Some(Access::Admin))).await.unwrap();
    let (made, text) = directory.add_app_password(anna, " Phone ", &[Imap, Submission], None).await.unwrap();
    let text = text.reveal().as_str();
    assert_eq!((made.name.as_str(), made.created_at, made.used_at), ("Phone", clock.utc(), None));
    assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [4; 5], "{text}");
    for (typed, protocol, expected) in [
        (text, Imap, "opens"),
        (text, Submission, "opens"),
        (text, Pop3, "refused"),
        (text, ManageSieve, "refused"),
        (text, Web, "refused"),
        (&text.replace('-', ""), Imap, "opens"),
        (&text.replace('-', " ").to_uppercase(), Imap, "opens"),
        (&text[1..], Imap, "refused"),
        (&format!("{text}a"), Imap, "refused"),
        ("pw-Anna", Imap, "opens"),
        ("pw-Anna", Web, "opens"),
    ] {
        assert_eq!(tried(directory, typed, protocol, None).await, expected, "{typed} {protocol:?}");
    }
    assert!(sign_in(directory, "bert@example.test", text).await.is_err(), "it is anna's");
    // It opens mail, and nothing that her roles would.
    let opened = enter(directory, ANNA, text, Imap, None).await.unwrap();
    assert_eq!((opened.id, opened.access, opened.grants), (anna, Access::User, Vec::new()));
    directory.set_account(&address(ANNA), change(|change| change.enabled = Some(false))).await.unwrap();
    assert_eq!(tried(directory, text, Imap, None).await, "refused");
}

async fn an_app_password_opens_no_browser(directory: &Registry, _clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    for protocols in [&[][..], &[Web], &[Imap, Web]] {
        let refused = directory.add_app_password(anna, "Phone", protocols, None).await;
        assert_eq!(told(&refused), "refused", "{protocols:?}");
    }
}

async fn app_passwords_have_names_and_an_end(directory: &Registry, clock: &FakeClock) {
    let (anna, bert) = (id_of(directory, "anna").await, id_of(directory, "bert").await);
    for (name, expected) in [("", "refused"), (" ", "refused"), ("a\tb", "refused"), (&"ä".repeat(101), "refused")] {
        assert_eq!(told(&directory.add_app_password(anna, name, &[Imap], None).await), expected, "{name}");
        assert_eq!(told(&directory.add_api_token(anna, name, &[], None).await), expected, "{name}");
    }
    let until = clock.utc().plus(DAY);
    let (made, text) = directory.add_app_password(anna, &"ä".repeat(100), &[Pop3, Imap], Some(until)).await.unwrap();
    let listed = async || directory.app_passwords(anna).await.unwrap();
    assert_eq!(listed().await, std::slice::from_ref(&made));
    // Its use is noted, once an hour.
    for (minutes, noted) in [(0, 0), (60, 0), (1, 61)] {
        clock.advance(Duration::from_secs(60 * minutes));
        assert_eq!(tried(directory, text.reveal(), Imap, None).await, "opens");
        let used_at = Some(START.plus(Duration::from_secs(60 * noted)));
        assert_eq!(listed().await, [AppPassword { used_at, ..made.clone() }], "{minutes}");
    }
    clock.advance(DAY - Duration::from_secs(61 * 60) - Duration::from_millis(1));
    assert_eq!(tried(directory, text.reveal(), Imap, None).await, "opens");
    clock.advance(Duration::from_millis(1));
    assert_eq!(tried(directory, text.reveal(), Imap, None).await, "refused");
    // So many, and no more.
    for nth in 1..50 {
        directory.add_app_password(anna, &format!("{nth}"), &[Imap], None).await.unwrap();
    }
    assert_eq!(told(&directory.add_app_password(anna, "one more", &[Imap], None).await), "refused");
    let (of_bert, text) = directory.add_app_password(bert, "Phone", &[Imap], None).await.unwrap();
    for (account, id, expected) in
        [(anna, of_bert.id, "missing"), (anna, made.id, "done"), (anna, made.id, "missing"), (anna, 999, "missing")]
    {
        assert_eq!(told(&directory.delete_app_password(account, id).await), expected, "{account:?} {id}");
    }
    let (_, last) = directory.add_app_password(anna, "one more", &[Imap], None).await.unwrap();
    assert_eq!(tried(directory, last.reveal(), Imap, None).await, "opens");
    assert!(sign_in(directory, "bert@example.test", text.reveal()).await.is_ok());
    directory.delete_app_password(bert, of_bert.id).await.unwrap();
    assert!(sign_in(directory, "bert@example.test", text.reveal()).await.is_err());
}

async fn tokens_stand_for_their_account(directory: &Registry, clock: &FakeClock) {
    let (anna, bert) = (id_of(directory, "anna").await, id_of(directory, "bert").await);
    let scopes = ["domains:read", "queue:write"].map(str::to_owned);
    let until = Some(clock.utc().plus(DAY));
    let (made, text) = directory.add_api_token(anna, " Billing ", &scopes, until).await.unwrap();
    let text = text.reveal().as_str();
    let expected = ApiToken {
        id: made.id,
        account: anna,
        name: "Billing".to_owned(),
        scopes: scopes.to_vec(),
        created_at: START,
        expires_at: until,
        used_at: None,
    };
    assert_eq!((&made, text.strip_prefix(TOKEN_PREFIX).map(str::len)), (&expected, Some(40)));
    assert_eq!(directory.api_tokens(anna).await.unwrap(), [expected]);
    let found = async |text: &str| directory.api_token(text).await.unwrap().map(|token| token.id);
    let (longer, loud) = (format!("{text}a"), text.to_uppercase());
    for (given, expected) in [
        (text, Some(made.id)),
        (&text[TOKEN_PREFIX.len()..], None),
        (&text[..text.len() - 1], None),
        (&longer, None),
        (&loud, None),
        (TOKEN_PREFIX, None),
        ("", None),
    ] {
        assert_eq!(found(given).await, expected, "{given}");
    }
    assert_eq!(tried(directory, text, Imap, None).await, "refused", "it is no password");
    for (minutes, noted) in [(0, 0), (60, 0), (1, 61)] {
        clock.advance(Duration::from_secs(60 * minutes));
        assert!(found(text).await.is_some());
        let used_at = Some(START.plus(Duration::from_secs(60 * noted)));
        assert_eq!(directory.api_tokens(anna).await.unwrap()[0].used_at, used_at, "{minutes}");
    }
    clock.advance(DAY - Duration::from_secs(61 * 60) - Duration::from_millis(1));
    assert!(found(text).await.is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(found(text).await, None, "its time is over");
    let (other, text) = directory.add_api_token(anna, "other", &[], None).await.unwrap();
    let ids = async || directory.api_tokens(anna).await.unwrap().iter().map(|token| token.id).collect::<Vec<_>>();
    assert_eq!((found(text.reveal()).await, ids().await), (Some(other.id), vec![made.id, other.id]));
    for (account, id, expected) in
        [(bert, made.id, "missing"), (anna, made.id, "done"), (anna, made.id, "missing"), (anna, other.id, "done")]
    {
        assert_eq!(told(&directory.delete_api_token(account, id).await), expected, "{account:?} {id}");
    }
    assert_eq!((found(text.reveal()).await, ids().await), (None, vec![]));
    let (_, text) = directory.add_api_token(bert, "gone", &[], None).await.unwrap();
    directory.delete_account(&address("bert@example.test")).await.unwrap();
    assert_eq!(found(text.reveal()).await, None);
}

/// RFC 6238, appendix B: the secret, and the last six digits at [`START`], which is at the end of its step, and in the next.
const SECRET: &[u8] = b"12345678901234567890";
const NOW: &str = "081804";
const NEXT: &str = "050471";
/// At this time, in seconds.
const LATER: (u64, &str) = (1_234_567_890, "005924");

/// Begins anna's second factor, with the secret of the RFC.
async fn begin(directory: &Registry, account: AccountId) {
    directory.begin_second_factor(account).await.unwrap();
    let text = "UPDATE second_factor SET secret = $2 WHERE account = $1";
    let step = Statement::new(text, vec![account.0.into(), SECRET.to_vec().into()]).must();
    directory.place().change(vec![step]).await.unwrap().unwrap();
}

async fn a_second_factor_goes_with_the_password(directory: &Registry, _clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    let (_, app) = directory.add_app_password(anna, "Phone", &[Imap], None).await.unwrap();
    begin(directory, anna).await;
    for protocol in Protocol::ALL {
        assert_eq!(tried(directory, "pw-Anna", protocol, None).await, "opens", "it does not count yet: {protocol:?}");
    }
    directory.confirm_second_factor(anna, NOW).await.unwrap();
    for (password, protocol, code, expected) in [
        ("pw-Anna", Web, None, "code"),
        ("wrong", Web, None, "refused"),
        ("wrong", Web, Some(NEXT), "refused"),
        ("pw-Anna", Web, Some("000000"), "refused"),
        ("pw-Anna", Web, Some(""), "refused"),
        ("pw-Anna", Imap, None, "refused"),
        ("pw-Anna", Imap, Some(NEXT), "refused"),
        ("pw-Anna", Pop3, Some(NEXT), "refused"),
        ("pw-Anna", Submission, Some(NEXT), "refused"),
        ("pw-Anna", ManageSieve, Some(NEXT), "refused"),
        (app.reveal(), Imap, None, "opens"),
        (app.reveal(), Pop3, None, "refused"),
        (app.reveal(), Web, Some(NEXT), "refused"),
        // What was refused for other reasons used no code up.
        ("pw-Anna", Web, Some(NEXT), "opens"),
    ] {
        assert_eq!(tried(directory, password, protocol, code).await, expected, "{password} {protocol:?} {code:?}");
    }
    assert!(enter(directory, "bert@example.test", "pw-bert", Web, None).await.is_ok(), "he has none");
    directory.delete_second_factor(anna).await.unwrap();
    assert_eq!(tried(directory, "pw-Anna", Imap, None).await, "opens");
    assert_eq!(tried(directory, "pw-Anna", Web, None).await, "opens");
}

/// RFC 4648 §6, without padding.
fn base32(text: &str) -> Vec<u8> {
    let five = |c: u8| if c.is_ascii_uppercase() { c - b'A' } else { c - b'2' + 26 };
    let bits: Vec<u8> = text.bytes().flat_map(|c| (0..5).rev().map(move |bit| five(c) >> bit & 1)).collect();
    bits.chunks_exact(8).map(|octet| octet.iter().fold(0, |sum, bit| sum << 1 | bit)).collect()
}

async fn a_second_factor_is_made_with_its_program(directory: &Registry, clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    assert_eq!(told(&directory.confirm_second_factor(anna, NOW).await), "missing");
    assert_eq!(told(&directory.delete_second_factor(anna).await), "missing");
    assert_eq!(base32("MZXW6YTBOI"), b"foobar");
    // Whoever begins again gets another one.
    let (first, second) =
        (directory.begin_second_factor(anna).await.unwrap(), directory.begin_second_factor(anna).await.unwrap());
    let kept = directory.ask_both("SELECT secret FROM second_factor", Vec::new()).await.unwrap();
    assert_eq!((kept.len(), kept[0].bytes(0).unwrap()), (1, &base32(second.reveal())[..]));
    assert_ne!(first.reveal(), second.reveal());
    begin(directory, anna).await;
    for code in ["", "081805", "81804", "0818040", "07081804", "o81804", "-81804"] {
        assert_eq!(told(&directory.confirm_second_factor(anna, code).await), "refused", "{code}");
    }
    // Clocks differ by half a minute or so.
    clock.advance(Duration::from_secs(61));
    for code in [NOW, NEXT] {
        assert_eq!(told(&directory.confirm_second_factor(anna, code).await), "refused", "{code}");
    }
    clock.advance(Duration::from_secs(LATER.0) - Duration::from_millis(1_111_111_109_000 + 61_000));
    let codes = directory.confirm_second_factor(anna, "005 924").await.unwrap();
    let different: std::collections::HashSet<&String> = codes.iter().collect();
    assert_eq!((codes.len(), different.len()), (10, 10));
    assert!(directory.account(anna).await.unwrap().unwrap().has_second_factor);
    assert_eq!(told(&directory.begin_second_factor(anna).await), "exists");
    assert_eq!(told(&directory.confirm_second_factor(anna, LATER.1).await), "missing");
    directory.delete_second_factor(anna).await.unwrap();
    assert!(!directory.account(anna).await.unwrap().unwrap().has_second_factor);
    assert_eq!(told(&directory.begin_second_factor(anna).await), "done");
}

async fn codes_and_recovery_codes_open_once(directory: &Registry, clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    begin(directory, anna).await;
    let codes = directory.confirm_second_factor(anna, NOW).await.unwrap();
    let loud = codes[1].replace('-', "").to_uppercase();
    for (code, expected) in [
        (NOW, "refused"),
        (" 050 471 ", "opens"),
        (NEXT, "refused"),
        (NOW, "refused"),
        (&codes[0], "opens"),
        (&codes[0], "refused"),
        (&loud, "opens"),
        (&codes[1], "refused"),
        (&codes[2][1..], "refused"),
        (&format!("{} {}", codes[2], codes[3]), "refused"),
        (&codes[9], "opens"),
    ] {
        assert_eq!(tried(directory, "pw-Anna", Web, Some(code)).await, expected, "{code}");
    }
    clock.advance(Duration::from_secs(LATER.0) - Duration::from_millis(1_111_111_109_000));
    for (code, expected) in [(NEXT, "refused"), (LATER.1, "opens"), (LATER.1, "refused"), (&codes[8], "opens")] {
        assert_eq!(tried(directory, "pw-Anna", Web, Some(code)).await, expected, "{code}");
    }
    // Those of a factor that is gone open nothing for the next one.
    directory.delete_second_factor(anna).await.unwrap();
    begin(directory, anna).await;
    directory.confirm_second_factor(anna, LATER.1).await.unwrap();
    for code in &codes {
        assert_eq!(tried(directory, "pw-Anna", Web, Some(code)).await, "refused", "{code}");
    }
}

const AUDITOR: Grant = Grant { role: Role::Auditor, reach: Reach::System };

/// What anna's password opened.
async fn by_password(directory: &Registry, anna: AccountId) -> Hold {
    directory.hold(anna, None).await
}

async fn by_app(directory: &Registry, anna: AccountId, text: &str) -> Hold {
    let rights = enter(directory, ANNA, text, Imap, None).await.unwrap().rights;
    directory.hold(anna, Some(rights)).await
}

async fn what_was_opened_ends_when_it_should(directory: &Registry, _clock: &FakeClock) {
    let (anna, bert) = (id_of(directory, "anna").await, id_of(directory, "bert").await);
    let (_, tablet) = directory.add_app_password(anna, "Tablet", &[Imap], None).await.unwrap();
    let set = async |change: AccountChange| directory.set_account(&address(ANNA), change).await.unwrap();
    for (event, ends) in [
        ("a name", ""),
        ("somebody else's role", ""),
        ("another app password", ""),
        ("a token", ""),
        ("forwards", ""),
        ("a role", "password"),
        ("a role taken", "password"),
        ("a second factor begun", ""),
        ("a second factor", "password"),
        ("a second factor taken", "password"),
        ("a password", "password"),
        ("the app password taken", "phone"),
        ("access", "password phone tablet"),
        ("disabled", "password phone tablet"),
        ("deleted", "password phone tablet"),
    ] {
        let (made, phone) = directory.add_app_password(anna, "Phone", &[Imap], None).await.unwrap();
        let holds = [
            ("password", by_password(directory, anna).await),
            ("phone", by_app(directory, anna, phone.reveal()).await),
            ("tablet", by_app(directory, anna, tablet.reveal()).await),
        ];
        assert!(holds.iter().all(|(_, hold)| !hold.has_ended()), "before {event}");
        match event {
            "a name" => set(change(|change| change.name = Some("A".to_owned()))).await,
            "somebody else's role" => directory.grant(bert, AUDITOR, "").await.unwrap(),
            "another app password" => {
                let (other, _) = directory.add_app_password(anna, "Other", &[Imap], None).await.unwrap();
                directory.delete_app_password(anna, other.id).await.unwrap();
            }
            "a token" => drop(directory.add_api_token(anna, "Billing", &[], None).await.unwrap()),
            "forwards" => drop(directory.set_forwards(anna, &[address("a@b.test")], true).await.unwrap()),
            "a role" => directory.grant(anna, AUDITOR, "").await.unwrap(),
            "a role taken" => directory.revoke(anna, AUDITOR).await.unwrap(),
            "a second factor begun" => begin(directory, anna).await,
            "a second factor" => drop(directory.confirm_second_factor(anna, NOW).await.unwrap()),
            "a second factor taken" => directory.delete_second_factor(anna).await.unwrap(),
            "a password" => set(password("new")).await,
            "the app password taken" => directory.delete_app_password(anna, made.id).await.unwrap(),
            "access" => set(change(|change| change.access = Some(Access::Admin))).await,
            "disabled" => {
                set(change(|change| change.enabled = Some(false))).await;
                assert!(holds.iter().all(|(_, hold)| hold.has_ended()));
                set(change(|change| change.enabled = Some(true))).await;
            }
            "deleted" => drop(directory.delete_account(&address(ANNA)).await.unwrap()),
            _ => panic!("{event}"),
        }
        let ended: Vec<&str> = holds.iter().filter(|(_, hold)| hold.has_ended()).map(|(name, _)| *name).collect();
        assert_eq!(ended.join(" "), ends, "{event}");
    }
}

async fn what_an_app_password_opened_ends_with_its_time(directory: &Registry, clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    let until = clock.utc().plus(DAY);
    let (_, phone) = directory.add_app_password(anna, "Phone", &[Imap], Some(until)).await.unwrap();
    let (_, tablet) = directory.add_app_password(anna, "Tablet", &[Imap], Some(until.plus(DAY))).await.unwrap();
    let (phone, tablet) =
        (by_app(directory, anna, phone.reveal()).await, by_app(directory, anna, tablet.reveal()).await);
    let whole = by_password(directory, anna).await;
    clock.advance(DAY - Duration::from_millis(1));
    directory.tidy().await.unwrap();
    assert!(!phone.has_ended(), "there is time left");
    clock.advance(Duration::from_millis(1));
    directory.tidy().await.unwrap();
    assert!(phone.has_ended() && !tablet.has_ended() && !whole.has_ended());
}

#[tokio::test]
async fn what_one_node_takes_away_ends_on_the_other() {
    let Some(server) = Server::start_unsynced() else { return };
    let clock = std::sync::Arc::new(FakeClock::at(START));
    let one = on_server_at(&server, "postgres", clock.clone()).await;
    let other = on_server_at(&server, "postgres", clock).await;
    fill(&one).await;
    let (anna, bert) = (id_of(&one, "anna").await, id_of(&one, "bert").await);
    let (made, text) = one.add_app_password(anna, "Phone", &[Imap], None).await.unwrap();
    one.grant(bert, AUDITOR, "").await.unwrap();
    other.refresh().await.unwrap();
    let (by_phone, of_bert) = (by_app(&other, anna, text.reveal()).await, other.hold(bert, None).await);
    let of_anna = by_password(&other, anna).await;
    assert_eq!(leads_to(&other, "anna@example.org").await, "foreign");
    one.delete_app_password(anna, made.id).await.unwrap();
    one.revoke(bert, AUDITOR).await.unwrap();
    one.add_domain_alias(&"example.org".parse().unwrap(), &"example.test".parse().unwrap()).await.unwrap();
    assert!(sign_in(&other, ANNA, text.reveal()).await.is_err(), "no cache knows app passwords");
    other.refresh().await.unwrap();
    assert!(by_phone.has_ended() && of_bert.has_ended() && !of_anna.has_ended());
    assert_eq!(leads_to(&other, "anna@example.org").await, "Anna");
    begin(&one, anna).await;
    one.confirm_second_factor(anna, NOW).await.unwrap();
    other.refresh().await.unwrap();
    assert!(of_anna.has_ended());
    assert_eq!(tried(&other, "pw-Anna", Imap, None).await, "refused");
    // A code that one node took is used up on all.
    assert_eq!(tried(&one, "pw-Anna", Web, Some(NEXT)).await, "opens");
    assert_eq!(tried(&other, "pw-Anna", Web, Some(NEXT)).await, "refused");
}

async fn stored(directory: &Registry) -> String {
    directory.tables.login(ANNA).await.unwrap().unwrap().1.to_stored()
}

const BCRYPT: &str = "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2";

async fn hashes_of_other_systems_are_replaced_at_sign_in(directory: &Registry, _clock: &FakeClock) {
    let ours = crate::PasswordHash::make(&Secret::new("correct horse".to_owned())).to_stored();
    for (hash, is_replaced) in [
        (BCRYPT, true),
        (
            "{SHA512-CRYPT}$6$saltstring$.r0X7ub5wGR2v4Xz7svCIozfnlorFh19V89t8KC9Umd81uGhFgsyTRNyzQDXDIm17fFcR9z3z7oBNdsyYBbtm/",
            true,
        ),
        ("$pbkdf2-sha256$1000$c2FsdHk$DzvaoPDWHNlO.0p5E04mScIUiNVjJ8YpgYitYTNqHo8", true),
        ("pbkdf2_sha256$1000$salty$DzvaoPDWHNlO+0p5E04mScIUiNVjJ8YpgYitYTNqHo8=", true),
        // sha1("correct horse" + "salt"), and the salt.
        ("{SSHA}LhKrkM9Fy+zlstjdD7Kv2s6QvhBzYWx0", true),
        (&ours, false),
        ("{PLAIN}correct horse", false),
    ] {
        let hash = hash.parse::<crate::PasswordHash>().unwrap_or_else(|_| panic!("{hash}"));
        let change = AccountChange { password: Some(hash), ..AccountChange::default() };
        directory.set_account(&address(ANNA), change).await.unwrap();
        let before = stored(directory).await;
        assert_eq!(tried(directory, "correct horsf", Imap, None).await, "refused", "{before}");
        assert_eq!(stored(directory).await, before, "whoever has not the password changes nothing");
        // What is opened by it is opened by the new one, and goes on.
        let opened = enter(directory, ANNA, "correct horse", Imap, None).await.unwrap();
        let hold = directory.hold(opened.id, Some(opened.rights)).await;
        let after = stored(directory).await;
        assert_eq!((after != before, after.starts_with("$argon2id$") || !is_replaced), (is_replaced, true), "{before}");
        assert_eq!(tried(directory, "correct horse", Imap, None).await, "opens", "{before}");
        assert_eq!(tried(directory, "correct horsf", Imap, None).await, "refused", "{before}");
        assert_eq!(stored(directory).await, after, "once is enough");
        assert!(!hold.has_ended(), "{before}");
    }
    // Somebody changed the password meanwhile: theirs stays.
    directory.set_account(&address(ANNA), password("theirs")).await.unwrap();
    let made = crate::PasswordHash::make(&Secret::new("correct horse".to_owned()));
    let anna = id_of(directory, "anna").await;
    assert!(!directory.tables.renew(anna, &BCRYPT.parse().unwrap(), &made).await.unwrap());
    assert_eq!(stored(directory).await, "{PLAIN}theirs");
}

async fn a_replaced_hash_lifts_no_lock(directory: &Registry, _clock: &FakeClock) {
    let bcrypt = change(|change| change.password = Some(BCRYPT.parse().unwrap()));
    directory.set_account(&address(ANNA), bcrypt).await.unwrap();
    let account = directory.account_by_address(&address(ANNA)).await.unwrap().unwrap();
    directory.lock_sending(&account, "score 13.0").await.unwrap();
    let opened = enter(directory, ANNA, "correct horse", Imap, None).await.unwrap();
    let now = directory.account_by_id(account.id).await.unwrap().unwrap();
    assert!(now.sending_lock.is_some() && opened.sending_lock == now.sending_lock, "it is the same password");
    directory.set_account(&address(ANNA), change(|change| change.sending = Some(None))).await.unwrap();
    assert_eq!(tried(directory, "correct horse", Imap, None).await, "opens");
    assert!(stored(directory).await.starts_with("$argon2id$"));
}
