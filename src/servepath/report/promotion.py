"""A promotion in the report: its record, its plan, and what was put back, as values and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.promotion.record import to_json
from servepath.report.format import short_digest, size
from servepath.report.markdown_text import cell, code, table

if TYPE_CHECKING:
    from servepath.promotion.evidence import Evidence
    from servepath.promotion.model import Plan

_RECORDED = (
    "number",
    "state",
    "stage",
    "result",
    "strategy",
    "who",
    "started_at",
    "ended_at",
    "path",
    "source",
    "digest",
    "replaces",
    "back_to",
    "report_digest",
)


def promotion_values(evidence: Evidence) -> dict[str, Any]:
    """The promotion as plain values; what it never learnt is null or empty."""
    record = to_json(evidence.record) if evidence.record else None
    copied, restored = evidence.copied, evidence.restored
    return {
        "record": {name: record[name] for name in _RECORDED} if record else None,
        "plan": plan_values(evidence.plan) if evidence.plan else None,
        "recovered": [str(one) for one in evidence.recovered],
        "copied": {
            "reference": copied.reference,
            "sent_bytes": copied.sent_bytes,
            "referrers": copied.referrers,
            "tags": copied.tags,
        }
        if copied
        else None,
        "restored": {"deleted": restored.deleted, "put_back": restored.put_back} if restored else None,
    }


def plan_values(plan: Plan) -> dict[str, Any]:
    """What a promotion would do."""
    cost = plan.cost
    return {
        "strategy": plan.strategy,
        "path": plan.path,
        "target": plan.spec.modelcar_reference,
        "engine_image": plan.spec.engine_image,
        "serving": plan.serving,
        "copy": {
            "source": plan.copy.source,
            "size_bytes": plan.copy.size_bytes,
            "missing_bytes": plan.copy.missing_bytes,
            "referrer_count": plan.copy.referrers,
            "tags": plan.copy.tags,
        },
        "steps": plan.steps,
        "changes": [{"place": one.place, "action": one.action, "diff": one.diff} for one in plan.changes],
        "cost": {
            "now_usd_per_hour": cost.now_usd_per_hour,
            "during_usd_per_hour": cost.during_usd_per_hour,
            "after_usd_per_hour": cost.after_usd_per_hour,
        }
        if cost
        else None,
        "may_be_lost": plan.may_be_lost,
        "missing": [
            {"name": one.name, "seen": one.seen, "expected": one.expected, "next_command": one.next_command}
            for one in plan.missing
        ],
        "unfinished": plan.unfinished,
    }


def plan_markdown(plan: dict[str, Any]) -> str:
    """A plan for a person: what is copied, what happens, what is changed, what it costs and what may be lost."""
    copy, cost = plan["copy"], plan["cost"]
    sent = f"sending {size(copy['missing_bytes'])} of {size(copy['size_bytes'])}"
    along = f", with {copy['referrer_count']} referrers" + (f" and {', '.join(copy['tags'])}" if copy["tags"] else "")
    facts = [
        ["digest", plan["target"]],
        ["engine", plan["engine_image"]],
        ["serves now", plan["serving"] or "nothing"],
        ["strategy", plan["strategy"]],
        ["copied", sent + along],
        ["may be lost", "; ".join(plan["may_be_lost"]) or "nothing"],
    ]
    if cost:
        now, during, after = (cost[f"{when}_usd_per_hour"] for when in ("now", "during", "after"))
        price = f"now ${now:.2f}, while it is promoted ${during:.2f}, afterwards ${after:.2f}"
        facts.append(["engines, per hour", price])
    if plan["unfinished"]:
        numbers = ", ".join(map(str, plan["unfinished"]))
        facts.append(["first", f"finish or undo promotion {numbers}, which was killed"])
    diffs = [f"{code(one['place'])}\n\n{_diff_block(one['diff'])}" for one in plan["changes"] if one["diff"]]
    return "\n\n".join(
        [
            table(["", ""], facts),
            "\n".join(f"{number}. {cell(step)}" for number, step in enumerate(plan["steps"], 1)),
            table(["object", "becomes"], [[one["place"], one["action"]] for one in plan["changes"]]),
            *diffs,
            *(
                f"Missing: {cell(one['name'])}: {cell(one['seen'])}, expected {cell(one['expected'])}; "
                f"{code(one['next_command'])}"
                for one in plan["missing"]
            ),
        ]
    )


def promotion_markdown(promotion: dict[str, Any]) -> str:
    """A promotion for a step summary."""
    record, copied, restored = promotion["record"], promotion["copied"], promotion["restored"]
    facts = []
    if record:
        number = f"{record['number']}" + (f", back to {record['back_to']}" if record["back_to"] else "")
        facts += [
            ["promotion", number],
            ["digest", short_digest(record["digest"])],
            ["state", f"{record['state']}, at {record['stage']}"],
            ["result", record["result"]],
            ["who", record["who"]],
            ["report", short_digest(record["report_digest"]) if record["report_digest"] else "none"],
            ["replaces", f"promotion {record['replaces']}" if record["replaces"] else "nothing promoted"],
        ]
    if copied:
        facts.append(["copied", f"{size(copied['sent_bytes'])} sent to {copied['reference']}"])
    if restored:
        facts.append(
            ["rolled back", f"{len(restored['deleted'])} objects deleted, {len(restored['put_back'])} put back"]
        )
    facts += [["recovered", one] for one in promotion["recovered"]]
    if not record and promotion["plan"]:
        return "### What a promotion would do\n\n" + plan_markdown(promotion["plan"])
    return "### Promotion\n\n" + table(["", ""], facts) if facts else ""


def _diff_block(diff: str) -> str:
    """A diff as a block of code, with its indentation."""
    fence = "```"
    while fence in diff:
        fence += "`"
    return f"{fence}diff\n{diff}\n{fence}"
