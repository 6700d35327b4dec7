"""What a network that reaches no registry needs: every image and chart that this module pins."""

import json
from typing import Annotated

import dagger
from dagger import Doc

from main.declare import never_cached, object_type
from main.modelcar import DOCKER_CONFIG, docker_login
from main.workbench import observing
from servepath.platform.mirror import parse_mirror

LAYOUT = "/work/mirror"


@object_type
class Mirror:
    """Images and charts as one OCI layout, to be carried to a registry that `--registry-mirror` then names."""

    layout: Annotated[dagger.Directory, Doc("The OCI layout; `export` it to carry it away")] = dagger.field()
    builder: dagger.Container

    @never_cached
    async def publish(
        self,
        address: Annotated[str, Doc("Where to, as `[http://]host[:port][/prefix]`, such as `registry.internal:5000`")],
        username: Annotated[str, Doc("Name to log in with, where the registry asks for one")] = "",
        password: Annotated[dagger.Secret | None, Doc("Password or token, such as `env:REGISTRY_PASSWORD`")] = None,
    ) -> list[str]:
        """Put every image and chart into a registry, and give their references there, with their digests.

        What is there already is not sent.

        Example: `dagger call mirror-from --layout=./mirror publish --address=registry.internal:5000`
        """
        mirror = parse_mirror(address)
        container = self.builder.with_mounted_directory(LAYOUT, self.layout)
        if password is not None:
            login = await docker_login(mirror.host, username, password)
            container = container.with_mounted_secret(f"{DOCKER_CONFIG}/config.json", login)
            container = container.with_env_variable("DOCKER_CONFIG", DOCKER_CONFIG)
        command = ["servepath", "mirror", f"--layout={LAYOUT}", f"--push={address}", "--json"]
        sent = json.loads(await observing(container).with_exec(command).stdout())
        return [f"{one['name']}@{one['digest']}" for one in sent]


def fetch(container: dagger.Container, only: list[str], also: list[str], mirror: str) -> Mirror:
    """Fill a layout with images and charts of the lock.

    Args:
        container: a workbench.
        only: names in the lock; all of them when empty.
        also: further images, by digest.
        mirror: the registry that they are read from; upstream when empty.
    """
    options = [*(f"--only={name}" for name in only), *(f"--also={reference}" for reference in also)]
    if mirror:
        options.append(f"--registry-mirror={mirror}")
    copied = container.with_exec(["servepath", "mirror", f"--layout={LAYOUT}", *options])
    return Mirror(layout=copied.directory(LAYOUT), builder=container)
