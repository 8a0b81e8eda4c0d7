"""Mutations of files for `fuzz.py`: what knows the format, what knows only bytes, and what is done to the file itself.

Every mutation follows from a `random.Random` alone, so that a case can be made again from its number.
"""

import functools
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from PIL import Image

OUTSIDE = "outside"  # the folder beside that of the case, which nothing may read or write
SECRET = "secret"  # the files in it, a valid one of every kind

# What JSON itself cannot say is put in as text after all else is written.
RAW = {
    "@deep@": "[" * 50_000 + "]" * 50_000,
    "@deep-object@": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "@digits@": "9" * 5_000,
    "@beyond-64-bits@": "1" + "0" * 30,
    "@overflow@": "1e999",
    "@nan@": "NaN",
    "@half@": '"\\ud800"',
}


class Canary:
    """An object whose pickle makes a folder when it is loaded as pickles usually are."""

    def __init__(self, path: str, how: int) -> None:
        self.path, self.how = path, how

    def __reduce__(self) -> Any:
        if self.how == 0:
            return os.mkdir, (self.path,)
        if self.how == 1:
            return eval, (f"__import__('os').mkdir({self.path!r})",)
        return os.system, (f"mkdir {self.path}",)


def strange_value(rng: random.Random, outside: Path) -> Any:
    """A value that a reader may not expect, names that lead out of the folder among them."""
    up = "../" * rng.randint(1, 5)
    return rng.choice(
        [
            *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**63), 0.5, -0.5, 1e308, 5e-324),
            *("", " ", "a", "0", "\x00", "x" * 10_000, "\u2028", "..", "/", "train", "test", "dot", "\ud83d\ude00"),
            *([], {}, [[]], [None], [""], {"": None}, [0.5], [[0.1, 0.2, 0.3, 0.4]], ["a", "b"], [1, "a"], {"a": 1}),
            *RAW,
            *(f"{up}{OUTSIDE}/{SECRET}.png", f"{outside}/{SECRET}.png", f"{up}{OUTSIDE}/{SECRET}.npy"),
            *(f"{outside}/{SECRET}.npy", f"{up}{OUTSIDE}/new", f"{outside}/{SECRET}", f"a/../{up}{OUTSIDE}/{SECRET}"),
        ]
    )


def mutate_tree(tree: Any, rng: random.Random, outside: Path) -> Any:
    """Change one to three places of nested lists and dictionaries."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = [*_places(tree)]
        if not places or rng.random() < 0.03:
            return strange_value(rng, outside)
        container, key = rng.choice(places)
        what = rng.random()
        if what < 0.5:
            container[key] = strange_value(rng, outside)
        elif what < 0.7:
            del container[key]
        elif what < 0.85:
            other, other_key = rng.choice(places)
            container[key] = json.loads(json.dumps(other[other_key], default=str))
        elif isinstance(container, list):
            container.insert(key, json.loads(json.dumps(container[key], default=str)))
        else:
            container[str(strange_value(rng, outside))[:200]] = container.pop(key)
    return tree


def _places(tree: Any) -> Any:
    """Every (container, key) of a tree."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in [*entries]:
        yield tree, key
        yield from _places(value)


def _with_raw(text: str) -> str:
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text


def mutate_json(content: bytes, rng: random.Random, outside: Path) -> bytes:
    tree = json.loads(content)
    text = _with_raw(json.dumps(mutate_tree(tree, rng, outside), default=str))
    if rng.random() < 0.1 and '": ' in text:  # the key of some entry stands there twice
        key = rng.choice([part.rpartition('"')[2] for part in text.split('": ')[:-1]])
        text = text.replace(f'"{key}": ', f'"{key}": null, "{key}": ', 1)
    encoding = rng.choice(["utf-8"] * 12 + ["utf-16", "utf-8-sig", "utf-32", "latin-1"])
    return text.encode(encoding, errors="replace")


def mutate_json_lines(content: bytes, rng: random.Random, outside: Path) -> bytes:
    lines = content.splitlines()
    if rng.random() < 0.3:
        return mutate_lines(content, rng, outside)
    number = rng.randrange(len(lines))
    lines[number] = mutate_json(lines[number], rng, outside)
    return b"\n".join(lines) + b"\n"


def mutate_lines(content: bytes, rng: random.Random, outside: Path) -> bytes:
    """Change lines and columns of text."""
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    value = str(strange_value(rng, outside)).encode(errors="replace")
    what = rng.randrange(9)
    if what == 0:
        del lines[number]
    elif what == 1:
        lines.insert(number, lines[rng.randrange(len(lines))])
    elif what == 2:
        lines[number] = value
    elif what == 3:
        separator = b"," if b"," in lines[number] else b" "
        columns = lines[number].split(separator)
        columns[rng.randrange(len(columns))] = value
        lines[number] = separator.join(columns)
    elif what == 4:
        lines[number] += b" " + value
    elif what == 5:
        lines = [line + b"\r" for line in lines]
    elif what == 6:
        lines[number] = lines[number] * rng.choice([2, 50, 20_000])
    elif what == 7:
        return content.decode(errors="replace").encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"]))
    else:
        lines[number] = lines[number].replace(b" ", rng.choice([b"\t", b"\xc2\xa0", b"\x00", b"  ", b"\xff"]))
    return b"\n".join(lines)


def _bomb(levels: int = 30) -> str:
    """A value of a few lines that has 9 to the power of `levels` entries once its aliases are written out."""
    lines = ["&a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "[" + ", ".join(lines) + "]"


YAML_VALUES = (
    *("2020-13-45", "2020-01-01", "!!float x", "!!int x", "!!binary x", "!!timestamp x", "!!set {a}", "&a [*a]"),
    *("!!python/object/apply:os.system ['true']", "!!python/name:os.system", "{[a]: b}", "[" * 20_000, "? [a]\n: b"),
    *("190:20:30", "0b1_0", "0x" + "f" * 6_000, ".nan", "-.inf", "<<", "~", "'", '"\\ud800"', "@", "%", "*x"),
    _bomb(),
)


def mutate_yaml(content: bytes, rng: random.Random, outside: Path) -> bytes:
    text = content.decode()
    if rng.random() < 0.5:
        tree = mutate_tree(yaml.safe_load(text), rng, outside)
        return yaml.safe_dump(tree, allow_unicode=True).encode(errors="replace")
    values = [part for part in text.replace("\n", " ").split() if part.strip("[]{},:-")]
    return text.replace(rng.choice(values).strip("[]{},:-"), rng.choice(YAML_VALUES), 1).encode(errors="replace")


def mutate_npy(content: bytes, rng: random.Random, outside: Path) -> bytes:
    """Write another header, or other numbers."""
    array = np.load(io.BytesIO(content))
    if rng.random() < 0.4:
        array = rng.choice(
            [
                *(array.astype("float64"), array.astype("int8"), array.astype("complex64"), array.astype("S3")),
                *(array[None], array.reshape(-1), array[:1], array[:0], array * np.nan, array[..., :1], array.T),
                *(array.astype(">f4"), np.asfortranarray(array), np.array(3.0), array.astype("longdouble")),
                *(np.zeros(3, dtype=[("a", "f4")]), np.zeros(3, dtype="M8[s]"), np.full_like(array, np.inf)),
            ]
        )
        written = io.BytesIO()
        np.save(written, array)
        return written.getvalue()
    if rng.random() < 0.2:
        written = io.BytesIO()
        np.save(written, np.array([Canary(str(outside / "made"), rng.randrange(3))], dtype=object), allow_pickle=True)
        return written.getvalue()
    shapes = [(10**12, 2, 3), (-1, 2, 3), (0, 2, 3), (2**63, 2**63), (), (3.0,), "x", None, (True,), (10**30,), [3]]
    types = ["<f4", "|O", "<U9", "V8", "<c16", "|b1", "<f8", "<f2", "garbage", None, [("a", "<f4", (10**9,))], "f4,f4"]
    header = {
        "descr": rng.choice([np.lib.format.dtype_to_descr(array.dtype)] * 3 + types),
        "fortran_order": rng.choice([False, False, True, 7]),
        "shape": rng.choice([array.shape, *shapes]),
    }
    if rng.random() < 0.1:
        header.pop(rng.choice([*header]))
    text = rng.choice(
        [repr(header)] * 6 + ["(" * 500 + ")" * 500, "-" * 5_000 + "1", "__import__('os')", repr(header)[:-3]]
    )
    body = text.encode().ljust(117) + b"\n"
    version = bytes([rng.choice([1, 1, 1, 2, 3, 9]), 0])
    return b"\x93NUMPY" + version + struct.pack("<H", len(body)) + body + array.tobytes()


def mutate_safetensors(content: bytes, rng: random.Random, outside: Path) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    header, body = content[8 : 8 + length], content[8 + length :]
    what = rng.random()
    if what < 0.6:
        header = mutate_json(header, rng, outside)
        length = len(header)
    elif what < 0.75:
        length = rng.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1])
    else:
        position = rng.randrange(0, max(1, len(body) - 4), 4)
        number = rng.choice([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\xff\xff\x7f\x7f"])
        body = body[:position] + number + body[position + 4 :]
    return struct.pack("<Q", length) + header + body


def hostile_pickle(rng: random.Random, outside: Path) -> bytes:
    """A pickle that would run something, ask for memory, or nest without end."""
    return rng.choice(_hostile_pickles(str(outside / "made")))


@functools.cache
def _hostile_pickles(made: str) -> list[bytes]:
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    return [
        *(pickle.dumps(Canary(made, how), protocol=protocol) for how in range(3) for protocol in (0, 2, 4)),
        pickle.dumps({"a": [Canary(made, 0)]}, protocol=2),
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(Vopen('/nowhere')\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        b"\x80\x02]r\xff\xff\xff\x3f.",  # a memo of a thousand million entries
        b"]p268435456\n.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",  # bytes of a terabyte
        b"\x80\x04\x96" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\x00\x00\x00\x7f\x85C\x01b\x87R.",
        b"\x80\x02cnumpy\ndtype\nX\x03\x00\x00\x00O30\x85R.",
        b"\x80\x02" + b"]" * 40_000 + b"a" * 39_999 + b".",
        b"\x80\x02)" + b"\x85" * 60_000 + b".",
        b"\x80\x02}(" + b")" + b"\x85" * 60_000 + b"K\x01u.",  # a key so deep that its hash recurses
        b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02c__builtin__\nlist\nc__builtin__\ntuple\n\x85R.",
        b"(dp0\nS'a'\np1\nI" + b"9" * 5_000 + b"\ns.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"x.",
        pickle.dumps(nested, protocol=2),
    ]


def mutate_pickle(content: bytes, rng: random.Random, outside: Path) -> bytes:
    if rng.random() < 0.4:
        return hostile_pickle(rng, outside)
    tree = mutate_tree(pickle.loads(content), rng, outside)
    return pickle.dumps(tree, protocol=rng.randrange(6))


def mutate_zip(content: bytes, rng: random.Random, outside: Path) -> bytes:
    """Change the members of an archive, as torch's files are."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    number = rng.randrange(len(members))
    program = next((place for place, (name, _) in enumerate(members) if name.endswith("data.pkl")), number)
    name, data = members[number]
    what = rng.randrange(9)
    compression = zipfile.ZIP_STORED
    if what == 0:
        del members[number]
    elif what == 1:
        members[number] = (
            rng.choice(["../" * 3 + f"{OUTSIDE}/{SECRET}", f"{outside}/{SECRET}", "", "a" * 5_000]),
            data,
        )
    elif what == 2:
        members.append((f"{'../' * rng.randint(1, 4)}{OUTSIDE}/made", b"made"))
    elif what == 3:
        compression = zipfile.ZIP_DEFLATED
    elif what == 4:  # 16 MiB in 16 KiB
        members[number], compression = (name, bytes(2**24)), zipfile.ZIP_DEFLATED
    elif what == 5:
        members[number] = (name, mutate_bytes(data, rng, outside))
    elif what == 6:
        members[program] = (members[program][0], hostile_pickle(rng, outside))
    elif what == 7:
        members[program] = (members[program][0], mutate_bytes(members[program][1], rng, outside))
    else:
        members.append(members[number])
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name.replace("\x00", "") or "-", data)
    return written.getvalue()


def mutate_hdf5(content: bytes, rng: random.Random, outside: Path) -> bytes:
    """Write another dataset of the name, some of which lie in other files."""
    with h5py.File(io.BytesIO(content), "r") as file:
        name, array = next((name, item[()]) for name, item in file.items())
    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        what = rng.randrange(12)
        if what == 0:
            file.create_dataset(name, data=array.astype(rng.choice(["i4", "f8", "f2", "c8", "S4", "?", ">f4"])))
        elif what == 1:
            file.create_dataset(name, data=rng.choice([array[0], array[None], array[:0], array.reshape(-1), array[:1]]))
        elif what == 2:
            file.create_dataset(name, data=array, chunks=True, compression="gzip", shuffle=True)
        elif what == 3:
            file.create_dataset(name, array.shape, "f4", external=[(str(outside / f"{SECRET}.png"), 0, array.nbytes)])
        elif what == 4:
            file[name] = h5py.ExternalLink(str(outside / f"{SECRET}.h5"), name)
        elif what == 5:
            layout = h5py.VirtualLayout(array.shape, "f4")
            layout[:] = h5py.VirtualSource(str(outside / f"{SECRET}.h5"), name, array.shape)
            file.create_virtual_dataset(name, layout)
        elif what == 6:
            file[name] = h5py.SoftLink(rng.choice(["/nowhere", f"/{name}", "/"]))
        elif what == 7:
            file.create_dataset(name, (10**9, *array.shape[1:]), "f4", chunks=(1, *array.shape[1:]))
        elif what == 8:
            file.create_dataset(name, (4, 10**6, 10**3, 10**3), "f4", chunks=(1, 10, 10, 10))
        elif what == 9:
            file.create_group(f"{name}/deeper")
        elif what == 10:
            file.create_dataset(name, data=np.full_like(array, rng.choice([np.nan, np.inf, 1e30])))
        else:
            file.create_dataset(name, array.shape[:1], h5py.vlen_dtype(np.float32))
    return written.getvalue()


def mutate_image(content: bytes, rng: random.Random, outside: Path) -> bytes:
    """Other formats, modes and sizes, among them sizes that are only claimed."""
    if rng.random() < 0.4 and content.startswith(b"\x89PNG"):
        sizes = (0, 1, 7, 2**16, 2**31 - 1, 2**32 - 1, 12_000)
        header = struct.pack(">IIBBBBB", rng.choice(sizes), rng.choice(sizes), rng.choice([8, 1, 16, 3]), *[2, 0, 0, 0])
        chunk = b"IHDR" + header
        return content[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    if rng.random() < 0.1:
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/nowhere) run\n%%EOF\n"
    image = Image.open(io.BytesIO(content))
    image = image.convert(
        rng.choice(["RGB", "L", "RGBA", "P", "CMYK", "I;16", "1", "LA"][: 3 if rng.random() < 0.5 else 8])
    )
    image = image.resize(rng.choice([(1, 1), (3, 200), (40, 20), (1, 3_000)]))
    written = io.BytesIO()
    try:
        image.save(
            written, rng.choice(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO", "TGA", "PDF", "EPS"])
        )
    except (OSError, ValueError, KeyError):  # not every format has every mode
        image.convert("RGB").save(written, "PNG")
    data = written.getvalue()
    return mutate_bytes(data, rng, outside) if rng.random() < 0.5 else data


def mutate_bytes(content: bytes, rng: random.Random, outside: Path) -> bytes:
    """Change a file without knowing its format."""
    data = bytearray(content)
    length = max(1, len(data))
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(length)
        what = rng.randrange(10)
        if what == 0:
            del data[at:]
        elif what == 1 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif what == 2 and data:
            data[at % len(data)] = rng.randrange(256)
        elif what == 3:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 300]))
        elif what == 4:
            del data[at : at + rng.choice([1, 4, 100])]
        elif what == 5:
            data[at:at] = data[at : at + rng.choice([1, 16, 500])]
        elif what == 6:
            width = rng.choice([1, 2, 4, 8])
            number = rng.choice([0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1])
            data[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
        elif what == 7:
            data[at : at + rng.choice([8, 64])] = bytes(rng.choice([8, 64]))
        elif what == 8:
            data += rng.choice([b"\x00", b"}", b"\n\n", rng.randbytes(50)])
        elif what == 9 and rng.random() < 0.2:
            data = bytearray(
                rng.choice([b"", b"\x00" * 100, b"\xef\xbb\xbf", b"null", b"[]", b"{}", rng.randbytes(200)])
            )
    return bytes(data)


STRUCTURED: dict[str, Callable[[bytes, random.Random, Path], bytes]] = {
    "bytes": mutate_bytes,
    "hdf5": mutate_hdf5,
    "image": mutate_image,
    "json": mutate_json,
    "jsonl": mutate_json_lines,
    "lines": mutate_lines,
    "npy": mutate_npy,
    "pickle": mutate_pickle,
    "safetensors": mutate_safetensors,
    "yaml": mutate_yaml,
    "zip": mutate_zip,
}


def mutate_file(path: Path, kind: str, rng: random.Random, outside: Path) -> str:
    """Put a mutation in the place of a file; returns which sort it was."""
    content = path.read_bytes()
    what = rng.random()
    if what < 0.55:
        path.write_bytes(STRUCTURED[kind](content, rng, outside))
        return kind
    if what < 0.87:
        path.write_bytes(mutate_bytes(content, rng, outside))
        return "bytes"
    if what < 0.94:
        path.write_bytes(rng.choice(sorted(outside.glob(f"{SECRET}.*"))).read_bytes())
        return "another kind of file"
    path.unlink()
    state = rng.choice(["missing", "folder", "link to itself", "link to nothing", "unreadable"])
    if state == "folder":
        path.mkdir()
    elif state == "link to itself":
        path.symlink_to(path)
    elif state == "link to nothing":
        path.symlink_to(path.with_name("nothing"))
    elif state == "unreadable":
        path.write_bytes(content)
        path.chmod(0)
    return state


def restore_file(path: Path, content: bytes) -> None:
    """Put back the file that was there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
