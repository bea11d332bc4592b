"""What a result says of the code that made it."""

from __future__ import annotations

import subprocess

from trajvit_jax.run import provenance


def test_results_in_docs_do_not_make_the_code_another_one(tmp_path, monkeypatch):
    def git(*arguments):
        own = ("-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path))
        subprocess.run(["git", *own, *arguments], check=True, capture_output=True)

    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.commit() == ""
    for name in ("docs/rows.jsonl", "code.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    clean = provenance.commit()
    assert len(clean) == 12
    (tmp_path / "docs/rows.jsonl").write_text("one\ntwo\n")
    (tmp_path / "untracked.py").write_text("three\n")
    assert provenance.commit() == clean
    (tmp_path / "code.py").write_text("two\n")
    assert provenance.commit() == clean + "+"
