#!/bin/sh
# One node: its links, its cgroups, its namespaces, and in them containerd and the kubelet.
#
# Ends when the kubelet ends, and all of it with it. Starting it again is as a machine that was switched off
# and on: what containers wrote is there, what ran is not. So everything is made afresh here, and what an
# earlier run left is removed first: left-over cgroups make a kubelet start in 50 s instead of 4.
#
# Told by its environment: NODE, HERE (its folder), LOG (path without an ending), LINK, OUTSIDE, INSIDE,
# SERVICE, SERVICES, PODS (addresses), CGROUPS (folders), CGROUP_VERSION, KUBELET_LABELS.
set -eu

remove_cgroup() {
    tries=0
    while [ -d "$1" ]; do
        # Who still ends in it is waited for; who does not is ended.
        find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        tries=$((tries + 1))
        [ ! -d "$1" ] || [ $tries -lt 200 ] || { echo "cgroup $1 cannot be removed" && exit 1; }
        [ ! -d "$1" ] || sleep 0.05
    done
}

make_cgroup() {
    remove_cgroup "$1"
    mkdir "$1"
    above=$(dirname "$1")
    if [ "$CGROUP_VERSION" = 2 ]; then
        for name in cpu cpuset memory pids io; do
            echo "+$name" >"$above/cgroup.subtree_control" 2>/dev/null || true
            echo "+$name" >"$1/cgroup.subtree_control" 2>/dev/null || true
        done
    fi
    # In version 1 nothing may enter a group that has no processors.
    for name in cpuset.cpus cpuset.mems; do
        [ "$CGROUP_VERSION" = 2 ] || [ ! -f "$above/$name" ] || cat "$above/$name" >"$1/$name"
    done
}

if [ "${1-}" != inside ]; then
    for group in $CGROUPS; do
        make_cgroup "$group"
    done
    exec 9</proc/self/ns/net
    exec unshare --mount --pid --net --uts --fork --mount-proc --kill-child /bin/sh "$0" inside
fi

on_machine() {
    nsenter --net=/proc/self/fd/9 "$@"
}

# The machine's end has the address of the service `kubernetes` too: there pods find the API server.
on_machine ip link delete "$LINK" 2>/dev/null || true
on_machine ip link add "$LINK" type veth peer name eth0 netns 1
on_machine ip address add "$OUTSIDE/30" dev "$LINK"
on_machine ip address add "$SERVICE/32" dev "$LINK"
on_machine ip link set "$LINK" up
ip link set lo up
ip address add "$INSIDE/30" dev eth0
ip link set eth0 up
# No default route: a node reaches its machine's end of the link, and nothing else.
ip route add "$SERVICES" via "$OUTSIDE"
on_machine ip route replace "$PODS" via "$INSIDE"
echo 1 >/proc/sys/net/ipv4/ip_forward
exec 9<&-

hostname "$NODE"
mount --make-rprivate /
bind() {
    mkdir -p "$HERE/$1" "$2"
    mount --bind "$HERE/$1" "$2"
}
bind kubelet /var/lib/kubelet
bind containerd /var/lib/containerd
bind pods /var/log/pods
bind links /var/log/containers
for folder in /run/containerd /var/lib/cni /run/netns; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
mount --bind "$HERE/resolv.conf" /etc/resolv.conf
# A kubelet sets these for the whole machine unless they read as it wants them.
mkdir -p "$HERE/tunables"
tunable() {
    [ -f "/proc/sys/$1" ] || return 0
    file=$HERE/tunables/$(echo "$1" | tr / -)
    echo "$2" >"$file"
    mount --bind "$file" "/proc/sys/$1"
}
tunable vm/overcommit_memory 1
tunable vm/panic_on_oom 0
tunable kernel/panic 10
tunable kernel/panic_on_oops 1
tunable kernel/keys/root_maxkeys 1000000
tunable kernel/keys/root_maxbytes 25000000
mount --make-rshared /

containerd --config "$HERE/containerd.toml" >>"$LOG-containerd.log" 2>&1 &
tries=0
until [ -S /run/containerd/containerd.sock ]; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "containerd does not listen" && exit 1; }
    sleep 0.05
done
kubelet --config="$HERE/kubelet.yaml" --kubeconfig="$HERE/kubeconfig" --hostname-override="$NODE" \
    --node-ip="$INSIDE" --node-labels="$KUBELET_LABELS" >>"$LOG-kubelet.log" 2>&1 || {
    status=$?
    echo "the kubelet ended with $status"
    tail -n 3 "$LOG-kubelet.log"
    exit $status
}
