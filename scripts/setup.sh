#!/usr/bin/env bash
# Looks for what building, testing and the demo need, and installs what is missing (Debian, Ubuntu; as root or with
# password-less sudo). Elsewhere it names what is missing and ends with 1. Running it again changes nothing.
# `scripts/setup.sh bench` looks for what making recordings needs as well.
set -euo pipefail

need_rust="1.94"

has() { command -v "$1" >/dev/null 2>&1; }

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

has_postgres() { has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

has_chromium() { has chromium || has chromium-browser || has google-chrome || has google-chrome-stable; }

missing=()
has ffmpeg && has ffprobe || missing+=(ffmpeg)
has_postgres || missing+=(postgresql)
has cc && has make || missing+=(build-essential)
has pkg-config || missing+=(pkg-config)
has git || missing+=(git)
has_chromium || missing+=(chromium)
if [ "${1:-}" = bench ] && ! { has gst-launch-1.0 && gst-inspect-1.0 --exists x264enc && gst-inspect-1.0 --exists avenc_aac &&
  gst-inspect-1.0 --exists mpegtsmux && gst-inspect-1.0 --exists splitmuxsink; }; then
  missing+=(gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav)
fi

if [ "${#missing[@]}" -gt 0 ]; then
  run=()
  if [ "$(id -u)" -ne 0 ]; then
    if has sudo && sudo -n true 2>/dev/null; then run=(sudo); else run=(false); fi
  fi
  if ! has apt-get || [ "${run[0]:-}" = false ]; then
    echo "setup: missing: ${missing[*]}" >&2
    echo "setup: install them with your system's package manager (as root), then run this again" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  # a PostgreSQL package starts a server of its own unless told not to; the tests bring their own cluster
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    "${run[@]}" mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
      echo "create_main_cluster = false" | "${run[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  log=$(mktemp)
  if ! { "${run[@]}" apt-get update &&
    "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    echo "setup: apt-get failed" >&2
    exit 1
  fi
  rm -f "$log"
fi

if ! has cargo; then
  echo "setup: no Rust toolchain found; install one, $need_rust or newer" >&2
  exit 1
fi
rust=$(rustc --version | cut -d' ' -f2)
if ! at_least "$need_rust" "${rust%%-*}"; then
  echo "setup: Rust $rust is too old; $need_rust or newer is needed (rustup update stable)" >&2
  exit 1
fi
echo "setup: ready (Rust $rust, $(ffmpeg -version | head -n 1 | cut -d' ' -f1-3))"
