//! What was ever on disk is read; what the disk changed is told.

use std::os::unix::fs::FileExt as _;

use engine::fixture::Fixture;
use engine::postgres::{PgSettings, Pool, Server};

use access::Reach;
use base::AccountId;
use mail::ForwardPath;

use crate::tests::{account, address, embedded, leads_to, on_server, sign_in};
use crate::{AccountChange, Directory as _, Listing, Protocol, Registry, Resolution, postgres, schema};

/// Versions that know of legacy servers.
const LEGACY_SQLITE: usize = 5;
const LEGACY_POSTGRES: usize = 3;
/// Versions that know of keys.
const KEYS_SQLITE: usize = 7;
const KEYS_POSTGRES: usize = 5;

/// Versions that know of roles, app passwords and what came with them.
const PEOPLE_SQLITE: usize = 8;
const PEOPLE_POSTGRES: usize = 6;
/// Versions that know of relayed domains.
const RELAYED_SQLITE: usize = 9;
const RELAYED_POSTGRES: usize = 7;

/// All that the fixtures hold, but for quotas.
async fn holds_everything(directory: &Registry) {
    let tenants = directory.tenants().await.unwrap();
    let tenants =
        tenants.iter().map(|t| format!("{} {} {} {:?} {}", t.id.0, t.name, t.kind.as_str(), t.parent, t.domains));
    assert_eq!(tenants.collect::<Vec<_>>(), ["1 Alpine reseller None 0", "2 Bakery customer Some(\"Alpine\") 1"]);
    let domains = directory.domains(Listing::default()).await.unwrap();
    let domains = domains.iter().map(|d| format!("{} {} {:?} {} {}", d.id.0, d.name, d.tenant, d.accounts, d.aliases));
    assert_eq!(domains.collect::<Vec<_>>(), ["1 example.test Some(\"Bakery\") 2 1", "3 xn--bcher-kva.test None 0 1"]);
    let accounts = directory.accounts(Listing::default()).await.unwrap();
    let of_account = |a: &crate::Account| {
        let (size, made) = (a.quota.size.map(|size| size.0), a.created_at.0 / 1000 - 1_795_482_000);
        format!("{} {} ({}) {} {} {size:?} {made}", a.id.0, a.address, a.name, a.access.as_str(), a.enabled)
    };
    let expected = [
        "1 Anna@example.test (Anna Gruber) admin true None 176",
        "4 bert@example.test () user false Some(5000000) 177",
    ];
    assert_eq!(accounts.iter().map(of_account).collect::<Vec<_>>(), expected);
    let aliases = directory.aliases(Listing::default()).await.unwrap();
    let aliases = aliases.iter().map(|alias| format!("{} {:?}", alias.address, alias.targets.len()));
    assert_eq!(aliases.collect::<Vec<_>>(), ["@xn--bcher-kva.test 1", "sales@example.test 2"]);
    assert_eq!(leads_to(directory, "sales@example.test").await, "Anna bert");
    assert_eq!(leads_to(directory, "any@xn--bcher-kva.test").await, "Anna");
    assert!(sign_in(directory, "anna@example.test", "pw-Anna").await.is_ok());
    assert!(sign_in(directory, "bert@example.test", "pw-bert").await.is_err(), "it is disabled");
}

async fn has_quotas(directory: &Registry) {
    let bert = directory.limits(base::AccountId(4)).await.unwrap().unwrap();
    let pools =
        bert.pools.iter().map(|(pool, quota)| format!("{pool} {:?} {:?}", quota.size.map(|s| s.0), quota.messages));
    assert_eq!(bert.quota.messages, Some(700));
    assert_eq!(pools.collect::<Vec<_>>(), ["domain 1 Some(90000000) None", "tenant 1 Some(100000000) Some(5000)"]);
}

/// What came with legacy servers. Takes bert off, for what follows.
async fn has_a_legacy_server(directory: &Registry) {
    let [old] = &directory.legacies().await.unwrap()[..] else { panic!("one server") };
    let text = |endpoint: &Option<net::Endpoint>| endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
    let told = [&old.imap, &old.pop3, &old.submission, &old.sieve].map(text).join(" ");
    assert_eq!(told, "starttls://mail.old.example:143  tls://[2001:db8::1]:465 none://192.0.2.7:4190");
    assert_eq!(old.delivery.as_ref().unwrap().to_string(), "lmtp+none://192.0.2.7:24");
    assert!(matches!(old.trust, net::Trust::Fingerprint(octets) if octets[31] == 31));
    assert_eq!((old.name.as_str(), old.proxy_protocol, old.capture_passwords, old.accounts), ("old", true, true, 1));
    let bert = address("bert@example.test");
    assert_eq!(directory.account_by_address(&bert).await.unwrap().unwrap().legacy.as_deref(), Some("old"));
    let domains = directory.domains(Listing::default()).await.unwrap();
    assert_eq!(domains.iter().map(|d| d.legacy.as_deref()).collect::<Vec<_>>(), [None, Some("old")]);
    assert!(directory.delete_legacy("old").await.is_err(), "it is in use");
    let change = AccountChange { legacy: Some(None), ..AccountChange::default() };
    directory.set_account(&bert, change).await.unwrap();
}

async fn has_a_key(directory: &Registry) {
    let keys = directory.signing_keys("mail.example.test").await.unwrap();
    let [key] = &keys[..] else { panic!("{keys:?}") };
    let told = (key.name(), key.kind.as_str(), key.private.reveal().as_slice(), key.public.as_str());
    assert_eq!(told, ("s202611a-ed25519._domainkey.example.test".to_owned(), "ed25519", &[1, 2][..], "AQI="));
    assert_eq!((key.created_at.0, key.changed_at.0), (1_795_482_184_000, 1_795_482_185_000));
}

/// What came with roles. Takes bert's second factor off, for what follows.
async fn has_a_relayed_domain(directory: &Registry) {
    let [one] = &directory.relayed_domains().await.unwrap()[..] else { panic!("one relayed domain") };
    let hosts: Vec<_> = one.relay.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(
        (one.name.as_str(), hosts.join(" ")),
        ("xn--bcher-kva.test", "starttls://mx.customer.test:25 192.0.2.8:25".to_owned())
    );
    assert_eq!(
        (one.relay.lmtp, one.relay.verify, &one.relay.trust),
        (false, crate::Verify::Ask, &net::Trust::Anything)
    );
}

async fn has_people(directory: &Registry) {
    let (anna, bert) = (AccountId(1), AccountId(4));
    let grants = directory.grants(None).await.unwrap();
    let of = |g: &crate::GrantEntry| {
        let (role, reach) = (g.grant.role.as_str(), g.grant.reach);
        format!("{} {} {role} {reach} {} {}", g.account.0, g.address, g.given_by, g.given_at.0)
    };
    let expected = "4 bert@example.test domain-admin domain 1 anna@example.test 1795482186000";
    assert_eq!(grants.iter().map(of).collect::<Vec<_>>(), [expected]);
    let [phone] = &directory.app_passwords(anna).await.unwrap()[..] else { panic!("one app password") };
    assert_eq!((phone.id, phone.name.as_str(), phone.created_at.0), (3, "Phone", 1_795_482_187_000));
    assert_eq!(phone.protocols, [Protocol::Imap, Protocol::Submission]);
    assert_eq!((phone.expires_at, phone.used_at.map(|at| at.0)), (None, Some(1_795_482_188_000)));
    let [billing] = &directory.api_tokens(anna).await.unwrap()[..] else { panic!("one token") };
    assert_eq!((billing.id, billing.account, billing.name.as_str()), (2, anna, "Billing"));
    assert_eq!((&billing.scopes[..], billing.used_at), (&["*:read".to_owned()][..], None));
    assert_eq!(billing.expires_at.map(|at| at.0), Some(1_827_018_187_000));
    let account = directory.account(bert).await.unwrap().unwrap();
    assert!(account.has_second_factor && account.grants == [grants[0].grant]);
    let Resolution::Local(found) = directory.resolve(&ForwardPath::Address(address("bert@example.org"))).await.unwrap()
    else {
        panic!("example.org is another name of example.test")
    };
    assert_eq!(
        (found[0].account, &found[0].forwards[..], found[0].keeps),
        (bert, &[address("bert@elsewhere.test")][..], true)
    );
    let (forwards, keeps) = directory.forwards(bert).await.unwrap();
    let times = (forwards[0].asked_at.0, forwards[0].confirmed_at.map(|at| at.0));
    assert_eq!((forwards.len(), times, keeps), (1, (1_795_482_190_000, Some(1_795_482_191_000)), true));
    assert_eq!(directory.system_secret("srs").await.unwrap(), [0x11]);
    let [entry] = &directory.audit_log(&[Reach::System], None, None, 9).await.unwrap()[..] else { panic!("one entry") };
    let words = (entry.by.as_str(), entry.action.as_str(), entry.object.as_str());
    assert_eq!(words, ("anna@example.test", "set-account", "bert@example.test"));
    assert_eq!((entry.id, entry.at.0, entry.position), (9, 1_795_482_193_000, account.position));
    // A number is never given twice.
    directory.delete_app_password(anna, 3).await.unwrap();
    directory.delete_api_token(anna, 2).await.unwrap();
    let (phone, _) = directory.add_app_password(anna, "Phone", &[Protocol::Imap], None).await.unwrap();
    let (billing, _) = directory.add_api_token(anna, "Billing", &[], None).await.unwrap();
    directory.note_audit("anna", "set-account", "bert", entry.position).await.unwrap();
    let last = directory.audit_log(&[Reach::System], None, None, 1).await.unwrap()[0].id;
    assert_eq!((phone.id, billing.id, last), (4, 3, 10));
    directory.delete_second_factor(bert).await.unwrap();
}

/// It works on as one that was made today.
async fn goes_on(directory: &Registry) {
    assert_eq!(directory.add_account(account("new")).await.unwrap().0, 10, "a number is never given twice");
    let change = AccountChange { enabled: Some(true), ..AccountChange::default() };
    directory.set_account(&address("bert@example.test"), change).await.unwrap();
    assert!(sign_in(directory, "bert@example.test", "pw-bert").await.is_ok());
    // What refers to each other still does: the last target takes its alias along, a domain with accounts stays.
    directory.delete_account(&address("anna@example.test")).await.unwrap();
    assert_eq!(leads_to(directory, "sales@example.test").await, "bert");
    assert_eq!(directory.aliases(Listing::default()).await.unwrap().len(), 1);
    assert!(directory.delete_domain("example.test".parse().unwrap()).await.is_err());
    directory.delete_domain("xn--bcher-kva.test".parse().unwrap()).await.unwrap();
    assert!(directory.delete_tenant("Alpine").await.is_err());
}

#[tokio::test]
async fn every_version_of_the_file_opens_with_all_it_holds() {
    let fixture = Fixture::new(include_str!("fixtures/sqlite.sql"), schema::MIGRATIONS.iter().copied());
    for version in fixture.versions() {
        let folder = tempfile::tempdir().unwrap();
        fixture.make_sqlite(&folder.path().join("directory.sqlite"), version).unwrap();
        let directory = embedded(folder.path());
        holds_everything(&directory).await;
        if version >= 2 {
            has_quotas(&directory).await;
        }
        if version >= LEGACY_SQLITE {
            has_a_legacy_server(&directory).await;
        }
        if version >= KEYS_SQLITE {
            has_a_key(&directory).await;
        }
        if version >= PEOPLE_SQLITE {
            has_people(&directory).await;
        }
        if version >= RELAYED_SQLITE {
            has_a_relayed_domain(&directory).await;
        }
        assert_eq!(directory.audit(true, false).await.unwrap(), []);
        goes_on(&directory).await;
        assert_eq!(directory.audit(true, false).await.unwrap(), []);
    }
}

#[tokio::test]
async fn every_version_in_postgresql_opens_with_all_it_holds() {
    let Some(server) = Server::start() else { return };
    let steps = postgres::MIGRATIONS.iter().map(|step| step.text);
    let fixture = Fixture::new(include_str!("fixtures/postgres.sql"), steps);
    for version in fixture.versions() {
        let database = format!("version{version}");
        let pool = Pool::new(PgSettings::parse(&server.database(&database), 1).unwrap());
        fixture.make_postgres(&pool, postgres::COMPONENT, version).await;
        let directory = on_server(&server, &database).await;
        holds_everything(&directory).await;
        has_quotas(&directory).await;
        if version >= LEGACY_POSTGRES {
            has_a_legacy_server(&directory).await;
        }
        if version >= KEYS_POSTGRES {
            has_a_key(&directory).await;
        }
        if version >= PEOPLE_POSTGRES {
            has_people(&directory).await;
        }
        if version >= RELAYED_POSTGRES {
            has_a_relayed_domain(&directory).await;
        }
        goes_on(&directory).await;
    }
}

/// One bit of a text in each table.
#[tokio::test]
async fn a_row_that_the_disk_changed_is_told_and_repaired_on_wish() {
    for (text, row) in [
        ("Alpine", "tenant id 1"),
        ("xn--bcher-kva.test", "domain id 3"),
        ("{PLAIN}pw-bert", "account id 4"),
        ("Anna Gruber", "account id 1"),
        ("sales@example.test", "alias id 1"),
        ("bert@example.test", "alias_target alias 1, folded "),
        ("mail.old.example", "legacy_server id 2"),
        ("domain-admin", "role_grant account 4, role "),
        ("Phone", "app_password id 3"),
        ("Billing", "api_token id 2"),
        ("aa bb", "second_factor account 4"),
        ("bert@elsewhere.test", "forward account 4, target "),
        ("example.org", "domain_alias name "),
        ("srs", "system_secret name "),
        ("set-account", "audit id 9"),
        ("starttls://mx.customer.test", "domain_relay domain 3"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("directory.sqlite");
        let fixture = Fixture::new(include_str!("fixtures/sqlite.sql"), schema::MIGRATIONS.iter().copied());
        fixture.make_sqlite(&file, schema::MIGRATIONS.len()).unwrap();
        // Where the table has it, not one of its indexes: the row's check follows its text.
        let image = std::fs::read(&file).unwrap();
        let places = (0..image.len()).filter(|at| image[*at..].starts_with(text.as_bytes()));
        let mut told = Vec::new();
        for at in places {
            let hurt = std::fs::File::options().write(true).open(&file).unwrap();
            hurt.write_all_at(&[image[at] ^ 1], at as u64).unwrap();
            let directory = embedded(folder.path());
            let found = directory.audit(false, false).await.unwrap();
            told.extend(found.iter().map(|damage| damage.location.clone()));
            if found.iter().any(|damage| damage.location.contains(row)) {
                assert!(found[0].what.contains("its check does not fit") && !found[0].repaired, "{found:?}");
                let repaired = directory.audit(false, true).await.unwrap();
                assert!(repaired.iter().all(|damage| damage.repaired), "{repaired:?}");
                assert_eq!(directory.audit(false, false).await.unwrap(), []);
            }
            drop(directory);
            std::fs::write(&file, &image).unwrap();
        }
        let file = file.display();
        assert!(told.iter().any(|told| told.starts_with(&format!("{file}: {row}"))), "{text}: {told:?}");
    }
}
