"""What a flow does with loaded items: the types its map gives to columns, and who reads the whole input."""

from __future__ import annotations

import inspect
import typing
from typing import Any, Final

import msgspec

from pgflow_mp.errors import PgflowError
from pgflow_mp.flows.binding import Argument, Source
from pgflow_mp.flows.checks import reader
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.steps import StepDefinition
from pgflow_mp.values.columns import record_of
from pgflow_mp.values.rows import FieldType, RowTypes

_INPUT_OF_CONTEXT: Final = {"flow_input", "task"}
_KINDS: Final = {
    "IntType": ["int"],
    "FloatType": ["float"],
    "BoolType": ["bool"],
    "NoneType": ["null"],
    "DictType": ["json"],
    "TypedDictType": ["json"],
    "StructType": ["json"],
    "DataclassType": ["json"],
    "ListType": ["json"],
    "SetType": ["json"],
    "FrozenSetType": ["json"],
    "TupleType": ["json"],
    "VarTupleType": ["json"],
    "NamedTupleType": ["json"],
}


def root_maps(flow: Flow) -> list[StepDefinition]:
    """Maps over the run's input."""
    return [step for step in flow.steps.values() if step.step_type == "map" and not step.dependencies]


def reads_whole_input(flow: Flow) -> bool:
    """Whether anything but the elements of root maps is made of the run's input: a step, or a condition."""
    for step in flow.steps.values():
        if not step.dependencies:
            takes = any(argument.source in (Source.INPUT, Source.MEMBERS) for argument in step.arguments)
            if step.when is not None or step.unless is not None or (takes and step.step_type != "map"):
                return True
        if reads_beside(step):
            return True
    return False


def reads_beside(step: StepDefinition) -> bool:
    """Whether the step's function reads the run's input beside its own: by parameter, or from its context."""
    for argument in step.arguments:
        if argument.source is Source.FLOW_INPUT:
            return True
        if argument.source is Source.CONTEXT:
            code = getattr(inspect.unwrap(step.handler), "__code__", None)
            if code is not None and _INPUT_OF_CONTEXT.intersection(code.co_names):
                return True
    return False


def input_names(flow: Flow) -> set[str] | None:
    """The members of the run's input that anything but the elements of root maps can be made of.

    None: any, as where somebody takes an object of any names, or asks the context.
    """
    names: set[str] = set()
    for step in flow.steps.values():
        if not step.dependencies and (step.when is not None or step.unless is not None):
            return None
        for argument in step.arguments:
            if argument.source is Source.CONTEXT:
                return None
            is_own = argument.source in (Source.INPUT, Source.MEMBERS) and not step.dependencies
            if argument.source is Source.FLOW_INPUT or (is_own and step.step_type != "map"):
                found = None if step.batch else _row_type(step, argument)
                if found is None or not found.fields:
                    return None
                names |= found.fields.keys()
    return names


def row_type(flow: Flow) -> RowTypes | None:
    """What the flow's first root map says about the fields of a row; None if it says nothing."""
    for step in root_maps(flow):
        for argument in step.arguments:
            if argument.source in (Source.INPUT, Source.MEMBERS):
                return _row_type(step, argument)
    return None


def _row_type(step: StepDefinition, argument: Argument) -> RowTypes | None:
    try:
        wanted = reader(step.handler, argument, step.facts)[0]
        if step.batch:
            (wanted, *_) = (record,) if (record := record_of(wanted)) else typing.get_args(wanted) or (Any,)
        return _fields(msgspec.inspect.type_info(wanted), wanted)
    except (PgflowError, TypeError, NameError, AttributeError):
        return None


def _fields(info: Any, wanted: Any) -> RowTypes | None:
    fields = getattr(info, "fields", None)
    if fields is not None:
        return RowTypes(
            {
                field.encode_name: FieldType(_kinds(field.type), _words(field.type), field.required)
                for field in fields
            }
        )
    if isinstance(info, msgspec.inspect.UnionType):
        found = [_fields(each, wanted) for each in info.types]
        return next((each for each in found if each is not None), None)
    if isinstance(info, msgspec.inspect.DictType):
        return RowTypes(others=FieldType(_kinds(info.value_type), _words(info.value_type)))
    if isinstance(info, msgspec.inspect.CustomType) and isinstance(
        known := getattr(info.cls, "model_fields", None), dict
    ):
        return _of_model(known)
    return None


def _of_model(known: dict[str, Any]) -> RowTypes | None:
    """pydantic's models, which are asked for their fields' annotations."""
    found = {}
    for name, field in known.items():
        info = msgspec.inspect.type_info(field.annotation)
        required = bool(field.is_required())
        found[str(field.alias or name)] = FieldType(_kinds(info), _words(info), required)
    return RowTypes(found)


def _kinds(info: Any) -> list[str]:
    if isinstance(info, msgspec.inspect.Metadata):
        return _kinds(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        return [*dict.fromkeys(kind for each in info.types for kind in _kinds(each))]
    if isinstance(info, msgspec.inspect.LiteralType):
        return [*dict.fromkeys(_kind_of(value) for value in info.values)]
    if isinstance(info, msgspec.inspect.EnumType):
        return [*dict.fromkeys(_kind_of(member.value) for member in info.cls)]
    return _KINDS.get(type(info).__name__, ["str"])


def _kind_of(value: Any) -> str:
    return {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value), "str")


def _words(info: Any) -> str:
    words = {"null": "nothing", "json": "JSON", "bool": "true or false"}
    return " or ".join(words.get(kind, kind) for kind in _kinds(info))
