"""Sealed records of TLS: keys from secrets, and records opened with them.

Every record's tag or MAC is checked. Nothing here raises for what a record holds. Objects pickle with their keys; none
shows them.
"""

import hashlib
import hmac
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from analyzer.capture.suite import EXPLICIT_BYTES, IV_BYTES, TLS_1_1, TLS_1_2, Suite

FAILURES = (InvalidTag, ValueError, OverflowError)
"""What opening a broken record can raise: a wrong tag, a size no cipher takes, a number beyond 64 bits."""


def expand_label(secret: bytes, label: bytes, n: int, *, hash_name: str) -> bytes:
    """HKDF-Expand-Label without context (RFC 8446 section 7.1).

    Args:
        n: Bytes wanted, at most those of one hash, which is all that records need.
    """
    label = b"tls13 " + label
    return hmac.digest(secret, b"\x00%c%c%b\x00\x01" % (n, len(label), label), hash_name)[:n]


def _expand(secret: bytes, seed: bytes, n: int, hash_name: str) -> bytes:
    """P_hash (RFC 5246 section 5)."""
    a, found = seed, b""
    while len(found) < n:
        a = hmac.digest(secret, a, hash_name)
        found += hmac.digest(secret, a + seed, hash_name)
    return found[:n]


def expand_keys(version: int, hash_name: str, master: bytes, seed: bytes, n: int) -> bytes:
    """The key block of TLS 1.0 to 1.2 (RFC 5246 section 6.3, RFC 2246 section 6.3).

    Whether the master secret is an extended one (RFC 7627) makes no difference: a key log holds it as it is used.

    Args:
        seed: The server's random, then the client's.
    """
    seed = b"key expansion" + seed
    if version >= TLS_1_2:
        return _expand(master, seed, n, hash_name)
    half = (len(master) + 1) // 2
    halves = _expand(master[:half], seed, n, "md5"), _expand(master[-half:], seed, n, "sha1")
    return bytes(a ^ b for a, b in zip(*halves, strict=True))


class Opener:
    """Opens the records of one direction under one key. Subclasses say how."""

    __slots__ = ()

    def open(self, seq: int, kind: int, version: int, body: bytes) -> bytes | None:
        """The bytes sealed in a record, None where its tag or MAC does not fit this sequence number."""
        raise NotImplementedError

    def guess(self, seq: int, body: bytes) -> int:  # noqa: ARG002
        """The sequence number of a record that comes after lost ones, as far as it shows; `seq` where it does not."""
        return seq


class AeadOpener(Opener):
    """TLS 1.3 (RFC 8446 section 5.2), and ChaCha20-Poly1305 in TLS 1.2 (RFC 7905): the nonce is made of the number."""

    __slots__ = ("aead", "is_13", "iv", "key", "suite")

    def __init__(self, suite: Suite, key: bytes, iv: bytes, *, is_13: bool) -> None:
        self.suite, self.key, self.iv, self.is_13 = suite, key, int.from_bytes(iv, "big"), is_13
        self.aead = _make_aead(suite, key)

    def __getstate__(self) -> tuple[Suite, bytes, int, bool]:
        return self.suite, self.key, self.iv, self.is_13

    def __setstate__(self, state: tuple[Suite, bytes, int, bool]) -> None:
        self.suite, self.key, self.iv, self.is_13 = state
        self.aead = _make_aead(self.suite, self.key)

    def open(self, seq: int, kind: int, version: int, body: bytes) -> bytes | None:  # noqa: D102
        try:
            nonce = (self.iv ^ seq).to_bytes(12, "big")
            if self.is_13:
                return self.aead.decrypt(nonce, body, b"\x17\x03\x03" + len(body).to_bytes(2, "big"))
            head = seq << 40 | kind << 32 | version << 16 | (len(body) - 16)
            return self.aead.decrypt(nonce, body, head.to_bytes(13, "big"))
        except FAILURES:
            return None


class ExplicitOpener(Opener):
    """AES-GCM and AES-CCM in TLS 1.2: eight bytes of the nonce stand before the record (RFC 5288, RFC 6655)."""

    __slots__ = ("aead", "key", "last", "salt", "suite")

    def __init__(self, suite: Suite, key: bytes, salt: bytes) -> None:
        self.suite, self.key, self.salt = suite, key, salt
        self.last: tuple[int, int] | None = None
        self.aead = _make_aead(suite, key)

    def __getstate__(self) -> tuple[Any, ...]:
        return self.suite, self.key, self.salt, self.last

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.suite, self.key, self.salt, self.last = state
        self.aead = _make_aead(self.suite, self.key)

    def open(self, seq: int, kind: int, version: int, body: bytes) -> bytes | None:  # noqa: D102
        explicit = body[:EXPLICIT_BYTES]
        try:
            head = seq << 40 | kind << 32 | version << 16 | (len(body) - EXPLICIT_BYTES - self.suite.tag_bytes)
            data = self.aead.decrypt(self.salt + explicit, body[EXPLICIT_BYTES:], head.to_bytes(13, "big"))
        except FAILURES:
            return None
        self.last = seq, int.from_bytes(explicit, "big")
        return data

    def guess(self, seq: int, body: bytes) -> int:  # noqa: D102
        if self.last is None or len(body) < EXPLICIT_BYTES:
            return seq
        # nearly everybody counts in the explicit part, from 0 or from any number
        ahead = int.from_bytes(body[:EXPLICIT_BYTES], "big") - self.last[1]
        return self.last[0] + ahead if 0 < ahead < 2**40 else seq


class BlockOpener(Opener):
    """AES-CBC with HMAC, which comes before (RFC 5246 section 6.2.3.2) or after encrypting (RFC 7366).

    In TLS 1.0 the end of the record before is the IV: behind a lost one nothing can be opened. The MAC would not tell,
    where it comes after encrypting: it does not cover the IV.
    """

    __slots__ = ("due", "has_iv", "is_mac_last", "iv", "key", "mac_key", "suite")

    def __init__(self, suite: Suite, version: int, key: bytes, mac_key: bytes, iv: bytes, *, is_mac_last: bool) -> None:
        self.suite, self.key, self.mac_key, self.iv = suite, key, mac_key, iv
        self.has_iv, self.is_mac_last = version >= TLS_1_1, is_mac_last
        self.due = 0

    def open(self, seq: int, kind: int, version: int, body: bytes) -> bytes | None:  # noqa: D102
        if not self.has_iv and seq != self.due:
            return None
        n_mac = self.suite.tag_bytes
        if self.is_mac_last:
            body, mac = body[:-n_mac], body[-n_mac:]
            if not self._fits(seq, kind, version, body, mac):
                return None
        iv, sealed = (body[:IV_BYTES], body[IV_BYTES:]) if self.has_iv else (self.iv, body)
        if not sealed or len(sealed) % IV_BYTES or len(iv) != IV_BYTES:
            return None
        decryptor = Cipher(algorithms.AES(self.key), modes.CBC(iv)).decryptor()
        data = decryptor.update(sealed) + decryptor.finalize()
        n_padding = data[-1] + 1
        if data[-n_padding:] != bytes((n_padding - 1,)) * n_padding:
            return None
        data = data[:-n_padding]
        if not self.is_mac_last:
            if len(data) < n_mac:
                return None
            data, mac = data[:-n_mac], data[-n_mac:]
            if not self._fits(seq, kind, version, data, mac):
                return None
        if not self.has_iv:
            self.iv, self.due = sealed[-IV_BYTES:], seq + 1
        return data

    def _fits(self, seq: int, kind: int, version: int, data: bytes, mac: bytes) -> bool:
        if seq >> 64:
            return False
        head = (seq << 40 | kind << 32 | version << 16 | len(data)).to_bytes(13, "big")
        return hmac.compare_digest(hmac.digest(self.mac_key, head + data, self.suite.mac), mac)


def _make_aead(suite: Suite, key: bytes) -> AESGCM | AESCCM | ChaCha20Poly1305:
    if suite.mode == "gcm":
        return AESGCM(key)
    if suite.mode == "ccm":
        return AESCCM(key, tag_length=suite.tag_bytes)
    return ChaCha20Poly1305(key)


def make_opener_13(suite: Suite, secret: bytes) -> Opener | None:
    """What opens records under a traffic secret (RFC 8446 section 7.3); None where this machine has no such cipher."""
    key = expand_label(secret, b"key", suite.key_bytes, hash_name=suite.hash_name)
    iv = expand_label(secret, b"iv", 12, hash_name=suite.hash_name)
    try:
        return AeadOpener(suite, key, iv, is_13=True)
    except UnsupportedAlgorithm:
        return None


def update_secret(suite: Suite, secret: bytes) -> bytes:
    """The traffic secret that follows a KeyUpdate (RFC 8446 section 7.2)."""
    return expand_label(secret, b"traffic upd", hashlib.new(suite.hash_name).digest_size, hash_name=suite.hash_name)


def make_opener_12(
    suite: Suite, version: int, master: bytes, seed: bytes, *, is_client: bool, is_mac_last: bool
) -> Opener | None:
    """What opens the records of one side of TLS 1.0 to 1.2; None where this machine has no such cipher.

    Args:
        seed: The server's random, then the client's.
        is_mac_last: Whether the sides agreed on encrypt-then-MAC, which matters to CBC alone.
    """
    n_key, n_mac = suite.key_bytes, suite.tag_bytes if suite.mode == "cbc" else 0
    n_iv = {"cbc": 0 if version >= TLS_1_1 else IV_BYTES, "chacha": 12}.get(suite.mode, 4)
    try:
        block = expand_keys(version, suite.hash_name, master, seed, 2 * (n_mac + n_key + n_iv))
        parts, off = [], 0
        for n in (n_mac, n_key, n_iv):
            at = off if is_client else off + n
            parts.append(block[at : at + n])
            off += 2 * n
        mac_key, key, iv = parts
        if suite.mode == "cbc":
            return BlockOpener(suite, version, key, mac_key, iv, is_mac_last=is_mac_last)
        if suite.mode == "chacha":
            return AeadOpener(suite, key, iv, is_13=False)
        return ExplicitOpener(suite, key, iv)
    except (UnsupportedAlgorithm, ValueError):
        return None
