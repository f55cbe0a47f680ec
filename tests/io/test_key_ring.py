"""The key ring: what is a key, for whom, for how long; and that it shows none."""

from fakes.goose_frames import KEY, KEY_ADDRESSES, OTHER_KEY, key_ring, words_of
from fusioncharger.io.key_ring import KeyRing
from hypothesis import given
from hypothesis import strategies as st

KEY_WORDS = words_of(KEY)
ZEROS = (0,) * 24


def test_a_whole_key_is_masked_and_kept():
    ring = KeyRing(2)
    assert ring.absorb_write(1, 0x2D15, KEY_WORDS) == (ZEROS, (2,))
    assert ring.signing_key(1) is None
    assert ring.signing_key(2) == KEY
    assert ring.verifying_keys() == ((2, KEY, 1),)


def test_what_is_no_key_passes_as_it_is():
    assert KeyRing(1).absorb_write(1, 0x2006, (1, 2, 3)) == ((1, 2, 3), ())


def test_a_write_across_the_key_masks_only_the_key():
    ring = KeyRing(1)
    words = (7, *KEY_WORDS, 8)
    assert ring.absorb_write(1, 0x2114, words) == ((7, *ZEROS, 8), (1,))
    assert ring.signing_key(1) == KEY


def test_the_same_key_again_is_a_key_event():
    ring = key_ring(KEY)
    assert ring.absorb_write(1, 0x2115, KEY_WORDS) == (ZEROS, (1,))


def test_a_partial_write_changes_only_its_words():
    ring = key_ring(KEY)
    assert ring.absorb_write(1, 0x2116, (0xAAAA,)) == ((0,), (1,))
    assert ring.signing_key(1) == KEY[:2] + b"\xaa\xaa" + KEY[4:]


def test_a_new_connection_begins_with_zeros():
    ring = key_ring(KEY)
    ring.absorb_write(2, 0x2115, (0xAAAA,))
    assert ring.signing_key(1) == b"\xaa\xaa" + bytes(46)


def test_an_all_zero_key_is_no_key_and_leaves_the_former_one():
    ring = key_ring(KEY)
    assert ring.absorb_write(1, 0x2115, ZEROS) == (ZEROS, ())
    assert ring.signing_key(1) == KEY
    # What is written so far is zeros nevertheless.
    ring.absorb_write(1, 0x2115, (0xAAAA,))
    assert ring.signing_key(1) == b"\xaa\xaa" + bytes(46)


def test_retired_keys_sign_but_do_not_verify():
    ring = key_ring(KEY, OTHER_KEY)
    ring.retire(1)
    assert ring.verifying_keys() == ()
    assert ring.signing_key(2) == OTHER_KEY
    ring.absorb_write(2, 0x2115, KEY_WORDS)
    assert ring.verifying_keys() == ((1, KEY, 2),)


def test_forgotten_keys_are_gone():
    ring = key_ring(KEY, OTHER_KEY)
    ring.absorb_write(2, 0x2115, KEY_WORDS)
    ring.forget(1)
    assert ring.signing_key(1) == KEY
    assert ring.signing_key(2) is None


def test_a_late_write_of_a_former_connection_is_masked_and_ignored():
    ring = key_ring(KEY, connection=2)
    assert ring.absorb_write(1, 0x2115, words_of(OTHER_KEY)) == (ZEROS, ())
    ring.retire(2)
    assert ring.absorb_write(2, 0x2115, words_of(OTHER_KEY)) == (ZEROS, ())
    assert ring.signing_key(1) == KEY


def test_the_key_of_a_connector_that_is_not_there_is_masked():
    ring = KeyRing(1)
    for address in KEY_ADDRESSES[1:]:
        assert ring.absorb_write(1, address, KEY_WORDS) == (ZEROS, ())


def adu_0x10(address: int, words: tuple[int, ...]) -> bytes:
    values = b"".join(word.to_bytes(2, "big") for word in words)
    pdu = b"\x10" + address.to_bytes(2, "big") + len(words).to_bytes(2, "big") + bytes([len(values)]) + values
    return b"\0\x01\0\0" + (len(pdu) + 1).to_bytes(2, "big") + b"\xff" + pdu


@given(address=st.integers(0x2100, 0x3000), words=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=123))
def test_adu_and_words_are_masked_alike(address, words):
    ring = KeyRing(1)
    masked, _ = ring.absorb_write(1, address, tuple(words))
    assert ring.mask_adu(adu_0x10(address, tuple(words)), address, len(words)) == adu_0x10(address, masked)


def test_the_adu_of_a_single_write_is_masked():
    adu = bytes.fromhex("0001 0000 0006 ff 06 2115 abcd")
    assert KeyRing(1).mask_adu(adu, 0x2115, 1) == adu[:-2] + b"\0\0"
    assert KeyRing(1).mask_adu(adu, 0x2006, 1) == adu


def test_a_short_adu_keeps_its_length():
    adu = adu_0x10(0x2115, KEY_WORDS)
    for length in range(len(adu)):
        masked = KeyRing(1).mask_adu(adu[:length], 0x2115, 24)
        assert masked == adu[: min(length, 13)] + bytes(max(0, length - 13))


def test_nothing_shows_a_key():
    ring = key_ring(KEY)
    for text in (repr(ring), str(ring), repr(vars(ring))):
        assert KEY.hex() not in text
        assert repr(KEY)[2:10] not in text
