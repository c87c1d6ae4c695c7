"""What the check prints, and its exit code."""

import json
from pathlib import Path

import pytest

from tests.oracle import cli, fakes, report
from tests.oracle.judge import Violation
from tests.oracle.run import Outcome


def test_the_table_has_a_row_for_each_system_and_a_column_for_each_property() -> None:
    lost = Violation("P1", "dev0", "a", "token 1 is lost", (1,), ("#1 dev0 creates “a”",))
    one = Outcome("p2psync", "1", seed=3, operations=10, violations=[lost])
    shown = report.table([one, Outcome("other", "2", seed=3)]).splitlines()
    assert shown[0].split()[:4] == ["system", "P1", "P2", "P3"]
    assert shown[1].split()[:4] == ["p2psync", "1", "1", "0"]
    assert shown[2].split()[:4] == ["other", "2", "0", "0"]
    assert report.stories(one) == "P1 on dev0, “a”: token 1 is lost\n    #1 dev0 creates “a”"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [(fakes.Perfect, 0), (fakes.Resurrecting, 1)])
def test_the_exit_code_tells_of_violations_and_then_the_directory_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[fakes.Perfect],
    code: int,
) -> None:
    monkeypatch.setattr(cli, "_MAKERS", {"p2psync": kind, "syncthing": kind})
    monkeypatch.setattr(cli, "_is_there", lambda name: name == "p2psync")
    words = ["--systems", "p2psync,syncthing", "--operations", "60", "--json"]
    assert cli.main([*words, "--dir", str(tmp_path)]) == code
    said = json.loads(capsys.readouterr().out)
    assert said["absent"] == ["syncthing"]
    assert [row["system"] for row in said["systems"]] == ["perfect"]
    assert bool(list(tmp_path.glob("synccheck-*/findings.json"))) == bool(code)
