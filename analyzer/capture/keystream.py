"""AES in counter mode for many TLS records at once (RFC 8446 section 5.2, RFC 5288); kernels only, without the AES.

The caller encrypts the counter blocks that are planned here. Tags are not compared one by one: all equations of GHASH
(NIST SP 800-38D section 6.4) of a lane are added up to one polynomial of the hash key, which has to be 0 there. Each is
moved by a number of blocks that nobody who writes captures can know, so that errors do not cancel each other out.
"""

from analyzer.kernel import kernel
from analyzer.model import APPLICATION_DATA, Octets, Rows, int64

TAG_BYTES, EXPLICIT_BYTES = 16, 8

SHIFTS = 16
"""By how many blocks, less one, an equation may be moved."""

LEAST_SUM_BLOCKS = 32

N_BLOCKS, N_SUM_BLOCKS = 0, 1
STATE_SIZE = 2
"""Places in the int64 array `state` of this step."""


@kernel
def sealed_size(record: Rows, lane: Rows) -> int:
    """How many bytes were encrypted in a record, in TLS 1.3 with the content type; -1 where it is another's to read."""
    if int64(record["kind"]) != APPLICATION_DATA or int64(record["is_whole"]) == 0:
        return -1
    n = int64(record["n_bytes"])
    if int64(lane["is_13"]):
        return n - TAG_BYTES if n > TAG_BYTES else -1
    return n - TAG_BYTES - EXPLICIT_BYTES if n >= TAG_BYTES + EXPLICIT_BYTES else -1


@kernel
def plan(records: Rows, lanes: Rows, used: Rows, places: Rows, state: Rows) -> int:
    """Say which records are opened here, and where their counter blocks lie.

    Args:
        used: Becomes the LANE indexes that have any.
        places: Becomes, for each record, the first of its blocks, counted from its lane's first; -1 for none.

    Returns:
        How many lanes have any.

    """
    n_used = 0
    for i in range(len(records)):
        record = records[i]
        places[i] = -1
        index = 2 * int64(record["layer"]) + (int64(record["stream"]) & 1)
        lane = lanes[index]
        if int64(lane["is_fast"]) == 0 or i < int64(lane["begin"]):
            continue
        if int64(lane["is_used"]) == 0:
            lane["is_used"] = 1
            lane["n_blocks"] = 0
            lane["most_blocks"] = 0
            lane["stop"] = len(records)
            used[n_used] = index
            n_used += 1
        if i >= int64(lane["stop"]):
            continue
        n = sealed_size(record, lane)
        if n < 0:
            lane["stop"] = i
            continue
        blocks = (n + 15) >> 4
        places[i] = int64(lane["n_blocks"])
        lane["n_blocks"] = int64(lane["n_blocks"]) + blocks + 1
        lane["most_blocks"] = max(int64(lane["most_blocks"]), blocks)
    at, sum_at = 0, 0
    for k in range(n_used):
        lane = lanes[int64(used[k])]
        lane["next_seq"] = int64(lane["seq"])
        lane["first_block"] = at
        at += int64(lane["n_blocks"])
        size = LEAST_SUM_BLOCKS
        while size < int64(lane["most_blocks"]) + 3 + SHIFTS:
            size *= 2
        lane["sum_block"] = sum_at
        lane["sum_blocks"] = size
        sum_at += size
    state[N_BLOCKS] = at
    state[N_SUM_BLOCKS] = sum_at
    return n_used


@kernel
def count_up(records: Rows, arena: Octets, lanes: Rows, places: Rows, blocks: Octets, words: Rows) -> None:
    """Write the counter blocks: for each record that of its tag, then those of its bytes.

    Args:
        places: Becomes the first block of each record, counted from the first of all.
        words: `blocks` as int64.

    """
    for i in range(len(records)):
        if int64(places[i]) < 0:
            continue
        record = records[i]
        lane = lanes[2 * int64(record["layer"]) + (int64(record["stream"]) & 1)]
        place = int64(places[i]) + int64(lane["first_block"])
        places[i] = place
        seq, base = int64(lane["next_seq"]), 16 * place
        lane["next_seq"] = seq + 1
        iv = lane["iv"]
        for k in range(4):
            blocks[base + k] = int64(iv[k])
        if int64(lane["is_13"]):
            for k in range(8):
                blocks[base + 4 + k] = int64(iv[4 + k]) ^ ((seq >> (56 - 8 * k)) & 255)
        else:
            off = int64(record["off"])
            for k in range(8):
                blocks[base + 4 + k] = int64(arena[off + k])
        blocks[base + 12] = 0
        blocks[base + 13] = 0
        blocks[base + 14] = 0
        blocks[base + 15] = 1
        first, second = int64(words[2 * place]), int64(words[2 * place + 1])
        n = (sealed_size(record, lane) + 15) >> 4  # 1,152 at most
        for k in range(1, n + 1):
            words[2 * (place + k)] = first
            words[2 * (place + k) + 1] = second
            blocks[base + 16 * k + 14] = (k + 1) >> 8
            blocks[base + 16 * k + 15] = (k + 1) & 255


@kernel
def add_equation(
    record: Rows,
    lane: Rows,
    seq: int,
    n: int,
    arena: Octets,
    off: int,
    stream: Octets,
    base: int,
    sums: Octets,
    at: int,
) -> None:
    """Add to a lane's sum all of a record's equation but the encrypted bytes.

    Args:
        n: How many were encrypted, from `off` in the arena on.
        base: Where the encrypted counter block of the tag lies in `stream`.
        at: Where the block behind the equation begins in `sums`.

    """
    for k in range(TAG_BYTES):
        sums[at + k] = int64(sums[at + k]) ^ int64(arena[off + n + k]) ^ int64(stream[base + k])
    length, head = at - 16, at - 32 - 16 * ((n + 15) >> 4)
    version, size = int64(record["version"]), n
    if int64(lane["is_13"]):
        version, size = 0x0303, n + TAG_BYTES
    else:
        for k in range(8):
            sums[head + k] = int64(sums[head + k]) ^ ((seq >> (56 - 8 * k)) & 255)
        head += 8
    sums[head] = int64(sums[head]) ^ APPLICATION_DATA
    sums[head + 1] = int64(sums[head + 1]) ^ (version >> 8)
    sums[head + 2] = int64(sums[head + 2]) ^ (version & 255)
    sums[head + 3] = int64(sums[head + 3]) ^ (size >> 8)
    sums[head + 4] = int64(sums[head + 4]) ^ (size & 255)
    sums[length + 7] = int64(sums[length + 7]) ^ (5 * 8 if int64(lane["is_13"]) else 13 * 8)
    sums[length + 13] = int64(sums[length + 13]) ^ ((8 * n) >> 16)
    sums[length + 14] = int64(sums[length + 14]) ^ (((8 * n) >> 8) & 255)
    sums[length + 15] = int64(sums[length + 15]) ^ ((8 * n) & 255)


@kernel
def decrypt(
    records: Rows,
    arena: Octets,
    arena_words: Rows,
    lanes: Rows,
    places: Rows,
    sizes: Rows,
    stream: Octets,
    stream_words: Rows,
    sums: Octets,
    sum_words: Rows,
    shifts: Rows,
) -> None:
    """Decrypt records, find their content types, and add their equations up.

    A lane stops at the first record that holds no application data.

    Args:
        sizes: Becomes how many bytes of application data each record holds.
        stream: The encrypted counter blocks; becomes what was encrypted. `stream_words` is the same as int64.
        sums: A sum of equations for each lane, 0 at first, and as int64.
        shifts: By how much to move each; as many as nobody guesses, each less than `SHIFTS`.

    """
    for i in range(len(records)):
        place = int64(places[i])
        if place < 0:
            continue
        record = records[i]
        lane = lanes[2 * int64(record["layer"]) + (int64(record["stream"]) & 1)]
        if i >= int64(lane["stop"]):
            continue
        n, off, base = sealed_size(record, lane), int64(record["off"]), 16 * place
        if int64(lane["is_13"]) == 0:
            off += EXPLICIT_BYTES
        n_words, source, target = n >> 3, off >> 3, 2 * place + 2
        for k in range(n_words):
            stream_words[target + k] = int64(stream_words[target + k]) ^ int64(arena_words[source + k])
        for k in range(8 * n_words, n):
            stream[base + 16 + k] = int64(stream[base + 16 + k]) ^ int64(arena[off + k])
        size = n
        if int64(lane["is_13"]):
            while size > 0 and int64(stream[base + 15 + size]) == 0:
                size -= 1
            if size == 0 or int64(stream[base + 15 + size]) != APPLICATION_DATA:
                lane["stop"] = i
                continue
            size -= 1
        sizes[i] = size
        behind = int64(lane["sum_block"]) + int64(lane["sum_blocks"]) - 1 - int64(shifts[i % len(shifts)])
        add_equation(record, lane, int64(lane["next_seq"]), n, arena, off, stream, base, sums, 16 * behind)
        lane["next_seq"] = int64(lane["next_seq"]) + 1
        first = behind - 1 - ((n + 15) >> 4)
        for k in range(n_words):
            sum_words[2 * first + k] = int64(sum_words[2 * first + k]) ^ int64(arena_words[source + k])
        for k in range(8 * n_words, n):
            sums[16 * first + k] = int64(sums[16 * first + k]) ^ int64(arena[off + k])


@kernel
def begin_again(lanes: Rows, used: Rows, n_used: int) -> None:
    """Count records from each lane's first once more."""
    for k in range(n_used):
        lane = lanes[int64(used[k])]
        lane["next_seq"] = int64(lane["seq"])


@kernel
def emit(
    records: Rows,
    arena: Octets,
    lanes: Rows,
    places: Rows,
    sizes: Rows,
    n_before: int,
    spans: Rows,
    order: Rows,
    kind: int,
) -> int:
    """Write a SPAN of this kind for every record that was opened, and move the lanes on.

    Args:
        n_before: Bytes that stand before the decrypted ones.
        order: Becomes the record of each span.

    Returns:
        How many there are.

    """
    n_spans = 0
    for i in range(len(records)):
        place = int64(places[i])
        if place < 0:
            continue
        record = records[i]
        lane = lanes[2 * int64(record["layer"]) + (int64(record["stream"]) & 1)]
        if i >= int64(lane["stop"]):
            continue
        lane["seq"] = int64(lane["seq"]) + 1
        lane["end_pos"] = int64(record["end_pos"])
        lane["ack_pos"] = int64(record["ack_pos"])
        lane["ts_ns"] = int64(record["ts_ns"])
        lane["packet"] = int64(record["packet"])
        if int64(lane["is_13"]) == 0:
            explicit, off = lane["explicit"], int64(record["off"])
            for k in range(8):
                explicit[k] = int64(arena[off + k])
        n = int64(sizes[i])
        if n == 0:
            continue
        span = spans[n_spans]
        span["pos"] = int64(record["end_pos"]) - n
        span["off"] = n_before + 16 * place + 16
        span["n_bytes"] = n
        span["ts_ns"] = int64(record["ts_ns"])
        span["packet"] = int64(record["packet"])
        span["ack_pos"] = int64(record["ack_pos"])
        span["stream"] = int64(record["stream"])
        span["kind"] = kind
        order[n_spans] = i
        n_spans += 1
    return n_spans
