//! Domains whose mail goes on to servers of their own.

use mail::{Address, Domain, ForwardPath};
use net::{MailHost, Trust};

use crate::tests::{address, contract_in_time, id_of, told};
use crate::{Directory as _, DomainRelay, Login, Protocol, Registry, Resolution, Verify};

contract_in_time!(
    mail_of_a_domain_goes_on,
    what_a_server_has_is_put_in_once,
    a_relayed_account_opens_no_mailbox,
    a_postmaster_is_the_domains_own,
    who_reads_the_mail_signs_in_once,
);

fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

fn relay(hosts: &[&str], verify: Verify) -> DomainRelay {
    let hosts = hosts.iter().map(|host| MailHost::parse(host, 25).unwrap()).collect();
    DomainRelay { hosts, lmtp: false, trust: Trust::Fingerprint([7; 32]), verify }
}

async fn mail_of_a_domain_goes_on(directory: &Registry, _: &base::FakeClock) {
    assert_eq!(directory.relayed_domains().await.unwrap(), []);
    let hosts = ["mx.customer.test", "starttls://[2001:db8::1]:2525", "none://192.0.2.1:25"];
    let wanted = relay(&hosts, Verify::Ask);
    directory.set_domain_relay(&domain("example.test"), Some(wanted.clone())).await.unwrap();
    directory.add_domain_alias(&domain("example.org"), &domain("example.test")).await.unwrap();
    let found = directory.relayed_domains().await.unwrap();
    assert_eq!((found.len(), &found[0].name, &found[0].relay), (1, &domain("example.test"), &wanted));
    assert_eq!(found[0].aliases, [domain("example.org")]);
    assert_eq!(directory.domain(&domain("example.test")).await.unwrap().unwrap().relay, Some(wanted));
    assert!(directory.account_by_id(id_of(directory, "anna").await).await.unwrap().unwrap().is_relayed);

    let other = DomainRelay { lmtp: true, trust: Trust::System, ..relay(&["lmtp.customer.test:24"], Verify::List) };
    directory.set_domain_relay(&domain("example.test"), Some(other.clone())).await.unwrap();
    assert_eq!(directory.relayed_domains().await.unwrap()[0].relay, other);
    for (name, relay, expected) in [
        ("no.test", Some(other.clone()), "missing"),
        ("no.test", None, "missing"),
        ("example.test", Some(relay(&[], Verify::All)), "refused"),
        ("example.test", Some(relay(&["h.test"; 9], Verify::All)), "refused"),
        ("example.test", Some(DomainRelay { trust: Trust::Authorities("x".to_owned()), ..other.clone() }), "refused"),
        ("example.test", None, "done"),
    ] {
        assert_eq!(told(&directory.set_domain_relay(&domain(name), relay).await), expected, "{name}");
    }
    assert_eq!(directory.relayed_domains().await.unwrap(), []);
    assert!(!directory.account_by_id(id_of(directory, "anna").await).await.unwrap().unwrap().is_relayed);
}

async fn leads_to(directory: &Registry, address: &Address) -> String {
    match directory.resolve(&ForwardPath::Address(address.clone())).await.unwrap() {
        Resolution::Local(found) => found.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

async fn what_a_server_has_is_put_in_once(directory: &Registry, _: &base::FakeClock) {
    directory.set_domain_relay(&domain("example.test"), Some(relay(&["mx.test"], Verify::Ask))).await.unwrap();
    directory.add_domain_alias(&domain("example.org"), &domain("example.test")).await.unwrap();
    let carl = address("Carl@example.test");
    assert_eq!(leads_to(directory, &carl).await, "UnknownAddress");
    let Resolution::Local(first) = directory.take_in(&carl).await.unwrap() else { panic!("nobody") };
    assert_eq!(leads_to(directory, &carl).await, "carl@example.test");
    // Under another name of the domain, in other letters, with a detail: the same account, and the address that was written.
    for (written, kept) in [
        ("carl@example.org", "carl@example.test"),
        ("CARL@example.test", "CARL@example.test"),
        ("carl+shop@example.test", "carl+shop@example.test"),
    ] {
        let Resolution::Local(found) = directory.take_in(&address(written)).await.unwrap() else { panic!("nobody") };
        assert_eq!((found[0].account, found[0].address.to_string()), (first[0].account, kept.to_owned()));
    }
    assert_eq!(directory.account_ids().await.unwrap().len(), 3);
    assert_eq!(directory.take_in(&address("carl@elsewhere.test")).await.unwrap(), Resolution::ForeignDomain);
}

async fn a_relayed_account_opens_no_mailbox(directory: &Registry, _: &base::FakeClock) {
    let password = base::Secret::new("pw-Anna".to_owned());
    let peer = "192.0.2.77".parse().unwrap();
    for is_relayed in [false, true] {
        if is_relayed {
            let relay = relay(&["mx.test"], Verify::List);
            directory.set_domain_relay(&domain("example.test"), Some(relay)).await.unwrap();
        }
        for protocol in Protocol::ALL {
            let login = Login { name: "anna@example.test", password: &password, protocol, peer, code: None };
            let reads_mail = matches!(protocol, Protocol::Imap | Protocol::Pop3 | Protocol::ManageSieve);
            let opened = directory.authenticate(login).await.is_ok();
            assert_eq!(opened, !(is_relayed && reads_mail), "{protocol:?} {is_relayed}");
        }
    }
}

async fn who_reads_the_mail_signs_in_once(directory: &Registry, clock: &base::FakeClock) {
    let bert = async || directory.account_by_address(&address("bert@example.test")).await.unwrap().unwrap();
    assert!(directory.make_sign_in_link(&bert().await).await.unwrap().is_none(), "its mailbox is here");
    let relay = relay(&["mx.test"], Verify::List);
    directory.set_domain_relay(&domain("example.test"), Some(relay)).await.unwrap();
    let link = directory.make_sign_in_link(&bert().await).await.unwrap().unwrap();
    assert!(directory.make_sign_in_link(&bert().await).await.unwrap().is_none(), "a moment ago");
    assert_eq!(directory.take_sign_in_link("other").await.unwrap(), None);
    let taken = directory.take_sign_in_link(link.reveal()).await.unwrap();
    assert_eq!(taken.map(|account| account.id), Some(bert().await.id));
    assert_eq!(directory.take_sign_in_link(link.reveal()).await.unwrap(), None, "once");

    let first = directory.make_sign_in_link(&bert().await).await.unwrap().unwrap();
    clock.advance(std::time::Duration::from_secs(120));
    let second = directory.make_sign_in_link(&bert().await).await.unwrap().unwrap();
    assert_eq!(directory.take_sign_in_link(first.reveal()).await.unwrap(), None, "the last one counts");
    clock.advance(std::time::Duration::from_secs(1800));
    assert_eq!(directory.take_sign_in_link(second.reveal()).await.unwrap(), None, "too late");
    let anna = directory.account_by_address(&address("anna@example.test")).await.unwrap().unwrap();
    let role = access::Grant { role: access::Role::Auditor, reach: access::Reach::System };
    directory.grant(anna.id, role, "bert").await.unwrap();
    let anna = directory.account_by_address(&address("anna@example.test")).await.unwrap().unwrap();
    assert!(directory.make_sign_in_link(&anna).await.unwrap().is_none(), "staff");
}

async fn a_postmaster_is_the_domains_own(directory: &Registry, _: &base::FakeClock) {
    let postmaster = address("postmaster@example.test");
    let before = leads_to(directory, &postmaster).await;
    for (verify, expected) in [(Verify::List, before.as_str()), (Verify::Ask, "UnknownAddress")] {
        directory.set_domain_relay(&domain("example.test"), Some(relay(&["mx.test"], verify))).await.unwrap();
        assert_eq!(leads_to(directory, &postmaster).await, expected, "{verify:?}");
    }
}
