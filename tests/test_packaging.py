"""What is installed: one version, one entry point, types, and nothing heavy that comes along unasked."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

import pytest

from pytest_ckpt._version import __version__

ROOT: Final = Path(__file__).resolve().parent.parent
UNASKED: Final = frozenset(
    {
        *(
            "accelerate",
            "cloudpickle",
            "filelock",
            "freezegun",
            "lightning",
            "numpy",
            "safetensors",
            "seccompy",
            "torch",
        ),
        "transformers",
    }
)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel as a release would, without the network."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def wheel_metadata(wheel: zipfile.ZipFile) -> metadata.PackageMetadata:
    """Read the metadata that an installer reads."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    folder = zipfile.Path(wheel, name.removesuffix("METADATA"))
    return metadata.PathDistribution(folder).metadata


def loaded_at_the_end(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run pytest with this plugin alone, and name the modules nobody asked for that were imported by then."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(
        f"""
        import sys

        def pytest_unconfigure():
            print("\\nloaded:", sorted(sys.modules.keys() & set({sorted(UNASKED)!r})))
        """
    )
    result = pytester.runpytest_subprocess("-p", "pytest_ckpt.plugin", *arguments)
    (line,) = (line for line in result.outlines if line.startswith("loaded:"))
    return line


def test_the_installed_version_is_the_one_in_the_source() -> None:
    """The metadata of the installed package and the package itself name the same version."""
    assert __version__ == metadata.version("pytest-ckpt")


def test_the_wheel_is_named_after_the_version_in_the_source(wheel: zipfile.ZipFile) -> None:
    """The build reads the version from `_version.py`, and nothing else holds one."""
    assert __version__ == wheel_metadata(wheel)["Version"]
    assert f"pytest_ckpt-{__version__}-py3-none-any.whl" == Path(str(wheel.filename)).name


def test_the_entry_point_names_the_plugin() -> None:
    """pytest finds the plugin under the name that `-p no:ckpt` takes."""
    (entry_point,) = metadata.entry_points(group="pytest11", name="ckpt")
    assert "pytest_ckpt.plugin" == entry_point.value
    assert "pytest_ckpt.plugin" == entry_point.load().__name__


def test_the_wheel_ships_types_and_licence_and_no_tests(wheel: zipfile.ZipFile) -> None:
    """A type checker finds `py.typed`, a lawyer the licence, and nobody our test suite."""
    names = wheel.namelist()
    assert "pytest_ckpt/py.typed" in names
    assert f"pytest_ckpt-{__version__}.dist-info/licenses/LICENSE" in names
    assert {"pytest_ckpt", f"pytest_ckpt-{__version__}.dist-info"} == {name.split("/")[0] for name in names}


def test_every_module_of_the_source_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """No module is lost on the way to the user, whatever the ignore files say."""
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pytest_ckpt").rglob("*.py")}
    assert modules == {name for name in wheel.namelist() if name.endswith(".py")}


def test_frameworks_are_extras(wheel: zipfile.ZipFile) -> None:
    """Installing the plugin installs no framework: torch and the rest are the user's."""
    required = wheel_metadata(wheel).get_all("Requires-Dist") or []
    unconditional = {line for line in required if "extra ==" not in line}
    always = {"cloudpickle>=3.0", "filelock>=3.12", "pytest>=8.4", "safetensors>=0.4"}
    assert always | {"seccompy>=0.2; sys_platform == 'linux'"} == unconditional
    extras = sorted(wheel_metadata(wheel).get_all("Provides-Extra") or [])
    assert ["clock", "hypothesis", "lightning", "torch", "transformers"] == extras


def test_importing_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    """`import pytest_ckpt` costs no framework and none of our own dependencies."""
    program = f"import sys, pytest_ckpt; print(sorted(sys.modules.keys() & set({sorted(UNASKED)!r})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_a_run_without_contracts_imports_nothing_heavy(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project that merely has the plugin installed pays for no framework in its test run."""
    pytester.makepyfile("def test_unrelated(): pass")
    assert "loaded: []" == loaded_at_the_end(pytester, monkeypatch)


def test_skipping_a_marked_test_imports_nothing_heavy(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --ckpt-contract a marked test is skipped before anything is imported for it."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job, tiny_causal_lm): pass
        """
    )
    assert "loaded: []" == loaded_at_the_end(pytester, monkeypatch, "-W", "error")


def test_listing_the_marks_imports_nothing_heavy(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manual, `pytest --markers`, is there at once."""
    assert "loaded: []" == loaded_at_the_end(pytester, monkeypatch, "--markers")


def test_ci_runs_the_command_that_the_readme_shows() -> None:
    """What a newcomer is told to run is what guards every change, to the letter."""
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert command in {line.removeprefix("$ ").strip() for line in readme}
