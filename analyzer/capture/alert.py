"""Alerts of TLS and their names (RFC 8446 section 6, RFC 5246 section 7.2)."""

from typing import NamedTuple

from analyzer.capture.mark import Mark

NAMES = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    111: "certificate_unobtainable",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    114: "bad_certificate_hash_value",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
    121: "ech_required",
}
"""IANA, TLS Alerts; also what only older versions sent."""

WARNING, FATAL = 1, 2
CLOSE_NOTIFY, USER_CANCELED = NAMES[0], NAMES[90]


def is_failure(level: int | None, name: str, *, is_13: bool) -> bool:
    """Whether its sender reads nothing that comes behind it (RFC 8446 section 6.2, RFC 5246 section 7.2.2)."""
    return name not in (CLOSE_NOTIFY, USER_CANCELED) and (level == FATAL or is_13)


class Alert(NamedTuple):
    """One alert. Level (`WARNING` or `FATAL`) and name are None where it could not be opened."""

    direction: int
    mark: Mark
    level: int | None
    name: str | None
    was_encrypted: bool


def parse_alert(data: bytes) -> tuple[int, str]:
    """Level and name of an alert's two bytes; a number that has no name is named `alert_` and the number."""
    return data[0], NAMES.get(data[1], f"alert_{data[1]}")
