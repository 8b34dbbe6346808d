"""A Hugging Face hub on this machine: the requests that `huggingface_hub` makes to read models."""

import contextlib
import hashlib
import http.server
import json
import threading

import huggingface_hub.constants


class Hub:
    """Repositories by name, and what was asked for.

    Attributes:
        commits: for each repository, the files of each commit by the commit's hash.
        branches: for each repository, the commit of each branch or tag.
        gated: repositories whose files need an agreement.
        fetched: paths of the files that were downloaded.
        url: where it listens.
    """

    def __init__(self):
        self.commits, self.branches, self.gated, self.fetched = {}, {}, set(), []
        self.url = ""

    def push(self, name, files, branch="main"):
        """Commit files (their content by name) to a branch; returns the commit's hash."""
        content = repr((name, branch, sorted(files.items())))
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits.setdefault(name, {})[commit] = dict(files)
        self.branches.setdefault(name, {})[branch] = commit
        return commit

    def push_folder(self, name, folder, branch="main"):
        return self.push(name, {f.name: f.read_bytes() for f in folder.iterdir()}, branch)

    def find(self, name, revision):
        """Commit and files of a revision, or the hub's code for what is wrong."""
        if name not in self.commits:
            return "RepoNotFound", {}
        commit = self.branches[name].get(revision, revision)
        return (
            (commit, self.commits[name].get(commit))
            if commit in self.commits[name]
            else (
                "RevisionNotFound",
                {},
            )
        )


def _handler(hub):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = self.path.partition("?")[0].strip("/").split("/")
            if path[:2] == ["api", "models"]:
                self._describe("/".join(path[2:4]), path[4:])
            else:  # ORG/NAME/resolve/REVISION/FILE
                self._file("/".join(path[:2]), path[3], "/".join(path[4:]))

        do_HEAD = do_GET

        def _describe(self, name, rest):
            kind, revision = (rest[0], rest[1]) if rest else ("revision", "main")
            commit, files = hub.find(name, revision.replace("%2F", "/"))
            if not files:
                return self._refuse(commit)
            if kind == "tree":
                listed = [
                    {"type": "file", "path": f, "size": len(data), "oid": _digest(data)}
                    for f, data in files.items()
                ]
                return self._send(json.dumps(listed).encode())
            names = [{"rfilename": f} for f in files]
            answer = {"id": name, "modelId": name, "sha": commit, "siblings": names, "tags": []}
            return self._send(json.dumps(answer).encode())

        def _file(self, name, revision, file):
            commit, files = hub.find(name, revision)
            if name in hub.gated:
                return self._refuse("GatedRepo")
            if file not in files:
                return self._refuse("EntryNotFound" if files else commit)
            if self.command == "GET":
                hub.fetched.append(f"{name}/{file}")
            headers = {"ETag": f'"{_digest(files[file])}"', "X-Repo-Commit": commit}
            return self._send(files[file], headers)

        def _refuse(self, code):
            # The hub does not tell those without a token which private models there are.
            status = {"RepoNotFound": 401, "GatedRepo": 403}.get(code, 404)
            self._send(b"{}", {"X-Error-Code": code}, status)

        def _send(self, body, headers=(), status=200):
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def _digest(data):
    return hashlib.sha1(data).hexdigest()


@contextlib.contextmanager
def serve():
    """Run a hub as long as the context lasts."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use(monkeypatch, url, cache, *, offline=False):
    """Make `huggingface_hub`, which reads its environment once, use a hub and an empty cache."""
    values = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": offline,
    }
    for name, value in values.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
