"""The container in which the library works: its command line, the tools it calls, and nothing of the user's.

Every function of the module does its work by running `servepath …` here. The container is built from the module's own
source, so a function and `uv run servepath` on a laptop are the same program with the same arguments.
"""

import uuid

import dagger
from dagger import dag

from main.images import image
from servepath.platform.mirror import parse_mirror

PROJECT = "/servepath"
MODEL = "/work/model"
KUBECONFIG = "/run/servepath/kubeconfig"
EVERYTHING_BUT_THE_LIBRARY = [
    "**",
    "!pyproject.toml",
    "!uv.lock",
    "!src/servepath/**",
    "!src/main/__init__.py",
    "!manifests/**",
    "**/__pycache__",
]


def workbench(library: dagger.Directory, mirror: str) -> dagger.Container:
    """Give the container with the `servepath` command.

    Args:
        library: the source of servepath, without `EVERYTHING_BUT_THE_LIBRARY`.
        mirror: the registry that its images come from; upstream when empty.
    """
    container = (
        dag.container()
        .from_(image("python", mirror))
        .with_file("/usr/local/bin/uv", dag.container().from_(image("uv", mirror)).file("/uv"))
        .with_file("/usr/local/bin/kubectl", dag.container().from_(image("k3s", mirror)).file("/bin/k3s"))
        .with_file("/usr/local/bin/helm", dag.container().from_(image("helm", mirror)).file("/usr/bin/helm"))
        .with_mounted_cache("/root/.cache/uv", dag.cache_volume("servepath-uv"))
        .with_mounted_cache("/root/.cache/servepath", dag.cache_volume("servepath-push"))
        .with_env_variable("UV_LINK_MODE", "copy")
        .with_env_variable("UV_NATIVE_TLS", "1")
        .with_env_variable("UV_PROJECT_ENVIRONMENT", "/opt/servepath")
        .with_directory(PROJECT, library)
        .with_new_file(f"{PROJECT}/README.md", "")
        .with_workdir(PROJECT)
        # What a command compiles is lost with its container; `servepath deploy` then takes 1.8 s to start, not 0.6.
        .with_exec(["uv", "sync", "--frozen", "--no-default-groups", "--all-extras", "--compile-bytecode"])
        .with_exec(["/opt/servepath/bin/python", "-m", "compileall", "-q", "src/servepath"])
        .with_env_variable("PATH", "/opt/servepath/bin:${PATH}", expand=True)
        .with_directory("/work", dag.directory())  # a command's output may be redirected into it
        .with_workdir("/work")
    )
    if mirror and (registry := parse_mirror(mirror)).plain_http:
        return container.with_env_variable("SERVEPATH_PLAIN_HTTP", registry.host)
    return container


def observing(container: dagger.Container) -> dagger.Container:
    """Give the container so that its next command is run, never answered from the cache: it looks at a live system."""
    return container.with_env_variable("SERVEPATH_RUN", uuid.uuid4().hex)
