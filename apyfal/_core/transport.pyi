from collections.abc import Sequence

from apyfal._core.buffer import Buffer, BufferLike
from apyfal._core.tls import Session

WAITING: int
ACTIVE: int
DONE: int
ANSWERED: int
BROKEN: int
STALLED: int
UNFIT: int
MOST_CONNECTIONS: int

class Transport:
    def __init__(
        self,
        requests: Sequence[bytes],
        outs: Sequence[BufferLike | None] | None = None,
        contents: Sequence[BufferLike] | None = None,
        *,
        stall: float,
        largest: int,
        mistakes: int,
        keep_heads: bool = False,
        bodiless: bool = False,
        guessed: bool = False,
    ) -> None: ...
    def attach(self, descriptor: int, kept: bool, session: Session | None = None) -> int: ...
    def detach(self, slot: int) -> bool: ...
    def run(self, connections: int) -> bool: ...
    def interrupt(self) -> None: ...
    def lost(self, slot: int) -> bool: ...
    def usable(self, slot: int) -> bool: ...
    def states(self) -> bytes: ...
    def take(self, index: int) -> Buffer | None: ...
    def in_place(self, index: int) -> bool: ...
    def answer(self, index: int) -> tuple[bytes, bytes, int]: ...
