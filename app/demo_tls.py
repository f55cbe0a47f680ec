"""TLS in the demo: a set of certificates as `fusioncharger certs` makes it, and a visitor that has none."""

import contextlib
import json
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

from ..io.certificates import make_set, write_set
from .demo_processes import CERTIFICATES
from .demo_stage import TIMEOUT_S, Stage, happened

_SETTINGS = {
    "psu_ca_cert": "psu_ca.crt.pem",
    "client_cert": "dispenser.crt.pem",
    "client_key": "dispenser.key.pem",
}


def make_certificates(output: Path) -> Path:
    """The new folder that holds them."""
    folder = output / CERTIFICATES
    write_set(folder, make_set(datetime.now(UTC)))
    return folder


def settings(folder: Path) -> str:
    """Lines of the driver's configuration."""
    # What JSON writes of a path is a TOML string too.
    lines = [f"{key} = {json.dumps(str(folder / name), ensure_ascii=False)}" for key, name in _SETTINGS.items()]
    return "\n".join(["tls_enabled = true", *lines, ""])


def refuse_visitor(stage: Stage, port: int) -> None:
    """The power unit takes no dispenser without a certificate."""
    stage.narrator.chapter(
        "TLS",
        "Dispenser and power unit present certificates, which each checks against the other's CA. They were "
        "made as `fusioncharger certs` makes them.",
    )
    stage.act("visitor", "connects without a certificate")
    _visit(port)
    stage.expect("the power unit refuses", happened("tls_refused"))


def expect_tls(stage: Stage) -> None:
    """The driver has one."""
    stage.expect(
        "TLS 1.3, with the dispenser's certificate",
        happened("tls_established", version="TLSv1.3", subject="FusionCharge dispenser"),
    )


def _visit(port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        contextlib.suppress(OSError),  # of which ssl's errors are
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection,
        context.wrap_socket(connection) as encrypted,
    ):
        encrypted.recv(1)  # with TLS 1.3 the refusal comes after the handshake
