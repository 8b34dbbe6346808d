"""Records that are kept as they come: torn ones are left out, and no two starts share a file."""

import errno
import io
import tempfile
import threading

import pytest
from etils import epath
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eef_jax.errors import DataError
from eef_jax.storage import journal
from tests.properties import holds_through


def records(folder):
    return [record for _, _, record in journal.read(epath.Path(folder))]


def write(folder, *texts, writer=0):
    with journal.Journal(folder, writer=writer) as kept:
        for text in texts:
            kept.append(text)


def test_records_of_all_writers_and_starts_come_back(tmp_path):
    write(tmp_path, b"a", b"b")
    write(tmp_path, b"d", writer=1)
    write(tmp_path, b"c")
    assert records(tmp_path) == [b"a", b"b", b"c", b"d"]
    assert records(tmp_path / "none") == []


def test_a_record_is_on_the_disk_at_once(tmp_path):
    with journal.Journal(tmp_path) as kept:
        kept.append(b"a")
        assert records(tmp_path) == [b"a"]


@pytest.mark.parametrize("left", range(1, 12))
def test_a_torn_line_is_left_out(tmp_path, left):
    write(tmp_path, b"first", b"a")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-left])
    write(tmp_path, b"later")  # not after the torn line
    assert records(tmp_path) == [b"first", b"later"]


def test_a_flipped_byte_costs_its_record_alone(tmp_path):
    write(tmp_path, b"first", b"second", b"third")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    begin = whole.index(b"second")
    for place in range(begin - 9, begin + 6):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert records(tmp_path) == [b"first", b"third"]


def test_places_are_those_of_the_records(tmp_path):
    write(tmp_path, b"first", b"second")
    for path, offset, record in journal.read(epath.Path(tmp_path)):
        assert path.read_bytes()[offset : offset + len(record)] == record


def test_a_full_disk_is_one_sentence(tmp_path):
    class Full(io.BytesIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        fileno = flush

    kept = journal.Journal(tmp_path)
    with pytest.raises(DataError, match=r"No space left .* run the same command again"), kept:
        kept._file.close()
        kept._file = Full()
        kept.append(b"a")


def test_an_object_store_gets_numbered_parts(bucket, monkeypatch):
    monkeypatch.setattr(journal, "_PERIOD_S", 3600)
    folder = f"{bucket}/journal"
    with journal.Journal(folder) as kept:
        kept.append(b"a")
        kept.append(b"b")
        kept._sync()
        kept.append(b"c")
    write(folder, b"d")
    names = sorted(p.name for p in epath.Path(folder).iterdir())
    assert names == [
        "00000-00000-00000000.journal",
        "00000-00000-00000001.journal",
        "00000-00001-00000000.journal",
    ]
    with journal.local(folder) as local:
        assert records(local) == [b"a", b"b", b"c", b"d"]


def test_what_a_bucket_refused_is_written_later(bucket, monkeypatch):
    monkeypatch.setattr(journal, "_PERIOD_S", 0.01)
    folder, write_bytes = epath.Path(f"{bucket}/journal"), epath.gpath.PosixGPath.write_bytes
    refused = threading.Event()

    def refuse(path, data):
        if not refused.is_set():
            refused.set()
            raise ValueError("the bucket is busy")
        return write_bytes(path, data)

    monkeypatch.setattr(epath.gpath.PosixGPath, "write_bytes", refuse)
    with journal.Journal(folder) as kept:
        kept.append(b"a")
        assert refused.wait(10)
    with journal.local(folder) as local:
        assert records(local) == [b"a"]


RECORDS = st.binary(max_size=8).map(lambda data: data.replace(b"\n", b""))


class Journals(RuleBasedStateMachine):
    """Starts of two processes that append, die in a write, and files that are damaged."""

    def __init__(self):
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.folder = epath.Path(self.root.name)
        self.kept = {}  # file -> its records, None for each that is lost

    def teardown(self):
        self.root.cleanup()

    @rule(writer=st.integers(0, 1), appended=st.lists(RECORDS, max_size=3))
    def start(self, writer, appended):
        before = set(self.kept)
        write(self.folder, *appended, writer=writer)
        (name,) = {path.name for path in self.folder.iterdir()} - before
        self.kept[name] = list(appended)

    def whole(self):
        return sorted(name for name, found in self.kept.items() if found and found[-1] is not None)

    @precondition(lambda self: self.whole())
    @rule(data=st.data())
    def die_in_the_last_write(self, data):
        name = data.draw(st.sampled_from(self.whole()))
        path = self.folder / name
        content = path.read_bytes()
        last = content[:-1].rpartition(b"\n")[2]
        path.write_bytes(content[: len(content) - data.draw(st.integers(1, len(last)))])
        self.kept[name][-1] = None

    @precondition(lambda self: any(self.kept.values()))
    @rule(data=st.data())
    def damage_a_byte(self, data):
        name = data.draw(st.sampled_from(sorted(n for n, lines in self.kept.items() if lines)))
        lines = (self.folder / name).read_bytes().split(b"\n")
        number = data.draw(st.integers(0, len(self.kept[name]) - 1))
        if not (line := bytearray(lines[number])):
            return
        place = data.draw(st.integers(0, len(line) - 1))
        line[place] = data.draw(st.integers(0, 255).filter(lambda n: n not in (10, line[place])))
        lines[number] = bytes(line)
        (self.folder / name).write_bytes(b"\n".join(lines))
        self.kept[name][number] = None

    @invariant()
    def what_was_kept_is_read(self):
        whole = [r for name in sorted(self.kept) for r in self.kept[name] if r is not None]
        assert records(self.folder) == whole


test_journals_of_any_starts_are_read = holds_through(Journals)
