use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, SystemClock};
use config::Role;
use engine::postgres::{PgSettings, Pool, Server};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::counters::{PgSums, Sums};
use crate::leases::{LeaseTable, PgLeases};

fn settings(name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        address: Some(format!("{name}.test:25999")),
        roles: vec![Role::Filter, Role::Store],
        version: "0.1.0".to_owned(),
    }
}

struct Node {
    membership: Arc<Membership>,
    stop: CancellationToken,
    task: tokio::task::JoinSet<()>,
    _folder: tempfile::TempDir,
}

async fn membership(server: &PgSettings, name: &str, folder: &tempfile::TempDir) -> Arc<Membership> {
    let pool = crate::open(server).await.unwrap();
    Arc::new(Membership::on(pool, folder.path(), settings(name), &SystemClock).await.unwrap())
}

impl Node {
    async fn start(server: &PgSettings, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let membership = membership(server, name, &folder).await;
        membership.enter().await.unwrap();
        let (stop, mut task) = (CancellationToken::new(), tokio::task::JoinSet::new());
        let (at, stopped) = (Arc::clone(&membership), stop.clone());
        task.spawn(async move { at.run(|| Beat { sessions: 7, health: "{}".into() }, stopped).await });
        Self { membership, stop, task, _folder: folder }
    }

    /// As a node that is told to.
    async fn stop(mut self) {
        self.stop.cancel();
        self.task.join_next().await.unwrap().unwrap();
    }

    /// Until this node sees the others so, `name state` each.
    async fn sees(&self, states: &str) {
        let mut watch = self.membership.watch();
        let told = |view: &View| {
            let each = view.members.iter().map(|one| format!("{} {}", one.name, one.state().as_str()));
            each.collect::<Vec<_>>().join(", ")
        };
        let seen = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(|view| told(view) == states)).await;
        assert!(seen.is_ok(), "not {states}, but {}", told(&self.membership.view()));
    }
}

fn homes(node: &Node) -> Vec<String> {
    let view = node.membership.view();
    let home = |account| view.elsewhere(AccountId(account)).map_or(node.membership.name(), |one| &one.name).to_owned();
    (1..=300).map(home).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_see_each_other_come_drain_go_and_die() {
    let Some(server) = Server::start() else { return };
    let settings = server.settings(2);
    let (a, b, c) =
        (Node::start(&settings, "a").await, Node::start(&settings, "b").await, Node::start(&settings, "c").await);
    for node in [&a, &b, &c] {
        node.sees("a up, b up, c up").await;
    }
    let all = homes(&a);
    assert_eq!((&all, &all), (&homes(&b), &homes(&c)));
    assert!(["a", "b", "c"].iter().all(|name| all.iter().filter(|home| home == name).count() > 60));

    // Drained by another one; asked again, it is the same.
    a.membership.set_wish("b", Wish::Drain).await.unwrap();
    a.sees("a up, b draining, c up").await;
    b.sees("a up, b draining, c up").await;
    assert!(b.membership.is_draining() && !a.membership.is_draining());
    let without = homes(&c);
    assert!(all.iter().zip(&without).all(|(was, is)| if was == "b" { is != "b" } else { is == was }));
    assert!(matches!(a.membership.set_wish("x", Wish::Drain).await, Err(ClusterError::NoNode(name)) if name == "x"));
    assert!(matches!(a.membership.remove("b").await, Err(ClusterError::IsUp(_))));
    c.membership.set_wish("b", Wish::Serve).await.unwrap();
    c.sees("a up, b up, c up").await;
    assert_eq!(homes(&c), all);
    assert_eq!(a.membership.list().await.unwrap()[1].sessions, 7);

    // One is stopped and says so; one dies and says nothing.
    b.stop().await;
    a.sees("a up, b down, c up").await;
    drop(c);
    a.sees("a up, b down, c down").await;
    assert!(homes(&a).iter().all(|home| home == "a"));
    a.membership.remove("b").await.unwrap();
    a.sees("a up, c down").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_belongs_to_one_node_at_a_time() {
    let Some(server) = Server::start() else { return };
    let settings = server.settings(2);
    let first = Node::start(&settings, "a").await;
    let folder = tempfile::tempdir().unwrap();
    let second = membership(&settings, "a", &folder).await;
    let taken = second.enter().await;
    assert!(matches!(&taken, Err(ClusterError::NameTaken { name, .. }) if name == "a"), "{taken:?}");
    // Its own next start is no other node, even right after it was killed.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(first._folder.path().join("node.id"), folder.path().join("node.id")).unwrap();
    membership(&settings, "a", &folder).await.enter().await.unwrap();
    first.stop().await;
    second.enter().await.unwrap();
    std::fs::write(folder.path().join("node.id"), "nonsense").unwrap();
    let broken =
        Membership::on(crate::open(&settings).await.unwrap(), folder.path(), super::tests::settings("b"), &SystemClock)
            .await;
    assert!(broken.is_err_and(|error| error.to_string().contains("node.id")));
}

/// A node that is not heard by the server keeps what it knew, and is there again as soon as it is heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_nodes_keep_what_they_knew() {
    let Some(server) = Server::start() else { return };
    let settings = server.settings(2);
    let (a, b) = (Node::start(&settings, "a").await, Node::start(&settings, "b").await);
    a.sees("a up, b up").await;
    let before = homes(&a);
    server.control(&["-m", "immediate", "stop"]);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(homes(&a), before);
    server.control(&["start"]);
    // Rows of before are old; each is heard of again.
    b.sees("a up, b up").await;
    a.sees("a up, b up").await;
    // Removed by mistake while it was silent: it enters again.
    Pool::new(settings).query("DELETE FROM node WHERE name = 'b' RETURNING 1", &[]).await.unwrap();
    a.sees("a up, b up").await;
}

#[tokio::test]
async fn a_node_alone_is_its_own_cluster() {
    let alone = Membership::alone(settings("solo"), &SystemClock);
    assert_eq!(alone.list().await.unwrap()[0].state(), State::Down);
    assert!(matches!(alone.set_wish("solo", Wish::Drain).await, Err(ClusterError::NotRunning(_))));
    alone.enter().await.unwrap();
    assert_eq!(alone.list().await.unwrap()[0].state(), State::Up);
    assert_eq!(alone.view().elsewhere(AccountId(1)), None);
    assert!(matches!(alone.remove("solo").await, Err(ClusterError::Alone)));
}

/// Where nodes meet: the server, or what simulations have in its place; each with its time.
struct Meeting {
    leases: Arc<dyn LeaseTable>,
    sums: [Box<dyn Sums>; 2],
    clock: Arc<dyn base::Clock>,
}

fn meetings(pool: &Arc<Pool>) -> [Meeting; 2] {
    let world = crate::sim::World::new(1);
    let way = |node: &str| crate::sim::Way { world: Arc::clone(&world), node: node.to_owned() };
    let sums = || -> Box<dyn Sums> { Box::new(PgSums { pool: Arc::clone(pool) }) };
    let leases = Arc::new(PgLeases { pool: Arc::clone(pool) });
    [
        Meeting { leases, sums: [sums(), sums()], clock: Arc::new(SystemClock) },
        Meeting { leases: Arc::new(way("a")), sums: [Box::new(way("a")), Box::new(way("b"))], clock: world.clock(0) },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_one_nodes_until_its_time_is_over() {
    let Some(server) = Server::start() else { return };
    let pool = crate::open(&server.settings(2)).await.unwrap();
    let short = Duration::from_millis(600);
    for Meeting { leases, clock, .. } in meetings(&pool) {
        let [a, b] = ["a", "b"].map(|node| Leases::with(Arc::clone(&leases), node, Arc::clone(&clock)));
        let mut first = a.take("gc", short).await.unwrap().unwrap();
        assert!(b.take("gc", short).await.unwrap().is_none() && b.take("audit", short).await.unwrap().is_some());
        // Kept for longer than it was taken.
        for _ in 0..10 {
            tokio::time::sleep(short / 5).await;
            assert!(first.keep().await && first.is_held());
        }
        assert!(b.take("gc", short).await.unwrap().is_none());
        // Its node stands still.
        tokio::time::sleep(short + Duration::from_millis(50)).await;
        assert!(!first.is_held());
        let second = b.take("gc", short).await.unwrap().unwrap();
        assert!(second.fence() > first.fence() && !first.keep().await && !first.is_held());
        // Given up, it is another one's at once; given up too late, it stays where it is.
        second.give_up().await;
        let third = a.take("gc", short).await.unwrap().unwrap();
        first.give_up().await;
        assert!(third.is_held() && b.take("gc", short).await.unwrap().is_none());
        // A node that starts again goes on, and what its former life held is lost.
        let mut again = a.take("gc", short).await.unwrap().unwrap();
        assert!(again.fence() > third.fence() && again.keep().await);
    }
    let alone = Leases::alone(Arc::new(SystemClock));
    let mut lease = alone.take("gc", Duration::ZERO).await.unwrap().unwrap();
    assert!(lease.is_held() && lease.keep().await);
}

/// Nobody gets it before the transaction that relies on it has ended; nothing is committed after it was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_checks_its_lease_is_never_late() {
    let Some(server) = Server::start() else { return };
    let pool = crate::open(&server.settings(4)).await.unwrap();
    let own = Pool::new(server.settings(1));
    let clock: Arc<dyn base::Clock> = Arc::new(SystemClock);
    let [a, b] = ["a", "b"].map(|node| Arc::new(Leases::on(Arc::clone(&pool), node, Arc::clone(&clock))));
    let lease = a.take("gc", Duration::from_millis(100)).await.unwrap().unwrap();
    let sql = own.begin(false).await.unwrap();
    lease.check(&sql).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Over, but relied on.
    let mut taking = tokio::task::JoinSet::new();
    let other = taking.spawn(async move { b.take("gc", Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!other.is_finished());
    sql.end(Ok::<_, engine::EngineError>(())).await.unwrap();
    let other = taking.join_next().await.unwrap().unwrap().unwrap().unwrap();
    assert!(other.is_held());
    let sql = own.begin(false).await.unwrap();
    let lost = lease.check(&sql).await;
    assert!(matches!(&lost, Err(LeaseLost::Lost(name)) if name == "gc"), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_count_together() {
    let Some(server) = Server::start() else { return };
    let pool = crate::open(&server.settings(2)).await.unwrap();
    for Meeting { sums, clock, .. } in meetings(&pool) {
        let nodes = sums.map(|sums| Arc::new(Counters::with(sums, Arc::clone(&clock))));
        let (stop, mut tasks) = (CancellationToken::new(), tokio::task::JoinSet::new());
        for node in &nodes {
            let (node, stop) = (Arc::clone(node), stop.clone());
            tasks.spawn(async move { node.run(stop).await });
        }
        let both = |key: &str| nodes.each_ref().map(|node| node.count(Counted::LOGIN_FAILURES, key));
        (0..3).for_each(|_| nodes[0].add(Counted::LOGIN_FAILURES, "192.0.2.1"));
        (0..4).for_each(|_| nodes[1].add(Counted::LOGIN_FAILURES, "192.0.2.1"));
        nodes[1].add(Counted::LOGIN_FAILURES, "192.0.2.2");
        assert_eq!(both("192.0.2.1"), [3, 4], "each counts at once what it sees itself");
        let together = async {
            while both("192.0.2.1") != [7, 7] || both("192.0.2.2") != [1, 1] {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), together).await.unwrap();
        // What a node saw last is told when it stops; one that starts hears of it.
        (0..2).for_each(|_| nodes[0].add(Counted::LOGIN_FAILURES, "192.0.2.2"));
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        let stop = CancellationToken::new();
        let (later, stopped) = (Arc::clone(&nodes[1]), stop.clone());
        tasks.spawn(async move { later.run(stopped).await });
        let told = async {
            while nodes[1].count(Counted::LOGIN_FAILURES, "192.0.2.2") != 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}

#[tokio::test]
async fn every_version_of_the_tables_is_worked_with() {
    let Some(server) = Server::start() else { return };
    let steps = crate::nodes::MIGRATIONS.iter().map(|step| step.text);
    let fixture = engine::fixture::Fixture::new(include_str!("fixtures/postgres.sql"), steps);
    for version in fixture.versions() {
        let at = PgSettings::parse(&server.database(&format!("version{version}")), 1).unwrap();
        fixture.make_postgres(&Pool::new(at.clone()), crate::nodes::COMPONENT, version).await;
        let pool = crate::open(&at).await.unwrap();
        let nodes = crate::nodes::Nodes { pool: Arc::clone(&pool) };
        let members = crate::nodes::Roll::list(&nodes).await.unwrap();
        assert_eq!((members[0].name.as_str(), members[0].wish, members[0].state()), ("mx1", Wish::Drain, State::Down));
        assert_eq!(members[0].health.is_some(), version >= 3);
        let lease = Leases::on(pool, "mx2", Arc::new(SystemClock)).take("gc", Duration::from_secs(9)).await;
        let fence = lease.unwrap().unwrap().fence();
        assert_eq!(fence, if version >= 2 { 42 } else { 1 });
    }
}
