"""What identifies the content of a data set in the results."""

import hashlib
import json
from collections.abc import Mapping

import datasets

__all__ = ["content_hash"]


def content_hash(data: Mapping[str, datasets.Dataset]) -> str:
    """Return 16 hexadecimal digits of a SHA-256 over split names, image ids and captions.

    The order of the splits does not count, the order of the images and captions does.
    """
    digest = hashlib.sha256()
    for name in sorted(data):
        split = data[name]
        columns = [column for column in ("image_id", "captions") if column in split.column_names]
        digest.update(json.dumps([name, columns, len(split)]).encode())
        for batch in split.select_columns(columns).iter(batch_size=1000):
            for row in zip(*(batch[column] for column in columns), strict=True):
                digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:16]
