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
etcd_version=3.6.16
kubernetes_version=1.36.3
kwok_version=0.8.0
containerd_version=2.3.7
pause_version=1
buf_version=1.75.0
versitygw_version=1.8.0
metrics_server_version=0.9.0
helm_version=4.3.1
go_needed=1.26

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

# on_machine NAME VERSION ASKED-BY: whether the machine has that version outside our cache.
on_machine() {
    local folder folders=()
    IFS=: read -r -a folders <<<"${KUBEBUILDER_ASSETS:-}:$PATH"
    for folder in "${folders[@]}"; do
        [ -n "$folder" ] && [ -x "$folder/$1" ] || continue
        # shellcheck disable=SC2086
        "$folder/$1" $3 2>/dev/null | tr -s '[:space:]' '\n' | grep -qxE "v?${2//./\\.}" && return
    done
    return 1
}

# have FOLDER NAME…: whether a finished build holds them all.
have() {
    local folder=$1 name
    shift
    for name in "$@"; do
        [ -x "$folder/$name" ] || return 1
    done
}

# build MODULE LDFLAGS OUTPUT PACKAGE
build() {
    (cd "$here/$1" && GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $2" -o "$3" "$4")
}

# finish FOLDER BUILDER: runs the builder on a folder of another name, and renames it when whole.
finish() {
    local making=$1.making.$$
    rm -rf "$1".making.* && mkdir -p "$making"
    "$2" "$making"
    rm -rf "$1" && mv "$making" "$1"
}

etcd() {
    local folder=$cache/etcd-$etcd_version
    have "$folder" etcd etcdctl etcdutl && return
    on_machine etcd "$etcd_version" --version && on_machine etcdctl "$etcd_version" version &&
        on_machine etcdutl "$etcd_version" version && return
    need_go etcd
    say "building etcd $etcd_version into $folder (about half a minute, once)"
    finish "$folder" build_etcd
}

build_etcd() {
    build etcd '' "$1/etcd" go.etcd.io/etcd/server/v3
    build etcd '' "$1/etcdctl" go.etcd.io/etcd/etcdctl/v3
    build etcd '' "$1/etcdutl" go.etcd.io/etcd/etcdutl/v3
}

kubernetes() {
    local folder=$cache/kubernetes-$kubernetes_version
    local names=(kube-apiserver kube-controller-manager kube-scheduler kubectl)
    have "$folder" "${names[@]}" && return
    local name missing=
    for name in "${names[@]}"; do
        on_machine "$name" "$kubernetes_version" "$(asked_by "$name")" || missing=$name
    done
    [ -z "$missing" ] && return
    need_go Kubernetes
    say "building Kubernetes $kubernetes_version into $folder (about 8 minutes, once)"
    finish "$folder" build_kubernetes
}

asked_by() {
    [ "$1" = kubectl ] && echo 'version --client' || echo --version
}

# Without these a server calls itself v0.0.0-master, and that goes into /version.
v=k8s.io/component-base/version
kubernetes_said="-X $v.gitVersion=v$kubernetes_version -X $v.gitMajor=1 -X $v.gitMinor=36"

build_kubernetes() {
    local name
    for name in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
        say "  $name"
        build kubernetes "$kubernetes_said" "$1/$name" "k8s.io/kubernetes/cmd/$name"
    done
}

# Runs containers on real nodes. In a folder of its own: a machine that built Kubernetes before need not again.
kubelet() {
    local folder=$cache/kubelet-$kubernetes_version
    have "$folder" kubelet && return
    on_machine kubelet "$kubernetes_version" --version && return
    need_go kubelet
    say "building kubelet $kubernetes_version into $folder (about a minute, once)"
    finish "$folder" build_kubelet
}

build_kubelet() {
    build kubernetes "$kubernetes_said" "$1/kubelet" k8s.io/kubernetes/cmd/kubelet
}

# Under the kubelet. The shim stands beside containerd, which looks for it on its path.
containerd() {
    local folder=$cache/containerd-$containerd_version name
    have "$folder" containerd containerd-shim-runc-v2 ctr && return
    need_go containerd
    say "building containerd $containerd_version into $folder (about a minute and a half, once)"
    finish "$folder" build_containerd
}

build_containerd() {
    local said="-X github.com/containerd/containerd/v2/version.Version=$containerd_version" name
    for name in containerd containerd-shim-runc-v2 ctr; do
        build containerd "$said" "$1/$name" "github.com/containerd/containerd/v2/cmd/$name"
    done
}

# Our own, in the image of every pod of a real node; of Rust, and linked statically.
pause() {
    local folder=$cache/pause-$pause_version
    have "$folder" pause && return
    finish "$folder" build_pause
}

build_pause() {
    rustc --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols \
        -o "$1/pause" "$here/../pause/main.rs"
}

kwok() {
    local folder=$cache/kwok-$kwok_version
    have "$folder" kwok && return
    on_machine kwok "$kwok_version" --version && return
    need_go kwok
    say "building kwok $kwok_version into $folder (about a minute, once)"
    finish "$folder" build_kwok
}

build_kwok() {
    build kwok '' "$1/kwok" sigs.k8s.io/kwok/cmd/kwok
}

# Lints the wire and compares it with what was released; the tests run nothing on it.
buf() {
    local folder=$cache/buf-$buf_version
    have "$folder" buf && return
    on_machine buf "$buf_version" --version && return
    need_go buf
    say "building buf $buf_version into $folder (about a minute and a half, once)"
    finish "$folder" build_buf
}

build_buf() {
    build buf '' "$1/buf" github.com/bufbuild/buf/cmd/buf
}

# An object store for the fleet. Says a version only when told one.
versitygw() {
    local folder=$cache/versitygw-$versitygw_version
    have "$folder" versitygw && return
    on_machine versitygw "$versitygw_version" --version && return
    need_go versitygw
    say "building versitygw $versitygw_version into $folder (about a minute, once)"
    finish "$folder" build_versitygw
}

build_versitygw() {
    build versitygw "-X main.Version=$versitygw_version" "$1/versitygw" github.com/versity/versitygw/cmd/versitygw
}

# Usage of nodes and pods, for each cluster.
metrics-server() {
    local folder=$cache/metrics-server-$metrics_server_version
    have "$folder" metrics-server && return
    on_machine metrics-server "$metrics_server_version" --version && return
    need_go metrics-server
    say "building metrics-server $metrics_server_version into $folder (about two minutes and a half, once)"
    finish "$folder" build_metrics_server
}

build_metrics_server() {
    build metrics-server "-X k8s.io/client-go/pkg/version.gitVersion=v$metrics_server_version" \
        "$1/metrics-server" sigs.k8s.io/metrics-server/cmd/metrics-server
}

# Renders and lints the charts of `deploy/charts`. Without the flag it calls itself v4.2.
helm() {
    local folder=$cache/helm-$helm_version
    have "$folder" helm && return
    on_machine helm "$helm_version" 'version --template {{.Version}}' && return
    need_go Helm
    say "building Helm $helm_version into $folder (about two minutes, once)"
    finish "$folder" build_helm
}

build_helm() {
    build helm "-X helm.sh/helm/v4/internal/version.version=v$helm_version" "$1/helm" helm.sh/helm/v4/cmd/helm
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
    case $wanted in
        etcd | kwok | kubernetes | kubelet | containerd | pause | buf | helm | versitygw | metrics-server) "$wanted" ;;
        *) say "$wanted is not built here: etcd, kwok, kubernetes, kubelet, containerd, pause, buf, helm, versitygw or metrics-server" && exit 2 ;;
    esac
done
printf '%s\n' "$cache"
