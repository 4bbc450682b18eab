"""From a seed of 256 bits to a mask: the whole seed counts, and a seed is used for one mask only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

SEED_BYTES = 32
_NONCE_BYTES = 16


def mask(seed: bytes, count: int) -> npt.NDArray[np.uint32]:
    """Expand a seed to `count` numbers modulo 2^32, `[count]`.

    Guarantees:
        The ChaCha20 keystream under the whole seed as key, read as little-endian words: equal at every party, and
        indistinguishable from uniform numbers to whoever lacks the seed.

    Edge cases:
        The nonce is zero because a seed never keys a second stream: every seed is derived for one pair of sites (or one
        site), one round and one model (`common.secagg.masking`). `count` 0 gives an empty array.

    Args:
        seed: 32 bytes.
        count: d, below 2^36, where ChaCha20's block counter ends.

    Raises:
        ValueError: When the seed has another length, or so many numbers do not exist.

    Source: Bernstein 2008; RFC 8439, section 2.4.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a mask's seed has {SEED_BYTES} bytes, not {len(seed)}")
    if not 0 <= count < 1 << 36:
        raise ValueError(f"a mask has from 0 to 2^36 numbers, not {count}")
    stream = Cipher(algorithms.ChaCha20(seed, bytes(_NONCE_BYTES)), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(4 * count)), dtype="<u4").astype(np.uint32, copy=False)
