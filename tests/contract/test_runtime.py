"""The module as the engine starts it: Dagger's own entry point in a process of its own, and the node's scripts."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from main import node
from tests.contract.fake_engine import TOKEN, FakeEngine, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    import graphql

SCRIPTS = Path(node.__file__).parent
# This machine may withhold CAP_SYS_RESOURCE; the entry point is to go on then, for a node image that does without.
RESTRICTED = {"SERVEPATH_OOM_SCORE_ADJ": "restricted"}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
# What k3s does of which the entry point takes notice: it writes a kubeconfig with a key in it.
K3S = """\
echo "$@"
while [ "$1" != --write-kubeconfig ]; do shift; done
cat >"$2" <<EOF
clusters:
- cluster:
    certificate-authority-data: %s
users:
- user:
    client-key-data: a-key
EOF
until [ -s "$CERTIFICATE" ]; do sleep 0.1; done
cat /var/lib/rancher/k3s/server/tokens.csv
stat --format=%%a /var/lib/rancher/k3s/server/tokens.csv
readlink /var/lib/rancher/k3s/agent/containerd
ls /var/lib/rancher/k3s
"""


def run_script(name: str, arguments: list[str], programs: Path) -> subprocess.CompletedProcess[str]:
    """Run one of the node's scripts with programs of ours before the system's."""
    scratch = programs / "scratch"
    scratch.mkdir()
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(scratch)}
    command = ["sh", str(SCRIPTS / name), *arguments]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert list(scratch.iterdir()) == []  # a script puts its files away
    return done


def program(directory: Path, name: str, body: str) -> None:
    """Put a program of ours into a directory."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_the_runtime_registers_the_module(schema: graphql.GraphQLSchema, tmp_path: Path) -> None:
    engine = FakeEngine(schema)
    with serve(engine) as port:
        environment = {
            "PATH": os.environ["PATH"],
            "DAGGER_SESSION_PORT": str(port),
            "DAGGER_SESSION_TOKEN": TOKEN,
            "DAGGER_MODULE": "servepath",
            "DAGGER_MAIN_OBJECT": "Servepath",
            "DAGGER_DEFAULT_PYTHON_PACKAGE": "main",
            "DAGGER_MODULE_FILE": str(tmp_path / "module.json"),
        }
        script = "import sys; from dagger.mod.cli import app; sys.exit(app(None, True))"
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
    assert engine.errors == []
    registered = engine.node(json.loads((tmp_path / "module.json").read_text()))
    assert len(registered.named("withObject")) == 7
    assert len(registered.named("withEnum")) == 3


def test_ready_gives_the_authority_once_the_api_answers_the_token(tmp_path: Path) -> None:
    certificate = tmp_path / "run.crt"
    certificate.write_text(CERTIFICATE)
    program(tmp_path, "kubectl", f'[ "$3 $4 $5" = "get --raw /readyz" ] && cat "$2" >{tmp_path}/kubeconfig')
    done = run_script("k3s-ready.sh", [str(certificate), "/etc/servepath/token", "5"], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, CERTIFICATE, "")
    used = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    assert used["clusters"][0]["cluster"] == {"server": "https://k3s:6443", "certificate-authority": str(certificate)}
    assert used["users"][0]["user"] == {"tokenFile": "/etc/servepath/token"}


@pytest.mark.parametrize(("content", "answer"), [("", "exit 0"), (CERTIFICATE, "exit 1")])
def test_ready_gives_up_when_its_time_is_over(tmp_path: Path, content: str, answer: str) -> None:
    certificate = tmp_path / "run.crt"
    certificate.write_text(content)
    program(tmp_path, "kubectl", answer)
    done = run_script("k3s-ready.sh", [str(certificate), "/etc/servepath/token", "1"], tmp_path)
    assert done.returncode == 1
    assert "did not answer /readyz within 1 s; next:" in done.stderr


def unified(directory: Path, controllers: str) -> Path:
    """Make a directory that looks like cgroup v2."""
    cgroups = directory / "cgroup"
    cgroups.mkdir()
    (cgroups / "cgroup.controllers").write_text(controllers + "\n")
    (cgroups / "cgroup.procs").write_text("1\n7\n")
    return cgroups


def legacy(directory: Path, controllers: str) -> Path:
    """Make a directory that looks like cgroup v1."""
    for controller in controllers.split():
        (directory / "cgroup" / controller).mkdir(parents=True)
    return directory / "cgroup"


def enter_node(
    directory: Path, cgroups: Path, settings: dict[str, str] | None = None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the entry point in a mount namespace with a cgroup directory, state and programs of ours."""
    program(directory, "k3s", K3S % base64.b64encode(CERTIFICATE.encode()).decode())
    program(directory, "ip", "echo '    inet 10.87.0.4/16 brd 10.87.255.255 scope global eth0'")
    # The entry point deletes an earlier cluster's state: a developer's own k3s must be out of its sight.
    (directory / "token").write_text("a-token")
    hidden = "mount -t tmpfs none /var/lib && mkdir -p /var/lib/rancher/k3s/storage/pvc-of-an-earlier-cluster"
    shown = f"mount --bind {cgroups} /sys/fs/cgroup"
    enter = f'{hidden} && {shown} && PATH={directory}:$PATH exec sh {SCRIPTS}/k3s-entrypoint.sh "$@"'
    arguments = [str(directory / "run.crt"), str(directory / "token"), "/var/images", "--debug"]
    command = [*before, "unshare", "--mount", "sh", "-c", enter, "sh", *arguments]
    environment = os.environ | {"CERTIFICATE": arguments[0]} | (RESTRICTED if settings is None else settings)
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
def test_the_node_prepares_cgroups_and_starts_k3s(tmp_path: Path) -> None:
    done = enter_node(tmp_path, unified(tmp_path, "cpuset cpu io memory pids"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("server --bind-address 10.87.0.4 --egress-selector-mode disabled --tls-san k3s ")
    flags, token, mode, images, *kept = done.stdout.splitlines()
    assert flags.endswith("--debug")
    assert "--kube-apiserver-arg token-auth-file=/var/lib/rancher/k3s/server/tokens.csv" in flags
    assert (token, mode) == ("a-token,servepath,servepath,system:masters", "600")
    assert images == "/var/images"
    assert kept == ["agent", "server"]  # nothing of an earlier cluster's volumes
    assert (tmp_path / "run.crt").read_text() == CERTIFICATE
    assert (tmp_path / "cgroup/cgroup.subtree_control").read_text() == "+cpuset +cpu +io +memory +pids\n"
    assert (tmp_path / "cgroup/init/cgroup.procs").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
def test_the_node_starts_on_cgroup_v1_and_leaves_it_alone(tmp_path: Path) -> None:
    done = enter_node(tmp_path, legacy(tmp_path, "cpuset cpu memory pids"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "cgroup").iterdir()) == ["cpu", "cpuset", "memory", "pids"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
def test_the_node_says_why_no_pod_would_start(tmp_path: Path) -> None:
    without = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")
    done = enter_node(tmp_path, legacy(tmp_path, "cpuset cpu memory pids"), {}, without)
    assert done.returncode == 1
    assert "the engine lacks CAP_SYS_RESOURCE; next: run the engine with it (docker run --privileged" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
@pytest.mark.parametrize("shape", [unified, legacy])
def test_the_node_names_the_missing_controller(tmp_path: Path, shape: Callable[[Path, str], Path]) -> None:
    done = enter_node(tmp_path, shape(tmp_path, "cpuset cpu io pids"))
    assert done.returncode == 1
    assert "the cgroup controller 'memory' is not given to the engine; next: boot" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("script", ["k3s-entrypoint.sh", "k3s-ready.sh"])
def test_scripts_parse(script: str) -> None:
    subprocess.run(["sh", "-n", str(SCRIPTS / script)], check=True)
