"""A model as an OCI image."""

import base64
import json
from typing import Annotated, Self

import dagger
from dagger import Doc, dag

from main import node
from main.declare import never_cached, object_type
from main.images import base_image_option
from main.workbench import observing

LAYOUT = "/work/layout"
RESULT = "/work/modelcar.json"
DOCKER_CONFIG = "/run/servepath/docker"


@object_type
class Modelcar:
    """An OCI image whose `/models` holds one model. The same model gives the same digest, on any machine and day."""

    digest: Annotated[str, Doc("`sha256:…` of the manifest: the model's identity on every path")] = dagger.field()
    size: Annotated[int, Doc("Sum of the layers and the configuration, in bytes")] = dagger.field()
    layers: Annotated[list[str], Doc("Digests of the layers: the base first, then the model's")] = dagger.field()
    as_layout: Annotated[dagger.Directory, Doc("The image as an OCI layout")] = dagger.field()
    builder: dagger.Container
    model: list[str]
    mirror: str

    @never_cached
    async def publish(
        self,
        address: Annotated[str, Doc("Where to, without tag or digest, such as `ghcr.io/me/my-model`")],
        username: Annotated[str, Doc("Name to log in with, where the registry asks for one")] = "",
        password: Annotated[dagger.Secret | None, Doc("Password or token, such as `env:GITHUB_TOKEN`")] = None,
    ) -> str:
        """Push to a registry and give the reference with its digest. Blobs that are there already are not sent.

        Example: `dagger call modelcar --source=./model publish --address=ghcr.io/me/model --username=me
        --password=env:GITHUB_TOKEN`
        """
        container = self.builder
        if password is not None:
            login = await docker_login(address.partition("/")[0], username, password)
            container = container.with_mounted_secret(f"{DOCKER_CONFIG}/config.json", login)
            container = container.with_env_variable("DOCKER_CONFIG", DOCKER_CONFIG)
        return await push(container, self.model, address)

    @never_cached
    async def verify(self) -> Self:
        """Push to a registry of this session, and build from there: fails unless the digest is the same.

        Example: `dagger call modelcar --source=./model verify digest`

        Raises:
            ValueError: another digest came out.
        """
        container = self.builder.with_service_binding(node.REGISTRY_HOST, node.registry(self.mirror))
        reference = await push(container, self.model, f"{node.REGISTRY}/servepath/model")
        if not reference.endswith(f"@{self.digest}"):
            raise ValueError(f"the layout has {self.digest}, the registry {reference}")
        return self


async def build(container: dagger.Container, model: list[str], mirror: str) -> Modelcar:
    """Build a modelcar.

    Args:
        container: a workbench that has, or reaches, the model.
        model: the options that name the model there.
        mirror: the registry that its base comes from; upstream when empty.
    """
    options = [*model, *base_image_option(mirror)]
    built = container.with_exec(
        ["servepath", "modelcar", *options, f"--layout={LAYOUT}", "--json"], redirect_stdout=RESULT
    )
    result = json.loads(await built.file(RESULT).contents())
    return Modelcar(
        digest=result["digest"],
        size=result["size_bytes"],
        layers=[layer["digest"] for layer in result["layers"]],
        as_layout=built.directory(LAYOUT),
        builder=container,
        model=options,
        mirror=mirror,
    )


async def push(container: dagger.Container, model: list[str], address: str) -> str:
    """Build and push a modelcar, streaming, and give its reference with the digest."""
    command = ["servepath", "modelcar", *model, f"--push={address}", "--json"]
    return str(json.loads(await observing(container).with_exec(command).stdout())["reference"])


async def docker_login(host: str, username: str, password: dagger.Secret) -> dagger.Secret:
    """Give Docker's `config.json` for one registry, as `docker login` would write it."""
    credentials = base64.b64encode(f"{username}:{await password.plaintext()}".encode()).decode()
    return dag.set_secret(f"servepath-login-{host}", json.dumps({"auths": {host: {"auth": credentials}}}))
