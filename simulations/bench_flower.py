"""A round of Flower's SecAgg+ made of its own primitives: what `make bench` measures ours against, where flwr is there.

The steps and their order are those of `secaggplus_mod` and `SecAggPlusWorkflow` in flwr 1.41, without its messages:
keys and shares are made anew each round, and every mask comes from NumPy's Mersenne Twister. This is a fifth door to
Flower, of its own because nothing but the bench may use these primitives (DESIGN section 6 says why not).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

try:
    from flwr.common import bytes_to_ndarray, ndarray_to_bytes
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
    from flwr.common.secure_aggregation.ndarrays_arithmetic import (
        factor_combine,
        factor_extract,
        get_parameters_shape,
        parameters_addition,
        parameters_mod,
        parameters_multiply,
        parameters_subtraction,
    )
    from flwr.common.secure_aggregation.quantization import dequantize, quantize
    from flwr.common.secure_aggregation.secaggplus_utils import (
        pseudo_rand_gen,
        share_keys_plaintext_concat,
        share_keys_plaintext_separate,
    )
    from flwr.supercore.primitives.asymmetric import (
        bytes_to_private_key,
        bytes_to_public_key,
        generate_key_pairs,
        private_key_to_bytes,
        public_key_to_bytes,
    )
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "flwr":
        raise
    INSTALLED = False
else:
    INSTALLED = True

# SecAggPlusWorkflow's own defaults.
_CLIPPING_RANGE = 8.0
_TARGET_RANGE = 1 << 22
_MODULUS = 1 << 32

Arrays = list[npt.NDArray[Any]]
PublicKeys = tuple[bytes, bytes]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sharing:
    """Into how many shares a secret is cut, one a neighbour and one to keep, and how many give it back."""

    shares: int
    threshold: int


class FlowerSite:
    """One site in one round; each method is one answer to the coordinator.

    Args:
        number: Its node id.
        sharing: How it shares its secrets.
    """

    def __init__(self, number: int, sharing: Sharing) -> None:
        self.number = number
        self._sharing = sharing
        self._seed_shares: dict[int, bytes] = {}
        self._key_shares: dict[int, bytes] = {}
        self._channels: dict[int, bytes] = {}

    def keys(self) -> PublicKeys:
        """Stage `setup`: a key for the masks and one for the shares, both new."""
        (self._mask_key, mask_public), (channel_key, channel_public) = (
            tuple(map(_key_bytes, generate_key_pairs())) for _ in range(2)
        )
        self._channel_key = channel_key
        return mask_public, channel_public

    def deal(self, keys: Mapping[int, PublicKeys]) -> dict[int, bytes]:
        """Stage `share keys`: sealed shares of seed and mask key for each neighbour; `keys` has this site's too."""
        self._keys = keys
        self._seed = os.urandom(32)
        seed_shares = create_shares(self._seed, self._sharing.threshold, self._sharing.shares)
        key_shares = create_shares(self._mask_key, self._sharing.threshold, self._sharing.shares)
        sealed = {}
        for place, (peer, (_, channel_public)) in enumerate(keys.items()):
            if peer == self.number:
                self._seed_shares[peer], self._key_shares[peer] = seed_shares[place], key_shares[place]
            else:
                self._channels[peer] = _shared_key(self._channel_key, channel_public)
                plain = share_keys_plaintext_concat(self.number, peer, seed_shares[place], key_shares[place])
                sealed[peer] = encrypt(self._channels[peer], plain)
        return sealed

    def mask(self, sealed: Mapping[int, bytes], values: npt.NDArray[np.float32]) -> list[bytes]:
        """Stage `collect masked vectors`: open the neighbours' shares, quantise, add the masks; every weight is 1."""
        for peer, ciphertext in sealed.items():
            _, _, self._seed_shares[peer], self._key_shares[peer] = share_keys_plaintext_separate(
                decrypt(self._channels[peer], ciphertext)
            )
        weighted = parameters_multiply([values], 1.0)
        numbers: Arrays = factor_combine(_TARGET_RANGE, quantize(weighted, _CLIPPING_RANGE, _TARGET_RANGE))
        shapes = get_parameters_shape(numbers)
        numbers = parameters_addition(numbers, pseudo_rand_gen(self._seed, _MODULUS, shapes))
        for peer in sealed:
            mask = pseudo_rand_gen(_shared_key(self._mask_key, self._keys[peer][0]), _MODULUS, shapes)
            combine = parameters_addition if self.number > peer else parameters_subtraction
            numbers = combine(numbers, mask)
        return [ndarray_to_bytes(array) for array in parameters_mod(numbers, _MODULUS)]

    def reveal(self, present: set[int]) -> dict[int, bytes]:
        """Stage `unmask`: a share for each neighbour and itself, of the seed if it is present, else of the mask key."""
        owners = self._seed_shares.keys()
        return {owner: self._seed_shares[owner] if owner in present else self._key_shares[owner] for owner in owners}


class FlowerSum:
    """The coordinator's half of a round."""

    def __init__(self) -> None:
        self._total: Arrays | None = None
        self._added = 0

    def add(self, masked: list[bytes]) -> None:
        """Add one site's masked numbers up."""
        numbers = [bytes_to_ndarray(part) for part in masked]
        self._total = numbers if self._total is None else parameters_addition(self._total, numbers)
        self._added += 1

    def take_off_self_mask(self, shares: list[bytes]) -> None:
        """Take off the mask of a site that is in the sum, from shares of its seed."""
        mask = pseudo_rand_gen(combine_shares(shares), _MODULUS, get_parameters_shape(self._summed))
        self._total = parameters_subtraction(self._summed, mask)

    def take_off_pairwise_masks(self, owner: int, shares: list[bytes], neighbours: Mapping[int, PublicKeys]) -> None:
        """Take off what the neighbours of a missing site added for it, from shares of its mask key."""
        key = combine_shares(shares)
        for peer, (mask_public, _) in neighbours.items():
            mask = pseudo_rand_gen(_shared_key(key, mask_public), _MODULUS, get_parameters_shape(self._summed))
            combine = parameters_addition if owner > peer else parameters_subtraction
            self._total = combine(self._summed, mask)

    def mean(self) -> npt.NDArray[np.float64]:
        """The mean of what was added, once every mask is off."""
        factor, (numbers,) = factor_extract(parameters_mod(self._summed, _MODULUS))
        (values,) = dequantize([numbers], _CLIPPING_RANGE, _TARGET_RANGE)
        offset = (self._added - 1) * _CLIPPING_RANGE
        mean: npt.NDArray[np.float64] = (values - offset) * (_TARGET_RANGE / factor)
        return mean

    @property
    def _summed(self) -> Arrays:
        if self._total is None:
            raise ValueError("nothing was added yet")
        return self._total


@dataclass(frozen=True)
class FlowerTimes:
    """Seconds of Flower's primitives.

    Attributes:
        sites: n.
        site: One site, a round.
        add: Taking one site's numbers in.
        self_mask: Taking one site's own mask off.
        pairwise_masks: Taking the masks of one missing site off.
    """

    sites: int
    site: float
    add: float
    self_mask: float
    pairwise_masks: float

    def coordinator(self, missing: int) -> float:
        """What a round adds up to at the coordinator, which does the same for one site after the other."""
        return (self.sites - missing) * (self.add + self.self_mask) + missing * self.pairwise_masks


def measure_flower(sharing: Sharing, sites: int, dimension: int, turns: int = 3) -> FlowerTimes:
    """Medians of one site's round among its neighbours, and of the coordinator's part that is about this site."""
    samples = [_play(sharing, np.zeros(dimension, dtype=np.float32)) for _ in range(turns)]
    return FlowerTimes(sites, *(statistics.median(parts) for parts in zip(*samples, strict=True)))


def _play(sharing: Sharing, values: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Seconds of site 1, of adding its numbers, of its self mask, and of its pairwise masks were it missing.

    Its neighbours do only what it needs of them, untimed.
    """
    site = FlowerSite(1, sharing)
    peers = {number: FlowerSite(number, sharing) for number in range(2, sharing.shares + 1)}
    keys = {number: peer.keys() for number, peer in peers.items()}
    seconds, own_keys = _timed(site.keys)
    everybody = {1: own_keys, **keys}
    dealing, dealt = _timed(lambda: site.deal(everybody))
    sealed = {number: peer.deal(everybody)[1] for number, peer in peers.items()}
    masking, masked = _timed(lambda: site.mask(sealed, values))
    revealing, own = _timed(lambda: site.reveal({1}))
    for number, peer in peers.items():
        peer.mask({1: dealt[number]}, values[:1])
    seed_shares = [own[1], *(peer.reveal({1})[1] for peer in peers.values())]
    key_shares = [peer.reveal(set())[1] for peer in peers.values()]
    return seconds + dealing + masking + revealing, *_unmask(masked, seed_shares, key_shares, keys)


def _unmask(
    masked: list[bytes], seed_shares: list[bytes], key_shares: list[bytes], keys: Mapping[int, PublicKeys]
) -> tuple[float, float, float]:
    total = FlowerSum()
    total.add(masked)
    adding, _ = _timed(lambda: total.add(masked))
    one_mask, _ = _timed(lambda: total.take_off_self_mask(seed_shares))
    all_masks, _ = _timed(lambda: total.take_off_pairwise_masks(1, key_shares, keys))
    return adding, one_mask, all_masks


def _timed(call: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _key_bytes(key: Any) -> bytes:  # noqa: ANN401 - Flower's functions have no types here
    serialise = private_key_to_bytes if hasattr(key, "private_bytes") else public_key_to_bytes
    serialised: bytes = serialise(key)
    return serialised


def _shared_key(own: bytes, public: bytes) -> bytes:
    key: bytes = generate_shared_key(bytes_to_private_key(own), bytes_to_public_key(public))
    return key
