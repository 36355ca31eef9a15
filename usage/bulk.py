"""Statements with many rows in them, each handed over as its database reads them fastest.

PostgreSQL gets an array a column: with a placeholder for each value, its driver would take longer to find
them all than the server to store the rows. SQLite gets the values themselves.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from itertools import batched
from typing import Any, Final

from django.db import connection

type Row = tuple[Any, ...]  # of mixed types

_MOST: Final = {"postgresql": 5000, "sqlite": 500}  # rows in one statement; SQLite bounds its values
_TYPES: Final = {int: "bigint", str: "text", dt.datetime: "timestamptz", dt.date: "date"}


def execute(statement: str, rows: Iterable[Row]) -> list[Row]:
    """Run a statement with these rows in the place of `{rows}`, as often as there are too many for one; what
    it returns.

    Rows have whole numbers, texts, moments, days and None, in each column one kind of them.
    """
    found: list[Row] = []
    with connection.cursor() as cursor:
        for chunk in batched(rows, _MOST[connection.vendor]):
            source, parameters = (_arrays if connection.vendor == "postgresql" else _values)(chunk)
            cursor.execute(statement.format(rows=source), parameters)
            if cursor.description is not None:
                found += cursor.fetchall()
    return found


def _values(rows: Sequence[Row]) -> tuple[str, list[Any]]:
    row = f"({', '.join(['%s'] * len(rows[0]))})"
    return "VALUES " + ", ".join([row] * len(rows)), [value for row in rows for value in row]


def _arrays(rows: Sequence[Row]) -> tuple[str, list[Any]]:
    """What is the same in all rows goes over once; only the rest is an array."""
    names: list[str] = []
    columns: list[str] = []
    arrays: list[str] = []
    scalars: list[Any] = []
    parameters: list[Any] = []
    for number, column in enumerate(zip(*rows, strict=True)):
        kind = next((type(value) for value in column if value is not None), None)
        if kind is None:
            names.append("NULL")  # takes the type of the column that it goes into
        elif arrays and column.count(column[0]) == len(column):  # one array says how many rows there are
            names.append(f"%s::{_TYPES[kind]}")
            scalars.append(column[0])
        else:
            names.append(f"c{number}")
            columns.append(f"c{number}")
            arrays.append(f"%s::{_TYPES[kind]}[]")
            parameters.append(list(column))
    source = f"FROM unnest({', '.join(arrays)}) AS row ({', '.join(columns)})"
    return f"SELECT {', '.join(names)} {source}", scalars + parameters
