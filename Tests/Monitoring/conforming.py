"""Whether decoded objects of grafana-foundation-sdk are what their classes say: its decoder takes anything."""

import enum
import types
import typing


def complaints(value, path="dashboard"):
    """What in an object, and in all that it holds, is not of the type that its class declares."""
    if isinstance(value, list):
        return [text for number, each in enumerate(value) for text in complaints(each, f"{path}[{number}]")]
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in complaints(each, f"{path}.{key}")]
    if isinstance(value, enum.Enum) or not hasattr(value, "to_json"):
        return []
    found = []
    for name, kind in hints(type(value)).items():
        each = getattr(value, name, None)
        if each is not None and not is_a(each, kind):
            found.append(f"{path}.{name}: {each!r} is not {kind}")
        found += complaints(each, f"{path}.{name}")
    return found


def hints(kind):
    return {name: hint for each in kind.__mro__ for name, hint in own_hints(each).items()}


def own_hints(kind):
    if not kind.__module__.startswith("grafana_foundation_sdk.models"):
        return {}
    return typing.get_type_hints(kind)


def is_a(value, kind):
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (typing.Any, object):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(is_a(value, each) for each in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(is_a(each, arguments[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(is_a(each, arguments[1]) for each in value.values())
    if kind is type(None):
        return value is None
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value in [each.value for each in kind]
    if isinstance(value, dict) and hasattr(kind, "from_json"):
        # Some parts of what holds them are left as they are.
        return not complaints(kind.from_json(value))
    return isinstance(value, kind)
