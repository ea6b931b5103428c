//! The server that takes writes dies or stands still under load: another takes its place, and what was acknowledged is there.

use std::time::{Duration, Instant};

use base::{Clock as _, SystemClock};

use super::postgres::add_accounts;
use crate::harness::{Load, Node, Patroni, Place, Stop, USERS, report, skip, wants_all};

/// SMTP clients of each node.
const SENDERS: usize = 3;
/// So many messages each node takes in every phase, at least.
const MORE: u32 = 25;
/// Between two answers that a protocol gives on one node.
const GAP_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_primary_dies_under_load_and_nothing_acknowledged_is_lost() {
    if !wants_all() {
        return skip("three PostgreSQL servers under Patroni run with ORTLER_TESTS=all");
    }
    let Some(mut cluster) = Patroni::start() else { return };
    let nodes = [0, 1].map(|_| Node::on_postgres(&cluster.url(), "postgresql_tls = \"off\""));
    add_accounts(&nodes[0], &USERS);
    let load = Load::new(nodes.iter().map(Place::of_node).collect(), SENDERS, None);
    let pids = nodes.each_ref().map(Node::pid);
    let began = SystemClock.now();
    std::thread::scope(|scope| {
        let _stop = Stop(&load);
        load.start(scope);
        load.go_on(MORE, GAP_MAX);
        for _ in 0..2 {
            let killed = fail_over(&load, &cluster, "host killed", Patroni::kill_host);
            cluster.revive(killed);
            cluster.wait_until_whole();
            load.go_on(MORE, GAP_MAX);
        }
        fail_over(&load, &cluster, "server killed", Patroni::kill_server);
        cluster.wait_until_whole();
        load.go_on(MORE, GAP_MAX);
        // The nodes find the other one while this one keeps their connections and answers nothing.
        let paused = fail_over(&load, &cluster, "host stands still", Patroni::pause_host);
        // It wakes and takes writes, but the nodes know better.
        cluster.wake_server(paused);
        load.go_on(MORE * 4, GAP_MAX);
        cluster.kill_host(paused);
        cluster.revive(paused);
        cluster.wait_until_whole();
        load.go_on(MORE, GAP_MAX);
    });
    assert_eq!(pids, nodes.each_ref().map(Node::pid));
    report(&format!("failover: four in {:.0?} of load", SystemClock.now() - began));
    tell_of_service(&load, began);
    for (what, is_mail) in [("mail", true), ("appended", false)] {
        let found = load.check_letters(&load.places()[usize::from(is_mail)], is_mail);
        assert!(found.acknowledged > 100, "only {} were taken", found.acknowledged);
        report(&format!(
            "failover, {what}: {} acknowledged, none lost; {} refused for now after their content, {} not answered; {} \
             copies too many",
            found.acknowledged, found.refused, found.unanswered, found.doubled
        ));
    }
    let flags = load.check_flags(&load.places()[1]);
    assert!(flags > 50, "only {flags} flags were set");
    report(&format!("failover: {flags} flags acknowledged, all there"));
    nodes[0].command(&["audit", "--deep", "--json"]);
    let book = load.book();
    assert!(book.faults.is_empty(), "not what a client should hear: {:#?}", book.faults);
    assert!(book.left.is_empty(), "left without a word: {:#?}", book.left);
}

/// Does `harm` to the primary, and waits until the nodes serve with another. Gives the harmed one.
#[track_caller]
fn fail_over(load: &Load, cluster: &Patroni, what: &str, harm: fn(&Patroni, usize)) -> usize {
    let (primary, began) = (cluster.primary().unwrap(), SystemClock.now());
    harm(cluster, primary);
    cluster.wait_for_another(primary);
    let elected = SystemClock.now() - began;
    load.go_on(MORE, GAP_MAX);
    let passed = SystemClock.now() - began;
    report(&format!("failover, {what}: another primary after {elected:.1?}, mail on both nodes after {passed:.1?}"));
    primary
}

/// Says how long each protocol gave no answer, per node: none may be without service for long.
fn tell_of_service(load: &Load, began: Instant) {
    let gaps = load.gaps_since(began);
    let book = load.book();
    let mut lines: Vec<String> = Vec::new();
    for (of, gap) in gaps {
        let (answers, refused) = (book.answers[&of].len(), book.refused.get(&of).copied().unwrap_or(0));
        let ((name, node), longest) = (of, gap.length());
        lines.push(format!("{name} on node {node}: {answers} answers, {refused} refusals, longest gap {longest:.1?}"));
        assert!(longest < GAP_MAX, "{name} on node {node} gave no answer for {longest:?}");
    }
    assert_eq!(lines.len(), 10, "{lines:?}");
    lines.sort();
    report(&format!("failover: {}", lines.join("; ")));
}
