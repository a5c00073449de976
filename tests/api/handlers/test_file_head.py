"""The name and the type of a contact's file, as a reader gets them."""

import pytest

from agent.messages.routes import OCTETS, disposition, file_name, type_of


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("image/jpeg", "image/jpeg"),
        ("audio/ogg; codecs=opus", "audio/ogg"),
        ("text/plain; charset=utf-8", "text/plain"),
        *((runs, OCTETS) for runs in ("text/html", "image/svg+xml", "text/xml", "multipart/x")),
        *((none, OCTETS) for none in ("", None, 7, "image/jpeg\r\nSet-Cookie: a=b", "image")),
    ],
)
def test_a_type_that_a_browser_would_run_is_only_octets(said, shown):
    assert type_of(said) == shown


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("report.pdf", "report.pdf"),
        ("été 2026.jpg", "été 2026.jpg"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "file.jpg"),
        ("a\r\nSet-Cookie: b=c", "aSet-Cookie b=c"),
        ("\x1b[31mred\u202egpj.exe", "[31mredgpj.exe"),
        ("half \ud800 sign", "half  sign"),
        ('x"; filename="y', "x; filename=y"),
        ("é" * 500, "é" * 75),
        (None, "file.jpg"),
    ],
)
def test_a_name_is_one_part_of_a_path_without_signs_that_control_something(said, name):
    assert file_name(said, "image/jpeg") == name


def test_the_header_holds_the_name_in_ascii_and_as_it_is():
    assert disposition("été.jpg") == (
        "attachment; filename=\"_t_.jpg\"; filename*=UTF-8''%C3%A9t%C3%A9.jpg"
    )
    assert '"' not in disposition('a"b; c').removeprefix('attachment; filename="').split('"; ')[0]
