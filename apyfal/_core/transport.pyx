"""Many HTTP/1.1 exchanges over connected sockets in one call without the interpreter's lock."""

cimport cython
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_CONTIG, PyBUF_CONTIG_RO, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free

from apyfal._core cimport capi
from apyfal._core.buffer cimport wrap
from apyfal._core.errors cimport check
from apyfal._core.tls cimport Session
from apyfal import exceptions

WAITING = capi.APF_EXCHANGE_WAITING
ACTIVE = capi.APF_EXCHANGE_ACTIVE
DONE = capi.APF_EXCHANGE_DONE
ANSWERED = capi.APF_EXCHANGE_ANSWERED
BROKEN = capi.APF_EXCHANGE_BROKEN
STALLED = capi.APF_EXCHANGE_STALLED
UNFIT = capi.APF_EXCHANGE_UNFIT
MOST_CONNECTIONS = capi.APF_TRANSPORT_CONNECTIONS

cdef long long _PAUSE = 50 * 1000 * 1000  # ns after which signals are looked for


@cython.no_gc_clear  # the sessions must live until the transport has released them
cdef class Transport:
    """Requests, and what became of each; see csrc/include/transport.h.

    Parameters
    ----------
    requests : sequence of bytes
        Complete request heads, with the blank line.
    outs : sequence of buffers or None
        Where the body of each response goes; it must have exactly the size of the buffer. A ``None`` in the sequence:
        the body goes into memory of the pool.
    guessed : bool
        A body of another size than its buffer in `outs` goes into memory of the pool, too.
    contents : sequence of buffers or None
        What is sent after each head. The bodies of the responses are then discarded.
    stall : float
        Seconds that a connection may wait for anything to move.
    largest : int
        Largest body in memory of the pool, in bytes.
    mistakes : int
        Number of unusual responses after which no further exchange is started.
    keep_heads : bool
        Whether `answer` also returns the heads of ordinary responses.
    bodiless : bool
        The requests are HEAD requests: no body follows the head of a response.

    Notes
    -----
    Used by one thread at a time, except `interrupt`: another one gets `BufferInUse`. The caller owns the sockets.
    """

    cdef capi.apf_transport *handle
    cdef capi.apf_exchange *exchanges
    cdef Py_buffer *views
    cdef Py_ssize_t count, viewed
    cdef tuple requests
    cdef dict sessions

    def __cinit__(self, requests, outs=None, contents=None, *, stall, largest, mistakes,
                  keep_heads=False, bodiless=False, guessed=False):
        cdef capi.apf_error err
        cdef capi.apf_transport_options options
        cdef Py_ssize_t index
        cdef capi.apf_exchange *one
        # Copies: the caller's lists may change meanwhile, and the heads are read where they lie.
        self.requests = tuple(requests)
        outs = None if outs is None else tuple(outs)
        contents = None if contents is None else tuple(contents)
        self.count = len(self.requests)
        if any(len(given) != self.count for given in (outs, contents) if given is not None):
            raise exceptions.ParameterError("a transport needs as many buffers as requests")
        self.sessions = {}
        self.exchanges = <capi.apf_exchange *> calloc(self.count + 1, sizeof(capi.apf_exchange))
        self.views = <Py_buffer *> calloc(self.count + 1, sizeof(Py_buffer))
        if self.exchanges == NULL or self.views == NULL:
            raise exceptions.HostMemoryExhausted(f"no memory for {self.count} exchanges")
        for index in range(self.count):
            one = &self.exchanges[index]
            request = self.requests[index]
            if type(request) is not bytes:
                raise TypeError(f"a request is a {type(request).__name__}; expected bytes")
            one.request = <const unsigned char *> PyBytes_AsString(request)
            one.request_size = len(request)
            one.keep_head = bool(keep_heads)
            one.bodiless = bool(bodiless)
            if outs is not None and outs[index] is not None:
                PyObject_GetBuffer(outs[index], &self.views[self.viewed], PyBUF_CONTIG)
                one.out = <unsigned char *> self.views[self.viewed].buf
                one.out_size = self.views[self.viewed].len
                one.guessed = bool(guessed)
                self.viewed += 1
            elif contents is not None:
                PyObject_GetBuffer(contents[index], &self.views[self.viewed], PyBUF_CONTIG_RO)
                one.content = <const unsigned char *> self.views[self.viewed].buf
                one.content_size = self.views[self.viewed].len
                one.discard = True
                self.viewed += 1
        options.stall = <long long> (stall * 1e9)
        options.largest = largest
        options.mistakes = mistakes
        check(capi.apf_transport_new(self.exchanges, self.count, &options, &self.handle, &err), &err)

    def __dealloc__(self):
        capi.apf_transport_free(self.handle)
        for session in (self.sessions or {}).values():
            if session is not None:
                (<Session> session)._left()
        free(self.exchanges)
        for index in range(self.viewed):
            PyBuffer_Release(&self.views[index])
        free(self.views)

    def attach(self, descriptor, kept, Session session=None):
        """Use a connected socket, or the TLS session on it; return its slot. `kept`: it served a request before."""
        cdef capi.apf_error err
        cdef capi.uint32_t slot = 0
        cdef int fd = descriptor, before = kept
        cdef int code
        cdef capi.apf_tls *secure = NULL if session is None else session.handle
        self._claim()
        code = capi.apf_transport_attach(self.handle, fd, secure, before, &slot, &err)
        if code == capi.APF_OK:
            self.sessions[slot] = session  # keeps it alive while it is used
        capi.apf_transport_unclaim(self.handle)
        if code != capi.APF_OK and session is not None:
            session._left()
        check(code, &err)
        return slot

    def detach(self, slot):
        """Stop using a connection; return whether another request can be sent on it."""
        cdef capi.uint32_t place = slot
        self._claim()
        cdef Session session
        usable = capi.apf_transport_detach(self.handle, place)
        session = self.sessions.pop(slot, None)
        capi.apf_transport_unclaim(self.handle)
        if session is not None:
            session._left()  # it may have been closed meanwhile
        return bool(usable)

    def run(self, connections):
        """Exchange until nothing is under way (``True``), or until fewer than `connections` are left (``False``).

        Raises
        ------
        TransferCancelled
            `interrupt` was called.
        """
        cdef capi.apf_error err
        cdef capi.uint32_t wanted = connections
        cdef int code
        self._claim()
        try:
            while True:
                with nogil:
                    code = capi.apf_transport_run(self.handle, wanted, _PAUSE, &err)
                if code == capi.APF_TRANSPORT_ENDED:
                    return True
                if code == capi.APF_TRANSPORT_FEWER:
                    return False
                if code == capi.APF_CANCELLED:
                    raise exceptions.TransferCancelled("the transfer was cancelled")
                if code != capi.APF_TRANSPORT_PAUSED:
                    check(code, &err)
                PyErr_CheckSignals()
        finally:
            capi.apf_transport_unclaim(self.handle)

    def interrupt(self):
        """Make `run` raise at once, now and from then on. From any thread."""
        capi.apf_transport_cancel(self.handle)

    def lost(self, slot):
        """Whether the connection is lost, so that its socket is to be closed."""
        cdef capi.uint32_t place = slot
        self._claim()
        lost = capi.apf_transport_lost(self.handle, place)
        capi.apf_transport_unclaim(self.handle)
        return bool(lost)

    def usable(self, slot):
        """Whether another request can be sent on the connection."""
        cdef capi.uint32_t place = slot
        self._claim()
        usable = capi.apf_transport_usable(self.handle, place)
        capi.apf_transport_unclaim(self.handle)
        return bool(usable)

    def states(self):
        """What became of the exchanges: a byte each."""
        cdef Py_ssize_t index
        cdef bytes states = PyBytes_FromStringAndSize(NULL, self.count)
        cdef char *to = PyBytes_AsString(states)
        self._claim()
        for index in range(self.count):
            to[index] = self.exchanges[index].state
        capi.apf_transport_unclaim(self.handle)
        return states

    def take(self, index):
        """Give the memory of the pool that the body of an answer is in; ``None``: there is none."""
        cdef capi.apf_exchange *one = self._at(index)
        cdef capi.apf_buffer *taken
        self._claim()  # a body that is still being received is nobody's yet; and two threads must not take the same
        taken, one.buffer = one.buffer, NULL
        capi.apf_transport_unclaim(self.handle)
        return None if taken == NULL else wrap(taken)

    def in_place(self, index):
        """Whether the body of an answer is, or would be, in its buffer of `outs`."""
        cdef capi.apf_exchange *one = self._at(index)
        self._claim()
        placed = one.out != NULL
        capi.apf_transport_unclaim(self.handle)
        return placed

    def answer(self, index):
        """Give what was kept: the head, the body behind it, and the bytes of body that are in place."""
        cdef capi.apf_exchange *one = self._at(index)
        self._claim()
        try:
            if one.kept == NULL:
                return b"", b"", 0
            head = PyBytes_FromStringAndSize(<const char *> one.kept, one.head_size)
            body = PyBytes_FromStringAndSize(<const char *> one.kept + one.head_size, one.kept_size)
            return head, body, one.received
        finally:
            capi.apf_transport_unclaim(self.handle)

    cdef int _claim(self) except -1:
        if capi.apf_transport_claim(self.handle) != capi.APF_OK:
            raise exceptions.BufferInUse("the transport is in use by another thread")
        return 0

    cdef capi.apf_exchange *_at(self, index) except NULL:
        cdef Py_ssize_t place = index
        if not 0 <= place < self.count:
            raise IndexError(f"exchange {index} of {self.count}")
        return &self.exchanges[place]
