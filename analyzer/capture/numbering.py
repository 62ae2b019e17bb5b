"""Which file of a series holds a packet: the tracker numbers packets over all files, people count in each."""

import numpy as np
import numpy.typing as npt

from analyzer.table import Coded


class Numbering:
    """Files in the order in which they were read, and how many packets came before each.

    Attributes:
        n_packets: Packets of all files so far.

    """

    def __init__(self, *sources: str) -> None:
        """Begin with these files, the last of which holds all packets to come."""
        self.n_packets = 0
        self._sources: list[str] = []
        self._before = np.zeros(8, np.int64)
        for source in sources:
            self.begin(source)

    def begin(self, source: str) -> None:
        """Packets that are added from now on lie in this file."""
        n = len(self._sources)
        if n == len(self._before):
            self._before = np.concatenate([self._before, np.zeros(n, np.int64)])
        self._before[n] = self.n_packets
        self._sources.append(source)

    def add(self, n_packets: int) -> None:
        """Count packets of the file that was begun last."""
        self.n_packets += n_packets

    def _files(self, packets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if len(self._sources) == 1:
            return np.zeros(len(packets), np.int64)
        at = np.searchsorted(self._before[: len(self._sources)], packets, side="left") - 1
        return np.maximum(at, 0)

    def sources_of(self, packets: npt.NDArray[np.int64]) -> Coded:
        """Names of the files that hold these packets; that of the first file for number 0, which is no packet."""
        return Coded(self._sources, self._files(packets))

    def numbers_of(self, packets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Their numbers inside those files, from 1; 0 stays 0."""
        if len(self._sources) == 1:
            return packets
        return packets - self._before[self._files(packets)]
