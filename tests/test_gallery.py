"""The scripts of the gallery run, and print and draw what docs/gallery.md shows."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib import pyplot as plt

PAGE = Path(__file__).parents[1] / "docs" / "gallery.md"
SCRIPTS = sorted((PAGE.parent / "gallery").glob("*.py"))
SECTIONS = PAGE.read_text().split("\n## ")[1:]
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*")
# Other versions of NumPy and SciPy round differently; what the page says holds within this.
ROUNDING = {"rel": 0.1, "abs": 0.02}


def numbers(text):
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def small(picture):
    """Means of blocks of 20 x 20 pixels, in which the edges of letters do not count."""
    height, width = (length // 20 * 20 for length in picture.shape[:2])
    blocks = picture[:height, :width, :3].reshape(height // 20, 20, width // 20, 20, 3)
    return blocks.mean(axis=(1, 3))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_prints_and_draws_what_the_page_shows(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [section] = [text for text in SECTIONS if f"literalinclude}} gallery/{script.name}" in text]
    [shown] = re.findall(r"```text\n(.*?)```", section, re.DOTALL)

    runpy.run_path(str(script), run_name="__main__")
    plt.close("all")

    printed = capsys.readouterr().out
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown), printed
    assert numbers(printed) == pytest.approx(numbers(shown), **ROUNDING)
    assert f"(gallery/{script.stem}.png)" in section
    drawn = image.imread(tmp_path / f"{script.stem}.png")
    kept = image.imread(script.with_suffix(".png"))
    assert drawn.shape == kept.shape
    assert np.abs(small(drawn) - small(kept)).mean() < 0.03


def test_every_section_of_the_gallery_has_a_script():
    assert len(SECTIONS) == len(SCRIPTS) == 4
