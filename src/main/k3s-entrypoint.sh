#!/bin/sh
# Starts k3s as a Dagger service: checks what the kernel must offer, prepares cgroups, starts a fresh cluster.
# Usage: k3s-entrypoint.sh KUBECONFIG [k3s server flags]
set -eu

kubeconfig=$1
shift

cgroups=/sys/fs/cgroup
state=/var/lib/rancher/k3s

fail() {
    echo "servepath: $1; next: $2" >&2
    exit 1
}

# k3s does this itself only as PID 1, and Dagger's init is PID 1: processes must leave the root group before its
# controllers can be handed down ("cannot enter cgroupv2 ... /kubepods" otherwise).
if [ -f "$cgroups/cgroup.controllers" ]; then
    for controller in cpu cpuset memory pids; do
        grep -qw "$controller" "$cgroups/cgroup.controllers" ||
            fail "the cgroup controller '$controller' is not given to the engine" \
                "boot the engine's host with it (cgroup_enable=$controller), or run the engine with --cgroupns=host"
    done
    mkdir -p "$cgroups/init"
    while read -r pid; do
        # A process may have ended since the list was read.
        echo "$pid" >"$cgroups/init/cgroup.procs" 2>/dev/null || true
    done <"$cgroups/cgroup.procs"
    sed 's/ / +/g; s/^/+/' "$cgroups/cgroup.controllers" >"$cgroups/cgroup.subtree_control"
fi

instances=$(cat /proc/sys/fs/inotify/max_user_instances)
[ "$instances" -ge 256 ] ||
    echo "servepath: fs.inotify.max_user_instances is $instances, pods may fail to watch files;" \
        "next: sudo sysctl -w fs.inotify.max_user_instances=1024" >&2

# Images stay between runs, the cluster does not: kubelet removes the pods of an earlier one that it finds.
rm -rf "$state/server" "$state/agent/pod-manifests" /etc/rancher/node

# The address of this container, not loopback: pod logs and exec must not need k3s's tunnel.
address=$(hostname -i | cut -d ' ' -f 1)

exec k3s server \
    --bind-address "$address" \
    --egress-selector-mode disabled \
    --tls-san k3s \
    --write-kubeconfig "$kubeconfig" \
    --disable traefik,metrics-server \
    "$@"
