"""The page's files: complete in the package, and under headers that let nothing else in."""

from __future__ import annotations

import re
from importlib.resources import files

from medseg_gym.serving.middleware.api_keys import ApiKeys

STATIC = files("medseg_gym.play") / "static"


def test_nothing_but_the_pages_own_files_can_run_or_load(open_page) -> None:
    _, client = open_page()
    page = client.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    rules = dict(part.strip().split(" ", 1) for part in page.headers[_CSP].split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'"
    assert rules["connect-src"] == "'self'" and rules["frame-ancestors"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        answer = client.http.get(path)
        assert answer.status_code == 200 and answer.headers[_CSP] == page.headers[_CSP], path
        assert answer.headers["x-content-type-options"] == "nosniff"


_CSP = "content-security-policy"


def test_no_file_names_another_host_or_makes_markup_of_text() -> None:
    for file in STATIC.iterdir():
        text = file.read_text()
        hosts = set(re.findall(r"https?://[^\s\"'`]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not hosts, file.name
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, (file.name, word)
        assert not re.search(r"\son\w+=\"|\sstyle=\"|javascript:", text), file.name


def test_every_module_and_every_element_that_is_named_is_there() -> None:
    names = {file.name for file in STATIC.iterdir()}
    page = (STATIC / "index.html").read_text()
    ids = set(re.findall(r'\bid="([\w-]+)"', page))
    cards = dict(re.findall(r'<template id="([\w-]+)">(.*?)</template>', page, re.DOTALL))
    for card, prefix in re.findall(r'data-card="([\w-]+)" data-prefix="([\w-]*)"', page):
        ids |= {prefix + inner for inner in re.findall(r'\bid="([\w-]+)"', cards[card])}
    for name in names:
        text = (STATIC / name).read_text()
        assert set(re.findall(r'from "\./([\w.]+)"', text)) <= names
        if name.endswith(".js"):
            assert set(re.findall(r'\$\("([\w-]+)"\)', text)) <= ids, name


def test_the_page_comes_without_a_key_and_what_it_asks_does_not(open_page) -> None:
    _, client = open_page(api_keys=ApiKeys({"anna": "anna-key-0123456789"}))
    assert client.http.get("/").status_code == 200
    assert client.http.get("/page/main.js").status_code == 200
    for path in ("/api/setup", "/api/recordings", "/sessions", "/metrics", "/page"):
        assert client.http.get(path).status_code == 401, path


def test_other_web_pages_cannot_use_it(open_page) -> None:
    _, client = open_page()
    for header in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert client.http.get("/", headers=header).status_code == 403
        answer = client.http.post("/api/games", json={"place": "c0", "index": 0}, headers=header)
        assert answer.status_code == 403
