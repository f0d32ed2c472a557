#!/bin/sh
# Packs one static program as a docker-archive: demo-image.sh PROGRAM NAME:TAG VERSION OUTPUT.tar
# The image has nothing but /swarm-demo; its environment says VERSION.
set -eu
program=$1 name=$2 version=$3 output=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root" "$work/archive"
install -m 0755 "$program" "$work/root/swarm-demo"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work/root" -cf "$work/archive/layer.tar" swarm-demo
layer=$(sha256sum "$work/archive/layer.tar" | cut -d' ' -f1)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
cat >"$work/archive/config.json" <<JSON
{"architecture":"$arch","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"Entrypoint":["/swarm-demo"],"Cmd":["serve","80"],"Env":["VERSION=$version"],"ExposedPorts":{"80/tcp":{}}},
 "rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" >"$work/archive/manifest.json"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work/archive" -cf "$output" .
