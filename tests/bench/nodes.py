#!/usr/bin/env python3
"""One, two and three nodes on one PostgreSQL server, all on this machine: tests/bench/nodes.py [--reps N] [--quick]

Root; a release build of Ortler must exist. As all share two cores, the rate says little: what counts is whether an operation
costs more CPU because there are more nodes, and how much of it is the server's. Each kind of work is spread evenly over the
nodes; sessions come in at any of them, so with N nodes all but one in N are led to another one. Medians, with span.
"""
import argparse, concurrent.futures, os, re, shutil, signal, statistics, subprocess, sys, time

from store import BINARY, Imap, OnPostgres, cpu, mailbench, prepare

USERS = 300


class Node:
    """One more on the same server."""

    password = "demo"

    def __init__(self, first, number):
        self.port = first.port + 1000 * number
        self.imap, self.lmtp, self.http = self.port + 143, self.port + 24, self.port + 80
        self.dir = f"{first.dir}/node{number}"
        os.makedirs(self.dir, exist_ok=True)
        text = open(first.config).read()
        text = re.sub(r'name = "[^"]*"', f'name = "mx{number}.example.test"', text, count=1)
        text = re.sub(r':(2\d)(\d\d\d)"', lambda found: f':{int(found[1]) + number}{found[2]}"', text)
        text = re.sub(r'data = "[^"]*"', f'data = "{self.dir}"', text, count=1)
        text += f'[[listener]]\nprotocol = "cluster"\naddress = "127.0.0.1:{self.port + 899}"\n'
        self.config = f"{self.dir}/ortler.toml"
        open(self.config, "w").write(text)
        self.process = subprocess.Popen([BINARY, "serve", "--config", self.config], stderr=open(f"{self.dir}/err", "w"))
        for _ in range(300):
            try:
                Imap(self, 1).close()
                return
            except (OSError, EOFError):
                time.sleep(0.1)
        sys.exit(f"node {number} does not start: {open(self.dir + '/err').read()}")

    def user(self, number):
        return f"user{number}@example.test"

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def measure(nodes, server, work):
    """Runs work(node) for all nodes at once; gives operations, seconds, CPU of the nodes and of the server."""
    roots = [node.process.pid for node in nodes]
    before = cpu(roots), cpu([server.postmaster]), time.time()
    with concurrent.futures.ThreadPoolExecutor(len(nodes)) as pool:
        done = sum(pool.map(work, nodes))
    took = time.time() - before[2]
    return done, took, cpu(roots) - before[0], cpu([server.postmaster]) - before[1]


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reps", type=int, default=3)
    options.add_argument("--quick", action="store_true")
    options = options.parse_args()
    work = prepare()
    scale = 0.2 if options.quick else 1.0
    found = {}
    os.mkdir(f"{work}/pg")
    server = OnPostgres(work, 21000, USERS)
    # The node that came with the server only made the tables.
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(60)
    nodes = []
    try:
        def deliver(count):
            messages, conns = int(3000 * scale / count), max(1, 16 // count)

            def one(node):
                got = mailbench("smtp", "--lmtp", "--addr", f"127.0.0.1:{node.lmtp}", "--conns", conns, "--messages", messages,
                                "--users", USERS, "--rcpt", "user{}@example.test")
                return got["accepted"]
            return one

        def read(count):
            rounds = int(600 * scale / count)

            def one(node):
                done = 0
                for number in range(rounds):
                    # Each node gets sessions of all accounts, as from a balancer.
                    client = Imap(node, (number * 7 + node.port // 1000 * 3) % USERS + 1)
                    client.ask("SELECT INBOX")
                    client.ask("UID FETCH 1:10 (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)")
                    client.ask("UID SEARCH UNSEEN")
                    client.ask("UID FETCH 1:2 BODY.PEEK[]")
                    client.ask("UID STORE 1 +FLAGS (\\Seen)")
                    client.close()
                    done += 1
                return done
            return one

        for rep in range(options.reps):
            for count in (1, 2, 3):
                while len(nodes) < count:
                    nodes.append(Node(server, len(nodes) + 1))
                time.sleep(6)
                for name, make in (("LMTP delivery, size mix", deliver), ("IMAP session", read)):
                    done, took, own, theirs = measure(nodes, server, make(count))
                    cells = found.setdefault((name, count), [])
                    cells.append((done / took, own / done * 1e3, theirs / done * 1e3))
                    print(f"{name} | {count} nodes | {done / took:.0f}/s | {own / done * 1e3:.2f} ms | {theirs / done * 1e3:.2f} ms", file=sys.stderr, flush=True)
            while nodes:
                nodes.pop().stop()
        print("| work | nodes | per second, on two cores in all | CPU of the nodes, ms per operation | CPU of the server, ms per operation |")
        print("|---|---|---|---|---|")
        for (name, count), cells in found.items():
            columns = []
            for at in range(3):
                values = [cell[at] for cell in cells]
                columns.append(f"{statistics.median(values):.3g} ({min(values):.3g}..{max(values):.3g})")
            print(f"| {name} | {count} | " + " | ".join(columns) + " |")
    finally:
        for node in nodes:
            node.stop()
        server.run("pg_ctl", "-D", f"{server.server}/data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
