import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from common.secagg.prg import mask

# RFC 8439, appendix A.1, test vectors 1, 2 and 4: key of zeros at blocks 0 and 1, and a key that begins with 00 ff.
ZERO_BLOCK_0 = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
)
ZERO_BLOCK_1 = bytes.fromhex(
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)
FF_BLOCK_2 = bytes.fromhex(
    "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
    "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096"
)


def test_masks_are_the_keystream_of_the_standard():
    assert mask(bytes(32), 32).tobytes() == ZERO_BLOCK_0 + ZERO_BLOCK_1
    assert mask(b"\x00\xff" + bytes(30), 48)[32:].tobytes() == FF_BLOCK_2


def test_words_are_little_endian():
    assert mask(bytes(32), 1).tolist() == [0xADE0B876]
    assert mask(bytes(32), 1).dtype == np.uint32


def quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for one, two, three, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[one] = (state[one] + state[two]) % 2**32
        mixed = state[three] ^ state[one]
        state[three] = (mixed << turn | mixed >> (32 - turn)) % 2**32


def plain_chacha(key: bytes, block: int) -> list[int]:
    """One block by RFC 8439, section 2.3, with nonce 0, in plain Python."""
    words = [int.from_bytes(key[place : place + 4], "little") for place in range(0, 32, 4)]
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *words, block, 0, 0, 0]
    state = list(start)
    for _ in range(10):
        for column in range(4):
            quarter_round(state, column, 4 + column, 8 + column, 12 + column)
        for column in range(4):
            quarter_round(state, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
    return [(old + new) % 2**32 for old, new in zip(start, state, strict=True)]


def test_masks_are_those_of_plain_chacha20():
    seed = bytes(range(32))
    words = [word for block in range(4) for word in plain_chacha(seed, block)]
    assert mask(seed, 50).tolist() == words[:50]


def test_a_shorter_mask_is_the_beginning_of_a_longer_one():
    seed = bytes(range(32))
    assert mask(seed, 100)[:7].tolist() == mask(seed, 7).tolist()
    assert mask(seed, 0).shape == (0,)


@pytest.mark.parametrize("place", [0, 3, 4, 16, 31])
def test_every_byte_of_the_seed_counts(place):
    seed = bytearray(32)
    seed[place] = 1
    assert (mask(bytes(seed), 64) != mask(bytes(32), 64)).sum() > 60


@pytest.mark.parametrize("seed", [b"", bytes(4), bytes(31), bytes(33)])
def test_seeds_have_32_bytes(seed):
    with pytest.raises(ValueError, match="32 bytes"):
        mask(seed, 1)


@pytest.mark.parametrize("count", [-1, 1 << 36])
def test_masks_end_where_the_block_counter_does(count):
    with pytest.raises(ValueError, match="2\\^36"):
        mask(bytes(32), count)


def test_the_block_counter_is_wide_enough():
    """`cryptography` counts blocks in the first bytes of its nonce: block 1 is where that counter is 1."""
    stream = Cipher(algorithms.ChaCha20(bytes(32), (1).to_bytes(8, "little") + bytes(8)), mode=None).encryptor()
    assert stream.update(bytes(64)) == ZERO_BLOCK_1
