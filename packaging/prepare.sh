# Sourced by packaging/quickstart and tests/run: what a machine needs, installed if it is missing.

# Ends with instructions unless a Rust toolchain of 1.95 or newer is there.
need_toolchain() {
  if [ -r "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
  local found
  found=$(rustc --version 2>/dev/null | cut -d' ' -f2 || true)
  if [ -z "$found" ] || [ "$(printf '%s\n' 1.95.0 "${found%%-*}" | sort -V | head -n 1)" != 1.95.0 ]; then
    echo "Ortler needs a Rust toolchain of 1.95 or newer; found: ${found:-none}." >&2
    echo "Install rustup as https://rustup.rs describes, run 'rustup toolchain install stable', then start again." >&2
    exit 1
  fi
}

# Installs the named Debian packages that are missing; services of packages installed here are not started.
need_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || { echo "missing packages: ${missing[*]}; this script can install them on Debian only" >&2; exit 1; }
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "missing packages: ${missing[*]}; run as root or install sudo" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "installing: ${missing[*]}" >&2
  local guard=/usr/sbin/policy-rc.d made=
  if [ ! -e "$guard" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$guard" >/dev/null
    "${as_root[@]}" chmod +x "$guard"
    made=yes
  fi
  "${as_root[@]}" apt-get update -qq >&2
  local done_well=yes
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 || done_well=
  if [ -n "$made" ]; then "${as_root[@]}" rm -f "$guard"; fi
  [ -n "$done_well" ] || { echo "apt-get could not install: ${missing[*]}" >&2; exit 1; }
}
