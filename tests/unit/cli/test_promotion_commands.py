"""`servepath promote`, `history` and `rollback` as a user meets them: plans, refusals, exit codes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from servepath.cli.promotion import Target
from servepath.cli.run_info import run_info
from servepath.cluster.client import kubernetes
from servepath.cluster.model import Cluster
from servepath.gke.connect import GkeSession
from servepath.modelcar.build import build_and_push
from servepath.modelcar.registry.credentials import Credentials
from servepath.modelcar.source.directory import open_source
from servepath.promotion.history import create_record
from servepath.promotion.record import Record, State
from servepath.report.write import write_report
from servepath.serving.model import ServingPath
from tests.unit.cli.conftest import write_kubeconfig
from tests.unit.modelcar.helpers import write_base
from tests.unit.modelcar.registries import running_registry
from tests.unit.promotion.api_server import World, api_server
from tests.unit.promotion.examples import record, service
from tests.unit.report.example_runs import passed_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.unit.cli.conftest import Servepath

ENGINE = "registry.test/engine@sha256:" + "e" * 64
WHERE = ("--namespace=serving", "--name=smol")


@pytest.fixture
def world() -> Iterator[World]:
    with api_server() as running:
        yield running


@pytest.fixture
def kubeconfig(world: World, tmp_path: Path) -> str:
    return f"--kubeconfig={write_kubeconfig(tmp_path / 'kubeconfig', world.address)}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def modelcar(model: Path, registry: str, tmp_path: Path) -> str:
    async def push() -> str:
        base = await write_base(tmp_path / "base")
        return (await build_and_push(open_source(model), base, registry, "laptop/tiny")).reference

    return anyio.run(push)


def plan(modelcar: str, kubeconfig: str, registry: str, *more: str) -> tuple[str, ...]:
    return (
        *(
            "promote",
            f"--modelcar={modelcar}",
            kubeconfig,
            f"--registry={registry}",
            "--repository=promoted/tiny",
            *WHERE,
        ),
        *("--profile=cpu-small", f"--engine-image={ENGINE}", "--without-preflight", *more),
    )


def test_without_apply_the_plan_is_printed_and_nothing_is_written(
    servepath: Servepath, world: World, kubeconfig: str, registry: str, modelcar: str, tmp_path: Path
) -> None:
    ended = servepath(*plan(modelcar, kubeconfig, registry, "--usd-per-hour=2"))
    assert ended.returncode == 0, ended.stderr
    assert f"{registry}/promoted/tiny@sha256:" in ended.stdout
    assert "| may be lost | nothing |" in ended.stdout
    assert "now $0.00, while it is promoted $2.00, afterwards $2.00" in ended.stdout
    assert "| InferenceService serving/smol-kserve | create |" in ended.stdout
    assert world.writes == 0
    as_json = servepath(*plan(modelcar, kubeconfig, registry, "--json", f"--report={tmp_path / 'report'}"))
    assert "### What a promotion would do" in (tmp_path / "report" / "report.md").read_text()
    values = json.loads(as_json.stdout)
    assert values["plan"]["strategy"] == "first"
    assert values["record"] is None


def test_a_report_that_does_not_vouch_is_refused(
    servepath: Servepath, world: World, kubeconfig: str, registry: str, modelcar: str, tmp_path: Path
) -> None:
    write_report(passed_run(), tmp_path / "report")
    ended = servepath(*plan(modelcar, kubeconfig, registry, f"--from-report={tmp_path / 'report'}"))
    assert ended.returncode == 8
    assert "it tested the modelcar" in ended.stderr
    assert world.writes == 0


def test_a_report_names_the_modelcar_that_it_vouches_for(
    servepath: Servepath, kubeconfig: str, registry: str, modelcar: str, tmp_path: Path
) -> None:
    passed = passed_run()
    assert passed.modelcar is not None
    digest = modelcar.partition("@")[2]
    deployments = tuple(replace(one, modelcar_digest=digest, engine_image=ENGINE) for one in passed.deployments)
    vouching = replace(
        passed,
        run=run_info("test"),
        modelcar=replace(passed.modelcar, digest=digest, reference=modelcar),
        deployments=deployments,
    )
    write_report(vouching, tmp_path / "report")
    ended = servepath(*plan("", kubeconfig, registry, f"--from-report={tmp_path / 'report'}"))
    assert ended.returncode == 0, ended.stderr
    assert digest in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("promote", "--kubeconfig=x"), 2, "no modelcar is named"),
        (("promote", "--modelcar=r.test/m@sha256:" + "a" * 64), 2, "no cluster is named"),
        (("promote", "--modelcar=r.test/m@sha256:" + "a" * 64, "--kubeconfig=x"), 2, "no registry is named"),
        (("promote", "--modelcar=r.test/m", "--kubeconfig=x", "--steps=5,x"), 2, "are no percents"),
        (("promote", "--modelcar=r.test/m", "--kubeconfig=x", "--steps=50,5"), 2, "the steps are 50,5"),
        (("promote", "--modelcar=r.test/m", "--kubeconfig=x", "--from-report=nowhere"), 3, "cannot be read"),
        (("rollback",), 2, "no cluster is named"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    servepath: Servepath, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    ended = servepath(*arguments)
    assert ended.returncode == code
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def records(world: World, tmp_path: Path, *made: Record) -> None:
    cluster = Cluster(write_kubeconfig(tmp_path / "writer", world.address), "", "")

    async def write() -> None:
        async with kubernetes(cluster) as client:
            for one in made:
                await create_record(client, one, {})

    anyio.run(write)


def version(number: int, digit: str, state: State = State.SUCCEEDED, **changes: Any) -> Record:
    one = record(number, state)
    spec = replace(one.spec, modelcar_reference=f"registry.test/models/smol@sha256:{digit * 64}")
    return replace(one, spec=spec, path=ServingPath.KSERVE, **changes)


def test_history_marks_what_serves(servepath: Servepath, world: World, kubeconfig: str, tmp_path: Path) -> None:
    empty = servepath("history", kubeconfig, *WHERE)
    assert empty.stdout == "nothing was promoted as serving/smol\n"
    failed = version(3, "c", State.ROLLED_BACK, result="gate: too slow")
    records(world, tmp_path, version(1, "a"), version(2, "b"), failed)
    ended = servepath("history", kubeconfig, *WHERE)
    lines = ended.stdout.splitlines()
    assert [line[:6] for line in lines if "sha256" in line or "…" in line or "alice" in line] == [
        "     3",
        "*    2",
        "     1",
    ]
    assert "gate: too slow" in ended.stdout
    values = json.loads(servepath("history", kubeconfig, *WHERE, "--json").stdout)
    assert [one["number"] for one in values["promotions"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("made", "arguments", "complaint"),
    [
        ((), (), "nothing was promoted"),
        ((version(1, "a"),), (), "nothing else was promoted before"),
        ((version(1, "a"), version(2, "b")), ("--to=9",), "there is no promotion 9; expected one that succeeded: 1, 2"),
        ((version(1, "a"), version(2, "b")), ("--to=2",), "promotion 2 is what serves now"),
        (
            (version(1, "a"), version(2, "b", State.ROLLED_BACK), version(3, "c")),
            ("--to=2",),
            "promotion 2 is rolled-back",
        ),
    ],
)
def test_a_rollback_to_nowhere_is_refused(
    servepath: Servepath,
    world: World,
    kubeconfig: str,
    tmp_path: Path,
    made: tuple[Record, ...],
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    records(world, tmp_path, *made)
    writes = world.writes
    ended = servepath("rollback", kubeconfig, *WHERE, *arguments, "--json")
    assert ended.returncode == 8
    assert complaint in " ".join(ended.stderr.split()).replace("error rollback: ", "").replace(
        " expected", "; expected"
    )
    assert world.writes == writes


def test_a_rollback_after_a_kill_says_that_it_undoes_that(
    servepath: Servepath, world: World, kubeconfig: str, tmp_path: Path
) -> None:
    records(world, tmp_path, version(1, "a"), version(2, "b", State.RUNNING))
    ended = servepath("rollback", kubeconfig, *WHERE)
    assert ended.returncode == 0
    assert ended.stdout == "promotion 2, killed at plan: to undo, which --apply does\n"


def test_orphans_are_listed_with_their_commands_and_stay(
    servepath: Servepath, world: World, kubeconfig: str, tmp_path: Path
) -> None:
    engine = service("smol-kserve") | {"kind": "Deployment", "apiVersion": "apps/v1"}
    world.put("deployments", "serving", engine)
    world.put("services", "serving", service("smol-kserve"))
    world.put("services", "serving", service("old", release="gone"))
    records(world, tmp_path, version(1, "a"))
    writes = world.writes
    ended = servepath("history", kubeconfig, *WHERE, "--orphans")
    assert "Service serving/old: there is no engine of the name gone-kserve" in ended.stdout
    assert "-n serving delete service old" in ended.stdout
    assert "smol-kserve" not in ended.stdout
    assert world.writes == writes


def test_on_gke_another_registry_than_googles_may_be_named() -> None:
    class Google:
        @asynccontextmanager
        async def open(self) -> AsyncIterator[GkeSession]:
            cluster = Cluster(Path("config"), "", "")
            yield GkeSession(cluster, cast("Any", None), cast("Any", None), None, Credentials("nobody", "nothing"))

    async def opened_registry() -> tuple[str, str]:
        target = Target(None, "registry.test", "agentgateway", "", "", cast("Any", Google()))
        async with target.open(needs_gateway=False) as opened:
            return opened.cluster.registry, opened.repository("servepath/model")

    assert anyio.run(opened_registry) == ("registry.test", "servepath/model")
