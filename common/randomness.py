"""Public seeds on one side, secret bytes on the other; the two never meet.

A *public* generator makes what every party must be able to make again: the frozen LoRA matrices, the initial head, a
partition of a simulation. A *secret* stream makes what nobody may be able to make again: which patients are drawn, and
the privacy noise. It is keyed by the operating system and expanded by ChaCha20.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from common.canonical import canonical_bytes

KEY_BYTES = 32
_NONCE_BYTES = 16
_BYTES_PER_KEY = 1 << 37


def public_generator(seed: int, *labels: str | int) -> np.random.Generator:
    """A generator that every party can make again from the public seed; different labels give unrelated streams."""
    key = hashlib.sha256(canonical_bytes(["cloister public seed", seed, *labels])).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "big")))


class RandomSource(Protocol):
    """Where sampling and noise get their randomness from."""

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """`count` independent values in the open interval (0, 1), shape `[count]`."""
        ...


class SecretSource:
    """Cryptographic randomness: a fresh operating-system key, expanded by ChaCha20.

    Guarantees:
        A key is drawn from the operating system, is never derived from a config, and is never logged, shown (`repr`
        hides it), copied or pickled. One key is one keystream that never repeats: the stream position moves on with
        every call, and a new key is drawn long before ChaCha20's 32-bit block counter (2^38 bytes) ends. After a fork
        the child draws a key of its own, or two processes would add the same noise.

    Source: ChaCha20, Bernstein 2008; block counter as in RFC 8439, section 2.3.
    """

    def __init__(self) -> None:
        self._new_key()

    def __repr__(self) -> str:
        return "SecretSource(key hidden)"

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """`count` values (k + 1/2) / 2^52 with k uniform on 52 bits: never 0 or 1, so a logarithm is finite."""
        words = np.frombuffer(self._keystream(8 * count), dtype="<u8")
        return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def _keystream(self, size: int) -> bytes:
        if self._bytes_left < size or self._process != os.getpid():
            self._new_key()
        self._bytes_left -= size
        return self._encryptor.update(bytes(size))

    def _new_key(self) -> None:
        # An all-zero nonce is safe because a key is used for this one stream only.
        cipher = Cipher(algorithms.ChaCha20(secrets.token_bytes(KEY_BYTES), bytes(_NONCE_BYTES)), mode=None)
        self._encryptor = cipher.encryptor()
        self._bytes_left = _BYTES_PER_KEY
        self._process = os.getpid()
