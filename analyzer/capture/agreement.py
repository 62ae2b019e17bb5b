"""What the two hellos of a TLS connection agreed on, and the keys that follow from it and from a key log."""

import hashlib
from typing import NamedTuple

from analyzer.capture import cipher, hello, keylog, suite
from analyzer.capture.half import DATA_EPOCH, EARLY_EPOCH
from analyzer.capture.keylog import KeyLog, name_session

MAX_NAMES = 8
"""Session IDs and tickets of one connection."""


class Keys(NamedTuple):
    """What opens records of one direction, and the secret that it follows from: before TLS 1.3 the master secret."""

    opener: cipher.Opener
    secret: bytes

    def __repr__(self) -> str:
        return "<Keys>"


Secrets = dict[str, tuple[bytes, ...]]
"""By label."""


class Agreement:
    """The hellos of one connection, and the secrets that a key log has for them.

    Attributes:
        lacks: A secret that would be needed was not there when it was asked for.
        is_full: The handshake resumes no session (TLS 1.2).
        has_proof: A record was opened under the master secret.
    """

    def __init__(self, keys: KeyLog) -> None:
        self.client: hello.ClientHello | None = None
        self.server: hello.ServerHello | None = None
        self.suite: suite.Suite | None = None
        self.is_13 = self.lacks = self.is_full = self.has_proof = False
        self._keys = keys
        self._master = b""
        self._names: list[bytes] = []
        self._found: tuple[int, bytes, Secrets] = (-1, b"", {})
        """What the key log had in this version of it for this random: looking takes 3 us."""

    def set_client(self, client: hello.ClientHello) -> None:
        """Take a ClientHello."""
        self.client = client._replace(ticket=name_session(client.ticket) if client.ticket else b"")  # may be long
        self.is_full = False

    def set_server(self, server: hello.ServerHello) -> None:
        """Take a ServerHello, or a HelloRetryRequest."""
        self.server = server
        self.is_13 = server.version == suite.TLS_1_3
        known = suite.SUITES.get(server.suite) if server.can_open else None
        is_suite_13 = known is not None and known.name.startswith(("TLS_AES", "TLS_CHACHA20"))
        fits = is_suite_13 if self.is_13 else suite.TLS_1_0 <= server.version <= suite.TLS_1_2 and not is_suite_13
        self.suite = known if fits else None
        if server.session_id and not self.is_13:
            self.note_name(server.session_id)

    def has_secrets(self) -> bool:
        """Whether the key log has anything for this connection."""
        return self.client is not None and bool(self._look(self.client.random) or self._recall())

    def _look(self, random: bytes) -> Secrets:
        if self._found[:2] != (self._keys.version, random):
            self._found = self._keys.version, random, self._keys.find(random) or {}
        return self._found[2]

    def find_keys(self, epoch: int, *, is_client: bool) -> list[Keys]:
        """The keys of a direction in an epoch: none where a secret is missing (`lacks`), or never can be used.

        Several where there are several secrets under one name: only records tell which is the right one.
        """
        client, server, agreed = self.client, self.server, self.suite
        if client is None or server is None or agreed is None:
            return []
        secrets = self._look(client.random)
        if self.is_13:
            # a line of a file that is being written may end too early
            n = hashlib.new(agreed.hash_name).digest_size
            fitting = [one for one in secrets.get(_label(epoch, is_client=is_client), ()) if len(one) == n]
            self.lacks |= not fitting
            openers = [(cipher.make_opener_13(agreed, secret), secret) for secret in fitting]
            return [Keys(opener, secret) for opener, secret in openers if opener]
        masters = dict.fromkeys(filter(None, (*secrets.get(keylog.MASTER, ()), self._recall())))
        self.lacks |= not masters
        if self.has_proof and self._master in masters:
            masters = {self._master: None}
        seed, version = server.random + client.random, server.version
        is_mac_last = server.is_mac_last
        found = []
        for master in masters:
            opener = cipher.make_opener_12(agreed, version, master, seed, is_client=is_client, is_mac_last=is_mac_last)
            found += [Keys(opener, master)] if opener else []
        return found

    def update(self, secret: bytes) -> Keys | None:
        """The keys that follow a KeyUpdate."""
        if self.suite is None:
            return None
        secret = cipher.update_secret(self.suite, secret)
        opener = cipher.make_opener_13(self.suite, secret)
        return Keys(opener, secret) if opener else None

    @property
    def shows_sizes(self) -> bool:
        """Whether a record's length tells how much it holds."""
        return not self.is_13 and self.suite is not None and self.suite.mode != "cbc"

    def note_name(self, session: bytes) -> None:
        """A session ID or a ticket that stands for this connection's master secret."""
        if len(self._names) < MAX_NAMES:
            self._names.append(name_session(session))
        if self.has_proof:
            self._keys.remember(name_session(session), self._master)

    def prove(self, secret: bytes, epoch: int, *, is_client: bool, had_rivals: bool) -> None:
        """A record was opened: the secret is the right one; a master secret may be resumed."""
        if had_rivals and self.client is not None:
            label = _label(epoch, is_client=is_client) if self.is_13 else keylog.MASTER
            self._keys.settle(self.client.random, label, secret)
        if not self.is_13 and not (self.has_proof and secret == self._master):
            self._master, self.has_proof = secret, True
            for name in self._names:
                self._keys.remember(name, secret)

    def _recall(self) -> bytes | None:
        """The master secret of the TLS 1.2 session that this connection resumes (RFC 5246 section 7.3, RFC 5077)."""
        if self.client is None or self.server is None or self.is_13 or self.is_full:
            return None
        session_id = self.client.session_id
        found = self._keys.recall(name_session(session_id)) if session_id == self.server.session_id != b"" else None
        return found or (self._keys.recall(self.client.ticket) if self.client.ticket else None)


def _label(epoch: int, *, is_client: bool) -> str:
    """What key logs call the secret of a direction in an epoch of TLS 1.3."""
    if epoch == EARLY_EPOCH:
        return keylog.EARLY
    return (keylog.TRAFFIC if epoch == DATA_EPOCH else keylog.HANDSHAKE)[0 if is_client else 1]
