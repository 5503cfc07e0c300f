import csv

import pytest


@pytest.fixture
def write_csv(tmp_path):
    """Write a table (a list of rows, the first one the header) to a file and return its path."""

    def write(rows, name="table.csv", delimiter=","):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)
        return path

    return write
