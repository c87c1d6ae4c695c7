"""`doctor`: what it looks at by itself, and what it adds of the daemon's own findings."""

from pathlib import Path
from typing import Any

import pytest

from p2psync.cli import doctor
from p2psync.cli.home import create_home
from tests.cli.conftest import CommandLine
from tests.web.fake_control import FakeControl

Json = dict[str, Any]


def checks(cli: CommandLine) -> dict[str, Json]:
    result = cli("doctor", "--json")
    found = result.json()["checks"]
    assert result.code == (0 if all(check["ok"] for check in found) else 1)
    return {check["name"]: check for check in found}


def test_before_anything_is_made_it_says_how_to_begin(cli: CommandLine) -> None:
    found = checks(cli)
    assert found["home"]["next_step"] == "Run `p2psync init`."
    assert not found["daemon"]["ok"]
    assert found["python"]["ok"]
    assert found["chunker"]["ok"]
    assert not cli.home.exists()


def test_another_home_is_named_in_the_next_step(cli: CommandLine, tmp_path: Path) -> None:
    result = cli("doctor", "--home", tmp_path / "my home")
    assert f"→ Run `p2psync --home '{tmp_path}/my home' init`." in result.out


def test_a_sound_device_passes_and_the_daemons_findings_are_added(
    cli: CommandLine, control: FakeControl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    watches = tmp_path / "watches"
    watches.write_text("65536\n")
    monkeypatch.setattr(doctor, "_WATCHES", watches)
    (cli.home / "config.toml").write_text('name = "laptop"')
    clock = {"name": "clock", "ok": True, "detail": "it runs", "next_step": None}
    control.answers["doctor"] = {"checks": [clock]}
    result = cli("doctor")
    assert result.code == 0, result
    assert "ok    config: valid, for the device “laptop”" in result.out
    assert result.out.endswith("ok    daemon: it is running\nok    clock: it runs\n")
    control.answers["doctor"] = {"checks": [{**clock, "ok": False, "next_step": "Set it."}]}
    assert cli("doctor").code == 1


def test_a_home_that_is_open_to_others_is_a_finding(cli: CommandLine) -> None:
    create_home(cli.home, name="laptop", listen=None)
    cli.home.chmod(0o750)
    found = checks(cli)["home"]
    assert (found["ok"], found["next_step"]) == (False, f"Run `chmod 700 {cli.home}`.")


def test_settings_that_are_wrong_are_a_finding(cli: CommandLine) -> None:
    create_home(cli.home, name="laptop", listen=None)
    (cli.home / "config.toml").write_text("bogus = 1")
    assert "“bogus” is not a setting" in checks(cli)["config"]["detail"]


@pytest.mark.parametrize(("content", "ok"), [("100", False), ("8192\n", True), ("x", True)])
def test_a_low_limit_of_watches_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, cli: CommandLine, tmp_path: Path, content: str, ok: bool
) -> None:
    (tmp_path / "watches").write_text(content)
    monkeypatch.setattr(doctor, "_WATCHES", tmp_path / "watches")
    found = checks(cli)["file events"]
    assert found["ok"] is ok
    if not ok:
        assert "fs.inotify.max_user_watches" in found["next_step"]


def test_a_slow_chunker_is_a_finding(monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> None:
    class FastCDC:
        pass

    FastCDC.__module__ = "pyfastcdc.py.fastcdc"
    monkeypatch.setattr("pyfastcdc.FastCDC", FastCDC)
    assert "200 times slower" in checks(cli)["chunker"]["detail"]


def test_an_old_python_is_a_finding(monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> None:
    monkeypatch.setattr(doctor, "_MIN_PYTHON", (99, 0))
    assert not checks(cli)["python"]["ok"]
