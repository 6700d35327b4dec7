# ruff: noqa: INP001 - a script beside its action, no package
"""Print each failed check of a junit.xml as an annotation of a GitHub workflow.

Usage: annotate.py JUNIT_XML. Needs nothing but Python.
Format: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

import sys
import xml.etree.ElementTree as ET

ESCAPES = {"%": "%25", "\r": "%0D", "\n": "%0A"}
IN_PROPERTY = {**ESCAPES, ":": "%3A", ",": "%2C"}


def escape(text: str, escapes: dict[str, str]) -> str:
    """Give a text as a workflow command carries it."""
    return "".join(escapes.get(character, character) for character in text)


def annotations(path: str) -> list[str]:
    """Give one workflow command for each failure and error."""
    commands = []
    root = ET.parse(path).getroot()  # noqa: S314 - servepath has written it, in this job
    for case in root.iter("testcase"):
        for problem in (*case.findall("failure"), *case.findall("error")):
            title = escape(f"{case.get('classname', '')} {case.get('name', '')}".strip(), IN_PROPERTY)
            said = "\n".join(filter(None, (problem.get("message"), (problem.text or "").strip())))
            commands.append(f"::error title={title}::{escape(said or 'failed', ESCAPES)}")
    return commands


if __name__ == "__main__":
    for command in annotations(sys.argv[1]):
        sys.stdout.write(f"{command}\n")
