//! Whether a list can be believed: it lists its test entry and does not list the world (RFC 5782 §5).

use std::net::Ipv4Addr;
use std::sync::Arc;

use mailauth::{Resolver, Unresolved};

use super::zone::Trouble;

/// What a list of addresses, and one of names, has to hold, and what neither may.
const LISTED_ADDRESS: &str = "2.0.0.127";
const UNLISTED_ADDRESS: &str = "1.0.0.127";
const LISTED_NAME: &str = "test";
const UNLISTED_NAME: &str = "invalid";

/// `zone` as it is asked. `listed`: what it holds, if that is told; `-` if there is nothing.
pub(super) async fn check(
    resolver: &Resolver,
    zone: &str,
    of_names: bool,
    listed: Option<&str>,
) -> Result<(), Trouble> {
    let unlisted = if of_names { UNLISTED_NAME } else { UNLISTED_ADDRESS };
    if let Some(answer) = ask(resolver, unlisted, zone).await? {
        return Err(trouble_in(&answer, of_names).unwrap_or(Trouble::ListsAll));
    }
    // Lists of names hold addresses too, and some have only the test entry of those.
    let names: &[&str] = match listed {
        Some("-") => return Ok(()),
        Some(name) => &[name],
        None if of_names => &[LISTED_NAME, LISTED_ADDRESS],
        None => &[LISTED_ADDRESS],
    };
    for name in names {
        if let Some(answer) = ask(resolver, name, zone).await? {
            return trouble_in(&answer, false).map_or(Ok(()), Err);
        }
    }
    Err(Trouble::ListsNothing)
}

fn trouble_in(answer: &[Ipv4Addr], of_names: bool) -> Option<Trouble> {
    answer.iter().find_map(|address| Trouble::told_by(*address, of_names))
}

async fn ask(resolver: &Resolver, name: &str, zone: &str) -> Result<Option<Arc<[Ipv4Addr]>>, Trouble> {
    match resolver.lookup_ipv4(&format!("{name}.{zone}")).await {
        Ok(answer) => Ok(Some(answer)),
        Err(Unresolved::Absent) => Ok(None),
        Err(Unresolved::Failed) => Err(Trouble::Silent),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mailauth::ResolverSettings;
    use mailauth::stub::StubServer;

    use super::*;

    #[tokio::test]
    async fn lists_show_what_they_are_worth() {
        let server = StubServer::start(
            "2.0.0.127.good.test A 127.0.0.2\n*.all.test A 127.0.0.2\n*.sold.test A 198.51.100.1\n\
             *.closed.test A 127.255.255.254\n1.0.0.127.silent.test TIMEOUT\n1.0.0.127.broken.test SERVFAIL\n\
             test.names.test A 127.0.1.2\n2.0.0.127.both.test A 127.0.0.14\n*.full.test A 127.0.0.1\n\
             own.private.test A 127.0.0.3\n2.0.0.127.refuses.test A 127.255.255.255\n",
        );
        let settings = ResolverSettings {
            name_servers: vec![server.address()],
            query_timeout: Duration::from_millis(100),
            ..ResolverSettings::default()
        };
        let resolver = Resolver::new(&settings).unwrap();
        let sold = Trouble::Foreign(Ipv4Addr::new(198, 51, 100, 1));
        let refuses = |last| Trouble::Refuses(Ipv4Addr::new(127, 255, 255, last));
        for (zone, of_names, listed, expected) in [
            ("good.test", false, None, Ok(())),
            ("all.test", false, None, Err(Trouble::ListsAll)),
            ("all.test", true, Some("-"), Err(Trouble::ListsAll)),
            ("sold.test", true, None, Err(sold)),
            ("closed.test", false, None, Err(refuses(254))),
            ("refuses.test", false, None, Err(refuses(255))),
            ("silent.test", false, None, Err(Trouble::Silent)),
            ("broken.test", false, None, Err(Trouble::Silent)),
            ("empty.test", false, None, Err(Trouble::ListsNothing)),
            ("empty.test", false, Some("-"), Ok(())),
            ("private.test", true, Some("own"), Ok(())),
            ("names.test", true, None, Ok(())),
            ("both.test", true, None, Ok(())),
            ("full.test", true, None, Err(Trouble::Refuses(Ipv4Addr::new(127, 0, 0, 1)))),
        ] {
            assert_eq!(check(&resolver, zone, of_names, listed).await, expected, "{zone}");
        }
    }
}
