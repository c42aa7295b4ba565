"""`import outthink` is cheap: nothing heavy comes with it, and names come when they are used."""

import subprocess
import sys

import pytest

import outthink

HEAVY = ("torch", "numpy", "aiohttp", "rich", "click", "msgspec", "matplotlib", "asyncio", "outthink.core")


def modules_after(code):
    """Return the modules that a fresh interpreter has loaded after `code`."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint('\\n'.join(sorted(set(sys.modules) - before)))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_loads_next_to_nothing():
    loaded = modules_after("import outthink")
    assert not [name for name in loaded if name.startswith(HEAVY)]
    assert len(loaded) <= 3, loaded


def test_a_method_author_needs_no_heavy_module():
    loaded = modules_after("from outthink import gather, fitting, Sample, Runtime, Budget")
    assert not [
        name for name in loaded if name.split(".")[0] in ("torch", "numpy", "aiohttp", "rich", "click", "matplotlib")
    ]


def test_the_command_line_loads_no_model_library_to_print_help():
    code = "import outthink.cli as m\ntry:\n    m.main(['--help'])\nexcept SystemExit:\n    pass"
    loaded = modules_after(code)
    assert not [name for name in loaded if name.split(".")[0] in ("torch", "numpy", "aiohttp", "matplotlib")]


@pytest.mark.parametrize("name", outthink.__all__)
def test_every_public_name_is_there(name):
    assert getattr(outthink, name) is not None
    assert name in dir(outthink)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = outthink.nothing
