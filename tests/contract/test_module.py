"""What `dagger functions` and `--help` will show: every object, function and argument, from the imported module."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import pytest
from dagger.mod._utils import extract_enum_member_doc, get_doc

from main.choices import Compression, Path, Profile
from main.workbench import EVERYTHING_BUT_THE_LIBRARY
from servepath.modelcar.image import compress
from servepath.serving.model import DeployPath
from servepath.serving.profiles import PROFILES
from tests.contract import sloppy

if TYPE_CHECKING:
    from dagger.mod._module import Module

    from tests.contract.conftest import Session

NEVER, SESSION, BUILD = "never", "session", None

POLICIES = {
    "Servepath.modelcar": BUILD,
    "Servepath.modelcar_from_hub": BUILD,
    "Servepath.cluster": SESSION,
    "Servepath.cluster_from": SESSION,
    "Servepath.evidence": NEVER,
    "Servepath.e2e": NEVER,
    "Servepath.prove": NEVER,
    "Servepath.mirror": BUILD,
    "Servepath.mirror_from": BUILD,
    "Servepath.check": BUILD,
    "Mirror.publish": NEVER,
    "Modelcar.publish": NEVER,
    "Modelcar.verify": NEVER,
    "Cluster.with_platform": NEVER,
    "Cluster.deploy": NEVER,
    "Cluster.with_model": NEVER,
    "Cluster.smoke": NEVER,
    "Cluster.compare": NEVER,
    "Cluster.canary": NEVER,
    "Cluster.promote": NEVER,
    "Cluster.rollback": NEVER,
    "Cluster.history": NEVER,
    "Cluster.evidence": NEVER,
    "Cluster.diagnostics": NEVER,
    "Cluster.terminal": NEVER,
    "Cluster.up": SESSION,
    "Endpoint.smoke": NEVER,
    "Endpoint.bench": NEVER,
    "Endpoint.canary": NEVER,
    "Evidence.assert_passed": NEVER,
    "PromotionPlan.apply": NEVER,
}
"""How long the result of each function may stand; a new function must be added here on purpose."""

EVIDENCE_ARGUMENTS = {"source": "Directory", "profile": "Profile", "expected_answer": "str", "gateway_class": "str"}

FORM = {"reshard": "str", "compression": "Compression", "platforms": "list[str] | None"}

CANARY = {
    "steps": "list[int] | None",
    "hold_s": "float",
    "rate_per_s": "float",
    "max_slowdown_percent": "float",
    "output_tokens": "int",
}

PROMOTION = {
    "modelcar": "str",
    "from_report": "Directory | None",
    "signed_by": "File | None",
    "registry_logins": "Secret | None",
    "path": "Path",
    "profile": "Profile",
    "steps": "list[int] | None",
    "hold_s": "float",
    "usd_per_hour": "float | None",
    "expected_answer": "str",
    "blocks": "int",
    "requests_per_block": "int",
    "rate_per_s": "float",
    "prompt_tokens": "int",
    "output_tokens": "int",
    "in_place": "bool",
    "at_once": "bool",
    "stop_after": "bool",
}

SIGNATURES = {
    "Servepath.modelcar": ({"source": "Directory", **FORM}, "Modelcar"),
    "Servepath.modelcar_from_hub": ({"repo": "str", "revision": "str", "token": "Secret | None", **FORM}, "Modelcar"),
    "Servepath.cluster": ({"gateway_class": "str"}, "Cluster"),
    "Servepath.cluster_from": (
        {"kubeconfig": "Secret", "registry": "str", "gateway_url": "str", "gateway_class": "str"},
        "Cluster",
    ),
    "Servepath.evidence": (EVIDENCE_ARGUMENTS, "Evidence"),
    "Servepath.e2e": (EVIDENCE_ARGUMENTS, "Directory"),
    "Servepath.mirror": ({"only": "list[str] | None", "also": "list[str] | None"}, "Mirror"),
    "Servepath.mirror_from": ({"layout": "Directory"}, "Mirror"),
    "Mirror.publish": ({"address": "str", "username": "str", "password": "Secret | None"}, "list[str]"),
    "Cluster.deploy": ({"source": "Directory", "path": "Path", "profile": "Profile"}, "Endpoint"),
    "Cluster.canary": ({"to": "str", "profile": "Profile", **CANARY}, "Evidence"),
    "Cluster.promote": (PROMOTION, "PromotionPlan"),
    "Cluster.rollback": ({"to": "int", "registry_logins": "Secret | None", "in_place": "bool"}, "PromotionPlan"),
    "Cluster.history": ({}, "str"),
    "PromotionPlan.apply": ({}, "Evidence"),
    "Endpoint.canary": ({"source": "Directory", **CANARY}, "Evidence"),
    "Modelcar.publish": ({"address": "str", "username": "str", "password": "Secret | None"}, "str"),
}
"""The types that callers depend on."""

DEFAULTS = {
    "Servepath.cluster.gateway_class": '"agentgateway"',
    "Servepath.evidence.profile": '"CPU"',
    "Servepath.e2e.expected_answer": '"Paris"',
    "Cluster.deploy.path": '"KSERVE"',
    "Cluster.deploy.profile": '"CPU"',
    "Endpoint.bench.blocks": "8",
    "Endpoint.canary.hold_s": "60.0",
    "Endpoint.bench.rate_per_s": "0.5",
    "Endpoint.bench.output_tokens": "16",
}


def functions(module: Module) -> dict[str, Any]:
    """Every function of every object, as `Object.function`."""
    return {
        f"{name}.{function.original_name}": function
        for name, kind in module._objects.items()
        for function in kind.functions.values()
        if function.original_name
    }


def undocumented(module: Module) -> list[str]:
    """Everything a caller sees that says nothing about itself."""
    missing = [name for name, kind in module._objects.items() if not get_doc(kind.cls)]
    for name, kind in module._objects.items():
        hints = get_type_hints(kind.cls, include_extras=True)
        missing += [f"{name}.{field}" for field in kind.fields if not get_doc(hints[kind.fields[field].original_name])]
    for name, function in functions(module).items():
        missing += [] if function.doc else [name]
        missing += [f"{name}({argument})" for argument, found in function.parameters.items() if not found.doc]
    for name, choices in module._enums.items():
        documented = extract_enum_member_doc(choices)
        missing += [f"{name}.{member.name}" for member in choices if member.name not in documented]
    return missing


def type_name(hint: Any) -> str:
    """A type as a person writes it."""
    if get_origin(hint) is list:
        return f"list[{type_name(get_args(hint)[0])}]"
    if get_args(hint):
        (wanted,) = [argument for argument in get_args(hint) if argument is not type(None)]
        return f"{type_name(wanted)} | None"
    return str(hint.__name__)


def test_everything_is_documented(module: Module) -> None:
    assert undocumented(module) == []


def test_a_missing_doc_is_found() -> None:
    assert undocumented(sloppy.module) == [
        "Sloppy",
        "Sloppy.field",
        "Sloppy.work",
        "Sloppy.work(amount)",
        "Colour.RED",
    ]


def test_cache_policies(module: Module) -> None:
    assert {name: function.cache_policy for name, function in functions(module).items()} == POLICIES


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(module: Module, name: str) -> None:
    arguments, result = SIGNATURES[name]
    function = functions(module)[name]
    assert {key: type_name(value.resolved_type) for key, value in function.parameters.items()} == arguments
    assert type_name(function.return_type) == result


@pytest.mark.parametrize("name", DEFAULTS)
def test_default(module: Module, name: str) -> None:
    function, _, argument = name.rpartition(".")
    assert functions(module)[function].parameters[argument].default_value == DEFAULTS[name]


def test_every_function_that_runs_something_shows_an_example(module: Module) -> None:
    without = [name for name, function in functions(module).items() if "dagger call" not in function.doc]
    assert without == ["Servepath.check"]
    assert "dagger check" in functions(module)["Servepath.check"].doc


def test_the_library_is_the_module_s_own_and_nothing_else_of_it(module: Module) -> None:
    library = module._objects["Servepath"].get_constructor().parameters["library"]
    assert (library.default_path, library.ignore) == (".", EVERYTHING_BUT_THE_LIBRARY)
    assert library.ignore[0] == "**"


def test_checks_need_no_argument(module: Module) -> None:
    checks = {name: function for name, function in functions(module).items() if function.check}
    assert set(checks) == {"Servepath.check"}
    assert all(parameter.is_optional for check in checks.values() for parameter in check.parameters.values())


def test_e2e_has_a_twin_without_a_digit(module: Module) -> None:
    e2e, prove = functions(module)["Servepath.e2e"], functions(module)["Servepath.prove"]
    assert e2e.signature.parameters == prove.signature.parameters
    assert e2e.return_type is prove.return_type
    assert "prove" in e2e.doc


def test_no_secret_is_a_string(module: Module) -> None:
    suspicious = {"token", "password", "kubeconfig", "key", "secret"}
    for name, function in functions(module).items():
        for argument, parameter in function.parameters.items():
            if suspicious & set(argument.split("_")):
                assert "Secret" in type_name(parameter.resolved_type), f"{name}({argument})"


def test_choices_are_the_library_s() -> None:
    assert {choice.value for choice in Path} == {path.value for path in DeployPath}
    assert {choice.value for choice in Profile} == set(PROFILES)
    assert {choice.value for choice in Compression} == {one.value for one in compress.Compression}


def test_the_library_never_imports_dagger() -> None:
    script = (
        "import sys, pkgutil, importlib, servepath\n"
        "for found in pkgutil.walk_packages(servepath.__path__, 'servepath.'):\n"
        "    importlib.import_module(found.name)\n"
        "sys.exit('dagger' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_registration_is_valid_for_the_engine(session: Session) -> None:
    registered = session.node(session.register())
    assert session.engine.errors == []
    objects = [session.node(call["object"]) for call in registered.named("withObject")]
    names = {node.named("withObject")[0]["name"] for node in objects}
    assert names == {"Servepath", "Modelcar", "Cluster", "Endpoint", "Evidence", "Mirror", "PromotionPlan"}
    assert "One model, two serving paths" in registered.named("withDescription")[0]["description"]
