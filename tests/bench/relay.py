#!/usr/bin/env python3
"""Mail that comes by SMTP and leaves by SMTP, beside Postfix in one run:
tests/bench/relay.py [--messages N] [--size OCTETS] [--sessions N] [--reps N]

Root; a release build of Ortler must exist, and the package postfix, whose smtp-source sends and whose smtp-sink takes. Both
servers lie on the same disk, keep each message there before they take it (durable commit, as each does by default), judge nothing,
and hand everything to the sink over one route, in the clear. A run counts from the first connection until the sink has all messages;
CPU is user and system time of the server's process tree.

With --waiting N, Ortler alone: N recipients wait for a server that is away; memory and CPU while they wait, then the server comes and takes them.
"""
import argparse, json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading, time

from store import BINARY, cpu, pss

MAIN = """compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.test
mydestination =
relayhost = [127.0.0.1]:{sink}
mynetworks = 127.0.0.0/8
relay_domains = *
disable_dns_lookups = yes
smtp_tls_security_level = none
maillog_file = {dir}/mail.log
maillog_file_prefixes = {dir}
default_process_limit = 200
smtpd_client_connection_count_limit = 0
default_destination_concurrency_limit = 50
initial_destination_concurrency = 50
smtpd_peername_lookup = no
"""

MASTER = """{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing answers at port {port}")


class Sink:
    """Takes mail and counts it."""

    def __init__(self, port=None):
        self.port, self.count = port or free_port(), 0
        command = ["smtp-sink", "-c", "-u", "postfix", f"127.0.0.1:{self.port}", "1000"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=self.read, daemon=True).start()
        wait_for(self.port)

    def read(self):
        text = b""
        while piece := os.read(self.process.stdout.fileno(), 65536):
            text = (text + piece)[-64:]
            numbers = re.findall(rb"(\d+)\r", text)
            if numbers:
                self.count = int(numbers[-1])

    def stop(self):
        self.process.kill()
        self.process.wait()


def start_postfix(folder, sink):
    conf, port = os.path.join(folder, "conf"), free_port()
    for name in ("conf", "queue", "data"):
        os.makedirs(os.path.join(folder, name))
    os.chmod(folder, 0o755)
    shutil.chown(os.path.join(folder, "data"), "postfix")
    with open(os.path.join(conf, "main.cf"), "w") as file:
        file.write(MAIN.format(dir=folder, sink=sink))
    with open(os.path.join(conf, "master.cf"), "w") as file:
        file.write(MASTER.format(port=port))
    subprocess.run(["postfix", "-c", conf, "start"], check=True, capture_output=True)
    wait_for(port)
    pid = int(open(os.path.join(folder, "queue", "pid", "master.pid")).read())
    return port, pid, lambda: subprocess.run(["postfix", "-c", conf, "abort"], capture_output=True)


def start_ortler(folder, sink):
    port, health = free_port(), free_port()
    route = f'[[route]]\nname = "sink"\nrecipients = ["sink.test"]\nhosts = ["none://127.0.0.1:{sink}"]\naccept = true\n'
    open(os.path.join(folder, "routes.toml"), "w").write(route)
    config = os.path.join(folder, "ortler.toml")
    open(config, "w").write(
        f'[node]\nname = "ortler.test"\ndata = "data"\n[dns]\nservers = ["127.0.0.1:9"]\n[queue]\nroutes = "routes.toml"\n'
        f'[filter]\njudged = []\n[smtp]\nsessions_per_client_max = 10000\n[log]\nlevel = "warn"\n'
        f'[[listener]]\nprotocol = "smtp"\naddress = "127.0.0.1:{port}"\n'
        f'[[listener]]\nprotocol = "health"\naddress = "127.0.0.1:{health}"\n'
    )
    log = open(os.path.join(folder, "log"), "w")
    process = subprocess.Popen([BINARY, "serve", "--config", config], stdout=log, stderr=log)
    wait_for(port)

    def stop():
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    return port, process.pid, stop


def wait_and_drain(options):
    """Recipients by the hundred; figures of each step."""
    folder, port = tempfile.mkdtemp(prefix="relay-"), free_port()
    try:
        listens, pid, stop = start_ortler(folder, port)
        begun, cpu_before = time.time(), cpu([pid])
        source = ["smtp-source", "-d", "-f", "a@example.test", "-t", "b@sink.test", "-l", str(options.size), "-r", "100"]
        source += ["-s", str(options.sessions), "-m", str(options.waiting // 100), f"127.0.0.1:{listens}"]
        subprocess.run(source, check=True, capture_output=True)
        took = time.time() - begun
        print(f"{options.waiting} recipients taken in {took:.0f} s, {cpu([pid]) - cpu_before:.0f} s CPU", flush=True)
        time.sleep(5)
        cpu_before = cpu([pid])
        time.sleep(20)
        print(f"waiting: {(cpu([pid]) - cpu_before) / 20 * 1000:.1f} ms CPU a second, {pss([pid]) / 1e6:.0f} MB", flush=True)
        ask = lambda *words: subprocess.run(
            [BINARY, "queue", *words, "--config", os.path.join(folder, "ortler.toml"), "--json"], capture_output=True, check=True
        ).stdout
        begun = time.time()
        counts = json.loads(ask("status"))
        print(f"counted in {time.time() - begun:.1f} s: {counts}", flush=True)
        sink = Sink(port)
        begun, cpu_before, highest = time.time(), cpu([pid]), 0
        ask("retry", json.loads(ask("list", "--limit", "1"))[0]["id"])
        while sink.count < options.waiting // 100 and time.time() < begun + options.patience:
            time.sleep(1)
            highest = max(highest, pss([pid]))
        took = time.time() - begun
        print(
            f"{sink.count} messages with a hundred recipients each gone in {took:.0f} s, {cpu([pid]) - cpu_before:.0f} s CPU,"
            f" at most {highest / 1e6:.0f} MB", flush=True,
        )
        sink.stop()
        stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(name, start, options):
    folder, sink = tempfile.mkdtemp(prefix="relay-"), Sink()
    try:
        port, pid, stop = start(folder, sink.port)
        # One to wake everything up.
        source = ["smtp-source", "-d", "-f", "a@example.test", "-t", "b@sink.test", "-l", str(options.size)]
        subprocess.run(source + ["-m", "1", f"127.0.0.1:{port}"], check=True)
        deadline = time.time() + 60
        while sink.count < 1 and time.time() < deadline:
            time.sleep(0.01)
        cpu_before, begun = cpu([pid]), time.time()
        sent = subprocess.run(
            source + ["-s", str(options.sessions), "-m", str(options.messages), f"127.0.0.1:{port}"], capture_output=True
        )
        accepted = time.time() - begun
        deadline = time.time() + options.patience
        while sink.count < options.messages + 1 and time.time() < deadline:
            time.sleep(0.01)
        took, used, memory = time.time() - begun, cpu([pid]) - cpu_before, pss([pid])
        result = {
            "server": name, "arrived": sink.count - 1, "accepted_per_s": options.messages / accepted,
            "relayed_per_s": (sink.count - 1) / took, "cpu_s_per_1000": used / options.messages * 1000, "memory_mb": memory / 1e6,
        }
        if sent.returncode:
            result["source"] = sent.stderr.decode()[-300:]
        print(json.dumps(result), flush=True)
        stop()
        return result
    finally:
        sink.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--patience", type=int, default=300, help="seconds that the last message may take")
    parser.add_argument("--waiting", type=int, default=0)
    parser.add_argument("--only", default="ortler,postfix")
    options = parser.parse_args()
    if options.waiting:
        return wait_and_drain(options)
    servers = {"ortler": start_ortler, "postfix": start_postfix}
    results = {name: [] for name in options.only.split(",")}
    for _ in range(options.reps):
        for name in results:
            results[name].append(run(name, servers[name], options))
    for name, runs in results.items():
        median = lambda key: statistics.median(one[key] for one in runs)
        print(
            f"{name}: {median('relayed_per_s'):.0f} relayed a second, {median('accepted_per_s'):.0f} accepted,"
            f" {median('cpu_s_per_1000'):.2f} s CPU per 1,000, {median('memory_mb'):.0f} MB"
        )


if __name__ == "__main__":
    main()
