#!/usr/bin/env python3
"""How well a taught node tells spam from wanted mail, on mail that it never learned.

    accuracy.py CORPORA [--ortler FILE] [--leave-out] [--config-rules PATH] [--own FOLDER]

CORPORA holds folders of messages, `train-ham`, `train-spam`, `phishing-train`, `test-ham`, `test-spam`, `phishing-test`,
whose files are named by their source (`SOURCE__ID.eml`), and `score_metrics.py` beside them or in the folder above. A node is taught with the training part (all
ham, then all spam) and judges the test part. With `--leave-out`, each source of the training part is left out of the
teaching in turn and judged then, against the other class's test part where the source has one class only. `--own` is a
folder with `ham` and `spam` of which no message of `ham` may reach the quarantine score, before or after the teaching.
"""
import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile


def files(corpora, *folders):
    found = [os.path.join(corpora, folder, name) for folder in folders for name in os.listdir(os.path.join(corpora, folder))]
    return sorted(found)


def source(path):
    """Parts of one origin count as one, and so do mailing lists of one kind."""
    name = os.path.basename(path).split("__")[0]
    if name.startswith("sa-public"):
        return "sa-public"
    return "lists" if name.startswith("list-") and name != "list-osst-users" else name


class Node:
    """An embedded node that does not run."""

    def __init__(self, program, rules=None):
        self.program, self.dir = program, tempfile.mkdtemp()
        command = [program, "demo", "--dir", self.dir, "--accounts", "1", "--base-port", "24000"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ready = any(line.strip() == "ready" for line in process.stdout)
        process.terminate()
        process.wait(60)
        assert ready, "the node does not start"
        if rules:
            config = os.path.join(self.dir, "ortler.toml")
            text = open(config).read().replace("[filter]", f'[filter]\nrules = ["{rules}"]')
            open(config, "w").write(text)

    def learn(self, kind, paths):
        with tempfile.TemporaryDirectory() as folder:
            for number, path in enumerate(paths):
                os.symlink(os.path.abspath(path), os.path.join(folder, f"{number:06}-{os.path.basename(path)}"))
            subprocess.run([self.program, "learn", kind, folder, "--dir", self.dir], check=True, stdout=subprocess.DEVNULL)

    def scores(self, paths):
        with tempfile.NamedTemporaryFile("w") as listed:
            listed.write("".join(f"{path}\n" for path in paths))
            listed.flush()
            command = [self.program, "scan", "--tsv", listed.name, "--dir", self.dir]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return {path: float(score) for path, score, _ in (line.split("\t") for line in out.splitlines())}

    def close(self):
        shutil.rmtree(self.dir)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("corpora")
    parser.add_argument("--ortler", default="target/release/ortler")
    parser.add_argument("--leave-out", action="store_true")
    parser.add_argument("--config-rules", metavar="PATH", help="rule files beside the shipped ones")
    parser.add_argument("--own", metavar="FOLDER")
    options = parser.parse_args()
    at = next(os.path.join(folder, "score_metrics.py") for folder in (options.corpora, os.path.join(options.corpora, ".."), "../shared/corpora")
              if os.path.exists(os.path.join(folder, "score_metrics.py")))
    spec = importlib.util.spec_from_file_location("score_metrics", at)
    metrics = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metrics)

    def told(what, ham, spam):
        area = metrics.auc(ham, spam)
        one, tenth = (metrics.tpr_at_fpr(ham, spam, share)[0] for share in (0.01, 0.001))
        print(f"{what}: {len(ham)} ham, {len(spam)} spam, area {area:.4f}, spam caught at 1 % false positives {one:.1%}, "
              f"at 0.1 % {tenth:.1%}; at score 4 {sum(s >= 4 for s in spam) / len(spam):.1%} and {sum(s >= 4 for s in ham)} ham, "
              f"at 6 {sum(s >= 6 for s in spam) / len(spam):.1%} and {sum(s >= 6 for s in ham)} ham", flush=True)
        return area, one, tenth

    train_ham, train_spam = files(options.corpora, "train-ham"), files(options.corpora, "train-spam", "phishing-train")
    test_ham, test_spam = files(options.corpora, "test-ham"), files(options.corpora, "test-spam", "phishing-test")
    node = Node(options.ortler, options.config_rules)

    def judge_own(when):
        if options.own:
            own_ham, own_spam = files(options.own, "ham"), files(options.own, "spam")
            scores = node.scores(own_ham + own_spam)
            told(f"own messages {when}", [scores[path] for path in own_ham], [scores[path] for path in own_spam])

    def judge(what, ham, spam):
        scores = node.scores(ham + spam)
        return told(what, [scores[path] for path in ham], [scores[path] for path in spam])

    judge_own("before")
    judge("test part, untaught", test_ham, test_spam)
    node.learn("ham", train_ham)
    node.learn("spam", train_spam)
    judge("test part, taught", test_ham, test_spam)
    judge_own("after")
    node.close()
    if not options.leave_out:
        return
    figures = []
    for left in sorted({source(path) for path in train_ham + train_spam}):
        node = Node(options.ortler, options.config_rules)
        node.learn("ham", [path for path in train_ham if source(path) != left])
        node.learn("spam", [path for path in train_spam if source(path) != left])
        ham, spam = ([path for path in part if source(path) == left] for part in (train_ham, train_spam))
        figures.append(judge(f"left out {left}", ham or test_ham, spam or test_spam))
        node.close()
    means = [sum(column) / len(figures) for column in zip(*figures)]
    print(f"left out, mean of {len(figures)}: area {means[0]:.4f}, at 1 % {means[1]:.1%}, at 0.1 % {means[2]:.1%}")


if __name__ == "__main__":
    sys.exit(main())
