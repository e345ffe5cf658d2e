"""The environment of the server process."""

import os

import pytest
from PIL import Image

from vitrail.app.environment import extend_no_proxy, large_memory_blocks, offline_environment


@pytest.mark.parametrize(
    ("environment", "host", "expected"),
    [
        ({}, "127.0.0.1", "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example, b.example"}, "10.0.0.1", "a.example,b.example,127.0.0.1,localhost,::1,10.0.0.1"),
        ({"NO_PROXY": "a,localhost", "no_proxy": "b,a"}, "[::1]", "a,localhost,b,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "127.0.0.1", "*,127.0.0.1,localhost,::1"),
    ],
)
def test_no_proxy_is_extended(environment, host, expected):
    assert extend_no_proxy(environment, host) == expected


def test_environment_is_restored(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "a.example")
    monkeypatch.delenv("no_proxy", raising=False)
    before = dict(os.environ)
    with offline_environment(tmp_path, "127.0.0.1"):
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "a.example,127.0.0.1,localhost,::1"
        assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert dict(os.environ) == before


def test_large_photos_are_stored_in_large_blocks():
    before = Image.core.get_block_size()
    with large_memory_blocks():
        assert Image.core.get_block_size() == 64 * 2**20
    assert Image.core.get_block_size() == before
