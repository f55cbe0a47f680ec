"""A new file appears whole under its name, replaces none, and leaves nothing behind."""

import errno
import os
from pathlib import Path

import pytest
from fusioncharger.replay.whole_file import whole_file

WITHOUT_LINKS = {
    "as ext4": None,
    "as FAT": errno.EPERM,
    "as CIFS": errno.EOPNOTSUPP,
    "as a FUSE file system": errno.ENOSYS,
}


@pytest.fixture(params=WITHOUT_LINKS.values(), ids=WITHOUT_LINKS.keys())
def output(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to be made, on a file system with hard links, or without."""
    reason: int | None = request.param

    def no_link(_part: Path, _output: Path) -> None:
        assert reason is not None
        raise OSError(reason, os.strerror(reason))

    if reason is not None:
        monkeypatch.setattr(os, "link", no_link)
    return tmp_path / "out.mcap"


def test_it_has_its_name_once_it_is_whole(output: Path) -> None:
    with whole_file(output) as path:
        path.write_bytes(b"all of it")
        assert not output.exists()
    assert output.read_bytes() == b"all of it"
    assert list(output.parent.iterdir()) == [output]


def test_what_is_there_already_stays(output: Path) -> None:
    def overtaken() -> None:
        with whole_file(output) as path:
            path.write_bytes(b"mine")
            output.write_bytes(b"made meanwhile")

    with pytest.raises(FileExistsError) as raised:
        overtaken()
    assert raised.value.filename == str(output)
    with pytest.raises(FileExistsError), whole_file(output):
        pytest.fail("this must not be reached")
    assert output.read_bytes() == b"made meanwhile"
    assert list(output.parent.iterdir()) == [output]


def test_what_is_left_from_before_is_named_and_stays(output: Path) -> None:
    left = output.with_name("out.mcap.part")
    left.write_bytes(b"of one that was killed, or goes on")
    with pytest.raises(FileExistsError) as raised, whole_file(output):
        pytest.fail("this must not be reached")
    assert raised.value.filename == str(left)
    assert left.read_bytes() == b"of one that was killed, or goes on"


def interrupted(output: Path) -> None:
    with whole_file(output) as path:
        path.write_bytes(b"half of")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        interrupted(tmp_path / "out.mcap")
    assert not list(tmp_path.iterdir())


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    output = tmp_path / "nowhere" / "out.mcap"
    with pytest.raises(FileNotFoundError) as raised, whole_file(output) as path:
        path.write_bytes(b"")
    assert raised.value.filename == str(output)
