"""How long servers want a client to wait."""

import json

import pytest

from eef_jax.policies.openai import reading

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def waited(headers, message="slow down", **fields):
    body = json.dumps({"error": {"message": message, **fields}})
    return reading.read(429, headers, body, now=NOW).wait_s


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "180"}, 180.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Tue, 14 Nov 2023 22:16:20 GMT"}, 180.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),  # the past
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_waits_in_headers(headers, expected):
    assert waited(headers) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Please try again in 20s.", 20.0),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 7h12m0.5s.", 25920.5),
        ("Please try again in 857ms.", 0.857),
        ("Please retry after 2 minutes and 3 retries", 120.0),
        ("Please wait 15 seconds before the next request", 15.0),
        ("Try again later.", None),
        ("Limit 3, Used 3, Requested 1.", None),
    ],
)
def test_waits_in_words(message, expected):
    assert waited({}, message) == (None if expected is None else pytest.approx(expected))


def test_waits_in_details():
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    assert waited({}, details=[{"@type": "other"}, retry]) == 34.5
    reset = {"X-RateLimit-Reset": str(int(NOW + 42) * 1000)}
    assert waited({}, metadata={"headers": reset}) == 42.0


def test_headers_come_before_words():
    assert waited({"retry-after": "3"}, "try again in 20s") == 3.0
