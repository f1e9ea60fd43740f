"""Fixtures of the playing side: tokenizers of several kinds."""

import pytest
from ragen_tokenizers import _IM, STRIPS_THOUGHTS, TOKENIZERS, bpe


@pytest.fixture(scope="session", params=list(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="session")
def chatml():
    return TOKENIZERS["chatml-bpe"]()


@pytest.fixture(scope="session")
def strips_thoughts():
    return bpe(STRIPS_THOUGHTS, _IM, "<|im_end|>")
