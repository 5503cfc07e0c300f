import csv
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared():
    """Find the folder of a real data set beside the repository; skip the test without it."""

    def folder(name):
        path = SHARED / name
        if not path.is_dir():
            pytest.skip(f"real data {name!r} is not beside the repository")
        return path

    return folder


@pytest.fixture
def write_csv(tmp_path):
    """Write a table (a list of rows, the first one the header) to a file and return its path."""

    def write(rows, name="table.csv", delimiter=","):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)
        return path

    return write
