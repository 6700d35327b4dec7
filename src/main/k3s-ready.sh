#!/bin/sh
# Waits until the API server of a k3s service answers /readyz, then prints the certificate of its authority.
# Usage: k3s-ready.sh CERTIFICATE TOKEN SECONDS
set -eu

certificate=$1
token=$2
deadline=$(($(date +%s) + $3))

# The token stays in its file: an argument would show it to every process of the container.
kubeconfig=$(mktemp)
trap 'rm -f "$kubeconfig"' EXIT
cat >"$kubeconfig" <<EOF
{apiVersion: v1, kind: Config, current-context: k3s,
 contexts: [{name: k3s, context: {cluster: k3s, user: k3s}}],
 clusters: [{name: k3s, cluster: {server: "https://k3s:6443", certificate-authority: "$certificate"}}],
 users: [{name: k3s, user: {tokenFile: "$token"}}]}
EOF

until [ -s "$certificate" ] && kubectl --kubeconfig "$kubeconfig" get --raw /readyz >/dev/null 2>&1; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "servepath: the Kubernetes API did not answer /readyz within $3 s; next: read the log of the service 'k3s'" >&2
        exit 1
    fi
    sleep 1
done

cat "$certificate"
