"""A promotion: what it would do, and then the doing."""

from typing import Annotated

import dagger
from dagger import Doc

from main.declare import never_cached, object_type
from main.evidence import Evidence, VerdictError, gather
from main.modelcar import DOCKER_CONFIG
from main.workbench import observing

PROOF = "/work/proof"
SIGNER = "/work/cosign.pub"
REFUSED = 8


@object_type
class PromotionPlan:
    """What a promotion would do. Making the plan has changed nothing; `apply` does what it says."""

    refused: Annotated[bool, Doc("Whether it may not be done; `summary` says why, and what to type")] = dagger.field()
    summary: Annotated[
        str, Doc("The plan in Markdown: copies, each object's change, steps, cost per hour, what may be lost")
    ] = dagger.field()
    tools: dagger.Container
    command: list[str]

    @never_cached
    async def apply(self) -> Evidence:
        """Do it: copy, deploy, gate, shift, verify; on any failure everything is put back to what was there.

        A plan that was refused is refused again. What changed in the cluster since the plan is looked at anew.

        Example: `dagger call cluster-from --kubeconfig=file:./kubeconfig --registry=… --gateway-url=… promote
        --from-report=./report apply report export --path=promotion`
        """
        return await gather(self.tools, [*self.command, "--apply"])


async def plan(container: dagger.Container, command: list[str]) -> PromotionPlan:
    """Make the plan of a promotion or a rollback.

    Args:
        container: a workbench that has, or reaches, what the command names.
        command: of servepath, without `--apply`.

    Raises:
        VerdictError: no plan could be made; the message is what the command printed.
    """
    done = observing(container).with_exec(["servepath", *command], expect=dagger.ReturnType.ANY)
    exit_code, printed, said = await done.exit_code(), await done.stdout(), await done.stderr()
    if exit_code not in {0, REFUSED}:
        raise VerdictError(f"servepath {command[0]} ended with {exit_code} and no plan: {said}")
    refused = exit_code == REFUSED
    return PromotionPlan(
        refused=refused,
        summary=f"{printed}\n{said}".strip() if refused else printed,
        tools=container,
        command=command,
    )


def vouched(
    container: dagger.Container,
    from_report: dagger.Directory | None,
    signed_by: dagger.File | None,
    registry_logins: dagger.Secret | None,
) -> tuple[dagger.Container, list[str]]:
    """Give the container with what vouches for a modelcar and with logins, and the options that name the former."""
    options = []
    if from_report is not None:
        container = container.with_mounted_directory(PROOF, from_report)
        options.append(f"--from-report={PROOF}")
    if signed_by is not None:
        container = container.with_mounted_file(SIGNER, signed_by)
        options.append(f"--require-signature={SIGNER}")
    if registry_logins is not None:
        container = container.with_mounted_secret(f"{DOCKER_CONFIG}/config.json", registry_logins)
        container = container.with_env_variable("DOCKER_CONFIG", DOCKER_CONFIG)
    return container, options
