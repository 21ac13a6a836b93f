import gzip
import json
import sys

import pytest

from prompt_jax.data.files import data_name, read_rows
from prompt_jax.errors import DataError, MissingExtraError

from .conftest import write_jsonl

ROWS = [
    {"sentence": 'She said "naïve", twice; 日本語 \u2028 🦆', "label": "1"},
    {"sentence": "a, b", "label": "0"},
    {"sentence": "x" * 200_000, "label": "1"},
]


def write(path, rows):
    """Writes rows in the format that the suffixes of `path` name."""
    name = path.name.removesuffix(".gz")
    columns = list(rows[0])
    if name.endswith(".jsonl"):
        raw = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif name.endswith(".tsv"):
        raw = "".join("\t".join(values) + "\n" for values in [columns, *map(dict.values, rows)])
        raw = raw.encode()
    elif name.endswith(".csv"):
        lines = [columns, *map(dict.values, rows)]
        raw = "".join(
            ",".join('"' + value.replace('"', '""') + '"' for value in line) + "\r\n"
            for line in lines
        ).encode()
    else:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        raw = sink.getvalue().to_pybytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "csv", "parquet"])
def test_read_rows_is_the_same_for_every_format(tmp_path, suffix, gz):
    # csv refuses values beyond 131,072 characters; that is a DataError, tested below.
    rows = ROWS[:2] if suffix == "csv" else ROWS
    source = read_rows(write(tmp_path / f"train.{suffix}{gz}", rows))
    assert [source[i] for i in range(len(source))] == rows
    assert source.describe(1) == f"row 2 of train.{suffix}{gz}"


def test_parquet_lists_and_columns(tmp_path):
    rows = [{"choices": ["a", "b"], "label": 0}, {"choices": ["c"], "label": 1}]
    source = read_rows(write(tmp_path / "train.parquet", rows))
    assert source[1] == rows[1]
    assert source.column("label") == [0, 1]
    assert source.column("answers") is None


def test_jsonl_skips_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert list(read_rows(path)) == [{"a": 1}, {"a": 2}]


def test_empty_files(tmp_path):
    for name in ("a.jsonl", "a.tsv", "a.csv"):
        (tmp_path / name).write_bytes(b"")
        assert len(read_rows(tmp_path / name)) == 0


def test_csv_values_span_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"one\ntwo",3\n4\n')
    with pytest.raises(DataError, match=r"line 4 of .* has 1 columns, the header has 2"):
        read_rows(path)
    path.write_text('a,b\n"one\ntwo",3\n')
    assert list(read_rows(path)) == [{"a": "one\ntwo", "b": "3"}]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_index_of_a_pandas_table_is_left_out(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    text = ",text,label\n0,good,1\n1,bad,0\n"
    path.write_text(text if suffix == "csv" else text.replace(",", "\t"))
    assert list(read_rows(path)) == [{"text": "good", "label": "1"}, {"text": "bad", "label": "0"}]


def test_csv_with_windows_line_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbftext, label\r\n"one\r\n""two"", three",1\r\n\r\nfour,0\r\n')
    assert list(read_rows(path)) == [
        {"text": 'one\n"two", three', "label": "1"},
        {"text": "four", "label": "0"},
    ]


def test_parquet_with_a_repeated_column_names_it(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array([0])]
    table = pa.Table.from_arrays(columns, names=["text", "text", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: the column 'text' is there more than once"):
        read_rows(tmp_path / "a.parquet")


def test_tsv_has_no_quoting(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('a\tb\n"open\tend\n')
    assert list(read_rows(path)) == [{"a": '"open', "b": "end"}]


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', r"line 3 of .*a\.jsonl is not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "line 2 of .* is not a JSON object"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "line 2 of .* is not UTF-8"),
        ("a.jsonl", b'{"a": ' + b"[" * 200_000, "line 1 of .* is not valid JSON"),
        ("a.jsonl", b'{"a": ' + b"9" * 5_000 + b"}", "line 1 of .* is not valid JSON"),
        ("a.jsonl", b'{"a": 1, "b": 2, "a": 3}', "line 1 of .* has the key 'a' twice"),
        ("a.jsonl", b'{"a": {"b": 1, "b": 1}}', "line 1 of .* has the key 'b' twice"),
        ("a.jsonl", b'[\n{"a": 1}\n]', "line 1 of .* is not valid JSON"),
        ("a.jsonl", b'[{"a": 1}]', "line 1 of .* JSONL has one object on each line"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2 of .* has 3 columns, the header has 2"),
        ("a.csv", b"a,b\n1\n", "line 2 of .* has 1 columns, the header has 2"),
        ("a.csv", b"a,b\rx,y\r", "line 1 of .* is not valid CSV: a carriage return ends no line"),
        ("a.tsv", b"a\tb\rx\ty\r", "lines end with carriage returns; save it with line feeds"),
        ("a.csv", "a\nb\n".encode("utf-16"), "is in UTF-16: save it in UTF-8"),
        ("a.csv", "a\nb\n".encode("utf-16-be"), "line 1 of .* NUL character, as files in UTF-16"),
        ("a.csv", "a\né\n".encode("latin-1"), "line 2 of .* is not UTF-8 .* Windows-1252"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\0"}\n', "line 2 of .* has a NUL character"),
        ("a.csv", b"PAR1\x15\x04", "is a parquet file: name it .parquet"),
        ("a.tsv", b"PK\x03\x04", "is a zip archive or an Excel file"),
        ("a.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), "is compressed by gzip: name it .gz"),
        ("a.csv", b"sep=,\na,b\n1,2\n", "delete its first line, 'sep='"),
        ("a.csv", b"a;b\n1;x, y\n", r"the header has 1: a comma \(\.csv\) or a tab"),
        ("a.csv", b"a,b\n1,2\na,b\n3,4\n", "line 3 of .* repeats the header"),
        ("a.tsv", "a\tb\n1\t2\n\ufeffa\tb\n".encode(), "line 3 of .* repeats the header"),
        ("a.tsv", b'"a"\t"b"\n"x"\t"y"\n"z"\t"y"\n', "are in quotation marks.* A TSV has no quot"),
        ("a.csv", b"a,b\n'x',1\n'y',2\n", 'are in quotation marks.* A CSV quotes with "'),
        ("a.csv", b'a, b\n"x", "y"\n"z", "w"\n', "column 'b' are in quotation marks"),
        ("a.csv", b"a, a\n1,2\n", "header must name every column once"),
        ("a.csv", b",\n1,2\n", "header must name every column once"),
        ("a.tsv", b"a\tb\n1\n", "line 2 of .* has 1 columns, the header has 2"),
        ("a.tsv", b"a\ta\n1\t2\n", "header must name every column once"),
        ("a.csv", b"a,\n1,2\n", "header must name every column once"),
        ("a.csv", b'a,b\n"1,2\n', "line 2 of .* is not valid CSV"),
        ("a.csv", b"a\n" + b"x" * 200_000, "line 2 of .* is not valid CSV: field larger"),
        ("a.parquet", b"PAR1 nonsense", "damaged parquet"),
        ("a.jsonl.gz", b"not gzip", "damaged gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], "damaged gzip"),
        ("a.json", b"{}", r"unknown file format; use one of \.jsonl.* one object on each line"),
        ("a.xlsx", b"{}", r"unknown file format; .* Save the sheet as CSV UTF-8"),
        ("a.gz", b"{}", "unknown file format"),
    ],
)
def test_damaged_files_raise_with_location(tmp_path, name, raw, message):
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_rows(path)


def test_quotation_marks_of_a_value_stay(tmp_path):
    quoted = b'a,b\n"""To be""",1\n"""or not""",2\n'
    (tmp_path / "a.csv").write_bytes(quoted)
    assert [row["a"] for row in read_rows(tmp_path / "a.csv")] == ['"To be"', '"or not"']
    (tmp_path / "a.tsv").write_bytes(b'a\tb\n"To be"\t1\nor not\t2\n')
    assert [row["a"] for row in read_rows(tmp_path / "a.tsv")] == ['"To be"', "or not"]


def test_suffixes_in_upper_case_and_a_second_byte_order_mark(tmp_path):
    (tmp_path / "A.B.CSV").write_bytes("\ufeff\ufefftext,label\nx,1\n".encode())
    assert list(read_rows(tmp_path / "A.B.CSV")) == [{"text": "x", "label": "1"}]
    assert data_name(tmp_path / "A.B.CSV") == "A.B"
    (tmp_path / "a.JSONL.GZ").write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert list(read_rows(tmp_path / "a.JSONL.GZ")) == [{"a": 1}]


def test_flipped_bits_in_gzip_raise(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl.gz", [{"a": "text " * 50, "n": i} for i in range(50)])
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(DataError):
        read_rows(path)


def test_missing_file_raises(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl cannot be read"):
        read_rows(tmp_path / "gone.jsonl")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"pip install .*pyarrow"):
        read_rows(tmp_path / "a.parquet")


def test_parquet_with_different_schemas_raises(tmp_path):
    pytest.importorskip("pyarrow")
    from prompt_jax.data.files import read_parquet

    paths = [
        write(tmp_path / "a.parquet", [{"a": "x"}]),
        write(tmp_path / "b.parquet", [{"b": "y"}]),
    ]
    with pytest.raises(DataError, match="have different schemas"):
        read_parquet(paths)
