"""What each function sends to the engine: called as the engine calls it, answered by Dagger's own schema."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from dagger.mod._exceptions import FunctionError

from main.images import image
from servepath.cli.app import app
from servepath.cli.results import plain
from servepath.modelcar.model import Layer, Modelcar, ModelSource
from servepath.serving.model import Endpoint, ServingPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.contract.conftest import Session
    from tests.contract.fake_engine import Call, Node

DIGEST = "sha256:" + "a" * 64
REFERENCE = f"registry.localhost:5000/servepath/model@{DIGEST}"
MODELCAR = plain(
    Modelcar(
        digest=DIGEST,
        reference=REFERENCE,
        size_bytes=7,
        layers=(Layer(DIGEST, 1, "application/vnd.oci.image.layer.v1.tar"),),
        source=ModelSource(Path("/work/model"), "model", ("config.json",)),
    )
)
"""What `servepath modelcar --json` prints: made by the library, so that a renamed field is found here."""

ENDPOINT = plain(
    Endpoint(
        path=ServingPath.RAW,
        base_url="http://k3s:80",
        host="model-raw.test",
        model="model",
        namespace="servepath",
        workload="model-raw",
        modelcar_digest=DIGEST,
        engine_image=f"engine@{DIGEST}",
        ready_s=1.5,
        api_key="hunter2",
    )
)
"""What `servepath deploy --json` prints."""


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def commands(node: Node) -> list[list[str]]:
    """The commands of a container's pipeline, in order."""
    return [list(arguments["args"]) for arguments in node.named("withExec")]


def servepath_commands(nodes: Iterable[Node]) -> list[list[str]]:
    """Every distinct `servepath …` command of some pipelines."""
    found = {shlex.join(command): command for node in nodes for command in commands(node)}
    return [command for command in found.values() if command[0] == "servepath"]


def accept(command: list[str]) -> None:
    """Parse a command with the library's own command line, without running it."""
    group: Any = typer.main.get_command(app)
    name, arguments = command[1], command[2:]
    with group.make_context("servepath", command[1:]) as context:
        group.get_command(context, name).make_context(name, list(arguments), parent=context)


def standard_output(node: Node, _: Call) -> str:
    """What a command prints: the result of `servepath modelcar` or `deploy`."""
    return json.dumps(ENDPOINT if commands(node)[-1][1] == "deploy" else MODELCAR)


def contents(node: Node, _: Call) -> str:
    """What a file holds: a certificate, the result of `servepath modelcar`, or a report's summary."""
    if commands(node)[-1][0] == "sh":
        return CERTIFICATE
    return json.dumps(MODELCAR) if "modelcar.json" in str(node) else "# Report"


@pytest.fixture(autouse=True)
def plausible(session: Session) -> None:
    """Answers as a run gives them that passed."""
    session.engine.answers |= {
        "Container.stdout": standard_output,
        "Container.stderr": "cluster is gone",
        "Container.exists": True,
        "Container.exitCode": 0,
        "File.contents": contents,
        "Secret.plaintext": "hunter2",
    }


@pytest.fixture
def model(session: Session) -> str:
    """The user's model directory."""
    return session.new("Directory", "model")


@pytest.fixture
def cluster(session: Session) -> dict[str, Any]:
    """The state of a cluster that existed before."""
    inputs = {
        "kubeconfig": session.new("Secret", "kubeconfig"),
        "registry": "registry.example.com",
        "gateway_url": "http://172.30.0.2",
    }
    state: dict[str, Any] = session.invoke("Servepath", "cluster_from", inputs)
    return state


def test_modelcar_is_built_from_the_mounted_directory(session: Session, model: str) -> None:
    built = session.invoke("Servepath", "modelcar", {"source": model})
    assert (built["digest"], built["size"], built["layers"]) == (DIGEST, 7, [DIGEST])
    layout = session.node(built["as_layout"])
    assert layout.named("withMountedDirectory")[-1] == {"path": "/work/model", "source": model}
    assert commands(layout)[-1][:2] == ["servepath", "modelcar"]
    assert not any(variable["name"] == "SERVEPATH_RUN" for variable in layout.named("withEnvVariable"))


def test_the_form_of_a_modelcar_is_kept_for_its_publication(session: Session, model: str) -> None:
    form = {"reshard": "500MB", "compression": "ZSTD", "platforms": ["linux/amd64", "linux/arm64"]}
    built = session.invoke("Servepath", "modelcar", {"source": model, **form})
    session.invoke("Modelcar", "publish", {"address": "ghcr.io/me/model"}, built)
    wanted = {"--reshard=500MB", "--compression=zstd", "--platform=linux/amd64", "--platform=linux/arm64"}
    (push,) = servepath_commands(session.engine.asked("stdout"))
    for command in (commands(session.node(built["as_layout"]))[-1], push):
        assert wanted <= set(command)
        accept(command)


def test_modelcar_from_hub_keeps_the_token_a_secret(session: Session) -> None:
    token = session.new("Secret", "token")
    inputs = {"repo": "Qwen/Qwen2.5-0.5B-Instruct", "revision": "7" * 40, "token": token}
    built = session.invoke("Servepath", "modelcar_from_hub", inputs)
    layout = session.node(built["as_layout"])
    assert layout.named("withSecretVariable") == [{"name": "HF_TOKEN", "secret": token}]
    assert f"--hub=Qwen/Qwen2.5-0.5B-Instruct@{'7' * 40}" in commands(layout)[-1]


def test_publish_logs_in_without_showing_the_password(session: Session, model: str) -> None:
    built = session.invoke("Servepath", "modelcar", {"source": model})
    inputs = {"address": "ghcr.io/me/model", "username": "me", "password": session.new("Secret", "password")}
    assert session.invoke("Modelcar", "publish", inputs, built) == REFERENCE
    pushed = next(node for node in session.engine.asked("stdout") if "--push=ghcr.io/me/model" in str(node))
    assert "hunter2" not in str(pushed)
    login = session.node(pushed.named("withMountedSecret")[0]["source"])
    credentials = json.loads(login.named("setSecret")[0]["plaintext"])["auths"]["ghcr.io"]["auth"]
    assert base64.b64decode(credentials).decode() == "me:hunter2"


def test_publish_needs_no_login(session: Session, model: str) -> None:
    built = session.invoke("Servepath", "modelcar", {"source": model})
    session.invoke("Modelcar", "publish", {"address": "ghcr.io/me/model"}, built)
    assert all(node.named("withMountedSecret") == [] for node in session.engine.asked("stdout"))


def test_verify_refuses_another_digest(session: Session, model: str) -> None:
    built = session.invoke("Servepath", "modelcar", {"source": model})
    assert session.invoke("Modelcar", "verify", {}, built)["digest"] == DIGEST
    with pytest.raises(FunctionError, match=r"the registry registry\.localhost"):
        session.invoke("Modelcar", "verify", {}, built | {"digest": "sha256:" + "b" * 64})


def test_cluster_is_k3s_with_every_remedy(session: Session) -> None:
    state = session.invoke("Servepath", "cluster", {})
    server, registry = (session.node(service) for service in state["services"])
    assert server.named("from") == [{"address": image("k3s")}]
    assert registry.named("from") == [{"address": image("registry")}]
    service = server.named("asService")[0]
    assert service["insecureRootCapabilities"] is True
    assert service["useEntrypoint"] is True
    assert server.named("withEntrypoint")[0]["args"][-1].endswith("/k3s-entrypoint.sh")
    assert session.node(server.named("withServiceBinding")[0]["service"]) == registry
    mirrors = json.loads(server.named("withNewFile")[0]["contents"])["mirrors"]
    assert mirrors == {"registry.localhost:5000": {"endpoint": ["http://registry.localhost:5000"]}}
    kept = {mount["path"]: mount.get("sharing") for mount in server.named("withMountedCache")}
    assert kept == {
        "/var/servepath/certificates": None,
        "/var/lib/rancher/k3s": "LOCKED",
        "/var/lib/servepath/containerd": "LOCKED",
    }
    assert service["args"][2] in kept
    in_memory = {mount["path"] for mount in server.named("withMountedTemp")}
    assert in_memory >= {"/run", "/var/lib/kubelet", "/var/log"}
    assert in_memory >= {"/var/lib/rancher/k3s/server", "/var/lib/rancher/k3s/agent"}  # k3s's own keys
    # The engine mounts what is in memory last: a volume below it would be hidden, and its images with it.
    assert not any(volume.startswith(f"{folder}/") for volume in kept for folder in in_memory)
    assert [port["port"] for port in server.named("withExposedPort")] == [6443, 80]


MIRROR = "http://registry.internal:5000/upstream"


def test_a_mirror_gives_every_image_and_chart(session: Session, model: str) -> None:
    session.invoke("Servepath", "e2e", {"source": model}, {"registry_mirror": MIRROR})
    addresses = {call["address"] for node in session.engine._nodes.values() for call in node.named("from")}
    assert {address.rpartition("@")[2] for address in addresses} == {
        image(name).rpartition("@")[2] for name in ("helm", "k3s", "python", "registry", "uv")
    }
    assert all(address.startswith("registry.internal:5000/upstream/") for address in addresses)
    server = session.engine.asked("start")[0]
    mirrors = json.loads(server.named("withNewFile")[0]["contents"])["mirrors"]
    assert mirrors["*"] == {"endpoint": ["http://registry.internal:5000"], "rewrite": {"^(.*)$": "upstream/$1"}}
    sent = servepath_commands([*session.engine._nodes.values(), *(node for node, _ in session.engine.leaves)])
    (platform,) = [command for command in sent if command[1] == "platform"]
    (run,) = [command for command in sent if command[1] == "e2e"]
    assert f"--registry-mirror={MIRROR}" in platform
    assert any(option.startswith("--base-image=registry.internal:5000/upstream/library/busybox:") for option in run)
    for command in sent:
        accept(command)


def test_a_mirror_is_filled_and_published_with_a_login(session: Session) -> None:
    session.engine.answers["Container.stdout"] = json.dumps([{"name": "r.internal/uv:1", "digest": DIGEST}])
    mirror = session.invoke("Servepath", "mirror", {"only": ["uv"], "also": [f"a/b@{DIGEST}"]})
    fetched = session.node(mirror["layout"])
    assert commands(fetched)[-1] == [
        "servepath",
        "mirror",
        "--layout=/work/mirror",
        "--only=uv",
        f"--also=a/b@{DIGEST}",
    ]
    accept(commands(fetched)[-1])
    carried = session.invoke("Servepath", "mirror_from", {"layout": session.new("Directory", "layout")})
    inputs = {"address": "http://r.internal", "username": "me", "password": session.new("Secret", "password")}
    assert session.invoke("Mirror", "publish", inputs, carried) == [f"r.internal/uv:1@{DIGEST}"]
    (pushed,) = session.engine.asked("stdout")
    accept(commands(pushed)[-1])
    assert pushed.named("withMountedDirectory")[-1] == {"path": "/work/mirror", "source": carried["layout"]}
    assert "hunter2" not in str(pushed)
    login = session.node(pushed.named("withMountedSecret")[0]["source"])
    assert list(json.loads(login.named("setSecret")[0]["plaintext"])["auths"]) == ["r.internal"]


def test_a_mirror_without_tls_is_named_to_the_library(session: Session, model: str) -> None:
    built = session.invoke("Servepath", "modelcar", {"source": model}, {"registry_mirror": MIRROR})
    variables = session.node(built["as_layout"]).named("withEnvVariable")
    assert {"name": "SERVEPATH_PLAIN_HTTP", "value": "registry.internal:5000"} in variables
    built = session.invoke("Servepath", "modelcar", {"source": model}, {"registry_mirror": "registry.internal"})
    variables = session.node(built["as_layout"]).named("withEnvVariable")
    assert "SERVEPATH_PLAIN_HTTP" not in [variable["name"] for variable in variables]


def test_cluster_is_started_and_its_kubeconfig_is_its_own(session: Session) -> None:
    first, second = (session.invoke("Servepath", "cluster", {}) for _ in range(2))
    paths = [session.node(state["services"][0]).named("asService")[0]["args"][0] for state in (first, second)]
    assert paths[0] != paths[1]
    assert len(session.engine.asked("start")) == 2
    ready = [commands(node)[-1] for node in session.engine.asked("contents")]
    assert [command[2] for command in ready] == paths
    mounted = session.node(first["tools"]).named("withMountedSecret")
    assert mounted == [{"path": "/run/servepath/kubeconfig", "source": first["kubeconfig"]}]


def test_the_administrator_of_a_cluster_is_known_to_nobody_else(session: Session) -> None:
    state = session.invoke("Servepath", "cluster", {})
    server = session.node(state["services"][0])
    (ready,) = session.engine.asked("contents")
    (mounted,) = {mount["source"] for node in (server, ready) for mount in node.named("withMountedSecret")}
    token = session.node(mounted).named("setSecret")[0]["plaintext"]
    kubeconfig = json.loads(session.node(state["kubeconfig"]).named("setSecret")[0]["plaintext"])
    assert kubeconfig["users"] == [{"name": "servepath", "user": {"token": token}}]
    (cluster,) = (one["cluster"] for one in kubeconfig["clusters"])
    assert cluster["server"] == "https://k3s:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]).decode() == CERTIFICATE
    sent = {name: str(node) for name, node in session.engine._nodes.items() if node.type_name != "Secret"}
    assert [name for name, pipeline in sent.items() if token in pipeline] == []
    assert all(token not in str(node) for node, _ in session.engine.leaves if node.type_name != "Secret")


def test_the_platform_is_installed_on_a_new_cluster_only(session: Session, cluster: dict[str, Any]) -> None:
    assert session.engine.asked("sync") == []
    session.invoke("Servepath", "cluster", {})
    assert [command[1] for command in servepath_commands(session.engine.asked("sync"))] == ["platform"]
    session.invoke("Cluster", "with_platform", {}, cluster)
    assert len(session.engine.asked("sync")) == 2


def test_deploy_then_smoke_then_bench(session: Session, cluster: dict[str, Any], model: str) -> None:
    endpoint = session.invoke("Cluster", "deploy", {"source": model, "path": "RAW", "profile": "CPU_SMALL"}, cluster)
    assert (endpoint["path"], endpoint["host"], endpoint["ready_s"]) == ("RAW", "model-raw.test", 1.5)
    assert session.invoke("Endpoint", "smoke", {"expected_answer": ""}, endpoint)["verdict"] == "pass"
    assert session.invoke("Endpoint", "bench", {"blocks": 12}, endpoint)["verdict"] == "pass"
    smoke, bench = servepath_commands(session.engine.asked("exitCode"))
    assert {"smoke", "--path=raw", "--profile=cpu-small", "--expected-answer="} <= set(smoke)
    assert {"bench", "--path=raw", "--blocks=12"} <= set(bench)


def test_a_cluster_with_a_model_serves_it_on_both_paths(session: Session, cluster: dict[str, Any], model: str) -> None:
    assert session.invoke("Cluster", "with_model", {"source": model, "profile": "CPU_SMALL"}, cluster) == cluster
    deployed = servepath_commands(session.engine.asked("stdout"))
    assert [command[1] for command in deployed] == ["deploy", "deploy"]
    assert [[option for option in command if "--path=" in option] for command in deployed] == [
        ["--path=raw"],
        ["--path=kserve"],
    ]
    assert all("--profile=cpu-small" in command for command in deployed)


def test_a_canary_leads_what_was_just_pushed(session: Session, cluster: dict[str, Any], model: str) -> None:
    endpoint = session.invoke("Cluster", "deploy", {"source": model, "profile": "CPU_SMALL"}, cluster)
    endpoint["path"] = "KSERVE"
    following = session.new("Directory", "next")
    session.engine.answers["Container.exitCode"] = 9
    evidence = session.invoke("Endpoint", "canary", {"source": following, "steps": [10, 100], "hold_s": 5}, endpoint)
    assert (evidence["verdict"], evidence["exit_code"]) == ("fail", 9)
    pushed = session.engine.asked("stdout")[-1]
    assert pushed.named("withMountedDirectory")[-1]["source"] == following
    assert "--push=registry.example.com/servepath/model" in commands(pushed)[-1]
    (canary,) = servepath_commands(session.engine.asked("exitCode"))
    assert {"canary", f"--to={REFERENCE}", "--steps=10,100", "--hold=5.0", "--profile=cpu-small"} <= set(canary)
    accept(canary)


def test_the_raw_path_has_no_canary(session: Session, cluster: dict[str, Any], model: str) -> None:
    endpoint = session.invoke("Cluster", "deploy", {"source": model, "path": "RAW"}, cluster)
    with pytest.raises(FunctionError, match="raw has no canary; next: deploy --path=kserve"):
        session.invoke("Endpoint", "canary", {"source": model}, endpoint)


def test_a_promotion_is_planned_and_then_applied(session: Session, cluster: dict[str, Any]) -> None:
    session.engine.answers["Container.stdout"] = "# Plan"
    report, logins = session.new("Directory", "report"), session.new("Secret", "logins")
    inputs = {"from_report": report, "registry_logins": logins, "usd_per_hour": 0.7, "steps": [50, 100], "blocks": 4}
    plan = session.invoke("Cluster", "promote", inputs, cluster)
    assert (plan["refused"], plan["summary"]) == (False, "# Plan")
    (planned,) = servepath_commands(session.engine.asked("exitCode"))
    wanted = {"promote", "--from-report=/work/proof", "--steps=50,100", "--usd-per-hour=0.7", "--profile=gpu"}
    assert wanted <= set(planned)
    assert "--apply" not in planned
    container = session.engine.asked("exitCode")[0]
    assert container.named("withMountedDirectory")[-1] == {"path": "/work/proof", "source": report}
    assert {"path": "/run/servepath/docker/config.json", "source": logins} in container.named("withMountedSecret")
    assert session.invoke("PromotionPlan", "apply", {}, plan)["verdict"] == "pass"
    applied = servepath_commands(session.engine.asked("exitCode"))[-1]
    assert applied == [*planned, "--apply", "--report=/work/report"]
    for command in (planned, applied):
        accept(command)


def test_a_plan_that_is_refused_says_why(session: Session, cluster: dict[str, Any]) -> None:
    session.engine.answers |= {"Container.stdout": "", "Container.exitCode": 8, "Container.stderr": "no report"}
    inputs = {"modelcar": REFERENCE, "path": "RAW", "in_place": True, "at_once": True, "stop_after": True}
    plan = session.invoke("Cluster", "promote", inputs, cluster)
    assert (plan["refused"], plan["summary"]) == (True, "no report")
    (planned,) = servepath_commands(session.engine.asked("exitCode"))
    assert {f"--modelcar={REFERENCE}", "--path=raw", "--in-place", "--at-once", "--stop-after"} <= set(planned)
    accept(planned)


def test_a_cluster_that_cannot_be_asked_gives_no_plan(session: Session, cluster: dict[str, Any]) -> None:
    session.engine.answers["Container.exitCode"] = 5
    with pytest.raises(FunctionError, match="promote ended with 5 and no plan: cluster is gone"):
        session.invoke("Cluster", "promote", {"modelcar": REFERENCE}, cluster)


def test_the_way_back_is_planned_by_its_number(session: Session, cluster: dict[str, Any]) -> None:
    session.engine.answers["Container.stdout"] = "* 4 succeeded"
    assert session.invoke("Cluster", "history", {}, cluster) == "* 4 succeeded"
    plan = session.invoke("Cluster", "rollback", {"to": 3, "in_place": True}, cluster)
    session.invoke("PromotionPlan", "apply", {}, plan)
    sent = servepath_commands(session.engine.asked("exitCode") + session.engine.asked("stdout"))
    assert {command[1] for command in sent} == {"history", "rollback"}
    assert all({"--to=3", "--in-place"} <= set(command) for command in sent if command[1] == "rollback")
    for command in sent:
        accept(command)


def test_llm_d_is_deployed_and_no_more(session: Session, cluster: dict[str, Any], model: str) -> None:
    endpoint = session.invoke("Cluster", "deploy", {"source": model, "path": "LLM_D", "profile": "GPU"}, cluster)
    (deployed,) = servepath_commands(session.engine.asked("stdout"))
    assert "--path=llm-d" in deployed
    assert not any(argument.startswith("--gateway-url") for argument in deployed)  # its Gateway is not the cluster's
    accept(deployed)
    for function in ("smoke", "bench"):
        with pytest.raises(FunctionError, match="llm-d is deployed and answers, but is not checked or measured here"):
            session.invoke("Endpoint", function, {}, endpoint | {"path": "LLM_D"})


def test_evidence_of_a_failed_run_is_given_not_raised(session: Session, cluster: dict[str, Any], model: str) -> None:
    session.engine.answers["Container.exitCode"] = 6
    evidence = session.invoke("Cluster", "evidence", {"source": model}, cluster)
    assert (evidence["verdict"], evidence["exit_code"], evidence["summary"]) == ("fail", 6, "# Report")
    assert session.node(evidence["report"]).named("directory")[-1] == {"path": "/work/report"}
    run = session.engine.asked("exitCode")[-1].named("withExec")[-1]
    assert run["expect"] == "ANY"
    with pytest.raises(FunctionError, match="# Report"):
        session.invoke("Evidence", "assert_passed", {}, evidence)


def test_a_run_without_a_report_says_what_it_printed(session: Session, cluster: dict[str, Any], model: str) -> None:
    session.engine.answers |= {"Container.exists": False, "Container.exitCode": 2}
    with pytest.raises(FunctionError, match="ended with 2 and no report: cluster is gone"):
        session.invoke("Cluster", "evidence", {"source": model}, cluster)


@pytest.mark.parametrize("name", ["e2e", "prove"])
def test_e2e_gives_the_report_and_stops_what_it_started(session: Session, model: str, name: str) -> None:
    report = session.invoke("Servepath", name, {"source": model})
    assert session.node(report).named("directory")[-1] == {"path": "/work/report"}
    stopped = [node.named("from")[0]["address"] for node in session.engine.asked("stop")]
    assert stopped == [image("k3s"), image("registry")]


def test_e2e_fails_with_the_summary_and_stops_what_it_started(session: Session, model: str) -> None:
    session.engine.answers["Container.exitCode"] = 7
    with pytest.raises(FunctionError, match="# Report"):
        session.invoke("Servepath", "e2e", {"source": model})
    assert len(session.engine.asked("stop")) == 2


def test_a_cluster_whose_platform_cannot_be_installed_is_stopped(session: Session, model: str) -> None:
    def refuse(_: Node, __: Call) -> str:
        raise ValueError("helm failed")

    session.engine.answers["Container.sync"] = refuse
    with pytest.raises(AssertionError, match="helm failed"):
        session.invoke("Servepath", "e2e", {"source": model})
    assert len(session.engine.asked("stop")) == 2


def test_observations_are_never_answered_from_the_cache(session: Session, cluster: dict[str, Any]) -> None:
    for _ in range(2):
        session.invoke("Cluster", "smoke", {}, cluster)
    first, second = (str(node) for node in session.engine.asked("exitCode"))
    assert first != second


def test_diagnostics_are_given_whatever_the_command_says(session: Session, cluster: dict[str, Any]) -> None:
    found = session.node(session.invoke("Cluster", "diagnostics", {}, cluster))
    assert found.named("withExec")[-1]["expect"] == "ANY"
    assert found.named("withDirectory")[-1]["path"] == found.named("directory")[-1]["path"]


def test_up_needs_a_service(session: Session, cluster: dict[str, Any]) -> None:
    with pytest.raises(FunctionError, match="no Dagger service"):
        session.invoke("Cluster", "up", {}, cluster)
    state = session.invoke("Servepath", "cluster", {})
    assert session.invoke("Cluster", "up", {}, state) == state["services"][0]


def test_terminal_has_the_cluster(session: Session, cluster: dict[str, Any]) -> None:
    terminal = session.node(session.invoke("Cluster", "terminal", {}, cluster))
    assert terminal.calls[-1].name == "terminal"
    assert {"name": "KUBECONFIG", "value": "/run/servepath/kubeconfig"} in [
        {"name": variable["name"], "value": variable["value"]} for variable in terminal.named("withEnvVariable")
    ]


def test_the_workbench_is_made_of_the_library_alone(session: Session, cluster: dict[str, Any]) -> None:
    tools = session.node(cluster["tools"])
    copied = [call for call in tools.named("withDirectory") if call["path"] == "/servepath"]
    assert copied == [{"path": "/servepath", "source": session.new("Directory", "library")}]


def test_the_workbench_can_do_all_that_the_library_can(session: Session, cluster: dict[str, Any]) -> None:
    (install,) = (command for command in commands(session.node(cluster["tools"])) if command[:2] == ["uv", "sync"])
    assert {"--frozen", "--no-default-groups", "--all-extras"} <= set(install)


def test_no_command_compiles_what_it_imports(session: Session, cluster: dict[str, Any]) -> None:
    ran = commands(session.node(cluster["tools"]))
    (install,) = (command for command in ran if command[:2] == ["uv", "sync"])
    assert "--compile-bytecode" in install
    assert ["/opt/servepath/bin/python", "-m", "compileall", "-q", "src/servepath"] in ran


def test_the_workbench_keeps_what_pushes_learnt(session: Session, cluster: dict[str, Any]) -> None:
    """A second run then asks the registry of the modelcar's base for nothing."""
    kept = session.node(cluster["tools"]).named("withMountedCache")
    assert "/root/.cache/servepath" in [mount["path"] for mount in kept]


def test_checks_run_as_nobody(session: Session) -> None:
    session.invoke("Servepath", "check", {"source": session.new("Directory", "source")})
    (checks,) = session.engine.asked("sync")
    names = [call.name for call in checks.calls]
    assert checks.named("withUser") == [{"name": "65534:65534"}]
    assert checks.named("withDirectory")[-1]["owner"] == "65534:65534"
    after = checks.calls[names.index("withUser") :]
    assert [call.arguments["args"][0] for call in after if call.name == "withExec"] == [
        "ruff",
        "ruff",
        "mypy",
        "pytest",
    ]


def test_uv_trusts_the_certificates_of_the_container(session: Session, cluster: dict[str, Any]) -> None:
    variables = session.node(cluster["tools"]).named("withEnvVariable")
    assert {"name": "UV_NATIVE_TLS", "value": "1"} in [
        {key: one[key] for key in ("name", "value")} for one in variables
    ]


def test_every_image_is_pinned(session: Session, model: str) -> None:
    session.invoke("Servepath", "e2e", {"source": model})
    addresses = {call["address"] for node in session.engine._nodes.values() for call in node.named("from")}
    assert addresses == {image(name) for name in ("helm", "k3s", "python", "registry", "uv")}
    assert all("@sha256:" in address for address in addresses)


def test_every_command_is_one_of_the_command_line(session: Session, cluster: dict[str, Any], model: str) -> None:
    built = session.invoke("Servepath", "modelcar", {"source": model})
    session.invoke("Servepath", "modelcar_from_hub", {"repo": "a/b", "revision": "7" * 40})
    session.invoke("Modelcar", "publish", {"address": "ghcr.io/me/model"}, built)
    session.invoke("Cluster", "with_platform", {}, cluster)
    session.invoke("Cluster", "diagnostics", {}, cluster)
    session.invoke("Cluster", "smoke", {}, cluster)
    session.invoke("Cluster", "compare", {}, cluster)
    session.invoke("Cluster", "canary", {"to": DIGEST}, cluster)
    session.invoke("Cluster", "evidence", {"source": model}, cluster)
    endpoint = session.invoke("Cluster", "deploy", {"source": model}, cluster)
    session.invoke("Endpoint", "smoke", {}, endpoint)
    session.invoke("Endpoint", "bench", {}, endpoint)
    sent = servepath_commands(session.engine._nodes.values()) + servepath_commands(
        node for node, _ in session.engine.leaves
    )
    stages = {"modelcar", "platform", "cluster", "deploy", "smoke", "bench", "canary", "e2e"}
    assert {command[1] for command in sent} == stages
    for command in sent:
        accept(command)


def test_an_unknown_option_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        accept(["servepath", "smoke", "--kubeconfig=/k", "--no-such-option"])


def test_an_argument_of_the_wrong_type_would_be_found(session: Session) -> None:
    with pytest.raises(AssertionError, match="wants Directory, got Secret"):
        session.invoke("Servepath", "modelcar", {"source": session.new("Secret", "not a directory")})
