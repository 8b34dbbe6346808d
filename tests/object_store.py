"""A fake object store behind gs://: whole objects by key, no folders, no rename, no append.

`install(monkeypatch)` puts it where etils.epath looks for the backend of gs:// paths.
"""

import fnmatch
import io
import os

from etils import epath
from etils.epath import backend, gpath


class _Upload(io.BytesIO):
    """The object appears when the upload is closed, and only then."""

    def __init__(self, store, key):
        super().__init__()
        self._store, self._key = store, key

    def close(self):
        if not self.closed:
            data = self.getvalue()
            super().close()  # first: one that breaks is not tried again when it is collected
            self._store.put(self._key, data)


class _TextUpload(io.TextIOWrapper):
    def __init__(self, upload):
        super().__init__(upload, encoding="utf-8", newline="")


class ObjectStore(backend.Backend):
    """Objects by key; `fail_on` makes the upload of a key with that ending break."""

    def __init__(self):
        self.objects = {}
        self.uploads = []
        self.fail_on = None

    def put(self, key, data):
        if self.fail_on and key.endswith(self.fail_on):
            raise ConnectionError(f"upload of {key} broke")
        self.uploads.append(key)
        self.objects[key] = data

    def open(self, path, mode):
        key = os.fspath(path)
        if "a" in mode or "+" in mode:
            raise NotImplementedError("objects cannot be appended to")
        if "w" in mode:
            upload = _Upload(self, key)
            return upload if "b" in mode else _TextUpload(upload)
        if key not in self.objects:
            raise FileNotFoundError(key)
        data = io.BytesIO(self.objects[key])
        return data if "b" in mode else io.TextIOWrapper(data, encoding="utf-8")

    def exists(self, path):
        return os.fspath(path) in self.objects or self.isdir(path)

    def isdir(self, path):
        return any(key.startswith(f"{os.fspath(path)}/") for key in self.objects)

    def listdir(self, path):
        prefix = f"{os.fspath(path)}/"
        return sorted(
            {k[len(prefix) :].split("/")[0] for k in self.objects if k.startswith(prefix)}
        )

    def glob(self, path):
        depth = os.fspath(path).count("/")
        names = {"/".join(key.split("/")[: depth + 1]) for key in self.objects}
        return sorted(name for name in names if fnmatch.fnmatch(name, os.fspath(path)))

    def walk(self, top, *, top_down=True, on_error=None):
        raise NotImplementedError

    def makedirs(self, path, *, exist_ok=False, mode=None):
        pass

    def mkdir(self, path, *, exist_ok=False, mode=None):
        pass

    def rmtree(self, path):
        for key in [k for k in self.objects if k.startswith(f"{os.fspath(path)}/")]:
            del self.objects[key]

    def remove(self, path):
        if os.fspath(path) not in self.objects:
            raise FileNotFoundError(path)
        del self.objects[os.fspath(path)]

    def rename(self, path, dst):
        raise NotImplementedError("an object store has no rename")

    def replace(self, path, dst):
        raise NotImplementedError("an object store has no rename")

    def copy(self, path, dst, overwrite):
        self.put(os.fspath(dst), self.objects[os.fspath(path)])

    def stat(self, path):
        return epath.StatResult(
            is_directory=self.isdir(path),
            length=len(self.objects.get(os.fspath(path), b"")),
            mtime=0,
        )


def install(monkeypatch) -> ObjectStore:
    """Serve gs:// paths from a new, empty store for the length of a test."""
    store = ObjectStore()
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", store)
    return store
