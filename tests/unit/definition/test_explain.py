from __future__ import annotations

import json
from pathlib import Path

from orchestrator import codec
from orchestrator.definition import explain, loader, plan

from .conftest import DM, load


def test_the_explanation_says_what_will_run_and_why(tmp_path: Path) -> None:
    (tmp_path / "a.hdf").write_bytes(b"x" * 1500)
    d = loader.load(DM / "xpcs.spec")
    p = plan.compile_plan(d, {"filePath": str(tmp_path / "a.hdf"), "analysisMachine": "h"}, directory=str(tmp_path))
    e = explain.explain(p)
    assert [[s.name for s in level] for level in e.levels] == [[n] for n in d.stages]
    assert (e.bytes, e.trouble) == (1500, "")
    assert e.levels[0][0].runs.startswith(f'echo "resultDir: `dirname {tmp_path}/a.hdf`')
    text = explain.render(e)
    assert "input  " in text
    assert "(1.5 kB)" in text
    assert "every 20 s until" in text
    assert "not set  $USER, $gpuID, $smooth" in text
    assert json.loads(codec.dumps(e))["workflow"] == "xpcs-boost"


def test_side_by_side_stages_reasons_checks_sudo_and_moves(tmp_path: Path) -> None:
    d = load(
        {
            "1": {"command": "make", "outputs": ["a.h5"], "resources": {"nodes": 2, "gpusPerRank": 1}},
            "2": {"transfer": {"from": "a.h5", "to": "/far/a.h5"}, "inputs": ["a.h5"], "timeout": 60},
            "3": {"command": "echo $filePath", "inputs": ["a.h5"], "filePath": "none.h5"},
        },
        userAccount="ops",
    )
    e = explain.explain(plan.compile_plan(d, {}, directory=str(tmp_path)))
    text = explain.render(e)
    for line in (
        "runs     /usr/bin/sudo -u ops -- make",
        "step 2, 2 stages side by side",
        "after    1: it writes a.h5, read here",
        "moves to /far/a.h5",
        "checks   a.h5: is there, is not empty, is newer than the start",
        "needs    2 nodes, 1 rank each, 1 GPU per rank",
        "ends     after 60 s at the latest",
        "trouble  There is no input file",
    ):
        assert line in text


def test_a_missing_input_is_told_not_raised(tmp_path: Path) -> None:
    p = plan.compile_plan(load(), {"filePath": "no\nne"}, directory=str(tmp_path))
    e = explain.explain(p)
    assert "There is no input file" in e.trouble
    assert "\nne" not in explain.render(e)
