#!/usr/bin/env bash
# Builds the programs of other projects that the tests run, once, into a cache outside the work tree,
# and prints the folder they are in.
#
#   tests/fleet/binaries.sh            all of them (those of real nodes only as root)
#   tests/fleet/binaries.sh etcd       only those named
#
# Cache: ${ALDIS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aldis}/bin/<name>-<version>. The versions are
# pinned by the go.mod files beside this script. A build is made under another name and renamed when it is
# whole, so that a cut-off build is never taken for a finished one. What is found of the pinned version in
# $KUBEBUILDER_ASSETS or on $PATH is used as it is (`tests/src/binaries.rs` looks in the same places).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${ALDIS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aldis}/bin
go_needed=1.26

# about NAME: what is built under a name. `packages` are PROGRAM=GO-PACKAGE, `module` is the folder beside this
# script with their go.mod, `said` what the linker is told, so that programs say their version.
about() {
    module=$1 title=$1 said=
    case $1 in
        etcd)
            version=3.6.16 takes='half a minute'
            packages=(etcd=go.etcd.io/etcd/server/v3 etcdctl=go.etcd.io/etcd/etcdctl/v3 etcdutl=go.etcd.io/etcd/etcdutl/v3)
            ;;
        kubernetes)
            version=1.36.3 title=Kubernetes takes='8 minutes' said=$(kubernetes_says "$version")
            packages=(
                kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver
                kube-controller-manager=k8s.io/kubernetes/cmd/kube-controller-manager
                kube-scheduler=k8s.io/kubernetes/cmd/kube-scheduler
                kubectl=k8s.io/kubernetes/cmd/kubectl
            )
            ;;
        # Runs containers on real nodes. Apart: a machine that built Kubernetes before need not again.
        kubelet)
            version=1.36.3 takes='a minute' module=kubernetes said=$(kubernetes_says "$version")
            packages=(kubelet=k8s.io/kubernetes/cmd/kubelet)
            ;;
        # Under the kubelet. The shim stands beside containerd, which looks for it on its path.
        containerd)
            version=2.3.7 takes='a minute and a half'
            said="-X github.com/containerd/containerd/v2/version.Version=$version"
            packages=(
                containerd=github.com/containerd/containerd/v2/cmd/containerd
                containerd-shim-runc-v2=github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
                ctr=github.com/containerd/containerd/v2/cmd/ctr
            )
            ;;
        kwok)
            version=0.8.0 takes='a minute'
            packages=(kwok=sigs.k8s.io/kwok/cmd/kwok)
            ;;
        # Lints the wire and compares it with what was released; the tests run nothing on it.
        buf)
            version=1.75.0 takes='a minute and a half'
            packages=(buf=github.com/bufbuild/buf/cmd/buf)
            ;;
        # An object store for the fleet.
        versitygw)
            version=1.8.0 takes='a minute' said="-X main.Version=$version"
            packages=(versitygw=github.com/versity/versitygw/cmd/versitygw)
            ;;
        # Usage of nodes and pods, for each cluster.
        metrics-server)
            version=0.9.0 takes='two minutes and a half' said="-X k8s.io/client-go/pkg/version.gitVersion=v$version"
            packages=(metrics-server=sigs.k8s.io/metrics-server/cmd/metrics-server)
            ;;
        # Renders and lints the charts of `deploy/charts`. Calls itself v4.2 when it is not told.
        helm)
            version=4.3.1 title=Helm takes='two minutes' said="-X helm.sh/helm/v4/internal/version.version=v$version"
            packages=(helm=helm.sh/helm/v4/cmd/helm)
            ;;
        # Our own, in the image of every pod of a real node; of Rust, and linked statically.
        pause)
            version=1 takes='a second' module=
            packages=(pause=)
            ;;
        *)
            say "$1 is not built here: etcd, kwok, kubernetes, kubelet, containerd, pause, buf, helm, versitygw or metrics-server"
            exit 2
            ;;
    esac
}

# Without these a server calls itself v0.0.0-master, and that goes into /version.
kubernetes_says() {
    local v=k8s.io/component-base/version minor=${1#*.}
    echo "-X $v.gitVersion=v$1 -X $v.gitMajor=${1%%.*} -X $v.gitMinor=${minor%.*}"
}

say() { printf 'aldis: %s\n' "$*" >&2; }

need_go() {
    if ! command -v go >/dev/null; then
        say "Go is not installed; it is needed once to build $1. Install Go $go_needed or later from your distribution, or from https://go.dev/dl"
        exit 1
    fi
    local found
    found=$(go env GOVERSION | sed 's/^go//')
    if [ "$(printf '%s\n%s\n' "$go_needed" "$found" | sort -V | head -n 1)" != "$go_needed" ]; then
        say "Go $found is too old, $go_needed or later is needed: https://go.dev/dl"
        exit 1
    fi
}

# asked_by PROGRAM: what it is asked for its version by.
asked_by() {
    case $1 in
        etcdctl | etcdutl) echo version ;;
        kubectl) echo version --client ;;
        helm) echo 'version --template {{.Version}}' ;;
        *) echo --version ;;
    esac
}

# on_machine VERSION PROGRAM…: whether the machine has them all in that version outside our cache.
on_machine() {
    local version=$1 program
    shift
    for program in "$@"; do
        is_on_machine "$program" "$version" || return 1
    done
}

is_on_machine() {
    local folder folders=()
    IFS=: read -r -a folders <<<"${KUBEBUILDER_ASSETS:-}:$PATH"
    for folder in "${folders[@]}"; do
        [ -n "$folder" ] && [ -x "$folder/$1" ] || continue
        # shellcheck disable=SC2046
        "$folder/$1" $(asked_by "$1") 2>/dev/null | tr -s '[:space:]' '\n' | grep -qxE "v?${2//./\\.}" && return
    done
    return 1
}

# have FOLDER PROGRAM…: whether a finished build holds them all.
have() {
    local folder=$1 program
    shift
    for program in "$@"; do
        [ -x "$folder/$program" ] || return 1
    done
}

# build FOLDER: what `about` told last, made under another name and renamed when whole.
build() {
    local making=$1.making.$$ package
    rm -rf "$1".making.* && mkdir -p "$making"
    for package in "${packages[@]}"; do
        [ ${#packages[@]} -eq 1 ] || say "  ${package%%=*}"
        build_one "$making/${package%%=*}" "${package#*=}"
    done
    rm -rf "$1" && mv "$making" "$1"
}

# build_one PROGRAM GO-PACKAGE
build_one() {
    if [ -z "$module" ]; then
        rustc --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols -o "$1" "$here/../pause/main.rs"
    else
        (cd "$here/$module" && GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $said" -o "$1" "$2")
    fi
}

# ensure NAME: builds what is missing of it.
ensure() {
    about "$1"
    local folder=$cache/$1-$version programs=("${packages[@]%%=*}")
    have "$folder" "${programs[@]}" && return
    on_machine "$version" "${programs[@]}" && return
    [ -z "$module" ] || need_go "$title"
    say "building $title $version into $folder (about $takes, once)"
    build "$folder"
}

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
if [ $# -eq 0 ]; then
    set -- etcd kwok kubernetes buf helm versitygw metrics-server
    # Real nodes need root; nobody else waits for what only they use.
    [ "$(id -u)" -ne 0 ] || set -- "$@" containerd kubelet pause
fi
for wanted in "$@"; do
    ensure "$wanted"
done
printf '%s\n' "$cache"
