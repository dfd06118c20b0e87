"""URLs: told apart from paths, split into store and name, and expanded."""

from pathlib import Path

import pytest

from highway.errors import ArgumentError
from highway.storage.urls import Location, braces, has_wildcard, is_url, join, located, split, wildcard


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("s3://bucket/a", True),
        (b"s3://bucket/a", True),
        ("https://host/a", True),
        ("memory://a", True),
        ("file:///data/a", False),
        ("/data/a", False),
        ("a://", False),
        ("data:/a", False),
        ("dir/s3://x", False),
    ],
)
def test_urls_are_told_from_paths(text, found):
    assert is_url(text) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("file:///data/a%20b", "/data/a b"),
        ("file://localhost/data", "/data"),
        ("s3://bucket/a%20b", "s3://bucket/a%20b"),
        ("data/a", "data/a"),
        (Path("data/a"), "data/a"),
        ("~", str(Path.home())),
    ],
)
def test_arguments_are_paths_or_urls(value, found):
    assert located("Reader", "data_dir", value) == found


@pytest.mark.parametrize("value", [Path("s3://bucket/a"), Path("https://host/a"), "file://other/data", 7, ""])
def test_bad_arguments_are_refused(value):
    with pytest.raises(ArgumentError, match="Reader: data_dir is "):
        located("Reader", "data_dir", value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://bucket/a/b c.jpg", Location("s3://bucket", "a/b c.jpg")),
        ("s3://bucket", Location("s3://bucket", "")),
        ("S3://bucket/a%20", Location("s3://bucket", "a%20")),
        ("https://host:8080/a%20b/", Location("https://host:8080", "a b/")),
        ("memory:///a", Location("memory://", "a")),
        ("abfss://container@account.host/a", Location("abfss://container@account.host", "a")),
        ("github://owner:repository@main/a", Location("github://owner:repository@main", "a")),
        ("gs://bucket/what?#", Location("gs://bucket", "what?#")),
    ],
)
def test_urls_are_split(url, found):
    assert split(url, "Reader") == found


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3:///a", "no bucket"),
        ("https:///a", "no host"),
        ("https://host/a?sig=secret", "signed URLs"),
        ("zip://a.jpg::s3://bucket/b.zip", "chain"),
        ("https://user:secret@host/a", "https://...@host has a password"),
        ("sftp://user:secret@host/a", "has a password"),
        ("s3://key:secret@bucket/a::b", "has a password"),
    ],
)
def test_bad_urls_are_refused(url, text):
    with pytest.raises(ArgumentError, match=text) as caught:
        split(url, "Reader")
    assert "secret" not in str(caught.value)


def test_names_are_joined():
    assert join("s3://bucket/a/", "b/c") == "s3://bucket/a/b/c"
    assert join("s3://bucket", "gs://other/c") == "gs://other/c"
    assert join("/data", "b") == "/data/b"
    assert join("/data", "/b") == "/b"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.tar", ["a.tar"]),
        ("a{0..2}", ["a0", "a1", "a2"]),
        ("a{008..10}b", ["a008b", "a009b", "a010b"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("{a}{}", ["{a}{}"]),
        ("x{a,}", ["xa", "x"]),
    ],
)
def test_braces_are_expanded(text, found):
    assert braces(text, "Reader") == found


@pytest.mark.parametrize("text", ["{3..1}", "{0..9999999}", "{0..9999}{0..9999}"])
def test_impossible_braces_are_refused(text):
    with pytest.raises(ArgumentError, match="Reader: "):
        braces(text, "Reader")


@pytest.mark.parametrize(
    ("pattern", "folder", "yes", "no"),
    [
        ("a/b/*.tar", "a/b", ["a/b/1.tar", "a/b/.tar"], ["a/b/c/1.tar", "a/b/1.tar2", "a/c/1.tar"]),
        ("*.tar", "", ["1.tar"], ["a/1.tar"]),
        ("a/**/x.jpg", "a", ["a/x.jpg", "a/b/c/x.jpg"], ["b/x.jpg", "a/yx.jpg"]),
        ("a/b?[0-2].jpg", "a", ["a/bx1.jpg"], ["a/bx3.jpg", "a/b/1.jpg"]),
        ("a/[!0-9]+", "a", ["a/b+"], ["a/1+", "a/bb"]),
        ("a/[*", "a", ["a/[b"], ["a/b"]),
    ],
)
def test_wildcards_match(pattern, folder, yes, no):
    assert has_wildcard(pattern)
    found, expression = wildcard(pattern)
    assert found == folder
    assert [name for name in (*yes, *no) if expression.fullmatch(name)] == yes
