"""The module, imported as the Dagger runtime imports it, and an engine-free session for it to talk to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Read by the SDK when it is imported, as the runtime's container sets them.
os.environ.setdefault("DAGGER_MODULE", "servepath")
os.environ.setdefault("DAGGER_MAIN_OBJECT", "Servepath")

import graphql
import pytest
from anyio.from_thread import start_blocking_portal
from dagger.client._session import ConnectParams, SharedConnection

import main
from tests.contract.fake_engine import TOKEN, FakeEngine, Node, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.from_thread import BlockingPortal
    from dagger.mod._module import Module

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Path("shared/data/dagger-v0.21.8.graphqls")


@pytest.fixture(scope="session")
def module() -> Module:
    """The module, as registration and invocation see it."""
    found: Module = main.Servepath.__dagger_module__  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="session")
def schema() -> graphql.GraphQLSchema:
    """Dagger's core schema: `dagger query` of an engine of the same version prints it by introspection."""
    places = [Path(os.environ.get("SERVEPATH_DAGGER_SCHEMA", "")), ROOT.parent / SCHEMA]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        pytest.skip(f"Dagger's schema is neither in $SERVEPATH_DAGGER_SCHEMA nor at ../{SCHEMA}")
    return graphql.build_schema(path.read_text())


class Session:
    """Calls functions as the engine does: by name, with JSON values and the state of the object that has them."""

    def __init__(self, module: Module, engine: FakeEngine, portal: BlockingPortal) -> None:
        self.engine = engine
        self._module = module
        self._portal = portal

    def new(self, type_name: str, label: str) -> str:
        """The ID of an object that a caller passes in."""
        return self.engine.new(type_name, label)

    def node(self, identity: str) -> Node:
        """The pipeline behind an ID."""
        return self.engine.node(identity)

    def invoke(self, parent: str, function: str, inputs: dict[str, Any], state: dict[str, Any] | None = None) -> Any:
        """Call a function, and give its result as the engine gets it; the module's own directories are its default."""
        own = {"library": self.new("Directory", "library")} if parent == "Servepath" else {}
        try:
            return self._portal.call(self._module.get_result, parent, own | (state or {}), function, inputs)
        finally:
            assert self.engine.errors == []

    def register(self) -> str:
        """Register the module's types, and give the ID of what was registered."""
        return str(self._portal.call(self._module._typedefs))


@pytest.fixture(scope="session")
def connected(module: Module, schema: graphql.GraphQLSchema) -> Iterator[Session]:
    """One connection of the SDK to one recording engine: building a client from the schema takes a second."""
    engine = FakeEngine(schema)
    with serve(engine) as port, start_blocking_portal() as portal:
        connection = SharedConnection().with_params(ConnectParams(port=port, session_token=TOKEN))
        with portal.wrap_async_context_manager(connection):
            yield Session(module, engine, portal)


@pytest.fixture
def session(connected: Session) -> Session:
    """A session of the module with an engine that has recorded nothing yet."""
    connected.engine.reset()
    return connected
