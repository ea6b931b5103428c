#!/usr/bin/env python3
"""The filter beside SpamAssassin's and Rspamd, on the same messages in one run:
tests/bench/filters.py LIST --ham LIST --spam LIST [--rules DIR] [--reps N] [--only ortler,spamd,rspamd]

Root; a release build of Ortler must exist, and the packages spamassassin, spamd, rspamd and redis-server. LIST has one path of
a message a line; those of --ham and --spam are taught to Ortler's and Rspamd's classifiers first (a thousand of each do), and
are others than those judged. Every repetition visits all filters in turn.

Ortler's CPU is that of `ortler scan` with the stock rules, a node's default policy and what that node learned: its whole filter,
without a resolver, as the others have none that knows a name. Its memory is that of the node, which takes all messages by LMTP, judges
and stores them. spamd is as shipped, local tests only (-L), one child, nothing learned. Rspamd is as shipped with one worker, Bayes
in Redis, a name server that knows no name, and no questions to its makers' fuzzy storage. CPU is user and system time of the process trees; for Ortler that of a run
over the list many times less that of a run over it once, so that loading does not count. Memory is the highest proportional size
(PSS) seen of the whole tree: for spamd the parent and its child, for Rspamd all its processes and, apart, Redis.
"""
import argparse, concurrent.futures, http.client, os, random, re, shutil, signal, smtplib, socket, statistics, struct, subprocess, sys, tempfile, threading, time

from store import BINARY, cpu, pss


def lines(path):
    return [line for line in open(path, encoding="utf-8").read().splitlines() if line]


def spawn(command, log):
    return subprocess.Popen(command, stdout=open(log, "w"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def wait_for(port, process, log):
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing answers at port {port}: {open(log, errors='replace').read()[-2000:]}")


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


class NoNames:
    """A name server that knows no name, so that nothing waits for the world outside."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            question, asker = self.socket.recvfrom(1500)
            end = 12
            while end < len(question) and question[end]:
                end += question[end] + 1
            head = question[:2] + bytes([question[2] | 0x80, 0x83]) + struct.pack(">HHHH", 1, 0, 0, 0)
            self.socket.sendto(head + question[12:end + 5], asker)


class Ortler:
    def __init__(self, work, options, port):
        self.dir, self.log, self.port = f"{work}/ortler", f"{work}/ortler.log", port
        self.names, self.node = NoNames(), None
        command = [BINARY, "demo", "--dir", self.dir, "--base-port", str(port), "--accounts", "1", "--dns", f"127.0.0.1:{self.names.port}"]
        node = spawn(command, self.log)
        for _ in range(600):
            if "\nready" in open(self.log).read():
                break
            time.sleep(0.1)
        else:
            sys.exit(f"the node does not start: {open(self.log).read()}")
        self.user = re.search(r"user1@\S+", open(self.log).read())[0].rstrip(",")
        for kind in ("ham", "spam"):
            told = subprocess.run([BINARY, "learn", kind, *lines(getattr(options, kind)), "--dir", self.dir],
                                  stdout=subprocess.PIPE, check=True).stdout.decode()
            print("ortler:", told.splitlines()[0], file=sys.stderr)
        stop(node)
        # The demo writes its configuration anew at each start; the rules belong into a copy.
        self.config = f"{self.dir}/bench.toml"
        text = open(f"{self.dir}/ortler.toml").read()
        open(self.config, "w").write(text.replace("[filter]\n", f'[filter]\nrules = ["{options.rules}"]\n', 1))

    def scan(self, paths):
        """CPU seconds of one process over the list."""
        listed = f"{self.dir}/list"
        open(listed, "w").write("\n".join(paths) + "\n")
        process = spawn([BINARY, "scan", "--config", self.config, "--tsv", listed], self.log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        judged = sum(line.count("\t") == 2 for line in open(self.log, errors="replace"))
        if judged != len(paths):
            sys.exit(f"ortler judged {judged} of {len(paths)}: {open(self.log).read()[:2000]}")
        return usage.ru_utime + usage.ru_stime

    def measure(self, paths, messages):
        # Loading costs as much as hundreds of messages, and not the same each time.
        more = max(2, 3000 // len(paths))
        once, often = self.scan(paths), self.scan(paths * (1 + more))
        # The commands above open the node's folder, which one process does at a time.
        self.node = spawn([BINARY, "serve", "--config", self.config], self.log)
        wait_for(self.port + 24, self.node, self.log)
        before, memory, refused = cpu([self.node.pid]), 0, 0
        link = smtplib.LMTP("127.0.0.1", self.port + 24)
        for at, message in enumerate(messages):
            try:
                link.sendmail("sender@sender.example", [self.user], re.sub(rb"\r?\n", b"\r\n", message))
            except smtplib.SMTPResponseException:
                refused += 1
            except smtplib.SMTPException:
                refused += 1
                link = smtplib.LMTP("127.0.0.1", self.port + 24)
            if at % 50 == 0:
                memory = max(memory, pss([self.node.pid]))
        whole = (cpu([self.node.pid]) - before) / len(messages)
        stop(self.node)
        return {"cpu": (often - once) / len(paths) / more, "memory": memory, "whole": whole, "refused": refused}

    def close(self):
        if self.node:
            stop(self.node)


class Served:
    """A filter that runs as a server."""

    at_a_time = 1

    def measure(self, paths, messages):
        before = cpu([self.process.pid])
        memory = 0
        with concurrent.futures.ThreadPoolExecutor(self.at_a_time) as pool:
            for at, _ in enumerate(pool.map(self.check, messages)):
                if at % 50 == 0:
                    memory = max(memory, pss([self.process.pid]))
        return {"cpu": (cpu([self.process.pid]) - before) / len(messages), "memory": memory, **self.more()}

    def more(self):
        return {}

    def close(self):
        stop(self.process)


class Spamd(Served):
    def __init__(self, work, options, port):
        self.port = port
        log = f"{work}/spamd.log"
        self.process = spawn(["spamd", "-L", "-x", "--min-children=1", "--max-children=1", "--max-conn-per-child=100000", "-i", "127.0.0.1",
                              "-p", str(port), "-s", "stderr", "-H", work], log)
        wait_for(port, self.process, log)

    def check(self, message):
        with socket.create_connection(("127.0.0.1", self.port), timeout=300) as link:
            link.sendall(b"CHECK SPAMC/1.5\r\nContent-length: %d\r\n\r\n" % len(message) + message)
            link.shutdown(socket.SHUT_WR)
            answer = b""
            while got := link.recv(65536):
                answer += got
        if b"Spam:" not in answer:
            sys.exit(f"spamd: {answer[:300]!r}")


class Rspamd(Served):
    # It waits for half a second in each message, which costs no CPU.
    at_a_time = 8

    def __init__(self, work, options, port):
        self.port = port
        self.names = NoNames()
        dirs = {name: f"{work}/rspamd/{name}" for name in ("local.d", "override.d", "run", "db", "log", "redis")}
        for path in dirs.values():
            os.makedirs(path)
        log = f"{work}/redis.log"
        self.redis = spawn(["redis-server", "--port", str(port + 2), "--bind", "127.0.0.1", "--save", "", "--dir", dirs["redis"]], log)
        wait_for(port + 2, self.redis, log)
        local = {
            "options.inc": f'dns {{ nameserver = ["127.0.0.1:{self.names.port}"]; }}\n',
            "worker-normal.inc": f'bind_socket = "127.0.0.1:{port}";\ncount = 1;\n',
            "worker-controller.inc": f'bind_socket = "127.0.0.1:{port + 1}";\nsecure_ip = "127.0.0.1";\n',
            "worker-proxy.inc": "enabled = false;\n",
            "worker-fuzzy.inc": "enabled = false;\n",
            "redis.conf": f'servers = "127.0.0.1:{port + 2}";\n',
            # Asks a server of Rspamd's makers, and waits for it.
            "fuzzy_check.conf": "enabled = false;\n",
            "logging.inc": f'type = "file";\nfilename = "{dirs["log"]}/rspamd.log";\nlevel = "warning";\n',
        }
        for name, text in local.items():
            open(f"{work}/rspamd/local.d/{name}", "w").write(text)
        log = f"{work}/rspamd.log"
        self.process = spawn(["rspamd", "-i", "-f", "-c", "/etc/rspamd/rspamd.conf", f"--var=LOCAL_CONFDIR={work}/rspamd",
                              f"--var=RUNDIR={dirs['run']}", f"--var=DBDIR={dirs['db']}", f"--var=LOGDIR={dirs['log']}"], log)
        wait_for(port, self.process, log)
        wait_for(port + 1, self.process, log)
        learned = {"ham": 0, "spam": 0}
        for kind in learned:
            for path in lines(getattr(options, kind)):
                learned[kind] += self.post(port + 1, f"/learn{kind}", open(path, "rb").read())[0] in (200, 208)
        print(f"rspamd: {learned} learned", file=sys.stderr)
        self.bayes = self.checked = 0

    @staticmethod
    def post(port, path, message):
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        link.request("POST", path, message)
        answer = link.getresponse()
        return answer.status, answer.read()

    def check(self, message):
        status, answer = self.post(self.port, "/checkv2", message)
        if status != 200:
            sys.exit(f"rspamd: {status} {answer[:300]!r}")
        self.checked += 1
        self.bayes += b"BAYES_" in answer

    def more(self):
        return {"redis": pss([self.redis.pid]), "bayes": self.bayes / max(self.checked, 1)}

    def close(self):
        super().close()
        stop(self.redis)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list")
    parser.add_argument("--ham", required=True)
    parser.add_argument("--spam", required=True)
    parser.add_argument("--rules", default="/usr/share/spamassassin")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--only", default="ortler,spamd,rspamd")
    options = parser.parse_args()
    paths = lines(options.list)
    random.Random(1).shuffle(paths)
    messages = [open(path, "rb").read() for path in paths]
    kinds = {"ortler": Ortler, "spamd": Spamd, "rspamd": Rspamd}
    work = tempfile.mkdtemp()
    os.chmod(work, 0o755)
    filters, found = {}, {}
    try:
        for at, name in enumerate(options.only.split(",")):
            filters[name] = kinds[name](work, options, 21000 + 1000 * at)
        for repetition in range(options.reps):
            for name, one in filters.items():
                got = one.measure(paths, messages)
                found.setdefault(name, []).append(got)
                print(f"{repetition} {name}: {got}", file=sys.stderr)
    finally:
        for one in filters.values():
            one.close()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{len(paths)} messages, {sum(map(len, messages)) / len(messages) / 1000:.1f} KB in the mean, {options.reps} repetitions\n")
    print("| filter | CPU for each message, ms | memory, MB |\n|---|---|---|")
    for name, all_got in found.items():
        each = [got["cpu"] * 1000 for got in all_got]
        span = f"{statistics.median(each):.2f} ({min(each):.2f}..{max(each):.2f})"
        more = "".join(f" and Redis {max(got['redis'] for got in all_got) / 1e6:.0f}" for _ in all_got[:1] if "redis" in all_got[0])
        print(f"| {name} | {span} | {max(got['memory'] for got in all_got) / 1e6:.0f}{more} |")
        if "whole" in all_got[0]:
            whole = [got["whole"] * 1000 for got in all_got]
            print(f"| the node: LMTP, filter, mailbox | {statistics.median(whole):.2f} ({min(whole):.2f}..{max(whole):.2f}) | |")
        if "bayes" in all_got[0]:
            print(f"\n{name}: Bayes spoke about {all_got[-1]['bayes']:.0%} of the messages", file=sys.stderr)


if __name__ == "__main__":
    main()
