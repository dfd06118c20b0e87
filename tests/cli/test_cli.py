"""The command `highway`: what it prints, what it writes, and how it ends."""

import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import LIMIT, highway_command, run
from pictures import class_folders
from PIL import Image

import highway
from highway.batch import Batch
from highway.cli import commands as cli
from highway.cli import environment, main, terminal
from highway.engine import Pipeline, Source, usable_cores
from highway.errors import ArgumentError, EndOfData
from highway.modules import ImageFileReader, Noise, ZMQSink, ZMQSource
from highway.modules.readers.encoded import size_and_quality
from highway.modules.readers.options import MAX_PIXELS
from highway.viz.drawing import class_color

COMMANDS = ["demo", "info", "classes", "bench", "preview", "replay", "serve", "work", "keygen", "store"]


@pytest.fixture
def photos(tmp_path):
    return class_folders(tmp_path / "photos", classes=3, each=5)


# Usage


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_is_there_for_everything(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith("usage: highway")
    for command in COMMANDS if arguments == ["--help"] else ():
        assert re.search(rf"^\s+{command}\s+\S", output, re.MULTILINE)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"highway {highway.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "COMMAND"),
        (["drive"], "drive"),
        (["bench"], "DIR"),
        (["bench", "x", "--size", "240x"], "'240x' is not HEIGHTxWIDTH"),
        (["bench", "x", "--size", "240,320"], "'240,320' is not HEIGHTxWIDTH"),
        (["pack", "x", "y", "--encoding", "raw:240x0"], "'240x0' is not HEIGHTxWIDTH"),
        (["bench", "x", "--size", "1x2x3"], "HEIGHTxWIDTH"),
        (["bench", "x", "--size", "0"], "1 or more"),
        (["bench", "x", "--fit", "tight"], "tight"),
        (["bench", "x", "--workers", "0"], "1 or more"),
        (["bench", "x", "--batch-size", "-3"], "-3"),
        (["bench", "x", "--seconds", "nan"], "seconds"),
        (["bench", "x", "--seconds", "-1"], "seconds"),
        (["bench", "x", "--seconds", "1", "--epochs", "1"], "not allowed"),
        (["bench", "x", "--step-ms", "0"], "'0' is not a number of milliseconds above 0"),
        (["bench", "x", "--step-ms", "fast"], "'fast' is not a number of milliseconds above 0"),
        (["preview", "x", "--count", "many"], "many"),
        (["preview", "x", "--seed", "1.5"], "1.5"),
        (["preview", "x", "--transforms", "t.py"], "FILE.py:NAME"),
        (["preview", "x", "--voc", "--masks", "--masks-dir", "y"], "not allowed"),
        (["bench", "x", "--voc", "--masks", "--masks-dir", "y"], "not allowed"),
        (["demo", "--epochs", "²"], "whole number"),
        (["serve", "x"], "--to"),
        (["serve", "x", "--to", "ipc://a", "--shard", "2/2"], "0/2 and 1/2"),
        (["serve", "x", "--to", "ipc://a", "--shard", "1"], "R/W"),
        (["serve", "x", "--to", "ipc://a", "--shard", "x/2"], "whole number"),
        (["serve", "x", "--to", "ipc://a", "--window", "1025"], "from 1 to 1024"),
        (["work", "--from", "ipc://a", "--to", "ipc://b", "--window", "4096"], "from 1 to 1024"),
        (["work", "--from", "ipc://a", "--to", "ipc://b", "--workers", "1025"], "from 1 to 1024"),
        (["bench", "x", "--workers", "1025"], "from 1 to 1024"),
        (["pack", "x", "y", "--encoding", "jpeg:8193"], "jpeg:SIDE (to 8192)"),
        (["pack", "x", "y", "--encoding", "jpeg:9:101"], "QUALITY (to 100)"),
        (["pack", "x", "y", "--encoding", "jpeg:0"], "jpeg:SIDE (to 8192)"),
        (["serve", "x", "--to", "ipc://a", "--insecure", "--secret-file", "s"], "not allowed"),
        (["work", "--to", "ipc://a"], "--from"),
        (["work", "--from", "ipc://a"], "--to"),
        (["work", "--from", "ipc://a", "--to", "ipc://b", "--transforms", "t.py"], "FILE.py:NAME"),
        (["work", "--from", "ipc://a", "--to", "ipc://b", "--transforms", ":x"], "FILE.py:NAME"),
        (["work", "--from", "ipc://a", "--to", "ipc://b", "--transforms", "t.py:a b"], "FILE.py:NAME"),
        (["work", "--from", "ipc://a", "--to", "ipc://b", "--timeout", "0"], "seconds"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_limits_and_defaults_of_options_are_those_of_the_modules(capsys):
    def default(kind, name):
        return inspect.signature(kind).parameters[name].default

    serve = cli.command_line().parse_args(
        ["serve", "x", "--to", "ipc://a", "--window", "1024", "--workers", "1024"]
    )
    ZMQSink("ipc://a", window=serve.window)
    Noise(1, (1, 1), workers=serve.workers)
    for kind in (ZMQSink, ZMQSource):
        with pytest.raises(ArgumentError, match="window is 1025; expected a whole number from 1 to 1024"):
            kind("ipc://a", window=1025)
    serve = cli.command_line().parse_args(["serve", "x", "--to", "ipc://a"])
    assert serve.window == default(ZMQSink, "window") == default(ZMQSource, "window")
    assert serve.drain_timeout == default(ZMQSink, "drain_timeout")
    assert serve.on_error == default(ImageFileReader, "on_error")
    for text in ("jpeg:8192", "jpeg:1:1", "jpeg:08192:100"):
        options = cli.command_line().parse_args(["pack", "x", "y", "--encoding", text])
        assert size_and_quality(options.encoding[0]) is not None
    for text in ("jpeg:8193", "jpeg:0", "jpeg:9:0", "jpeg:9:101", "jpeg:", "jpeg:9:", "jpeg:9999"):
        with pytest.raises(ArgumentError):
            size_and_quality(text)
        with pytest.raises(SystemExit):
            cli.command_line().parse_args(["pack", "x", "y", "--encoding", text])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.command_line().parse_args(["pack", "--help"])
    assert f"({MAX_PIXELS})" in capsys.readouterr().out
    assert default(ImageFileReader, "max_pixels") == MAX_PIXELS


@pytest.mark.parametrize(
    "arguments, last",
    [
        (
            ["bench", "--batchsize", "64"],
            "bench: error: unrecognized arguments: --batchsize (did you mean --batch-size?)",
        ),
        (["bench", "x", "--shape", "64"], "--shape (did you mean --size?)"),
        (["bench", "x", "--image-size=64"], "--image-size=64 (did you mean --size?)"),
        (["bench", "x", "--num_threads", "2"], "--num_threads (did you mean --workers?)"),
        (["bench", "x", "--Batch_Size=64"], "--Batch_Size=64 (did you mean --batch-size?)"),
        (["preview", "x", "--colums", "3"], "--colums (did you mean --columns?)"),
        (["serve", "x", "--too", "a"], "serve: error: unrecognized arguments: --too (did you mean --to?)"),
        (
            ["work", "--form", "a", "--to", "b"],
            "work: error: unrecognized arguments: --form (did you mean --from?)",
        ),
        (["pack", "a", "b", "--workres=1"], "--workres=1 (did you mean --workers?)"),
        (["demo", "--epoch-count"], "demo: error: unrecognized arguments: --epoch-count"),
        (
            ["store", "info", "x", "--hlep"],
            "store info: error: unrecognized arguments: --hlep (did you mean --help?)",
        ),
        (["--versoin"], "highway: error: unrecognized arguments: --versoin (did you mean --version?)"),
        (["info", "--zzz"], "highway info: error: unrecognized arguments: --zzz"),
        (["info", "x", "y"], "highway info: error: unrecognized arguments: y"),
        (
            ["bnech", "x"],
            "'bnech' (did you mean bench?); choose from demo, info, classes, bench, preview, replay, serve, work,",
        ),
        (["store", "verfy", "x"], "'verfy' (did you mean verify?); choose from info, verify, repair, export"),
        (["train"], "'train'; choose from demo, info,"),
        (
            ["bench", "x", "--fit", "centr"],
            "'centr' (did you mean center?); choose from center, random,",
        ),
        (["pack", "a", "b", "--on-error", "replace"], "--on-error: 'replace'; choose from raise, skip"),
        (
            ["serve", "x", "--to", "a", "--seed", "random"],
            "'random' would draw a different seed on each machine",
        ),
        (
            ["work", "--from", "a", "--to", "b", "--seed", "random"],
            "'random' would draw a different seed on each machine",
        ),
        (["bench", "x", "--seed", str(2**64)], "is not a whole number below 2**64"),
    ],
)
def test_what_is_misspelt_is_guessed(capsys, arguments, last):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert last in capsys.readouterr().err.splitlines()[-1]


def test_options_may_be_abbreviated(capsys, photos):
    assert run(capsys, "bench", photos, "--batch", 4, "--sec", 0.01, "--size", 8)[0] == 0


def test_seed_that_is_drawn_is_told(capsys, photos):
    code, output, errors = run(capsys, "bench", photos, "--epochs", 1, "--size", 8, "--seed", "random")
    seed = re.fullmatch(r"The seed is (\d+)\.\n", errors)[1]
    assert code == 0 and f"seed={seed})" in output


def test_python_m_highway_is_the_command():
    package = str(Path(highway.__file__).parents[1])
    answer = subprocess.run(
        [sys.executable, "-m", "highway", "--version"],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (answer.returncode, answer.stdout) == (0, f"highway {highway.__version__}\n")


# info


def test_info_tells_versions_libraries_and_cores(capsys):
    code, output, errors = run(capsys, "info")
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in output.splitlines())
    assert (code, errors) == (0, "")
    assert facts["highway"].startswith(highway.__version__)
    assert facts["numpy"] == np.__version__
    assert re.fullmatch(r"Highway with libjpeg-turbo \d+\.\d+\.\d+", facts["JPEG"])
    for name, library in (("PNG", "libdeflate"), ("WebP", "libwebp")):
        assert re.match(rf"Highway with {library} \d+\.\d+|PIL: .* compiled without {library};", facts[name])
    assert facts["PIL"].startswith("Pillow")
    assert "JPEG" in facts["PIL's formats"]
    assert facts["cores"].split()[0] == str(usable_cores())


def test_info_tells_which_decoders_are_missing(monkeypatch):
    monkeypatch.setattr(
        environment.jpeg, "library_versions", lambda: {"JPEG": "2.1.5", "PNG": None, "WebP": "1.2.4"}
    )
    facts = dict(environment.decoders())
    assert facts["WebP"] == "Highway with libwebp 1.2.4"
    assert facts["PNG"].startswith("PIL: Highway was compiled without libdeflate; install libdeflate-dev")


def fake_metadata(monkeypatch, installed, requires=()):
    def version(name):
        if name not in installed:
            raise environment.metadata.PackageNotFoundError(name)
        return installed[name]

    def requirements(name):
        version(name)
        return list(requires)

    monkeypatch.setattr(environment.metadata, "version", version)
    monkeypatch.setattr(environment.metadata, "requires", requirements)


def test_info_tells_which_extras_are_there(monkeypatch):
    fake_metadata(
        monkeypatch,
        {"highway-loader": "1.2", "tqdm": "4.70", "numpy": "2.4"},
        [
            "numpy",
            "msgpack>=1.2",
            'rich; extra == "cli"',
            'tqdm>=4; extra == "cli"',
            'plyvel; python_version < "3.13" and extra == "leveldb"',
            'pytest; extra == "test"',
        ],
    )
    facts = dict(environment.describe())
    assert facts["highway"].startswith("1.2 ")
    assert facts["extra [cli]"] == "tqdm 4.70; missing: pip install rich"
    assert facts["extra [leveldb]"] == "missing: pip install plyvel"
    assert "extra [test]" not in facts


def test_info_does_not_advise_both_pillows(monkeypatch):
    requires = ['Pillow-SIMD; extra == "simd"', 'Pillow; extra == "pillow"']
    fake_metadata(monkeypatch, {"highway-loader": "1.2", "Pillow-SIMD": "12.1"}, requires)
    facts = dict(environment.describe())
    assert facts["extra [simd]"] == "Pillow-SIMD 12.1"
    assert "overwrite each other" in facts["extra [pillow]"]
    assert "pip install" not in facts["extra [pillow]"]


@pytest.mark.parametrize(
    "pil, command",
    [("Pillow-SIMD", "pip install --no-deps scikit-image"), ("Pillow", "pip install scikit-image")],
)
def test_info_advises_photographs_beside_the_pillow_that_is_there(monkeypatch, pil, command):
    fake_metadata(monkeypatch, {"highway-loader": "1.2", pil: "12.1"}, ['scikit-image; extra == "demo"'])
    assert dict(environment.describe())["extra [demo]"] == f"missing: {command}"
    assert environment.install_command("rich", "scikit-image").startswith("pip install rich")


def test_info_works_from_a_source_tree(monkeypatch):
    fake_metadata(monkeypatch, {})
    facts = dict(environment.describe())
    assert facts["highway"].startswith("0+uninstalled")
    assert "source tree" in facts["extras"]


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        ({"Pillow-SIMD": "9.5.post2"}, "Pillow-SIMD 9.5.post2"),
        ({"Pillow": "9.5.post2"}, "Pillow 9.5.post2"),
        ({"Pillow-SIMD": "9.5.post2", "Pillow": "12.0"}, "Pillow-SIMD 9.5.post2, but both"),
        ({"Pillow-SIMD": "9.4", "Pillow": "9.5.post2"}, "Pillow 9.5.post2, but both"),
        ({}, "PIL 9.5.post2"),
    ],
)
def test_info_tells_which_pil_is_active(monkeypatch, installed, says):
    import PIL

    monkeypatch.setattr(PIL, "__version__", "9.5.post2")
    fake_metadata(monkeypatch, installed)
    assert environment.pil().startswith(says)
    assert ("both" in environment.pil()) == (len(installed) == 2)


def test_info_without_pil_says_what_follows(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    facts = dict(environment.describe())
    assert facts["PIL"].startswith("none: ")
    assert "PIL's formats" not in facts


# bench


def test_bench_tells_the_rate_and_the_bottleneck(capsys, photos):
    code, output, errors = run(
        capsys,
        "bench",
        photos,
        "--epochs",
        2,
        "--batch-size",
        4,
        "--size",
        "32x48",
        "--fit",
        "random",
        "--normalize",
    )
    assert (code, errors) == (0, "")
    assert f"15 files in 3 classes, in {photos}" in output
    assert re.search(r"RandomResizedCrop\(.*FlipX\(.*Normalize\(", output)
    assert re.search(r"[\d,]+ images/s: 30 images in 8 batches", output)
    assert re.search(r"^ImageFileReader +\d+(?: \(auto\))? +8 +30 ", output, re.MULTILINE)
    assert "Augmentations: fused into the reader.\n" in output
    assert re.search(r"bottleneck", output.splitlines()[-1])


def test_bench_of_reading_alone_for_a_time(capsys, photos):
    code, output, _ = run(
        capsys, "bench", photos, "--seconds", 0.05, "--no-flip", "--size", 20, "--workers", 1
    )
    assert code == 0
    assert "1 to read and decode\n" in output
    assert "Augmentations" not in output


def test_bench_names_the_bad_files_it_went_on_without(capsys, photos):
    (photos / "class1" / "bad.jpg").write_bytes(b"no picture")
    code, output, errors = run(capsys, "bench", photos, "--epochs", 2, "--on-error", "skip")
    assert code == 0
    assert "30 images" in output
    assert errors.startswith("16 files, of which 1 could not be read; skipped:\n")
    assert "bad.jpg" in errors


# preview


def test_preview_writes_a_sheet(capsys, photos, tmp_path):
    path = tmp_path / "sheet.png"
    code, output, errors = run(capsys, "preview", photos, "-o", path, "--count", 6, "--size", "100x120")
    assert (code, errors) == (0, "")
    assert f"{path}: 6 of 15 files in 3 classes" in output
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 120
        assert sheet.height > 100


def test_preview_is_the_same_for_the_same_seed(capsys, photos, tmp_path):
    def sheet(name, *options):
        assert run(capsys, "preview", photos, "-o", tmp_path / name, "--fit", "random", *options)[0] == 0
        return (tmp_path / name).read_bytes()

    assert sheet("a.png") == sheet("b.png", "--seed", 0)
    assert sheet("a.png") != sheet("c.png", "--seed", 1)
    assert sheet("a.png") != sheet("d.png", "--no-flip")
    assert sheet("a.png") != sheet("e.png", "--no-shuffle")


TRANSFORMS = """
from highway.engine import Stage
from highway.modules import Augmentations
from highway.transforms import CenterCrop, FlipX, Normalize

class Nothing(Stage):
    def process(self, batch):
        return batch

nothing = []
both = [CenterCrop(96), FlipX(p=1)]
real = [*both, Normalize()]
stages = [Nothing(), Augmentations(real, seed=3)]
"""


@pytest.fixture
def transforms(tmp_path):
    (tmp_path / "mine.py").write_text(TRANSFORMS, encoding="utf-8")
    return lambda name: f"{tmp_path / 'mine.py'}:{name}"


def sheet_of(capsys, photos, *options):
    """The pixels of a sheet of one row."""
    path = photos.parent / "sheet.png"
    code, _, errors = run(
        capsys, "preview", photos, "-o", path, "--size", 100, "--count", 3, "--columns", 3, *options
    )
    assert (code, errors) == (0, "")
    with Image.open(path) as sheet:
        return np.asarray(sheet)


def test_preview_applies_the_transforms_of_a_file(capsys, photos, transforms):
    plain = sheet_of(capsys, photos, "--transforms", transforms("nothing"), "--no-shuffle")
    moved = sheet_of(capsys, photos, "--transforms", transforms("both"), "--no-shuffle")
    # Below the title.
    before = [plain[48:148, 16 + i * 116 :][:, :100] for i in range(3)]
    after = [moved[48:144, 16 + i * 112 :][:, :96] for i in range(3)]
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one[2:98, 2:98][:, ::-1], other)


@pytest.mark.parametrize("name", ["real", "stages"])
def test_preview_shows_normalized_images_as_they_were(capsys, photos, transforms, name):
    shown = sheet_of(capsys, photos, "--transforms", transforms(name))
    expected = sheet_of(capsys, photos, "--transforms", transforms("both"))
    assert np.array_equal(shown[48:144], expected[48:144])


def test_preview_of_stages_takes_no_seed(capsys, photos, transforms):
    code, _, errors = run(capsys, "preview", photos, "--transforms", transforms("stages"), "--seed", 1)
    assert code == 1
    assert re.fullmatch(r"highway: .*--seed and --workers are for transforms\n", errors)


def test_preview_shows_the_originals_beside(capsys, photos):
    shown = sheet_of(capsys, photos, "--original", "--fit", "letterbox", "--no-flip")
    for i in range(3):
        left = shown[48:148, 16 + i * 220 :][:, :100].astype(int)
        right = shown[48:148, 120 + i * 220 :][:, :100].astype(int)
        # The same picture between margins, white ones and black ones.
        assert (left[0] == 255).all()
        assert (right[0] == 0).all()
        assert np.array_equal(left[20:80], right[20:80])
        assert left[20:80].std() > 10


OBJECT = """<annotation><size><width>120</width><height>100</height><depth>3</depth></size>
<object><name>{}</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>100</xmax><ymax>90</ymax>
</bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path):
    """A VOC set of a person and a dog; only the dog is in the list "some". Both have masks of class 15."""
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros((100, 120), np.uint8)
    mask[40:60, 30:60] = 15
    for name in ("person", "dog"):
        Image.new("RGB", (120, 100), (8, 8, 8)).save(root / "JPEGImages" / f"{name}.jpg", quality=100)
        (root / "Annotations" / f"{name}.xml").write_text(OBJECT.format(name), encoding="utf-8")
        Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets" / "Main" / "some.txt").write_text("dog\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("fit", [None, "letterbox", "center", "stretch"])
def test_preview_fits_as_the_reader_does(capsys, voc, photos, tmp_path, monkeypatch, fit):
    from highway.batch import Batch

    titles = []
    monkeypatch.setattr(Batch, "sheet", lambda *_, title, **__: titles.append(title))
    options = ["-o", tmp_path / "sheet.png", "--no-flip", *(() if fit is None else ("--fit", fit))]
    for data in ((voc, "--voc"), (photos,)):
        assert run(capsys, "preview", *data, *options)[0] == 0
    expected = {"center": "CenterFit", "letterbox": "Letterbox", "stretch": "Stretch"}
    of_boxes, of_classes = (title.split("(")[0] for title in titles)
    assert of_boxes == expected[fit or "letterbox"]
    assert of_classes == expected[fit or "center"]


def test_preview_of_a_voc_set(capsys, voc):
    path = voc / "sheet.png"
    # Numbers of these in the list of classes.
    dog, person = 0, 1

    def shown(*options):
        command = ("preview", voc, "--voc", "-o", path, "--count", 2, "--size", "100x120", "--columns", 2)
        code, output, errors = run(capsys, *command, "--no-flip", "--no-shuffle", *options)
        assert (code, errors) == (0, "")
        with Image.open(path) as sheet:
            return output, np.asarray(sheet)[48:148]

    output, pixels = shown()
    assert output == f"{path}: 2 of 2 files in 2 classes\n"
    # The lines below, where no names are.
    assert (pixels[89, 16 + 10 : 16 + 100] == class_color(dog)).all()
    assert (pixels[89, 152 + 10 : 152 + 100] == class_color(person)).all()
    output, pixels = shown("--split", "some", "--masks")
    assert output == f"{path}: 1 of 1 file in 2 classes\n"
    assert (pixels[41:59, 16 + 31 : 16 + 59] == [100, 68, 68]).all()
    assert (pixels[61:80, 16 + 31 : 16 + 59] == 8).all()


def test_preview_shows_the_masks_of_class_folders(capsys, photos, tmp_path):
    for picture in photos.rglob("*.jpg"):
        with Image.open(picture) as opened:
            mask = Image.new("L", opened.size, 15)
        path = tmp_path / "masks" / picture.relative_to(photos).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        mask.save(path)
    masked = sheet_of(capsys, photos, "--masks-dir", tmp_path / "masks")[49:147, 17:115]
    bare = sheet_of(capsys, photos)[49:147, 17:115]
    assert np.array_equal(masked, (bare.astype(int) + [192, 128, 128] + 1) // 2)


def test_bench_of_a_voc_set_and_of_masks(capsys, voc, photos):
    def told(data, *options):
        code, output, errors = run(
            capsys, "bench", data, "--epochs", 2, "--size", 40, "--fit", "letterbox", *options
        )
        assert (code, errors) == (0, "")
        return output

    output = told(voc, "--voc", "--masks", "--normalize")
    assert f"2 files in 2 classes, in {voc}" in output
    assert re.search(r"VOCReader\(.*split=None, fit=Letterbox\(.*FlipX\(.*Normalize\(", output)
    assert re.search(r"images/s: 4 images in 2 batches", output)
    output = told(voc, "--voc", "--split", "some")
    assert "1 file in 2 classes" in output and "split='some'" in output
    # Masks are read, where they are asked for: bad ones are met.
    for picture in photos.rglob("*.jpg"):
        path = voc / "masks" / picture.relative_to(photos).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3)).save(path)
    Image.new("L", (3, 3)).save(voc / "SegmentationClass" / "dog.png")
    for data, *masks in ((photos, "--masks-dir", voc / "masks"), (voc, "--voc", "--masks")):
        code, _, errors = run(capsys, "bench", data, "--epochs", 1, *masks)
        assert code == 1 and "has 3 x 3 pixels" in errors


@pytest.mark.parametrize("command", ["bench", "preview"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--masks"], "--masks needs --voc.*--masks-dir DIR"),
        (["--split", "train"], "--split needs --voc"),
        (["--images", "x"], "--images needs --voc"),
        (["--annotations", "x"], "--annotations needs --voc"),
        (["--voc", "--masks-dir", "x"], "--masks-dir is for class folders.*--masks"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused(capsys, photos, command, options, says):
    code, _, errors = run(capsys, command, photos, *options)
    assert code == 1
    assert re.fullmatch(rf"highway: {says}.*\n", errors)


# Errors


@pytest.mark.parametrize("command", ["bench", "preview"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "missing", "missing/' does not exist"),
        (lambda folder: Path(__file__), "Not a directory"),
        (lambda folder: folder, "no class folders"),
        (lambda folder: (folder / "cats").mkdir() or folder, "'cats'|cats.* has no pictures"),
    ],
)
def test_wrong_folder_is_one_line_and_exit_code_1(capsys, tmp_path, command, make, says):
    folder = tmp_path / "data"
    folder.mkdir()
    code, _, errors = run(capsys, command, make(folder))
    assert code == 1
    assert re.fullmatch(rf"highway: .*({says}).*\n", errors)


@pytest.mark.parametrize("command", ["bench", "preview"])
def test_bad_file_is_one_line_and_the_way_on(capsys, photos, command):
    (photos / "class0" / "bad.jpg").write_bytes(b"no picture")
    code, _, errors = run(capsys, command, photos)
    assert code == 1
    assert re.fullmatch(r"highway: .*bad\.jpg.*\(--on-error skip or replace continues without it\)\n", errors)


def test_names_with_line_ends_or_without_encoding_stay_one_line(capsys, tmp_path):
    code, _, errors = run(capsys, "bench", os.fsdecode(os.fsencode(tmp_path) + b"/two\nlines\xff"))
    assert code == 1
    assert re.fullmatch(r"highway: .*two\\nlines\\udcff/' does not exist.*\n", errors)


def test_sheet_that_cannot_be_written_is_one_line(capsys, photos, tmp_path):
    code, _, errors = run(capsys, "preview", photos, "-o", tmp_path / "nowhere" / "sheet.png")
    assert code == 1
    assert re.fullmatch(r"highway: .*sheet\.png: No such file or directory\n", errors)
    code, _, errors = run(capsys, "preview", photos, "-o", tmp_path / "sheet")
    assert code == 1
    assert re.fullmatch(r"highway: .*use \.png\n", errors)


def test_ctrl_c_ends_with_130_and_the_figures_until_then(photos):
    process = highway_command("bench", photos, "--seconds", 600)
    with process:
        for line in process.stdout:
            if line.startswith("threads"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "Interrupted" in errors
    assert "Traceback" not in errors


def test_reader_of_the_output_may_go_away(photos):
    process = highway_command("bench", photos, "--epochs", 3)
    with process:
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=LIMIT) == 1
    assert errors == ""


# Terminals


class Numbered(Source):
    """Batches of two samples without end, or as many as asked for."""

    def __init__(self, batches=None):
        super().__init__(workers=1)
        self.batches = batches

    def tasks(self):
        return iter(range(self.batches)) if self.batches else iter(lambda: 0, None)

    def load(self, task):
        return Batch({"images": np.zeros((2, 1), np.uint8)})


def test_run_counts_what_came():
    result = terminal.run_pipeline([Numbered(5)])
    assert (result.images, result.batches, result.interrupted) == (10, 5, False)
    assert result.stats.delivered == 5
    assert 0 < result.first <= result.seconds
    assert result.rate == 10 / result.seconds


def test_run_of_nothing_is_told():
    class Nothing(Numbered):
        def load(self, task):
            return None

    with pytest.raises(EndOfData, match="all 1 batches of epoch 0 were skipped"):
        terminal.run_pipeline([Nothing(1)])


def test_run_ends_in_time():
    assert terminal.run_pipeline([Numbered()], seconds=1e-6).batches == 1


def test_run_keeps_what_it_has_at_ctrl_c(monkeypatch):
    def interrupted(pipeline):
        yield pipeline.dequeue(timeout=LIMIT)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "forever", interrupted)
    result = terminal.run_pipeline([Numbered()])
    assert (result.images, result.interrupted) == (2, True)


def test_terminal_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    terminal.run_pipeline([Numbered(5)], total=10)
    assert "images" in capsys.readouterr().err


def test_without_tqdm_the_missing_bar_is_said(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert terminal.run_pipeline([Numbered(5)]).images == 10
    assert capsys.readouterr().err == "No progress bar: it needs tqdm (pip install tqdm).\n"


def test_terminal_shows_one_line_of_figures(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.status_line() as show:
        show("first")
        show("second")
    shown = capsys.readouterr().err
    assert shown.index("first") < shown.index("second")
    assert "\n" not in shown


def test_without_tqdm_figures_are_lines(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with terminal.status_line() as show:
        show("first")
        show("second")
    assert capsys.readouterr().err == "first\nsecond\n"


def test_figures_are_for_who_watches(capsys):
    with terminal.status_line() as show:
        show("first")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("with_rich", [True, False])
def test_terminal_shows_facts_with_and_without_rich(monkeypatch, capsys, with_rich):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    if not with_rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    terminal.heading("Part")
    terminal.facts([("a", "first [red]"), ("longer", "second")])
    words = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).split()
    assert words == ["Part", "a", "first", "[red]", "longer", "second"]
