#!/bin/sh
# Waits until the API server of a k3s service answers /readyz, then writes its kubeconfig for use outside the node.
# It has the administrator's key: what a command prints would be in the log of the call.
# Usage: k3s-ready.sh KUBECONFIG SECONDS OUTPUT
set -eu

kubeconfig=$1
deadline=$(($(date +%s) + $2))

until [ -s "$kubeconfig" ] && kubectl --kubeconfig "$kubeconfig" get --raw /readyz >/dev/null 2>&1; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "servepath: the Kubernetes API did not answer /readyz within $2 s; next: read the log of the service 'k3s'" >&2
        exit 1
    fi
    sleep 1
done

sed 's#server: https://[^ ]*#server: https://k3s:6443#' "$kubeconfig" >"$3"
