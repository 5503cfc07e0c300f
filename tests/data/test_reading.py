import gzip
import subprocess
import sys

import polars as pl
import pytest

from midpg_np.data import Encoder, MissingExtraError, Schema, read_table
from midpg_np.data.reading import table_columns

ROWS = [["y", "s", "item"], [0, "a", 7], [1, "b", ""], [1, "a", 9]]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t"), ("t.txt", " "), ("t.csv", ";")]
)
def test_separators(write_csv, name, delimiter):
    frame = read_table(write_csv(ROWS, name, delimiter))
    assert frame.to_dict(as_series=False) == {
        "y": [0, 1, 1],
        "s": ["a", "b", "a"],
        "item": [7, None, 9],
    }


def test_gzip_and_parquet_give_the_same_table(write_csv, tmp_path):
    path = write_csv(ROWS)
    frame = read_table(path)
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    frame.write_parquet(tmp_path / "t.parquet")
    for copy in (packed, tmp_path / "t.parquet"):
        assert read_table(copy).equals(frame)
        assert read_table(copy, ["item", "y"]).columns == ["item", "y"]
        assert read_table(copy, n_rows=2).height == 2
        assert table_columns(copy) == ("y", "s", "item")


def test_quoted_header_mark_and_late_text(tmp_path):
    path = tmp_path / "t.csv"
    rows = "".join(f"{i % 2},{i}\n" for i in range(300))
    path.write_text('\ufeff"the label","x, y"\n' + rows + "1,late\n", encoding="utf-8")
    frame = read_table(path, ["the label", "x, y"])
    assert frame["x, y"][-1] == "late" and frame.height == 301


def test_a_column_is_the_same_in_files_that_store_it_differently(write_csv):
    schema = Schema("y", "s", aware=("s",), agnostic=("item",))
    whole = read_table(write_csv([["y", "s", "item"], [0, "a", 7], [1, "b", 9]], "a.csv"))
    point = read_table(write_csv([["y", "s", "item"], [0, "a", "7.0"], [1, "b", "9.0"]], "b.csv"))
    text = read_table(write_csv([["y", "s", "item"], [0, "a", 7], [1, "b", "x"]], "c.csv"))
    assert [frame["item"].dtype for frame in (whole, point, text)] == [
        pl.Int64,
        pl.Float64,
        pl.String,
    ]
    encoder = Encoder(schema).fit(whole)
    assert encoder.transform(point).codes[:, 1].tolist() == [1, 2]
    assert encoder.transform(text, warn=False).codes[:, 1].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv is empty; a header line and rows are needed"),
        (b"\n", "t.csv"),
        (b"y,s\n", "t.csv has a header but no rows"),
        (b"y,s\n1,2\n1,2,3\n", "t.csv could not be read as a table"),
        (b"y,s\n\xff\xfe,2\n", "t.csv could not be read as a table"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(path)


@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet"])
@pytest.mark.parametrize("content", [b"not packed at all\n", b"\x1f\x8b\x08\x00\x00"])
def test_damaged_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match="could not be read as a table"):
        read_table(path)


def test_truncated_gzip(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"y,s\n" + b"0,1\n" * 10_000)[:-20])
    with pytest.raises(ValueError, match="could not be read as a table"):
        read_table(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; give the path of a CSV"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="is a folder, not a file"):
        read_table(tmp_path)


def test_missing_column_names_file_and_closest(write_csv):
    with pytest.raises(ValueError, match=r"table.csv has no column 'itm'.*Did you mean 'item'"):
        read_table(write_csv(ROWS), ["y", "itm"])


def test_without_polars_the_extra_is_named(write_csv, monkeypatch):
    path = write_csv(ROWS)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'midpg_np\[app\]'"):
        read_table(path)
    assert issubclass(MissingExtraError, ImportError)


def test_importing_the_package_loads_numpy_only():
    code = (
        "import sys, midpg_np.data; "
        "print([m for m in ('polars', 'pandas', 'sklearn', 'torch', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
