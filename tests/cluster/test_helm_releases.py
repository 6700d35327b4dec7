"""helm itself, interrupted and killed at a release, and what servepath then does; no kubelet: nothing gets ready."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import anyio
import pytest

from ci.node import programs
from ci.node.kubernetes import HELM
from servepath.cluster.model import Cluster
from servepath.errors import ClusterError
from servepath.platform import helm
from servepath.platform.commands import helm_command, run
from servepath.platform.lock import ChartPin

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

WAITING = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: waiting}
spec:
  selector: {matchLabels: {app: waiting}}
  template:
    metadata: {labels: {app: waiting}}
    spec: {containers: [{name: waiting, image: registry.invalid/none}]}
"""


@pytest.fixture
def reached(plane: ControlPlane, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The control plane, with helm in the PATH."""
    program = programs.target(HELM, layout.cache) / HELM.name
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return Cluster(plane.kubeconfig, "127.0.0.1:5000", "http://127.0.0.1")


@pytest.fixture
def chart(tmp_path: Path) -> ChartPin:
    folder = tmp_path / "waiting"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: waiting, version: 1.0.0}")
    (folder / "templates" / "deployment.yaml").write_text(WAITING)
    return ChartPin("waiting", str(folder), "1.0.0")


async def status(cluster: Cluster) -> str:
    return "".join([found.status for found in await helm.releases(cluster) if found.name == "waiting"])


async def until(cluster: Cluster, wanted: str) -> None:
    with anyio.fail_after(60):
        while await status(cluster) != wanted:  # noqa: ASYNC110 - helm tells nobody
            await anyio.sleep(0.1)


async def test_an_interrupted_release_is_failed_and_a_killed_one_pending_until_it_is_freed(
    reached: Cluster, chart: ChartPin
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: helm.install(reached, chart, "default", None, timeout_s=120))
        await until(reached, "pending-install")
        group.cancel_scope.cancel()
    assert await status(reached) == "failed"

    again = helm_command(reached, "upgrade", "waiting", chart.chart, "--namespace=default", "--wait")
    async with await anyio.open_process(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        await until(reached, "pending-upgrade")
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
    with pytest.raises(ClusterError, match="another operation"):
        await helm.install(reached, chart, "default", None, timeout_s=1)
    (stuck,) = (found for found in await helm.releases(reached) if found.name == "waiting")
    with pytest.raises(ClusterError, match="pending-upgrade") as caught:
        helm.refuse_unfinished(reached, stuck)
    (await run(caught.value.next_command.split())).succeeded()
    assert await status(reached) == "deployed"
    (await run(helm_command(reached, "uninstall", "waiting", "-n", "default"))).succeeded()


async def test_a_release_whose_uninstallation_was_killed_is_named_and_freed_by_uninstalling_it_again(
    reached: Cluster, chart: ChartPin, plane: ControlPlane
) -> None:
    patch = ("-n", "default", "patch", "deployment", "waiting", "--type=merge", "--patch")
    (await run(helm_command(reached, "install", "waiting", chart.chart, "--namespace=default"))).succeeded()
    await plane.kubectl(*patch, '{"metadata": {"finalizers": ["servepath.dev/held"]}}')
    leave = helm_command(reached, "uninstall", "waiting", "--namespace=default", "--wait")
    async with await anyio.open_process(leave, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        await until(reached, "uninstalling")
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
    await plane.kubectl(*patch, '{"metadata": {"finalizers": null}}')
    with pytest.raises(ClusterError, match="has no deployed releases"):
        await helm.install(reached, chart, "default", None, timeout_s=1)
    (stuck,) = (found for found in await helm.releases(reached) if found.name == "waiting")
    with pytest.raises(ClusterError, match="default/waiting: it is uninstalling") as caught:
        helm.refuse_unfinished(reached, stuck)
    (await run(caught.value.next_command.split())).succeeded()
    assert await status(reached) == ""
