import io
import logging
import sys

import pytest

from vl_alignment.data.confidential import masked_output, without_secrets


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("push hf_abcdefghijklmnopqrst to", "push *** to"),
        ("https://me:1234@host/a@b", "https://***@host/a@b"),
        ("https:/me:1234@host/data", "https:/***@host/data"),
        ("GET /file?X-Amz-Signature=12ab&part=1", "GET /file?X-Amz-Signature=***&part=1"),
        ("train.py --hf-token 'a b' --api-key=12 --password x", "train.py --hf-token *** --api-key=*** --password ***"),
        ("authorization: Bearer abc.def", "authorization: Bearer ***"),
        ('{"command": "train --token abc"}', '{"command": "train --token ***"}'),
    ],
)
def test_secrets_are_masked(text, masked):
    assert without_secrets(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "from huggingface_hub import hf_hub_download",
        "--tokenizer bert --token-file tokens.txt",
        "the token may not write there; set HF_TOKEN",
        "https://host/models/me/scan@main",
        "C:/users/me@home",
    ],
)
def test_all_else_stays(text):
    assert without_secrets(text) == text


def test_the_token_of_the_environment_is_masked_whatever_its_form(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "eyJhbGciOi.12")
    assert without_secrets("refused: eyJhbGciOi.12") == "refused: ***"
    monkeypatch.setenv("HF_TOKEN", "the")
    assert without_secrets("the data") == "the data"


def test_output_and_logs_are_masked_and_put_back(monkeypatch):
    output, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    logger, handler = logging.getLogger("tests.confidential"), logging.StreamHandler()  # made before, as at an import
    logger.addHandler(handler)
    try:
        with masked_output():
            print("token hf_abcdefghijklmnop")
            logger.warning("GET %s", "https://me:1234@host/")
            assert not sys.stdout.isatty()
        logger.warning("after")
    finally:
        logger.removeHandler(handler)
    assert output.getvalue() == "token ***\n"
    assert errors.getvalue() == "GET https://***@host/\nafter\n"
    assert sys.stdout is output and handler.stream is errors
