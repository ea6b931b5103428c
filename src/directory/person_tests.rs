//! Roles, forwards, further names of domains, and what a registry keeps for all nodes.

use std::time::Duration;

use access::{Grant, Position, Reach, Role};
use base::{AccountId, Clock as _, DomainId, FakeClock, TenantId, UtcMillis};
use engine::postgres::Server;
use engine::table::{Place, Statement};
use mail::{Address, Domain, ForwardPath};

use crate::tests::{
    START, account, address, change, contract_in_time, embedded, id_of, leads_to, on_server, told, web_session,
};
use crate::{Access, Call, Directory as _, Listing, NewAccount, Registry, Resolution, TenantKind, session_name};

contract_in_time!(
    roles_are_held_where_they_fit,
    things_are_found_by_name_number_and_reach,
    a_domain_is_found_among_many_that_end_like_it,
    mail_is_forwarded_once_its_reader_agreed,
    a_reader_is_asked_once,
    who_did_not_answer_in_time_is_asked_again,
    any_address_can_be_forwarded_to,
    a_domain_has_further_names,
    an_alias_is_a_sender_by_all_names_of_its_domain,
    secrets_stay_as_they_are,
    browsers_are_listed_and_signed_out,
    a_call_is_made_once,
);

fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

async fn a_call_is_made_once(directory: &Registry, clock: &FakeClock) {
    let (anna, bert) = (id_of(directory, "anna").await, id_of(directory, "bert").await);
    let begin = async |of, word, digest: u8| directory.begin_call(of, word, [digest; 32]).await.unwrap();
    assert_eq!(begin(anna, "w", 1).await, Call::Begun);
    assert_eq!(begin(anna, "w", 1).await, Call::UnderWay);
    assert_eq!(begin(bert, "w", 1).await, Call::Begun, "another's word");
    directory.end_call(anna, "w", Some((201, b"made".to_vec()))).await.unwrap();
    assert_eq!(begin(anna, "w", 1).await, Call::Answered { status: 201, body: b"made".to_vec() });
    assert_eq!(begin(anna, "w", 2).await, Call::Other);
    directory.end_call(bert, "w", None).await.unwrap();
    assert_eq!(begin(bert, "w", 3).await, Call::Begun, "nothing came of the first");
    // A node that died keeps nobody from trying again.
    clock.advance(Duration::from_secs(120));
    assert_eq!(begin(bert, "w", 3).await, Call::Begun);
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(begin(anna, "w", 2).await, Call::Begun, "a day is over");
    clock.advance(Duration::from_secs(86_400));
    directory.tidy().await.unwrap();
    assert_eq!(begin(bert, "w", 4).await, Call::Begun);
}

async fn roles_are_held_where_they_fit(directory: &Registry, clock: &FakeClock) {
    let (anna, bert) = (id_of(directory, "anna").await, id_of(directory, "bert").await);
    let (tenant, domain) = (Reach::Tenant(TenantId(1)), Reach::Domain(DomainId(1)));
    for (role, reach, expected) in [
        (Role::IspAdmin, Reach::System, "done"),
        (Role::IspAdmin, Reach::System, "exists"),
        (Role::IspAdmin, tenant, "refused"),
        (Role::Auditor, domain, "refused"),
        (Role::Reseller, tenant, "done"),
        (Role::Reseller, Reach::System, "refused"),
        (Role::CustomerAdmin, domain, "refused"),
        (Role::DomainAdmin, domain, "done"),
        (Role::DomainAdmin, Reach::Domain(DomainId(2)), "done"),
        (Role::DomainAdmin, tenant, "refused"),
    ] {
        let grant = Grant { role, reach };
        assert_eq!(told(&directory.grant(anna, grant, "bert").await), expected, "{grant:?}");
    }
    directory.grant(bert, Grant { role: Role::DomainAdmin, reach: domain }, "anna").await.unwrap();
    let listed = async |of| {
        let entries = directory.grants(of).await.unwrap();
        let line = |e: &crate::GrantEntry| format!("{} {} {}", e.address.local, e.grant.role.as_str(), e.grant.reach);
        assert!(entries.iter().all(|entry| entry.given_at == clock.utc()));
        entries.iter().map(line).collect::<Vec<_>>().join(", ")
    };
    let of_anna =
        "Anna domain-admin domain 1, Anna domain-admin domain 2, Anna isp-admin system, Anna reseller tenant 1";
    assert_eq!(listed(Some(anna)).await, of_anna);
    assert_eq!(listed(None).await, format!("{of_anna}, bert domain-admin domain 1"));
    assert_eq!(directory.grants(Some(bert)).await.unwrap()[0].given_by, "anna");
    // The account knows them, at once.
    let grants = async |id| directory.account(id).await.unwrap().unwrap().grants;
    assert_eq!(grants(anna).await.len(), 4);
    for (account, role, reach, expected) in [
        (anna, Role::DomainAdmin, domain, "done"),
        (anna, Role::DomainAdmin, domain, "missing"),
        (bert, Role::Reseller, tenant, "missing"),
    ] {
        let grant = Grant { role, reach };
        assert_eq!(told(&directory.revoke(account, grant).await), expected, "{account:?} {grant:?}");
    }
    assert!(!grants(anna).await.contains(&Grant { role: Role::DomainAdmin, reach: domain }));
    // One for whom everything is open holds the administrator's role; nobody gave it.
    let admin = change(|change| change.access = Some(Access::Admin));
    directory.set_account(&address("bert@example.test"), admin).await.unwrap();
    assert!(grants(bert).await.contains(&Grant { role: Role::IspAdmin, reach: Reach::System }));
    assert_eq!(listed(Some(bert)).await, "bert domain-admin domain 1");
    directory.delete_account(&address("anna@example.test")).await.unwrap();
    assert_eq!(listed(None).await, "bert domain-admin domain 1");
}

async fn things_are_found_by_name_number_and_reach(directory: &Registry, _clock: &FakeClock) {
    directory.add_tenant("Other", TenantKind::Customer, None).await.unwrap();
    for (name, tenant) in [("a.example.test", "Other"), ("example.tests", "Alpine"), ("free.test", "")] {
        let tenant = Some(tenant.to_owned()).filter(|tenant| !tenant.is_empty());
        directory.add_domain(domain(name), tenant).await.unwrap();
    }
    let at_other = NewAccount { address: address("carl@a.example.test"), ..account("carl") };
    directory.add_account(at_other).await.unwrap();
    directory.put_alias("@free.test", vec![address("anna@example.test")], false).await.unwrap();
    for (name, found) in [("example.test", true), ("a.example.test", true), ("example.te", false), ("b.test", false)] {
        let by_name = directory.domain(&domain(name)).await.unwrap();
        assert_eq!(by_name.as_ref().map(|domain| domain.name.as_str()), found.then_some(name));
        if let Some(by_name) = by_name {
            assert_eq!(directory.domain_by_id(by_name.id).await.unwrap().unwrap(), by_name);
        }
    }
    assert_eq!(directory.domain_by_id(DomainId(999)).await.unwrap(), None);
    for (name, found) in [("alpine", Some("Alpine")), ("BAKERY", Some("Bakery")), ("Bak", None), ("", None)] {
        let by_name = directory.tenant(name).await.unwrap();
        assert_eq!(by_name.as_ref().map(|tenant| tenant.name.as_str()), found, "{name}");
        if let Some(by_name) = by_name {
            assert_eq!(directory.tenant_by_id(by_name.id).await.unwrap().unwrap(), by_name);
        }
    }
    let tenant = async |name: &str| directory.tenant(name).await.unwrap().unwrap().id;
    let (alpine, bakery, other) = (tenant("Alpine").await, tenant("Bakery").await, tenant("Other").await);
    let example = directory.domain(&domain("example.test")).await.unwrap().unwrap().id;
    let anna = id_of(directory, "anna").await;
    let whole = Position { reseller: Some(alpine), customer: Some(bakery), domain: Some(example), account: Some(anna) };
    assert_eq!(directory.position(&address("ANNA@example.test")).await.unwrap(), Some(whole));
    assert_eq!(directory.position(&address("nobody@example.test")).await.unwrap(), None);
    for (within, domains, accounts, aliases) in [
        (vec![Reach::System], "a.example.test example.test example.tests free.test", "Anna bert carl", 1),
        (vec![Reach::Tenant(alpine)], "example.test example.tests", "Anna bert", 0),
        (vec![Reach::Tenant(bakery)], "example.test", "Anna bert", 0),
        (vec![Reach::Tenant(other), Reach::Domain(example)], "a.example.test example.test", "Anna bert carl", 0),
        (vec![Reach::Tenant(other)], "a.example.test", "carl", 0),
        (vec![], "", "", 0),
    ] {
        let listing = || Listing { within: Some(within.clone()), ..Listing::default() };
        let found = directory.domains(listing()).await.unwrap();
        assert_eq!(found.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(" "), domains, "{within:?}");
        let mut found: Vec<String> =
            directory.accounts(listing()).await.unwrap().iter().map(|a| a.address.local.to_string()).collect();
        found.sort();
        assert_eq!(found.join(" "), accounts, "{within:?}");
        assert_eq!(directory.aliases(listing()).await.unwrap().len(), aliases, "{within:?}");
    }
}

/// More than a listing holds.
async fn a_domain_is_found_among_many_that_end_like_it(directory: &Registry, _clock: &FakeClock) {
    directory.add_domain(domain("z.test"), None).await.unwrap();
    let table = if let Place::Sqlite(_) = directory.place() { "domain" } else { "directory_domain" };
    let text = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001)
         INSERT INTO {table} (name, created_at) SELECT 'a' || i || '.z.test', 0 FROM n"
    );
    directory.place().change(vec![Statement::new(text, Vec::new())]).await.unwrap().unwrap();
    assert_eq!(directory.domain(&domain("a7.z.test")).await.unwrap().unwrap().name, domain("a7.z.test"));
    assert_eq!(directory.domain(&domain("z.test")).await.unwrap().unwrap().name, domain("z.test"));
}

async fn set(directory: &Registry, id: AccountId, targets: &[&str], keeps: bool) -> Vec<(Address, String)> {
    let targets: Vec<Address> = targets.iter().map(|target| address(target)).collect();
    directory.set_forwards(id, &targets, keeps).await.unwrap()
}

/// Where mail for `to` goes, and besides.
async fn besides(directory: &Registry, to: &str) -> String {
    let found = directory.resolve(&ForwardPath::Address(address(to))).await.unwrap();
    let Resolution::Local(found) = found else { panic!("{to}: {found:?}") };
    let [one] = &found[..] else { panic!("{to}: {found:?}") };
    let copy = if one.keeps { vec![one.address.local.to_string()] } else { Vec::new() };
    copy.into_iter().chain(one.forwards.iter().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
}

async fn mail_is_forwarded_once_its_reader_agreed(directory: &Registry, clock: &FakeClock) {
    directory.add_domain_alias(&domain("example.org"), &domain("example.test")).await.unwrap();
    let anna = id_of(directory, "anna").await;
    assert_eq!(besides(directory, "anna@example.test").await, "Anna");
    // Of our own domains, by whichever name, nobody is asked.
    let asked = set(directory, anna, &["Reader@Elsewhere.test", "bert@example.test", "x@example.org"], false).await;
    let [(reader, token)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(reader.to_folded(), "reader@elsewhere.test");
    assert_eq!(besides(directory, "anna+list@example.test").await, "bert@example.test x@example.org");
    let (forwards, keeps) = directory.forwards(anna).await.unwrap();
    let listed = forwards.iter().map(|one| (one.target.to_string(), one.confirmed_at)).collect::<Vec<_>>();
    let now = Some(clock.utc());
    let expected = [("bert@example.test", now), ("reader@elsewhere.test", None), ("x@example.org", now)];
    assert_eq!((listed, keeps), (expected.map(|(target, at)| (target.to_owned(), at)).to_vec(), false));
    clock.advance(Duration::from_secs(14 * 86_400) - Duration::from_millis(1));
    assert_eq!(directory.confirm_forward(&token.to_uppercase()).await.unwrap(), None);
    let whose = (anna, address("reader@elsewhere.test"));
    assert_eq!(directory.confirm_forward(token).await.unwrap(), Some(whose));
    assert_eq!(directory.confirm_forward(token).await.unwrap(), None, "it is done");
    let all = "bert@example.test reader@elsewhere.test x@example.org";
    assert_eq!(besides(directory, "anna@example.test").await, all);
    // What was there stays: nobody is asked again, and whether a copy stays counts for all.
    let targets = ["x@example.org", "reader@elsewhere.test", "new@elsewhere.test"];
    let asked = set(directory, anna, &targets, true).await;
    assert_eq!(asked.iter().map(|(target, _)| target.to_string()).collect::<Vec<_>>(), ["new@elsewhere.test"]);
    assert_eq!(besides(directory, "anna@example.test").await, "Anna reader@elsewhere.test x@example.org");
    // Whoever is taken off cannot agree any more; where nobody agreed, mail stays, whatever is wished.
    assert_eq!(set(directory, anna, &["late@elsewhere.test"], false).await.len(), 1);
    assert_eq!(directory.confirm_forward(&asked[0].1).await.unwrap(), None);
    assert_eq!(besides(directory, "anna@example.test").await, "Anna");
    let many: Vec<Address> = (0..21).map(|nth| address(&format!("r{nth}@elsewhere.test"))).collect();
    assert_eq!(told(&directory.set_forwards(anna, &many, true).await), "refused");
    assert_eq!(told(&directory.set_forwards(anna, &many[1..], true).await), "done");
    assert!(set(directory, anna, &[], false).await.is_empty());
    assert_eq!(directory.forwards(anna).await.unwrap(), (Vec::new(), true));
    // An account takes its forwards along.
    let asked = set(directory, anna, &["late@elsewhere.test"], false).await;
    directory.delete_account(&address("anna@example.test")).await.unwrap();
    assert_eq!(directory.confirm_forward(&asked[0].1).await.unwrap(), None);
}

async fn a_reader_is_asked_once(directory: &Registry, _clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    let asked = set(directory, anna, &["reader@elsewhere.test", "Reader@elsewhere.test"], true).await;
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(directory.confirm_forward(&asked[0].1).await.unwrap().is_some());
}

async fn who_did_not_answer_in_time_is_asked_again(directory: &Registry, clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    let first = set(directory, anna, &["reader@elsewhere.test"], true).await;
    assert!(set(directory, anna, &["reader@elsewhere.test"], true).await.is_empty(), "there is time left");
    clock.advance(Duration::from_secs(14 * 86_400));
    assert_eq!(directory.confirm_forward(&first[0].1).await.unwrap(), None);
    let again = set(directory, anna, &["reader@elsewhere.test"], true).await;
    assert_eq!(again.len(), 1);
    assert_eq!(directory.confirm_forward(&first[0].1).await.unwrap(), None);
    assert!(directory.confirm_forward(&again[0].1).await.unwrap().is_some());
    clock.advance(Duration::from_secs(14 * 86_400));
    assert!(set(directory, anna, &["reader@elsewhere.test"], true).await.is_empty(), "who agreed, agreed");
}

async fn any_address_can_be_forwarded_to(directory: &Registry, _clock: &FakeClock) {
    let anna = id_of(directory, "anna").await;
    let targets = [r#""a, b"@elsewhere.test"#, r#""q\" 0 x@y"@elsewhere.test"#, "\u{e9}@[IPv6:2001:db8::1]"];
    for (_, token) in set(directory, anna, &targets, false).await {
        assert!(directory.confirm_forward(&token).await.unwrap().is_some());
    }
    let (found, _) = directory.forwards(anna).await.unwrap();
    assert_eq!(found.iter().map(|one| one.target.to_string()).collect::<Vec<_>>(), targets);
    assert_eq!(besides(directory, "anna@example.test").await, targets.join(" "));
    assert!(set(directory, anna, &targets, false).await.is_empty(), "what was there stays");
    set(directory, anna, &targets[..1], false).await;
    assert_eq!(besides(directory, "anna@example.test").await, targets[0]);
}

async fn a_domain_has_further_names(directory: &Registry, _clock: &FakeClock) {
    let (example, fresh) = (domain("example.test"), domain("fresh.test"));
    directory.add_domain(fresh.clone(), None).await.unwrap();
    directory.put_alias("team@example.test", vec![address("bert@example.test")], false).await.unwrap();
    assert_eq!(leads_to(directory, "anna@example.org").await, "foreign");
    for (name, of, expected) in [
        ("example.org", "example.test", "done"),
        ("example.org", "example.test", "exists"),
        ("example.org", "fresh.test", "exists"),
        ("fresh.test", "example.test", "exists"),
        ("example.test", "example.test", "exists"),
        ("example.net", "nowhere.test", "missing"),
        // A further name has no further names of its own.
        ("example.net", "example.org", "missing"),
        ("[192.0.2.1]", "example.test", "refused"),
        ("example.com", "example.test", "done"),
    ] {
        assert_eq!(told(&directory.add_domain_alias(&domain(name), &domain(of)).await), expected, "{name} {of}");
    }
    assert_eq!(told(&directory.add_domain(domain("example.org"), None).await), "exists");
    for (to, expected) in [
        ("Anna@Example.org", "Anna"),
        ("anna+x@example.com", "Anna+x"),
        ("team@example.org", "bert"),
        ("postmaster@example.org", "Anna"),
        ("carl@example.org", "unknown"),
        ("anna@a.example.org", "foreign"),
    ] {
        assert_eq!(leads_to(directory, to).await, expected, "{to}");
    }
    directory.put_alias("@example.test", vec![address("bert@example.test")], false).await.unwrap();
    assert_eq!(leads_to(directory, "carl@example.org").await, "bert");
    // It is no domain of its own.
    let at_alias = NewAccount { address: address("carl@example.org"), ..account("carl") };
    assert_eq!(told(&directory.add_account(at_alias).await), "missing");
    let targets = vec![address("bert@example.test")];
    assert_eq!(told(&directory.put_alias("x@example.org", targets, false).await), "missing");
    assert_eq!(told(&directory.delete_domain(domain("example.org")).await), "missing");
    let id = directory.domain(&example).await.unwrap().unwrap().id;
    let names = [domain("example.com"), domain("example.org")];
    assert_eq!(directory.domain_aliases(id).await.unwrap(), names);
    for (name, expected) in [("example.com", "done"), ("example.com", "missing"), ("example.test", "missing")] {
        assert_eq!(told(&directory.delete_domain_alias(&domain(name)).await), expected, "{name}");
    }
    assert_eq!(leads_to(directory, "anna@example.com").await, "foreign");
    // Its names go with it.
    directory.add_domain_alias(&domain("fresh.org"), &fresh).await.unwrap();
    directory.delete_domain(fresh).await.unwrap();
    assert_eq!(leads_to(directory, "x@fresh.org").await, "foreign");
    assert_eq!(told(&directory.add_domain(domain("fresh.org"), None).await), "done");
}

async fn an_alias_is_a_sender_by_all_names_of_its_domain(directory: &Registry, _clock: &FakeClock) {
    directory.add_domain(domain("other.test"), None).await.unwrap();
    for (name, of) in [("example.org", "example.test"), ("other.org", "other.test")] {
        directory.add_domain_alias(&domain(name), &domain(of)).await.unwrap();
    }
    for alias in ["sales@example.test", "shop@other.test"] {
        directory.put_alias(alias, vec![address("anna@example.test")], false).await.unwrap();
    }
    let mut found: Vec<String> = Vec::new();
    for sender in directory.sender_addresses(id_of(directory, "anna").await).await.unwrap() {
        assert_eq!(leads_to(directory, &sender.to_string()).await, "Anna");
        found.push(sender.to_folded());
    }
    found.sort();
    let names = ["anna@example.org", "anna@example.test", "sales@example.org", "sales@example.test"];
    assert_eq!(found, [&names[..], &["shop@other.org", "shop@other.test"]].concat());
}

async fn secrets_stay_as_they_are(directory: &Registry, _clock: &FakeClock) {
    let secret = directory.system_secret("srs").await.unwrap();
    assert_eq!(secret.len(), 64);
    assert_eq!(directory.system_secret("srs").await.unwrap(), secret);
    assert_ne!(directory.system_secret("links").await.unwrap(), secret);
}

#[tokio::test]
async fn all_who_open_a_registry_find_the_same_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = embedded(folder.path()).system_secret("srs").await.unwrap();
    assert_eq!(embedded(folder.path()).system_secret("srs").await.unwrap(), secret);
    let Some(server) = Server::start_unsynced() else { return };
    let (one, other) = (on_server(&server, "postgres").await, on_server(&server, "postgres").await);
    for nth in 0..10 {
        let name = format!("secret {nth}");
        let (of_one, of_other) = tokio::join!(one.system_secret(&name), other.system_secret(&name));
        assert_eq!(of_one.unwrap(), of_other.unwrap());
    }
}

async fn browsers_are_listed_and_signed_out(directory: &Registry, _clock: &FakeClock) {
    let (anna, bert) = (id_of(directory, "anna").await, id_of(directory, "bert").await);
    let at = |seconds: i64| UtcMillis(START.0 - seconds * 1000);
    for (number, account, used) in [(1, anna, 30), (2, anna, 10), (3, bert, 5), (4, anna, 20)] {
        directory.open_web_session(web_session(number, account, at(used))).await.unwrap();
    }
    let name = |number: u8| session_name(&[number; 32]);
    let listed = async |id| directory.web_sessions(id).await.unwrap();
    let expected = [(2, 10), (4, 20), (1, 30)].map(|(number, used)| (name(number), at(used), at(used)));
    assert_eq!(listed(anna).await, expected);
    let left = async |id| listed(id).await.into_iter().map(|(name, _, _)| name).collect::<Vec<_>>();
    for (of, which, closed, expected) in [
        (anna, name(3), 0, vec![2, 4, 1]),
        (bert, name(2), 0, vec![2, 4, 1]),
        (anna, String::new(), 0, vec![2, 4, 1]),
        (anna, name(4), 1, vec![2, 1]),
        (anna, name(4), 0, vec![2, 1]),
    ] {
        assert_eq!(directory.close_web_sessions(of, |one| one == which).await.unwrap(), closed, "{which}");
        assert_eq!(left(anna).await, expected.into_iter().map(name).collect::<Vec<_>>());
    }
    assert_eq!(directory.use_web_session(&[4; 32]).await.unwrap(), None);
    // All but one's own.
    assert_eq!(directory.close_web_sessions(anna, |one| one != name(1)).await.unwrap(), 1);
    assert_eq!((left(anna).await, left(bert).await), (vec![name(1)], vec![name(3)]));
}
