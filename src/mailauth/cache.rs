//! DNS answers in memory: bounded in number, each kept until it expires.

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mail_auth::{DnsCache, Mx, Negative, RecordSet, ResolverCache, TxtRecord};
use moka::Expiry;
use moka::sync::Cache;

type Answer<T> = Result<RecordSet<T>, Negative>;

/// One kind of record.
pub(crate) struct Answers<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static>(
    Cache<K, (V, Instant)>,
);

struct UntilExpired;

impl<K, V> Expiry<K, (V, Instant)> for UntilExpired {
    fn expire_after_create(&self, _: &K, value: &(V, Instant), now: Instant) -> Option<Duration> {
        Some(value.1.saturating_duration_since(now).min(TTL_MAX))
    }

    fn expire_after_update(
        &self,
        key: &K,
        value: &(V, Instant),
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, value, now)
    }
}

/// A zone may ask for weeks; a mistake in it should not last that long here.
const TTL_MAX: Duration = Duration::from_secs(86_400);

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Answers<K, V> {
    fn of_at_most(entries: u64) -> Self {
        Self(Cache::builder().max_capacity(entries).expire_after(UntilExpired).build())
    }
}

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> ResolverCache<K, V> for Answers<K, V> {
    fn get<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(name).map(|(value, _)| value)
    }

    fn remove<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.remove(name).map(|(value, _)| value)
    }

    fn insert(&self, key: K, value: V, valid_until: Instant) {
        self.0.insert(key, (value, valid_until));
    }
}

/// All that the resolver remembers.
pub(crate) struct AnswerCache {
    pub txt: Answers<Box<str>, TxtRecord>,
    pub mx: Answers<Box<str>, Answer<Mx>>,
    pub ipv4: Answers<Box<str>, Answer<Ipv4Addr>>,
    pub ipv6: Answers<Box<str>, Answer<Ipv6Addr>>,
    pub ptr: Answers<IpAddr, Answer<Box<str>>>,
    /// Texts and names of name servers, which the library has no cache for. Empty: there are none.
    pub texts: Answers<Box<str>, Arc<[Box<str>]>>,
    pub name_servers: Answers<Box<str>, Arc<[Box<str>]>>,
    pub mail_hosts: Answers<Box<str>, Arc<[Box<str>]>>,
}

impl AnswerCache {
    pub fn of_at_most(entries: u64) -> Self {
        Self {
            txt: Answers::of_at_most(entries),
            mx: Answers::of_at_most(entries),
            ipv4: Answers::of_at_most(entries),
            ipv6: Answers::of_at_most(entries),
            ptr: Answers::of_at_most(entries),
            texts: Answers::of_at_most(entries),
            name_servers: Answers::of_at_most(entries),
            mail_hosts: Answers::of_at_most(entries),
        }
    }
}

impl DnsCache for AnswerCache {
    type Txt = Answers<Box<str>, TxtRecord>;
    type Mx = Answers<Box<str>, Answer<Mx>>;
    type Ipv4 = Answers<Box<str>, Answer<Ipv4Addr>>;
    type Ipv6 = Answers<Box<str>, Answer<Ipv6Addr>>;
    type Ptr = Answers<IpAddr, Answer<Box<str>>>;

    fn txt(&self) -> Option<&Self::Txt> {
        Some(&self.txt)
    }
    fn mx(&self) -> Option<&Self::Mx> {
        Some(&self.mx)
    }
    fn ipv4(&self) -> Option<&Self::Ipv4> {
        Some(&self.ipv4)
    }
    fn ipv6(&self) -> Option<&Self::Ipv6> {
        Some(&self.ipv6)
    }
    fn ptr(&self) -> Option<&Self::Ptr> {
        Some(&self.ptr)
    }
}
