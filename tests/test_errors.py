"""What a command line says of an error."""

import errno
import os
import re

import pytest

from eef_jax import errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.DataError("a.json is damaged; mend it"), "DataError: a.json is damaged; mend it"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left .*make room"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "a: Read-only .* another folder"),
        (OSError(errno.EIO, "Input/output error", b"a"), "a: Input/output error; mend that"),
        (OSError(errno.EPIPE, "Broken pipe"), "operating system: Broken pipe; .* output has ended"),
        (ExceptionGroup("", [ExceptionGroup("", [OSError(2, "No such", "a")])]), "a: No such"),
    ],
)
def test_errors_of_the_system_and_of_the_package_are_a_sentence(error, said):
    assert re.search(said, errors.sentence(error))
    assert "\n" not in errors.sentence(error)


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), OSError("without a number"), ExceptionGroup("", [KeyError(1)])],
)
def test_errors_of_the_program_are_none(error):
    assert errors.sentence(error) == ""


def test_real_errors_have_a_remedy_of_their_own(tmp_path):
    (tmp_path / "file").write_text("")
    for path, remedy in ((tmp_path / "file/x", "a file is where"), (tmp_path / "a/b", "missing")):
        with pytest.raises(OSError) as error:
            path.read_bytes()
        assert os.fspath(path) in errors.sentence(error.value)
        assert remedy in errors.sentence(error.value)
