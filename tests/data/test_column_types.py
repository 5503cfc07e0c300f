"""Types of the columns of text files: those that polars finds when it looks at every row."""

import gzip

import polars as pl
import pytest

from midpg_np.data import column_types, read_table, reading
from midpg_np.data.reading import read_chunks

PLAIN = {
    "whole": ["1", "-2", "3"],
    "float": ["1.5", "2", "-3.25e2"],
    "truth": ["true", "false", "TRUE"],
    "text": ["a", "b", ""],
    "empty": [""] * 3,
}
LATE = [
    *("7", "1.5", "x", "true", "", "+7", " 7", "7 ", " ", "\t7", '""', '"7"', '"true"', "007"),
    *("nan", "NaN", "inf", "-inf", "Infinity", "INF", "1e5", "1E5", "1e400", "7.", ".5", "+.5"),
    *("9223372036854775807", "9223372036854775808", "99999999999999999999999", "-0", "1_000"),
    *("0x10", "1,5".replace(",", ";"), "1e", "1d5", "nan(1)", "t", "2020-01-02"),
]


def whole_read(text):
    """The types and values of all rows, or None if polars cannot read them."""
    try:
        return pl.read_csv(text, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return None


@pytest.mark.parametrize("kind", PLAIN)
def test_a_late_value_counts_as_an_early_one(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(column_types, "SAMPLE", 20)
    monkeypatch.setattr(reading, "_BLOCK", 256)
    path = tmp_path / "t.csv"
    for late in LATE:
        values = PLAIN[kind] * 20 + [late] + PLAIN[kind] * 4
        text = ("x,y\n" + "".join(f"{value},a\n" for value in values)).encode()
        path.write_bytes(text)
        want = whole_read(text)
        if want is None:
            for read in (read_table, lambda path: list(read_chunks(path, ["x", "y"], 7))):
                with pytest.raises(ValueError, match="could not be read as a table"):
                    read(path)
            continue
        got = read_table(path)
        assert got.schema == want.schema and got.equals(want, null_equal=True), late
        pieces = pl.concat(read_chunks(path, ["x", "y"], 7))
        assert pieces.schema == want.schema and pieces.equals(want), late


def test_plain_files_are_not_looked_at_twice(tmp_path, monkeypatch):
    """Else the types are right, but the time is lost."""
    path = tmp_path / "t.csv"
    columns = [PLAIN["whole"], PLAIN["float"], PLAIN["truth"], PLAIN["text"], PLAIN["empty"]]
    rows = "".join(",".join(row) + "\n" for row in zip(*columns, strict=True))
    path.write_text("a,b,c,d,e\n" + rows * 50)
    lengths = []
    read_csv = pl.read_csv
    monkeypatch.setattr(
        pl,
        "read_csv",
        lambda *a, **k: lengths.append(k["infer_schema_length"]) or read_csv(*a, **k),
    )
    types = read_table(path).dtypes
    assert types == [pl.Int64, pl.Float64, pl.Boolean, pl.String, pl.String]
    assert lengths == [column_types.SAMPLE, 0]


QUOTED = 'name,n\n"a, b",1\n"line\nbreak",2\n"say ""hi""",3\n,4\n"",5\n"tail\n\n",6\n'


@pytest.mark.parametrize("block", [8, 16, 64, 10_000])
@pytest.mark.parametrize("n_rows", [1, 4, 1000])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_pieces_are_the_table(tmp_path, monkeypatch, block, n_rows, suffix):
    monkeypatch.setattr(reading, "_BLOCK", block)
    path = tmp_path / f"t{suffix}"
    text = QUOTED + QUOTED.split("\n", 1)[1] * 9
    if suffix == ".parquet":
        pl.read_csv(text.encode()).write_parquet(path, row_group_size=7)
    else:
        path.write_bytes(gzip.compress(text.encode()) if suffix == ".csv.gz" else text.encode())
    whole = read_table(path)
    assert whole.height == 60
    pieces = list(read_chunks(path, ["n", "name"], n_rows))
    assert [piece.height for piece in pieces[:-1]] == [n_rows] * (len(pieces) - 1)
    assert pl.concat(pieces).equals(whole.select("n", "name"), null_equal=True)


def test_pieces_of_a_file_without_a_last_line_end_and_with_a_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_BLOCK", 8)
    path = tmp_path / "t.tsv"
    path.write_bytes("\ufeffa\tb\r\n1\tx\r\n2\ty\r\n3\tz".encode())
    pieces = pl.concat(read_chunks(path, ["b", "a"], 2))
    assert pieces.to_dict(as_series=False) == {"b": ["x", "y", "z"], "a": [1, 2, 3]}
    assert pieces.equals(read_table(path, ["b", "a"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv is empty; a header line and rows are needed"),
        (b"y,s\n", "t.csv has a header but no rows"),
        (b"z\n1\n", "t.csv has no columns 'y', 's'"),
        (b"y,s\n1,2\n1,2,3\n", "t.csv could not be read as a table"),
        (b"y,s\n\xff\xfe,2\n", "t.csv could not be read as a table"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_chunks(path, ["y", "s"], 10))


def test_truncated_and_missing_files(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"y,s\n" + b"0,1\n" * 10_000)[:-20])
    with pytest.raises(ValueError, match="could not be read as a table"):
        list(read_chunks(path, ["y", "s"], 10))
    with pytest.raises(FileNotFoundError, match="does not exist; give the path of a CSV"):
        list(read_chunks(tmp_path / "none.csv", ["y"], 10))
