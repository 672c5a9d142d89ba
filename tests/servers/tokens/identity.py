"""A stand-in for the clouds' own token services: who a program is, told by the real protocols at a local address.

===========================  =====================================================================================
``/google/token``            OAuth 2.0 for service accounts: a JWT signed with the account's key (RFC 7523), checked,
                             for an access token
``/computeMetadata/v1/...``  Google's instance metadata: the token of the machine's own service account
``/google/check``            for a gateway in front of a store: 204, 401 or 403 for a request with such a token
``/TENANT/oauth2/v2.0/...``  Microsoft Entra ID: a token for a client's secret (at `Identity.tls_url`), with the claims
                             that Azurite checks
``/metadata/identity/...``   Azure's instance metadata: the token of a managed identity
``/latest/...``              AWS's instance metadata (IMDSv2): the keys of the instance's role
``/expire``, ``/lifetime``   end all tokens now; how long the next ones live
``/issued``                  how many tokens were given out
===========================  =====================================================================================

Nothing of it comes with an emulator of a store, and none of the real services can be run here. pip: ``cryptography``.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from servers.certificates import issue
from servers.process import HOST, Server, answers, free_ports, running

__all__ = ["Identity", "identity"]

WRITER, READER, STRANGER = (f"{name}@test.iam.gserviceaccount.com" for name in ("writer", "reader", "stranger"))
#: What the gateway lets each of them do.
METHODS = {WRITER: {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, READER: {"GET", "HEAD"}, STRANGER: set[str]()}
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
STORAGE = "https://storage.azure.com"


@dataclass(frozen=True)
class Identity:
    """Where it is, and whom it knows.

    Attributes
    ----------
    endpoint_url, tls_url, ca
        Without and with TLS, and the authority of its certificate.
    writer, reader, stranger
        Google's files of service accounts: one may do everything, one read, one nothing.
    """

    endpoint_url: str
    tls_url: str
    ca: Path
    writer: Path
    reader: Path
    stranger: Path
    tenant: str = "11111111-2222-3333-4444-555555555555"
    application: str = "66666666-7777-8888-9999-000000000000"
    application_secret: str = "entra-secret"
    access_key: str = "ASIATESTKEY000000001"
    secret_key: str = "role-secret"

    def expire_tokens(self) -> None:
        """End every token that was given out."""
        self._post("/expire")

    def lifetime(self, seconds: float) -> None:
        """Let tokens given out from now on live so long."""
        self._post(f"/lifetime?{seconds}")

    def issued(self) -> int:
        """Count the tokens that were given out."""
        with _opener().open(f"{self.endpoint_url}/issued", timeout=10) as answer:
            return int(json.load(answer)["issued"])

    def _post(self, path: str) -> None:
        with _opener().open(urllib.request.Request(self.endpoint_url + path, b"", method="POST"), timeout=10):
            return


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def identity(directory: Path) -> Iterator[Identity]:
    """Run it with its log, certificate and account files in `directory`."""
    port, tls = free_ports(2)
    url = f"http://{HOST}:{port}"
    ca = issue(directory, "identity", [HOST, "localhost"])
    files = []
    for number, email in enumerate(METHODS):
        key = rsa.generate_private_key(65537, 2048)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        (directory / f"{email}.pem").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "project_id": "test",
            "private_key_id": str(number),
            "private_key": private.decode(),
            "client_email": email,
            "client_id": str(number),
            "token_uri": f"{url}/google/token",
        }
        files.append(directory / f"{email}.json")
        files[-1].write_text(json.dumps(account))
    with running(
        [sys.executable, str(Path(__file__)), "--port", str(port), "--tls", str(tls), "--directory", str(directory)],
        log=directory / "identity.log",
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        ready=lambda: answers(f"{url}/issued"),
    ):
        yield Identity(url, f"https://localhost:{tls}", ca, *files)


class State:
    """Tokens that were given out: whose, and until when."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tokens: dict[str, tuple[str, float]] = {}
        self.issued = 0
        self.lifetime = 3600.0

    def new_token(self, who: str, token: str | None = None) -> tuple[str, int]:
        """Make one; gives it and the seconds that it lives."""
        token = token or secrets.token_urlsafe(24)
        self.tokens[token] = (who, time.time() + self.lifetime)
        self.issued += 1
        return token, max(1, int(self.lifetime))


class Service(BaseHTTPRequestHandler):
    """One request to any of the services."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State
    known = Identity("", "", *[Path()] * 4)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = parts.path, parse_qs(parts.query)
        if path == "/issued":
            self._answer(200, {"issued": self.state.issued})
        elif path == "/google/check":
            self._check()
        elif path == "/" or path.startswith("/computeMetadata/v1/"):
            self._google_metadata(path, query)
        elif path.endswith("/.well-known/openid-configuration"):
            self._entra_configuration()
        elif path == "/metadata/identity/oauth2/token":
            self._managed_identity(query)
        elif path.startswith("/latest/"):
            self._amazon(path)
        else:
            self._answer(404, {"error": "not_found"})

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        if parts.path == "/expire":
            self.state.tokens.clear()
            self._answer(200, {})
        elif parts.path == "/lifetime":
            self.state.lifetime = float(parts.query)
            self._answer(200, {})
        elif parts.path == "/google/token":
            self._google_token(form)
        elif parts.path == f"/{self.known.tenant}/oauth2/v2.0/token":
            self._entra_token(form)
        else:
            self._answer(404, {"error": "not_found"})

    def do_PUT(self) -> None:
        if self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            self._answer(200, "session-of-the-metadata")
        else:
            self._answer(400, {})

    # -- Google -------------------------------------------------------------------------------------------------------
    def _google_token(self, form: dict[str, list[str]]) -> None:
        """Check a signed assertion ("Using OAuth 2.0 for Server to Server Applications")."""
        try:
            email = self._signer(form["assertion"][0]) if form["grant_type"] == [GRANT] else None
        except (KeyError, ValueError, OSError, InvalidSignature):
            email = None
        if email is None:
            self._answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
            return
        token, seconds = self.state.new_token(email)
        self._answer(200, {"access_token": token, "expires_in": seconds, "token_type": "Bearer"})

    def _signer(self, assertion: str) -> str | None:
        signed, _, signature = assertion.rpartition(".")
        claims = json.loads(_decoded(signed.partition(".")[2]))
        email = str(claims["iss"])
        key: Any = serialization.load_pem_public_key((self.state.directory / f"{Path(email).name}.pem").read_bytes())
        key.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        right = (
            claims["aud"].endswith("/token")
            and "devstorage" in claims["scope"]
            and claims["iat"] - 60 < time.time() < claims["exp"] <= claims["iat"] + 3600
        )
        return email if right else None

    def _check(self) -> None:
        who, until = self.state.tokens.get((self.headers.get("Authorization") or "").removeprefix("Bearer "), ("", 0.0))
        if until < time.time():
            self._answer(401, {})
        elif self.headers.get("X-Original-Method") not in METHODS.get(who, ()):
            self._answer(403, {})
        else:
            self._answer(204, None)

    def _google_metadata(self, path: str, query: dict[str, list[str]]) -> None:
        """Answer as the metadata server does ("Query VM metadata")."""
        flavor = {"Metadata-Flavor": "Google"}
        if self.headers.get("Metadata-Flavor") != "Google":
            self._answer(403, {}, flavor)
        elif path.endswith("/token"):
            token, seconds = self.state.new_token(WRITER)
            self._answer(200, {"access_token": token, "expires_in": seconds, "token_type": "Bearer"}, flavor)
        elif path.endswith("/project/project-id"):
            self._answer(200, "test", flavor)
        elif "/service-accounts/" in path:
            scopes = ["https://www.googleapis.com/auth/cloud-platform"]
            self._answer(200, {"aliases": ["default"], "email": WRITER, "scopes": scopes}, flavor)
        else:
            self._answer(200 if path == "/" else 404, "", flavor)

    # -- Microsoft ----------------------------------------------------------------------------------------------------
    def _entra_configuration(self) -> None:
        base = f"https://{self.headers['Host']}/{self.known.tenant}"
        self._answer(
            200,
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            },
        )

    def _entra_token(self, form: dict[str, list[str]]) -> None:
        """Check a client's secret ("OAuth 2.0 client credentials flow")."""
        given = {name: form.get(name, [""])[0] for name in ("grant_type", "client_id", "client_secret", "scope")}
        expected = ("client_credentials", self.known.application, self.known.application_secret, f"{STORAGE}/.default")
        if tuple(given.values()) != expected:
            text = "AADSTS7000215: Invalid client secret provided."
            self._answer(401, {"error": "invalid_client", "error_description": text, "error_codes": [7000215]})
            return
        token, seconds = self._azure_token()
        times = {"expires_in": seconds, "ext_expires_in": seconds}
        self._answer(200, {"access_token": token, "token_type": "Bearer", **times})

    def _managed_identity(self, query: dict[str, list[str]]) -> None:
        """Answer as "How to use managed identities for Azure resources to acquire an access token" says."""
        if self.headers.get("Metadata") != "true" or query.get("resource") != [STORAGE]:
            self._answer(400, {"error": "invalid_request", "error_description": "Required metadata header missing"})
            return
        token, seconds = self._azure_token()
        end = str(int(time.time()) + seconds)
        answer = {"access_token": token, "expires_in": str(seconds), "expires_on": end, "resource": STORAGE}
        self._answer(200, {**answer, "token_type": "Bearer"})

    def _azure_token(self) -> tuple[str, int]:
        """Make a token with the claims that Azurite looks at (it does not check the signature)."""
        now = int(time.time())
        claims = {
            "aud": STORAGE,
            "iss": f"https://sts.windows.net/{self.known.tenant}/",
            "iat": now - 5,
            "nbf": now - 5,
            "exp": now + max(1, int(self.state.lifetime)),
            "tid": self.known.tenant,
            "appid": self.known.application,
        }
        parts = [*(json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)), secrets.token_bytes(32)]
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        return self.state.new_token("azure", token)

    # -- Amazon -------------------------------------------------------------------------------------------------------
    def _amazon(self, path: str) -> None:
        """Answer as "Retrieve security credentials from instance metadata" says."""
        if self.headers.get("X-aws-ec2-metadata-token") != "session-of-the-metadata":
            self._answer(401, {})
        elif path.endswith("/security-credentials/"):
            self._answer(200, "the-role")
        else:
            token, seconds = self.state.new_token("aws")
            end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
            keys = {"AccessKeyId": self.known.access_key, "SecretAccessKey": self.known.secret_key, "Token": token}
            self._answer(200, {"Code": "Success", "Type": "AWS-HMAC", **keys, "Expiration": end})

    # -- answers ------------------------------------------------------------------------------------------------------
    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def main() -> None:
    """Serve what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    Service.state = State(arguments.directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.directory / "identity.pem", arguments.directory / "identity.key")
    secure = Server((HOST, arguments.tls), Service)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    Server((HOST, arguments.port), Service).serve_forever()


if __name__ == "__main__":
    main()
