"""One TLS connection: its records in, what they carried out.

`Session` takes the records of both directions in the order in which they were captured, finds out who the client is,
derives keys once both hellos and the secrets are there, and holds back what comes before that. It opens no file and
does not look into what the records carry. Nothing here raises, whatever a record holds, and no secret is shown.

Renegotiation in TLS 1.2 works as any handshake does. A connection with Encrypted Client Hello logs its secrets under a
random that nobody sees: it stays sealed, and so do suites that `suite` does not know.
"""

from typing import NamedTuple

from analyzer.capture import cipher, hello, suite
from analyzer.capture.agreement import Agreement, Keys
from analyzer.capture.alert import Alert, parse_alert
from analyzer.capture.half import (
    CERTIFICATE,
    CLIENT_HELLO,
    DATA_EPOCH,
    EARLY_EPOCH,
    ENCRYPTED_EXTENSIONS,
    END_OF_EARLY_DATA,
    FINISHED,
    HANDSHAKE_EPOCH,
    HELD_RECORD_BYTES,
    KEY_UPDATE,
    LOSS,
    MISS,
    NEW_SESSION_TICKET,
    PLAIN_EPOCH,
    SERVER_HELLO,
    SERVER_HELLO_DONE,
    UNKNOWN,
    Half,
    Item,
    State,
)
from analyzer.capture.keylog import KeyLog
from analyzer.capture.mark import Mark
from analyzer.model import ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE

HELD_BYTES = 2**22
"""Records of one connection that wait for keys or for the other side's hello; when there are more, it is given up."""

SEARCH_RECORDS = 1024
"""Sequence numbers tried behind lost records, for each of at most three keys; without success the rest is sealed."""

NEAR_RECORDS = 8
"""Tried first, of each key."""

EARLY_RECORDS = 1024
"""Of early data that the server refused, or whose key is not known; after more the direction is sealed."""

FINISHED_BYTES = 53
"""The shortest record with a Finished in TLS 1.3: 4 + 32 bytes, the type and a tag; an alert has 19."""

MAX_ALERTS = 16
"""Kept of one connection."""

ALERTS_PER_RECORD = 4


class Plain(NamedTuple):
    """What one record carried: application data (kind 23, also none at all) or an alert (kind 21, two bytes).

    `lost_bytes` of application data are missing before it: 0 none, `UNKNOWN` (-1) nobody knows how many. A loss before
    an alert, or at the end, comes as application data without bytes. So does the sealing of a direction: the last of
    its data has no bytes, `UNKNOWN` lost, and the mark of the first record that could not be read.
    """

    direction: int
    mark: Mark
    kind: int
    data: bytes
    lost_bytes: int


class _Way(NamedTuple):
    """Keys that a record behind a loss may be under, and the first number to try."""

    keys: Keys
    epoch: int
    start: int


class Session:
    """One TLS connection. Pickles, and its `KeyLog` with it.

    Attributes:
        client: Direction of the client, None until a hello was read.
        sni: Name of the server that the client asked for.
        alpn_offers: Protocols that the client offered.
        alpn: The one that the server chose; in TLS 1.3 known only with keys.
        version: As OpenSSL calls it (`TLSv1.3`), None until a ServerHello was read.
        cipher: IANA's name of the cipher suite, its number where `suite` does not know it.
        alerts: The first `MAX_ALERTS`.
        held_bytes: What is held back costs so much memory.
    """

    def __init__(self, keys: KeyLog) -> None:
        self.client: int | None = None
        self.sni: str | None = None
        self.alpn_offers: tuple[str, ...] = ()
        self.alpn: str | None = None
        self.version: str | None = None
        self.cipher: str | None = None
        self.alerts: list[Alert] = []
        self.held_bytes = 0
        self._halves = (Half(0), Half(1))
        self._agreement = Agreement(keys)
        self._is_13 = False
        self._is_retried = False  # a HelloRetryRequest was seen
        self._takes_early: bool | None = None
        self._was_given_up = False

    @property
    def states(self) -> tuple[State, State]:
        """The state of each direction."""
        return self._halves[0].state, self._halves[1].state

    @property
    def state(self) -> State:
        """Open if a direction is, sealed if both are."""
        if State.OPEN in self.states:
            return State.OPEN
        return State.WAITING if State.WAITING in self.states else State.SEALED

    @property
    def is_established(self) -> bool:
        """Whether the handshake came to its end, as far as it shows.

        Opened: Finished or application data of both sides. Sealed: records of application data of both sides; in TLS
        1.3, where any record is called so, one of the client that is long enough for a Finished.
        """
        return all(half.has_finished or half.has_data for half in self._halves)

    @property
    def needs_keys(self) -> bool:
        """Whether secrets are missing that may still come; `retry` after they came."""
        if self._agreement.client is None or self._was_given_up:
            return False
        if all(half.opener is not None or half.state is State.SEALED for half in self._halves):
            return False
        return self._agreement.lacks or not self._agreement.has_secrets()

    @property
    def gathered_bytes(self) -> int:
        """What there is of handshake messages that are not complete."""
        return len(self._halves[0].buffer) + len(self._halves[1].buffer)

    def pass_messages(self) -> int:
        """Pass over the handshake messages that are not complete, unread; how many there were."""
        return sum(half.pass_message() for half in self._halves)

    @property
    def client_random(self) -> bytes | None:
        """The random of the ClientHello, by which key logs name a connection; None while unknown."""
        return None if self._agreement.client is None else self._agreement.client.random

    @property
    def is_13(self) -> bool:
        """Whether TLS 1.3 was agreed on."""
        return self._is_13

    @property
    def version_number(self) -> int:
        """The version agreed on, 0x0304 for TLS 1.3; 0 while unknown."""
        return 0 if self._agreement.server is None else self._agreement.server.version

    @property
    def suite_number(self) -> int:
        """IANA's number of the cipher suite; 0 while unknown."""
        return 0 if self._agreement.server is None else self._agreement.server.suite

    def read(self, direction: int, kind: int, version: int, body: bytes, mark: Mark) -> list[Plain]:
        """Take the next record of a direction.

        Args:
            kind: Its content type.
            version: The version in its header.
            body: What follows the header's five bytes.
            mark: Where its last byte stood.
        """
        data = self.read_data(direction, kind, version, body, mark)
        if data is not None:
            return [Plain(direction, mark, kind, data, 0)]
        return self._put(self._halves[direction], Item(kind, version, body, mark))

    def read_data(self, direction: int, kind: int, version: int, body: bytes, mark: Mark) -> bytes | None:
        """Take the next record of a direction if it holds application data, as those before did, and none was lost.

        Returns:
            The data; None where `read` has to look at the record.

        """
        half = self._halves[direction]
        if not half.is_fast or kind != APPLICATION_DATA or half.opener is None:
            return None
        data = half.opener.open(half.seq, kind, version, body)
        if data is None:
            return None
        if self._is_13:
            if data[-1:] == b"\0":
                data = data.rstrip(b"\0")
            if data[-1:] != b"\x17":
                return None
            data = data[:-1]
        half.seq += 1
        half.mark = mark
        return data

    def give_lane(self, direction: int) -> tuple[bytes, bytes, int] | None:
        """Key, IV and the number of the next record of a direction that AES-GCM seals; None where others do."""
        half = self._halves[direction]
        opener = half.opener
        if half.held or half.lost or half.is_lossy or not isinstance(opener, cipher.AeadOpener | cipher.ExplicitOpener):
            return None
        if opener.suite.mode != "gcm":
            return None
        iv = opener.salt if isinstance(opener, cipher.ExplicitOpener) else opener.iv.to_bytes(12, "big")
        return opener.key, iv, half.seq

    def take_lane(self, direction: int, seq: int, mark: Mark, explicit: bytes) -> None:
        """Go on behind records that were opened elsewhere.

        Args:
            seq: Number of the next one.
            mark: Where the last one stood.
            explicit: Its explicit nonce, in TLS 1.2.

        """
        half = self._halves[direction]
        if seq > half.seq:
            half.seq, half.mark = seq, mark
            if isinstance(half.opener, cipher.ExplicitOpener):
                half.opener.last = seq - 1, int.from_bytes(explicit, "big")

    def lose(self, direction: int, n_records: int | None) -> list[Plain]:
        """Records of a direction were not captured: exactly so many, or None, nobody knows how many."""
        n = n_records if n_records is not None and 0 <= n_records < 2**32 else None
        return self._put(self._halves[direction], Item(LOSS, 0, b"", None, n))

    def miss(self, direction: int, n_bytes: int, mark: Mark, *, kind: int = APPLICATION_DATA) -> list[Plain]:
        """The header of a record was captured, its body of `n_bytes` was not, or not all of it."""
        return self._put(self._halves[direction], Item(MISS, kind, b"", mark, n_bytes))

    def retry(self) -> list[Plain]:
        """Go on with what is held, after new secrets came."""
        out: list[Plain] = []
        self._agreement.lacks = False
        self._pump(out)
        return out

    def give_up(self) -> list[Plain]:
        """No more keys will come: what is held is sealed, and what would be held from now on."""
        self._was_given_up = True
        out: list[Plain] = []
        self._pump(out)
        return out

    def finish(self) -> list[Plain]:
        """The connection ended. A direction that never had anything to open stays waiting."""
        out = self.give_up()
        for half in self._halves:
            if half.state is State.OPEN and half.mark is not None:
                if half.is_lossy:
                    half.add_lost(half.missed_bytes if half.ahead == half.missed > 0 else UNKNOWN)
                    half.is_lossy = False
                self._tell_loss(half, half.mark, out)
        return out

    def _put(self, half: Half, item: Item) -> list[Plain]:
        out: list[Plain] = []
        if half.held or not self._step(half, item, out):
            self.held_bytes += half.hold(item)
            if self.held_bytes > HELD_BYTES:
                out += self.give_up()
        elif self.held_bytes:
            self._pump(out)
        return out

    def _pump(self, out: list[Plain]) -> None:
        """Go on with what is held, in the order of capture, as long as one direction helps the other."""
        is_moving = True
        while is_moving:
            is_moving, ready, known = False, [half for half in self._halves if half.held], self._progress()
            while ready:
                half = min(ready, key=_first_packet)
                if half.held and self._step(half, half.held[0], out):
                    is_moving = True
                    if half.held:  # sealing drops it
                        self.held_bytes -= len(half.held.popleft().body) + HELD_RECORD_BYTES
                else:
                    ready.remove(half)
                if self._progress() != known:  # whoever waited for this does not wait until the other is done
                    ready, known = list(self._halves), self._progress()
                ready = [half for half in ready if half.held]

    def _progress(self) -> tuple[object, ...]:
        """What a direction may wait for."""
        a, b = self._halves
        return self._takes_early, a.n_hellos, a.epoch, a.state, b.n_hellos, b.epoch, b.state

    def _step(self, half: Half, item: Item, out: list[Plain]) -> bool:
        """Do what there is to do with a record; false if it has to wait."""
        if item.mark is None or item.kind == MISS:
            return self._pass_over(half, item)
        half.mark = item.mark
        if half.state is State.SEALED:
            self._note_sealed(half, item, item.mark, out)
            return True
        if item.kind == ALERT and len(item.body) == 2 and (self._is_13 or half.epoch == PLAIN_EPOCH):
            self._take_alerts(half, item.body, item.mark, out, was_encrypted=False)
            return True
        if half.epoch == PLAIN_EPOCH:
            is_done = self._read_clear(half, item, out)
            if is_done is not None:
                return is_done
        if self._is_13:
            if item.kind != APPLICATION_DATA:
                return True  # for middleboxes (RFC 8446 appendix D.4), or nobody's: every record is sealed by now
            if half.epoch == EARLY_EPOCH:
                return self._read_early(half, item, item.mark, out)
        if half.opener is None and not self._prepare(half):
            return self._wait(half, item, out)
        data = self._open(half, item)
        if data is None and half.is_unproven and not self._was_given_up:
            half.reject()  # the right keys may be somewhere else
            self._agreement.lacks = True
            return self._wait(half, item, out)
        if data is None:
            self._seal(half, item, out)
        else:
            self._take(half, item.kind, data, item.mark, out)
        return True

    def _pass_over(self, half: Half, item: Item) -> bool:
        """A loss. Before there are keys nothing counts records; what is not sealed in TLS 1.3 never does."""
        if item.kind == LOSS:
            half.note_loss(item.n)
            return True
        kind, n_bytes = item.version, item.n or 0
        if kind == CHANGE_CIPHER_SPEC and half.epoch == PLAIN_EPOCH:
            if self._waits_for_hello(half):
                return self._was_given_up or self._halves[1 - half.direction].state is State.SEALED
            if half.n_hellos and not self._is_13:
                half.restart(DATA_EPOCH)
            return True
        if self._is_13 and kind != APPLICATION_DATA and half.epoch != PLAIN_EPOCH:
            return True
        if not self._is_13 and kind != APPLICATION_DATA:
            held = 0
        elif self._agreement.shows_sizes:
            sizes = suite.inner_size(self.version_number, self.suite_number, n_bytes)
            held = sizes[1] if sizes else UNKNOWN
        else:
            held = UNKNOWN
        half.note_miss(held)
        return True

    def _waits_for_hello(self, half: Half) -> bool:
        """Whether what follows a ClientHello waits for the answer: only that tells which version it is."""
        return self.client == half.direction and half.n_hellos > self._halves[1 - half.direction].n_hellos

    def _wait(self, half: Half, item: Item, out: list[Plain]) -> bool:
        """False if a record can be held, because what is missing may still come; otherwise it seals its direction."""
        other = self._halves[1 - half.direction]
        agreement = self._agreement
        may_come = agreement.lacks if half.n_hellos == other.n_hellos else other.state is not State.SEALED
        if may_come and not self._was_given_up:
            return False
        self._seal(half, item, out)
        return True

    def _read_clear(self, half: Half, item: Item, out: list[Plain]) -> bool | None:
        """A record of a direction that has no keys yet: true, it is done with; false, it waits; None, it is sealed."""
        kind = item.kind
        if half.n_hellos == 0:
            if kind == HANDSHAKE:
                self._take_messages(half, item.body)
            elif self._is_retried and kind != HANDSHAKE and not half.is_blind:
                # between a HelloRetryRequest and what answers it: nothing, or early data that was refused with it
                half.n_skipped += 1
                if half.n_skipped > EARLY_RECORDS or (kind == APPLICATION_DATA and half.direction != self.client):
                    self._seal(half, item, out)
            elif kind in (APPLICATION_DATA, CHANGE_CIPHER_SPEC):
                self._seal(half, item, out)  # its beginning was not captured
            return True
        if self._waits_for_hello(half):
            return self._wait(half, item, out)
        if self._is_13:
            if kind != APPLICATION_DATA:
                return True
            is_early = self._agreement.client is not None and self._agreement.client.has_early_data
            was_lossy = half.is_lossy
            half.restart(EARLY_EPOCH if is_early and not self._is_retried else HANDSHAKE_EPOCH)
            half.is_lossy = was_lossy
            return None
        if kind == CHANGE_CIPHER_SPEC:
            half.restart(DATA_EPOCH)
            return True
        if kind == HANDSHAKE and not half.is_blind:
            self._take_messages(half, item.body)
            return True
        if half.is_blind and kind in (ALERT, HANDSHAKE, APPLICATION_DATA):
            return self._read_unsure(half, item)
        if kind == APPLICATION_DATA:
            self._seal(half, item, out)
        return True

    def _read_unsure(self, half: Half, item: Item) -> bool | None:
        """A record of TLS 1.2 where ChangeCipherSpec may have been lost."""
        found = self._agreement.find_keys(DATA_EPOCH, is_client=self.client == half.direction)
        if not found and self._agreement.lacks and not self._was_given_up:
            return False
        if item.kind == HANDSHAKE and all(
            self._try(keys, seq, item) is None for keys in found for seq in range(NEAR_RECORDS)
        ):
            return True  # it is not sealed
        half.restart(DATA_EPOCH)
        half.adopt(found)
        half.is_lossy = True
        return None

    def _read_early(self, half: Half, item: Item, mark: Mark, out: list[Plain]) -> bool:
        """A record of a client that offered early data (RFC 8446 section 4.2.10)."""
        server = self._halves[1 - half.direction]
        if self._takes_early is None and server.state is not State.SEALED and server.epoch != DATA_EPOCH:
            if not self._was_given_up:
                return False  # EncryptedExtensions tells
        if self._takes_early and half.opener is None and half.n_skipped == 0:
            half.adopt(self._agreement.find_keys(EARLY_EPOCH, is_client=True))
        if half.opener is not None:
            data = self._open(half, item)
            if data is None:
                self._seal(half, item, out)
            else:
                self._take(half, item.kind, data, mark, out)
            return True
        # refused, or its key was not logged: it goes by until the handshake's key fits
        if not self._agreement.find_keys(HANDSHAKE_EPOCH, is_client=True):
            return self._wait(half, item, out)
        if self._takes_early is not False:
            half.add_lost(UNKNOWN)
        data = self._search(half, item, only_near=True)
        if data is not None:
            self._take(half, item.kind, data, mark, out)
            return True
        half.n_skipped += 1
        if half.n_skipped > EARLY_RECORDS:
            self._seal(half, item, out)
        return True

    def _prepare(self, half: Half) -> bool:
        """Find the keys of a direction's epoch."""
        if half.n_hellos != self._halves[1 - half.direction].n_hellos:
            return False
        if half.adopt(self._agreement.find_keys(half.epoch, is_client=self.client == half.direction)):
            return True
        self._agreement.lacks |= bool(half.failed)
        return False

    def _open(self, half: Half, item: Item) -> bytes | None:
        """What a sealed record holds; None where it cannot be opened."""
        seq = half.seq + half.ahead
        data = None if half.opener is None else half.opener.open(seq, item.kind, item.version, item.body)
        if data is None:
            for keys in half.rivals:
                data = self._try(keys, seq, item)
                if data is not None:
                    half.prefer(keys)
                    break
        if data is None:
            # nothing was lost and nothing was ever opened: the keys are others
            return self._search(half, item) if half.was_lossy or half.state is State.OPEN else None
        self._note_opened(half, seq)
        return data

    def _note_opened(self, half: Half, seq: int) -> None:
        half.note_opened(seq, is_13=self._is_13)
        if half.is_unproven:
            had_rivals = bool(half.rivals or half.failed)
            half.is_unproven, half.rivals = False, []
            is_client = self.client == half.direction
            self._agreement.prove(half.secret, half.epoch, is_client=is_client, had_rivals=had_rivals)

    def _ways(self, half: Half, body: bytes) -> list[_Way]:
        """Keys that a record behind a loss may be under, the most likely first."""
        ways = []
        is_client = self.client == half.direction
        if half.opener is not None:
            start = half.seq if half.ahead <= NEAR_RECORDS else half.seq + half.ahead
            ways.append(_Way(Keys(half.opener, half.secret), half.epoch, half.opener.guess(start, body)))
            ways += [_Way(Keys(*keys), half.epoch, start) for keys in half.rivals]
        if self._is_13 and half.epoch == DATA_EPOCH and half.secret:
            keys = self._agreement.update(half.secret)
            ways += [_Way(keys, DATA_EPOCH, 0)] if keys else []
        elif self._is_13:
            for epoch in range(half.epoch + 1, DATA_EPOCH + 1):
                ways += [_Way(keys, epoch, 0) for keys in self._agreement.find_keys(epoch, is_client=is_client)]
        return ways

    @staticmethod
    def _try(keys: tuple[cipher.Opener, bytes], seq: int, item: Item) -> bytes | None:
        return keys[0].open(seq, item.kind, item.version, item.body)

    def _search(self, half: Half, item: Item, *, only_near: bool = False) -> bytes | None:
        """Open a record behind lost ones: try its number, and the keys that may have come since."""
        ways = self._ways(half, item.body)
        for first, last in ((0, NEAR_RECORDS), (NEAR_RECORDS, NEAR_RECORDS if only_near else SEARCH_RECORDS)):
            for keys, epoch, start in ways:
                for seq in range(start + first, start + last):
                    data = self._try(keys, seq, item)
                    if data is None:
                        continue
                    if keys in half.rivals:
                        half.prefer(keys)
                    elif keys.opener is not half.opener:
                        if half.epoch in (DATA_EPOCH, EARLY_EPOCH) and half.opener is not None:
                            half.add_lost(UNKNOWN)  # what else came under the keys before
                        half.restart(epoch, *keys)
                        half.is_unproven = True
                    self._note_opened(half, seq)
                    return data
        return None

    def _take(self, half: Half, kind: int, data: bytes, mark: Mark, out: list[Plain]) -> None:
        """What a record held."""
        if self._is_13:
            data = data.rstrip(b"\0")  # padding, behind the type (RFC 8446 section 5.4)
            kind, data = data[-1] if data else 0, data[:-1]
        if kind == APPLICATION_DATA:
            if half.epoch == HANDSHAKE_EPOCH:
                return
            half.has_data = half.epoch == DATA_EPOCH
            half.is_fast = half.epoch == DATA_EPOCH
            half.is_blind = False  # no handshake message is interrupted by it
            out.append(Plain(half.direction, mark, kind, data, half.lost))
            half.lost = 0
        elif kind == ALERT:
            self._take_alerts(half, data, mark, out, was_encrypted=True)
        elif kind == HANDSHAKE:
            self._take_messages(half, data)
        elif kind == CHANGE_CIPHER_SPEC and not self._is_13:
            half.restart(DATA_EPOCH)  # renegotiation

    def _tell_loss(self, half: Half, mark: Mark, out: list[Plain]) -> None:
        if half.lost:
            out.append(Plain(half.direction, mark, APPLICATION_DATA, b"", half.lost))
            half.lost = 0

    def _take_alerts(self, half: Half, data: bytes, mark: Mark, out: list[Plain], *, was_encrypted: bool) -> None:
        self._tell_loss(half, mark, out)
        for off in range(0, min(len(data) - 1, 2 * ALERTS_PER_RECORD), 2):
            pair = data[off : off + 2]
            out.append(Plain(half.direction, mark, ALERT, pair, 0))
            self._note_alert(Alert(half.direction, mark, *parse_alert(pair), was_encrypted))

    def _note_alert(self, alert: Alert) -> None:
        if len(self.alerts) < MAX_ALERTS:
            self.alerts.append(alert)

    def _seal(self, half: Half, item: Item, out: list[Plain]) -> None:
        """Nothing more of this direction can be read, from this record on."""
        items = [item, *(held for held in half.held or () if held is not item)]
        if half.held:
            self.held_bytes -= sum(len(held.body) + HELD_RECORD_BYTES for held in half.held)
            half.held.clear()
        half.state = State.SEALED
        half.restart(half.epoch)
        half.lost = 0
        if item.mark is not None:
            out.append(Plain(half.direction, item.mark, APPLICATION_DATA, b"", UNKNOWN))
        for one in items:
            if one.mark is not None and one.kind != MISS:
                self._note_sealed(half, one, one.mark, out)

    def _note_sealed(self, half: Half, item: Item, mark: Mark, out: list[Plain]) -> None:
        """What a record shows that cannot be opened."""
        if item.kind == ALERT:
            if len(item.body) == 2:
                self._take_alerts(half, item.body, mark, out, was_encrypted=False)
            else:
                self._note_alert(Alert(half.direction, mark, None, None, was_encrypted=True))
        elif item.kind == APPLICATION_DATA:
            client = self._agreement.client
            if not self._is_13:
                half.has_data = True
            elif half.direction != self.client:
                half.has_finished = True
            elif len(item.body) >= FINISHED_BYTES and client is not None and not client.has_early_data:
                half.has_finished = True

    def _take_messages(self, half: Half, data: bytes) -> None:
        """Bytes of handshake messages, cut into records anyhow (RFC 8446 section 5.1)."""
        if half.is_blind:
            if half.epoch != PLAIN_EPOCH or half.n_hellos or data[:1] not in (b"\x01", b"\x02"):
                return
            half.is_blind = half.is_lossy = False
        for message, body in half.cut_messages(data):
            if message in (CERTIFICATE, SERVER_HELLO_DONE):
                self._agreement.is_full = True
            if self._take_message(half, message, body):
                break  # the rest of the record, if any, would be under the keys of before, which is not allowed

    def _take_message(self, half: Half, message: int, body: bytes) -> bool:
        """One handshake message; true if the keys of its direction changed."""
        if message == CLIENT_HELLO:
            return self._take_client_hello(half, body)
        if message == SERVER_HELLO:
            return self._take_server_hello(half, body)
        if half.epoch == PLAIN_EPOCH:
            if message == NEW_SESSION_TICKET and not self._is_13:
                self._note_ticket(body)
            return False
        if message == FINISHED:
            half.has_finished = True
            if half.epoch == HANDSHAKE_EPOCH:
                half.restart(DATA_EPOCH)
                return True
        elif message == ENCRYPTED_EXTENSIONS and half.epoch == HANDSHAKE_EPOCH and half.direction != self.client:
            self.alpn, self._takes_early = hello.parse_encrypted_extensions(body)
        elif message == END_OF_EARLY_DATA and half.epoch == EARLY_EPOCH:
            half.restart(HANDSHAKE_EPOCH)
            return True
        elif message == KEY_UPDATE and self._is_13 and half.epoch == DATA_EPOCH:
            keys = self._agreement.update(half.secret)
            if keys is not None:
                half.restart(DATA_EPOCH, *keys)
                return True
        elif message == NEW_SESSION_TICKET and not self._is_13:
            self._note_ticket(body)  # in a renegotiation
        return False

    def _note_ticket(self, body: bytes) -> None:
        if ticket := hello.parse_ticket(body):
            self._agreement.note_name(ticket)

    def _take_client_hello(self, half: Half, body: bytes) -> bool:
        if (self._is_13 and half.epoch != PLAIN_EPOCH) or self.client == 1 - half.direction:
            return False
        found = hello.parse_client_hello(body)
        if found is None:
            return False
        self.client = half.direction
        half.n_hellos += 1
        self._agreement.set_client(found)
        self.sni = self.sni or found.sni
        self.alpn_offers = self.alpn_offers or found.alpn_offers
        return False

    def _take_server_hello(self, half: Half, body: bytes) -> bool:
        if (self._is_13 and half.epoch != PLAIN_EPOCH) or self.client == half.direction:
            return False
        found = hello.parse_server_hello(body)
        if found is None:
            return False
        self.client = 1 - half.direction
        self._agreement.set_server(found)
        self._is_13 = self._agreement.is_13
        self.version = suite.VERSIONS.get(found.version, f"0x{found.version:04X}")
        self.cipher = suite.name_suite(found.suite)
        if found.is_retry and self._is_13:
            if not self._is_retried:
                self._is_retried = True
                self._halves[self.client].n_hellos = 0
            return False
        half.n_hellos += 1
        if not self._is_13:
            self.alpn = self.alpn or found.alpn
            return False
        half.restart(HANDSHAKE_EPOCH)
        return True


def _first_packet(half: Half) -> int:
    """Where the first record stood that a direction holds back; a loss concerns it alone."""
    mark = half.held[0].mark if half.held else None
    return 0 if mark is None else mark.packet
