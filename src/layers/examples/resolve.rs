//! What a recipient's policy costs: `cargo run --release -p layers --example resolve`.
//!
//! A thousand domains of a hundred customers each say something, and so does every tenth account. Prints microseconds for
//! each policy: put together the first time, and found again.

use std::sync::Arc;
use std::time::Duration;

use access::Position;
use base::{AccountId, Clock as _, DomainId, SystemClock, TenantId};
use layers::{Edit, Layers, Owner};
use policy::{Layer, Level};

const DOMAINS: u64 = 1000;
const ACCOUNTS: u64 = 20_000;

fn position(account: u64) -> Position {
    let domain = account % DOMAINS + 1;
    Position {
        reseller: Some(TenantId(1)),
        customer: Some(TenantId(domain % 100 + 2)),
        domain: Some(DomainId(domain)),
        account: Some(AccountId(account)),
    }
}

fn each(took: Duration, count: u64) -> f64 {
    took.as_secs_f64() * 1e6 / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let file = Layer::parse(Level::System, "policy.toml", "reject-score = { ceiling = 20 }")?;
    let layers = Layers::open(&folder.path().join("policy.sqlite"), Arc::new(SystemClock), file)?;
    let by = ("bench", "bench");
    for domain in 1..=DOMAINS {
        let above = Owner::above(position(domain - 1));
        let at: Vec<Owner> = above.into_iter().filter(|owner| owner.level <= Level::Domain).collect();
        layers.set(&at, &[Edit::value("quarantine-score", "7")], None, by).await?;
    }
    for account in (0..ACCOUNTS / 10).map(|nth| nth * 10) {
        layers.set(&Owner::above(position(account)), &[Edit::value("tag-score", "2.5")], None, by).await?;
    }
    for round in ["put together", "found again", "found again"] {
        let begun = SystemClock.now();
        for account in 0..ACCOUNTS {
            std::hint::black_box(layers.effective(position(account)).await?);
        }
        let took = SystemClock.now().duration_since(begun);
        println!("{ACCOUNTS} policies {round}: {:.2} us each", each(took, ACCOUNTS));
    }
    Ok(())
}
