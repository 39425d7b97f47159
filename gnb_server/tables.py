"""Tables as CSV or Parquet, written in parts: no more than one part is in memory.

CSV: lines that begin with # come first, the header as JSON in the last of them; then the columns' names, and the rows.
Parquet: the header is the entry `csiemu` of the schema's metadata. It needs pyarrow, the extra `parquet`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Literal

from shared.errors import CsiError

Format = Literal["csv", "parquet"]

MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}

Columns = Mapping[str, list[Any]]
"""A part of a table: column -> values, None where there is none."""


class NoParquet(CsiError):
    """No Parquet can be written by this installation."""


def write_table(
    file_format: Format, types: Mapping[str, str], parts: Iterable[Columns], header: Mapping[str, Any]
) -> Iterator[bytes]:
    """The file of a table.

    Args:
        types: column -> type, as Arrow calls it.
        header: what holds for all rows, for JSON.

    Raises:
        NoParquet: at once.
    """
    if file_format == "csv":
        return _csv(list(types), parts, header)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise NoParquet(
            "parquet: pyarrow is not installed; pip install 'csi-feedback-emulator[parquet]', or ask for csv"
        ) from None
    return _parquet(pyarrow, types, parts, header)


def _csv(names: list[str], parts: Iterable[Columns], header: Mapping[str, Any]) -> Iterator[bytes]:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    text.write(f"# A table of csiemu; what holds for all rows, as JSON:\n# {json.dumps(header)}\n")
    rows.writerow(names)
    for part in parts:
        yield _taken(text)
        rows.writerows(zip(*(part[name] for name in names), strict=True))
    yield _taken(text)


def _taken(text: io.StringIO) -> bytes:
    """What was written so far, which is there no more."""
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return data


class _Sink(io.RawIOBase):
    """A file that is only written, from which the bytes are taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Keep bytes until they are taken."""
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """What was written so far, which is there no more."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _parquet(
    arrow: ModuleType, types: Mapping[str, str], parts: Iterable[Columns], header: Mapping[str, Any]
) -> Iterator[bytes]:
    schema = arrow.schema([(name, getattr(arrow, kind)()) for name, kind in types.items()])
    schema, sink = schema.with_metadata({"csiemu": json.dumps(header)}), _Sink()
    with arrow.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(arrow.table(dict(part), schema=schema))
            yield sink.take()
    yield sink.take()
