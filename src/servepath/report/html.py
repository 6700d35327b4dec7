"""The report as one self-contained HTML page: no script, no font, no picture, no request."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from servepath.report import answer, canary, page_plots
from servepath.report import format as text
from servepath.report.canary_plot import canary_plot
from servepath.report.svg import nice_ticks

if TYPE_CHECKING:
    from servepath.report.samples import KeptSamples

TEMPLATE = "report.html.j2"


def html_page(document: dict[str, Any], kept: KeptSamples) -> str:
    """The page of a report document and its raw samples."""
    comparison, total_s = document["comparison"], answer.total_s(document)
    return render(
        TEMPLATE,
        report=document,
        fmt=text,
        answer=answer,
        total_s=total_s,
        ticks_s=[tick for tick in nice_ticks(0, total_s) if tick <= total_s] if total_s else [],
        ratio_plots=page_plots.ratio_plots(comparison),
        distributions=page_plots.distribution_figures(comparison, kept.comparison),
        blocks=page_plots.block_figures(comparison, kept.comparison),
        sweep_figures=page_plots.sweep_figures(document["sweep"]),
        instrument_figure=page_plots.instrument_figure(document["instrument"]),
        canary_words=canary.ratio_words,
        canary_plot=canary_plot(document["canary"], kept.canary) if document["canary"] else None,
        rollouts=page_plots.rollout_figures(document["lifecycle"], kept.rollouts),
    )


def render(name: str, **values: Any) -> str:
    """A page from a template of this package."""
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> Environment:
    """Where the compiled templates are kept; they never change while the program runs."""
    return Environment(
        loader=PackageLoader("servepath.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
