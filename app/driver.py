"""The composition root: what the live driver consists of, and in which order it starts and stops.

The main thread supervises: it waits for a signal, a recorder's report or a failure, and looks once a second
whether every thread lives and moves (supervision.py, behaviour.md §10).
"""

import gc
import logging
import math
import os
import selectors
import signal
import ssl
import sys
import threading
import time
import uuid
from pathlib import Path
from types import FrameType

from ..actors.system import build
from ..io.clock import Clock
from ..io.everest_bridge import EverestBridge
from ..io.goose_port import open_port
from ..io.goose_publisher import GoosePublisher
from ..io.goose_receiver import GooseAcceptance, GooseReceiver
from ..io.key_ring import KeyRing
from ..io.modbus_link import ModbusLink
from ..io.sd_notify import SystemdNotifier
from ..messages import outputs
from ..messages.config import Config
from ..replay.directory_lock import DirectoryLock
from ..replay.journal import Journal
from ..replay.last_errors import NOTHING, LastErrors
from .core_loop import CoreLoop
from .process_log import ProcessLog
from .supervision import LOOK_INTERVAL_S, Watched, log_where_threads_are

RECORDER_RETRY_S = 5.0
FIRST_TRANSMISSIONS = 5
"""How often a stop request is sent before the process ends (behaviour.md §10)."""
STOP_SENT_TIMEOUT_S = 0.5
CORE_STOP_TIMEOUT_S = 1.0
CORE_TIMEOUT_S = 2.0
"""The core has a 1 s timer: a longer silence means that it hangs."""
BROKER_TIMEOUT_S = 1.0
RECORDER_TIMEOUT_S = 10.0
END_TIMEOUT_S = 14.0
"""For all of `stop`: should something hang that has no limit of its own, the process ends all the same."""
SWITCH_INTERVAL_S = 0.0005
"""A GIL hand-over may otherwise take 5 ms (architecture.md §5)."""

EXIT_OK = 0
EXIT_FAILED = 1

log = logging.getLogger("fusioncharger.driver")


def _warn_of(config: Config) -> None:
    """Settings that are not for a dispenser with cars at it."""
    if config.ethernet_interface.startswith("udp:"):
        log.warning("GOOSE goes over UDP on 127.0.0.1: for development only")
    if not config.send_secure_goose:
        log.warning("GOOSE messages are sent unsigned (send_secure_goose = false)")
    if not config.verify_secure_goose:
        log.warning("GOOSE messages are accepted without verification (verify_secure_goose = false)")
        if config.goose_replay_protection == "enforce":
            log.warning("goose_replay_protection has no effect while verify_secure_goose is false")
    elif config.allow_insecure_goose:
        log.warning("allow_insecure_goose has no effect while verify_secure_goose is true")


class Driver:
    """One run of the driver. `start` once, `supervise` until it has to end, `stop` once."""

    def __init__(
        self,
        config: Config,
        process_log: ProcessLog,
        tls: ssl.SSLContext | None = None,
        lock: DirectoryLock | None = None,
    ) -> None:
        """`tls`: what the link to the PSU is encrypted with. `lock`: of the journal's directory. GoosePortError
        if the GOOSE interface cannot be used."""
        self._failure: str | None = None
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        self._signal: int | None = None
        self._recorder_retry_s = time.monotonic() + RECORDER_RETRY_S
        self._recorder_start: threading.Thread | None = None
        self._logged_journal_failure = ""
        self._look_due_s = time.monotonic()
        self._turned_s = math.inf
        """When the core last finished a turn, monotonic."""
        self._systemd = SystemdNotifier.of_environment(os.environ)

        clock = Clock()
        self._clock = clock
        self._process_log = process_log
        self._port = open_port(config.ethernet_interface)
        _warn_of(config)
        key_ring = KeyRing(len(config.connectors))
        self._key_ring = key_ring
        connector_nos = tuple(connector.global_connector_number for connector in config.connectors)
        self._journal = Journal(Path(config.journal.dir), uuid.uuid4().hex, config, lock=lock)
        self._publisher = GoosePublisher(
            self._port,
            key_ring,
            send_secure=config.send_secure_goose,
            vlan_id=config.goose_vlan_id,
            vlan_priority=config.goose_vlan_priority,
            on_failure=self.fatal,
        )
        self._core = CoreLoop(
            build(config),
            self._journal,
            clock,
            perform=self._perform,
            turned=self._turned,
            fatal=self.fatal,
        )
        acceptance = GooseAcceptance(
            self._port.mac,
            key_ring,
            connector_nos=connector_nos,
            verify_secure=config.verify_secure_goose,
            allow_insecure=config.allow_insecure_goose,
            replay_protection=config.goose_replay_protection,
        )
        self._receiver = GooseReceiver(self._port, acceptance, self._core.put)
        self._link = ModbusLink(
            host=config.psu_ip,
            port=config.psu_port,
            key_ring=key_ring,
            sink=self._core.put,
            tls=tls,
            tls_hostname=config.psu_cert_hostname,
        )
        self._bridge = EverestBridge(config, self._core.put)
        self._watched = (
            Watched("core", self._core.is_alive),  # that it moves, its turns say
            Watched("GOOSE publisher", self._publisher.is_alive, self._publisher.pulse, self._publisher.nudge),
            Watched("GOOSE receiver", self._receiver.is_alive, self._receiver.pulse, self._receiver.nudge),
            Watched("Modbus link", self._link.is_alive, self._link.pulse, self._link.nudge),
            Watched("MQTT client", self._bridge.is_alive, self._bridge.pulse),
            # It hangs when nobody reads standard error: that must not stop a charge.
            Watched("process log", process_log.is_alive),
        )

    def start(self, restored: LastErrors = NOTHING) -> None:
        """What the core's first Outputs need comes first; what makes Inputs comes after the core. `restored`
        is what the former process knew of the boards (behaviour.md §6)."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # What the program consists of stays. To look through all of it for garbage takes 20 ms, in which
        # nothing else runs: a retransmission, for one, would be that late.
        gc.freeze()
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
            signal.signal(signal.SIGHUP, self._on_signal)
        signal.set_wakeup_fd(self._wake)
        self._publisher.start()
        self._link.start()
        self._core.start(self._port.mac, restored.errors, restored.journal)
        self._publisher.core_turned()  # a disk may have taken its time until the core could begin
        self._receiver.start()
        self._bridge.start()

    def stop(self) -> int:
        """Stop all power, then everything else; the process's exit code. Does not return if the core
        is stuck: the process ends then and there, with the stop requests sent."""
        reason = self._failure or f"signal {signal.Signals(self._signal or signal.SIGTERM).name}"
        last_resort = threading.Timer(END_TIMEOUT_S, os._exit, (EXIT_FAILED,))
        last_resort.daemon = True
        last_resort.start()
        log.info("stopping: %s", reason)
        self._systemd.stopping(reason)
        if not self._core.stop(reason, CORE_STOP_TIMEOUT_S):
            log.error("the core did not stop the power: the GOOSE publisher does")
            self._publisher.stop_power()
        if not self._publisher.send_out(FIRST_TRANSMISSIONS, STOP_SENT_TIMEOUT_S):
            self.fatal(f"not every stop request could be sent {FIRST_TRANSMISSIONS} times")
        if self._core.is_alive():
            log.error("the core does not end: the process ends without it")
            log_where_threads_are()
            self._process_log.close()
            os._exit(EXIT_FAILED)
        has_port_to_itself = self._publisher.close() and self._receiver.close()
        self._link.close()
        self._bridge.close(BROKER_TIMEOUT_S)
        if has_port_to_itself:
            self._port.close()
        self._systemd.close()
        if not self._journal.close(RECORDER_TIMEOUT_S):
            why = self._journal.failure or f"the recorder has not finished in {RECORDER_TIMEOUT_S:g} s"
            log.warning("the journal is not complete: %s", why)
        last_resort.cancel()
        return EXIT_FAILED if self._failure else EXIT_OK

    def fatal(self, reason: str) -> None:
        """A part has failed; from any thread. The main thread ends the process."""
        if self._failure is None:
            self._failure = reason
            log.error("failure: %s", reason)
            os.write(self._wake, b"\0")

    def supervise(self) -> None:
        """Wait until a signal came or a part failed; meanwhile look after threads and recorder."""
        try:
            self._supervise()
        except Exception as error:
            log.exception("supervision has failed")
            self.fatal(f"supervision has failed: {type(error).__name__}: {error}")

    def _supervise(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(self._journal.report_fd, selectors.EVENT_READ)
            while self._signal is None and self._failure is None:
                for key, _ in selector.select(max(0.0, self._look_due_s - time.monotonic())):
                    if key.fd == self._woken:
                        os.read(self._woken, 4096)
                    else:
                        self._read_reports()
                if time.monotonic() >= self._look_due_s:
                    self._look()
                self._renew_recorder()

    def _look(self) -> None:
        """Whether every thread lives and moves."""
        silent_s = self._publisher.core_silent_s()
        if silent_s > CORE_TIMEOUT_S:
            self.fatal(f"the core has not finished a turn for {silent_s:.1f} s")
        for watched in self._watched:
            if complaint := watched.complaint():
                log_where_threads_are()
                self.fatal(complaint)
        self._systemd.supervised()
        self._look_due_s = time.monotonic() + LOOK_INTERVAL_S

    def _turned(self) -> None:
        """The core has finished a turn; in its thread.

        If the whole process stood still, it may be this thread that runs first afterwards: then nobody else has
        seen how long it was.
        """
        now_s = time.monotonic()
        silent_s, self._turned_s = now_s - self._turned_s, now_s
        if silent_s > CORE_TIMEOUT_S:
            self.fatal(f"the core has not finished a turn for {silent_s:.1f} s")
        self._publisher.core_turned()
        self._systemd.turned()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number

    def _read_reports(self) -> None:
        for report in self._journal.read_reports():
            match report.event:
                case "ready":
                    self._logged_journal_failure = ""
                    log.info("recording to %s", report.path)
                    self._switch_recorder()
                case "unavailable":
                    self._say_unavailable(report.reason)

    def _say_unavailable(self, reason: str) -> None:
        if reason and reason != self._logged_journal_failure:
            self._logged_journal_failure = reason
            log.error("the journal cannot be written, tried again and again: %s", reason)

    def _renew_recorder(self) -> None:
        """A recorder that failed is replaced, at most once in 5 s, until one can write; so is one whose segment
        is full or old, without anybody's noticing."""
        self._switch_recorder()
        now_ns = self._clock.now_ns()
        has_to_be = self._journal.failure is not None or (
            self._journal.is_due(now_ns) and not self._journal.is_prepared
        )
        is_starting = self._recorder_start is not None and self._recorder_start.is_alive()
        if has_to_be and not is_starting and time.monotonic() >= self._recorder_retry_s:
            self._recorder_retry_s = time.monotonic() + RECORDER_RETRY_S
            # A disk that is stuck may hold this up: it must keep nobody from stopping power.
            self._recorder_start = threading.Thread(
                target=self._start_recorder,
                args=(now_ns + self._core.utc_offset_ns,),
                name="recorder-start",
                daemon=True,
            )
            self._recorder_start.start()

    def _start_recorder(self, utc_ns: int) -> None:
        try:
            if not self._journal.prepare_replacement(utc_ns):
                self._say_unavailable(self._journal.failure or "")
        except Exception as error:
            log.exception("a recorder cannot be started")
            self.fatal(f"a recorder cannot be started: {type(error).__name__}: {error}")

    def _switch_recorder(self) -> None:
        if self._journal.is_ready:
            self._core.begin_segment()

    def _perform(self, output: outputs.AnyOutput) -> None:
        """Carry out an Output, in the core thread. Nothing here waits."""
        match output:
            case outputs.PowerRequested() | outputs.StopRequested():
                self._publisher.issue(output)
            case outputs.GooseSilenced(connector=connector):
                self._publisher.silence(connector)
            case outputs.HmacKeysRetired(connection=connection):
                self._key_ring.retire(connection)
            case outputs.HmacKeysForgotten(connection=connection):
                self._key_ring.forget(connection)
            case (
                outputs.ReadAnswered()
                | outputs.WriteAnswered()
                | outputs.ExceptionAnswered()
                | outputs.ReportSent()
                | outputs.PsuConnectRequested()
                | outputs.PsuDisconnectRequested()
            ):
                self._link.handle(output)
            case (
                outputs.ModePublished()
                | outputs.ErrorRaised()
                | outputs.ErrorCleared()
                | outputs.CommunicationChecked()
                | outputs.CapabilitiesPublished()
                | outputs.VoltageCurrentPublished()
                | outputs.ActiveErrorsRequested()
                | outputs.TelemetryPublished()
            ):
                self._bridge.handle(output)
            case outputs.LogWritten():
                self._process_log.write(output)
