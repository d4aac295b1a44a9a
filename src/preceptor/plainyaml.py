"""YAML without its surprises: no aliases, no repeated keys, no octal or sexagesimal numbers, and 3e-4 is a number.

Reading and writing share their rules, so that what is written reads back equal.
"""

import re
from typing import Any

import yaml

_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_INTEGER = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_LEFT_AS_TEXT = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"}


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are not allowed in a recipe")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: repeated key {', '.join(twice)}")
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


# YAML 1.1 reads 010 as eight, 1:30 as ninety and 2024-01-01 as a date; here they stay text.
_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in rules if tag not in _LEFT_AS_TEXT]
    for start, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def parse(text: str) -> Any:
    """The value that a YAML text stands for. Raises ValueError with the line at fault."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise ValueError("the lists or mappings are nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(str(error)) from error


def render(value: Any) -> str:
    """YAML of dictionaries, lists, texts, numbers, truth values and None, in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
