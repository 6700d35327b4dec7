"""A promotion as a run with a report: planned, or carried out; whatever ends it, the report says so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from servepath.e2e import begin_report
from servepath.errors import first_servepath_error
from servepath.promotion.evidence import Evidence
from servepath.promotion.promote import plan_promotion, promote
from servepath.report.model import Report, report_error
from servepath.report.write import write_report

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.evidence import RunInfo
    from servepath.promotion.model import PromotionRequest
    from servepath.stages import Stages


async def run_promotion(
    request: PromotionRequest, info: RunInfo, stages: Stages, *, apply: bool, report_directory: Path | None = None
) -> Report:
    """Plan a promotion, or carry it out, and report what came of it.

    Args:
        request: what to promote, and where to.
        info: what is running, for the report.
        stages: the clock of the run.
        apply: carry it out; else nothing is changed.
        report_directory: where the report goes, None for nowhere.

    Returns:
        The report. An error of servepath is in it, not raised: its exit code is the run's.

    Raises:
        InputError: the report directory cannot be written; found before anything is done, too.
        BaseException: whatever else ended the run, cancellation included; everything has been put back by then, and
            the report has been written.
    """
    if report_directory is not None:
        await anyio.to_thread.run_sync(begin_report, info, report_directory)
    evidence = Evidence()
    ended_by: BaseException | None = None
    try:
        await (promote if apply else plan_promotion)(request, stages, evidence)
    except BaseException as error:  # noqa: BLE001 - every end is reported, then raised again
        ended_by = error
    report = _report(request, info, stages, evidence, ended_by)
    if report_directory is not None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(write_report, report, report_directory)
    if ended_by is not None and first_servepath_error(ended_by) is None:
        raise ended_by
    return report


def _report(
    request: PromotionRequest, info: RunInfo, stages: Stages, evidence: Evidence, ended_by: BaseException | None
) -> Report:
    gate = evidence.gate
    error = None
    if ended_by is not None:
        is_interrupt = isinstance(ended_by, anyio.get_cancelled_exc_class())
        error = report_error(KeyboardInterrupt() if is_interrupt else first_servepath_error(ended_by) or ended_by)
        error = replace(error, next_command=request.lasting(error.next_command))
    return Report(
        replace(info, node=gate.node if gate and gate.node else {}),
        stages=stages.timings,
        cluster=request.cluster,
        deployments=(evidence.endpoint,) if evidence.endpoint else (),
        checks=tuple(replace(check, next_command=request.lasting(check.next_command)) for check in evidence.checks),
        comparison=gate.comparison if gate else None,
        slo=gate.slo if gate else (),
        canary=evidence.canary,
        promotion=evidence,
        error=error,
    )
