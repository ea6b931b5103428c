use std::sync::Arc;

use base::{Secret, SystemClock};
use mail::{Address, ForwardPath};

use crate::{
    Access, AccountChange, Directory, EmbeddedDirectory, Listing, Login, LoginError, LoginGuard, NewAccount, Protocol,
    RegistryError, Resolution, TenantKind,
};

struct Fixture {
    directory: EmbeddedDirectory,
    _folder: tempfile::TempDir,
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let directory = EmbeddedDirectory::open(
        &folder.path().join("directory.sqlite"),
        Arc::new(SystemClock),
        Some(address("anna@example.test")),
        LoginGuard::new(true),
    )
    .unwrap();
    directory.add_tenant("Alpine", TenantKind::Reseller, None).await.unwrap();
    directory.add_tenant("Bakery", TenantKind::Customer, Some("alpine".to_owned())).await.unwrap();
    directory.add_domain("example.test".parse().unwrap(), Some("Bakery".to_owned())).await.unwrap();
    for name in ["Anna", "bert"] {
        directory
            .add_account(NewAccount {
                address: address(&format!("{name}@example.test")),
                name: name.to_owned(),
                access: Access::User,
                password: format!("{{PLAIN}}pw-{name}").parse().unwrap(),
                quota: base::Quota::UNLIMITED,
            })
            .await
            .unwrap();
    }
    Fixture { directory, _folder: folder }
}

/// Local parts that `to` leads to, with details; or the kind of refusal.
async fn leads_to(directory: &EmbeddedDirectory, to: &str) -> String {
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

#[tokio::test]
async fn addresses_lead_to_accounts() {
    let Fixture { directory, _folder } = fixture().await;
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
        assert_eq!(leads_to(&directory, to).await, expected, "{to}");
    }
    directory.put_alias("@example.test", vec![address("bert@example.test")], false).await.unwrap();
    assert_eq!(leads_to(&directory, "carl@example.test").await, "bert");
    directory.delete_account(&address("bert@example.test")).await.unwrap();
    assert_eq!(leads_to(&directory, "carl@example.test").await, "unknown");
    assert_eq!(leads_to(&directory, "team@example.test").await, "Anna");
}

#[tokio::test]
async fn only_the_right_password_signs_in_and_a_change_counts_at_once() {
    let Fixture { directory, _folder } = fixture().await;
    let login = async |name: &str, password: &str| {
        let password = Secret::new(password.to_owned());
        let peer = "127.0.0.1".parse().unwrap();
        directory.authenticate(Login { name, password: &password, protocol: Protocol::Imap, peer }).await
    };
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

#[tokio::test]
async fn the_registry_refuses_what_would_break_it() {
    let Fixture { directory, _folder } = fixture().await;
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

#[tokio::test]
async fn an_alias_address_may_be_used_as_sender() {
    let Fixture { directory, _folder } = fixture().await;
    directory.put_alias("sales@example.test", vec![address("anna@example.test")], false).await.unwrap();
    directory.put_alias("@example.test", vec![address("anna@example.test")], false).await.unwrap();
    let anna = directory.account_by_address(&address("anna@example.test")).await.unwrap().unwrap();
    let senders: Vec<String> =
        directory.sender_addresses(anna.id).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(senders, ["Anna@example.test", "sales@example.test"]);
}
