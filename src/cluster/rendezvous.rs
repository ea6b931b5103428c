//! Rendezvous hashing (highest random weight): each node has a number for each account, and the highest wins. A node that
//! comes or goes moves its own share of the accounts and no other. All releases must give the same numbers.

use base::AccountId;

/// Of several names, the one where the account belongs; the same wherever it is asked, in whatever order.
pub(crate) fn choose<'a>(account: AccountId, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.max_by_key(|name| (weight(account, name), *name))
}

fn weight(account: AccountId, name: &str) -> u64 {
    mix(mix(account.0) ^ hash(name))
}

/// FNV-1a.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The last steps of SplitMix64: every bit of the input counts in every bit of the output.
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(account: u64, names: &[&'static str]) -> &'static str {
        choose(AccountId(account), names.iter().copied()).unwrap()
    }

    #[test]
    fn shares_are_even_and_only_a_leaving_nodes_share_moves() {
        let all = ["mx1.example.test", "mx2.example.test", "mx3.example.test", "mx4.example.test"];
        let mut shares = std::collections::BTreeMap::new();
        let mut moved = 0;
        for account in 1..=40_000 {
            let (before, after) = (of(account, &all), of(account, &all[..3]));
            *shares.entry(before).or_insert(0) += 1;
            assert!(before == after || before == all[3], "account {account} moved for nothing");
            moved += usize::from(before != after);
        }
        assert!(shares.values().all(|share| (9_500..=10_500).contains(share)), "{shares:?}");
        assert_eq!(moved, shares[all[3]]);
    }

    #[test]
    fn order_does_not_count_and_releases_agree() {
        assert_eq!(choose(AccountId(1), std::iter::empty()), None);
        let names = ["a", "b", "c"];
        let told: String = (1..=24).map(|account| of(account, &names)).collect();
        let turned: String = (1..=24).map(|account| of(account, &["c", "a", "b"])).collect();
        assert_eq!(told, turned);
        assert_eq!(told, AGREED);
    }

    /// Nodes of different releases serve side by side: this never changes.
    const AGREED: &str = "cccbaaccbbccbbcabaccaccb";
}
