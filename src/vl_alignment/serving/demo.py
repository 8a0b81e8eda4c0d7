"""The page on this machine: `vl-alignment demo`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..models.errors import ConfigurationError
from .space import write_examples

__all__ = ["serve_demo"]


def serve_demo(
    models: Sequence[str], *, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = True
) -> None:
    """Serve the page until it is interrupted.

    Args:
        models: Names of repositories, or folders of models.
        host: Which address to answer at; by default this machine's own alone.
        port: Of that address; by default the first free one from 7860 on.
        open_browser: Whether to show it at once.

    Raises:
        ConfigurationError: gradio is missing, a model cannot be used, or the port is taken.
    """
    try:
        from .app import build_app, serve
    except ImportError as error:
        raise ConfigurationError(
            f"the page needs gradio ({error}); install it: pip install 'vl-alignment[demo]'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="vl-alignment-demo-") as examples:
        write_examples(examples)
        try:
            app = build_app(models, examples=Path(examples), reader=_text_reader())
            serve(app, server_name=host, server_port=port, inbrowser=open_browser)
        except (ValueError, OSError) as error:
            raise ConfigurationError(str(error)) from error


def _text_reader() -> Any:
    """Return what reads the words in a picture, if its package is installed."""
    from ..data.text_recognition import build_text_reader

    try:
        return build_text_reader().read
    except ConfigurationError:
        return None
