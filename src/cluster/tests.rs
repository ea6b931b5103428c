use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, SystemClock};
use config::Role;
use engine::postgres::{PgSettings, Pool, Server};
use tokio_util::sync::CancellationToken;

use super::*;

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
    Arc::new(Membership::on(server, folder.path(), settings(name), &SystemClock).await.unwrap())
}

impl Node {
    async fn start(server: &PgSettings, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let membership = membership(server, name, &folder).await;
        membership.enter().await.unwrap();
        let (stop, mut task) = (CancellationToken::new(), tokio::task::JoinSet::new());
        let (at, stopped) = (Arc::clone(&membership), stop.clone());
        task.spawn(async move { at.run(|| 7, stopped).await });
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
    let broken = Membership::on(&settings, folder.path(), super::tests::settings("b"), &SystemClock).await;
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
