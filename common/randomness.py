"""Public seeds on one side, secret bytes on the other; the two never meet.

A *public* generator makes what every party must be able to make again: the frozen LoRA matrices, the initial head, a
partition of a simulation. A *secret* stream makes what nobody may be able to make again: which patients are drawn, and
the privacy noise. It is keyed by the operating system and expanded by ChaCha20.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from common.canonical import canonical_bytes

KEY_BYTES = 32
_NONCE_BYTES = 16


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
        The key is drawn from the operating system when the object is made, is never derived from a config, and is
        never logged or shown (`repr` hides it). One object is one keystream that never repeats: the stream position
        moves on with every call, and ChaCha20's 64-bit block counter allows 2^70 bytes.

    Source: ChaCha20, Bernstein 2008.
    """

    def __init__(self) -> None:
        key = secrets.token_bytes(KEY_BYTES)
        # An all-zero nonce is safe because the key is used for this one stream only.
        self._encryptor = Cipher(algorithms.ChaCha20(key, bytes(_NONCE_BYTES)), mode=None).encryptor()

    def __repr__(self) -> str:
        return "SecretSource(key hidden)"

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """`count` values (k + 1/2) / 2^52 with k uniform on 52 bits: never 0 or 1, so a logarithm is finite."""
        words = np.frombuffer(self._encryptor.update(bytes(8 * count)), dtype="<u8")
        return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
