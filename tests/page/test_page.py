"""The page in a browser: upload, ask, read the answer, search; and what it does with what is no video."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.conftest import MEGABYTES, SECONDS, Served, started
from tests.unit.prepare.clip_world import write_video

PATIENCE = 30_000  # milliseconds, on a machine that does other things


class Tab:
    """One tab of the browser."""

    def __init__(self, tab: Any):
        self.tab, self.elsewhere, self.faults = tab, [], []
        tab.set_default_timeout(PATIENCE)

    def upload(self, path: Path) -> None:
        self.tab.locator("#lav-upload input[type=file]").set_input_files(path)

    def shows(self, place: str, text: str) -> str:
        """Waits until a place has a text in it; returns all that it has."""
        found = self.tab.locator(f"#lav-{place}").filter(has_text=text)
        found.wait_for()
        return found.inner_text()

    def open(self, name: str) -> None:
        self.tab.get_by_role("tab", name=name).click()

    def fill(self, label: str, text: str) -> None:
        self.tab.get_by_label(label).locator("visible=true").fill(text)

    def press(self, part: str) -> None:
        self.tab.locator(f"#lav-do-{part}").click()

    def bars(self, part: str) -> list[tuple[str, float]]:
        """Text and percentage of each bar of a result, once there are some."""
        rows = self.tab.locator(f"#lav-{part}-result .lav-bars > div")
        rows.first.wait_for()
        pairs = [row.locator("span").all_inner_texts() for row in rows.all()]
        return [(text, float(share.rstrip("%"))) for text, share in pairs]


@pytest.fixture
def tab(browser, page: Served) -> Iterator[Tab]:
    """The page, opened anew. Nothing that it asks for may be elsewhere, and no script may fail."""
    window = browser.new_page(viewport={"width": 1200, "height": 1000})
    one = Tab(window)
    window.on("request", lambda request: one.elsewhere.append(request.url))
    window.on("pageerror", lambda fault: one.faults.append(str(fault)))
    window.goto(page.url)
    window.locator("#lav-do-ask").wait_for()
    yield one
    window.close()
    assert [url for url in one.elsewhere if not url.startswith((page.url, "data:", "blob:"))] == []
    assert one.faults == []


def rounded(guesses: Any) -> list[tuple[str, float]]:
    return [(one.text, pytest.approx(100 * one.probability, abs=0.06)) for one in guesses]


def test_upload_ask_and_read(tab: Tab, page: Served, tmp_path: Path):
    head = tab.shows("head", "tiny.pt")
    assert "answering questions (toy-qa)" in head
    assert re.search(r"Not trained for\s+captions, .*search", head)
    tab.press("ask")
    tab.shows("ask-result", "choose a clip first")
    clip = write_video(tmp_path / "mine <b>.mp4", grey=90)
    tab.upload(clip)
    tab.shows("seen", "mine <b>.mp4: the 4 frames that the model sees")
    assert tab.tab.locator("#lav-seen img").count() == 4
    assert page.left_behind() == []
    tab.fill("Question", "who is it")
    tab.press("ask")
    assert tab.bars("ask") == rounded(page.predictor.answer(clip, "who is it").guesses)
    tab.fill("Question", " ")
    tab.press("ask")
    tab.shows("ask-result", "the question is empty")
    tab.fill("Question", "who")
    tab.tab.get_by_label("Question").locator("visible=true").press("Enter")
    tab.bars("ask")
    tab.tab.locator("#lav-choose-example button").first.click()  # what was said of the other clip goes
    tab.shows("seen", "clip0.mp4")
    tab.tab.locator("#lav-ask-result .lav-bars").wait_for(state="detached")


def test_search_and_an_example(tab: Tab, page: Served):
    tab.open("Search")
    tab.fill("Text", "a man")
    tab.press("search")
    tab.shows("search-result", "%")
    names = tab.tab.locator("#lav-search-result figcaption").all_inner_texts()
    hits = page.predictor.search("a man", sorted(page.clips.glob("*.mp4"))).hits
    assert [name.split()[1] for name in names] == [hit.video for hit in hits]
    assert tab.tab.locator("#lav-search-result img").count() == 3
    tab.tab.locator("#lav-choose-example button").nth(1).click()
    tab.shows("seen", "clip1.mp4")
    assert (page.clips / "clip1.mp4").is_file()  # an example is no upload


def test_the_other_parts(tab: Tab, page: Served):
    tab.tab.locator("#lav-choose-example button").first.click()
    tab.shows("seen", "clip0.mp4")
    clip = page.clips / "clip0.mp4"
    tab.open("Caption")
    tab.press("caption")
    assert page.predictor.caption(clip).text in tab.shows("caption-result", "mean probability of its words")
    tab.open("Choose")
    tab.fill("Options", "one\ntwo\n\nthree")
    tab.press("choose")
    assert tab.bars("choose") == rounded(page.predictor.choose(clip, "", ["one", "two", "three"]).guesses)
    tab.open("Compare texts")
    tab.fill("Texts", "a dog\na man")
    tab.press("compare")
    assert tab.bars("compare") == rounded(page.predictor.match(clip, ["a dog", "a man"]).guesses)


def test_broken_uploads_give_a_message_and_the_page_goes_on(tab: Tab, page: Served, tmp_path: Path):
    for name, content, words in (
        ("text.mp4", b"this is no video\n" * 50, "text.mp4 cannot be decoded"),
        ("empty.mp4", b"", "empty.mp4 cannot be decoded"),
        ("list.mp4", f"#EXTM3U\n#EXTINF:1,\n{page.clips}/clip0.mp4\n".encode(), "list.mp4 cannot be decoded"),
    ):
        (tmp_path / name).write_bytes(content)
        tab.upload(tmp_path / name)
        said = tab.shows("seen", words)
        assert str(page.folder) not in said
    tab.upload(write_video(tmp_path / "long.mp4", frames=50, rate=10))
    tab.shows("seen", f"at most {SECONDS} are allowed")
    (tmp_path / "large.mp4").write_bytes(bytes(MEGABYTES * 2**20 + 1))
    tab.upload(tmp_path / "large.mp4")
    tab.tab.get_by_text(re.compile("exceed.*large.mp4")).first.wait_for()
    (tmp_path / "notes.txt").write_text("no video")
    tab.upload(tmp_path / "notes.txt")
    tab.tab.get_by_text(re.compile("Invalid file type.*notes.txt")).first.wait_for()
    assert page.left_behind() == []
    tab.upload(write_video(tmp_path / "good.mp4"))
    tab.shows("seen", "good.mp4: the 4 frames")
    tab.fill("Question", "who")
    tab.press("ask")
    assert len(tab.bars("ask")) == 5


def request(url: str, content: Any = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer; an object is sent as JSON."""
    data = None if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
    asked = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as fault:
        return fault.code, fault.read().decode(errors="replace")


def test_no_other_file_is_served(page: Served, checkpoint: Path):
    for place in (page.clips / "clip0.mp4", checkpoint, Path("/etc/passwd"), "../../../etc/passwd", "pyproject.toml"):
        quoted = urllib.parse.quote(str(place), safe="")
        for route in ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/", "gradio_api/proxy="):
            for path in (
                f"{route}{place}",
                f"{route}{quoted}",
                f"{route}/../..{place}",
                f"{route}%2e%2e/%2e%2e{place}",
            ):
                status, text = request(page.url + path)
                assert status in (400, 403, 404), path
                assert "root:" not in text
    for path in (
        "gradio_api/file=http://127.0.0.1:1/x",
        "gradio_api/info",
        "docs",
        "monitoring",
        "gradio_api/vibe-code",
    ):
        assert request(page.url + path)[0] in (403, 404), path


def test_no_request_names_a_file_of_this_machine(page: Served):
    config = json.loads(request(f"{page.url}config")[1])
    (upload,) = (one["id"] for one in config["components"] if one["type"] == "file")
    calls = [one for one in config["dependencies"] if upload in one["inputs"]]
    assert len(calls) == 1
    for path in (
        str(page.clips / "clip0.mp4"),
        "/etc/passwd",
        f"{page.folder}/../clips/clip0.mp4",
        "http://127.0.0.1:1/a",
    ):
        file = {"path": path, "orig_name": "a.mp4", "meta": {"_type": "gradio.FileData"}}
        for data in ([file], [[file]], [{"value": file}]):
            content = {"data": data, "fn_index": calls[0]["id"], "session_hash": "abc", "trigger_id": upload}
            status, text = request(f"{page.url}gradio_api/queue/join", content)
            assert (status, "no file but an upload" in text) == (403, True), path
    for route in ("run/predict", "api/predict", "call/ask", "stream/abc", "vibe-edit", "process_recording"):
        assert request(f"{page.url}gradio_api/{route}", {"data": []})[0] == 404
    assert (page.clips / "clip0.mp4").is_file()
    status, text = request(
        f"{page.url}gradio_api/upload",
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../a.mp4"\r\n\r\nabc\r\n--x--\r\n',
        **{"content-type": "multipart/form-data; boundary=x"},
    )
    assert status == 200
    (stored,) = json.loads(text)
    assert page.folder.resolve() in Path(stored).resolve().parents
    Path(stored).unlink()


@pytest.mark.slow  # another start
def test_a_password(browser, checkpoint: Path, tmp_path: Path):
    (tmp_path / "password").write_text("open-sesame\n")
    with started("--path_ckpt", checkpoint, "--password_file", tmp_path / "password") as (url, _):
        for path in ("config", "gradio_api/queue/data?session_hash=a", "gradio_api/startup-events/../queue/data"):
            assert request(url + path)[0] in (401, 404), path
        assert request(f"{url}gradio_api/queue/join", {"data": []})[0] == 401
        assert request(f"{url}gradio_api/upload", b"")[0] == 401
        window = browser.new_page()
        window.set_default_timeout(PATIENCE)
        window.goto(url)
        for password in ("wrong", "open-sesame"):
            assert window.locator("#lav-do-ask").count() == 0
            window.get_by_label("username").fill("lavender")
            window.get_by_label("password").fill(password)
            window.get_by_role("button", name="Login").click()
        window.locator("#lav-do-ask").wait_for()
        window.close()
