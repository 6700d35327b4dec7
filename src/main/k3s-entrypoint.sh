#!/bin/sh
# Starts k3s as a Dagger service: checks what the kernel must offer, prepares cgroups, starts a fresh cluster.
# Usage: k3s-entrypoint.sh CERTIFICATE TOKEN IMAGES [k3s server flags]
# CERTIFICATE is where the certificate of the cluster's authority goes, TOKEN is the file of the administrator's token,
# IMAGES is the folder in which containerd keeps what it pulled.
set -eu

certificate=$1
token=$2
images=$3
shift 3

cgroups=/sys/fs/cgroup
state=/var/lib/rancher/k3s

fail() {
    echo "servepath: $1; next: $2" >&2
    exit 1
}

for controller in cpu cpuset memory pids; do
    grep -qw "$controller" "$cgroups/cgroup.controllers" 2>/dev/null || [ -d "$cgroups/$controller" ] ||
        fail "the cgroup controller '$controller' is not given to the engine" \
            "boot the engine's host with it (cgroup_enable=$controller), or run the engine with --cgroupns=host"
done

# k3s does this itself only as PID 1, and Dagger's init is PID 1: processes must leave the root group before its
# controllers can be handed down ("cannot enter cgroupv2 ... /kubepods" otherwise). cgroup v1 hands down by itself.
if [ -f "$cgroups/cgroup.controllers" ]; then
    mkdir -p "$cgroups/init"
    while read -r pid; do
        # A process may have ended since the list was read.
        echo "$pid" >"$cgroups/init/cgroup.procs" 2>/dev/null || true
    done <"$cgroups/cgroup.procs"
    sed 's/ / +/g; s/^/+/' "$cgroups/cgroup.controllers" >"$cgroups/cgroup.subtree_control"
fi

# Every pod's sandbox gets a negative oom_score_adj. A node image whose containerd does without says so.
[ "${SERVEPATH_OOM_SCORE_ADJ:-}" = restricted ] || (echo -1 >/proc/self/oom_score_adj) 2>/dev/null ||
    fail "oom_score_adj cannot be lowered, so no pod would start: the engine lacks CAP_SYS_RESOURCE" \
        "run the engine with it (docker run --privileged, or --cap-add=SYS_RESOURCE)"

instances=$(cat /proc/sys/fs/inotify/max_user_instances)
[ "$instances" -ge 256 ] ||
    echo "servepath: fs.inotify.max_user_instances is $instances, pods may fail to watch files;" \
        "next: sudo sysctl -w fs.inotify.max_user_instances=1024" >&2

# Images stay between runs, the cluster does not: kubelet removes the pods of an earlier one that it finds, and nothing
# the volumes of its claims.
rm -rf "$state/storage"

# Keys stay in memory: "server" and "agent" are tmpfs.
mkdir -p "$state/server" "$state/agent"
ln -s "$images" "$state/agent/containerd"
kubeconfig=$state/server/admin.kubeconfig
tokens=$state/server/tokens.csv
administrator=$(cat "$token")
(umask 077 && echo "$administrator,servepath,servepath,system:masters" >"$tokens")

# Whoever is beside the cluster has the token; of k3s's kubeconfig they need what is public.
publish_certificate() {
    until grep -q certificate-authority-data "$kubeconfig" 2>/dev/null; do sleep 1; done
    sed -n 's/.*certificate-authority-data: *//p' "$kubeconfig" | base64 -d >"$certificate.part"
    mv "$certificate.part" "$certificate"
}
publish_certificate &

# The address of this container, not loopback: pod logs and exec must not need k3s's tunnel. Not `hostname -i`: to a
# Dagger service its own name is 127.0.0.1.
address=$(ip -4 address show scope global | sed -n 's/.*inet \([0-9.]*\).*/\1/p' | head -n 1)

exec k3s server \
    --bind-address "$address" \
    --egress-selector-mode disabled \
    --tls-san k3s \
    --write-kubeconfig "$kubeconfig" \
    --kube-apiserver-arg "token-auth-file=$tokens" \
    --disable traefik,metrics-server \
    "$@"
