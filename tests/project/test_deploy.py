"""The files of deploy/: each is held against the program, and checked by the tool it is for where that is installed."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from civiapi.metrics import BY_AUDIENCE, Metrics
from civiapi.runtime.forced_exit import SECONDS
from civiapi.settings import load_settings
from civiapi.store.engine import Store
from entities import catalogue
from sync.mailchimp.transport import CallRecord
from sync.reports.health import Health
from tests.support.processes import ADMIN_KEY, free_port, serving, write_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "civiapi.service"
COMPOSE = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text("utf-8"))
CONTAINERFILE = (DEPLOY / "container" / "Containerfile").read_text("utf-8")
ENV_EXAMPLE = (DEPLOY / "container" / "env.example").read_text("utf-8")
RULES = yaml.safe_load((DEPLOY / "monitoring" / "alert-rules.yml").read_text("utf-8"))
DASHBOARD = json.loads((DEPLOY / "monitoring" / "grafana-dashboard.json").read_text("utf-8"))
START_S = 20.0


def tool(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*words: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """What a command prints; fails with that when it fails."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# ---- systemd -------------------------------------------------------------------------------------------------


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    text = UNIT.read_text("utf-8")
    here.write_text(text.replace("/opt/civiapi/bin/civiapi", str(Path(sys.executable).with_name("civiapi"))), "utf-8")
    assert run(tool("systemd-analyze"), "verify", here).strip() == ""


def test_the_unit_is_hardened() -> None:
    shown = run(tool("systemd-analyze"), "security", "--offline=yes", UNIT)
    level = re.search(r"exposure level for civiapi.service: ([\d.]+)", shown)
    assert level
    assert float(level[1]) < 2.0, shown


def test_the_unit_gives_the_program_more_time_to_stop_than_it_takes() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.read(UNIT, "utf-8")
    assert int(unit["Service"]["TimeoutStopSec"]) > SECONDS
    assert int(COMPOSE["services"]["civiapi"]["stop_grace_period"].removesuffix("s")) > SECONDS


# ---- containers ----------------------------------------------------------------------------------------------


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"(CIVIAPI_\w+)=(\S+)", CONTAINERFILE.partition("\nENV ")[2].partition("\nUSER ")[0]))


def test_the_image_s_environment_is_settings_of_the_program() -> None:
    settings = load_settings(None, {**image_environment(), "CIVIAPI_USER_ADMIN__API_KEY": "k"})
    assert settings.database.url == "sqlite:////var/lib/civiapi/civiapi.sqlite"
    assert f"EXPOSE {settings.server.port}\n" in CONTAINERFILE
    assert f"http://127.0.0.1:{settings.server.port}/healthz" in CONTAINERFILE


def test_the_composed_environment_is_settings_of_the_program() -> None:
    filled = dict.fromkeys(re.findall(r"^(\w+)=", ENV_EXAMPLE, re.M), "letters1")
    filled |= dict(re.findall(r"^(\w+)=(.+)$", ENV_EXAMPLE, re.M))

    def fill(text: str) -> str:
        return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: filled[found[1]], text)

    environ = {name: fill(value) for name, value in COMPOSE["services"]["civiapi"]["environment"].items()}
    settings = load_settings(None, image_environment() | environ)
    assert settings.database.url == "mysql://civiapi:letters1@database/civiapi"
    assert settings.database.timezone == "Europe/London"
    assert settings.server.base_url == "https://crm.example.org"
    assert list(settings.server.trusted_proxies) == [
        part["subnet"] for part in COMPOSE["networks"]["default"]["ipam"]["config"]
    ]


def test_every_variable_and_volume_of_the_compose_file_is_declared() -> None:
    text = (DEPLOY / "container" / "compose.yaml").read_text("utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) == set(re.findall(r"^(\w+)=", ENV_EXAMPLE, re.M))
    mounts = [mount.split(":")[0] for one in COMPOSE["services"].values() for mount in one.get("volumes", [])]
    for mount in mounts:
        assert mount in COMPOSE["volumes"] or (DEPLOY / "container" / mount).is_file(), mount


# ---- monitoring ----------------------------------------------------------------------------------------------


@pytest.fixture
async def labels(store: Store) -> dict[str, set[str]]:
    """Each name that /metrics shows, with its labels."""
    metrics, registry = Metrics(), catalogue()
    metrics.count_call(registry, "Contact", "get", "ok", 0.1)
    metrics.count_stage("readyToFetch", 0.1, 1)
    metrics.count_mailchimp(CallRecord("GET", "/lists", "ok", 200, 0.1))
    families = text_string_to_metric_families((await metrics.page(store, one_late)).decode())
    shown = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    return shown | {name: {"audience"} for name, _, _ in BY_AUDIENCE}


async def one_late() -> dict[str, Health]:
    return {"one": Health.LATE}


def expressions() -> list[str]:
    rules = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return rules + panels


async def test_every_metric_and_label_of_rules_and_dashboard_is_in_metrics(labels: dict[str, set[str]]) -> None:
    for text in expressions():
        names = set(re.findall(r"\bciviapi_\w+", text))
        assert names <= labels.keys(), text
        used = {label.strip() for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(",")}
        used |= set(re.findall(r"(\w+)=~?\"", text))
        known = set().union(*(labels[name] for name in names)) | {"instance", "job"}
        assert used <= known, text


async def test_the_dashboard_shows_every_gauge_and_counter(labels: dict[str, set[str]]) -> None:
    shown = set(re.findall(r"\bciviapi_\w+", json.dumps(DASHBOARD["panels"])))
    parts = re.compile(r"_(bucket|sum|count|created|total)$")
    pace = {"civiapi_stage_members_per_second"}  # of the latest run of one process; the rate is shown instead
    families = {parts.sub("", name) for name in labels} - pace
    assert families == {parts.sub("", name) for name in shown}


def test_the_dashboard_s_panels_have_their_own_places_and_describe_themselves() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]
        assert panel["description"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_accepts_the_rules_and_they_fire_when_they_should() -> None:
    promtool = tool("promtool")
    run(promtool, "check", "rules", DEPLOY / "monitoring" / "alert-rules.yml")
    run(promtool, "check", "config", "--syntax-only", DEPLOY / "monitoring" / "prometheus.yml")
    run(promtool, "test", "rules", ROOT / "tests" / "project" / "alert-rules-test.yml")


def test_prometheus_can_read_the_dashboard_s_expressions(tmp_path: Path) -> None:
    replaced = {"$instance": ".*", "$__rate_interval": "5m"}
    texts = [re.sub(r"\$\w+", lambda found: replaced[found[0]], text) for text in expressions()]
    rules: Any = [{"record": f"one:{number}", "expr": text} for number, text in enumerate(texts)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}), "utf-8")
    run(tool("promtool"), "check", "rules", tmp_path / "rules.yml")


# ---- proxies -------------------------------------------------------------------------------------------------


def nginx_command(folder: Path, port: int, upstream: int) -> list[str]:
    """nginx with the example as it is but for ports, certificate and files that only root may write."""
    nginx = tool("nginx")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    run(
        *(tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-keyout", key, "-out", certificate),
    )
    text = (DEPLOY / "proxy" / "nginx.conf").read_text("utf-8")
    text = re.sub(r"ssl_certificate .*;", f"ssl_certificate {certificate};", text)
    text = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", text)
    text = text.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
    text = text.replace("listen 443 ", f"listen 127.0.0.1:{port} ").replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    (folder / "civiapi.conf").write_text(text, "utf-8")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi"))
    more = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; {temporary} {more} include {folder}/civiapi.conf; }}\n",
        "utf-8",
    )
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    run(*command, "-t")
    return command


def caddy_command(folder: Path, port: int, _upstream: int) -> list[str]:
    """Caddy with the example as it is, and options of its own for a test: it installs no certificate authority."""
    caddy = tool("caddy")
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
    path = folder / "Caddyfile"
    path.write_text(options + (DEPLOY / "proxy" / "Caddyfile").read_text("utf-8"), "utf-8")
    words = ["--config", str(path), "--adapter", "caddyfile"]
    run(caddy, "validate", *words, cwd=folder, HOME=str(folder), DOMAIN=f"localhost:{port}")
    return [caddy, "run", *words]


@contextmanager
def running(command: list[str], folder: Path, **env: str) -> Iterator[None]:
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "HOME": str(folder), **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            yield
        finally:
            child.terminate()
            child.wait(10)


@pytest.mark.parametrize("make_command", [nginx_command, caddy_command], ids=["nginx", "Caddy"])
def test_a_person_logs_in_through_the_proxy_and_metrics_stay_inside(tmp_path: Path, make_command: Any) -> None:
    port, upstream = free_port(), free_port()
    command = make_command(tmp_path, port, upstream)
    config = write_settings(tmp_path, port=upstream)
    config.write_text(config.read_text("utf-8").replace("[server]\n", "[server]\ntrusted_proxies = 127.0.0.1\n"))
    env = {"DOMAIN": f"localhost:{port}", "UPSTREAM": f"127.0.0.1:{upstream}"}
    with (
        serving(config, upstream),
        running(command, tmp_path, **env),
        httpx.Client(base_url=f"https://localhost:{port}", verify=False) as client,
    ):
        wait_until_it_answers(client)
        assert client.get("/metrics").status_code == 404
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', client.get("/civicrm/login").text))
        entered = client.post("/civicrm/login", data={**hidden, "user": "admin", "user_key": ADMIN_KEY})
        assert entered.status_code == 303, entered.text
        assert "Secure" in entered.headers["Set-Cookie"]  # the server knows that the connection is encrypted
        assert client.post("/civicrm/ajax/rest", content=b"x" * 5_000_000).status_code == 413


def wait_until_it_answers(client: httpx.Client) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            if client.get("/healthz").text == "ok\n":
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, "the proxy does not answer"
        time.sleep(0.1)
