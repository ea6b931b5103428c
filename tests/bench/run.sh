#!/usr/bin/env bash
# Ortler beside Postfix and Dovecot in one run: tests/bench/run.sh [REPETITIONS]   (root; a release build must exist)
# Uses the load generator and the peers' scripts of ../shared/bench. Writes a table to standard output.
set -euo pipefail
cd "$(dirname "$0")/../.."
reps=${1:-3}
bench=${ORTLER_BENCH:-../shared/bench}
binary=${CARGO_TARGET_DIR:-target}/release/ortler
[ -x "$binary" ] || { echo "build first: cargo build --release --ignore-rust-version" >&2; exit 1; }
work=$(mktemp -d)
if [ -n "${MAILBENCH:-}" ]; then mb=$MAILBENCH; else
  CARGO_TARGET_DIR=$work/build cargo build --release --quiet --manifest-path "$bench/mailbench/Cargo.toml"
  mb=$work/build/release/mailbench
fi
node= plain= dns=
stop() { [ -z "$dns" ] || kill "$dns" 2>/dev/null || true
  [ -z "$node" ] || kill "$node" 2>/dev/null || true; [ -z "$plain" ] || kill "$plain" 2>/dev/null || true; "$bench/peers/postfix.sh" clean -d "$work/pf" >/dev/null 2>&1 || true
  "$bench/peers/dovecot.sh" clean -d "$work/dc" >/dev/null 2>&1 || true; sleep 1; rm -rf "$work"; }
trap stop EXIT
chmod 755 "$work"
# A name server that knows no name: sender checks run, and nothing waits for the world outside.
python3 - <<'P' &
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 28953))
while True:
    d, a = s.recvfrom(1500)
    e = 12
    while e < len(d) and d[e]:
        e += d[e] + 1
    s.sendto(d[:2] + bytes([d[2] | 0x80, 0x83]) + b'\0\1' + b'\0' * 6 + d[12:e + 5], a)
P
dns=$!
start() { # start NAME BASE_PORT [OPTIONS]: the process id is in $started
  local name=$1 port=$2; shift 2
  "$binary" demo --dir "$work/$name" --base-port "$port" --accounts 320 --dns 127.0.0.1:28953 "$@" >"$work/$name.out" 2>"$work/$name.err" &
  started=$!
  for _ in $(seq 100); do grep -q '^ready' "$work/$name.out" && return; sleep 0.2; done
  echo "$name does not start:" >&2; cat "$work/$name.err" >&2; exit 1
}
start node 28000; node=$started
start plain 27000 --unfiltered; plain=$started
eval "$("$bench/peers/dovecot.sh" start -d "$work/dc" -f sdbox -p 29100 -u 2100)"
eval "$("$bench/peers/postfix.sh" start -d "$work/pf" -p 29205 -t "lmtp:127.0.0.1:$DOVECOT_LMTP_PORT")"
results=$work/results.jsonl
run() { local label=$1; shift; timeout 300 "$mb" "$@" --label "$label" --json "$results" >/dev/null 2>>"$work/log" || echo "{\"label\":\"$label\",\"failed\":true}" >>"$results"; }
ours=(--user 'user{}@example.test' --pass demo)
for _ in $(seq "$reps"); do
  run "smtp into mailbox, size mix, 16 sessions|postfix+dovecot" smtp --addr "127.0.0.1:$POSTFIX_SMTP_PORT" --conns 16 --messages 1000 --users 100 --wait-imap "127.0.0.1:$DOVECOT_IMAP_PORT" --pids "a=$POSTFIX_PID,b=$DOVECOT_PID"
  run "smtp into mailbox, size mix, 16 sessions|ortler, filter on" smtp --addr 127.0.0.1:28025 --conns 16 --messages 1000 --users 100 --rcpt 'user{}@example.test' --pids "a=$node"
  run "smtp into mailbox, size mix, 16 sessions|ortler, unfiltered" smtp --addr 127.0.0.1:27025 --conns 16 --messages 1000 --users 100 --rcpt 'user{}@example.test' --pids "a=$plain"
  run "lmtp, size mix, 16 sessions|dovecot" smtp --lmtp --addr "127.0.0.1:$DOVECOT_LMTP_PORT" --conns 16 --messages 1500 --pids "b=$DOVECOT_PID"
  run "lmtp, size mix, 16 sessions|ortler, filter on" smtp --lmtp --addr 127.0.0.1:28024 --conns 16 --messages 1500 --users 100 --rcpt 'user{}@example.test' --pids "a=$node"
  run "lmtp, size mix, 16 sessions|ortler, unfiltered" smtp --lmtp --addr 127.0.0.1:27024 --conns 16 --messages 1500 --users 100 --rcpt 'user{}@example.test' --pids "a=$plain"
done
run seed imap append --addr "127.0.0.1:$DOVECOT_IMAP_PORT" --first-user 201 --users 1 --sessions 8 --iterations 10000 --size 4096:60,20480:30,102400:10
run seed imap append --addr 127.0.0.1:28143 "${ours[@]}" --first-user 201 --users 1 --sessions 8 --iterations 10000 --size 4096:60,20480:30,102400:10
for _ in $(seq "$reps"); do
  run "imap fetch-headers, 10,000 messages, warm|dovecot" imap fetch-headers --addr "127.0.0.1:$DOVECOT_IMAP_PORT" --first-user 201 --users 1 --sessions 1 --secs 5 --pids "b=$DOVECOT_PID"
  run "imap fetch-headers, 10,000 messages, warm|ortler" imap fetch-headers --addr 127.0.0.1:28143 "${ours[@]}" --first-user 201 --users 1 --sessions 1 --secs 5 --pids "a=$node"
done
# Dovecot takes a process and an inotify instance for each connection. Ours are a fresh node each: what load has freed
# before would hide what connections cost.
run "idle, plain|dovecot, 100 connections" imap idle --addr "127.0.0.1:$DOVECOT_IMAP_PORT" --first-user 1 --users 100 --sessions 100 --pids "b=$DOVECOT_PID"
for tls in none implicit; do
  port=27143; [ $tls = none ] || port=27993
  kill "$plain"; wait "$plain" || true; start plain 27000 --unfiltered; plain=$started
  run "idle, TLS $tls|ortler, 2,000 connections" imap idle --addr "127.0.0.1:$port" "${ours[@]}" --users 300 --sessions 2000 --tls "$tls" --pids "a=$plain"
done
cp "$results" "${ORTLER_RESULTS:-/dev/null}" 2>/dev/null || true
python3 "$bench/summarize.py" "$results"
