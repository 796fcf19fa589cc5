"""A hub on this machine that speaks as much of the Hub's protocol as fetching and publishing small models needs."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40


@dataclass
class Hub:
    """Repositories with their files, and who may write."""

    token: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        """Describe a file."""
        self._get()

    def do_GET(self) -> None:
        """Give a file, or the description of a repository."""
        self._get()

    def do_POST(self) -> None:
        """Make a repository, or write into one."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._fail(401, "Invalid username or password.")
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        user, name, what = self.path.split("?")[0].split("/")[3:6]
        return self._write(f"{user}/{name}", what, body)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        self.hub.files.setdefault(name, {})
        self.hub.private.setdefault(name, bool(asked.get("private")) or asked.get("visibility") == "private")
        self._json({"url": f"{self._address()}/{name}"})

    def _write(self, repository: str, what: str, body: bytes) -> None:
        if what == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            return self._json(
                {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
            )
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            if line["key"] == "file":
                self.hub.files[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.hub.commits.append(next(line["value"]["summary"] for line in lines if line["key"] == "header"))
        return self._json(
            {"commitUrl": f"{self._address()}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
        )

    def _get(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._describe("/".join(parts[2:4]), parts[5:])
        repository, revision, name = "/".join(parts[:2]), parts[3], parts[-1]
        files = self.hub.files.get(repository)
        if files is None:
            return self._fail(404, "Repository not found", "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._fail(404, "Invalid rev id", "RevisionNotFound")
        if name not in files:
            return self._fail(404, "Entry not found", "EntryNotFound")
        return self._send(200, files[name], {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"'})

    def _describe(self, repository: str, rest: list[str]) -> None:
        if repository not in self.hub.files:
            return self._fail(404, "Repository not found", "RepoNotFound")
        if rest and rest[0] not in ("main", COMMIT):
            return self._fail(404, "Invalid rev id", "RevisionNotFound")
        files = self.hub.files[repository]
        if "tree" in self.path:
            tree = [
                {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for n, c in files.items()
            ]
            return self._json(tree)
        return self._json(
            {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        )

    def _address(self) -> str:
        host, port = self.server.server_address[:2]
        return f"http://{host!s}:{port}"

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, message: str, code: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Message": message, "X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def serve(hub: Hub) -> ThreadingHTTPServer:
    """A server of this hub, on a free port of this machine; not yet running."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    return ThreadingHTTPServer(("127.0.0.1", 0), handler)
