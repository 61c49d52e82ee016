"""Globus Auth and Transfer over HTTP on the loopback, as far as transfers need them; see the package."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import threading
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.globus.world import Collection, Faults, Refusal, Task

CLIENT, SECRET = "5e1f7bd9-0a1c-4b7e-9a53-2d1c6b0f9e11", "not-to-be-seen-anywhere"
ALL = "urn:globus:auth:scope:transfer.api.globus.org:all"


class Globus:
    """Runs within `with`, with the environment variables that lead the SDK here."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.collections: dict[str, Collection] = {}
        self.tasks: dict[str, Task] = {}
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        self._tokens: dict[str, str] = {}  # token -> scopes
        self._submissions: dict[str, str] = {}  # submission id -> task id, empty until there is one
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self.environment = {f"GLOBUS_SDK_SERVICE_URL_{name}": self.url for name in ("AUTH", "TRANSFER")}
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Globus:
        self._before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        self._server.shutdown()
        self._server.server_close()
        for task in self.tasks.values():
            task.closing = True
            task.thread.join()

    def collection(self, root: Path, **how: Any) -> Collection:
        root.mkdir(parents=True, exist_ok=True)
        made = Collection(root, **how)
        self.collections[made.id] = made
        return made

    def forget_tokens(self) -> None:
        self._tokens.clear()

    # ------------------------------------------------------------------------------------------------ what is asked

    def token(self, given: dict[str, str], basic: str) -> dict[str, Any]:
        if basic != f"{CLIENT}:{SECRET}" or self.faults.sign_in_refused:
            raise Refusal(401, "invalid_client", "The client is not known, or its secret is wrong")
        answers = []
        by_server: dict[str, list[str]] = {}
        for scope in re.split(r"\s+(?![^\[]*\])", given["scope"]):
            by_server.setdefault("transfer.api.globus.org" if ALL in scope else "auth.globus.org", []).append(scope)
        for server, scopes in by_server.items():
            token = uuid.uuid4().hex
            self._tokens[token] = " ".join(scopes)
            plain = " ".join(re.sub(r"\[.*?\]", "", s) for s in scopes)
            lasting = {"expires_in": 172800, "token_type": "Bearer"}
            answers.append({"access_token": token, "scope": plain, "resource_server": server, **lasting})
        return {**answers[0], "other_tokens": answers[1:]}

    def route(self, method: str, path: str, query: dict[str, str], body: dict[str, Any], bearer: str) -> Any:
        if bearer not in self._tokens:
            raise Refusal(401, "AuthenticationFailed", "Token is not active")
        path = path.removeprefix("/v0.10")
        if path == "/submission_id":
            submission = str(uuid.uuid4())
            self._submissions[submission] = ""
            return {"DATA_TYPE": "submission_id", "value": submission}
        if (method, path) == ("POST", "/transfer"):
            return self._submit(body, bearer)
        if path == "/task_list":
            return self._list(query)
        if found := re.fullmatch(r"/task/([^/]+)(/\w+)?", path):
            return self._task(method, found[1], found[2] or "")
        if found := re.fullmatch(r"/operation/endpoint/([^/]+)/rename", path):
            return self._rename(self._admitted(found[1], bearer), body["old_path"], body["new_path"])
        if found := re.fullmatch(r"/operation/endpoint/([^/]+)/(ls|stat)", path):
            return self._look(self._admitted(found[1], bearer), found[2], query.get("path", "/"))
        raise Refusal(501, "NotImplemented", f"{method} {path}")

    def _admitted(self, collection: str, bearer: str) -> Collection:
        if collection not in self.collections:
            raise Refusal(404, "EndpointNotFound", f"No such endpoint '{collection}'")
        known = self.collections[collection]
        scope = f"https://auth.globus.org/scopes/{collection}/data_access"
        if known.data_access and (known.refuses_consent or scope not in self._tokens[bearer]):
            message = "Missing required data_access consent"
            raise Refusal(403, "ConsentRequired", message, required_scopes=[f"{ALL}[*{scope}]"])
        return known

    def _submit(self, body: dict[str, Any], bearer: str) -> dict[str, Any]:
        submission = body["submission_id"]
        label = body.get("label") or ""
        if submission not in self._submissions:
            raise Refusal(400, "ClientError.BadRequest", "Unknown submission id")
        if not body["DATA"]:
            raise Refusal(400, "ClientError.BadRequest.NoTransferItems", "A transfer requires at least one item")
        if len(label) > 128 or label != label.strip() or "\n" in label:
            raise Refusal(400, "ClientError.BadRequest", "Not a label")
        source, destination = (self._admitted(body[f"{end}_endpoint"], bearer) for end in ("source", "destination"))
        with self.lock:
            code = "Duplicate" if self._submissions[submission] else "Accepted"
            if code == "Accepted":
                task = Task(body, source, destination, self.faults)
                self.tasks[task.id] = task
                self._submissions[submission] = task.id
        return {"code": code, "message": "", "submission_id": submission, "task_id": self._submissions[submission]}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        found = [task.document() for task in self.tasks.values()]
        for clause in filter(None, query.get("filter", "").split("/")):
            name, _, value = clause.partition(":")
            if name == "label" and value.startswith("="):
                found = [t for t in found if t["label"] == value[1:]]
            elif name == "type":
                found = [t for t in found if t["type"] in value.split(",")]
            elif name == "request_time":
                since = datetime.fromisoformat(value.split(",")[0]).replace(tzinfo=UTC)
                found = [t for t in found if datetime.fromisoformat(t["request_time"]) >= since]
            else:
                raise Refusal(400, "ClientError.BadRequest", f"No filter '{clause}'")
        return {"DATA": found[:10], "total": len(found), "offset": 0, "limit": 10}

    def _task(self, method: str, task_id: str, what: str) -> dict[str, Any]:
        if task_id not in self.tasks:
            raise Refusal(404, "ClientError.NotFound", f"No such task '{task_id}'")
        task = self.tasks[task_id]
        if (method, what) == ("POST", "/cancel"):
            over = task.doc["status"] in ("SUCCEEDED", "FAILED")
            task.cancelled = True
            return {"code": "TaskComplete" if over else "Canceled", "message": ""}
        if what == "/pause_info":
            rules = [{"message": c.paused} for c in (task.source, task.destination) if c.paused]
            return {"pause_rules": rules, "source_pause_message": None, "destination_pause_message": None}
        if not what:
            return task.document()
        raise Refusal(501, "NotImplemented", what)

    def _rename(self, collection: Collection, old: str, new: str) -> dict[str, Any]:
        if not collection.may_write:
            raise Refusal(403, "EndpointPermissionDenied", "Permission denied")
        if not collection.path(old).exists():
            raise Refusal(404, "ClientError.NotFound", f"Path '{old}' does not exist")
        if collection.path(new).exists():
            raise Refusal(502, "ExternalError.RenameFailed.Exists", f"Path '{new}' exists")
        collection.path(old).rename(collection.path(new))
        return {"DATA_TYPE": "result", "code": "FileRenamed", "message": ""}

    def _look(self, collection: Collection, how: str, name: str) -> dict[str, Any]:
        if not collection.may_look:
            raise Refusal(403, "EndpointPermissionDenied", "Permission denied")
        path = collection.path(name)
        if not path.exists():
            raise Refusal(404, "ClientError.NotFound", f"Path '{name}' does not exist")
        if how == "stat":
            return _entry(path)
        if not path.is_dir():
            raise Refusal(502, "ExternalError.DirListingFailed.NotDirectory", "Not a directory")
        entries = [_entry(p) for p in sorted(path.iterdir())]
        return {"DATA": entries, "path": name, "endpoint": collection.id, "total": len(entries)}


def _entry(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "DATA_TYPE": "file",
        "name": path.name,
        "type": "dir" if path.is_dir() else "file" if path.is_file() else "other",
        "link_target": os.readlink(path) if path.is_symlink() else None,
        "size": status.st_size,
        "last_modified": str(datetime.fromtimestamp(int(status.st_mtime), UTC)),
    }


def _handler(globus: Globus) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            fault = globus.faults.next_answer(self.command, url.path)
            with globus.lock:
                globus.requests.append((self.command, url.path))
            if fault and not fault.performed:
                if fault.status:
                    code = {"code": "ServiceUnavailable", "message": "out of order"}
                    self._say(fault.status, {**code, **fault.body}, fault.headers)
                else:
                    self._hang_up()
                return
            try:
                status, said = 200, self._perform(url.path, url.query, raw)
            except Refusal as refusal:
                status, said = refusal.status, refusal.body
            if fault:
                self._hang_up()
            else:
                self._say(status, said, {})

        def _perform(self, path: str, query: str, raw: bytes) -> Any:
            scheme, _, given = self.headers.get("Authorization", "").partition(" ")
            if path == "/v2/oauth2/token":
                form = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
                return globus.token(form, base64.b64decode(given).decode() if scheme == "Basic" else "")
            asked = {name: values[0] for name, values in parse_qs(query).items()}
            return globus.route(self.command, path, asked, json.loads(raw or "{}"), given)

        def _say(self, status: int, body: Any, headers: dict[str, str]) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
