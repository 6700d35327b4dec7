"""`k3s server`, as far as the module uses it, with the programs of the embedded node behind it.

What is k3s's own interface: its flags, port 6443, the kubeconfig that it writes, `registries.yaml`, where keys, images
and volumes are kept, and a gateway that answers on the node's port 80. KServe and Envoy Gateway are there when the
kubeconfig is: an installed platform.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import yaml

from ci.node import cgroups, crds, envoy_gateway, holder, images, kserve, node
from ci.node.layout import Layout

PREPARED = Path("/opt/standin")
REGISTRIES = Path("/etc/rancher/k3s/registries.yaml")
STATE = Path("/var/lib/rancher/k3s")


def main() -> None:
    """Run `k3s server [flags]`; flags that the stand-in has no use for are accepted."""
    parser = argparse.ArgumentParser(prog="k3s")
    parser.add_argument("command", choices=["server"])
    parser.add_argument("--bind-address", required=True)
    parser.add_argument("--tls-san", required=True)
    parser.add_argument("--write-kubeconfig", required=True, type=Path)
    parser.add_argument("--kube-apiserver-arg", action="append", default=[], metavar="NAME=VALUE")
    options, _ = parser.parse_known_args()
    programs = with_api_server_flags(PREPARED / "kubernetes", options.kube_apiserver_arg)
    anyio.run(serve, programs, options.bind_address, options.tls_san, options.write_kubeconfig)


async def serve(programs: Path, address: str, name: str, kubeconfig: Path) -> None:
    """Start the node and its platform, write the kubeconfig, and stay."""
    layout = as_k3s_keeps_it(STATE)
    _prepare_machine()
    cgroups.create(layout.cgroup)
    running = await node.start(layout, programs, names=(name, address))
    say("the node is ready")
    write_mirrors(layout.run / "registries", REGISTRIES)
    files = envoy_gateway.GatewayFiles(
        PREPARED / "envoy-gateway", PREPARED / "gateway-api", PREPARED / "envoyproxies.yaml", _envoy()
    )
    await envoy_gateway.apply_gateway_api(running.plane, files)
    await kserve.start(layout, running.plane, kserve.KServeFiles(PREPARED / "kserve-manager", PREPARED / "kserve.json"))
    say("KServe is ready")
    await crds.apply(running.kubectl, [_cert_manager_was_here()])
    gateway = await envoy_gateway.start(layout, running.plane, running.registry, files)
    await running.kubectl.apply([await _on_port_80(running, address)])
    say(f"the gateway is ready at {gateway.url} and at http://{address}")
    text = await running.kubectl("config", "view", "--raw", "--flatten")
    text = re.sub(r"server: https://\S+", f"server: https://{address}:6443", text)
    await anyio.Path(kubeconfig).write_text(text)
    await anyio.sleep_forever()


def as_k3s_keeps_it(state: Path) -> Layout:
    """Give the node's folders: keys below `server`, images below `agent`, volumes in `storage`."""
    layout = Layout(cache=state / "server")
    for inside, kept in (
        (layout.containerd, state / "agent/containerd"),
        (layout.registry, state / "registry"),
        (layout.run / "volumes", state / "storage"),
    ):
        kept.mkdir(parents=True, exist_ok=True)
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.symlink_to(kept)
    return layout


def with_api_server_flags(programs: Path, flags: list[str]) -> Path:
    """Give a folder of the same programs, in which kube-apiserver has further flags."""
    folder = Path(tempfile.mkdtemp())
    for program in programs.iterdir():
        (folder / program.name).symlink_to(program)
    server = folder / "kube-apiserver"
    server.unlink()
    further = shlex.join(f"--{flag}" for flag in flags)
    server.write_text(f'#!/bin/sh\nexec {programs / "kube-apiserver"} "$@" {further}\n')
    server.chmod(0o755)
    return folder


def write_mirrors(folder: Path, registries: Path) -> None:
    """Write containerd's hosts.toml files for `mirrors` of a registries.yaml, as k3s does.

    Format: https://docs.k3s.io/installation/private-registry
    """
    mirrors: dict[str, Any] = (yaml.safe_load(registries.read_text()) or {}).get("mirrors") or {}
    for host, mirror in mirrors.items():
        target = folder / ("_default" if host == "*" else host)
        target.mkdir(parents=True, exist_ok=True)
        entries = [f'[host."{endpoint}"]\n  capabilities = ["pull", "resolve"]\n' for endpoint in mirror["endpoint"]]
        (target / "hosts.toml").write_text("".join(entries))


def say(text: str) -> None:
    """Write a line of the service's log."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} stand-in: {text}\n")
    sys.stderr.flush()


def _prepare_machine() -> None:
    """Do what the embedded node's holder does in its namespaces; the container's own are as good."""
    script = "mkdir -p /run/servepath /run/lock /run/netns\nmount -t tmpfs tmpfs /run/servepath\n"
    environment = {**os.environ, "NAME": "k3s"}
    subprocess.run(["sh", "-ec", script + holder.SYSCTLS + holder.NETWORK], env=environment, check=True)


async def _on_port_80(running: node.Node, address: str) -> dict[str, Any]:
    """A Service that k3s's own load balancer stands for: Envoy's pods on port 80 of the node's address."""
    listed = json.loads(
        await running.kubectl("get", "services", f"--namespace={envoy_gateway.NAMESPACE}", "--output=json")
    )
    (service,) = [one for one in listed["items"] if any(port["port"] == 80 for port in one["spec"]["ports"])]
    ports = [{"name": "http", "port": 80, "targetPort": service["spec"]["ports"][0]["targetPort"]}]
    spec = {"selector": service["spec"]["selector"], "ports": ports, "externalIPs": [address]}
    metadata = {"name": "on-port-80", "namespace": envoy_gateway.NAMESPACE}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _cert_manager_was_here() -> dict[str, Any]:
    """What shows that cert-manager is installed: the node's own authority signs for KServe's webhooks in its place."""
    names = {"kind": "Certificate", "listKind": "CertificateList", "plural": "certificates", "singular": "certificate"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "certificates.cert-manager.io"},
        "spec": {"group": "cert-manager.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _envoy() -> images.Image:
    return images.Image(*((PREPARED / "envoy" / part).read_bytes() for part in ("config", "layer", "manifest")))


if __name__ == "__main__":
    main()
