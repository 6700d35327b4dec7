"""The whole of `smoke` against a loopback world, and how it runs what breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.checks import smoke
from servepath.checks.context import Finding
from servepath.checks.openai_checks import each_key_opens_its_own_path_alone
from servepath.checks.run import PlannedCheck, plan, run_all, run_one
from servepath.errors import ClusterError, UsageError
from servepath.evidence import CheckResult, Verdict
from tests.unit.checks.engine import Fault
from tests.unit.checks.world import KEY, World, running, write_kubeconfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


def planned(call: Callable[[], Awaitable[Finding]], name: str = "one") -> PlannedCheck:
    return PlannedCheck(name, "cluster", "it passes", call, "kubectl get nodes")


async def test_a_good_world_passes_every_check(tmp_path: Path) -> None:
    progress: list[CheckResult] = []
    async with running(World(), tmp_path) as tools:
        results = await smoke(tools.context, progress.append)
        order = [(one.name, one.subject) for one in plan(tools)]
    assert [(one.name, one.subject) for one in results] == order
    assert sorted(map(str, progress)) == sorted(map(str, results))
    assert [(one.name, one.seen) for one in results if one.verdict is Verdict.FAIL] == []
    assert [one.name for one in results if one.verdict is Verdict.SKIP] == []
    assert all(one.expected and one.seen and not one.next_command for one in results)


async def result_of(world: World, folder: Path, name: str, subject: str) -> CheckResult:
    async with running(world, folder) as tools:
        return await run_one(
            next(one for one in plan(tools) if (one.name, one.subject) == (name, subject)), tools.context
        )


async def test_what_kserve_leaves_out_of_its_own_containers_is_said(tmp_path: Path) -> None:
    found = await result_of(World(), tmp_path, "kserve_pod_is_hardened", "kserve")
    assert found.verdict is Verdict.PASS
    assert "but modelcar-init lacks readOnlyRootFilesystem, modelcar-init lacks allowPrivilegeEscalation" in found.seen


@pytest.mark.parametrize(("exit_code", "reason"), [(5, "nothing in this cluster enforces"), (3, "has no nc")])
async def test_policies_that_nothing_enforces_are_skipped_with_the_reason(
    exit_code: int, reason: str, tmp_path: Path
) -> None:
    world = World()
    world.api.exec_exit_code = exit_code
    found = await result_of(world, tmp_path, "network_policy_is_enforced", "kserve")
    assert found.verdict is Verdict.SKIP
    assert reason in found.seen


async def test_somebody_elses_namespace_without_pod_security_is_skipped(tmp_path: Path) -> None:
    world = World()
    world.api.namespace_labels.clear()
    found = await result_of(world, tmp_path, "namespace_enforces_pod_security", "cluster")
    assert (found.verdict, "servepath did not make it" in found.seen) == (Verdict.SKIP, True)


async def test_two_paths_of_one_key_are_not_asked_for_each_others(tmp_path: Path) -> None:
    async with running(World(), tmp_path) as tools:
        raw, kserve = tools.context.raw, tools.context.kserve
        assert raw is not None
        assert kserve is not None
        found = await each_key_opens_its_own_path_alone(tools, raw, replace(kserve, api_key=raw.api_key))
    assert found.verdict is Verdict.SKIP


async def test_a_model_that_cannot_know_is_not_asked(tmp_path: Path) -> None:
    async with running(World(), tmp_path, expected_answer="") as tools:
        results = await smoke(tools.context, lambda _: None)
    asked = [one.verdict for one in results if one.name == "answer_holds_what_it_knows"]
    assert asked == [Verdict.SKIP, Verdict.SKIP]


async def test_only_the_paths_that_were_deployed_are_checked(tmp_path: Path) -> None:
    async with running(World(), tmp_path, raw=None) as tools:
        assert {one.subject for one in plan(tools)} == {"cluster", "kserve"}
    async with running(World(), tmp_path, kserve=None, raw=None) as tools:
        assert {one.subject for one in plan(tools)} == {"cluster"}


async def test_no_gateway_is_a_failure_with_a_curl_line(tmp_path: Path) -> None:
    async with running(World(), tmp_path) as tools:
        raw = tools.context.raw
        assert raw is not None
        nobody = replace(raw, base_url="http://127.0.0.1:1")
        results = await smoke(replace(tools.context, raw=nobody), lambda _: None)
    found = next(one for one in results if (one.name, one.subject) == ("chat_completion_answers", "raw"))
    assert found.verdict is Verdict.FAIL
    assert "got no complete answer: ConnectError" in found.seen
    assert found.next_command.startswith("curl ")
    assert '"Authorization: Bearer $VLLM_API_KEY"' in found.next_command


async def test_no_api_server_is_a_failure_with_a_kubectl_line(tmp_path: Path) -> None:
    async with running(World(), tmp_path) as tools:
        nobody = write_kubeconfig(tmp_path, "http://127.0.0.1:1")
        cluster = replace(tools.context.cluster, kubeconfig=nobody)
        results = await smoke(replace(tools.context, cluster=cluster, raw=None, kserve=None), lambda _: None)
    assert {one.verdict for one in results} == {Verdict.FAIL}
    assert all("ConnectError" in one.seen for one in results)
    assert all(one.next_command.startswith(f"kubectl --kubeconfig {nobody}") for one in results)


async def test_a_key_that_comes_back_is_never_shown(tmp_path: Path) -> None:
    world = World()
    world.raw = replace(world.raw, faults=frozenset({Fault.ECHOES_KEY}))
    async with running(world, tmp_path) as tools:
        results = await smoke(tools.context, lambda _: None)
    assert any("Bearer [redacted]" in one.seen for one in results)
    assert KEY not in repr(results)


async def test_an_exception_becomes_a_failure(tmp_path: Path) -> None:
    async def divide() -> Finding:
        raise ZeroDivisionError("by nought")

    async with running(World(), tmp_path) as tools:
        result = await run_one(planned(divide), tools.context)
    assert (result.verdict, result.seen) == (Verdict.FAIL, "ZeroDivisionError: by nought")
    assert (result.expected, result.next_command) == ("it passes", "kubectl get nodes")


async def test_an_error_of_ours_keeps_its_place_and_its_next_command(tmp_path: Path) -> None:
    async def refuse() -> Finding:
        raise UsageError("it cannot be", where="here", next_command="kubectl version")

    async with running(World(), tmp_path) as tools:
        result = await run_one(planned(refuse), tools.context)
    assert (result.seen, result.next_command) == ("here: it cannot be", "kubectl version")


async def test_a_check_that_hangs_is_cut_at_its_limit(tmp_path: Path) -> None:
    async def hang() -> Finding:
        await anyio.Event().wait()
        return Finding(Verdict.PASS, "never")

    async with running(World(), tmp_path, timeout_s=0.05) as tools:
        result = await run_one(planned(hang), tools.context)
    assert (result.verdict, result.seen) == (Verdict.FAIL, "no result within 0.05 s")
    assert 0.05 <= result.duration_s < 5


async def test_no_more_checks_run_at_once_than_allowed(tmp_path: Path) -> None:
    running_now: list[int] = []
    most: list[int] = []

    async def count() -> Finding:
        running_now.append(1)
        most.append(len(running_now))
        await anyio.lowlevel.checkpoint()
        running_now.pop()
        return Finding(Verdict.PASS, "counted")

    async with running(World(), tmp_path, concurrency=2) as tools:
        results = await run_all(
            tuple(planned(count, str(number)) for number in range(6)), tools.context, lambda _: None
        )
    assert [one.name for one in results] == ["0", "1", "2", "3", "4", "5"]
    assert max(most) == 2


async def test_a_kubeconfig_that_is_none_is_one_clear_error(tmp_path: Path) -> None:
    async with running(World(), tmp_path) as tools:
        cluster = replace(tools.context.cluster, kubeconfig=tmp_path / "absent")
        with pytest.raises(ClusterError, match="absent") as caught:
            await smoke(replace(tools.context, cluster=cluster), lambda _: None)
        assert caught.value.next_command
        nowhere = replace(tools.context.cluster, context="nowhere")
        with pytest.raises(ClusterError, match="nowhere"):
            await smoke(replace(tools.context, cluster=nowhere), lambda _: None)
