"""The environment of the kit."""

import os

import pytest

from vitrail.app.environment import offline_environment, without_proxy


@pytest.mark.parametrize(
    ("environment", "host", "expected"),
    [
        ({}, "127.0.0.1", "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example, b.example"}, "10.0.0.1", "a.example,b.example,127.0.0.1,localhost,::1,10.0.0.1"),
        ({"NO_PROXY": "a,localhost", "no_proxy": "b,a"}, "[::1]", "a,localhost,b,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "127.0.0.1", "*,127.0.0.1,localhost,::1"),
    ],
)
def test_this_machine_is_asked_without_a_proxy(environment, host, expected):
    assert without_proxy(environment, host) == expected


def test_the_environment_is_as_before(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "a.example")
    monkeypatch.delenv("no_proxy", raising=False)
    before = dict(os.environ)
    with offline_environment(tmp_path, "127.0.0.1"):
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "a.example,127.0.0.1,localhost,::1"
        assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert dict(os.environ) == before
