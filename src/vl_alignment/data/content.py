"""What identifies the content of a data set in the results."""

import hashlib
import json
from collections.abc import Mapping

import datasets

__all__ = ["content_hash"]

# What the content of a record is, whatever the task; a data set has some of these columns.
CONTENT_COLUMNS = ("image_id", "captions", "question", "answer", "answers")


def content_hash(data: Mapping[str, datasets.Dataset]) -> str:
    """Return 16 hexadecimal digits of a SHA-256 over split names, image ids and captions, or questions and answers.

    The order of the splits does not count, the order of the records and captions does.
    """
    digest = hashlib.sha256()
    for name in sorted(data):
        split = data[name]
        columns = [column for column in CONTENT_COLUMNS if column in split.column_names]
        digest.update(json.dumps([name, columns, len(split)]).encode())
        for batch in split.select_columns(columns).iter(batch_size=1000):
            for row in zip(*(batch[column] for column in columns), strict=True):
                digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:16]
