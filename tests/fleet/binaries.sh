#!/usr/bin/env bash
# Builds the programs of other projects that the tests run, once, into a cache outside the work tree,
# and prints the folder they are in.
#
#   tests/fleet/binaries.sh
#
# Cache: ${ALDIS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aldis}/bin/<version>. The versions are pinned by
# the go.mod beside this script. A build is made under another name and renamed when it is whole, so that
# a cut-off build is never taken for a finished one.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${ALDIS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aldis}/bin
etcd_version=3.6.16
go_needed=1.26

say() { printf 'aldis: %s\n' "$*" >&2; }

need_go() {
    if ! command -v go >/dev/null; then
        say "Go is not installed; it is needed once to build etcd. Install Go $go_needed or later from your distribution, or from https://go.dev/dl"
        exit 1
    fi
    local found
    found=$(go env GOVERSION | sed 's/^go//')
    if [ "$(printf '%s\n%s\n' "$go_needed" "$found" | sort -V | head -n 1)" != "$go_needed" ]; then
        say "Go $found is too old, $go_needed or later is needed: https://go.dev/dl"
        exit 1
    fi
}

# build FOLDER OUTPUT PACKAGE
build() {
    (cd "$here/$1" && GOFLAGS=-mod=readonly go build -trimpath -ldflags '-s -w' -o "$2" "$3")
}

etcd() {
    local folder=$cache/etcd-$etcd_version
    [ -x "$folder/etcd" ] && [ -x "$folder/etcdctl" ] && [ -x "$folder/etcdutl" ] && return
    need_go
    say "building etcd $etcd_version into $folder (about half a minute, once)"
    local making=$folder.making.$$
    rm -rf "$making" && mkdir -p "$making"
    build etcd "$making/etcd" go.etcd.io/etcd/server/v3
    build etcd "$making/etcdctl" go.etcd.io/etcd/etcdctl/v3
    build etcd "$making/etcdutl" go.etcd.io/etcd/etcdutl/v3
    rm -rf "$folder" && mv "$making" "$folder"
}

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
etcd
printf '%s\n' "$cache"
