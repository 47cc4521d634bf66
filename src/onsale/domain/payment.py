"""A payment: one attempt to pay for a held order."""

from enum import StrEnum


class PaymentState(StrEnum):
    """Where a payment attempt stands; the `…_due` ones wait for the settler.

    started ──→ authorized ──→ captured ──→ refund_due ──→ refunded
       │             └───────────────────────↑
       ├──→ declined
       └──→ void_due ──→ voided
    """

    STARTED = "started"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    DECLINED = "declined"
    VOID_DUE = "void_due"
    VOIDED = "voided"
    REFUND_DUE = "refund_due"
    REFUNDED = "refunded"
