#!/usr/bin/env python3
"""How far Ortler's rule engine agrees with SpamAssassin: the same rules, the same messages, every rule's decision.

    rules_agreement.py LIST [--rules DIR] [--ortler FILE] [--reference FILE] [--names FILE] [--all] [--json]

LIST has one path of a message a line. `--reference` and `--names` reuse what rules_oracle.pl has written for the same
list (it takes about 0.1 s of CPU a message); without them it is run. `--hits` and `--ortler-names` reuse the output of
`ortler rules hits`. Rules count that run in both: local ones, of score set 0, sub-rules (`__X`) included.

Two figures: the share of all (message, rule) decisions that are equal, in which the many rules that never hit weigh
most; and of the decisions where at least one side hits, the share in which both do (Jaccard), which is the honest one.
"""
import argparse
import collections
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def lines_of(path, command):
    if path:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode("utf-8", "replace").splitlines()


def hits_of(lines):
    out = {}
    for line in lines:
        path, _, rules = (line.split("\t") + ["", ""])[:3]
        out[path] = {word.rpartition("=")[0] for word in rules.split()}
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("list")
    parser.add_argument("--rules", default="/usr/share/spamassassin")
    parser.add_argument("--ortler", default="ortler", help="the program")
    parser.add_argument("--reference", help="output of rules_oracle.pl for the same list")
    parser.add_argument("--names", help="output of rules_oracle.pl --names")
    parser.add_argument("--hits", help="output of `ortler rules hits --tsv` for the same list")
    parser.add_argument("--ortler-names", help="output of `ortler rules hits --names`")
    parser.add_argument("--worst", type=int, default=40, help="how many rules to name")
    parser.add_argument("--examples", metavar="RULE", help="print messages in which this rule differs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    oracle = ["perl", os.path.join(HERE, "rules_oracle.pl"), "--rules", options.rules]
    ours = [options.ortler, "rules", "hits", "--rules", options.rules]
    with open(options.list, encoding="utf-8") as file:
        wanted = [line for line in file.read().splitlines() if line]

    names, scores = set(), {}
    for line in lines_of(options.names, oracle + ["--names"]):
        name, _, net, score = line.split("\t")
        if net == "local":
            scores[name] = float(score)
            names.add(name)
    running = {name for name in names if name.startswith("__") or scores[name] != 0}
    known = set(lines_of(options.ortler_names, ours + ["--names"]))
    supported = running & known
    reference = hits_of(lines_of(options.reference, oracle + [options.list]))
    seen = hits_of(lines_of(options.hits, ours + ["--tsv", options.list]))

    more, fewer, both = collections.Counter(), collections.Counter(), collections.Counter()
    messages = 0
    missing = [path for path in wanted if path not in reference or path not in seen]
    for path in wanted:
        if path in missing:
            continue
        messages += 1
        theirs, own = reference[path] & supported, seen[path] & supported
        both.update(theirs & own)
        more.update(own - theirs)
        fewer.update(theirs - own)
        if options.examples and options.examples in theirs ^ own:
            print(path, "ortler" if options.examples in own else "spamassassin")
    decisions = messages * len(supported)
    different = sum(more.values()) + sum(fewer.values())
    either = different + sum(both.values())
    positive = sum(score for name, score in scores.items() if name in running and not name.startswith("__") and score > 0)
    able = sum(scores[name] for name in supported if not name.startswith("__") and scores[name] > 0)
    result = {
        "messages": messages,
        "not_compared": len(missing),
        "rules": len(running),
        "supported": len(supported),
        "supported_score": round(able / positive, 4) if positive else None,
        "decisions": decisions,
        "equal": round(1 - different / decisions, 6) if decisions else None,
        "hits_of_either": either,
        "jaccard": round(1 - different / either, 4) if either else None,
        "only_ortler": sum(more.values()),
        "only_spamassassin": sum(fewer.values()),
    }
    if options.json:
        print(json.dumps(result))
        return
    if options.examples:
        return
    for key, value in result.items():
        print(f"{key}\t{value}")
    print("unsupported\t" + " ".join(sorted(running - known)))
    print("rule\tonly ortler\tonly spamassassin\tboth")
    total = more + fewer
    for name, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[: options.worst]:
        print(f"{name}\t{more[name]}\t{fewer[name]}\t{both[name]}")


if __name__ == "__main__":
    sys.exit(main())
