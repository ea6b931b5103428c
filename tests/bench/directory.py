#!/usr/bin/env python3
"""The directory when it is large: tests/bench/directory.py [--accounts 100000] [--domains 10000] [--seconds 10]

A release build must exist. Starts a demonstration node, adds domains by the API and accounts from a table, and then asks: recipients
of SMTP sessions (known and unknown, pipelined 50 at a time, each session named anew), pages and searches of the API, one account.
Rates and CPU are the node's; times of the API are what a client sees over one kept connection. Prints one table.
"""
import argparse, base64, http.client, json, os, random, shutil, signal, socket, statistics, subprocess, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(REPO, "target")), "release/ortler")
BASE = 43000


def cpu(process):
    ticks = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]
    return sum(int(x) for x in ticks) / os.sysconf("SC_CLK_TCK")


def resident(process):
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0


def start(folder):
    process = subprocess.Popen([BINARY, "demo", "--dir", folder, "--base-port", str(BASE), "--accounts", "1", "--domain", "example.test",
                                "--dns", "127.0.0.1:9"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if line.strip() == "ready":
            return process
    raise SystemExit("the node did not start")


class Api:
    def __init__(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", BASE + 80)
        self.headers = {"Authorization": "Basic " + base64.b64encode(b"admin@example.test:demo").decode()}

    def ask(self, method, path, body=None):
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        self.connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:200]}")
        return text


def recipients(process, names, seconds):
    """Answers per second and CPU per answer; each answer must be as `names` says."""
    end, count, begun = time.monotonic() + seconds, 0, cpu(process)
    first = time.monotonic()
    while time.monotonic() < end:
        link = socket.create_connection(("127.0.0.1", BASE + 25))
        stream = link.makefile("rwb", buffering=1 << 16)
        stream.readline()
        link.sendall(b"EHLO bench.example\r\n")
        while not stream.readline().startswith(b"250 "):
            pass
        for _ in range(4):
            some = [names() for _ in range(50)]
            lines = ["MAIL FROM:<x@far.example>", *(f"RCPT TO:<{name}>" for name, _ in some), "RSET"]
            link.sendall(("\r\n".join(lines) + "\r\n").encode())
            stream.readline()
            for name, expected in some:
                said = stream.readline()
                assert said.startswith(expected), (name, said)
            stream.readline()
            count += len(some)
            if some[0][1] == b"550":
                break
        link.close()
    took = time.monotonic() - first
    return count / took, (cpu(process) - begun) / count * 1e6


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--accounts", type=int, default=100_000)
    options.add_argument("--domains", type=int, default=10_000)
    options.add_argument("--seconds", type=float, default=10)
    options = options.parse_args()
    random.seed(7)
    folder = tempfile.mkdtemp(prefix="ortler-bench-")
    process = start(folder)
    rows = []
    try:
        api = Api()
        first, begun = time.monotonic(), cpu(process)
        for nth in range(options.domains):
            api.ask("POST", "/api/v1/domains", {"name": f"d{nth}.test"})
        took = time.monotonic() - first
        rows.append(("domains added by the API, one after the other", f"{options.domains / took:,.0f}/s", f"{(cpu(process) - begun) / options.domains * 1e6:,.0f}"))
        table = os.path.join(folder, "accounts.csv")
        with open(table, "w") as out:
            out.write("address,name,password_hash\n")
            for nth in range(options.accounts):
                out.write(f"user{nth}@d{nth % options.domains}.test,User {nth},{{SSHA}}kW0n2Xc2mSyhT0F2E0Zp1lSg5PvDq0aV\n")
        first, begun = time.monotonic(), cpu(process)
        done = subprocess.run([BINARY, "account", "import", table, "--dir", folder, "--json"], capture_output=True, text=True)
        took = time.monotonic() - first
        told = json.loads(done.stdout)
        assert told["added"] == options.accounts and told["failed"] == 0, told
        rows.append((f"{options.accounts:,} accounts from a table", f"{options.accounts / took:,.0f}/s, {took:.0f} s", f"{(cpu(process) - begun) / options.accounts * 1e6:,.0f}"))
        known = lambda: (lambda nth: (f"user{nth}@d{nth % options.domains}.test", b"250"))(random.randrange(options.accounts))
        few = lambda: (lambda nth: (f"user{nth}@d{nth % options.domains}.test", b"250"))(random.randrange(1000))
        unknown = lambda: (f"nobody{random.randrange(10**9)}@d{random.randrange(options.domains)}.test", b"550")
        for what, names in (("RCPT, any of the accounts", known), ("RCPT, a thousand of them", few), ("RCPT, unknown addresses", unknown)):
            rate, each = recipients(process, names, options.seconds)
            rows.append((what, f"{rate:,.0f}/s", f"{each:,.1f}"))
        for what, path in (("page of 100 accounts", lambda: f"/api/v1/accounts?limit=100&after=user{random.randrange(9)}"),
                           ("accounts of a domain", lambda: f"/api/v1/accounts?domain=d{random.randrange(options.domains)}.test"),
                           ("search among accounts", lambda: f"/api/v1/accounts?limit=100&search=user{random.randrange(options.accounts)}@"),
                           ("search for what is nowhere", lambda: f"/api/v1/accounts?limit=100&search=nowhere{random.randrange(999)}"),
                           ("search among domains", lambda: f"/api/v1/domains?limit=100&search=d{random.randrange(options.domains)}"),
                           ("one account", lambda: (lambda nth: f"/api/v1/accounts/user{nth}@d{nth % options.domains}.test")(random.randrange(options.accounts)))):
            times, begun = [], cpu(process)
            for _ in range(100):
                first = time.monotonic()
                api.ask("GET", path())
                times.append((time.monotonic() - first) * 1000)
            times.sort()
            rows.append((f"API: {what}", f"{statistics.median(times):.1f} ms, p99 {times[98]:.1f} ms", f"{(cpu(process) - begun) / 100 * 1e6:,.0f}"))
        rows.append(("memory of the node then", f"{resident(process):,.0f} MB", ""))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(folder)
    print("| case | rate or time | CPU us each |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


main()
