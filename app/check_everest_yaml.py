"""EVerest's configuration file (YAML) as values; for `fusioncharger check --everest`.

Scalars stay the text that stands in the file: what they are depends on the setting that takes them. YAML 1.1
reads `on` as a boolean, 0012 as ten and 1.10 as 1.1; a serial number or a version must not suffer that.
"""

import yaml
from msgspec import Struct

_MAX_VALUES = 50_000
"""With aliases expanded: ten lines of them can stand for a billion values."""
_MAX_DEPTH = 40
_STR_TAG = "tag:yaml.org,2002:str"
_MERGE_TAG = "tag:yaml.org,2002:merge"


class EverestFileError(Exception):
    """The file cannot be read as YAML. The text is for the user."""


class Scalar(Struct, frozen=True):
    """A single value, as it is written."""

    text: str
    line: int
    is_plain: bool
    """Without quotes."""
    is_text: bool
    """To YAML 1.1; not so a plain `1`, `on` or `~`."""


class Mapping(Struct, frozen=True):
    """Keys and values, in the file's order."""

    line: int
    entries: dict[str, "Value"]
    odd_keys: dict[str, int]
    """Keys that are no text to YAML (1, on), and their lines."""

    def mapping(self, key: str) -> "Mapping":
        """The mapping under a key; an empty one if there is none."""
        found = self.entries.get(key)
        return found if isinstance(found, Mapping) else Mapping(self.line, {}, {})

    def text(self, key: str) -> str:
        """The scalar under a key as text; "" if there is none."""
        found = self.entries.get(key)
        return found.text if isinstance(found, Scalar) else ""


Value = Scalar | Mapping | list["Value"]


def read_everest(text: str) -> Mapping:
    """The YAML text as values. EverestFileError, with the line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = ": ".join(part for part in (error.context, error.problem) if part)
        msg = f"{where}not valid YAML: {said}"
        raise EverestFileError(msg) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        msg = f"line {line}: not valid YAML: the character U+{error.character:04X} is not allowed"
        raise EverestFileError(msg) from None
    except yaml.YAMLError as error:
        msg = f"not valid YAML: {error}"
        raise EverestFileError(msg) from None
    except RecursionError:
        msg = "not valid YAML: nested too deep"
        raise EverestFileError(msg) from None
    if not isinstance(root, yaml.MappingNode):
        msg = "has no active_modules: is it a configuration of EVerest?"
        raise EverestFileError(msg)
    converted = _Converter().convert(root)
    assert isinstance(converted, Mapping)  # noqa: S101 - as the node is
    return converted


class _Converter:
    """YAML's nodes as values; aliases are expanded, within limits."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[yaml.Node] = []

    def convert(self, node: yaml.Node) -> Value:
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > _MAX_VALUES:
            msg = f"line {line}: more than {_MAX_VALUES} values, aliases (*) counted as what they stand for"
            raise EverestFileError(msg)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if any(node is above for above in self._open):
            msg = f"line {line}: contains itself, by an alias (*)"
            raise EverestFileError(msg)
        if len(self._open) >= _MAX_DEPTH:
            msg = f"line {line}: nested deeper than {_MAX_DEPTH}"
            raise EverestFileError(msg)
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.convert(item) for item in node.value]
            return self._mapping(node)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.Node) -> Mapping:
        entries: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        odd_keys: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                msg = f"line {line}: a key has to be text"
                raise EverestFileError(msg)
            name = _scalar(key).text
            if key.tag == _MERGE_TAG:
                # One by one, as copying what there is at each << would take quadratic time.
                for source in _merge_sources(self.convert(value), line):
                    for inherited, entry in source.entries.items():
                        merged.setdefault(inherited, entry)
                continue
            if name in entries:
                msg = f"line {line}: the key {name!r} is there twice"
                raise EverestFileError(msg)
            if key.tag != _STR_TAG:
                odd_keys[name] = line
            entries[name] = self.convert(value)
        return Mapping(node.start_mark.line + 1, merged | entries, odd_keys)


def _merge_sources(value: Value, line: int) -> list[Mapping]:
    sources = value if isinstance(value, list) else [value]
    mappings = [source for source in sources if isinstance(source, Mapping)]
    if len(mappings) != len(sources):
        msg = f"line {line}: << takes a mapping, or a list of them"
        raise EverestFileError(msg)
    return mappings


def _scalar(node: yaml.ScalarNode) -> Scalar:
    line = node.start_mark.line + 1
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        msg = f"line {line}: half of a surrogate pair is no character"
        raise EverestFileError(msg)
    is_plain = node.style is None
    return Scalar(node.value, line, is_plain, is_text=node.tag == _STR_TAG)
