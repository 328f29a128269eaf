"""Settings: every key documented, read from file and environment, and a mistake is one sentence."""

import configparser
from dataclasses import fields, replace
from pathlib import Path

import pytest

from civiapi.cli.init import write_new_settings
from civiapi.settings import Settings, SettingsError, load_settings
from civiapi.store.address import server_address, trouble

EXAMPLE = Path(__file__).parents[2] / "settings.example.ini"


def a_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.ini"
    path.write_text(text, "utf-8")
    return path


def test_the_address_that_a_civicrm_has_of_its_database_is_taken_as_it_stands() -> None:
    address = "mysql://civi:s%40cret@localhost/civicrm?new_link=true"
    assert trouble(address) == ""
    assert server_address(address) == "mysql+asyncmy://civi:s%40cret@localhost/civicrm"


def test_the_example_names_every_key_with_its_default_and_no_other() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(EXAMPLE, "utf-8")
    documented = {name: set(parser[name]) for name in parser.sections() if not name.startswith("user:")}
    defaults = Settings()
    known = {f.name: {g.name for g in fields(getattr(defaults, f.name))} for f in fields(Settings) if f.name != "users"}
    assert documented == known
    read = load_settings(EXAMPLE, {})
    assert read.database.file == EXAMPLE.parent / "civiapi.sqlite"
    read = replace(read, database=replace(read.database, url=defaults.database.url))
    for section in known:
        assert getattr(read, section) == getattr(defaults, section), section


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = a_file(tmp_path, "[server]\nport = 1\n[user:ann]\napi_key = one\n")
    environ = {"CIVIAPI_SERVER__PORT": "2", "CIVIAPI_USER_ANN__API_KEY": "two", "PATH": "/"}
    settings = load_settings(path, environ)
    assert (settings.server.port, settings.users[0].api_key) == (2, "two")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("[server]\nport = many\n", "[server] port must be a number", id="A port is a number."),
        pytest.param("[server]\nprt = 1\n", "[server] prt is not a setting", id="A misspelt key is named."),
        pytest.param("[servr]\n", "[servr] is not a section of the settings", id="A misspelt section is named."),
        pytest.param(
            "[sync]\nrespect_privacy = perhaps\n", "[sync] respect_privacy must be yes or no", id="Yes or no."
        ),
        pytest.param(
            "[server]\nsigning_secret = short\n",
            "[server] signing_secret must have at least 32 characters",
            id="A signing secret that can be guessed.",
        ),
        pytest.param(
            f"[server]\nsite_key = {'s' * 32}\nsigning_secret = {'s' * 32}\n",
            "[server] signing_secret must not be a key that callers send",
            id="A signing secret that is the site key.",
        ),
        pytest.param(
            "[server]\nsite_key = short\n", "[server] site_key must have at least 8 characters", id="Short key."
        ),
        pytest.param("[database]\ntimezone = Mars/Olympus\n", "is not a time zone", id="A zone that is none."),
        pytest.param("[user:ann]\npermissions = *\n", "[user:ann] api_key is missing", id="A user without a key."),
        pytest.param("[user:a]\napi_key=x\n[user:b]\napi_key=x\n", "the same api_key", id="Two users with one key."),
        pytest.param("port = 1\n", "cannot be understood at line 1", id="A line outside any section."),
        pytest.param("[log]\nlevel = loud\n", "[log] level must be", id="A log level that is none."),
        pytest.param("[server]\nport = 70000\n", "[server] port must be from 0 to 65535", id="A port too high."),
        pytest.param("[server]\nmax_body = 0\n", "max_body must be at least 1", id="No room for any body."),
        pytest.param("[server]\nbase_url = crm.org\n", "[server] base_url must begin with", id="No scheme."),
        pytest.param("[server]\nbase_url = http://[::1\n", "[server] base_url must begin with", id="Half a host."),
        pytest.param("[server]\ntrusted_proxies = nginx\n", "'nginx' is not an address", id="A proxy by name."),
        pytest.param("[database]\nurl = postgres://x\n", "[database] url must begin with", id="Another database."),
        pytest.param(
            "[database]\nurl = mysql://u:p@h:x/d\n", "[database] url must be sqlite", id="A port that is none."
        ),
        pytest.param("[database]\nurl = mysql://u:p@h\n", "[database] url names no database", id="No database."),
        pytest.param("[database]\nurl = mysql://u@h/d?foo=1\n", "has the option foo", id="An option nobody takes."),
        pytest.param("[database]\nurl = sqlite:///\n", "[database] url names no file", id="No file."),
        pytest.param("[mailchimp]\nbase_url = 127.0.0.1\n", "[mailchimp] base_url must", id="Mailchimp, no scheme."),
        pytest.param("[mailchimp]\npoll_seconds = nan\n", "must not be negative or endless", id="No number at all."),
        pytest.param("[scheduler]\ntick_seconds = 0\n", "tick_seconds must be at least", id="A tick of nothing."),
        pytest.param("[sync]\nclaim_seconds = -1\n", "claim_seconds must not be negative", id="Less than nothing."),
        pytest.param("[mailchimp]\nbatch_size = 5000\n", "batch_size must be from 1 to 1000", id="A batch too large."),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(a_file(tmp_path, text), {})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        pytest.param(
            {"CIVIAPI_SERVER__PORT": "many"},
            "CIVIAPI_SERVER__PORT: [server] port must be a number",
            id="A value that cannot be read.",
        ),
        pytest.param(
            {"CIVIAPI_SERVER__PORT": "70000"},
            "CIVIAPI_SERVER__PORT: [server] port must be from 0 to 65535",
            id="A value out of range.",
        ),
        pytest.param(
            {"CIVIAPI_SERVER__PRT": "1"}, "CIVIAPI_SERVER__PRT: [server] prt is not a setting", id="A misspelt key."
        ),
        pytest.param(
            {"CIVIAPI_SERVR__PORT": "1"},
            "CIVIAPI_SERVR__PORT: [servr] is not a section of the settings",
            id="A misspelt section.",
        ),
        pytest.param(
            {"CIVIAPI_USER_ANN__PERMISSIONS": "*"},
            "CIVIAPI_USER_ANN__PERMISSIONS: [user:ann] api_key is missing",
            id="A user that only the environment has, without a key.",
        ),
        pytest.param(
            {
                "CIVIAPI_ALERTS__EMAIL_TO": "nobody",
                "CIVIAPI_ALERTS__EMAIL_FROM": "a@b",
                "CIVIAPI_ALERTS__SMTP_HOST": "h",
            },
            "CIVIAPI_ALERTS__EMAIL_TO: [alerts] email_to is not valid",
            id="An address of several.",
        ),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable_and_not_the_file(
    tmp_path: Path, environ: dict[str, str], says: str
) -> None:
    path = a_file(tmp_path, "[server]\nport = 8080\nhost = 127.0.0.1\n")
    for one in (path, None):
        with pytest.raises(SettingsError) as caught:
            load_settings(one, environ)
        assert str(caught.value) == says


def test_a_mistake_in_the_file_names_the_file_whatever_the_environment_sets(tmp_path: Path) -> None:
    path = a_file(tmp_path, "[server]\nrole = waiter\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {"CIVIAPI_SERVER__PORT": "8081"})
    assert str(caught.value) == f"{path}: [server] role must be all, web or worker"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "none.ini", {})


def test_settings_never_show_their_secrets(tmp_path: Path) -> None:
    path = a_file(
        tmp_path, "[server]\nsite_key = sssssssss\nsigning_secret = " + "t" * 32 + "\n[user:ann]\napi_key = kkkkkkkkk\n"
    )
    assert "sssssssss" not in repr(load_settings(path, {}))
    assert "ttttttttt" not in repr(load_settings(path, {}))
    assert "kkkkkkkkk" not in repr(load_settings(path, {}))


def test_a_new_settings_file_has_its_own_keys_and_is_private(tmp_path: Path) -> None:
    one, two = tmp_path / "one.ini", tmp_path / "two.ini"
    write_new_settings(one)
    write_new_settings(two)
    first, second = load_settings(one, {}), load_settings(two, {})
    assert one.stat().st_mode & 0o777 == 0o600
    keys = [
        key for one in (first, second) for key in (one.server.site_key, one.server.signing_secret, one.users[0].api_key)
    ]
    assert len(set(keys)) == 6


def test_a_settings_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = a_file(tmp_path, "[server]\n")
    with pytest.raises(SettingsError, match="already exists"):
        write_new_settings(path)
    assert path.read_text("utf-8") == "[server]\n"
