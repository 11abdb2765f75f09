#!/usr/bin/env bash
# Installs the Debian packages that building minke needs; with "tests" those of its tests as well.
# Only what is missing.
#
#   tools/install_dependencies.sh [tests]
set -euo pipefail

packages=(
  cmake ninja-build g++ pkg-config
  libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libsimdjson-dev libedit-dev libboost-dev
  zlib1g-dev libzstd-dev libhwloc-dev
  libopenmpi-dev openmpi-bin
  libgtest-dev python3
)

[ "${1:-}" != tests ] || packages+=(qemu-user)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "apt-get was not found; install the counterparts of: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "run this as root, or install first: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
  # Without a terminal sudo must not ask: fail at once instead.
  [ -t 0 ] || as_root=(sudo -n)
fi

echo "installing: ${missing[*]}"
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log" >&2
  echo "the packages could not be installed; the lines above say why" >&2
  exit 1
fi
