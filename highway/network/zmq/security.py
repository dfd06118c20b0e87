"""Access control: the shared secret, the keys derived from it, and the authenticator thread.

All machines of a job hold the same 32 bytes. Two CURVE key pairs are derived from them: one for the end that binds, one
for the end that connects. So each end knows the public key of the other beforehand, and no outsider has a private key.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import shlex
import stat
import struct
import threading
import time
import warnings

import zmq
from zmq.utils import z85

from highway.arguments import expanded, flag
from highway.errors import ArgumentError, InsecureWarning, SecurityError
from highway.storage.printing import printable

__all__ = [
    "MOST_QUOTED",
    "SECRET_BYTES",
    "SECRET_FILE",
    "Authenticator",
    "Keys",
    "Security",
    "check_admission",
    "find_keys",
    "new_secret_file",
    "quoted",
    "read_secret_file",
]

SECRET_BYTES = 32
# The environment variable that names the file of the secret.
SECRET_FILE = "HIGHWAY_SECRET_FILE"
# Most bytes of a peer's text in an error or a log.
MOST_QUOTED = 1024
# Larger than any form of a secret.
_MOST_FILE_BYTES = 256
# Seconds that the two handshakes of the self-test may take; they take some milliseconds.
SELF_TEST_LIMIT = 5.0

_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{43}=?")


class Keys:
    """Both key pairs that are derived from a secret; the private keys never leave the object.

    Parameters
    ----------
    secret : bytes
        32 bytes, random.

    Attributes
    ----------
    fingerprint : str
        Eight hex digits of the public keys: the same on two machines that have the same secret.
    """

    __slots__ = ("_client", "_client_public", "_server", "_server_public", "fingerprint")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ArgumentError(f"Keys: secret has {len(secret)} bytes; expected {SECRET_BYTES}")
        if not zmq.has("curve"):
            raise SecurityError(
                "This pyzmq was built without CURVE, so no secret can be used: install the wheel of pyzmq from PyPI"
            )
        self._server_public, self._server = _pair(secret, b"highway server")
        self._client_public, self._client = _pair(secret, b"highway client")
        public = self._server_public + self._client_public
        self.fingerprint = hashlib.blake2b(public, digest_size=4, person=b"highway name").hexdigest()

    def __repr__(self) -> str:
        return f"Keys(fingerprint {self.fingerprint})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("Keys cannot be pickled: give every machine the file of the secret instead")

    @property
    def domain(self) -> bytes:
        """ZAP domain of the holders of this secret."""
        return b"highway " + self._server_public

    @property
    def admitted(self) -> bytes:
        """The one public key that may connect: 32 bytes."""
        return z85.decode(self._client_public)

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Restrict a socket that will bind to holders of the secret.

        It refuses all connections until an `Authenticator` in the same context admits these keys.
        """
        # Without an enforced domain, a socket accepts everyone when its authenticator has ended.
        socket.setsockopt(zmq.ZAP_DOMAIN, self.domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._server)

    def identify(self, socket: zmq.Socket[bytes]) -> None:
        """Use these keys on a socket that will connect; it connects only to a hub with the same secret."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._client_public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._client)

    def identify_as_stranger(self, socket: zmq.Socket[bytes]) -> None:
        """Use a random key that is not admitted, for the self-test with a hub of this secret."""
        public, private = zmq.curve_keypair()
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, private)


def _pair(secret: bytes, person: bytes) -> tuple[bytes, bytes]:
    private = z85.encode(hashlib.blake2b(key=secret, digest_size=32, person=person).digest())
    return zmq.curve_public(private), private


# Where the secret comes from


def find_keys(owner: str, secret: object = None) -> Keys | None:
    """Return the keys of the given secret, else of the file that the environment names, else None.

    Parameters
    ----------
    owner : str
        The module with the argument, for errors.
    secret : bytes, str or path, optional
        32 bytes; a text of 64 hex digits or of base64; or a `pathlib.Path` to a file with any of the three.

    Raises
    ------
    ArgumentError
        The secret is invalid; the message does not show it.
    SecurityError
        The file cannot be read, or others can read it.
    """
    if secret is None:
        path = os.environ.get(SECRET_FILE)
        return read_secret_file(path, f" ({SECRET_FILE} names it)") if path else None
    if isinstance(secret, os.PathLike):
        return read_secret_file(secret)
    if isinstance(secret, (bytes, bytearray)):
        if len(secret) == SECRET_BYTES:
            return Keys(bytes(secret))
        found = f"{len(secret)} bytes"
    elif isinstance(secret, str):
        plain = _decoded(secret)
        if plain is not None:
            return Keys(plain)
        found = f"a text of {len(secret)} characters"
    else:
        found = f"of type {type(secret).__name__}"
    raise ArgumentError(
        f"{owner}: secret is {found}; expected {SECRET_BYTES} bytes, as bytes, hex or base64, "
        "or a pathlib.Path to a file that `highway keygen FILE` wrote"
    )


def read_secret_file(path: str | os.PathLike[str], note: str = "") -> Keys:
    """Return the keys of the secret in a file: 32 bytes, or hex or base64 text.

    Parameters
    ----------
    path : str or path
    note : str
        Added to the path in errors: why it is read.

    Raises
    ------
    SecurityError
        The file is missing, is not a regular file, belongs to another user, is accessible to others, or has no secret.
    """
    name = os.fsdecode(path)
    if "\0" not in name:
        name = os.path.expanduser(name)
    where = f"Secret file {name!r}{note}"
    make = f"`highway keygen {shlex.quote(name)}` makes one"
    try:
        # Do not block on a named pipe.
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no valid path"
        raise SecurityError(f"{where}: cannot be read: {reason}; {make}") from None
    try:
        # Checks the opened file; the name may refer to another file by now.
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise SecurityError(f"{where} is not a regular file; {make}")
        if status.st_uid not in (os.geteuid(), 0):
            raise SecurityError(
                f"{where} belongs to user {status.st_uid}; expected this user ({os.geteuid()}) or root: "
                f"chown {os.geteuid()} {shlex.quote(name)}"
            )
        if status.st_mode & 0o077:
            raise SecurityError(
                f"{where} has mode {stat.S_IMODE(status.st_mode):04o}, so others can access it; "
                f"expected 0600: chmod 600 {shlex.quote(name)}"
            )
        content = os.read(file, _MOST_FILE_BYTES)
    except OSError as error:
        if isinstance(error, SecurityError):
            raise
        raise SecurityError(f"{where}: cannot be read: {error.strerror}") from None
    finally:
        os.close(file)
    plain = content if len(content) == SECRET_BYTES else _decoded(content.decode("latin-1"))
    if plain is None:
        raise SecurityError(
            f"{where} has no secret in it; expected {SECRET_BYTES} bytes, or their hex or base64 text; "
            f"remove it, and {make}"
        )
    return Keys(plain)


def _decoded(text: str) -> bytes | None:
    text = text.strip(" \t\r\n")
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if _BASE64.fullmatch(text):
        return base64.b64decode(text.rstrip("=") + "=", altchars=b"-_" if set(text) & {"-", "_"} else None)
    return None


def new_secret_file(path: str | os.PathLike[str]) -> Keys:
    """Write a new random secret as hex, readable by this user only.

    Raises
    ------
    SecurityError
        The path exists: a secret is never overwritten.
    OSError
        The file cannot be written.
    """
    name = expanded("secret file", "path", path)
    try:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SecurityError(
            f"{name!r} exists, and a secret is never overwritten: remove it first, or use another name"
        ) from None
    secret = secrets.token_bytes(SECRET_BYTES)
    try:
        with os.fdopen(file, "w", encoding="ascii") as stream:
            stream.write(secret.hex() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return Keys(secret)


class Security:
    """The security settings of an end, from its arguments and the environment.

    Parameters
    ----------
    owner : str
        The module with the arguments, for errors and the warning.
    secret : bytes, str or path, optional
        See `find_keys`.
    insecure : bool
        True to allow an address that others can reach without a secret. `HIGHWAY_SECRET_FILE` is then ignored.

    Raises
    ------
    ArgumentError, SecurityError
        See `find_keys`; or both a secret and `insecure` are given.
    """

    def __init__(
        self, owner: str, secret: bytes | str | os.PathLike[str] | None = None, insecure: bool = False
    ) -> None:
        insecure = flag(owner, "insecure", insecure)
        if insecure and secret is not None:
            raise ArgumentError(f"{owner}: insecure is True and a secret is given; expected one of them")
        self.owner = owner
        self.insecure = insecure
        self._keys = None if insecure else find_keys(owner, secret)
        self._warned = False

    def __repr__(self) -> str:
        return f"Security({self.owner!r}, {self._keys!r}, insecure={self.insecure})"

    def keys_for(self, endpoint: str, *, local: bool) -> Keys | None:
        """Return the keys to use at an address, or None.

        A secret is used at a local address too: a local address may be the end of a tunnel, and a socket that is bound
        to every address is also reached at local ones.

        Parameters
        ----------
        endpoint : str
            The address, for the message.
        local : bool
            Whether only this machine can reach it.

        Raises
        ------
        SecurityError
            Others can reach the address, and there is no secret.

        Warns
        -----
        InsecureWarning
            Others can reach the address, and `insecure` is True; warns once.
        """
        if local or self._keys is not None:
            return self._keys
        if not self.insecure:
            raise SecurityError(
                f"{self.owner}: {endpoint} can be reached from other machines, and there is no secret. "
                f"`highway keygen FILE` makes one: copy the file to every machine, and pass secret=pathlib.Path(FILE), "
                f"or set {SECRET_FILE}=FILE; insecure=True uses no secret, on a network where you trust everyone"
            )
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.owner}: {endpoint} is used without a secret: everyone who can reach it can read and forge data",
                InsecureWarning,
                stacklevel=3,
            )
        return None


# The authenticator


class Authenticator:
    """The ZAP handler of a context: a thread that decides for libzmq whether the key of a peer is admitted.

    It runs until the context is terminated. Once it has ended, for any reason, sockets that `Keys.guard` protects
    refuse all connections.

    Parameters
    ----------
    context : zmq.Context
        A context without another ZAP handler.
    """

    # https://rfc.zeromq.org/spec/27/
    ENDPOINT = "inproc://zeromq.zap.01"

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._admitted: dict[bytes, bytes] = {}
        self._requests = context.socket(zmq.REP)
        try:
            self._requests.linger = 0
            self._requests.bind(self.ENDPOINT)
            # A daemon thread, so that a program that forgets to close can end.
            self._thread = threading.Thread(target=self._serve, name="highway zap", daemon=True)
            self._thread.start()
        except BaseException:
            self._requests.close()
            raise

    def admit(self, keys: Keys) -> None:
        """Admit holders of these keys to sockets that `keys.guard` protects."""
        self._admitted[keys.domain] = keys.admitted

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended, which the end of the context causes; return whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        # Once this socket is closed, libzmq refuses all connections.
        with self._requests as requests, contextlib.suppress(zmq.ContextTerminated):
            while True:
                requests.send_multipart(self.answer(requests.recv_multipart()))

    def answer(self, request: list[bytes]) -> list[bytes]:
        """Return the reply to one request, as frames of ZAP 1.0."""
        version, number, domain, _address, _identity, mechanism, *credentials = request
        if self.is_admitted(domain, mechanism, credentials):
            return [version, number, b"200", b"OK", b"", b""]
        return [version, number, b"400", b"wrong secret", b"", b""]

    def is_admitted(self, domain: bytes, mechanism: bytes, credentials: list[bytes]) -> bool:
        """Return whether a peer with these credentials may connect."""
        key = self._admitted.get(domain)
        return key is not None and mechanism == b"CURVE" and credentials == [key]


def check_admission(context: zmq.Context[zmq.Socket[bytes]], keys: Keys) -> None:
    """Check that a socket of this context refuses a random key and admits the right one.

    Takes a few milliseconds. The socket is temporary, guarded in the same way, and bound to an abstract name.

    Raises
    ------
    SecurityError
        The check failed.
    """
    verdicts = {"right": "", "stranger": ""}
    with contextlib.ExitStack() as stack:
        socket = stack.enter_context(context.socket(zmq.ROUTER))
        socket.linger = 0
        keys.guard(socket)
        address = f"ipc://@highway-self-test-{secrets.token_hex(16)}"
        socket.bind(address)
        poller = zmq.Poller()
        names: dict[object, str] = {}
        for name, show in (("right", keys.identify), ("stranger", keys.identify_as_stranger)):
            peer = stack.enter_context(context.socket(zmq.DEALER))
            peer.linger = 0
            show(peer)
            monitor = stack.enter_context(peer.get_monitor_socket(HANDSHAKES))
            stack.callback(peer.disable_monitor)
            names[monitor] = name
            poller.register(monitor, zmq.POLLIN)
            peer.connect(address)
        deadline = time.monotonic() + SELF_TEST_LIMIT
        while not all(verdicts.values()):
            ready = poller.poll(max(0, round((deadline - time.monotonic()) * 1000)))
            if not ready:
                break
            for monitor, _ in ready:
                event, _ = struct.unpack("=Hi", monitor.recv_multipart()[0])
                # The first event counts: a refused peer may try again.
                verdicts[names[monitor]] = verdicts[names[monitor]] or _VERDICTS.get(event, "is refused")
    expected = {"right": "is admitted", "stranger": "is refused"}
    if verdicts != expected:
        found = ", ".join(
            f"the {name} key {verdict or 'gets no answer'}" for name, verdict in verdicts.items()
        )
        raise SecurityError(
            f"Self-test of the authenticator: {found}; expected that the right one is admitted and a stranger's is "
            "refused. Nothing was bound"
        )


HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_VERDICTS = {zmq.EVENT_HANDSHAKE_SUCCEEDED: "is admitted"}


# Untrusted texts


def quoted(text: str | bytes) -> str:
    """Return a peer's text for an error or a log: escaped, and at most `MOST_QUOTED` bytes long."""
    return printable(text, MOST_QUOTED)
