"""Cipher suites and versions by number: their names, and what they say about how records are sealed.

Knows the suites with AES in GCM, CCM and CBC and with ChaCha20-Poly1305; another one's records stay sealed.
"""

import re
from typing import NamedTuple

TLS_1_3 = 0x0304
TLS_1_2 = 0x0303
TLS_1_1 = 0x0302
TLS_1_0 = 0x0301

VERSIONS = {0x0300: "SSLv3", TLS_1_0: "TLSv1", TLS_1_1: "TLSv1.1", TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}

IV_BYTES = 16
"""Of AES-CBC; in front of each record since TLS 1.1 (RFC 4346 section 6.2.3.2)."""

TLS_1_3_SUITES = 0x13
"""First byte of the suites of TLS 1.3, which no other version has (RFC 8446 section B.4)."""

EXPLICIT_BYTES = 8
"""Of a nonce in front of each record of AES-GCM and AES-CCM in TLS 1.2 (RFC 5288 section 3)."""

MAC_BYTES = {"sha1": 20, "sha256": 32, "sha384": 48}


class Suite(NamedTuple):
    """What a cipher suite needs.

    `mode` is `gcm`, `ccm`, `chacha` or `cbc`; `hash_name` names the hash of the key derivation, `mac` that of the MAC
    of CBC, empty in other modes; `tag_bytes` is the size of tag or MAC.
    """

    name: str
    mode: str
    key_bytes: int
    tag_bytes: int
    hash_name: str
    mac: str


# IANA, TLS Cipher Suites, read 2026-11-22: by how records are sealed, number and key exchange
_NUMBERS = {
    "AES_128_CBC_SHA": (
        "002F RSA 0032 DHE_DSS 0033 DHE_RSA 0034 DH_anon 008C PSK 0090 DHE_PSK 0094 RSA_PSK C004 ECDH_ECDSA "
        "C009 ECDHE_ECDSA C00E ECDH_RSA C013 ECDHE_RSA C018 ECDH_anon C035 ECDHE_PSK"
    ),
    "AES_256_CBC_SHA": (
        "0035 RSA 0038 DHE_DSS 0039 DHE_RSA 003A DH_anon 008D PSK 0091 DHE_PSK 0095 RSA_PSK C005 ECDH_ECDSA "
        "C00A ECDHE_ECDSA C00F ECDH_RSA C014 ECDHE_RSA C019 ECDH_anon C036 ECDHE_PSK"
    ),
    "AES_128_CBC_SHA256": (
        "003C RSA 0040 DHE_DSS 0067 DHE_RSA 006C DH_anon 00AE PSK 00B2 DHE_PSK 00B6 RSA_PSK C023 ECDHE_ECDSA "
        "C025 ECDH_ECDSA C027 ECDHE_RSA C029 ECDH_RSA C037 ECDHE_PSK"
    ),
    "AES_256_CBC_SHA256": "003D RSA 006A DHE_DSS 006B DHE_RSA 006D DH_anon",
    "AES_128_GCM_SHA256": (
        "009C RSA 009E DHE_RSA 00A2 DHE_DSS 00A6 DH_anon 00A8 PSK 00AA DHE_PSK 00AC RSA_PSK 1301 - C02B "
        "ECDHE_ECDSA C02D ECDH_ECDSA C02F ECDHE_RSA C031 ECDH_RSA D001 ECDHE_PSK"
    ),
    "AES_256_GCM_SHA384": (
        "009D RSA 009F DHE_RSA 00A3 DHE_DSS 00A7 DH_anon 00A9 PSK 00AB DHE_PSK 00AD RSA_PSK 1302 - C02C "
        "ECDHE_ECDSA C02E ECDH_ECDSA C030 ECDHE_RSA C032 ECDH_RSA D002 ECDHE_PSK"
    ),
    "AES_256_CBC_SHA384": (
        "00AF PSK 00B3 DHE_PSK 00B7 RSA_PSK C024 ECDHE_ECDSA C026 ECDH_ECDSA C028 ECDHE_RSA C02A ECDH_RSA "
        "C038 ECDHE_PSK"
    ),
    "CHACHA20_POLY1305_SHA256": (
        "1303 - CCA8 ECDHE_RSA CCA9 ECDHE_ECDSA CCAA DHE_RSA CCAB PSK CCAC ECDHE_PSK CCAD DHE_PSK CCAE RSA_PSK"
    ),
    "AES_128_CCM_SHA256": "1304 - D005 ECDHE_PSK",
    "AES_128_CCM_8_SHA256": "1305 - D003 ECDHE_PSK",
    "AES_128_CCM": "C09C RSA C09E DHE_RSA C0A4 PSK C0A6 DHE_PSK C0AC ECDHE_ECDSA",
    "AES_256_CCM": "C09D RSA C09F DHE_RSA C0A5 PSK C0A7 DHE_PSK C0AD ECDHE_ECDSA",
    "AES_128_CCM_8": "C0A0 RSA C0A2 DHE_RSA C0A8 PSK C0AA PSK_DHE C0AE ECDHE_ECDSA",
    "AES_256_CCM_8": "C0A1 RSA C0A3 DHE_RSA C0A9 PSK C0AB PSK_DHE C0AF ECDHE_ECDSA",
}

_NAME = re.compile(r"AES_(128|256)_(GCM|CCM|CBC)(?:_(8))?(?:_SHA(\d*))?|CHACHA20_POLY1305_SHA256")


def _parse(name: str, sealing: str) -> Suite:
    parts = _NAME.fullmatch(sealing)
    if parts is None or parts[1] is None:
        return Suite(name, "chacha", 32, 16, "sha256", "")
    key_bytes, mode = int(parts[1]) // 8, parts[2].lower()
    # in TLS 1.2 every suite derives keys with SHA-256 but those that name SHA-384 (RFC 5246 section 5, RFC 5289)
    hash_name = "sha384" if parts[4] == "384" else "sha256"
    if mode == "cbc":
        mac = f"sha{parts[4] or 1}"
        return Suite(name, mode, key_bytes, MAC_BYTES[mac], hash_name, mac)
    return Suite(name, mode, key_bytes, 8 if parts[3] else 16, hash_name, "")


def _list_suites() -> dict[int, Suite]:
    suites = {}
    for sealing, numbers in _NUMBERS.items():
        words = numbers.split()
        for number, exchange in zip(words[::2], words[1::2], strict=True):
            name = f"TLS_{sealing}" if exchange == "-" else f"TLS_{exchange}_WITH_{sealing}"
            suites[int(number, 16)] = _parse(name, sealing)
    return suites


SUITES = _list_suites()


def name_suite(number: int) -> str:
    """The IANA name of a suite, or its number where it is none of `SUITES`."""
    return SUITES[number].name if number in SUITES else f"0x{number:04X}"


def inner_size(version: int, number: int, n_body: int) -> tuple[int, int] | None:
    """The least and the most bytes that a sealed record can hold, by the length in its header; None: not known.

    Both are the same in all modes but CBC, which pads up to whole blocks (RFC 5246 section 6.2.3.2), taken here to be
    less than one block more, as everybody does; whether its MAC stands outside (RFC 7366) makes no difference then.
    Padding of TLS 1.3 (RFC 8446 section 5.4) is taken to be absent: who needs to know looks for it.
    """
    suite = SUITES.get(number)
    if suite is None or (version == TLS_1_3) != (number >> 8 == TLS_1_3_SUITES):
        return None
    block = 0
    if version == TLS_1_3:
        most = n_body - suite.tag_bytes - 1
    elif suite.mode == "cbc" and version in VERSIONS:
        most = n_body - suite.tag_bytes - 1 - (0 if version <= TLS_1_0 else IV_BYTES)
        block = IV_BYTES - 1
    elif version == TLS_1_2:
        most = n_body - suite.tag_bytes - (0 if suite.mode == "chacha" else EXPLICIT_BYTES)
    else:
        return None
    return (max(most - block, 0), most) if most >= 0 else None
