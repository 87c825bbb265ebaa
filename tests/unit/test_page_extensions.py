"""What the book's extensions put into pages, without building the book, and the pictures drawn for it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import nbformat
import numpy as np
import page_cards
import pictures
import pictures_of_pages
import plain_markup
import pytest
import reproduction
from docutils.core import publish_doctree
from PIL import Image

STATIC = pictures.STATIC


def describe(text: str) -> str:
    return page_cards.description(publish_doctree(text, settings_overrides={"doctitle_xform": False}))


def test_a_page_is_described_by_its_first_plain_paragraph() -> None:
    page = "Title\n=====\n\nA formula :math:`x_t` first.\n\n.. note:: A note.\n\nThen *plain* words.\n\nAnd more.\n"
    assert describe(page) == "Then plain words."
    assert describe("Title\n=====\n") == ""


def test_a_long_description_ends_with_a_sentence_or_a_word() -> None:
    sentence = "A sentence of about fifty letters stands here, yes. "
    assert describe(f"Title\n=====\n\n{sentence * 6}\n") == (sentence * 3).strip()
    cut = describe(f"Title\n=====\n\n{'word ' * 60}\n")
    assert cut.endswith("word …") and len(cut) <= page_cards.LONGEST + 2


def test_addresses_are_named_only_where_the_book_s_is_known() -> None:
    unknown = page_cards.tags("book/a", "A", "Book", 'Say "<hi>".', first=False, address="")
    assert "og:url" not in unknown and "og:image" not in unknown
    assert 'content="Say &quot;&lt;hi&gt;&quot;."' in unknown
    known = page_cards.tags("book/a", "A", "Book", "Words.", first=True, address="https://a.example/b/")
    assert '<meta property="og:url" content="https://a.example/b/book/a.html">' in known
    assert '<meta property="og:image" content="https://a.example/b/_static/card.png">' in known
    assert '<meta name="twitter:card" content="summary_large_image">' in known


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<summary aria-label="Toggle hidden content">\n<p>Show', "<summary>\n<p>Show"),
        ('<div role="list" class="citation-list">', '<div class="citation-list">'),
        ('<div class="citation" id="id1" role="doc-biblioentry">', '<div class="citation" id="id1">'),
        ('<div role="list" class="other">', '<div role="list" class="other">'),
    ],
)
def test_misleading_marks_are_taken_out(before: str, after: str) -> None:
    assert plain_markup.mended(before) == after


@pytest.fixture
def film(tmp_path: Path) -> Path:
    shades = [Image.fromarray(np.full((40, 60), shade, dtype=np.uint8)) for shade in (10, 120, 240)]
    file = tmp_path / "film.gif"
    shades[0].save(file, save_all=True, append_images=shades[1:], duration=[50, 70, 900], loop=0)
    return file


def test_the_still_is_the_film_s_last_frame(film: Path, tmp_path: Path) -> None:
    with Image.open(pictures_of_pages.last_frame(film, tmp_path / "new" / "still.png")) as still:
        assert still.size == (60, 40)
        assert np.abs(np.asarray(still.convert("L")).astype(int) - 240).max() <= 2


def test_the_lighter_film_has_the_same_pixels_at_the_same_times(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures_of_pages, "WORTH_IT", 1e9)
    with Image.open(pictures_of_pages.lighter(film, tmp_path / "film.webp")) as copy, Image.open(film) as original:
        assert copy.n_frames == original.n_frames == 3
        assert copy.info["loop"] == 0
        for k in range(3):
            copy.seek(k)
            original.seek(k)
            assert (np.asarray(copy.convert("RGB")) == np.asarray(original.convert("RGB"))).all()
            assert copy.info["duration"] == original.info["duration"]


def test_the_lighter_picture_has_the_same_pixels(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 30), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(noise).convert("RGB").save(tmp_path / "noise.png")
    copy = pictures_of_pages.lighter(tmp_path / "noise.png", tmp_path / "noise.webp")
    assert copy.stat().st_size < 0.9 * (tmp_path / "noise.png").stat().st_size
    with Image.open(copy) as shown:
        assert (np.asarray(shown.convert("L")) == noise).all()


def test_a_copy_that_saves_nothing_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures_of_pages, "WORTH_IT", 0)
    assert pictures_of_pages.lighter(tmp_path / "a.png", tmp_path / "a.webp") is None


def test_a_page_offers_the_still_first_then_the_lighter_copy() -> None:
    image = '<img alt="x" src="../_images/film.gif" />'
    made = pictures_of_pages.offered(image, "../_images/film.gif", still=True, light=True, first=True)
    still = '<source media="(prefers-reduced-motion: reduce)" srcset="../_images/film-still.png">'
    assert made == f'<picture>{still}<source type="image/webp" srcset="../_images/film.webp">{image}</picture>'
    later = pictures_of_pages.offered('<img src="a.svg">', "a.svg", still=False, light=False, first=False)
    assert later == '<img loading="lazy" src="a.svg">'


def test_only_files_of_the_book_are_touched() -> None:
    assert pictures_of_pages.IMAGE.search('<img alt="a" src="../_images/a.png" width="3" />')[1] == "../_images/a.png"
    for other in ('<img src="data:image/png;base64,a.png">', '<img src="https://a.example/a.png">'):
        assert pictures_of_pages.IMAGE.search(other) is None


def test_the_logo_and_the_card_are_what_the_command_draws() -> None:
    assert (STATIC / "logo.svg").read_text(encoding="utf-8") == pictures.logo()
    with Image.open(STATIC / "card.png") as card:
        assert card.size == page_cards.CARD_SIZE
        bottom = np.asarray(card.convert("L").crop((40, 210, 1160, 595))).astype(int)
    with Image.open(STATIC / "hero.gif") as film:
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("L").resize((1120, 385), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(bottom - last).mean() < 3, "the first page's film has changed: run `python tools/pictures.py`"


def test_the_pictures_are_light() -> None:
    assert (STATIC / "logo.svg").stat().st_size < 8_000
    assert (STATIC / "card.png").stat().st_size < 200_000


def test_the_flow_in_the_logo_ends_in_the_data() -> None:
    times, states = pictures.paths()
    assert (times[0], times[-1]) == (0, 1)
    assert np.abs(np.abs(states[-1]) - pictures.DATA).max() < 0.1
    assert np.allclose(states, -states[:, ::-1], atol=1e-9)


def test_the_card_is_drawn_from_any_film(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    shades = [Image.new("RGB", (984, 338), color) for color in ("black", "white")]
    shades[0].save(buffer, "GIF", save_all=True, append_images=shades[1:], duration=50)
    (tmp_path / "film.gif").write_bytes(buffer.getvalue())
    card = pictures.card(tmp_path / "film.gif")
    assert card.size == (1200, 630)
    assert card.getpixel((600, 400)) == (255, 255, 255)


# The page Reproduce


def notebook(path: Path, *sources: str, figure: str = "") -> None:
    cells = [nbformat.v4.new_markdown_cell(source) for source in sources]
    code = nbformat.v4.new_code_cell('record = load_record("compare")')
    if figure:
        code.metadata["mystnb"] = {"figure": {"name": figure, "caption": "A figure. Of 0.5 things."}}
    nbformat.write(nbformat.v4.new_notebook(cells=[*cells, code]), path)


def test_chapters_name_their_figures_run_times_and_records(tmp_path: Path) -> None:
    said = "**Run time** on two cores:\nhalf a minute.\n\nMore words."
    quoted = "the loss is 0.2<!-- record: ablation/rungs/base/loss -->"
    notebook(tmp_path / "02_b.ipynb", "# Second", said, quoted, figure="fig-b")
    notebook(tmp_path / "01_a.ipynb", "# First *one*")
    notebook(tmp_path / "notes.ipynb", "# No chapter")
    first, second = reproduction.chapters(tmp_path)
    assert (first.name, first.title, first.run_time, first.figures) == ("01_a", "First *one*", "not stated", ())
    assert (second.run_time, second.figures) == ("on two cores: half a minute.", (("fig-b", "A figure."),))
    assert (first.records, second.records) == ({"compare"}, {"compare", "ablation"})
    text = reproduction.figures_list([first, second])
    assert "**{doc}`02_b`**, `jupyter execute --inplace book/02_b.ipynb`" in text
    assert "- {numref}`fig-b`: A figure.\n" in text


def test_records_say_what_made_them_what_that_took_and_where_they_are_shown(tmp_path: Path) -> None:
    made = {"date": "2026-11-25", "git_commit": "a" * 40 + "-dirty", "versions": {"torch": "2.9"}, "device": "cpu (X)"}
    took = {"training": 5400.0, "evaluation": {"wall": 30.0, "processor": 20.0}}
    (tmp_path / "compare.json").write_text(json.dumps(made | {"seconds": took}))
    (tmp_path / "export.json").write_text(json.dumps(made))
    text = reproduction.records_list(tmp_path, {"{doc}`a`": frozenset({"compare"}), "{doc}`b`": frozenset()})
    assert "`python -m fm_book.experiments compare`\n: *makes* `book/fm_book/results/compare.json`, *shown in* {doc}`a`" in text
    assert "*took* training 90 min, evaluation 30 s, evaluation's processor time 20 s, on cpu (X)" in text
    assert "commit `aaaaaaaaaa-dirty`" in text
    assert "*makes* `book/fm_book/results/export.json`\n: *took* time not recorded, on" in text


def test_the_time_of_older_records_is_read_from_their_networks() -> None:
    networks = {"base": {"seconds": 10.0}, "residual": {"seconds": 20.0}}
    assert reproduction.seconds({"networks": networks}) == {"training": 30.0}
    assert reproduction.seconds({"networks": {"base": {"seconds": [1.0]}}}) == {}
    assert reproduction.seconds({"seconds": 244.06}) == {"in all": 244.06}
    assert [reproduction.duration(s) for s in (12, 100, 9000)] == ["12 s", "2 min", "2.5 h"]


def test_every_record_of_the_book_is_listed_and_every_figure_has_one_name() -> None:
    book = STATIC.parent
    found = reproduction.chapters(book)
    names = [name for chapter in found for name, _ in chapter.figures]
    assert len(names) == len(set(names)) > 40
    assert all(chapter.run_time != "not stated" for chapter in found)
    text = reproduction.records_list(book / "results", {"{doc}`x`": frozenset()})
    assert text.count("`python -m fm_book.experiments ") == len(list((book / "results").glob("*.json")))
