"""The command `vl-alignment demo` says what it cannot serve before it serves."""

import socket

import pytest

from vl_alignment.cli import main

pytest.importorskip("gradio", reason="needs gradio: pip install 'vl-alignment[demo]'")


def test_a_folder_without_a_model_is_refused(tmp_path, capsys):
    assert main(["demo", str(tmp_path), "--no-browser"]) == 2
    assert capsys.readouterr().err == f"vl-alignment: {tmp_path}: no model's config.json is found there\n"


def test_a_port_that_is_taken_is_refused(tiny_models, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["demo", tiny_models["scan", "dot"], "--port", port, "--no-browser"]) == 2
    assert port in capsys.readouterr().err
