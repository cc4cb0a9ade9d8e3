"""Finding flows: targets, their modules, files and scripts, and clear words where there is nothing."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pgflow_mp import ConfigError, Flow, FlowDefinitionError, FlowNotFound
from pgflow_mp.loading.finding import Target, bundled_examples, load_app, load_flows, resolve_app, target_for
from pgflow_mp.testing import run_inline

FLOW = """
from __future__ import annotations
from dataclasses import dataclass
from pgflow_mp import Flow

flow = Flow("{slug}")

@flow.map
def count(line: Line) -> int:
    return len(line.text)

@dataclass
class Line:
    text: str
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; sys.path and sys.modules are as before afterwards."""
    modules, path = set(sys.modules), list(sys.path)
    main = sys.modules["__main__"]
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path
    sys.modules["__main__"] = main


def write(path: str, text: str = "") -> Path:
    file = Path(path).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text or FLOW.format(slug=f"slug_of_{file.stem.replace('-', '_')}"))
    return file


def slugs(target: str) -> list[str]:
    return [flow.slug for flow in load_flows(target)]


def not_found(target: str) -> FlowNotFound:
    with pytest.raises(FlowNotFound) as caught:
        load_flows(target)
    return caught.value


# Targets


def test_a_target_is_a_module_or_a_file_with_a_flow_perhaps(place: Path) -> None:
    assert (Target.parse("app.flows").module, Target.parse("app.flows").flow) == ("app.flows", None)
    assert (Target.parse("flows:a").module, Target.parse("flows:a").flow) == ("flows", "a")
    assert Target.parse("jobs/a.py:b") == Target(file=str(place / "jobs/a.py"), flow="b")
    assert Target.parse("a.py", cwd="/srv").file == "/srv/a.py"


@pytest.mark.parametrize(
    "text", ["flows:a", "app.flows", "a.py:b", "x/a.py", "__main__:a", "pgflow_mp.examples.x"]
)
def test_the_text_of_a_target_means_the_same_elsewhere(text: str) -> None:
    target = Target.parse(text)
    again = Target.parse(str(target), cwd="/")
    assert (again.module, again.file, again.flow) == (target.module, target.file, target.flow)


@pytest.mark.parametrize("text", ["", ":flow", "a b", "a-b", "a..b"])
def test_what_is_no_target_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(FlowNotFound) as caught:
        Target.parse(text)
    assert "path.py:flow" in caught.value.hint


# Modules and files


def test_a_module_of_the_working_directory_is_loaded(place: Path) -> None:
    write("lines_module.py")
    assert slugs("lines_module") == ["slug_of_lines_module"]
    assert (
        slugs("lines_module:flow") == slugs("lines_module:slug_of_lines_module") == ["slug_of_lines_module"]
    )


def test_a_link_to_a_script_finds_what_is_beside_the_script_as_python_does(place: Path) -> None:
    write("tools/beside_the_script.py", "SLUG = 'linked'\n")
    write("tools/script.py", "from pgflow_mp import Flow\nfrom beside_the_script import SLUG\n"
          "flow = Flow(SLUG)\n@flow.map\ndef count(line: str) -> int:\n    return len(line)\n")  # fmt: skip
    (place / "bin").mkdir()
    (place / "bin" / "linked_script.py").symlink_to(place / "tools" / "script.py")
    assert slugs("bin/linked_script.py") == ["linked"]


def test_a_working_directory_that_is_gone_is_told_where_plain_python_needs_none(place: Path) -> None:
    script = write("gone.py", FLOW.format(slug="gone") + "if __name__ == '__main__':\n"
                   "    from pgflow_mp import run\n    run(flow, [])\n")  # fmt: skip
    (place / "deleted").mkdir()
    shell = 'cd deleted && rmdir "$PWD" && exec "$@"'
    for words in ([str(script)], ["-m", "pgflow_mp", "run", str(script), "--input", "[]"]):
        command = ["sh", "-c", shell, "sh", sys.executable, *words]
        (place / "deleted").mkdir(exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "The working directory has been deleted" in done.stderr
        assert "starting run" not in done.stderr
        assert done.returncode == (1 if len(words) == 1 else 2)


def test_files_hide_neither_modules_of_python_nor_packages_that_we_need(place: Path) -> None:
    for name in ("psutil", "rich"):  # what is not imported yet is imported from where it is installed
        write(f"{name}.py")
    assert slugs("rich.py") == ["slug_of_rich"]
    program = "from pgflow_mp import paths; paths.extend([%r]); import rich, psutil; print(rich.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program % str(place)], capture_output=True, text=True, check=True
    )
    assert "__init__" in done.stdout


def test_a_file_becomes_the_module_that_its_neighbours_would_import(place: Path) -> None:
    write("jobs/helper_for_lines.py", "import lines_file\nflow = lines_file.flow\n")
    write("jobs/lines_file.py")
    (flow,) = load_flows("jobs/lines_file.py")
    assert load_flows("jobs/helper_for_lines.py") == [flow]
    assert flow.module == "lines_file"
    line = flow.steps["count"].handler.__globals__["Line"]("a")
    assert pickle.loads(pickle.dumps(line)) == line


def test_a_file_in_a_package_can_import_relatively(place: Path) -> None:
    write("deep/pack_of_flows/__init__.py", "\n")
    write("deep/pack_of_flows/base.py")
    write("deep/pack_of_flows/more.py", "from .base import flow\n")
    assert slugs("deep/pack_of_flows/more.py") == ["slug_of_base"]
    assert "pack_of_flows.base" in sys.modules


@pytest.mark.parametrize("name", ["json.py", "my-flows.py", "1st.py"])
def test_a_file_whose_name_is_taken_or_no_identifier_gets_a_stable_name(name: str) -> None:
    file = write(name)
    (flow,) = load_flows(name)
    assert load_flows(str(file)) == [flow]
    assert flow.module.startswith("pgflow_mp_file_")
    assert sys.modules["json"].__file__ != str(file)
    assert target_for(flow) == Target(file=str(file), flow=flow.slug)
    line = flow.steps["count"].handler.__globals__["Line"]("a")
    assert pickle.loads(pickle.dumps(line)) == line


def test_annotations_are_checked_when_a_flow_is_loaded() -> None:
    write("broken_types.py", FLOW.format(slug="x").replace("line: Line", "line: Nowhere"))
    with pytest.raises(FlowDefinitionError, match="annotation 'Nowhere', which cannot be resolved"):
        load_flows("broken_types")


def test_unknown_modules_and_files_are_told_from_broken_ones(place: Path) -> None:
    write("lines_module.py")
    write("needs_more.py", "import no_such_dependency_at_all\n")
    write("raises.py", "\ndef f():\n    return {}['key']\nf()\n")
    write("leaves.py", "raise SystemExit(3)\n")
    write("broken.py", "x = 1\ndef f(:\n")
    write("empty_module.py", "x = 1\n")
    assert str(not_found("lines_modul")) == 'There is no module "lines_modul"'
    assert "Did you mean lines_module?" in not_found("lines_modul").hint
    assert str(not_found("os.nothing")).startswith('There is no module "os.nothing"')
    assert 'needs the module "no_such_dependency_at_all"' in str(not_found("needs_more"))
    assert f"{place}/needs_more.py, line 1" in str(not_found("needs_more.py"))
    assert "failed with KeyError: 'key'" in str(not_found("raises"))
    assert f"{place}/raises.py, line 3: return {{}}['key']" in str(not_found("raises.py"))
    assert "failed with SystemExit: 3" in str(not_found("leaves"))
    assert str(not_found("broken.py")).startswith(f"{place}/broken.py:2: SyntaxError: ")
    assert not_found("broken").hint == "The line is: def f(:"
    assert str(not_found("empty_module")) == 'Module "empty_module" has no flow'
    assert not_found("line_module.py").hint == "Did you mean lines_module.py?"
    assert not_found("./lines_module").hint == f"Did you mean {place}/lines_module.py?"
    assert "no directory" in not_found("nowhere/at/all.py").hint
    assert "is a directory" in str(not_found(str(place)))


def test_an_unknown_flow_is_answered_with_those_that_exist() -> None:
    write("lines_module.py")
    error = not_found("lines_module:slug_of_line_module")
    assert str(error) == 'Module "lines_module" has no flow "slug_of_line_module"'
    assert error.hint == "Did you mean slug_of_lines_module? Flows there: slug_of_lines_module."
    assert (
        str(not_found("lines_module:count")) == '"count" in module "lines_module" is a function, not a flow'
    )


def test_a_definition_error_says_where_it_was_made(place: Path) -> None:
    write("bad_slug.py", "from pgflow_mp import Flow\nflow = Flow('a-b')\n")
    with pytest.raises(FlowDefinitionError, match=r"^Slug 'a-b' can only contain") as caught:
        load_flows("bad_slug")
    assert f"Defined at {place}/bad_slug.py, line 2: flow = Flow('a-b')" in caught.value.hint


def test_two_flows_of_one_slug_or_one_queue_are_refused() -> None:
    write("twice.py", "from pgflow_mp import Flow\na = Flow('x')\nb = Flow('x')\n")
    write("case.py", "from pgflow_mp import Flow\na = Flow('x')\nb = Flow('X')\n")
    write("one.py", FLOW.format(slug="same"))
    write("two.py", FLOW.format(slug="Same"))
    with pytest.raises(FlowDefinitionError, match='Two flows in twice have the slug "x"'):
        load_flows("twice")
    with pytest.raises(FlowDefinitionError, match='Flows "x" and "X" in case differ only in case'):
        load_flows("case")
    with pytest.raises(FlowDefinitionError, match='Flows "same" and "Same" differ only in case'):
        load_app([Target.parse("one"), Target.parse("two")])
    assert [flow.slug for flow in load_app([Target.parse("one"), Target.parse("one.py")])] == ["same"]


# Flows at hand

SCRIPT = """
from pgflow_mp.loading.finding import load_flows, target_for
if __name__ == "__main__":
    target = target_for(flow)
    assert load_flows(target) == [flow]
    print(target, target.main_path)
"""


def python(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def test_a_flow_of_a_module_is_found_by_its_name() -> None:
    write("lines_module.py")
    (flow,) = load_flows("lines_module")
    assert target_for(flow) == Target(module="lines_module", flow="slug_of_lines_module")


def test_a_flow_of_a_script_is_run_again_under_another_name() -> None:
    file = write("script.py", FLOW.format(slug="of_script") + SCRIPT)
    assert python("script.py") == f"__main__:of_script {file}\n"
    (flow,) = load_flows("__main__:of_script", main_path=str(file))
    assert flow.module == "__mp_main__"
    assert load_flows("__main__", main_path=str(file)) == [flow]
    assert msgspec.convert({"text": "a"}, flow.steps["count"].handler.__globals__["Line"]).text == "a"
    with pytest.raises(FlowNotFound, match="while a worker process was importing") as caught:
        target_for(flow)
    assert "if __name__ == '__main__'" in caught.value.hint


def test_a_flow_of_a_module_run_with_m_is_found_by_its_real_name() -> None:
    write("tool/__init__.py", "\n")
    write("tool/job.py", FLOW.format(slug="of_module") + SCRIPT.replace("assert load", "load"))
    assert python("-m", "tool.job") == "tool.job:of_module None\n"


def test_flows_without_a_file_are_refused_with_advice() -> None:
    program = FLOW.format(slug="typed_in") + SCRIPT
    assert "cannot import it" in python("-", stdin=program)
    assert "cannot import it" in python("-c", program)
    hidden = [Flow("hidden")][0]
    with pytest.raises(FlowNotFound, match="is not a module-level variable"):
        target_for(hidden)


# Apps


def test_an_app_is_the_argument_then_the_project_then_the_environment_then_the_examples(place: Path) -> None:
    env = {"PGFLOW_FLOWS": "a, b.py:c"}
    write("pyproject.toml", '[tool.pgflow_mp]\nflows = ["app.flows", "jobs/x.py:y"]\n')
    (place / "sub").mkdir()

    def found(positional: str | None, cwd: Path) -> list[tuple[str, str]]:
        return [(str(target), target.source) for target in resolve_app(positional, env, cwd)]

    project = str(place / "pyproject.toml")
    assert found("m:f", place / "sub") == [("m:f", "argument")]
    assert found(None, place / "sub") == [("app.flows", project), (f"{place}/jobs/x.py:y", project)]
    assert resolve_app(None, env, place / "sub")[0].sys_path == [str(place)]
    write("pyproject.toml", "[project]\nname = 'x'\n")
    assert found(None, place) == [("a", "PGFLOW_FLOWS"), (f"{place}/b.py:c", "PGFLOW_FLOWS")]
    env.clear()
    assert [target.source for target in resolve_app(None, env, place)] == ["examples"] * len(
        bundled_examples()
    )
    assert all(target.bundled for target in resolve_app(None, env, place))


@pytest.mark.parametrize("text", ["[tool", "[tool.pgflow_mp]\nflows = 5", "[tool.pgflow_mp]\nflows = []"])
def test_a_malformed_project_file_is_named(text: str, place: Path) -> None:
    write("pyproject.toml", text)
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        resolve_app(None, {}, place)


@pytest.mark.skipif(not bundled_examples(), reason="the package has no examples")
def test_examples_are_found_by_name_unless_the_user_has_such_a_module() -> None:
    name = bundled_examples()[0]
    assert Target.parse(name).module == f"pgflow_mp.examples.{name}"
    write(f"{name}.py")
    assert Target.parse(name).module == name


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named() -> None:
    write("secret.py").chmod(0)
    assert "permission denied" in str(not_found("secret.py"))


def test_a_flow_without_steps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text('from pgflow_mp import Flow\n\nflow = Flow("bare")\n')
    with pytest.raises(FlowDefinitionError, match='Flow "bare" has no steps'):
        load_flows(str(tmp_path / "bare.py"))
    with pytest.raises(FlowDefinitionError, match='Flow "empty" has no steps'):
        run_inline(Flow("empty"))
