"""Any proof: the union, told apart by ``kind``, and its published schema."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from layer2.errors import ProofError
from layer2.proofs._evm import EvmReceiptProof, EvmStorageProof
from layer2.proofs._format import load_object
from layer2.proofs._lightning import LightningPaymentProof
from layer2.proofs._transfer import TransferProof

__all__ = ["Proof", "parse_proof", "transfer_proof_schema"]

Proof: TypeAlias = LightningPaymentProof | EvmReceiptProof | EvmStorageProof
"""A proof of something on one layer. The union may grow in a minor release."""

_KINDS: Final[dict[str, type[Proof | TransferProof]]] = {
    "lightning_payment": LightningPaymentProof,
    "evm_receipt": EvmReceiptProof,
    "evm_storage": EvmStorageProof,
    "transfer": TransferProof,
}


def parse_proof(text: str | bytes) -> Proof | TransferProof:
    """Read the JSON of any proof, by its ``kind``.

    Raises:
        ProofError: malformed, or of a kind or version that this release does not know.
    """
    kind = load_object(text).get("kind")
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ProofError(
            f"proofs of kind {kind!r:.40} are not known here",
            field="kind",
            check="kind",
            hint=f"this release reads {', '.join(_KINDS)}; a later one may read more",
        )
    return cls.from_json(text)


def transfer_proof_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of transfer proofs, version 1; also in ``transfer_proof.v1.schema.json``."""
    schema: dict[str, Any] = _structure(TransferProof.json_schema())
    return {
        **schema,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "layer2 transfer proof, version 1",
    }


def _structure(schema: Any) -> Any:
    # The texts in a schema come from docstrings, and a better docstring is not another format.
    if isinstance(schema, dict):
        texts = {key for key in ("title", "description") if isinstance(schema.get(key), str)}
        return {key: _structure(value) for key, value in schema.items() if key not in texts}
    return [_structure(part) for part in schema] if isinstance(schema, list) else schema
