#!/usr/bin/env bash
# Builds swarm, runs a cluster of three nodes on this machine, and shows what it does: a service with three replicas, a
# published port, a rolling update under load. Then it leaves the cluster for playing, until Ctrl-C; with --once it ends.
set -euo pipefail
cd "$(dirname "$0")/.."

once=no
for argument in "$@"; do
  case $argument in
    --once) once=yes ;;
    *) echo "usage: deploy/quickstart.sh [--once]" >&2; exit 64 ;;
  esac
done
if [ "$(id -u)" != 0 ]; then
  echo "error: the quickstart runs real containers and needs root" >&2
  echo "  next: sudo --preserve-env=PATH deploy/quickstart.sh" >&2
  exit 1
fi
for directory in "${CARGO_HOME:-$HOME/.cargo}/bin" ${SUDO_USER:+"$(getent passwd "$SUDO_USER" | cut -d: -f6)/.cargo/bin"}; do
  [ -x "$directory/cargo" ] && PATH=$PATH:$directory
done
command -v cargo >/dev/null || { echo "error: cargo is not installed; see https://rustup.rs" >&2; exit 1; }

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say "Building"
cargo build --release --quiet -p swarmd -p swarmctl
cargo rustc --release --quiet -p swarm-demo -- -C target-feature=+crt-static
target=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
export PATH=$(cd "$target" && pwd):$PATH

say "Starting a cluster of three nodes on this machine"
swarmd dev --nodes 3 >"$work/ready" 2>"$work/log" &
daemon=$!
finish() {
  status=$?
  trap - EXIT INT TERM
  if kill -0 "$daemon" 2>/dev/null; then kill -TERM "$daemon" && wait "$daemon" || status=$?; fi
  if [ "$status" != 0 ]; then echo "the log of swarmd dev:" >&2; tail -n 20 "$work/log" >&2; fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM
until [ -s "$work/ready" ]; do
  kill -0 "$daemon" 2>/dev/null || { wait "$daemon" || true; exit 1; }
  sleep 0.05
done
cat "$work/ready"
export SWARMCTL_CONTEXT=dev
run swarmctl node ls

say "Loading a demo image, in two versions"
for version in 1 2; do
  deploy/demo-image.sh "$target/swarm-demo" "demo:$version" "$version" "$work/demo-$version.tar"
  run swarmctl image load -i "$work/demo-$version.tar"
done

say "A service with three replicas and a published port"
run swarmctl service create --name web --replicas 3 -p 8080:80 --env 'NODE={{.Node.Hostname}}' \
  --update-monitor 1s demo:1
run swarmctl service ps web

say "Requests to 127.0.0.1:8080 for three seconds"
swarm-demo load 127.0.0.1:8080 3

say "A rolling update to version 2, under load"
swarm-demo load 127.0.0.1:8080 12 >"$work/load" &
load=$!
run swarmctl service update --image demo:2 web
wait "$load"
cat "$work/load"
run swarmctl service ps web

if [ "$once" = yes ]; then
  say "Ending the cluster"
  exit 0
fi
say "The cluster is yours until Ctrl-C. In another terminal:"
echo "  export PATH=$(cd "$target" && pwd):\$PATH SWARMCTL_CONTEXT=dev"
echo "  swarmctl service scale web=6; swarmctl service logs -f web; curl 127.0.0.1:8080"
wait "$daemon"
