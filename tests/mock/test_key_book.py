"""Which key a connector's frames may be signed with."""

from fusioncharger.mock.key_book import GRACE_NS, KeyBook

MAC = bytes.fromhex("020000000002")
OTHER_MAC = bytes.fromhex("020000000003")
A, B, C = (bytes((n,)) * 48 for n in (1, 2, 3))


def test_without_a_default_key_nothing_is_accepted_before_the_first_write() -> None:
    book = KeyBook(None)
    assert book.accepted(MAC, 5, 0) == ()
    assert book.newest(MAC, 5) is None
    book.written(MAC, 5, A)
    assert book.accepted(MAC, 5, 0) == (A,)
    assert book.accepted(MAC, 6, 0) == ()
    assert book.accepted(OTHER_MAC, 5, 0) == ()


def test_former_key_is_accepted_until_the_new_one_is_acknowledged() -> None:
    book = KeyBook(None)
    book.written(MAC, 5, A)
    book.acknowledged(MAC, 5, 10)
    book.written(MAC, 5, B)
    assert book.accepted(MAC, 5, 1 << 60) == (B, A)
    assert book.newest(MAC, 5) == B
    book.acknowledged(MAC, 5, 1000)
    assert book.accepted(MAC, 5, 1000 + GRACE_NS) == (B, A)
    assert book.accepted(MAC, 5, 1001 + GRACE_NS) == (B,)
    book.written(MAC, 5, C)
    assert book.accepted(MAC, 5, 1 << 60) == (C, B)


def test_default_key_is_in_use_until_another_is_written() -> None:
    book = KeyBook(A)
    assert book.accepted(MAC, 5, 0) == (A,)
    book.acknowledged(MAC, 5, 0)
    book.written(MAC, 5, B)
    assert book.accepted(MAC, 5, 0) == (B, A)
    book.forget()
    assert book.accepted(MAC, 5, 0) == (A,)
