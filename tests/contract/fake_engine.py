"""A stand-in for a Dagger engine: Dagger's own GraphQL schema on loopback, which records the pipelines it is sent.

Every query is validated against the schema and executed by graphql-core. An object answers with the chain of calls
that made it, and its ID stands for that chain, so a test sees the whole pipeline of an object that came back through
an argument or a function's state. Nothing is run: leaf values come from `answers`.
"""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import graphql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "not-a-secret"
SCALARS: dict[str, Any] = {"Int": 0, "Float": 0.0, "Boolean": False, "JSON": "null", "Platform": "linux/amd64"}


@dataclass(frozen=True)
class Call:
    """One field of a pipeline with the arguments that are not its defaults, as in `from(address: …)`."""

    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}: {json.dumps(value)}" for name, value in self.arguments.items())
        return f"{self.name}({arguments})" if arguments else self.name


@dataclass(frozen=True)
class Node:
    """An object of the API: its type and the calls that made it."""

    type_name: str
    calls: tuple[Call, ...] = ()

    def __str__(self) -> str:
        return ".".join(map(str, self.calls)) or self.type_name

    def named(self, name: str) -> list[Mapping[str, Any]]:
        """The arguments of every call of one name, in order."""
        return [call.arguments for call in self.calls if call.name == name]


@dataclass
class FakeEngine:
    """The state of one session.

    Attributes:
        schema: Dagger's schema.
        answers: leaf values by `Type.field`; anything else answers by its type.
        leaves: every leaf that was asked for: the object, and the field with its arguments.
        errors: what the schema, or `@expectedType`, had against a query.
    """

    schema: graphql.GraphQLSchema
    answers: dict[str, Any] = field(default_factory=dict)
    leaves: list[tuple[Node, Call]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _nodes: dict[str, Node] = field(default_factory=dict)
    _identities: dict[str, str] = field(default_factory=dict)

    def reset(self) -> None:
        """Forget everything but the schema."""
        for state in (self.answers, self.leaves, self.errors, self._nodes, self._identities):
            state.clear()

    def identify(self, node: Node) -> str:
        """The ID of an object; equal pipelines have equal IDs, as in a real engine."""
        pipeline = f"{node.type_name} {node}"
        if pipeline not in self._identities:
            self._identities[pipeline] = f"{node.type_name}#{len(self._nodes)}"
            self._nodes[self._identities[pipeline]] = node
        return self._identities[pipeline]

    def new(self, type_name: str, label: str) -> str:
        """The ID of an object that a caller passes in, such as a directory of the user."""
        return self.identify(Node(type_name, (Call(label, {}),)))

    def node(self, identity: str) -> Node:
        """The object of an ID."""
        return self._nodes[identity]

    def asked(self, name: str) -> list[Node]:
        """The objects of which the leaf `name` was asked."""
        return [node for node, call in self.leaves if call.name == name]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Validate and execute one query."""
        query = request["query"]
        document = graphql.parse(query)
        if problems := graphql.validate(self.schema, document):
            self.errors.extend(problem.message for problem in problems)
            return {"errors": [problem.formatted for problem in problems]}
        result = graphql.execute_sync(
            self.schema,
            document,
            Node("Query"),
            variable_values=request.get("variables"),
            field_resolver=self._resolve,
            type_resolver=lambda value, _info, _type: value.type_name,
        )
        self.errors.extend(error.message for error in result.errors or ())
        return dict(result.formatted)

    def _resolve(self, parent: Node, info: graphql.GraphQLResolveInfo, **arguments: Any) -> Any:
        self._check_expected_types(info, arguments)
        defined = info.parent_type.fields[info.field_name].args
        given = {name: value for name, value in arguments.items() if value != defined[name].default_value}
        call = Call(info.field_name, given)
        if call.name == "node":
            return self._by_id(info, arguments["id"])
        named = graphql.get_named_type(info.return_type)
        nullable: Any = graphql.get_nullable_type(info.return_type)  # type: ignore[arg-type]
        if graphql.is_composite_type(named) and not graphql.is_list_type(nullable):
            return Node(named.name, (*parent.calls, call))
        if call.name == "id":
            return self.identify(parent)
        self.leaves.append((parent, call))
        return self._leaf(parent, call, nullable)

    def _by_id(self, info: graphql.GraphQLResolveInfo, identity: str) -> Node:
        node = self._nodes[identity]
        for selection in _selections(info):
            if (
                isinstance(selection, graphql.InlineFragmentNode)
                and selection.type_condition.name.value != node.type_name
            ):
                self.errors.append(f"node(id:) wants {selection.type_condition.name.value}, got {identity}")
        return node

    def _leaf(self, parent: Node, call: Call, return_type: Any) -> Any:
        answer = self.answers.get(f"{parent.type_name}.{call.name}")
        if answer is not None:
            return answer(parent, call) if callable(answer) else answer
        if graphql.is_list_type(return_type):
            return []
        if return_type.name == "ID":
            return self.identify(parent)
        return SCALARS.get(return_type.name, "" if return_type.name == "String" else None)

    def _check_expected_types(self, info: graphql.GraphQLResolveInfo, arguments: Mapping[str, Any]) -> None:
        definition = info.parent_type.fields[info.field_name]
        for name, value in arguments.items():
            expected = _expected_type(definition.args[name])
            for identity in value if isinstance(value, list) else [value]:
                if expected and self._nodes[identity].type_name != expected:
                    self.errors.append(f"{info.field_name}({name}:) wants {expected}, got {identity}")


def _selections(info: graphql.GraphQLResolveInfo) -> tuple[graphql.SelectionNode, ...]:
    chosen = info.field_nodes[0].selection_set
    return tuple(chosen.selections) if chosen else ()


def _expected_type(argument: graphql.GraphQLArgument) -> str:
    node = argument.ast_node
    if node is None:
        return ""
    for directive in node.directives or ():
        for argument_node in directive.arguments or ():
            if directive.name.value == "expectedType":
                return str(graphql.value_from_ast_untyped(argument_node.value))
    return ""


@contextmanager
def serve(engine: FakeEngine) -> Iterator[int]:
    """Serve the engine on a free loopback port, for as long as the context lasts."""
    expected = "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            allowed = self.path == "/query" and self.headers["Authorization"] == expected
            content = json.dumps(engine.answer(json.loads(body)) if allowed else {"errors": [{"message": "refused"}]})
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
