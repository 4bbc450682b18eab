"""A small signed file that says how far a chain goes, so that a shorter or older copy of the chain shows.

    canonical JSON of {"hash": H, "number": N, "signature": S}, where S signs N and H

It belongs into another folder than the log, best on another disk: who can put an older copy of both back is not seen.
"""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.canonical import canonical_bytes
from common.chain import TAMPERED, ChainLine, Head, is_line_signed_by
from common.errors import IntegrityError, RollbackError
from common.files import write_durably
from common.identity import is_signed_by, sign

_LIMIT_BYTES = 1024
_PRIVATE_MODE = 0o600


class Anchor:
    """Where a chain stands, as its owner last signed it.

    Args:
        path: The file; its folder must exist.
        public: The owner's public key.
        purpose: What the chain is for.
    """

    def __init__(self, path: Path, public: str, purpose: str) -> None:
        self.path = path
        self._public = public
        self._purpose = purpose

    def read(self) -> Head:
        """The head that the owner signed last.

        Raises:
            IntegrityError: When the file is missing, damaged, or signed by somebody else.
        """
        try:
            with self.path.open("rb") as stream:
                data = stream.read(_LIMIT_BYTES + 1)
        except FileNotFoundError:
            raise self._unfit("is missing") from None
        head = self._signed_head(data)
        if head is None:
            raise self._unfit("is damaged, or signed by another identity")
        return head

    def write(self, identity: Ed25519PrivateKey, head: Head) -> None:
        """Put a new head in the place of the old one, durably."""
        signature = sign(identity, self._purpose_here, [head.number, head.hash]).hex()
        content = canonical_bytes({"number": head.number, "hash": head.hash, "signature": signature})
        write_durably(self.path, content, mode=_PRIVATE_MODE)

    def is_behind(self, anchored: Head, last: ChainLine | None) -> bool:
        """Whether the chain is one line ahead of its anchor, as a crash between the two leaves it.

        Args:
            anchored: What `read` gave.
            last: Last line of the chain; None when it has none.

        Raises:
            IntegrityError: When the chain has another line where the anchor was, or one that its owner did not sign.
            RollbackError: When the chain is shorter than the anchor says, or the anchor is an older copy.
        """
        head = last.head if last else Head()
        if anchored == head:
            return False
        if anchored.number > head.number:
            rule = f"ends at line {head.number}, but line {anchored.number} was written: lines at the end are missing"
            raise RollbackError(f"the log {rule}", hint=TAMPERED)
        if anchored.number < head.number - 1:
            rule = f"stands at line {anchored.number} of {head.number}: an older copy was put back"
            raise RollbackError(f"the anchor {self.path.name} {rule}", hint=TAMPERED)
        if last is None or anchored != last.before or not is_line_signed_by(self._public, self._purpose, last):
            raise IntegrityError(f"the log has another line {head.number} than its owner signed", hint=TAMPERED)
        return True

    def _signed_head(self, data: bytes) -> Head | None:
        try:
            values = json.loads(data.decode("ascii"))
            head = Head(values["number"], values["hash"])
            signature = bytes.fromhex(values["signature"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        # What was signed was a whole number and a hash, so nothing else can get past the signature.
        good = is_signed_by(self._public, self._purpose_here, [head.number, head.hash], signature)
        return head if good else None

    @property
    def _purpose_here(self) -> str:
        return f"{self._purpose} anchor"

    def _unfit(self, rule: str) -> IntegrityError:
        return IntegrityError(f"the anchor {self.path.name} of the log {rule}", hint=TAMPERED)
