"""Planning and installing, against programs that stand in for helm and kubectl and write down how they are called.

What helm and kubectl then do to a cluster is shown by the cluster tests; here it is which of them is called, when.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from typer.testing import CliRunner

from servepath.cli.app import app
from servepath.cluster.model import Cluster
from servepath.errors import ClusterError, UsageError
from servepath.platform.installing import Action, install, plan
from servepath.platform.llmd import llmd_parts
from servepath.platform.lock import read as read_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

MANIFESTS = Path(__file__).resolve().parents[3] / "manifests"
LOCK = read_lock(MANIFESTS / "lock.yaml")

pytestmark = pytest.mark.anyio

PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> "{calls}"
case "$*" in
  *" list "*) cat "{releases}" ;;
  *" --output=json "*) cat "{crd}" ;;
  *" get "*) for name in $(cat "{present}"); do case "$*" in *"$name"*) echo "$name" ;; esac; done ;;
  *"{refused}"*) echo "the server refused it" >&2; exit 1 ;;
  *" apply "*) echo customresourcedefinition.apiextensions.k8s.io/things ;;
esac
"""


class Tools:
    """helm and kubectl of a cluster that has what is said here."""

    def __init__(self, folder: Path) -> None:
        self.calls, self.releases, self.present = folder / "calls", folder / "releases.json", folder / "present"
        self.folder = folder
        self.cluster = Cluster(folder / "kubeconfig", "registry:5000", "http://gateway")
        self.has()

    def has(
        self, releases: Sequence[dict[str, str]] = (), present: Sequence[str] = (), refused: str = "nothing is refused"
    ) -> None:
        self.calls.write_text("")
        self.releases.write_text(json.dumps(list(releases)))
        self.present.write_text(" ".join(present))
        crd = self.folder / "crd.json"
        established = {"conditions": [{"type": "Established", "status": "True"}]}
        crd.write_text(json.dumps({"metadata": {"name": "things"}, "status": established}))
        paths = {"calls": self.calls, "releases": self.releases, "present": self.present, "crd": crd}
        for name in ("helm", "kubectl"):
            (self.folder / name).write_text(PROGRAM.format(**paths, refused=refused))
            (self.folder / name).chmod(0o755)

    def called(self, word: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if f" {word} " in line]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Tools(tmp_path)


def release(name: str, chart: str, status: str = "deployed", namespace: str = "") -> dict[str, str]:
    """Give a release as `helm list` does, by default in the namespace where ours is."""
    ours = "kserve" if name.startswith("kserve") else name
    return {"name": name, "namespace": namespace or ours, "chart": chart, "status": status}


async def test_an_empty_cluster_gets_everything_in_order(tools: Tools) -> None:
    steps = await install(tools.cluster, LOCK, MANIFESTS)
    assert [step.part.name for step in steps] == [
        "namespaces",
        "gateway-api",
        "cert-manager",
        "gateway-api-inference-extension",
        "agentgateway-crds",
        "agentgateway",
        "kserve-crd",
        "kserve-resources",
        "gateway",
    ]
    assert {step.action for step in steps} == {Action.INSTALL, Action.APPLY}
    kserve = next(line for line in tools.called("upgrade") if "kserve-resources" in line)
    assert "oci://ghcr.io/kserve/charts/kserve-resources --version=v0.19.0 --namespace=kserve" in kserve
    assert f"--values={MANIFESTS}/platform/kserve/values.yaml" in kserve
    assert all("--server-side" in line for line in tools.called("apply"))
    assert all(f"--kubeconfig={tools.cluster.kubeconfig}" in line for line in tools.calls.read_text().splitlines())


async def test_the_llm_d_paths_parts_come_after_it_and_none_comes_twice(tools: Tools) -> None:
    steps = await install(tools.cluster, LOCK, MANIFESTS, more=llmd_parts(LOCK, MANIFESTS))
    names = [step.part.name for step in steps]
    assert names[-4:] == [
        "gateway-api-inference-extension-v1alpha2",
        "kserve-llmisvc-crd",
        "kserve-llmisvc-resources",
        "kserve-runtime-configs",
    ]
    assert names.count("gateway-api-inference-extension") == 1
    for chart, values in (
        ("kserve-llmisvc-resources", "kserve-llmisvc"),
        ("kserve-runtime-configs", "kserve-runtime-configs"),
    ):
        [line] = [line for line in tools.called("upgrade") if f"charts/{chart} " in line]
        assert f"--values={MANIFESTS}/platform/{values}/values.yaml" in line
        assert "--version=v0.19.0" in line


async def test_what_is_there_is_kept_and_another_version_is_upgraded(tools: Tools) -> None:
    tools.has(
        releases=[release("kserve-crd", "kserve-crd-v0.19.0"), release("kserve-resources", "kserve-resources-v0.18.0")],
        present=["customresourcedefinition/certificates.cert-manager.io"],
    )
    actions = {step.part.name: step.action for step in await install(tools.cluster, LOCK, MANIFESTS)}
    assert actions["kserve-crd"] is Action.KEEP
    assert actions["kserve-resources"] is Action.UPGRADE
    assert actions["cert-manager"] is Action.KEEP
    assert not [line for line in tools.called("upgrade") if "cert-manager" in line or "kserve-crd" in line]


async def test_a_chart_fetched_by_version_alone_says_how_to_see_its_digest(tools: Tools) -> None:
    tools.has(releases=[release("kserve-crd", "kserve-crd-v0.19.0")])
    steps = {step.part.name: step for step in await plan(tools.cluster, LOCK, MANIFESTS)}
    pull = "helm pull oci://ghcr.io/kserve/charts/kserve-resources --version v0.19.0"
    assert steps["kserve-resources"].digest_command == pull
    assert steps["kserve-crd"].digest_command == steps["gateway"].digest_command == ""


async def test_a_chart_with_a_digest_is_fetched_by_it_and_needs_no_word(tools: Tools) -> None:
    digest = "sha256:" + "c" * 64
    pinned = replace(LOCK.chart("kserve-crd"), digest=digest)
    lock = replace(LOCK, charts={**LOCK.charts, "kserve-crd": pinned})
    steps = {step.part.name: step for step in await install(tools.cluster, lock, MANIFESTS)}
    assert steps["kserve-crd"].digest_command == ""
    (line,) = (line for line in tools.called("upgrade") if "kserve-crd" in line)
    assert f"oci://ghcr.io/kserve/charts/kserve-crd@{digest} " in line
    assert "--version" not in line


def test_the_command_line_says_which_charts_no_digest_pins(tools: Tools) -> None:
    arguments = ["platform", f"--kubeconfig={tools.cluster.kubeconfig}", "--gateway-url=http://127.0.0.1:9", "--apply"]
    said = CliRunner().invoke(app, arguments).stderr
    assert " install kserve-crd: not installed\n" in said
    assert "to see it: helm pull oci://ghcr.io/kserve/charts/kserve-crd --version v0.19.0\n" in said


async def test_a_failed_release_is_installed_again(tools: Tools) -> None:
    tools.has(releases=[release("cert-manager", "cert-manager-v1.20.2", "failed")])
    actions = {step.part.name: step.action for step in await plan(tools.cluster, LOCK, MANIFESTS)}
    assert actions["cert-manager"] is Action.UPGRADE


@pytest.mark.parametrize(
    ("status", "undo"),
    [
        ("pending-install", "uninstall"),
        ("pending-upgrade", "rollback"),
        ("pending-rollback", "rollback"),
        ("uninstalling", "uninstall"),
    ],
)
async def test_a_release_that_helm_was_killed_at_is_refused_with_what_frees_it(
    tools: Tools, status: str, undo: str
) -> None:
    tools.has(releases=[release("kserve-crd", "kserve-crd-v0.19.0", status)])
    with pytest.raises(ClusterError, match=f"kserve/kserve-crd: it is {status}") as caught:
        await install(tools.cluster, LOCK, MANIFESTS)
    freeing = f"helm --kubeconfig={tools.cluster.kubeconfig} {undo} kserve-crd -n kserve"
    assert caught.value.next_command == freeing
    assert not [line for line in tools.called("upgrade") if "kserve-crd" in line]


async def test_an_interrupted_installation_can_be_run_again(tools: Tools) -> None:
    failed = json.dumps([release("kserve-crd", "kserve-crd-v0.19.0", "failed")])
    stuck = f"""#!/bin/sh
case "$*" in
  *" list "*) cat "{tools.releases}" ;;
  *" --install kserve-crd "*)
    echo '{failed.replace("failed", "pending-install")}' > "{tools.releases}"
    trap 'echo '"'"'{failed}'"'"' > "{tools.releases}"; exit 1' TERM
    while :; do sleep 0.02; done ;;
esac
"""
    (tools.folder / "helm").write_text(stuck)
    async with anyio.create_task_group() as group:
        group.start_soon(install, tools.cluster, LOCK, MANIFESTS)
        with anyio.fail_after(60):
            while "pending" not in tools.releases.read_text():  # noqa: ASYNC110 - another process writes it
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    steps = {step.part.name: step for step in await plan(tools.cluster, LOCK, MANIFESTS)}
    assert steps["kserve-crd"].seen == "kserve-crd-v0.19.0, failed"
    assert steps["kserve-crd"].action is Action.UPGRADE


async def test_releases_are_read_with_flags_that_helm_3_and_4_know_and_in_every_state(tools: Tools) -> None:
    await plan(tools.cluster, LOCK, MANIFESTS)
    listed = [line.partition(" list ")[2].split() for line in tools.called("list")]
    states = ["--deployed", "--failed", "--pending", "--uninstalling"]
    assert [sorted(flags) for flags in listed] == [sorted(["--all-namespaces", "--max=0", "--output=json", *states])]


async def test_what_somebody_else_has_in_another_namespace_is_left_alone_and_said(tools: Tools) -> None:
    tools.has(
        releases=[
            release("cert-manager", "cert-manager-v1.10.0", namespace="infra"),
            release("agentgateway", f"agentgateway-{LOCK.chart('agentgateway').version}", namespace="infra"),
        ],
        present=["customresourcedefinition/certificates.cert-manager.io"],
    )
    steps = {step.part.name: step for step in await install(tools.cluster, LOCK, MANIFESTS)}
    assert steps["cert-manager"].action is steps["agentgateway"].action is Action.KEEP
    seen = "installed by somebody else: cert-manager-v1.10.0, deployed, in the namespace infra"
    assert steps["cert-manager"].seen == seen
    assert not [line for line in tools.called("upgrade") if " cert-manager " in line or " agentgateway " in line]


async def test_a_chart_of_another_namespace_at_another_version_is_not_installed_a_second_time(tools: Tools) -> None:
    tools.has(releases=[release("kserve-crd", "kserve-crd-v0.18.0", namespace="models")])
    with pytest.raises(ClusterError, match=r"models/kserve-crd: kserve-crd-v0\.18\.0, deployed") as caught:
        await install(tools.cluster, LOCK, MANIFESTS)
    assert "kserve-crd-v0.19.0 there, or the release in kserve" in caught.value.expected
    source = "oci://ghcr.io/kserve/charts/kserve-crd --version=v0.19.0"
    assert f" upgrade kserve-crd {source} -n models " in caught.value.next_command
    assert not [line for line in tools.called("upgrade") if "kserve-crd" in line]


@pytest.mark.parametrize(("status", "undo"), [("pending-upgrade", "rollback"), ("uninstalling", "uninstall")])
async def test_another_namespaces_unfinished_release_is_refused_with_what_frees_it_there(
    tools: Tools, status: str, undo: str
) -> None:
    tools.has(releases=[release("kserve-crd", "kserve-crd-v0.19.0", status, namespace="models")])
    with pytest.raises(ClusterError, match=status) as caught:
        await plan(tools.cluster, LOCK, MANIFESTS)
    assert caught.value.next_command.endswith(f" {undo} kserve-crd -n models")


async def test_another_chart_under_the_same_name_in_another_namespace_is_none_of_ours(tools: Tools) -> None:
    tools.has(
        releases=[
            release("cert-manager", "cert-manager-issuers-v1.20.2", namespace="infra"),
            release("cert-manager", "cert-manager-v1.20.2"),
        ]
    )
    steps = {step.part.name: step for step in await plan(tools.cluster, LOCK, MANIFESTS)}
    assert steps["cert-manager"].seen == "cert-manager-v1.20.2, deployed"
    tools.has(releases=[release("cert-manager", "cert-manager-issuers-v1.20.2", namespace="infra")])
    steps = {step.part.name: step for step in await plan(tools.cluster, LOCK, MANIFESTS)}
    assert steps["cert-manager"].action is Action.INSTALL


async def test_a_plan_changes_nothing(tools: Tools) -> None:
    assert len(await plan(tools.cluster, LOCK, MANIFESTS)) == 9
    assert tools.called("upgrade") == tools.called("apply") == []


async def test_a_refusal_ends_the_installation_and_says_what_to_type(tools: Tools) -> None:
    tools.has(refused="upgrade --install kserve-crd")
    with pytest.raises(ClusterError, match="the server refused it") as caught:
        await install(tools.cluster, LOCK, MANIFESTS)
    assert "upgrade --install kserve-crd" in caught.value.next_command
    assert not [line for line in tools.called("upgrade") if "kserve-resources" in line]


async def test_helm_missing_says_where_to_get_it(tools: Tools) -> None:
    (tools.folder / "helm").unlink()
    with pytest.raises(ClusterError, match="helm is not installed") as caught:
        await plan(tools.cluster, LOCK, MANIFESTS)
    assert "helm.sh" in caught.value.expected


async def test_an_unknown_class_is_refused_with_those_there_are(tools: Tools) -> None:
    other = Cluster(tools.cluster.kubeconfig, "registry:5000", "http://gateway", gateway_class="istio")
    with pytest.raises(UsageError, match="istio") as caught:
        await plan(other, LOCK, MANIFESTS)
    assert caught.value.expected == "agentgateway or envoy-gateway"
