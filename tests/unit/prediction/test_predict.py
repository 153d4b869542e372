"""What `summidx plan` predicts, against what the same build then does: a real repository, a real server, real calls."""

import json
import subprocess

import pytest
from fake_llm import Answer
from typer.testing import CliRunner

from summidx.cli import app
from summidx.engine import Engine
from summidx.pipeline import index_repo
from summidx.plan import make_plan
from summidx.prediction.predict import predict
from summidx.records import RepoRef
from summidx.settings import load_settings

CORE = '''"""Money."""

from .text import slug


class Account:
    """Holds money."""

    def __init__(self, owner):
        self.owner = owner
        self.balance = 0

    def deposit(self, amount):
        """Put money in."""
        if amount <= 0:
            raise ValueError("no such amount")
        self.balance += amount
        return self.balance

    def withdraw(self, amount):
        """Take money out."""
        if amount > self.balance:
            raise ValueError("not enough money")
        self.balance -= amount
        return self.balance


def label(account):
    """Name of an account for a list."""
    name = slug(account.owner)
    if not name:
        return "nobody"
    return name
'''
TEXT = '''def slug(text):
    """Lower-case words with hyphens."""
    words = text.lower().split()
    if not words:
        return ""
    return "-".join(words)
'''
FILES = {
    "README.md": "# Bank\n\nKeeps accounts.\n",
    "bank/__init__.py": "from .core import Account\n",
    "bank/core.py": CORE,
    "bank/text.py": TEXT,
    "tools/text.py": TEXT,
    "tests/test_core.py": "from bank.core import Account\n\n\ndef test_deposit():\n    assert Account('a')\n",
}


def git(folder, *args):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *args]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def commit(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "change")


@pytest.fixture
def bank(tmp_path):
    commit(tmp_path / "bank", FILES)
    return RepoRef("bank", str(tmp_path / "bank"))


@pytest.fixture
def settings(tmp_path, fake_llm):
    return make_settings(tmp_path, fake_llm)


def make_settings(tmp_path, fake_llm, **settings):
    return load_settings(
        {
            "index_root": str(tmp_path / "index"),
            "log_dir": str(tmp_path / "logs"),
            "embedding": {"model": "hashing"},
            "llm": {"provider": "openai", "model": "fake", "base_url": fake_llm.base_url},
        }
        | settings
    )


def build(refs, settings):
    """Build as a run does; what it cost, by name."""
    plan = make_plan(refs, settings)
    engine = Engine(settings, served_model=plan.served_model)
    try:
        return {
            planned.pin.name: index_repo(planned.pin, engine, expected_publish_id=planned.expected_publish_id).usage
            for planned in plan.repos
            if not planned.up_to_date
        }
    finally:
        engine.close()


def check(refs, settings, fake_llm):
    """Predict, then build: the calls must be those predicted; the prediction and the actual usages."""
    before = fake_llm.calls
    predicted = predict(refs, settings)
    assert fake_llm.calls == before
    actual = build(refs, settings)
    assert predicted.calls == fake_llm.calls - before
    assert predicted.cache_hits == sum(usage.cache_hits for usage in actual.values())
    assert predicted.vectors == sum(usage.vectors_embedded for usage in actual.values())
    return predicted, actual


def test_predicted_calls_are_the_calls_then_made_cold_warm_and_after_an_edit(bank, settings, fake_llm, tmp_path):
    cold, _ = check([bank], settings, fake_llm)
    assert cold.calls > 8
    assert [(each.name, each.why) for each in cold.repositories] == [("bank", "new")]

    warm, actual = check([bank], settings, fake_llm)
    assert (warm.calls, warm.repositories, warm.up_to_date, warm.seconds, actual) == (0, (), 1, 0.0, {})

    commit(tmp_path / "bank", {"bank/core.py": CORE.replace("not enough money", "too little money")})
    edited, actual = check([bank], settings, fake_llm)
    assert edited.repositories[0].why == "content changed"
    assert 3 <= edited.calls <= 5  # the method, its class, file, directory and the repository
    assert edited.tokens_in == pytest.approx(actual["bank"].tokens_in, rel=0.05)
    assert edited.tokens_out == pytest.approx(actual["bank"].tokens_out, rel=0.1)


def test_tokens_come_near_once_the_model_is_known(bank, settings, fake_llm, tmp_path):
    build([bank], settings)
    other = {path: text.replace("money", "water").replace("Account", "Tank") for path, text in FILES.items()}
    commit(tmp_path / "tank", other)
    predicted, actual = check([RepoRef("tank", str(tmp_path / "tank"))], settings, fake_llm)
    assert predicted.calls > 5
    assert predicted.tokens_in == pytest.approx(actual["tank"].tokens_in, rel=0.03)
    assert predicted.tokens_out == pytest.approx(actual["tank"].tokens_out, rel=0.05)
    assert predicted.basis[0].startswith("lengths: from ")


def test_without_experience_lengths_and_pace_are_assumed_and_said_to_be(bank, settings):
    predicted = predict([bank], settings)
    assert [each.partition(":")[2].split()[0] for each in predicted.basis] == ["assumed"] * 3
    assert predicted.seconds > 0


def test_what_forks_share_is_paid_for_once(bank, settings, fake_llm, tmp_path):
    commit(tmp_path / "fork", FILES)
    fork = RepoRef("fork", str(tmp_path / "fork"))
    predicted, _ = check([bank, fork], settings, fake_llm)
    calls = sorted(each.calls for each in predicted.repositories)
    assert calls[0] < calls[1]


def test_a_degraded_answer_is_a_call_only_where_it_is_asked_for_again(bank, settings, fake_llm, tmp_path):
    fake_llm.script = lambda body, _: Answer(text="") if "withdraw" in body["messages"][-1]["content"] else None
    build([bank], settings)
    fake_llm.script = None
    assert predict([bank], settings).repositories == ()
    again = make_settings(tmp_path, fake_llm, retry_degraded=True)
    predicted = predict([bank], again)
    assert "degraded document" in predicted.repositories[0].why
    assert predicted.calls >= 1


def test_summaries_only_needs_no_vectors_and_extractive_texts_no_calls(bank, tmp_path, fake_llm):
    summaries = predict([bank], make_settings(tmp_path, fake_llm, stage="summaries"))
    assert (summaries.vectors, summaries.repositories[0].why) == (0, "summaries only")
    assert summaries.calls > 0
    extractive = predict([bank], make_settings(tmp_path, fake_llm, llm={"provider": "extractive"}))
    assert (extractive.calls, extractive.tokens_in) == (0, 0)
    assert extractive.vectors > 0


class TestCommand:
    @pytest.fixture
    def plan(self, bank, settings, fake_llm, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def run(*args, code=0):
            done = CliRunner().invoke(
                app,
                [
                    *("plan", "--repo", f"bank={bank.source}", "--index-root", settings.index_root),
                    *("--llm-provider", "openai", "--llm-model", "fake", "--llm-base-url", fake_llm.base_url),
                    *("--embedding_model", "hashing", "--log-dir", str(tmp_path / "logs"), *args),
                ],
            )
            assert done.exit_code == code, done.output
            return done.stdout

        return run

    def test_it_says_what_will_be_built_why_and_what_that_costs(self, plan, settings, fake_llm):
        told = plan()
        assert "bank" in told
        assert "1 to build, 0 up to date" in told
        assert "LLM server busy" in told
        assert "assumed" in told
        assert fake_llm.calls == 0

    def test_it_writes_nothing_but_the_prediction(self, plan, tmp_path):
        plan()
        written = {str(each.relative_to(tmp_path / "index")) for each in (tmp_path / "index").rglob("*")}
        assert written == {".gitignore", ".summidx", ".summidx/prediction.json"}

    def test_as_json_it_is_one_object(self, plan):
        predicted = json.loads(plan("--json"))
        assert predicted["calls"] == sum(each["calls"] for each in predicted["repositories"]) > 0
        assert 0 <= predicted["llm_busy"] <= 1
        assert predicted["last_prediction"] is None

    def test_a_build_that_would_stop_is_announced(self, bank, plan, settings, tmp_path):
        build([bank], settings.model_copy(update={"levels": settings.levels[2:]}))
        assert "It would stop: 1 of 1 existing indexes would be rebuilt" in plan()

    def test_a_repository_that_cannot_be_read_is_named_with_the_reason(self, plan, tmp_path):
        predicted = json.loads(plan("--json", "--repo", f"gone={tmp_path / 'gone'}"))
        (gone,) = [each for each in predicted["repositories"] if each["name"] == "gone"]
        assert "does not exist" in gone["problem"]
        assert predicted["calls"] > 0
