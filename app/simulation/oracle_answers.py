"""The answers to the power unit's requests (protocol.md §2)."""

from collections.abc import Sequence

from ...messages.inputs import ModbusRequestRefused, RegistersRead, RegistersWritten
from ...messages.outputs import ExceptionAnswered, ReadAnswered, WriteAnswered
from .oracle import fail

Request = RegistersRead | RegistersWritten | ModbusRequestRefused
Answer = ReadAnswered | WriteAnswered | ExceptionAnswered
ILLEGAL_ADDRESS = 2
INTERNAL_FAILURE = 4


def check_answers(request: Request, answers: Sequence[Answer], *, is_failed: bool) -> None:
    """One answer, of the kind that is due, with what belongs to the request. (Its words: oracle_reports.py)"""
    if len(answers) != 1:
        fail("answers", f"{len(answers)} answers to {request}")
    answer = answers[0]
    asked = (request.connection, request.transaction_id, request.unit_id)
    if (answer.connection, answer.transaction_id, answer.unit_id) != asked or not _fits(
        request, answer, is_failed=is_failed
    ):
        fail("answers", f"{answer} to {request}")


def _fits(request: Request, answer: Answer, *, is_failed: bool) -> bool:
    function = 0x03 if isinstance(request, RegistersRead) else request.function
    code = _exception(request, is_failed=is_failed)
    if code:
        due = (function, code)
        return isinstance(answer, ExceptionAnswered) and (answer.function, answer.exception_code) == due
    if isinstance(request, RegistersWritten):
        value = request.words[0] if function == 0x06 else len(request.words)
        written = (function, request.address, value)
        return isinstance(answer, WriteAnswered) and (answer.function, answer.address, answer.value) == written
    return isinstance(answer, ReadAnswered)


def _exception(request: Request, *, is_failed: bool) -> int:
    """The exception code that is due; 0: none."""
    if is_failed:
        return INTERNAL_FAILURE
    if isinstance(request, ModbusRequestRefused):
        return request.exception_code
    count = request.count if isinstance(request, RegistersRead) else len(request.words)
    return ILLEGAL_ADDRESS if request.address + count > 0x10000 else 0
