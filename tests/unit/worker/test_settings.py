from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.errors import SettingsError
from worker.settings import (
    CallerSettings,
    Destination,
    Settings,
    StudySettings,
    example_toml,
    load_settings,
)
from worker.settings_tree import leaves, rows_of, sections, variable

Write = Callable[[str], Path]

DESIGN = """
data_dir = "fundus-data"
database_url = ""
broker_url = ""
bundle = "reference"
engine = "auto"
identity_key_file = ""

[listener]
ae_title = "FUNDUS"
host = "127.0.0.1"
port = 11112
allowed_callers = []

[study]
close_on = "quiet"
quiet_s = 120
max_open_s = 1800
report_deadline_s = 3600

[camera]
without_adapter = "withhold"
unknown = "withhold"
wide_field = "withhold"
opt_in = []

[batching]
max_batch = 8
max_wait_ms = 20

[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 11113
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "fundus.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(
    path: Path | None = None, environ: dict[str, str] | None = None, **overrides: Any
) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, overrides, environ or {})
    for problem in caught.value.problems:
        assert problem in str(caught.value)
    return caught.value.problems


def problem(path: Path | None = None, environ: dict[str, str] | None = None, **overrides: Any) -> str:
    (only,) = problems(path, environ, **overrides)
    return only.removeprefix(f"{path}: ")


def test_the_documented_file_is_the_default(write: Write) -> None:
    path = write(DESIGN)
    loaded = load_settings(path, environ={})
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=11113)
    assert loaded.destinations == (pacs,)
    assert pacs.required
    assert loaded == Settings(data_dir=path.parent / "fundus-data", destination=(pacs,))


def test_without_a_file_everything_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_settings(environ={})
    assert loaded.data_dir == tmp_path / "fundus-data"
    assert loaded.destinations == ()
    assert loaded.resolved_database_url == f"sqlite:///{tmp_path}/fundus-data/fundus.db"
    assert loaded.resolved_identity_key_file == tmp_path / "fundus-data" / "identity.key"
    assert loaded.spool_dir == tmp_path / "fundus-data" / "spool"
    assert loaded.resolved_analyse_concurrency == 16
    assert not loaded.distributed


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNDUS_LOG__LEVEL", "debug")
    assert load_settings().log.level == "debug"


def test_file_then_environment_then_command_line(write: Write) -> None:
    path = write('[listener]\nport = 1\nhost = "localhost"\nae_title = "FILE"\n')
    environ = {"FUNDUS_LISTENER__PORT": "2", "FUNDUS_LISTENER__AE_TITLE": "ENV"}
    loaded = load_settings(path, {"listener": {"port": 3}}, environ)
    assert (loaded.listener.host, loaded.listener.ae_title, loaded.listener.port) == ("localhost", "ENV", 3)


def test_every_kind_of_value_can_come_from_the_environment(tmp_path: Path) -> None:
    loaded = load_settings(
        environ={
            "FUNDUS_DATA_DIR": str(tmp_path),
            "FUNDUS_STUDY__QUIET_S": "0.5",
            "FUNDUS_STUDY__EXPECTED_IMAGES": "4",
            "FUNDUS_STUDY__CLOSE_ON": "count",
            "FUNDUS_LISTENER__ALLOWED_CALLERS": "CAM1, CAM2",
            "FUNDUS_CAMERA__OPT_IN": '["kowa-vx-10"]',
            "FUNDUS_DESTINATION": '[{"name":"a","ae_title":"A","host":"h","port":104,"timeout_s":5}]',
            "FUNDUS_CONFIG": "passed over: the command line reads it",
            "PATH": "not ours",
        }
    )
    assert loaded.data_dir == tmp_path
    assert (loaded.study.quiet_s, loaded.study.expected_images, loaded.study.close_on) == (0.5, 4, "count")
    assert loaded.listener.allowed_callers == ("CAM1", "CAM2")
    assert loaded.camera.opt_in == ("kowa-vx-10",)
    assert loaded.timeout_s(loaded.destinations[0]) == 5


def test_a_destination_without_a_timeout_has_the_common_one() -> None:
    destination = {"name": "a", "ae_title": "A", "host": "h", "port": 104}
    loaded = load_settings(None, {"destination": [destination], "delivery": {"timeout_s": 7}}, {})
    assert loaded.timeout_s(loaded.destinations[0]) == 7


def test_relative_paths_belong_to_who_wrote_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = write(
        'data_dir = "d"\nbundle = "b/mine"\nidentity_key_file = "k"\n[camera]\nrules_file = "/r.yaml"\n'
    )
    loaded = load_settings(path, {"camera": {"rules_file": Path("mine.yaml")}}, {"FUNDUS_DATA_DIR": "e"})
    assert loaded.data_dir == here / "e"
    assert loaded.bundle == str(tmp_path / "b/mine")
    assert loaded.identity_key_file == tmp_path / "k"
    assert loaded.resolved_identity_key_file == tmp_path / "k"
    assert loaded.camera.rules_file == here / "mine.yaml"
    assert load_settings(path, environ={}).camera.rules_file == Path("/r.yaml")


def test_settings_cannot_be_changed() -> None:
    loaded = load_settings(environ={})
    with pytest.raises(ValidationError, match="frozen"):
        loaded.listener.port = 5


def test_urls_with_passwords_are_not_shown(tmp_path: Path) -> None:
    loaded = load_settings(
        None,
        {
            "database_url": "postgresql+psycopg://u:geheim@h/d",
            "broker_url": "redis://:geheim@h/0",
            "identity_key_file": str(tmp_path / "key"),
        },
        {},
    )
    assert loaded.distributed
    assert loaded.resolved_database_url == "postgresql+psycopg://u:geheim@h/d"
    assert "geheim" not in repr(loaded)


NUMBER = "expected a whole number"
TEXT = "expected a text in quotes"
PACS = "[[destination]]\nname='a'\nae_title='A'\nhost='h'"
FIRST = "[[destination]] number 1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data_dri = 1", "data_dri is not a setting; did you mean data_dir?"),
        ("port = 1", "port is not a setting; did you mean [listener] port?"),
        ("[listener]\nprot = 1", "[listener] prot is not a setting; did you mean port?"),
        ("[listen]\nport = 1", "listen is not a setting; did you mean listener?"),
        ("[log]\nzzz = 1", "[log] zzz is not a setting; known here: format, level"),
        ('[listener]\nport = "1"', f"[listener] port is a text; {NUMBER}; write it without quotes"),
        ("[listener]\nport = true", f"[listener] port is true or false; {NUMBER}"),
        ("[listener]\nport = 1.5", f"[listener] port is a number; {NUMBER}"),
        ("[listener]\nport = 2000-01-01", f"[listener] port is a text; {NUMBER}; write it without quotes"),
        ("[listener]\nhost = 1", f"[listener] host is a whole number; {TEXT}"),
        ("[listener]\nhost = ''", "[listener] host should have at least 1 character"),
        ("[camera]\nopt_in = 'A'", "[camera] opt_in is a text; expected a list; put it in brackets"),
        ("[camera]\nopt_in = [1]", f"[camera] opt_in, item 1 is a whole number; {TEXT}"),
        ("[study]\nexpected_images = 0", "[study] expected_images should be greater than or equal to 1"),
        ("listener = 1", "listener is a whole number; expected a table"),
        ("data_dir = 1", f"data_dir is a whole number; {TEXT}"),
        ("[study]\nquiet_s = -1", "[study] quiet_s should be greater than or equal to 0"),
        ("[study]\nmax_open_s = inf", "[study] max_open_s should be a finite number"),
        ("[study]\nclose_on = 'x'", "[study] close_on is 'x'; expected 'quiet', 'association' or 'count'"),
        ("engine = 'cuda'", "engine is 'cuda'; expected 'auto', 'onnx' or 'tensorrt'"),
        ("destination = [1]", "destination, item 1, is a whole number; expected a table"),
        (f"{PACS}\nport=1\ntimeout=3", f"{FIRST}: timeout is not a setting; did you mean timeout_s?"),
        (PACS, f"{FIRST}: port is missing; add it"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_remedy(write: Write, text: str, said: str) -> None:
    assert problem(write(text)) == said


def test_a_mistake_in_the_environment_names_the_variable(write: Write) -> None:
    path = write('[listener]\nport = "x"\n')
    environ = {
        "FUNDUS_LISTENER_PORT": "1",
        "FUNDUS_QWERTZ": "1",
        "FUNDUS_BATCHING__MAX_BATCH": "many",
        "FUNDUS_BATCHING__MAX_WAIT_MS": "-3",
        "FUNDUS_DESTINATION": "pacs",
        "FUNDUS_CAMERA__OPT_IN": "[",
        "FUNDUS_STUDY__EXPECTED_IMAGES": "x",
    }
    assert set(problems(path, environ)) == {
        "FUNDUS_LISTENER_PORT is not a setting; did you mean FUNDUS_LISTENER__PORT?",
        "FUNDUS_QWERTZ is not a setting; see `fundus-worker check --example` for all of them",
        "FUNDUS_BATCHING__MAX_BATCH cannot be read as a whole number",
        "FUNDUS_BATCHING__MAX_WAIT_MS: [batching] max_wait_ms should be greater than or equal to 0",
        "FUNDUS_DESTINATION cannot be read as a JSON list of tables",
        "FUNDUS_CAMERA__OPT_IN cannot be read as a list of texts",
        "FUNDUS_STUDY__EXPECTED_IMAGES cannot be read as a whole number",
        f"{path}: [listener] port is a text; expected a whole number; write it without quotes",
    }


def test_a_mistake_in_a_list_from_the_environment_names_the_variable() -> None:
    said = problem(None, {"FUNDUS_DESTINATION": '[{"name":"a","ae_title":"A","host":"h"}]'})
    assert said == "FUNDUS_DESTINATION: [[destination]] number 1: port is missing; add it"


def test_an_unreadable_variable_alone_is_a_mistake() -> None:
    assert (
        problem(None, {"FUNDUS_ENGINE_THREADS": "all"})
        == "FUNDUS_ENGINE_THREADS cannot be read as a whole number"
    )


def test_a_mistake_on_the_command_line_is_said_to_be_there() -> None:
    assert problem(None, None, engine="cuda").startswith("the command line: engine is 'cuda'")


def test_variables_that_kubernetes_makes_for_a_service_are_passed_over() -> None:
    made = {
        "FUNDUS_SERVICE_HOST": "10.0.0.1",
        "FUNDUS_SERVICE_PORT_DICOM": "11112",
        "FUNDUS_PORT": "tcp://10.0.0.1:11112",
        "FUNDUS_LISTENER_PORT_11112_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(environ=made) == load_settings(environ={})


def test_a_file_that_is_not_there_or_is_no_toml(tmp_path: Path, write: Write) -> None:
    missing = tmp_path / "missing.toml"
    assert problem(missing) == "there is no such file"
    assert problem(tmp_path) == "cannot be read (IsADirectoryError)"
    path = write("[listener\n")
    assert problem(path).startswith("is not valid TOML: ")
    path.write_bytes(b"\xff\xfe")
    assert problem(path) == "cannot be read (UnicodeDecodeError)"


@pytest.mark.parametrize("title", ["", "SEVENTEEN_LETTERS", "A\\B", " A", "A ", "Ä", "A\nB"])
def test_what_is_no_ae_title_is_refused(title: str) -> None:
    said = "is no AE title: 1 to 16 printable ASCII characters, no backslash, no outer spaces (PS3.5 6.2)"
    assert (
        problem(None, None, listener={"ae_title": title}) == f"the command line: [listener] ae_title {said}"
    )
    assert problem(None, None, listener={"allowed_callers": [title]}).endswith(said)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_needs_no_list_of_callers(host: str) -> None:
    assert load_settings(None, {"listener": {"host": host}}, {}).listener.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "worker.example"])  # noqa: S104  (refused)
def test_a_network_address_needs_a_list_of_callers_or_everybody_said_out_loud(host: str) -> None:
    assert "allowed_callers is empty" in problem(None, None, listener={"host": host})
    for callers in (["CAM"], ["*"]):
        loaded = load_settings(None, {"listener": {"host": host, "allowed_callers": callers}}, {})
        assert loaded.listener.allowed_callers == tuple(callers)


def test_everybody_and_names_contradict_each_other() -> None:
    assert 'has "*" beside names' in problem(None, None, listener={"allowed_callers": ["*", "CAM"]})


def test_destinations_have_names_of_their_own() -> None:
    row = {"name": "a", "ae_title": "A", "host": "h", "port": 1}
    assert "'a' is there more than once" in problem(None, None, destination=[row, row])


@pytest.mark.parametrize("shared", [{"broker_url": "redis://h/0"}, {"database_url": "postgresql://h/d"}])
def test_several_machines_need_the_same_key(shared: dict[str, str], tmp_path: Path) -> None:
    assert problem(None, None, **shared).startswith("identity_key_file is not set")
    assert load_settings(None, {**shared, "identity_key_file": str(tmp_path / "k")}, {}).distributed


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"database_url": "mysql://h/d", "identity_key_file": "/k"}, "neither SQLite nor PostgreSQL"),
        ({"database_url": "sqlite:///relative.db"}, "needs an absolute path"),
        ({"database_url": "sqlite://"}, "needs an absolute path"),
        ({"broker_url": "redis", "identity_key_file": "/k"}, "broker_url is no URL"),
        ({"jobs": {"retry_base_s": 5, "retry_max_s": 4}}, "[jobs] retry_max_s is below retry_base_s"),
        ({"delivery": {"retry_base_s": 5, "retry_max_s": 4}}, "[delivery] retry_max_s is below retry_base_s"),
        ({"batching": {"max_batch": 9, "capacity": 8}}, "[batching] capacity is below max_batch"),
    ],
)
def test_values_that_do_not_go_together(overrides: dict[str, Any], said: str) -> None:
    assert said in problem(None, None, **overrides)


def test_all_contradictions_are_said_at_once() -> None:
    assert len(problems(None, None, listener={"host": "::"}, broker_url="redis")) == 3


def test_sqlite_may_be_elsewhere_by_an_absolute_path(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    assert load_settings(None, {"database_url": url}, {}).resolved_database_url == url


def test_the_example_shows_every_setting_and_sets_none(write: Write) -> None:
    text = example_toml()
    assert load_settings(write(text), environ={}) == load_settings(
        None, {"data_dir": str(write(text).parent / "fundus-data")}, {}
    )
    for path, info in leaves(Settings):
        rows = rows_of(info)
        for key in sections(rows) if rows else [path[-1]]:
            assert f"\n# {key} = " in f"\n{text}"


def test_the_example_uncommented_is_legal_and_changes_nothing_but_what_has_no_default(write: Write) -> None:
    uncommented = re.sub(r"^# (\w+ = |\[\[)", r"\1", example_toml(), flags=re.MULTILINE)
    path = write(uncommented)
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=11113, timeout_s=30)
    camera = CallerSettings(
        ae_title="CAMERA1", maximum_associations=8, requests_per_minute=600, maximum_object_mb=200
    )
    assert load_settings(path, environ={}) == Settings(
        data_dir=path.parent / "fundus-data",
        study=StudySettings(expected_images=2),
        caller=(camera,),
        destination=(pacs,),
    )


def test_every_setting_is_explained() -> None:
    for path, info in leaves(Settings):
        assert info.description, path
        rows = rows_of(info)
        for name, cell in sections(rows).items() if rows else ():
            assert cell.description, name


def test_variables_have_names_of_their_own() -> None:
    names = [variable(path) for path, _ in leaves(Settings)]
    assert len(names) == len(set(names))
    assert "FUNDUS_LISTENER__PORT" in names


def whatever_is_wrong(overrides: Any, environ: dict[str, str]) -> tuple[str, ...]:
    try:
        load_settings(None, overrides, environ)
    except SettingsError as error:
        return error.problems
    return ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from([path for path, _ in leaves(Settings)] + [("listener",), ("nonsense",)]), json_values)
def test_any_value_anywhere_is_taken_or_named(path: tuple[str, ...], value: Any) -> None:
    overrides: Any = value
    for name in reversed(path):
        overrides = {name: overrides}
    assert all(path[-1] in each for each in whatever_is_wrong(overrides, {}))


@given(
    st.dictionaries(
        st.text("ABCDEFPORT_", max_size=12).map("FUNDUS_".__add__), st.text(max_size=6), max_size=3
    )
)
def test_any_environment_is_taken_or_named(environ: dict[str, str]) -> None:
    for each in whatever_is_wrong({}, environ):
        assert any(name in each for name in environ)
