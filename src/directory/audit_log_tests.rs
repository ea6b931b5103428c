//! What is on record, and who sees it.

use std::time::Duration;

use access::{Position, Reach};
use base::{AccountId, Clock as _, FakeClock};

use crate::tests::{contract_in_time, id_of};
use crate::{AuditEntry, Registry, TenantKind};

contract_in_time!(whoever_may_see_a_place_sees_what_was_done_there, the_log_comes_in_pages_and_is_forgotten_with_time,);

/// The objects, latest first.
fn objects(entries: &[AuditEntry]) -> String {
    entries.iter().map(|entry| entry.object.as_str()).collect::<Vec<_>>().join(" ")
}

async fn whoever_may_see_a_place_sees_what_was_done_there(directory: &Registry, clock: &FakeClock) {
    directory.add_tenant("Other", TenantKind::Customer, None).await.unwrap();
    directory.add_domain("other.test".parse().unwrap(), Some("Other".to_owned())).await.unwrap();
    let tenant = async |name: &str| directory.tenant(name).await.unwrap().unwrap();
    let (alpine, bakery, other) = (tenant("Alpine").await, tenant("Bakery").await, tenant("Other").await);
    let domain = async |name: &str| directory.domain(&name.parse().unwrap()).await.unwrap().unwrap();
    let (example, elsewhere) = (domain("example.test").await, domain("other.test").await);
    let (anna, bert) = (id_of(directory, "anna").await, id_of(directory, "bert").await);
    let position = async |id| directory.account_by_id(id).await.unwrap().unwrap().position;
    let of_anna = position(anna).await;
    let noted = [
        ("system", Position::SYSTEM),
        ("alpine", alpine.position),
        ("bakery", bakery.position),
        ("example", example.position),
        ("anna", of_anna),
        ("bert", position(bert).await),
        ("elsewhere", elsewhere.position),
    ];
    for (object, position) in noted {
        directory.note_audit("carl", "set", object, position).await.unwrap();
    }
    let (in_alpine, in_bakery) = (Reach::Tenant(alpine.id), Reach::Tenant(bakery.id));
    let (in_example, in_other) = (Reach::Domain(example.id), Reach::Tenant(other.id));
    for (within, own, expected) in [
        (&[][..], None, ""),
        (&[Reach::System], None, "elsewhere bert anna example bakery alpine system"),
        (&[in_alpine], None, "bert anna example bakery alpine"),
        (&[in_bakery], None, "bert anna example bakery"),
        (&[in_example], None, "bert anna example"),
        (&[in_other], None, "elsewhere"),
        (&[in_other, in_example], None, "elsewhere bert anna example"),
        (&[], Some(anna), "anna"),
        (&[in_other], Some(bert), "elsewhere bert"),
        (&[], Some(AccountId(999)), ""),
        (&[Reach::Domain(base::DomainId(999))], None, ""),
    ] {
        let found = directory.audit_log(within, own, None, 100).await.unwrap();
        assert_eq!(objects(&found), expected, "{within:?} {own:?}");
    }
    let found = directory.audit_log(&[], Some(anna), None, 100).await.unwrap();
    let told = (found[0].by.as_str(), found[0].action.as_str(), found[0].position, found[0].at);
    assert_eq!(told, ("carl", "set", of_anna, clock.utc()));
    // It stays on record when what it is about is gone.
    directory.delete_domain("other.test".parse().unwrap()).await.unwrap();
    assert_eq!(objects(&directory.audit_log(&[in_other], None, None, 100).await.unwrap()), "elsewhere");
}

async fn the_log_comes_in_pages_and_is_forgotten_with_time(directory: &Registry, clock: &FakeClock) {
    for object in ["a", "b", "c", "d", "e"] {
        directory.note_audit("carl", "set", object, Position::SYSTEM).await.unwrap();
        clock.advance(Duration::from_secs(60));
    }
    let page = async |below, limit| directory.audit_log(&[Reach::System], None, below, limit).await.unwrap();
    let (mut below, mut pages) = (None, Vec::new());
    loop {
        let found = page(below, 2).await;
        let Some(last) = found.last() else { break };
        below = Some(last.id);
        pages.push(objects(&found));
    }
    assert_eq!(pages, ["e d", "c b", "a"]);
    let all = page(None, 9).await;
    directory.tidy_audit(all[2].at).await.unwrap();
    assert_eq!(objects(&page(None, 9).await), "e d c", "what is older");
    // What cannot be shown on a line, or is too long for one.
    directory.note_audit("carl", "set", &format!("x\r\n\0{}", "ä".repeat(400)), Position::SYSTEM).await.unwrap();
    assert_eq!(page(None, 1).await[0].object, format!("x{}", "ä".repeat(299)));
}
