"""The stand-ins: what each image of the lock is made of here.

Every image has the name and the interface of the one that it stands in for, not its bytes, so it has a digest of its
own. Debian's files are one layer that three of them share.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import Path as AsyncPath
from anyio import to_thread

from ci.node import engine_image, envoy_gateway, gateway_api, kserve, kubernetes, programs
from ci.node.engine.commands import run
from ci.node.engine.rootfs import SUITE, apt_sources
from ci.node.engine.tree import plan_tree
from servepath.modelcar.image.oci import BaseImage, ImageMetadata
from servepath.modelcar.layout import Layout
from servepath.modelcar.push.write import write_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[3]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEBIAN_PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "docker-registry",
    "etcd-server",
    "git",
    "hostname",
    "iproute2",
    "iptables",
    "libstdc++6",  # apt brings it in the official images
    "mount",
    "procps",
    "python3",
    "runc",
    "tini",
    "util-linux",
)
SITE = "usr/local/lib/python3.11/dist-packages"
K3S_COMMAND = """\
#!/bin/sh
export PYTHONPATH=/opt/standin/source:/opt/standin/source/src
exec python3 -m tests.engine.standin.k3s "$@"
"""
REGISTRY_CONFIG = """\
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
"""


@dataclass(frozen=True, slots=True)
class StandIn:
    """An image to make.

    Attributes:
        layers: folders, each of which becomes a layer.
        config: the `config` object of its configuration.
    """

    layers: Sequence[Path]
    config: Mapping[str, Any] = field(default_factory=dict)

    async def write(self, layout: Path) -> str:
        """Write it into an OCI layout and give its digest."""
        plans = [await to_thread.run_sync(plan_tree, layer, _everything) for layer in self.layers]
        written = await write_image(Layout(layout), BaseImage(), plans, ImageMetadata({}, config=dict(self.config)))
        return written.document.digest


async def make(work: Path, cache: Path) -> dict[str, StandIn]:
    """Make the folders of every stand-in.

    Args:
        work: where they go; Debian's files are kept there between runs.
        cache: the embedded node's cache, in which its programs are.

    Raises:
        ClusterError: not root, not a Debian, or a download or a build failed.
    """
    debian = await _debian(work / "debian")
    environment = {"Env": [f"PATH={PATH}"]}
    helm = await programs.build(kubernetes.HELM, cache)
    return {
        "python": StandIn([debian, _python(work / "python")], {**environment, "Cmd": ["python3"]}),
        "uv": StandIn([_files(work / "uv", {"uv": _program("uv")})], {"Entrypoint": ["/uv"]}),
        "helm": StandIn([_files(work / "helm", {"usr/bin/helm": helm / "helm"})], {"Entrypoint": ["helm"]}),
        "registry": StandIn(
            [debian, _texts(work / "registry", {"etc/distribution/config.yml": REGISTRY_CONFIG})],
            {**environment, "Entrypoint": ["docker-registry"], "Cmd": ["serve", "/etc/distribution/config.yml"]},
        ),
        "k3s": StandIn(
            [debian, await _k3s(work / "k3s", cache)],
            {"Env": [f"PATH={PATH}", "SERVEPATH_OOM_SCORE_ADJ=restricted"], "Entrypoint": ["k3s"], "Cmd": ["server"]},
        ),
    }


async def engine(cache: Path) -> engine_image.EngineImage:
    """Give vLLM's image, which the embedded node has too."""
    return await engine_image.build_engine_image(cache)


async def _debian(root: Path) -> Path:
    if not await AsyncPath(root).is_dir():
        scratch = root.with_name(".debian")
        await to_thread.run_sync(lambda: shutil.rmtree(scratch, ignore_errors=True))
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
        packages = f"--include={','.join(DEBIAN_PACKAGES)}"
        settings = ["--mode=root", "--variant=essential", '--aptopt=APT::Install-Recommends "false"', *excluded]
        sources = [str(path) for path in apt_sources().files]
        await run(["mmdebstrap", *settings, packages, SUITE, str(scratch), *sources], what="making a Debian")
        # The official images have no such mark, and Dagger's runtime installs into the system.
        (scratch / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)
        scratch.rename(root)
    return root


def _python(folder: Path) -> Path:
    """Debian's Python under the names that the official image has."""
    shutil.rmtree(folder, ignore_errors=True)
    commands = folder / "usr/local/bin"
    commands.mkdir(parents=True)
    for name in ("python", "python3"):
        (commands / name).symlink_to("/usr/bin/python3")
    return folder


async def _k3s(folder: Path, cache: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    prepared = folder / "opt/standin"
    kubernetes_programs = await programs.build(kubernetes.KUBERNETES, cache)
    files = await envoy_gateway.prepare(cache)
    kserve_files = await kserve.prepare(cache)
    _files(
        folder,
        {
            # The module takes this file as kubectl, under that name.
            "usr/bin/k3s": kubernetes_programs / kubernetes.KUBERNETES.name,
            "opt/standin/envoy-gateway": files.controller,
            "opt/standin/envoyproxies.yaml": files.crd,
            "opt/standin/kserve-manager": kserve_files.manager,
            "opt/standin/kserve.json": kserve_files.objects,
        },
    )
    shutil.copytree(await gateway_api.prepare(cache), prepared / "gateway-api")
    for part in ("config", "layer", "manifest"):
        _bytes(prepared / "envoy" / part, getattr(files.image, part))
    for name in kubernetes.KUBERNETES.aliases:
        link = prepared / "kubernetes" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to("/usr/bin/k3s")
    source = prepared / "source"
    for part in ("ci", "src/servepath", "manifests", "tests/engine/standin"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    _texts(folder, {"usr/local/sbin/k3s": K3S_COMMAND, f"{SITE}/envoy.py": ""})
    (folder / "usr/local/bin").mkdir()
    (folder / "usr/local/bin/kubectl").symlink_to("/usr/bin/k3s")
    await _python_packages(folder / SITE)
    return folder


async def _python_packages(site: Path) -> None:
    settings = ["--frozen", "--no-default-groups", "--no-emit-project", "--no-hashes"]
    export = ["uv", "export", "--quiet", f"--project={ROOT}", *settings]
    needed = site.with_suffix(".txt")
    needed.write_text(await run(export, what="listing the library's packages") + "cryptography\n")
    target = ["--python-version=3.11", f"--target={site}", "--link-mode=copy", f"--requirements={needed}"]
    await run(["uv", "pip", "install", "--quiet", *target], what="installing the library's packages")
    needed.unlink()


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(name)
    return Path(found).resolve()


def _files(folder: Path, files: Mapping[str, Path]) -> Path:
    for name, source in files.items():
        _bytes(folder / name, source.read_bytes())
        (folder / name).chmod(source.stat().st_mode | 0o444)
    return folder


def _texts(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        _bytes(folder / name, text.encode())
        (folder / name).chmod(0o755 if text.startswith("#!") else 0o644)
    return folder


def _bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _everything(_: str) -> bool:
    return True
