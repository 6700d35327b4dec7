"""The Kubernetes programs of the node, and Helm, from one pinned Go module."""

from __future__ import annotations

from ci.node.programs import HERE, GoProgram

VERSION = "v1.34.4"
_VERSION_PACKAGE = "k8s.io/component-base/version"

KUBERNETES = GoProgram(
    name="kubernetes",
    module=HERE / "kubernetes",
    ldflags=(
        f"-X={_VERSION_PACKAGE}.gitVersion={VERSION}",
        f"-X={_VERSION_PACKAGE}.gitMajor=1",
        f"-X={_VERSION_PACKAGE}.gitMinor=34",
    ),
    aliases=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"),
)

HELM = GoProgram(name="helm", module=HERE / "kubernetes", package="helm.sh/helm/v3/cmd/helm")
