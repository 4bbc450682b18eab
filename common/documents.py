"""Documents from outside: canonical JSON of one kind, strictly read, bounded, and refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from common.canonical import canonical_bytes
from common.config import StrictConfig
from common.errors import ConfigError, IntegrityError
from common.identity import is_signed_by, sign

Document = TypeVar("Document", bound=StrictConfig)

_LONGEST_RULE = 200


def document_bytes(document: StrictConfig) -> bytes:
    """The one byte string of a document."""
    return canonical_bytes(document.model_dump(mode="json"))


def sign_document(
    kind: type[Document], purpose: str, content: Mapping[str, Any], identity: Ed25519PrivateKey
) -> Document:
    """Make a signed document.

    Args:
        kind: Its class, with `format_version` and `signature`.
        purpose: What is signed, in words; a signature for one purpose is none for another.
        content: The other fields, as JSON values.
        identity: Who signs.

    Raises:
        ConfigError: When a field breaks its rule.
    """
    signed = {"format_version": 1, **content}
    signature = sign(identity, purpose, signed).hex()
    try:
        return kind.model_validate_json(canonical_bytes({**signed, "signature": signature}))
    except ValidationError as error:
        rule = _broken_rule(kind, error.errors(include_url=False)[0])
        raise ConfigError(f"the {purpose} cannot be made: it {rule}", hint="correct that value") from None


def check_signed(document: StrictConfig, purpose: str, signer: str, who: str) -> None:
    """What the validator of a signed document begins with.

    Args:
        document: With a field `signature`, over all its other fields.
        purpose: As `sign_document`.
        signer: Public key of who must have signed.
        who: What a message calls them: `the site that it names`.

    Raises:
        ValueError: When somebody else signed, nobody did, or a field was changed.
    """
    content = document.model_dump(mode="json")
    signature = bytes.fromhex(content.pop("signature"))
    if not is_signed_by(signer, purpose, content, signature):
        raise ValueError(f"is not signed by {who}")


def parse_document(kind: type[Document], data: bytes, name: str, limit_bytes: int) -> Document:
    """Read a document that came from outside.

    Guarantees:
        `document_bytes` of what is returned is `data`: no second spelling, repeated key, space or trailing byte passes.
        No message quotes the content, which may hold control characters for a terminal.

    Args:
        kind: The class of the document; its validators check signatures too, where it is signed.
        data: The whole document.
        name: What a message calls it: `join request`.
        limit_bytes: A longer one is refused before it is looked at.

    Raises:
        IntegrityError: One sentence that names the broken rule.
    """
    if len(data) > limit_bytes:
        raise unreadable(name, f"has {len(data)} bytes and may have {limit_bytes}")
    try:
        document = kind.model_validate_json(data)
    except ValidationError as error:
        raise unreadable(name, _broken_rule(kind, error.errors(include_url=False)[0])) from None
    if document_bytes(document) != data:
        raise unreadable(name, "is not written in the one canonical form")
    return document


def read_document_file(kind: type[Document], path: Path, name: str, limit_bytes: int) -> Document:
    """Read a document that this side keeps; no more than its limit is read of a file that grew.

    Raises:
        ConfigError: When the file cannot be read.
        IntegrityError: When it holds no such document.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigError(f"the {name} {path} cannot be read: {error.strerror}", hint="check the home folder") from None
    try:
        return parse_document(kind, data, name, limit_bytes)
    except IntegrityError as error:
        hint = "somebody changed it, or the disk did; restore it from a backup"
        raise IntegrityError(f"{path}: {error.message}", hint=hint) from None


def unreadable(name: str, rule: str) -> IntegrityError:
    """The error for a document that breaks a rule."""
    return IntegrityError(f"the {name} {rule}", hint="it was changed or cut on the way; ask for it again")


def _broken_rule(kind: type[StrictConfig], item: Mapping[str, Any]) -> str:
    """The rule in words; only names of our own fields are repeated, never what the document says."""
    if item["type"] == "json_invalid":
        return "is not JSON"
    if not item["loc"]:
        return _rule(item)
    field = str(item["loc"][0])
    if field not in kind.model_fields:
        return "has an unknown field"
    if item["type"] == "missing" and len(item["loc"]) == 1:
        return f"lacks the field `{field}`"
    return f"has a field `{field}` that does not fit: {_rule(item)}"


def _rule(item: Mapping[str, Any]) -> str:
    rule = str(item["msg"]).removeprefix("Value error, ")
    fit_to_print = rule.isascii() and rule.isprintable() and len(rule) <= _LONGEST_RULE
    return rule[:1].lower() + rule[1:] if fit_to_print else "breaks its rule"
