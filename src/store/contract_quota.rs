//! What every engine must do about quota, with deliveries side by side.

use std::time::Duration;

use base::{AccountId, ByteSize, DomainId, PoolId, Quota, TenantId};

use crate::contract::{EVERYTHING, Subject};
use crate::error::AppendError;
use crate::model::{Committed, OverQuota, Role, SystemFlags, Target, Usage};

/// Size of what [`deliver`] delivers, with its prefix.
const SIZE: u64 = 230;

fn size(octets: u64) -> Quota {
    Quota { size: Some(ByteSize(octets)), messages: None }
}

async fn deliver(s: &Subject, account: AccountId) -> Result<Committed, AppendError> {
    let delivery = s.delivery(account, &"x".repeat(200), Target::Role(Role::Inbox)).await;
    s.mail.deliver(vec![delivery]).await.remove(0)
}

/// Delivers to the accounts in turn from all nodes at once; gives how many were taken. The others were over quota.
async fn deliver_all(nodes: &[Subject], accounts: &[AccountId], count: usize) -> u64 {
    let mut tasks = tokio::task::JoinSet::new();
    for ((s, account), _) in nodes.iter().cycle().zip(accounts.iter().cycle()).zip(0..count) {
        let (s, account) = (s.clone(), *account);
        tasks.spawn(async move { deliver(&s, account).await });
    }
    let mut accepted = 0;
    for result in tasks.join_all().await {
        match result {
            Ok(_) => accepted += 1,
            Err(AppendError::OverQuota(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    accepted
}

pub(crate) async fn quota_is_never_overshot(s: &Subject, account: AccountId) {
    s.mail.set_quota(account, size(1000)).await.unwrap();
    let accepted = deliver_all(std::slice::from_ref(s), &[account], 20).await;
    let usage = s.mail.usage(account).await.unwrap();
    assert_eq!((accepted, usage.messages, usage.size), (4, 4, ByteSize(4 * SIZE)));
    assert!(!usage.has_room(ByteSize(SIZE)) && usage.has_room(ByteSize(1)));
    let inbox = s.mailbox(account, "INBOX").await;
    let copy = s.mail.copy(account, inbox.id, vec![EVERYTHING], inbox.id).await;
    assert!(matches!(copy, Err(AppendError::OverQuota(OverQuota::Size { .. }))));

    // In messages, whatever their size.
    s.mail.set_quota(account, Quota { size: None, messages: Some(6) }).await.unwrap();
    assert_eq!(deliver_all(std::slice::from_ref(s), &[account], 20).await, 2);
    let refused = deliver(s, account).await;
    assert!(matches!(refused, Err(AppendError::OverQuota(OverQuota::Messages { used: 6, limit: 6 }))));
    let own = s.own("x", SystemFlags::SEEN).await;
    assert!(matches!(s.mail.append(account, inbox.id, vec![own]).await, Err(AppendError::OverQuota(_))));

    // What is there already stays.
    s.mail.set_quota(account, size(1)).await.unwrap();
    assert_eq!(s.mail.usage(account).await.unwrap().messages, 6);
    s.mail.expunge(account, inbox.id, vec![EVERYTHING], false).await.unwrap();
    assert_eq!(s.mail.usage(account).await.unwrap(), Usage { quota: size(1), ..Usage::default() });
}

/// However often mail is refused meanwhile, what another deletes is found soon.
pub(crate) async fn a_dry_pool_is_asked_again(s: &Subject, first: u64) {
    let pool = PoolId::Domain(DomainId(first));
    let [full, other] = [AccountId(first), AccountId(first + 1)];
    s.mail.set_pool(pool, size(4 * SIZE)).await.unwrap();
    for account in [full, other] {
        s.mail.set_pools(account, vec![pool]).await.unwrap();
        assert_eq!(deliver_all(std::slice::from_ref(s), &[account], 2).await, 2);
    }
    let mut taken_after = None;
    for second in 0..20 {
        let delivered = deliver(s, full).await;
        if second < 8 {
            assert!(
                matches!(delivered, Err(AppendError::OverQuota(OverQuota::Pool { .. }))),
                "{second}: {delivered:?}"
            );
        } else if delivered.is_ok() {
            taken_after = Some(second - 8);
            break;
        }
        s.clock.advance(Duration::from_secs(1));
        if second == 7 {
            let inbox = s.mailbox(other, "INBOX").await;
            s.mail.expunge(other, inbox.id, vec![EVERYTHING], false).await.unwrap();
        }
    }
    assert!(taken_after.is_some_and(|seconds| seconds <= 6), "{taken_after:?}");
}

/// Of the many accounts that could give back, one delivery bothers a bounded number.
pub(crate) async fn some_give_back_for_one_delivery(s: &Subject, first: u64) {
    const DRAWN: u64 = 64 << 20;
    let pool = PoolId::Domain(DomainId(first));
    let accounts: Vec<AccountId> = (first..=first + 40).map(AccountId).collect();
    s.mail.set_pool(pool, size(1 << 50)).await.unwrap();
    for account in &accounts {
        s.mail.set_pools(*account, vec![pool]).await.unwrap();
    }
    assert_eq!(deliver_all(std::slice::from_ref(s), &accounts[..40], 40).await, 40);
    let before = s.mail.pool(pool).await.unwrap().allotted_size;
    assert_eq!(before.0, 40 * DRAWN);
    s.mail.set_pool(pool, size(before.0)).await.unwrap();
    deliver(s, accounts[40]).await.unwrap();
    let after = s.mail.pool(pool).await.unwrap().allotted_size;
    assert!(after < before && after.0 > 8 * DRAWN, "{after}");
}

/// Who sets again what is so already, takes nothing away and wakes nobody.
pub(crate) async fn limits_that_stay_change_nothing(s: &Subject, first: u64) {
    let pools = [first, first + 1].map(|id| PoolId::Domain(DomainId(id)));
    let (account, limit) = (AccountId(first), size(100 * SIZE));
    s.mail.set_pool(pools[0], limit).await.unwrap();
    s.mail.set_pool(pools[1], size(2 * SIZE)).await.unwrap();
    s.mail.set_pools(account, pools.to_vec()).await.unwrap();
    deliver(s, account).await.unwrap();
    let again = async || {
        s.mail.set_pool(pools[0], limit).await.unwrap();
        s.mail.set_pool(pools[1], size(2 * SIZE)).await.unwrap();
        s.mail.set_pools(account, vec![pools[1], pools[0], pools[1]]).await.unwrap();
    };
    // What it gave back stays allotted to it.
    let inbox = s.mailbox(account, "INBOX").await;
    s.mail.expunge(account, inbox.id, vec![EVERYTHING], false).await.unwrap();
    let before = s.mail.pool(pools[0]).await.unwrap();
    again().await;
    assert!(before.allotted_size.0 >= SIZE);
    assert_eq!(s.mail.pool(pools[0]).await.unwrap(), before);
    // A pool known to be full stays so.
    assert_eq!(deliver_all(std::slice::from_ref(s), &[account], 3).await, 2);
    assert!(s.mail.usage(account).await.unwrap().is_pool_dry);
    again().await;
    assert!(s.mail.usage(account).await.unwrap().is_pool_dry);
    s.mail.set_pool(pools[1], size(3 * SIZE)).await.unwrap();
    assert!(!s.mail.usage(account).await.unwrap().is_pool_dry);
    deliver(s, account).await.unwrap();
}

/// Accounts of two domains of one customer, on several nodes.
pub(crate) async fn pools_are_never_overshot(nodes: &[Subject], first: u64) {
    let s = &nodes[0];
    let [here, there] = [first, first + 1].map(|id| PoolId::Domain(DomainId(id)));
    let customer = PoolId::Tenant(TenantId(first));
    let accounts: Vec<AccountId> = (first..first + 6).map(AccountId).collect();
    let (in_here, in_there) = accounts.split_at(3);

    // One has mail already: it counts at once.
    deliver(s, in_here[0]).await.unwrap();
    s.mail.set_pool(here, size(20 * SIZE)).await.unwrap();
    s.mail.set_pool(customer, Quota { size: Some(ByteSize(30 * SIZE + 1)), messages: Some(1000) }).await.unwrap();
    for (nth, account) in accounts.iter().enumerate() {
        s.mail.set_pools(*account, vec![if nth < 3 { here } else { there }, customer]).await.unwrap();
    }
    assert_eq!(s.mail.pool(here).await.unwrap().size, ByteSize(SIZE));

    // Not one too many, and not one too few: what others were allotted and do not use flows back.
    assert_eq!(deliver_all(nodes, in_here, 60).await, 19);
    assert_eq!(s.mail.pool(here).await.unwrap().messages, 20);
    assert!(matches!(deliver(s, in_here[1]).await, Err(AppendError::OverQuota(OverQuota::Pool { .. }))));
    assert_eq!(deliver_all(nodes, in_there, 60).await, 10);
    let (all, in_domain) = (s.mail.pool(customer).await.unwrap(), s.mail.pool(there).await.unwrap());
    assert_eq!((all.accounts, all.messages, all.size), (6, 30, ByteSize(30 * SIZE)));
    assert_eq!((in_domain.limit, in_domain.messages), (Quota::UNLIMITED, 10));
    assert!(all.allotted_size.0 <= 30 * SIZE + 1, "{all:?}");

    // Known to be full, until it is asked again.
    let is_full = async |account: AccountId| !s.mail.usage(account).await.unwrap().has_room(ByteSize(1));
    assert!(deliver(s, in_here[1]).await.is_err() && deliver(s, in_there[0]).await.is_err());
    assert!(is_full(in_there[0]).await);
    for node in nodes {
        node.clock.advance(Duration::from_secs(10));
    }

    // What one deletes, another may use.
    let inbox = s.mailbox(in_there[1], "INBOX").await;
    let gone = s.mail.expunge(in_there[1], inbox.id, vec![EVERYTHING], false).await.unwrap().0.len() as u64;
    assert!(gone > 0 && !is_full(in_there[0]).await);
    assert_eq!(deliver_all(nodes, &in_there[..1], 60).await, gone);

    // So does an account that leaves its pools, and one that is deleted.
    for node in nodes {
        node.clock.advance(Duration::from_secs(10));
    }
    s.mail.set_pools(in_there[0], vec![]).await.unwrap();
    s.mail.delete_account(in_there[2]).await.unwrap();
    let all = s.mail.pool(customer).await.unwrap();
    assert_eq!((all.accounts, all.messages), (4, 20));
    assert_eq!(deliver_all(nodes, &in_there[1..2], 60).await, 10);
    deliver(s, in_there[0]).await.unwrap();

    // By messages, and no limit at all.
    for node in nodes {
        node.clock.advance(Duration::from_secs(10));
    }
    s.mail.set_pool(here, Quota { size: None, messages: Some(23) }).await.unwrap();
    s.mail.set_pool(customer, Quota::UNLIMITED).await.unwrap();
    assert_eq!(deliver_all(nodes, in_here, 30).await, 3);
    s.mail.set_pool(here, Quota::UNLIMITED).await.unwrap();
    assert_eq!(deliver_all(nodes, in_here, 30).await, 30);
}
