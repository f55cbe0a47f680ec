"""Writes the picture as one HTML file that asks nothing of any network, and is allowed to ask nothing.

Its Content-Security-Policy lets just the scripts and styles run that are written here, by their hashes. What
comes from the log stands in elements that no browser executes, as JSON whose `<` are escaped, or as base64; the
scripts insert it as text only.
"""

import base64
import hashlib
import html
from importlib.resources import files

import msgspec

from ... import __version__
from ...messages.registers import RegisterMap
from ..log_format import TYPES
from ..moments import utc_text
from .drawing import Picture
from .turns import packed

SCRIPTS = (
    "base.js",
    "data.js",
    "axis.js",
    "lanes.js",
    "curves.js",
    "tables.js",
    "detail.js",
    "search.js",
    "gestures.js",
    "main.js",
)
"""In the order in which they build upon each other."""

_encoder = msgspec.json.Encoder()


def page(picture: Picture, title: str) -> str:
    """The file's text. The same log makes the same text."""
    styles = [_asset("uplot.min.css"), _asset("page.css")]
    library = f"/*\n{_asset('uplot.LICENSE.txt')}*/\n{_asset('uplot.min.js')}"
    scripts = [library, "'use strict';\n" + "\n".join(map(_asset, SCRIPTS))]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "base-uri 'none'; form-action 'none'"
    )
    blocks = "\n".join(
        f'<script type="text/plain" id="block-{number}">{block}</script>'
        for number, block in enumerate(picture.collector.table.blocks)
    )
    return _filled(
        _asset("page.html"),
        policy=policy,
        title=html.escape(title),
        styles="\n".join(f"<style>{style}</style>" for style in styles),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
        facts=_inert(_facts(picture, title)),
        timeline=packed(_timeline(picture)),
        blocks=blocks,
    )


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text("utf-8")


def _filled(template: str, **parts: str) -> str:
    """The template with each `{{name}}` replaced, in one pass: what is filled in is never looked at again."""
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _hashes(texts: list[str]) -> str:
    """What the policy lets run."""
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _inert(data: bytes) -> str:
    """JSON that ends no element and begins no comment."""
    return data.decode().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _facts(picture: Picture, title: str) -> bytes:
    collector = picture.collector
    begin_ns = collector.axis.begin_utc_ns or 0
    return _encoder.encode(
        {
            "title": title,
            "drawn_by": __version__,
            "recorded_by": picture.versions,
            "begin_utc": utc_text(begin_ns),
            "begin_us": str(begin_ns // 1000),
            "end_us": collector.axis.end_us,
            "connectors": picture.connector_nos,
            "turns": collector.turns,
            "overview": collector.is_overview,
            "replayed": picture.replayed,
            "differing": collector.differing,
            "notes": picture.notes,
            "bytes_fields": _bytes_fields(),
            "registers": {
                register.address: register.key for register in RegisterMap(len(picture.connector_nos)).registers
            },
        }
    )


def _bytes_fields() -> dict[str, list[str]]:
    """Which fields of which message are bytes, which JSON has as base64."""
    found = {
        name: [field.name for field in msgspec.structs.fields(kind) if field.type is bytes]
        for name, kind in TYPES.items()
    }
    return {name: fields for name, fields in found.items() if fields}


def _timeline(picture: Picture) -> bytes:
    table, timeline = picture.collector.table, picture.collector.timeline
    return _encoder.encode(
        {
            "lanes": timeline.lanes,
            "curves": timeline.curves,
            "markers": timeline.markers,
            "gaps": timeline.gaps,
            "at": table.at,
            "types": table.types,
            "inputs": table.inputs,
            "spans": table.spans,
        }
    )
