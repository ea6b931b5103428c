use std::path::Path;
use std::sync::Arc;

use access::{Grant, Position, Reach, Role};
use base::{AccountId, Clock, Secret, SystemClock, UtcMillis};
use engine::postgres::{PgSettings, Pool, Server};
use mail::{Address, ForwardPath};

use crate::{
    Access, Account, AccountChange, Directory, DomainKey, KeyListing, KeyState, LegacyChange, Listing, Login,
    LoginError, LoginGuard, NewAccount, Placement, Protocol, QuotaChange, Registry, RegistryError, Resolution,
    TenantKind,
};

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub(crate) fn embedded(folder: &Path) -> Registry {
    embedded_at(folder, Arc::new(SystemClock))
}

pub(crate) fn embedded_at(folder: &Path, clock: Arc<dyn Clock>) -> Registry {
    let file = folder.join("directory.sqlite");
    Registry::open(&file, clock, Some(address("anna@example.test")), LoginGuard::new(true)).unwrap()
}

pub(crate) async fn on_server(server: &Server, database: &str) -> Registry {
    on_server_at(server, database, Arc::new(SystemClock)).await
}

pub(crate) async fn on_server_at(server: &Server, database: &str, clock: Arc<dyn Clock>) -> Registry {
    let pool = Arc::new(Pool::new(PgSettings::parse(&server.database(database), 4).unwrap()));
    let postmaster = Some(address("anna@example.test"));
    Registry::open_postgres(pool, clock, postmaster, LoginGuard::new(true)).await.unwrap()
}

pub(crate) async fn fill(directory: &Registry) {
    directory.add_tenant("Alpine", TenantKind::Reseller, None).await.unwrap();
    directory.add_tenant("Bakery", TenantKind::Customer, Some("alpine".to_owned())).await.unwrap();
    directory.add_domain("example.test".parse().unwrap(), Some("Bakery".to_owned())).await.unwrap();
    for name in ["Anna", "bert"] {
        directory.add_account(account(name)).await.unwrap();
    }
}

pub(crate) fn account(name: &str) -> NewAccount {
    NewAccount {
        address: address(&format!("{name}@example.test")),
        name: name.to_owned(),
        access: Access::User,
        password: format!("{{PLAIN}}pw-{name}").parse().unwrap(),
        quota: base::Quota::UNLIMITED,
        placement: Placement::OfDomain,
    }
}

/// The contract: each case on a directory of its own.
macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        #[tokio::test]
        async fn embedded_keeps_the_contract() {
            $(
                let folder = tempfile::tempdir().unwrap();
                let directory = embedded(folder.path());
                fill(&directory).await;
                $case(&directory).await;
            )*
        }

        #[tokio::test]
        async fn postgresql_keeps_the_contract() {
            let Some(server) = Server::start() else { return };
            $(
                let directory = on_server(&server, stringify!($case)).await;
                fill(&directory).await;
                $case(&directory).await;
            )*
        }
    };
}

/// Of a time that RFC 6238 has codes for.
pub(crate) const START: UtcMillis = UtcMillis(1_111_111_109_000);

/// The contract of what depends on time, which stands still unless the case moves it.
macro_rules! contract_in_time {
    ($($case:ident),* $(,)?) => {
        mod embedded_keeps_the_contract {
            $(
                #[tokio::test]
                async fn $case() {
                    let folder = tempfile::tempdir().unwrap();
                    let clock = std::sync::Arc::new(base::FakeClock::at(crate::tests::START));
                    let directory = crate::tests::embedded_at(folder.path(), clock.clone());
                    crate::tests::fill(&directory).await;
                    super::$case(&directory, &clock).await;
                }
            )*
        }

        #[tokio::test]
        async fn postgresql_keeps_the_contract() {
            let Some(server) = engine::postgres::Server::start_unsynced() else { return };
            $(
                let clock = std::sync::Arc::new(base::FakeClock::at(crate::tests::START));
                let directory = crate::tests::on_server_at(&server, stringify!($case), clock.clone()).await;
                crate::tests::fill(&directory).await;
                $case(&directory, &clock).await;
            )*
        }
    };
}
pub(crate) use contract_in_time;

/// How a change of the registry ended.
pub(crate) fn told<T>(outcome: &Result<T, RegistryError>) -> &'static str {
    match outcome {
        Ok(_) => "done",
        Err(RegistryError::Exists { .. }) => "exists",
        Err(RegistryError::Missing { .. }) => "missing",
        Err(RegistryError::Refused { .. }) => "refused",
        Err(RegistryError::Unavailable(error)) => panic!("{error}"),
    }
}

pub(crate) async fn id_of(directory: &Registry, name: &str) -> AccountId {
    directory.account_by_address(&address(&format!("{name}@example.test"))).await.unwrap().unwrap().id
}

contract!(
    addresses_lead_to_accounts,
    only_the_right_password_signs_in_and_a_change_counts_at_once,
    the_registry_refuses_what_would_break_it,
    an_alias_address_may_be_used_as_sender,
    listings_come_in_pages,
    limits_come_from_account_domain_and_tenants,
    what_a_password_opened_ends_with_it,
    browsers_stay_signed_in_until_something_ends_it,
    accounts_on_a_legacy_server_are_known_there,
    keys_come_and_go_with_their_domain,
    a_password_is_captured_where_that_is_wanted,
    an_account_that_may_not_send_is_let_again_by_a_new_password,
);

#[tokio::test]
async fn a_change_on_one_node_counts_on_the_other() {
    let Some(server) = Server::start() else { return };
    let (one, other) = (on_server(&server, "postgres").await, on_server(&server, "postgres").await);
    fill(&one).await;
    assert_eq!(leads_to(&other, "carl@example.test").await, "unknown");
    assert!(sign_in(&other, "anna@example.test", "pw-Anna").await.is_ok());
    one.add_account(account("carl")).await.unwrap();
    let hashed = crate::PasswordHash::make(&Secret::new("new".to_owned()));
    let change = AccountChange { password: Some(hashed), ..AccountChange::default() };
    one.set_account(&address("anna@example.test"), change).await.unwrap();
    other.refresh().await.unwrap();
    assert_eq!(leads_to(&other, "carl@example.test").await, "carl");
    assert!(sign_in(&other, "anna@example.test", "pw-Anna").await.is_err());
    assert!(sign_in(&other, "anna@example.test", "new").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_never_make_one_address_twice() {
    let Some(server) = Server::start() else { return };
    let nodes = [on_server(&server, "postgres").await, on_server(&server, "postgres").await].map(Arc::new);
    fill(&nodes[0]).await;
    let mut adding = tokio::task::JoinSet::new();
    for nth in 0..20 {
        let node = Arc::clone(&nodes[nth % 2]);
        adding.spawn(async move {
            match nth % 4 {
                0 | 1 => node.add_account(account("carl")).await.map(drop),
                _ => node.put_alias("carl@example.test", vec![address("anna@example.test")], false).await,
            }
        });
    }
    let made = adding.join_all().await.into_iter().filter(Result::is_ok).count();
    assert_eq!(made, 1);
}

/// Local parts that `to` leads to, with details; or the kind of refusal.
pub(crate) async fn leads_to(directory: &Registry, to: &str) -> String {
    let path = if to.is_empty() { ForwardPath::Postmaster } else { ForwardPath::Address(address(to)) };
    match directory.resolve(&path).await.unwrap() {
        Resolution::Local(found) => found
            .iter()
            .map(|r| format!("{}{}", r.address.local, r.detail.as_ref().map(|d| format!("+{d}")).unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" "),
        Resolution::UnknownAddress => "unknown".to_owned(),
        Resolution::ForeignDomain => "foreign".to_owned(),
    }
}

async fn addresses_lead_to_accounts(directory: &Registry) {
    directory
        .put_alias("team@example.test", vec![address("anna@example.test"), address("bert+t@example.test")], false)
        .await
        .unwrap();
    directory
        .put_alias("all@example.test", vec![address("team@example.test"), address("all@example.test")], false)
        .await
        .unwrap();
    for (to, expected) in [
        ("anna@EXAMPLE.test", "Anna"),
        ("aNNa+news@example.test", "Anna+news"),
        ("team@example.test", "Anna bert+t"),
        ("team+x@example.test", "Anna bert+t"),
        ("all@example.test", "Anna bert+t"),
        ("", "Anna"),
        ("postmaster@example.test", "Anna"),
        ("carl@example.test", "unknown"),
        ("anna@elsewhere.test", "foreign"),
    ] {
        assert_eq!(leads_to(directory, to).await, expected, "{to}");
    }
    directory.put_alias("@example.test", vec![address("bert@example.test")], false).await.unwrap();
    assert_eq!(leads_to(directory, "carl@example.test").await, "bert");
    directory.delete_account(&address("bert@example.test")).await.unwrap();
    assert_eq!(leads_to(directory, "carl@example.test").await, "unknown");
    assert_eq!(leads_to(directory, "team@example.test").await, "Anna");
}

pub(crate) async fn sign_in(directory: &Registry, name: &str, password: &str) -> Result<Account, LoginError> {
    let password = Secret::new(password.to_owned());
    let peer = "127.0.0.1".parse().unwrap();
    directory.authenticate(Login { name, password: &password, protocol: Protocol::Imap, peer, code: None }).await
}

async fn only_the_right_password_signs_in_and_a_change_counts_at_once(directory: &Registry) {
    let login = async |name, password| sign_in(directory, name, password).await;
    assert_eq!(login("ANNA@example.test", "pw-Anna").await.unwrap().name, "Anna");
    for (name, password) in
        [("anna@example.test", "pw-anna"), ("carl@example.test", "x"), ("anna", "pw-Anna"), ("", "")]
    {
        assert!(matches!(login(name, password).await, Err(LoginError::Refused { .. })), "{name}");
    }
    let hashed = crate::PasswordHash::make(&Secret::new("new".to_owned()));
    let change = AccountChange { password: Some(hashed), ..AccountChange::default() };
    directory.set_account(&address("anna@example.test"), change).await.unwrap();
    assert!(login("anna@example.test", "pw-Anna").await.is_err());
    for _ in 0..2 {
        assert!(login("anna@example.test", "new").await.is_ok() && login("anna@example.test", "old").await.is_err());
    }
    directory
        .set_account(&address("anna@example.test"), AccountChange { enabled: Some(false), ..AccountChange::default() })
        .await
        .unwrap();
    assert!(login("anna@example.test", "new").await.is_err());
}

async fn the_registry_refuses_what_would_break_it(directory: &Registry) {
    let domain = "example.test".parse().unwrap();
    assert!(matches!(
        directory.add_domain("Example.Test".parse().unwrap(), None).await,
        Err(RegistryError::Exists { .. })
    ));
    assert!(matches!(directory.delete_domain(domain).await, Err(RegistryError::Refused { .. })));
    assert!(matches!(
        directory.put_alias("anna@example.test", vec![address("bert@example.test")], false).await,
        Err(RegistryError::Exists { .. })
    ));
    assert!(matches!(
        directory.put_alias("x@example.test", vec![address("a@elsewhere.test")], false).await,
        Err(RegistryError::Refused { .. })
    ));
    assert!(matches!(directory.delete_tenant("Alpine").await, Err(RegistryError::Refused { .. })));
    assert!(matches!(
        directory.add_tenant("C", TenantKind::Customer, Some("Bakery".to_owned())).await,
        Err(RegistryError::Refused { .. })
    ));
    assert!(matches!(
        directory.delete_account(&address("nobody@example.test")).await,
        Err(RegistryError::Missing { .. })
    ));
    let page = directory
        .accounts(Listing { limit: 1, after: "anna@example.test".to_owned(), ..Listing::default() })
        .await
        .unwrap();
    assert_eq!(page[0].address.to_string(), "bert@example.test");
}

async fn an_alias_address_may_be_used_as_sender(directory: &Registry) {
    directory.put_alias("sales@example.test", vec![address("anna@example.test")], false).await.unwrap();
    directory.put_alias("@example.test", vec![address("anna@example.test")], false).await.unwrap();
    let anna = directory.account_by_address(&address("anna@example.test")).await.unwrap().unwrap();
    let senders: Vec<String> =
        directory.sender_addresses(anna.id).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(senders, ["Anna@example.test", "sales@example.test"]);
}

async fn listings_come_in_pages(directory: &Registry) {
    let names = |found: Vec<String>| found.join(" ");
    directory.add_domain("xn--bcher-kva.test".parse().unwrap(), None).await.unwrap();
    let domains = directory.domains(Listing { search: "kva".to_owned(), ..Listing::default() }).await.unwrap();
    assert_eq!(domains.iter().map(|domain| domain.name.as_str()).collect::<Vec<_>>(), ["xn--bcher-kva.test"]);
    for (alias, targets) in [("b", ["bert", "Anna"]), ("a", ["Anna", "bert"]), ("c", ["bert", "bert"])] {
        let targets = targets.map(|name| address(&format!("{name}@example.test"))).to_vec();
        directory.put_alias(&format!("{alias}@example.test"), targets, false).await.unwrap();
    }
    // A page holds whole aliases, however many targets they have.
    let page = directory.aliases(Listing { limit: 2, search: "anna".to_owned(), ..Listing::default() }).await.unwrap();
    assert_eq!(names(page.iter().map(|alias| alias.address.clone()).collect()), "a@example.test b@example.test");
    assert_eq!(names(page[1].targets.iter().map(ToString::to_string).collect()), "anna@example.test bert@example.test");
    let after = Listing { after: "a@example.test".to_owned(), limit: 1, ..Listing::default() };
    assert_eq!(directory.aliases(after).await.unwrap()[0].address, "b@example.test");
    let domain = Some("xn--bcher-kva.test".parse().unwrap());
    assert!(directory.accounts(Listing { domain, ..Listing::default() }).await.unwrap().is_empty());
    let tenants = directory.tenants().await.unwrap();
    assert_eq!(
        (tenants[1].name.as_str(), tenants[1].parent.as_deref(), tenants[1].domains),
        ("Bakery", Some("Alpine"), 1)
    );
    directory.rename_tenant("BAKERY", "Bäckerei").await.unwrap();
    let domains = directory.domains(Listing::default()).await.unwrap();
    assert_eq!((domains[0].tenant.as_deref(), domains[0].accounts, domains[0].aliases), (Some("Bäckerei"), 2, 3));
    directory.set_domain_tenant("example.test".parse().unwrap(), None).await.unwrap();
    directory.delete_tenant("Bäckerei").await.unwrap();
    let ids = directory.account_ids().await.unwrap();
    assert_eq!(ids.len(), 2);
    let quota = QuotaChange { size: Some(Some(base::ByteSize(5))), messages: None };
    let changed = AccountChange { quota, ..AccountChange::default() };
    directory.set_account(&address("bert@example.test"), changed).await.unwrap();
    let bert = directory.account(ids[1]).await.unwrap().unwrap();
    assert_eq!((bert.quota.size, bert.name.as_str(), bert.enabled), (Some(base::ByteSize(5)), "bert", true));
    directory.delete_account(&address("bert@example.test")).await.unwrap();
    assert_eq!(directory.aliases(Listing::default()).await.unwrap().len(), 2, "an alias without targets goes");
    let carl = directory.add_account(account("carl")).await.unwrap();
    assert!(carl > ids[1], "numbers are never used again");
}

async fn an_account_that_may_not_send_is_let_again_by_a_new_password(directory: &Registry) {
    let anna = address("anna@example.test");
    let account = directory.account_by_address(&anna).await.unwrap().unwrap();
    assert_eq!(account.sending_lock, None);
    assert!(directory.lock_sending(&account, "score 13.0").await.unwrap());
    assert!(!directory.lock_sending(&account, "again").await.unwrap(), "it stays as it was");
    let reason = async || {
        let account = directory.account(account.id).await.unwrap().unwrap();
        account.sending_lock.map(|lock| lock.reason)
    };
    assert_eq!(reason().await.as_deref(), Some("score 13.0"));
    assert!(sign_in(directory, "anna@example.test", "pw-Anna").await.is_ok(), "she reads on");
    let allow = AccountChange { sending: Some(None), ..AccountChange::default() };
    directory.set_account(&anna, allow).await.unwrap();
    assert_eq!(reason().await, None);
    directory.lock_sending(&account, "score 14.0").await.unwrap();
    let named = AccountChange { name: Some("Anna".to_owned()), ..AccountChange::default() };
    directory.set_account(&anna, named).await.unwrap();
    assert_eq!(reason().await.as_deref(), Some("score 14.0"));
    let password = crate::PasswordHash::make(&Secret::new("new".to_owned()));
    directory.set_account(&anna, AccountChange { password: Some(password), ..AccountChange::default() }).await.unwrap();
    assert_eq!(reason().await, None);
}

async fn limits_come_from_account_domain_and_tenants(directory: &Registry) {
    let ids = directory.account_ids().await.unwrap();
    let limit = |messages| QuotaChange { size: None, messages: Some(messages) };
    assert_eq!(directory.limits(ids[0]).await.unwrap().unwrap().pools, []);
    let (domain, quota) = directory.set_domain_quota("example.test".parse().unwrap(), limit(Some(10))).await.unwrap();
    assert_eq!((quota.messages, quota.size), (Some(10), None));
    let (bakery, _) = directory.set_tenant_quota("BAKERY", limit(Some(20))).await.unwrap();
    let (alpine, _) = directory.set_tenant_quota("Alpine", limit(Some(30))).await.unwrap();
    directory.add_tenant("Other", TenantKind::Customer, None).await.unwrap();
    directory.set_tenant_quota("Other", limit(Some(1))).await.unwrap();
    let own = QuotaChange { size: Some(Some(base::ByteSize(7))), messages: Some(Some(3)) };
    let changed = AccountChange { quota: own, ..AccountChange::default() };
    directory.set_account(&address("anna@example.test"), changed).await.unwrap();
    let limits = directory.limits(ids[0]).await.unwrap().unwrap();
    assert_eq!((limits.quota.size, limits.quota.messages), (Some(base::ByteSize(7)), Some(3)));
    let pools: Vec<_> = limits.pools.iter().map(|(pool, quota)| (*pool, quota.messages)).collect();
    assert_eq!(pools, [(domain, Some(10)), (alpine, Some(30)), (bakery, Some(20))]);
    for pool in [domain, bakery, alpine] {
        assert_eq!(directory.pool_accounts(pool).await.unwrap(), ids, "{pool:?}");
    }
    directory.set_tenant_quota("Bakery", limit(None)).await.unwrap();
    assert_eq!(directory.limits(ids[1]).await.unwrap().unwrap().pools.len(), 2);
    assert_eq!(directory.tenants().await.unwrap()[0].quota.messages, Some(30));
    assert_eq!(directory.domains(Listing::default()).await.unwrap()[0].quota.messages, Some(10));
    let unknown = directory.set_domain_quota("none.test".parse().unwrap(), limit(None)).await;
    assert!(matches!(unknown, Err(RegistryError::Missing { .. })));
    assert!(directory.limits(base::AccountId(999)).await.unwrap().is_none());
}

fn legacy(capture: bool) -> LegacyChange {
    LegacyChange {
        imap: Some(Some("mail.old.example:143".parse().unwrap())),
        delivery: Some(Some("lmtp+none://192.0.2.7:24".parse().unwrap())),
        capture_passwords: Some(capture),
        ..LegacyChange::default()
    }
}

fn on(server: Option<&str>) -> AccountChange {
    AccountChange { legacy: Some(server.map(str::to_owned)), ..AccountChange::default() }
}

fn key(selector: &str, domain: &str) -> DomainKey {
    DomainKey {
        domain: domain.to_owned(),
        selector: selector.to_owned(),
        kind: "rsa".to_owned(),
        state: KeyState::Prepared,
        private: Secret::new(vec![7, 7]),
        public: "cHVi".to_owned(),
        created_at: UtcMillis(1),
        changed_at: UtcMillis(1),
    }
}

async fn signs(directory: &Registry, domain: &str) -> String {
    let keys = directory.signing_keys(domain).await.unwrap();
    keys.iter().map(DomainKey::name).collect::<Vec<_>>().join(" ")
}

async fn keys_come_and_go_with_their_domain(directory: &Registry) {
    directory.add_key(key("one", "example.test")).await.unwrap();
    directory.add_key(key("two", "example.test")).await.unwrap();
    directory.add_key(key("one", "mx.isp.test")).await.unwrap();
    assert!(matches!(directory.add_key(key("one", "example.test")).await, Err(RegistryError::Exists { .. })));
    for selector in ["", "A", "a b", "-a", "a..b", &"a".repeat(64)] {
        let refused = directory.add_key(key(selector, "example.test")).await;
        assert!(matches!(refused, Err(RegistryError::Refused { .. })), "{selector}");
    }
    assert_eq!(signs(directory, "example.test").await, "");
    directory.set_key_state("example.test", "two", KeyState::Active).await.unwrap();
    directory.set_key_state("mx.isp.test", "one", KeyState::Active).await.unwrap();
    assert_eq!(signs(directory, "Example.test").await, "two._domainkey.example.test");
    assert_eq!(signs(directory, "a.b.example.test").await, "two._domainkey.example.test");
    assert_eq!(signs(directory, "otherexample.test").await, "");
    assert_eq!(signs(directory, "isp.test").await, "");
    let which = KeyListing { state: Some(KeyState::Prepared), ..KeyListing::default() };
    assert_eq!(directory.keys(which).await.unwrap()[0].name(), "one._domainkey.example.test");
    let after = ("example.test".to_owned(), "one".to_owned());
    let page = directory.keys(KeyListing { after, limit: 1, ..KeyListing::default() }).await.unwrap();
    assert_eq!(page.iter().map(DomainKey::name).collect::<Vec<_>>(), ["two._domainkey.example.test"]);
    // What is retired cannot sign again.
    directory.set_key_state("example.test", "two", KeyState::Retired).await.unwrap();
    assert_eq!(signs(directory, "example.test").await, "");
    let which = KeyListing { state: Some(KeyState::Retired), ..KeyListing::default() };
    assert!(directory.keys(which).await.unwrap()[0].private.reveal().is_empty());
    assert!(directory.set_key_state("example.test", "two", KeyState::Active).await.is_err());
    assert!(matches!(
        directory.set_key_state("example.test", "no", KeyState::Active).await,
        Err(RegistryError::Missing { .. })
    ));
    directory.delete_key("example.test", "two").await.unwrap();
    assert!(matches!(directory.delete_key("example.test", "two").await, Err(RegistryError::Missing { .. })));
    directory.add_domain("fresh.test".parse().unwrap(), None).await.unwrap();
    directory.add_key(key("one", "fresh.test")).await.unwrap();
    directory.delete_domain("fresh.test".parse().unwrap()).await.unwrap();
    let of_gone = KeyListing { domain: Some("fresh.test".to_owned()), ..KeyListing::default() };
    assert!(directory.keys(of_gone).await.unwrap().is_empty());
    assert_eq!(directory.keys(KeyListing::default()).await.unwrap().len(), 2);
}

async fn accounts_on_a_legacy_server_are_known_there(directory: &Registry) {
    let (anna, domain) = (address("anna@example.test"), || "example.test".parse().unwrap());
    directory.add_legacy("old", legacy(false)).await.unwrap();
    assert!(matches!(directory.add_legacy("old", legacy(false)).await, Err(RegistryError::Exists { .. })));
    for name in ["", "none", "a b", &"x".repeat(61)] {
        assert!(
            matches!(directory.add_legacy(name, legacy(false)).await, Err(RegistryError::Refused { .. })),
            "{name}"
        );
    }
    let missing = directory.set_account(&anna, on(Some("older"))).await;
    assert!(matches!(missing, Err(RegistryError::Missing { .. })), "{missing:?}");
    assert!(sign_in(directory, "anna@example.test", "pw-Anna").await.is_ok());
    directory.set_account(&anna, on(Some("old"))).await.unwrap();
    // Whatever the password: only the old server knows.
    let Err(LoginError::Elsewhere(elsewhere)) = sign_in(directory, "ANNA@example.test", "x").await else { panic!() };
    assert_eq!((elsewhere.account.name.as_str(), elsewhere.server.name.as_str()), ("Anna", "old"));
    assert_eq!(elsewhere.server.imap.as_ref().unwrap().host, "mail.old.example");
    let path = ForwardPath::Address(address("anna+x@example.test"));
    let Resolution::Local(found) = directory.resolve(&path).await.unwrap() else { panic!() };
    assert_eq!(found[0].legacy.as_deref(), Some("old"));
    // A change of the server counts at once.
    let moved = LegacyChange { imap: Some(None), ..LegacyChange::default() };
    directory.set_legacy("old", moved).await.unwrap();
    let Err(LoginError::Elsewhere(elsewhere)) = sign_in(directory, "anna@example.test", "x").await else { panic!() };
    assert!(elsewhere.server.imap.is_none() && elsewhere.server.delivery.is_some());
    assert!(matches!(directory.set_legacy("older", legacy(false)).await, Err(RegistryError::Missing { .. })));
    assert!(matches!(directory.delete_legacy("old").await, Err(RegistryError::Refused { .. })));
    // A disabled account is refused as ever.
    let change = AccountChange { enabled: Some(false), ..AccountChange::default() };
    directory.set_account(&anna, change).await.unwrap();
    assert!(matches!(sign_in(directory, "anna@example.test", "x").await, Err(LoginError::Refused { .. })));
    directory.set_account(&anna, on(None)).await.unwrap();
    // New accounts of the domain.
    directory.set_domain_legacy(domain(), Some("old".to_owned())).await.unwrap();
    assert_eq!(directory.domains(Listing::default()).await.unwrap()[0].legacy.as_deref(), Some("old"));
    directory.add_account(account("carl")).await.unwrap();
    let here = NewAccount { placement: Placement::Here, ..account("dora") };
    directory.add_account(here).await.unwrap();
    let wrong = NewAccount { placement: Placement::Legacy("older".to_owned()), ..account("emil") };
    assert!(directory.add_account(wrong).await.is_err());
    let of = async |name: &str| {
        directory.account_by_address(&address(&format!("{name}@example.test"))).await.unwrap().map(|found| found.legacy)
    };
    assert_eq!(of("carl").await, Some(Some("old".to_owned())));
    assert_eq!((of("dora").await, of("emil").await, of("bert").await), (Some(None), None, Some(None)));
    assert_eq!(directory.legacies().await.unwrap()[0].accounts, 1);
    directory.set_domain_legacy(domain(), None).await.unwrap();
    directory.delete_account(&address("carl@example.test")).await.unwrap();
    directory.delete_legacy("old").await.unwrap();
    assert_eq!(directory.legacies().await.unwrap(), []);
}

async fn a_password_is_captured_where_that_is_wanted(directory: &Registry) {
    let anna = address("anna@example.test");
    let tell = async |password: &str| {
        let Err(LoginError::Elsewhere(elsewhere)) = sign_in(directory, "anna@example.test", password).await else {
            panic!("anna is on the old server")
        };
        directory.accepted_elsewhere(&elsewhere, &Secret::new(password.to_owned())).await.unwrap();
    };
    directory.add_legacy("old", legacy(false)).await.unwrap();
    directory.set_account(&anna, on(Some("old"))).await.unwrap();
    tell("hers").await;
    directory.set_account(&anna, on(None)).await.unwrap();
    assert!(sign_in(directory, "anna@example.test", "hers").await.is_err(), "it was not wanted");
    directory.set_legacy("old", legacy(true)).await.unwrap();
    directory.set_account(&anna, on(Some("old"))).await.unwrap();
    for password in ["hers", "hers", "changed"] {
        tell(password).await;
    }
    let Err(LoginError::Elsewhere(late)) = sign_in(directory, "anna@example.test", "").await else { panic!() };
    directory.set_account(&anna, on(None)).await.unwrap();
    assert!(sign_in(directory, "anna@example.test", "changed").await.is_ok());
    // What the old server says after the move no longer counts.
    directory.accepted_elsewhere(&late, &Secret::new("late".to_owned())).await.unwrap();
    assert!(sign_in(directory, "anna@example.test", "late").await.is_err());
    assert!(sign_in(directory, "anna@example.test", "changed").await.is_ok());
}

#[tokio::test]
async fn a_directory_goes_to_postgresql_and_back() {
    let Some(server) = Server::start() else { return };
    let (here, beyond) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, there, back) = (embedded(here.path()), on_server(&server, "copied").await, embedded(beyond.path()));
    fill(&first).await;
    first.add_legacy("old", legacy(true)).await.unwrap();
    first.set_account(&address("bert@example.test"), on(Some("old"))).await.unwrap();
    first.set_domain_legacy("example.test".parse().unwrap(), Some("old".to_owned())).await.unwrap();
    first.put_alias("both@example.test", vec![address("anna@example.test")], false).await.unwrap();
    let gone = first.add_account(account("gone")).await.unwrap();
    first.delete_account(&address("gone@example.test")).await.unwrap();
    let (anna, bert) = (id_of(&first, "anna").await, id_of(&first, "bert").await);
    let (_, phone) = first.add_app_password(anna, "Phone", &[Protocol::Imap], None).await.unwrap();
    let (_, token) = first.add_api_token(anna, "Billing", &["*:read".to_owned()], None).await.unwrap();
    first.grant(anna, Grant { role: Role::Auditor, reach: Reach::System }, "bert").await.unwrap();
    first.begin_second_factor(bert).await.unwrap();
    first.set_forwards(bert, &[address("b@elsewhere.test"), address("a@elsewhere.test")], false).await.unwrap();
    first.add_domain_alias(&"example.org".parse().unwrap(), &"example.test".parse().unwrap()).await.unwrap();
    first.note_audit("bert", "grant-role", "anna", Position::SYSTEM).await.unwrap();
    let secret = first.system_secret("srs").await.unwrap();
    for (from, to, target) in [(&first, &there, "bert"), (&there, &back, "anna")] {
        assert_ne!(from.compare_with(to).await.unwrap(), [""; 0]);
        assert!(from.copy_to(to).await.unwrap());
        assert_eq!(from.compare_with(to).await.unwrap(), [""; 0]);
        assert!(!from.copy_to(to).await.unwrap(), "once is enough");
        assert!(sign_in(to, "anna@example.test", "pw-Anna").await.is_ok());
        assert!(sign_in(to, "anna@example.test", phone.reveal()).await.is_ok());
        assert_eq!(to.api_token(token.reveal()).await.unwrap().map(|token| token.account), Some(anna));
        assert_eq!(to.system_secret("srs").await.unwrap(), secret);
        assert_eq!(leads_to(to, "anna@example.org").await, "Anna");
        // What changes since comes along; a number that was given is not given again.
        let target = vec![address(&format!("{target}@example.test"))];
        from.put_alias("both@example.test", target, true).await.unwrap();
        assert!(from.copy_to(to).await.unwrap());
        assert_eq!(from.compare_with(to).await.unwrap(), [""; 0]);
    }
    assert_eq!(back.legacies().await.unwrap(), first.legacies().await.unwrap());
    assert!(back.add_account(account("new")).await.unwrap() > gone);
    // An account that the source does not have, and one under another's number.
    assert!(matches!(first.copy_to(&back).await, Err(RegistryError::Refused { .. })));
    first.add_account(account("other")).await.unwrap();
    let refused = first.copy_to(&back).await.unwrap_err().to_string();
    assert!(refused.contains("the account new@example.test"), "{refused}");
}

/// A column that a later version adds must go along too.
#[tokio::test]
async fn every_column_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let directory = embedded(folder.path());
    let text = "SELECT m.name || '.' || c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
                WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY 1";
    let found = directory.place().ask(text, &[engine::table::Kind::Text]).await.unwrap();
    let found: Vec<String> = found.iter().map(|row| row[0].to_string()).collect();
    let of = |table: &engine::table::Table| {
        table.columns.iter().map(|(column, _)| format!("{}.{column}", table.name)).collect::<Vec<_>>()
    };
    let mut copied: Vec<String> = crate::copy::tables().iter().flat_map(of).collect();
    copied.sort();
    assert_eq!(found, copied);
}

pub(crate) fn change(what: impl FnOnce(&mut AccountChange)) -> AccountChange {
    let mut change = AccountChange::default();
    what(&mut change);
    change
}

pub(crate) fn password(text: &str) -> AccountChange {
    change(|change| change.password = Some(format!("{{PLAIN}}{text}").parse().unwrap()))
}

async fn held(directory: &Registry, name: &str, password: &str) -> crate::Hold {
    let account = sign_in(directory, &format!("{name}@example.test"), password).await.unwrap();
    directory.hold(account.id, Some(account.rights)).await
}

async fn what_a_password_opened_ends_with_it(directory: &Registry) {
    let (anna, bert) = (held(directory, "anna", "pw-Anna").await, held(directory, "bert", "pw-bert").await);
    let again = held(directory, "anna", "pw-Anna").await;
    drop(again);
    // Neither ends anything.
    let renamed = change(|change| (change.name, change.enabled) = (Some("Anna G.".to_owned()), Some(true)));
    directory.set_account(&address("anna@example.test"), renamed).await.unwrap();
    assert!(!anna.has_ended());
    directory.set_account(&address("anna@example.test"), password("new")).await.unwrap();
    anna.ended().await;
    assert!(!bert.has_ended(), "it is somebody else's");
    let anna = held(directory, "anna", "new").await;
    directory
        .set_account(&address("anna@example.test"), change(|change| change.access = Some(Access::Admin)))
        .await
        .unwrap();
    anna.ended().await;
    let anna = held(directory, "anna", "new").await;
    directory.set_account(&address("anna@example.test"), change(|change| change.enabled = Some(false))).await.unwrap();
    anna.ended().await;
    directory.delete_account(&address("bert@example.test")).await.unwrap();
    bert.ended().await;
    // One who signed in just before the change, and is served only now.
    let stale = sign_in(directory, "bert@example.test", "pw-bert").await;
    assert!(stale.is_err());
    let id = directory.account_by_address(&address("anna@example.test")).await.unwrap().unwrap().id;
    assert!(directory.hold(id, Some(crate::Rights(1))).await.has_ended());
}

pub(crate) fn web_session(number: u8, account: base::AccountId, used_at: base::UtcMillis) -> crate::WebSession {
    crate::WebSession { digest: [number; 32], account, csrf: format!("token {number}"), opened_at: used_at, used_at }
}

async fn browsers_stay_signed_in_until_something_ends_it(directory: &Registry) {
    let now = SystemClock.utc();
    let hours = |count: i64| base::UtcMillis(now.0 - count * 3_600_000);
    let id = |name| async move { directory.account_by_address(&address(name)).await.unwrap().unwrap().id };
    let (anna, bert) = (id("anna@example.test").await, id("bert@example.test").await);
    for (number, account, used_at) in [
        (1, anna, now),
        (2, anna, hours(13)),
        (3, bert, hours(1)),
        (4, bert, now),
        (5, bert, hours(13)),
        (6, bert, now),
    ] {
        directory.open_web_session(web_session(number, account, used_at)).await.unwrap();
    }
    let found = async |number: u8| directory.use_web_session(&[number; 32]).await.unwrap();
    assert_eq!(found(1).await, Some(web_session(1, anna, now)));
    assert_eq!(found(2).await, None, "idle for too long");
    let used = found(3).await.unwrap();
    assert!(used.used_at.0 >= now.0 && used.opened_at == hours(1), "{used:?}");
    assert_eq!(found(3).await, Some(used), "that it was used is kept");
    directory.close_web_session(&[4; 32]).await.unwrap();
    assert_eq!((found(4).await, found(9).await), (None, None));
    directory.tidy().await.unwrap();
    // As old as can be, though it is used.
    let old = crate::WebSession { opened_at: hours(24 * 7 + 1), ..web_session(7, anna, now) };
    directory.open_web_session(old).await.unwrap();
    assert_eq!(found(7).await, None);
    // Many: those of others stay.
    for number in 100..=150 {
        let used_at = base::UtcMillis(now.0 + i64::from(number));
        directory.open_web_session(web_session(number, anna, used_at)).await.unwrap();
    }
    assert!(found(1).await.is_none() && found(100).await.is_none() && found(101).await.is_some());
    assert!(found(3).await.is_some() && found(6).await.is_some());
    // What takes a password away takes its browsers along.
    directory
        .set_account(&address("anna@example.test"), change(|change| change.name = Some("A".to_owned())))
        .await
        .unwrap();
    assert!(found(150).await.is_some());
    directory.set_account(&address("anna@example.test"), password("new")).await.unwrap();
    assert!(found(150).await.is_none() && found(101).await.is_none() && found(3).await.is_some());
    directory.delete_account(&address("bert@example.test")).await.unwrap();
    assert!(found(3).await.is_none() && found(6).await.is_none());
}

#[tokio::test]
async fn what_one_node_revokes_ends_on_the_others() {
    let Some(server) = Server::start() else { return };
    let (one, other) = (on_server(&server, "postgres").await, on_server(&server, "postgres").await);
    fill(&one).await;
    other.refresh().await.unwrap();
    let (anna, bert) = (held(&other, "anna", "pw-Anna").await, held(&other, "bert", "pw-bert").await);
    one.set_account(&address("anna@example.test"), password("new")).await.unwrap();
    // The caches of this node still let the old one in.
    let late = held(&other, "anna", "pw-Anna").await;
    assert!(!anna.has_ended());
    other.refresh().await.unwrap();
    anna.ended().await;
    late.ended().await;
    assert!(!bert.has_ended());
    one.delete_account(&address("bert@example.test")).await.unwrap();
    other.refresh().await.unwrap();
    bert.ended().await;
    // Whoever signed in with what is new is not taken for old, whatever this node's caches say.
    let id = other.account_by_address(&address("anna@example.test")).await.unwrap().unwrap().id;
    other.account(id).await.unwrap();
    one.set_account(&address("anna@example.test"), password("newest")).await.unwrap();
    let rights = sign_in(&one, "anna@example.test", "newest").await.unwrap().rights;
    assert!(!other.hold(id, Some(rights)).await.has_ended());
}
