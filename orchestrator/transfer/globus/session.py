"""One client of Globus: its tokens, kept for its owner alone, and what a refusal of Globus means.

The SDK asks again by itself after lost connections, 429 and 5xx. What remains is `Unavailable`: whether a request was
carried out is then not known, and nothing may be concluded from it. `Held` is what a person or the site has to mend.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import globus_sdk
from globus_sdk.exc import GlobusAPIError, GlobusError, NetworkError
from globus_sdk.globus_app import ClientApp, GlobusAppConfig
from globus_sdk.token_storage import MemoryTokenStorage, TokenStorage, TokenStorageData
from globus_sdk.transport import RetryConfig

from orchestrator.errors import BeamwayError, Denied, NotFound, SettingsError, Unavailable
from orchestrator.model import FailureClass
from orchestrator.settings import Secret
from orchestrator.transfer.base import TransferRefused
from orchestrator.transfer.globus.notes import write_private

APP = "https://app.globus.org"
DEVELOPERS = f"{APP}/settings/developers"  # where the secret of a client is renewed
RETRIES = 4  # of the SDK, with growing pauses: about 10 s


class Held(Unavailable):
    """Somebody has to act; then the same is asked again."""

    def __init__(
        self, sentence: str, /, hint: str = "", *, failure: FailureClass = FailureClass.DOWN, link: str = ""
    ) -> None:
        super().__init__(sentence, hint)
        self.failure = failure
        self.link = link


def task_link(task: str) -> str:
    return f"{APP}/activity/{task}/overview"


def collection_link(collection: str) -> str:
    return f"{APP}/file-manager/collections/{collection}/overview"


class Tokens(TokenStorage):
    """The tokens of one client in a file that only its owner can read, whole at any time.

    The SDK's own file storage changes the umask of the whole process and writes in place, where another process of the
    same client may just be reading.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def store_token_data_by_resource_server(
        self, token_data_by_resource_server: Mapping[str, TokenStorageData]
    ) -> None:
        self._write({**self.get_token_data_by_resource_server(), **token_data_by_resource_server})

    def get_token_data_by_resource_server(self) -> dict[str, TokenStorageData]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            return {server: TokenStorageData.from_dict(data) for server, data in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return {}  # new ones are asked for

    def remove_token_data(self, resource_server: str) -> bool:
        kept = self.get_token_data_by_resource_server()
        if resource_server not in kept:
            return False
        del kept[resource_server]
        self._write(kept)
        return True

    def _write(self, kept: Mapping[str, TokenStorageData]) -> None:
        write_private(self._path, json.dumps({server: data.to_dict() for server, data in kept.items()}))


class Session:
    """What speaks to Globus. The SDK's application is not made for threads, so one asks at a time."""

    def __init__(self, client_id: str, secret: Secret, folder: Path | None, *, retries: int = RETRIES) -> None:
        """Without a folder the tokens are forgotten."""
        if not client_id or not secret:
            raise SettingsError(
                "Globus transfers need a client: 'globus_client' and 'globus_secret' are not both set.",
                "docs/globus.md says how to make one.",
            )
        self._client_id, self._secret = client_id, secret
        self._folder, self._retries = folder, retries
        self._lock = threading.RLock()
        self._client: globus_sdk.TransferClient | None = None

    @property
    def identity(self) -> str:
        """The name that people give permissions to."""
        return f"{self._client_id}@clients.auth.globus.org"

    @contextmanager
    def asking(self, *collections: str) -> Iterator[globus_sdk.TransferClient]:
        """The client; what Globus refuses within becomes one of our errors."""
        with self._lock:
            try:
                yield self._transfer_client()
            except GlobusError as error:
                # Not chained: the SDK's errors carry the whole answer with them.
                raise explained(error, self.identity, collections) from None

    def sign_in(self) -> str:
        """The name that Globus knows us by, once it has let us in."""
        with self.asking() as client:
            client.task_list(limit=1)
        return self.identity

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _transfer_client(self) -> globus_sdk.TransferClient:
        if self._client is None:
            kept = Tokens(self._folder / f"tokens.{self._client_id}") if self._folder else MemoryTokenStorage()
            config = GlobusAppConfig(
                token_storage=kept,
                auto_redrive_gares=True,  # a missing data_access consent is one that this client gives itself
            )
            app = ClientApp("beamway", client_id=self._client_id, client_secret=self._secret.reveal(), config=config)
            self._client = globus_sdk.TransferClient(app=app, retry_config=RetryConfig(max_retries=self._retries))
        return self._client


def explained(error: GlobusError, identity: str, collections: tuple[str, ...] = ()) -> BeamwayError:
    """What Globus' refusal means for a transfer between these collections."""
    if isinstance(error, NetworkError):
        return Unavailable("Globus does not answer.", "It is asked again; what it has taken over goes on.")
    if not isinstance(error, GlobusAPIError):
        return Unavailable(f"Globus could not be asked: {error}.")
    code, status = error.code or "", error.http_status
    said = f"{code or status}: {error.message or error.http_reason}".rstrip(".")
    named = " and ".join(f"'{c}'" for c in collections) or "what was asked"
    link = collection_link(collections[0]) if collections else APP
    if status == 429:
        wait = error.headers.get("Retry-After", "")
        return Unavailable("Globus asks for fewer requests.", f"Wait {wait} s." if wait else "It is asked again later.")
    if isinstance(error, globus_sdk.AuthAPIError) and status < 500:
        sentence = f"Globus does not let the client {identity} sign in ({said})."
        hint = "Renew its secret there, and 'globus_secret' in the settings." if status == 401 else ""
        return Held(sentence, hint, failure=FailureClass.AUTHENTICATION, link=DEVELOPERS)
    if status == 401:
        sentence = f"Globus does not accept the token of {identity} ({said})."
        return Held(sentence, failure=FailureClass.AUTHENTICATION, link=DEVELOPERS)
    if error.info.consent_required or error.info.authorization_parameters:
        sentence = f"Globus wants a consent or sign-in for {named} that the client {identity} cannot give ({said})."
        hint = "Let the collection's administrator admit this client."
        return Held(sentence, hint, failure=FailureClass.AUTHENTICATION, link=link)
    if "LoginFailed" in code or "CredentialExpired" in code:
        sentence = f"The collection {named} does not let {identity} sign in ({said})."
        return Held(sentence, failure=FailureClass.AUTHENTICATION, link=link)
    if status == 404 and "EndpointNotFound" in code:
        return TransferRefused(f"Globus knows no collection {named}, or hides it from {identity}.")
    if status == 404:
        return NotFound(f"There is no such thing in {named} ({said}).")
    if status == 403:
        return Denied(f"{identity} may not do this in {named} ({said}).", f"Give it a permission: {link}")
    if "ExternalError" in code or "EndpointError" in code or status == 409:
        sentence = f"The collection {named} cannot be used now ({said})."
        return Held(sentence, failure=FailureClass.DOWN, link=link)
    if status >= 500:
        return Unavailable(f"Globus is out of order ({said}).", "It is asked again later.")
    return TransferRefused(f"Globus refuses this transfer ({said}).")
