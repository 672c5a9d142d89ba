"""TLS on connected sockets with the system's OpenSSL, which works without the interpreter lock.

`Session` has the methods of a socket that apyfal uses, and raises the errors of Python's `ssl`.
"""

import errno
import os

from cpython.buffer cimport PyBUF_CONTIG, PyBUF_CONTIG_RO, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals

from apyfal._core cimport capi
from apyfal._core.errors cimport check
from apyfal import exceptions

cdef extern from "<sys/socket.h>" nogil:
    int MSG_WAITALL

cdef extern from "runtime/clock.h" nogil:
    capi.int64_t apf_now()

cdef long long _PAUSE = 50 * 1000 * 1000  # ns between two checks for signals
cdef long long _GATHERED = 250 * 1000 * 1000  # ns after which `recv_into` returns what it has, though it is not all
# X509_V_ERR_..., in the words of Python's ssl
cdef int _HOSTNAME_MISMATCH = 62, _IP_ADDRESS_MISMATCH = 64


def library():
    """Load OpenSSL if that has not been done, and return its version.

    Returns
    -------
    int, str
        Its version number and its name, as ``ssl.OPENSSL_VERSION`` has it.

    Raises
    ------
    DriverUnavailable
        There is no OpenSSL that can be used.
    """
    cdef capi.apf_error err
    cdef unsigned long version = 0
    cdef const char *text = NULL
    check(capi.apf_tls_load(&version, &text, &err), &err)
    return version, text.decode("ascii", "replace")


cdef class Context:
    """Settings, authorities and tickets that sessions share; see csrc/include/tls.h."""

    def __cinit__(self, *, options, verify_flags, minimum, maximum, level, verify, ciphers, suites):
        cdef capi.apf_error err
        cdef capi.apf_tls_settings settings
        cdef bytes names = None if ciphers is None else ciphers.encode("ascii")
        cdef bytes later = None if suites is None else suites.encode("ascii")
        settings.options = options
        settings.verify_flags = verify_flags
        settings.minimum = minimum
        settings.maximum = maximum
        settings.level = level
        settings.verify = bool(verify)
        settings.ciphers = settings.suites = NULL
        if names is not None:
            settings.ciphers = names
        if later is not None:
            settings.suites = later
        check(capi.apf_tls_context_new(&settings, &self.handle, &err), &err)

    def __dealloc__(self):
        capi.apf_tls_context_release(self.handle)

    def trust(self, file, folder):
        """Trust the authorities in a PEM file, or in a folder of files named by their hash; the other is ``None``.

        Call it before the first session is made. Raises `ParameterError` if they cannot be read.
        """
        cdef capi.apf_error err
        cdef bytes one = None if file is None else os.fsencode(file)
        cdef bytes other = None if folder is None else os.fsencode(folder)
        cdef const char *path = NULL
        cdef const char *place = NULL
        cdef int code
        if one is not None:
            path = one
        if other is not None:
            place = other
        with nogil:  # thousands of lines of base64 take long
            code = capi.apf_tls_context_trust(self.handle, path, place, &err)
        check(code, &err)


cdef class Session:
    """TLS on a connected socket. Used by one thread at a time, except `close`: another one gets `BufferInUse`.

    Parameters
    ----------
    context : Context
        Settings and authorities.
    sock : socket.socket
        The connected socket; owned by the session from now on, and closed by `close`.
    host : str
        The name or IP address that the certificate must be for, in ASCII.
    port : int
        Tickets are kept by host and port.
    timeout : float
        Seconds to wait for the peer.

    Raises
    ------
    ParameterError
        `host` is empty, too long or begins with a dot.
    ValueError
        `host` contains a NUL or is not ASCII.
    """

    def __cinit__(self, Context context not None, sock, host, port, timeout):
        cdef capi.apf_error err
        cdef bytes name = host.encode("ascii")
        if b"\0" in name:
            raise ValueError("a host's name has no zero byte")
        self.sock = sock
        self.host = host
        self.settimeout(timeout)
        check(capi.apf_tls_new(context.handle, sock.fileno(), name, port, &self.handle, &err), &err)

    def __dealloc__(self):
        capi.apf_tls_free(self.handle)

    @property
    def resumed(self):
        """Whether the session was resumed with a ticket."""
        return bool(capi.apf_tls_resumed(self.handle))

    def settimeout(self, timeout):
        """Set the seconds to wait for the peer."""
        self.timeout = <long long> (timeout * 1e9)

    def fileno(self):
        """Return the descriptor of the socket."""
        return self.sock.fileno()

    def close(self):
        """Close the socket without a close_notify. A call in another thread ends with ``EBADF``, and closes it."""
        capi.apf_tls_close(self.handle)
        self._left()

    def handshake(self):
        """Agree on keys with the peer, and verify its certificate.

        Raises
        ------
        ssl.SSLError, OSError, TimeoutError
            As ``ssl.SSLSocket.do_handshake``.
        """
        cdef Py_ssize_t done = capi.APF_TLS_WAIT
        cdef long long until = apf_now() + self.timeout
        self._claim()
        try:
            while done == capi.APF_TLS_WAIT:
                with nogil:
                    done = capi.apf_tls_handshake(self.handle)
                    if done == capi.APF_TLS_WAIT:
                        capi.apf_tls_poll(self.handle, _PAUSE)
                if done == capi.APF_TLS_WAIT:
                    PyErr_CheckSignals()
                    self._check_open()
                    if apf_now() > until:
                        raise TimeoutError("the handshake timed out")
            if done == capi.APF_TLS_FAILED:
                self._check_open()  # closed by another thread: the connection itself did not fail
                raise self._failed()
        finally:
            self._let_go()

    def send(self, data):
        """Send some or all of a buffer.

        Parameters
        ----------
        data : contiguous buffer
            Read during the call only.

        Returns
        -------
        int
            The number of bytes taken; all of them have been given to the socket.

        Raises
        ------
        ssl.SSLError, OSError
            The connection broke.
        TimeoutError
            The peer took nothing within the timeout.
        """
        cdef Py_buffer view
        cdef Py_ssize_t taken = 0
        cdef int flushed = 0
        cdef long long until = apf_now() + self.timeout
        cdef size_t held = 0, before
        PyObject_GetBuffer(data, &view, PyBUF_CONTIG_RO)
        try:
            self._claim()
            try:
                while flushed != 1:
                    with nogil:
                        if taken == 0:
                            taken = capi.apf_tls_send(self.handle, view.buf, view.len, False)
                            if taken == capi.APF_TLS_WAIT and view.len:
                                taken = 0
                        flushed = capi.APF_TLS_FAILED
                        if taken >= 0:
                            flushed = capi.apf_tls_flush(self.handle)
                            if flushed == 1 and taken == 0 and view.len:
                                flushed = capi.APF_TLS_WAIT
                            if flushed == capi.APF_TLS_WAIT:
                                capi.apf_tls_poll(self.handle, _PAUSE)
                    if flushed == capi.APF_TLS_FAILED:
                        self._check_open()
                        raise self._failed()
                    if flushed == capi.APF_TLS_WAIT:
                        PyErr_CheckSignals()
                        self._check_open()
                        before, held = held, capi.apf_tls_held(self.handle)
                        if held < before:
                            until = apf_now() + self.timeout  # progress, however slow
                        elif apf_now() > until:
                            raise TimeoutError("the peer takes nothing")
                return taken
            finally:
                self._let_go()
        finally:
            PyBuffer_Release(&view)

    def recv_into(self, out, nbytes=0, flags=0):
        """Receive into a buffer.

        Parameters
        ----------
        out : contiguous writable buffer
            Where to; its size is the largest number of bytes.
        nbytes
            Ignored; for the signature of sockets.
        flags : int
            With ``socket.MSG_WAITALL``, wait until `out` is full, but return after 0.25 s if something has come.
            Without it, return what is available, after waiting for the first byte.

        Returns
        -------
        int
            The number of bytes received. 0: the peer has closed the session (close_notify).

        Raises
        ------
        ssl.SSLError, OSError
            The connection broke.
        TimeoutError
            Nothing came within the timeout.
        """
        cdef Py_buffer view
        cdef Py_ssize_t got = capi.APF_TLS_WAIT, done = 0
        cdef bint whole = (<int> flags & MSG_WAITALL) != 0
        cdef long long begin = apf_now(), now = begin
        PyObject_GetBuffer(out, &view, PyBUF_CONTIG)
        try:
            self._claim()
            try:
                while done < view.len:
                    with nogil:
                        got = capi.apf_tls_receive(self.handle, <char *> view.buf + done, view.len - done)
                        if got > 0:
                            done += got
                        if got == capi.APF_TLS_WAIT and (whole or not done):
                            capi.apf_tls_poll(self.handle, _PAUSE)
                        now = apf_now()
                    if done and (got <= 0 and got != capi.APF_TLS_WAIT or not whole or now - begin > _GATHERED):
                        break  # the next call reports the end or the error again
                    if got <= 0:
                        self._check_open()
                    if got == capi.APF_TLS_FAILED:
                        raise self._failed()
                    if got == capi.APF_TLS_ENDED:
                        break
                    PyErr_CheckSignals()
                    if not done and now - begin > self.timeout:
                        raise TimeoutError("nothing came")
                return done
            finally:
                self._let_go()
        finally:
            PyBuffer_Release(&view)

    def quiet(self):
        """Return whether the session is open and no data of the peer is waiting."""
        self._claim()
        quiet = capi.apf_tls_quiet(self.handle)
        self._let_go()
        return bool(quiet)

    cdef int _claim(self) except -1:
        if capi.apf_tls_claim(self.handle) != capi.APF_OK:
            self._check_open()
            raise exceptions.BufferInUse("the TLS session is in use by another thread")
        return 0

    cdef int _let_go(self) except -1:
        capi.apf_tls_unclaim(self.handle)
        return self._left()

    cdef int _left(self) except -1:
        """Close the socket if `close` was called and this is the last user of the session."""
        if capi.apf_tls_take_socket(self.handle):
            self.sock.close()
        return 0

    cdef int _check_open(self) except -1:
        if capi.apf_tls_closed(self.handle):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return 0

    cdef object _failed(self):
        """Return the exception for what ended the session."""
        import ssl  # late: apyfal itself does not need it, and it is loaded when there are sessions

        cdef const capi.apf_tls_failure *failure = capi.apf_tls_failure_of(self.handle)
        text = (<const char *> failure.text).decode("ascii", "replace")
        if failure.kind == capi.APF_TLS_SYSTEM:
            return OSError(failure.code, os.strerror(failure.code))
        if failure.kind == capi.APF_TLS_CUT:
            error = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
            error.reason = "UNEXPECTED_EOF_WHILE_READING"
        elif failure.kind == capi.APF_TLS_CERTIFICATE:
            if failure.code == _HOSTNAME_MISMATCH:
                text = f"Hostname mismatch, certificate is not valid for {self.host!r}."
            elif failure.code == _IP_ADDRESS_MISMATCH:
                text = f"IP address mismatch, certificate is not valid for {self.host!r}."
            error = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, f"certificate verify failed: {text}")
            error.reason, error.library = "CERTIFICATE_VERIFY_FAILED", "SSL"
            error.verify_code, error.verify_message = failure.code, text
        else:
            error = ssl.SSLError(ssl.SSL_ERROR_SSL, text)
            error.reason, error.library = text, "SSL"
        return error
