"""A Hub in memory: it answers what the real client asks when it makes, fills, reads and collects repositories.

`with HubServer() as hub:` serves at `hub.url`. Tokens: `OWNER_TOKEN` of the user "me", `OTHER_TOKEN` of "other".
Large files go by LFS: switch xet off in the client.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

OWNER_TOKEN, OTHER_TOKEN = "hf_ownersSecretToken", "hf_othersSecretToken"
USERS = {OWNER_TOKEN: "me", OTHER_TOKEN: "other"}
LFS_SUFFIXES = (".safetensors", ".png", ".jpg")
NOW = datetime(2026, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
METADATA = re.compile(rb"^---\s*\n(.*?)\n---", re.DOTALL)


class Refusal(Exception):
    """An answer that is an error: status, the Hub's own code for it, and a sentence."""

    def __init__(self, status: int, code: str, message: str, **fields: object) -> None:
        super().__init__(message)
        self.status, self.code, self.fields = status, code, fields


@dataclass
class File:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def blob(self) -> str:
        content = self.sha256.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def entry(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.blob}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}
        return entry


@dataclass
class Repository:
    """Its commits, each with all its files, and where its branches are."""

    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, File], message: str) -> str:
        names = "".join(f"{path}{file.blob}" for path, file in sorted(files.items()))
        sha = hashlib.sha1(f"{len(self.commits)}{id(self)}{message}{names}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str:
        revision = unquote(revision)
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def files(self, revision: str = "main") -> dict[str, File]:
        return self.commits[self.resolve(revision)]


class HubServer:
    """The Hub's state, and the thread that serves it.

    Attributes:
        repositories: By type ("models", "spaces") and id.
        blobs: Contents of large files by their SHA-256.
        collections: By slug.
        requests: Method and path of everything that was asked, in order.
        drops: Requests (a method and a pattern of the path) whose connection ends half way, each once.
        card_problem: What is wrong with every card, if anything shall be.
        before_commit: Called once before the next commit is looked at.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.collections: dict[str, dict] = {}
        self.requests: list[tuple[str, str]] = []
        self.drops: list[tuple[str, str]] = []
        self.card_problem: str | None = None
        self.before_commit: Callable[[], object] | None = None
        self.lock = threading.RLock()
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def model(self, repo_id: str) -> Repository:
        return self.repositories["models", repo_id]

    def asked(self, method: str, pattern: str) -> int:
        """How often something was asked."""
        return sum(one == method and re.search(pattern, path) is not None for one, path in self.requests)


class Handler(BaseHTTPRequestHandler):
    """One connection; `ROUTES` below says which method answers what."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def handle_request(self) -> None:
        path = urlsplit(self.path).path
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            dropped = [drop for drop in self.hub.drops if drop[0] == self.command and re.search(drop[1], path)]
            if dropped:
                self.hub.drops.remove(dropped[0])
        length = int(self.headers.get("Content-Length") or 0)
        if dropped:
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        self.content = self.read_chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else b""
        self.content = self.content or self.rfile.read(length)
        with self.hub.lock:
            try:
                self.user = self.find_user()
                self.route(path)
            except Refusal as refusal:
                headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)}
                self.send(refusal.status, {"error": str(refusal), **refusal.fields}, headers=headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def read_chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def route(self, path: str) -> None:
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command == method:
                return answer(self, *map(unquote, match.groups("")))
        raise Refusal(404, "NotFound", f"no route {self.command} {path}")

    def send(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # Who asks, and for what

    def find_user(self) -> str | None:
        authorization = self.headers.get("Authorization")
        if authorization is None:
            return None
        if authorization.removeprefix("Bearer ") not in USERS:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        return USERS[authorization.removeprefix("Bearer ")]

    def repository(self, kind: str, repo_id: str, write: bool = False) -> Repository:
        found = self.hub.repositories.get((kind or "models", repo_id))
        owned = self.user == repo_id.partition("/")[0]
        if found is None or (found.private and not owned):
            raise Refusal(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if write and not owned:
            raise Refusal(403 if self.user else 401, "Forbidden", "You don't have write access")
        return found

    def given(self) -> dict:
        return json.loads(self.content or b"{}")

    # Users and repositories

    def whoami(self) -> None:
        if self.user is None:
            raise Refusal(401, "", "Invalid username or password.")
        self.send(200, {"type": "user", "name": self.user, "fullname": self.user, "orgs": []})

    def create(self) -> None:
        given = self.given()
        repo_id, kind = f"{given['organization']}/{given['name']}", f"{given.get('type', 'model')}s"
        if self.user != given["organization"]:
            raise Refusal(403 if self.user else 401, "Forbidden", "You don't have the rights to create a repository")
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            raise Refusal(409, "Conflict", "You already created this repo", url=url)
        repository = Repository(private=given.get("visibility") == "private")
        repository.commit("main", {".gitattributes": File(b"*.safetensors filter=lfs\n", False)}, "initial commit")
        self.hub.repositories[kind, repo_id] = repository
        self.send(200, {"url": url, "name": repo_id, "id": "0"})

    def information(self, kind: str, repo_id: str, revision: str = "main") -> None:
        repository = self.repository(kind, repo_id)
        sha = repository.resolve(revision)
        files = repository.commits[sha]
        card = METADATA.match(files["README.md"].content) if "README.md" in files else None
        metadata = yaml.safe_load(card[1]) if card else {}
        entries = [file.entry(path) for path, file in sorted(files.items())]
        about = {
            "_id": "0",
            "id": repo_id,
            "modelId": repo_id,
            "sha": sha,
            "private": repository.private,
            "disabled": False,
            "gated": False,
            "downloads": 0,
            "likes": 0,
            "lastModified": NOW,
            "createdAt": NOW,
            "tags": metadata.get("tags", []),
            "cardData": metadata,
            "pipeline_tag": metadata.get("pipeline_tag"),
            "library_name": metadata.get("library_name"),
            "siblings": [{"rfilename": entry["path"], "size": entry["size"]} for entry in entries],
        }
        self.send(200, about)

    def branch(self, kind: str, repo_id: str, name: str) -> None:
        repository = self.repository(kind, repo_id, write=True)
        if name in repository.branches:
            raise Refusal(409, "Conflict", "Reference already exists")
        repository.branches[name] = repository.resolve(self.given().get("startingPoint") or "main")
        self.send(200, {})

    # Files on their way in

    def validate_card(self) -> None:
        match = METADATA.match(self.given()["content"].encode())
        try:
            metadata = yaml.safe_load(match[1]) if match else {}
            problem = self.hub.card_problem if isinstance(metadata, dict) else "metadata is no mapping"
        except yaml.YAMLError as error:
            problem = str(error)
        self.send(400 if problem else 200, {"errors": [{"message": problem}] if problem else [], "warnings": []})

    def preupload(self, kind: str, repo_id: str, revision: str) -> None:
        files = self.repository(kind, repo_id, write=True).files(revision)
        answers = []
        for name in (file["path"] for file in self.given()["files"]):
            there = files.get(name)
            oid = there and (there.sha256 if there.lfs else there.blob)
            mode = "lfs" if name.endswith(LFS_SUFFIXES) else "regular"
            answers.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send(200, {"files": answers})

    def lfs_batch(self, kind: str, repo_id: str) -> None:
        self.repository(kind.rstrip("/"), repo_id, write=True)
        objects = self.given()["objects"]
        for one in objects:
            if one["oid"] not in self.hub.blobs:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}}
        self.send(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.content).hexdigest() != oid:
            raise Refusal(400, "", "the content has another hash")
        self.hub.blobs[oid] = self.content
        self.send(200)

    def commit(self, kind: str, repo_id: str, revision: str) -> None:
        repository = self.repository(kind, repo_id, write=True)
        if self.hub.before_commit is not None:
            intrude, self.hub.before_commit = self.hub.before_commit, None
            intrude()
        if revision not in repository.branches:
            raise Refusal(404, "RevisionNotFound", "not a branch")
        files, header = dict(repository.files(revision)), {}
        for line in map(json.loads, self.content.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                header = value
            elif line["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
            elif line["key"] == "lfsFile":
                files[value["path"]] = File(self.hub.blobs[value["oid"]], lfs=True)
        if header.get("parentCommit") not in (None, repository.branches[revision]):
            raise Refusal(412, "", "A commit has happened since. Please refresh and try again.")
        sha = repository.commit(revision, files, header["summary"])
        self.send(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"})

    # Files on their way out

    def tree(self, kind: str, repo_id: str, revision: str, folder: str) -> None:
        files = self.repository(kind, repo_id).files(revision)
        if folder:  # repositories here are flat
            raise Refusal(404, "EntryNotFound", "no such folder")
        self.send(200, [file.entry(path) for path, file in sorted(files.items())])

    def paths(self, kind: str, repo_id: str, revision: str) -> None:
        files = self.repository(kind, repo_id).files(revision)
        form = "urlencoded" in self.headers.get("Content-Type", "")
        names = parse_qs(self.content.decode())["paths"] if form else self.given()["paths"]
        self.send(200, [files[name].entry(name) for name in names if name in files])

    def resolve(self, kind: str, repo_id: str, revision: str, path: str) -> None:
        repository = self.repository(kind.rstrip("/"), repo_id)
        sha = repository.resolve(revision)
        file = repository.commits[sha].get(path)
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.sha256 if file.lfs else file.blob}"'}
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        self.send(200, file.content, headers)

    # Collections

    def create_collection(self) -> None:
        given = self.given()
        if self.user != given["namespace"]:
            raise Refusal(403 if self.user else 401, "Forbidden", "You don't have the rights to create a collection")
        slug = f"{given['namespace']}/{re.sub('[^a-z0-9]+', '-', given['title'].lower())}-0123456789abcdef01234567"
        if slug in self.hub.collections:
            raise Refusal(409, "Conflict", "This collection exists", slug=slug)
        self.hub.collections[slug] = {
            "slug": slug,
            "title": given["title"],
            "owner": {"name": given["namespace"]},
            "items": [],
            "lastUpdated": NOW,
            "position": 0,
            "private": given["private"],
            "theme": "green",
            "upvotes": 0,
        }
        self.send(200, self.hub.collections[slug])

    def collection(self, slug: str) -> None:
        self.send(200, self.hub.collections[slug])

    def add_item(self, slug: str) -> None:
        items, item = self.hub.collections[slug]["items"], self.given()["item"]
        if item["id"] in [one["id"] for one in items]:
            raise Refusal(409, "Conflict", "This item is in the collection")
        items.append({"_id": str(len(items)), "id": item["id"], "type": item["type"], "position": len(items)})
        self.send(200, self.hub.collections[slug])


KIND, ID = "/api/(models|spaces)", "([^/]+/[^/]+)"
ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/validate-yaml", Handler.validate_card),
    ("POST", "/api/repos/create", Handler.create),
    ("GET", f"{KIND}/{ID}", Handler.information),
    ("GET", f"{KIND}/{ID}/revision/([^/]+)", Handler.information),
    ("POST", f"{KIND}/{ID}/branch/([^/]+)", Handler.branch),
    ("POST", f"{KIND}/{ID}/preupload/([^/]+)", Handler.preupload),
    ("POST", f"{KIND}/{ID}/commit/([^/]+)", Handler.commit),
    ("POST", f"{KIND}/{ID}/paths-info/([^/]+)", Handler.paths),
    ("GET", f"{KIND}/{ID}/tree/([^/]+)/?(.*)", Handler.tree),
    ("POST", rf"/(spaces/)?{ID}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", "/lfs/([0-9a-f]{64})", Handler.lfs_upload),
    ("GET", f"/(spaces/)?{ID}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("HEAD", f"/(spaces/)?{ID}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("POST", "/api/collections", Handler.create_collection),
    ("GET", "/api/collections/([^/]+/[^/]+)", Handler.collection),
    ("POST", "/api/collections/([^/]+/[^/]+)/items", Handler.add_item),
)
