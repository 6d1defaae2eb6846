#!/usr/bin/env bash
# Checks for what a fresh Debian or Ubuntu machine may lack, installs the packages that need no choice,
# and says in one sentence what to type for the rest.
set -euo pipefail

rust_needed=1.95

say() { printf 'aldis: %s\n' "$*" >&2; }

if ! command -v cargo >/dev/null; then
    say "Rust is not installed: install rustup (https://rustup.rs), then type \`rustup default $rust_needed\`"
    exit 1
fi
found=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$rust_needed" "$found" | sort -V | head -n 1)" != "$rust_needed" ]; then
    say "Rust $found is too old, $rust_needed or later is needed: type \`rustup update stable\`"
    exit 1
fi

missing=()
command -v protoc >/dev/null || missing+=(protobuf-compiler)
# protoc's own files are a package apart, and etcd's API imports them.
protoc --descriptor_set_out=/dev/null google/protobuf/descriptor.proto 2>/dev/null || missing+=(libprotobuf-dev)
command -v cc >/dev/null || missing+=(build-essential)
command -v flock >/dev/null || missing+=(util-linux)
# The services of a fleet. Their versions are looked at when they are started.
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v prometheus >/dev/null || missing+=(prometheus)
# Real nodes run containers, which takes root; anyone else has simulated ones and needs none of this.
if [ "$(id -u)" -eq 0 ]; then
    command -v runc >/dev/null || missing+=(runc)
    command -v ip >/dev/null || missing+=(iproute2)
    [ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing+=(containernetworking-plugins)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    say "please install: ${missing[*]}"
    exit 1
fi
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
say "installing ${missing[*]}"
# Servers are wanted as programs only: their packages shall start nothing, and make no database of the
# machine's own. Both settings are taken back when the packages are there.
quiet=()
place() {
    [ -e "$1" ] && return
    $sudo mkdir -p "$(dirname "$1")"
    printf '%b' "$2" | $sudo tee "$1" >/dev/null
    $sudo chmod 755 "$1"
    quiet+=("$1")
}
restore() { [ ${#quiet[@]} -eq 0 ] || $sudo rm -f "${quiet[@]}"; }
trap restore EXIT
place /usr/sbin/policy-rc.d '#!/bin/sh\nexit 101\n'
place /etc/postgresql-common/createcluster.d/aldis.conf 'create_main_cluster = false\n'
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
