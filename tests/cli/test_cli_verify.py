"""``midpg verify``: from export to diagnosis, exit codes, JSON, and errors in one sentence."""

import json

import numpy as np
import pytest
from midpg_command import midpg, midpg_process, one_sentence, words

from midpg_np.verify.case import load_case
from midpg_np.verify.mistakes import MISTAKES, mistakes_of
from midpg_np.verify.outcome import outcome
from midpg_np.verify.ready import READY

MISTAKE = "gradient of W without S"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small case of MI-DPG, a right dump, one with a mistake, and one that nobody knows."""
    path = tmp_path_factory.mktemp("verify")
    assert midpg("verify", "export", path / "case.safetensors", "--small").code == 0
    case = load_case(path / "case.safetensors")
    wrong = outcome(case.model, case.given, [MISTAKES[MISTAKE]])
    np.savez(path / "right.npz", **case.arrays)
    np.savez(path / "wrong.npz", **{k: v for k, v in wrong.items() if k in case.arrays})
    np.savez(path / "strange.npz", logit=case.arrays["logit"] ** 2, X=case.arrays["X"])
    return path


def test_export_tells_what_the_file_holds(tmp_path):
    found = midpg("verify", "export", tmp_path / "c.npz", "--small", "--set", "variant=rc")
    assert (found.code, found.err) == (0, "")
    assert "one training step of midpg" in words(found.out)
    case = load_case(tmp_path / "c.npz")
    assert case.config["variant"] == "rc"
    assert case.n_rows == 16
    midpg("verify", "export", tmp_path / "d.npz", "--model", "dnn", "--rows", 3, "--seed", 7)
    case = load_case(tmp_path / "d.npz")
    assert (case.model_name, case.n_rows, case.seed) == ("dnn", 3, 7)
    assert case.config["hidden"] == (128, 64, 32)


def test_a_right_dump(folder):
    found = midpg("verify", "check", folder / "case.safetensors", folder / "right.npz")
    assert (found.code, found.err) == (0, "")
    assert "all agree but for rounding" in found.out
    assert "The dump holds everything." in found.out
    everything = midpg(
        "verify", "check", folder / "case.safetensors", folder / "right.npz", "--all"
    )
    assert everything.code == 0
    assert "layer_1.weighting.C_share" in everything.out
    diagnosed = midpg("verify", "diagnose", folder / "case.safetensors", folder / "right.npz")
    assert diagnosed.code == 0
    assert "mistake" not in diagnosed.out


def test_a_wrong_dump(folder):
    files = (folder / "case.safetensors", folder / "wrong.npz")
    found = midpg("verify", "check", *files)
    assert (found.code, found.err) == (1, "")
    assert "First gradient that differs, in backward order: d.layer_2.W[" in found.out
    assert "First value" not in found.out
    found = midpg("verify", "diagnose", *files)
    assert (found.code, found.err) == (1, "")
    assert f"The mistake:\n  {MISTAKE} (derivations 3.4; dpg, midpg)\n" in found.out
    assert f"    fix:   {MISTAKES[MISTAKE].fix}" in found.out


def test_a_dump_that_no_mistake_explains(folder):
    found = midpg("verify", "diagnose", folder / "case.safetensors", folder / "strange.npz")
    assert found.code == 1
    assert "None of the known mistakes, nor any two of them, gives these numbers" in found.out
    assert "  logit, computed from z" in found.out


def test_json(folder):
    files = (folder / "case.safetensors", folder / "wrong.npz")
    found = midpg("verify", "check", *files, "--json")
    report = json.loads(found.out)
    assert found.code == 1
    assert (report["ok"], report["first_value"]) == (False, None)
    assert report["first_gradient"] == "d.layer_2.W"
    assert {entry["name"] for entry in report["wrong"]} >= {"d.layer_2.W", "d.layer_1.W"}
    diagnosed = json.loads(midpg("verify", "diagnose", *files, "--json").out)
    assert [[m["name"] for m in match] for match in diagnosed["matches"]] == [[MISTAKE]]
    assert diagnosed["blamed"] == ["d.layer_2.W", "d.layer_1.W"]


def test_names_and_ignore(folder, tmp_path):
    case = load_case(folder / "case.safetensors")
    np.savez(tmp_path / "dump.npz", w=case.arrays["layer_1.W"].T, seen=np.ones(2))
    (tmp_path / "names.toml").write_text('"layer_1.W" = {name = "w", transpose = true}\n')
    command = ("verify", "check", folder / "case.safetensors", tmp_path / "dump.npz")
    found = midpg(*command, "--names", tmp_path / "names.toml", "--ignore", "se*")
    assert found.code == 0
    assert "1 of 197 quantities" in found.out
    found = midpg(*command, "--names", tmp_path / "names.toml")
    assert found.code == 2
    assert "the dump holds 'seen', which is no quantity of the case" in one_sentence(found)


def test_mistakes():
    everything = midpg("verify", "mistakes")
    assert everything.code == 0
    assert all(f"  {name} (derivations" in everything.out for name in MISTAKES)
    listed = json.loads(midpg("verify", "mistakes", "star", "--json").out)
    assert [entry["name"] for entry in listed] == [m.name for m in mistakes_of("star")]
    assert "Did you mean 'star'?" in one_sentence(midpg("verify", "mistakes", "starr"))


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_ready_made_cases(tmp_path, suffix):
    found = midpg("verify", "cases", tmp_path / "cases", "--suffix", suffix)
    assert found.code == 0, found.err
    written = {path.name for path in (tmp_path / "cases").iterdir()}
    assert written == {f"{name}.{suffix}" for name in READY}
    assert load_case(tmp_path / "cases" / f"ple.{suffix}").model_name == "ple"


def test_a_case_that_is_not_as_published(tmp_path, monkeypatch):
    from midpg_np.commands import verify

    monkeypatch.setattr(verify, "fingerprint", lambda case: "0" * 32)
    found = midpg("verify", "cases", tmp_path)
    assert found.code == 2
    assert "case dnn has the hash 000" in one_sentence(found)
    assert not list(tmp_path.iterdir())


ERRORS = {
    "no case": (
        ("check", "none.safetensors", "right.npz"),
        "safetensors: there is no such file",
    ),
    "no dump": (("check", "case.safetensors", "none.npz"), "none.npz: there is no such file"),
    "dump for a case": (("check", "right.npz", "right.npz"), "file of another origin"),
    "unknown model": (("export", "x.npz", "--model", "mdpig"), "model must be one of"),
    "unknown option": (("export", "x.npz", "--set", "gian=2"), "Did you mean 'gain'?"),
    "no setting": (("export", "x.npz", "--set", "gain"), "a setting is written NAME=VALUE"),
    "no folder": (("export", "nowhere/x.npz"), "could not be written"),
    "suffix": (("cases", "x", "--suffix", "zip"), "--suffix must be safetensors or npz; got 'zip'"),
    "no names": (
        ("check", "case.safetensors", "right.npz", "--names", "n.toml"),
        "n.toml: there is no such file",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    arguments, message = ERRORS[name]
    found = midpg("verify", *arguments)
    assert found.code == 2
    assert message in one_sentence(found)


def test_a_process_of_its_own(folder):
    code, out, err = midpg_process(
        "verify", "check", folder / "case.safetensors", folder / "wrong.npz", "--json"
    )
    assert (code, err) == (1, "")
    assert json.loads(out)["first_gradient"] == "d.layer_2.W"


def test_a_page(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="the page holds heat maps")
    found = midpg(
        "verify", "check", folder / "case.safetensors", folder / "wrong.npz",
        "--html", tmp_path / "report.html",
    )  # fmt: skip
    assert found.code == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>What differs</h2>" in page
    assert "Error of d.layer_2.W by entry" in page
