"""The demo, on a package in the place of scikit-image: tiles, both jobs, the contact sheet, and what it asks for."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from pictures import photograph
from PIL import Image

from highway.cli import demo, environment, main
from highway.modules import ImageFileReader


@pytest.fixture
def skimage(tmp_path, monkeypatch):
    """A package that has photographs and cannot be imported, as without what it depends on."""
    package = tmp_path / "site" / "skimage"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('scikit-image needs SciPy')\n")
    photograph(160, 200, seed=1).save(package / "data" / "coffee.png")
    photograph(170, 170, seed=2).convert("L").save(package / "data" / "camera.png")
    photograph(120, 240, seed=3).convert("RGBA").save(package / "data" / "chelsea.png")
    photograph(64, 64, seed=4).save(package / "data" / "logo.png")
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    monkeypatch.syspath_prepend(package.parent)
    return package


def test_demo_runs_tells_and_writes_a_sheet(skimage, tmp_path, capsys):
    output = tmp_path / "output"
    assert main(["demo", "--output", str(output), "--epochs", "2"]) == 0
    said, errors = capsys.readouterr()
    assert errors == ""
    assert "48 files in 3 classes" in said
    assert "cameraman, cat, coffee" in said
    assert "32 JPEG, color; 16 JPEG, gray" in said
    assert re.search(r"sizes +106 × 106 to 100 × 125 pixels", said)
    assert re.search(r"bytes +\d+\.\d MB", said)
    assert len(re.findall(r"[\d,]+ images/s: 96 images", said)) == 2
    verdict = r"^(?:(?:The )?\w+ is the bottleneck|No bottleneck)"
    assert len(re.findall(verdict, said, re.MULTILINE)) == 2
    with Image.open(output / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
        pixels = np.asarray(sheet)
    assert pixels.shape[0] > 3 * 240
    assert pixels.std() > 10


def test_demo_runs_again_over_its_own_output(skimage, tmp_path, capsys):
    arguments = ["demo", "--output", str(tmp_path / "output"), "--epochs", "1", "--workers", "1"]
    assert main(arguments) == 0
    tile = tmp_path / "output" / "photos" / "coffee" / "0-0.jpg"
    whole = tile.read_bytes()
    tile.write_bytes(whole[:100])
    assert main(arguments) == 0
    assert tile.read_bytes() == whole


def test_tiles_cover_the_photograph(skimage, tmp_path):
    demo.cut_photographs(demo.find_photographs(), tmp_path / "photos")
    reader = ImageFileReader(tmp_path / "photos", 8, (20, 20))
    assert reader.classes == ["cameraman", "cat", "coffee"]
    tiles = sorted((tmp_path / "photos" / "coffee").iterdir())
    assert len(tiles) == 16
    with Image.open(skimage / "data" / "coffee.png") as whole:
        whole = np.asarray(whole).astype(int)
    for tile, (top, left) in [(tiles[0], (0, 0)), (tiles[15], (60, 75)), (tiles[7], (20, 75))]:
        pixels = np.asarray(Image.open(tile)).astype(int)
        assert pixels.shape == (100, 125, 3)
        assert abs(pixels - whole[top : top + 100, left : left + 125]).mean() < 5


def test_scikit_image_is_not_imported(skimage):
    assert set(demo.find_photographs()) == {"cameraman", "cat", "coffee"}
    assert "skimage" not in sys.modules


@pytest.mark.parametrize(
    "pil, command",
    [("Pillow-SIMD", "pip install --no-deps scikit-image"), ("Pillow", "pip install scikit-image")],
)
def test_missing_scikit_image_is_one_sentence(tmp_path, monkeypatch, capsys, pil, command):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(environment, "installed", lambda name: "12.1" if name == pil else None)
    assert main(["demo", "--output", str(tmp_path / "output")]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(rf"highway: .*scikit-image, which is not installed: {command}\n", said)
    assert not (tmp_path / "output").exists()


def test_scikit_image_without_photographs_is_one_sentence(skimage, tmp_path, capsys):
    for path in (skimage / "data").iterdir():
        path.unlink()
    assert main(["demo", "--output", str(tmp_path / "output")]) == 1
    assert "scikit-image, which is installed without them" in capsys.readouterr().err


def test_missing_pil_is_one_sentence(skimage, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["demo", "--output", str(tmp_path / "output")]) == 1
    assert re.fullmatch(
        r"highway: .*PIL.*is not installed: pip install Pillow-SIMD\n", capsys.readouterr().err
    )


def test_ctrl_c_in_a_job_ends_the_demo(skimage, tmp_path, monkeypatch, capsys):
    run = demo.run_pipeline
    monkeypatch.setattr(
        demo, "run_pipeline", lambda *job, **more: replace(run(*job, **more), interrupted=True)
    )
    assert main(["demo", "--output", str(tmp_path / "output"), "--epochs", "1"]) == 130
    said, errors = capsys.readouterr()
    assert len(re.findall("images/s", said)) == 1
    assert "Interrupted" in errors
