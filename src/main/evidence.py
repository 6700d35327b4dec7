"""What a run has learnt: a verdict, and the report that shows how it came about."""

from typing import Annotated, Self

import dagger
from dagger import Doc

from main.declare import never_cached, object_type
from main.workbench import observing

REPORT = "/work/report"


class VerdictError(Exception):
    """A run did not pass; the message is its summary."""


@object_type
class Evidence:
    """The result of checks and measurements. Reading it never fails; `assert-passed` is where a failure becomes one."""

    verdict: Annotated[str, Doc("`pass` or `fail`")] = dagger.field()
    exit_code: Annotated[
        int,
        Doc(
            "0, or the code of the error's class: 3 input, 4 registry, 5 cluster, 6 check failed, 7 objective missed, "
            "8 refused, 9 rolled back"
        ),
    ] = dagger.field()
    summary: Annotated[str, Doc("The run in Markdown, as it fits a step summary")] = dagger.field()
    report: Annotated[
        dagger.Directory,
        Doc("report.json, junit.xml, report.md and report.html; after a failure also logs, events and manifests"),
    ] = dagger.field()

    @never_cached
    def assert_passed(self) -> Self:
        """Give the evidence back when it passed, and fail with its summary when it did not.

        Example: `dagger call evidence --source=./model assert-passed report export --path=report`

        Raises:
            VerdictError: the verdict is `fail`.
        """
        if self.verdict != "pass":
            raise VerdictError(self.summary)
        return self


async def gather(container: dagger.Container, command: list[str]) -> Evidence:
    """Run a command of servepath that writes a report, whatever its verdict.

    Raises:
        VerdictError: the command ended without a report; the message is what it printed.
    """
    done = observing(container).with_exec(["servepath", *command, f"--report={REPORT}"], expect=dagger.ReturnType.ANY)
    exit_code = await done.exit_code()
    if not await done.exists(f"{REPORT}/report.json"):
        raise VerdictError(f"servepath {command[0]} ended with {exit_code} and no report: {await done.stderr()}")
    report = done.directory(REPORT)
    return Evidence(
        verdict="fail" if exit_code else "pass",
        exit_code=exit_code,
        summary=await report.file("report.md").contents(),
        report=report,
    )
