"""Why connections ended, where the evidence establishes it: so far, that they were lost with what carried them.

Several WebSockets of one HTTP/2 connection that are lost with it are as many effects of one cause (row 21 of the
decision table). Nothing is claimed of a connection that a limit dropped, nor where a Close may have been missed.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.capture.finished import Finished
from analyzer.model import EVIDENCES, INITIATORS, Cause, Confidence, Evidence, Initiator, Rows
from analyzer.table import Values
from analyzer.verdict.classify import HIGH, Views

BY_TCP = tuple(EVIDENCES.index(one) for one in (Evidence.NO_CLOSE_FIN, Evidence.NO_CLOSE_RST))
"""What a view says that nothing but the end of TCP has told."""


def columns(finished: Finished, views: Sequence[Views], initiators: Rows) -> dict[str, Values]:
    """Columns of `connections` about causes, by name.

    All that are lost with one TCP connection are among those that finish with it, so they are counted here.

    Args:
        finished: Connections that are over.
        views: The clients' views of them, and the servers'.
        initiators: Who sent the first Close of each, as an index into INITIATORS.

    """
    lost = finished.connections["http2_stream"] > 0
    if not lost.any():
        return {}
    lost &= ~finished.evicted & ~finished.by_stream.any(axis=1) & (initiators == INITIATORS.index(Initiator.NONE))
    by_tcp = [np.isin(view.evidence, BY_TCP) & view.has_row for view in views]
    lost &= by_tcp[0] | by_tcp[1]
    flows = finished.connections["flow"].tolist()
    together = Counter(flow for flow, is_lost in zip(flows, lost.tolist(), strict=True) if is_lost)
    found: dict[str, list[Any]] = {name: [None] * len(lost) for name in ("cause", "cause_confidence")}
    found |= {name: [None] * len(lost) for name in ("shared_by", "carried")}
    for i in np.flatnonzero(lost).tolist():
        fate = finished.fates.get(i)
        levels = {view.confidence[i] for view, told in zip(views, by_tcp, strict=True) if told[i]}
        found["cause"][i] = Cause.TCP_LOST
        found["cause_confidence"][i] = Confidence.HIGH if levels == {HIGH} else Confidence.MEDIUM
        found["shared_by"][i] = together[flows[i]]
        found["carried"][i] = None if fate is None or fate.n_carried < 0 else fate.n_carried
    return dict(found)
