#!/usr/bin/env python3
"""The store beside Dovecot's formats in one run:
tests/bench/store.py [--quick] [--only deliver,space,big,search,open,growth] [--formats sdbox,mdbox,maildir] [--engines embedded,postgresql]
[--reps N]

Root; a release build of Ortler must exist. Dovecot is started as shipped (LMTP and APPEND fsync), Ortler unfiltered, on a
PostgreSQL server of its own with 1 GB of shared buffers too. Every repetition visits all servers in turn. CPU is that of the
server's process tree, the database's included; bytes written are those of the whole block device between two syncs, so
nothing else should write meanwhile. Prints one table; medians, with minimum and maximum.
"""
import argparse, glob, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
PEERS = os.environ.get("ORTLER_BENCH", os.path.join(REPO, "../shared/bench"))
BINARY = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(REPO, "target")), "release/ortler")


def tree(roots):
    """Process ids below the roots, themselves included."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found = list(roots)
    for process in found:
        found.extend(children.get(process, []))
    return found


def cpu(roots):
    """Seconds of the trees, children that ended included."""
    ticks = 0
    for process in tree(roots):
        try:
            ticks += sum(int(x) for x in open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()[11:15])
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


def pss(roots):
    """Proportional resident bytes of the trees."""
    total = 0
    for process in tree(roots):
        try:
            total += int(re.search(r"^Pss:\s+(\d+)", open(f"/proc/{process}/smaps_rollup").read(), re.M)[1]) * 1024
        except (OSError, TypeError):
            pass
    return total


def written(path):
    """Bytes that the device under path was given so far."""
    os.sync()
    number = os.stat(path).st_dev
    fields = open(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read().split()
    return int(fields[6]) * 512


def allocated(path):
    return sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for folder, _, names in os.walk(path) for name in names)


def uncache(path):
    os.sync()
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                handle = os.open(os.path.join(folder, name), os.O_RDONLY)
            except OSError:
                continue
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


class Imap:
    """Just enough of a client: commands, and answers read to their tagged line."""

    def __init__(self, server, user):
        self.socket = socket.create_connection(("127.0.0.1", server.imap), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = 0
        self.pending = b""
        while b"\r\n" not in self.pending:
            self.pending += self.socket.recv(65536)
        self.pending = b""
        self.ask(f"LOGIN {server.user(user)} {server.password}")

    def ask(self, command):
        self.number += 1
        tag = b"t%d " % self.number
        self.socket.sendall(tag + command.encode() + b"\r\n")
        answer, tail = [], b""
        while True:
            got = self.socket.recv(1 << 20)
            if not got:
                raise EOFError(command)
            answer.append(got)
            tail = (tail + got)[-4096:]
            at = tail.rfind(b"\n" + tag) if len(answer) > 1 or b"\n" + tag in tail else (0 if tail.startswith(tag) else -1)
            if at >= 0 and tail.endswith(b"\r\n"):
                if not tail[at:].lstrip(b"\n")[len(tag):].startswith(b"OK"):
                    raise ValueError(f"{command}: {tail[at:]!r}")
                return b"".join(answer)

    def append(self, mailbox, messages):
        """MULTIAPPEND with non-synchronising literals where the server has them."""
        self.number += 1
        tag = b"t%d " % self.number
        out = [tag, b"APPEND ", mailbox.encode()]
        for message in messages:
            out.append(b" {%d+}\r\n" % len(message))
            out.append(message)
        out.append(b"\r\n")
        self.socket.sendall(b"".join(out))
        answer = b""
        while not re.search(rb"(^|\n)" + tag + rb"[^\n]*\n$", answer):
            answer += self.socket.recv(65536)
        if tag + b"OK" not in answer:
            raise ValueError(answer)

    def close(self):
        self.socket.close()


class Dovecot:
    password = "secret"

    def __init__(self, work, form, port, users):
        self.name, self.dir, self.port, self.form, self.users = f"dovecot {form}", f"{work}/{form}", port, form, users
        self.imap, self.lmtp, self.recipient = port, port + 2, "u{}@example.test"
        self.data = f"{self.dir}/mail"
        self.start()

    def user(self, number):
        return f"u{number}"

    def start(self):
        script = [f"{PEERS}/peers/dovecot.sh", "start", "-d", self.dir, "-f", self.form, "-p", str(self.port), "-u", str(self.users)]
        # Into a file: the server keeps whatever it is given as standard output.
        with tempfile.TemporaryFile("w+") as out:
            subprocess.run(script, stdout=out, check=True)
            out.seek(0)
            told = out.read()
        self.pids = [int(re.search(r"DOVECOT_PID=(\d+)", told)[1])]

    def stop(self, clean=False):
        subprocess.run([f"{PEERS}/peers/dovecot.sh", "clean" if clean else "stop", "-d", self.dir], capture_output=True)


class Ortler:
    """On the embedded engine."""

    password, name = "demo", "ortler"

    def __init__(self, work, port, users):
        self.dir, self.port, self.users = f"{work}/ortler", port, users
        self.imap, self.lmtp, self.recipient, self.data = port + 143, port + 24, "user{}@example.test", self.dir
        self.start()

    def user(self, number):
        return f"user{number}@example.test"

    def start(self):
        out = open(self.dir + ".out", "w+")
        command = [BINARY, "demo", "--dir", self.dir, "--base-port", str(self.port), "--accounts", str(self.users), "--unfiltered"]
        self.process = subprocess.Popen(command, stdout=out, stderr=open(self.dir + ".err", "a"))
        self.pids = [self.process.pid]
        for _ in range(600):
            if "\nready" in open(self.dir + ".out").read():
                return
            time.sleep(0.1)
        sys.exit(f"ortler does not start: {open(self.dir + '.err').read()}")

    def stop(self, clean=False):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class OnPostgres(Ortler):
    """The same node on a PostgreSQL server: what the embedded engine holds is copied there first."""

    name = "ortler, PostgreSQL"
    postmaster = None

    def __init__(self, work, port, users):
        self.server = f"{work}/server"
        super().__init__(work + "/pg", port, users)
        super().stop()
        os.mkdir(self.server)
        shutil.chown(self.server, "postgres")
        self.run("initdb", "-D", f"{self.server}/data", "-U", "ortler", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        options = f"-c listen_addresses='' -c unix_socket_directories={self.server} -c shared_buffers=1GB -c max_wal_size=4GB"
        self.run("pg_ctl", "-D", f"{self.server}/data", "-w", "-l", f"{self.server}/log", "-o", options, "start")
        self.postmaster = int(open(f"{self.server}/data/postmaster.pid").readline())
        text = open(f"{self.dir}/ortler.toml").read()
        self.config, self.data = f"{self.dir}/node/ortler.toml", self.server
        os.mkdir(f"{self.dir}/node")
        storage = f'[storage]\nengine = "postgresql"\npostgresql = "host={self.server} user=ortler dbname=postgres"\n'
        open(self.config, "w").write(text.replace("[log]", storage + "[log]"))
        subprocess.run([BINARY, "storage", "copy", "--config", f"{self.dir}/ortler.toml", "--to", self.config], check=True, stdout=subprocess.DEVNULL)
        self.start()

    def run(self, program, *arguments):
        program = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1] + "/" + program
        done = subprocess.run(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", program, *arguments],
                              cwd=self.server, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        if done.returncode:
            sys.exit(f"{program}: {done.stdout}")
        return done.stdout

    def commits(self):
        """Committed transactions so far; the server counts them some time after."""
        time.sleep(1.5)
        return int(self.run("psql", "-h", self.server, "-U", "ortler", "-d", "postgres", "-Atc",
                            "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'"))

    def start(self):
        if not self.postmaster:
            return super().start()
        self.process = subprocess.Popen([BINARY, "serve", "--config", self.config], stderr=open(self.dir + ".err", "a"))
        self.pids = [self.process.pid, self.postmaster]
        for _ in range(600):
            try:
                Imap(self, 1).close()
                return
            except (OSError, EOFError):
                time.sleep(0.1)
        sys.exit(f"ortler does not start: {open(self.dir + '.err').read()}")

    def stop(self, clean=False):
        super().stop()
        if clean:
            self.run("pg_ctl", "-D", f"{self.server}/data", "-m", "immediate", "-w", "stop")


def message(number, size=2000):
    words = "meadow river granite valley orchard lantern quarry harvest".split()
    body = " ".join(words[(number * 7 + n * (n % 5 + 1)) % 8] for n in range(size // 7))
    body = "\r\n".join(body[at:at + 70] for at in range(0, len(body), 70))
    return (f"From: Sender {number % 97} <s{number % 97}@sender.test>\r\nTo: u@example.test\r\nSubject: Report {number} of the {words[number % 8]}\r\n"
            f"Date: Mon, 02 Nov 2026 10:{number // 60 % 60:02}:{number % 60:02} +0000\r\nMessage-ID: <{number}@sender.test>\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n").encode()


class Table:
    def __init__(self):
        self.cells = {}

    def add(self, case, server, value):
        self.cells.setdefault(case, {}).setdefault(server, []).append(value)
        print(f"{case} | {server} | {value:.4g}", file=sys.stderr, flush=True)

    def show(self, servers):
        print("| case | " + " | ".join(servers) + " | ratio to the best Dovecot |")
        print("|---" * (len(servers) + 2) + "|")
        for case, row in self.cells.items():
            medians = {name: statistics.median(values) for name, values in row.items()}
            cells = []
            for name in servers:
                values = row.get(name)
                span = f" ({min(values):.3g}..{max(values):.3g})" if values and len(values) > 1 else ""
                cells.append(f"{medians[name]:,.3g}{span}" if values else "")
            peers = [value for name, value in medians.items() if not name.startswith("ortler")]
            best = max(peers) if case.endswith("/s") and peers else min(peers, default=0)
            cells.append(f"{medians['ortler'] / best:.3g}" if best and "ortler" in medians else "")
            print(f"| {case} | " + " | ".join(cells) + " |")


def mailbench(*arguments):
    command = [os.environ["MAILBENCH"], *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")
    import json
    return json.loads(done.stdout.strip().splitlines()[-1])


def deliver(servers, table, reps, scale):
    for _ in range(reps):
        for writers, count in ((1, 400), (16, 1600), (64, 1600)):
            for server in servers:
                before, commits = written(server.data), getattr(server, "commits", int)()
                got = mailbench("smtp", "--lmtp", "--addr", f"127.0.0.1:{server.lmtp}", "--conns", writers, "--messages", int(count * scale),
                                "--users", 100, "--rcpt", server.recipient, "--pids", "s=" + "+".join(map(str, server.pids)))
                case = f"LMTP, size mix, {writers} writers"
                sent = got.get("mb", 0) or got["mb_per_s"] * got["secs"]
                table.add(f"{case}: messages/s", server.name, got["accepted_per_s"])
                table.add(f"{case}: CPU s per 1,000", server.name, got["server_cpu_ms_per_op"])
                if isinstance(server, OnPostgres):
                    table.add(f"{case}: transactions per message", server.name, (server.commits() - commits) / int(count * scale))
                if writers == 16:
                    table.add("bytes written per byte delivered", server.name, (written(server.data) - before) / (sent * 1e6))


def space(servers, table, scale):
    """Disk for text-like messages in one mailbox each; what is allocated in advance is counted too."""
    count = int(5000 * scale)
    for server in servers:
        before, client = allocated(server.data), Imap(server, 150)
        for at in range(0, count, 100):
            client.append("INBOX", [message(number, 6000) for number in range(at, at + 100)])
        client.close()
        os.sync()
        table.add("disk for each 6 KB text message, KB", server.name, (allocated(server.data) - before) / count / 1000)


def timed(server, table, case, work):
    used, start = cpu(server.pids), time.monotonic()
    out = work()
    table.add(f"{case}: ms", server.name, (time.monotonic() - start) * 1000)
    table.add(f"{case}: CPU ms", server.name, (cpu(server.pids) - used) * 1000)
    return out


def big(servers, table, reps, scale):
    count = int(100_000 * scale)
    for server in servers:
        client = Imap(server, 201)
        for at in range(0, count, 250):
            client.append("INBOX", [message(number, 600) for number in range(at, at + 250)])
        client.close()
    for _ in range(reps):
        for server in servers:
            server.stop()
            uncache(server.data)
            server.start()
            client = Imap(server, 201)
            timed(server, table, f"SELECT of {count:,} messages, cold", lambda: client.ask("SELECT INBOX"))
            client.ask("CLOSE")
            other = Imap(server, 201)
            timed(server, table, f"SELECT of {count:,} messages, warm", lambda: other.ask("SELECT INBOX"))
            items = "(UID FLAGS ENVELOPE INTERNALDATE RFC822.SIZE BODYSTRUCTURE)"
            other.ask(f"FETCH 1:10000 {items}")
            timed(server, table, "FETCH of 10,000 headers, warm", lambda: other.ask(f"FETCH 1:10000 {items}"))
            timed(server, table, "flag set on 10,000 messages", lambda: other.ask("STORE 1:10000 +FLAGS.SILENT (\\Flagged)"))
            other.ask("STORE 1:10000 -FLAGS.SILENT (\\Flagged)")
            client.close()
            other.close()
    for server in servers:
        client = Imap(server, 201)
        client.ask("SELECT INBOX")
        client.ask(f"STORE 1:{count // 2} +FLAGS.SILENT (\\Deleted)")
        timed(server, table, f"EXPUNGE of {count // 2:,}", lambda: client.ask("EXPUNGE"))
        client.close()


def search(servers, table, reps, scale):
    count = int(10_000 * scale)
    for server in servers:
        client = Imap(server, 202)
        for at in range(0, count, 100):
            client.append("INBOX", [message(number, 8000) for number in range(at, at + 100)])
        client.ask("SELECT INBOX")
        timed(server, table, "SEARCH BODY of 10,000 messages, first", lambda: client.ask("SEARCH BODY cormorant"))
        client.close()
    for _ in range(reps):
        for server in servers:
            client = Imap(server, 202)
            client.ask("SELECT INBOX")
            timed(server, table, "SEARCH BODY of 10,000 messages, again", lambda: client.ask("SEARCH BODY cormorant"))
            timed(server, table, "SEARCH SUBJECT of 10,000 messages", lambda: client.ask("SEARCH SUBJECT cormorant"))
            client.close()


def opened(servers, table, scale):
    count = int(1000 * scale)
    for server in servers:
        if server.name not in ("ortler", "ortler, PostgreSQL", "dovecot sdbox"):
            continue
        for user in range(1, count + 1):
            client = Imap(server, user)
            client.append("INBOX", [message(number, 600) for number in range(20)])
            client.close()
        server.stop()
        server.start()
        # Some sign in before, so that memory for hashing is not counted; not all, or what they freed would hide the rest.
        limit = count if isinstance(server, Ortler) else min(count, 100)
        for user in range(1, 6):
            Imap(server, user).close()
        warm = Imap(server, 1)
        time.sleep(3)
        before = pss(server.pids)
        clients = [Imap(server, user) for user in range(1, limit + 1)]
        for client in clients:
            client.ask("SELECT INBOX")
        time.sleep(3)
        # What was freed since the start may hold all of them: then only the whole tells anything.
        after = pss(server.pids)
        table.add("memory for each of 1,000 (Dovecot: 100) open mailboxes, KB", server.name, (after - before) / limit / 1000)
        table.add("memory of the server with them, MB", server.name, after / 1e6)
        for client in clients:
            client.close()
        warm.close()


def growth(servers, table, scale):
    """What one more message costs a folder that grows: CPU of the last 1,000 appends, and of 300 deliveries after them."""
    for server in servers:
        client, there = Imap(server, 203), 0
        last = 1_000_000 if server.name == "ortler" else 100_000
        for size in (1000, 10_000, 100_000, 1_000_000):
            if size > last * scale:
                break
            used = cpu(server.pids)
            while there < size:
                if there == size - 1000:
                    used = cpu(server.pids)
                client.append("INBOX", [message(number, 600) for number in range(there, there + 250)])
                there += 250
            table.add(f"APPEND to a folder of {size:,}: CPU ms", server.name, cpu(server.pids) - used)
            recipient = server.recipient.replace("{}", "203")
            got = mailbench("smtp", "--lmtp", "--addr", f"127.0.0.1:{server.lmtp}", "--conns", 4, "--messages", 1000, "--size", 2000,
                            "--users", 1, "--rcpt", recipient, "--pids", "s=" + "+".join(map(str, server.pids)))
            there += 1000
            table.add(f"LMTP to a folder of {size:,}: CPU ms", server.name, got["server_cpu_ms_per_op"])
        client.close()


def prepare():
    """A new folder for servers, once Ortler and the load generator are there."""
    if not os.path.exists(BINARY):
        sys.exit("build first: cargo build --release --ignore-rust-version")
    work = tempfile.mkdtemp()
    os.chmod(work, 0o755)
    if "MAILBENCH" not in os.environ:
        target = f"{work}/build"
        subprocess.run(["cargo", "build", "--release", "--quiet", "--manifest-path", f"{PEERS}/mailbench/Cargo.toml"], check=True,
                       env={**os.environ, "CARGO_TARGET_DIR": target})
        os.environ["MAILBENCH"] = f"{target}/release/mailbench"
    return work


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of everything")
    options.add_argument("--only", default="deliver,space,big,search,open,growth")
    options.add_argument("--formats", default="sdbox,mdbox,maildir")
    options.add_argument("--engines", default="embedded,postgresql")
    options.add_argument("--reps", type=int, default=3)
    options = options.parse_args()
    work = prepare()
    scale, wanted, table, servers = 0.1 if options.quick else 1.0, options.only.split(","), Table(), []
    try:
        for at, form in enumerate(options.formats.split(",") if options.formats else []):
            servers.append(Dovecot(work, form, 26100 + 20 * at, 2100))
        os.mkdir(f"{work}/pg")
        for at, (engine, kind) in enumerate({"embedded": Ortler, "postgresql": OnPostgres}.items()):
            if engine in options.engines.split(","):
                servers.append(kind(work, 24000 + 1000 * at, 1000))
        if "deliver" in wanted:
            deliver(servers, table, options.reps, scale)
        if "space" in wanted:
            space(servers, table, scale)
        if "big" in wanted:
            big(servers, table, options.reps, scale)
        if "search" in wanted:
            search(servers, table, options.reps, scale)
        if "open" in wanted:
            opened(servers, table, scale)
        if "growth" in wanted:
            growth(servers, table, scale)
    finally:
        for server in servers:
            server.stop(clean=True)
        table.show([server.name for server in servers])
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
