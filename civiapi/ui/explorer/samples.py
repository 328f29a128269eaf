"""One APIv3 call as REST, JSON-RPC, curl, Python and PHP, quoted by the rules of each. Pure.

Secrets are replaced by placeholders: the caller's credentials, and every parameter that by name or format is a key.
The samples run once the placeholders are filled in (the tests run them).
"""

import json
import pprint
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

YOUR_KEY = "YOUR_API_KEY"
SECRET_NAMES = re.compile(r"(?i)(api_?key|site_?key|secret|password|token)$|^key$")
MAILCHIMP_KEY = re.compile(r"\b[0-9a-f]{32}-[a-z]{2,4}\d+\b")
YOUR_MAILCHIMP_KEY = "YOUR_MAILCHIMP_KEY"
YOUR_SITE_KEY = "YOUR_SITE_KEY"
# With the site key, users without the permission "authenticate with api key" can log in too.
CREDENTIALS = {"X-Civi-Auth": f"Bearer {YOUR_KEY}", "X-Civi-Key": YOUR_SITE_KEY}
HEADER_LINES = tuple(f"{name}: {value}" for name, value in CREDENTIALS.items())
AUTH = "\n".join(HEADER_LINES)


@dataclass(frozen=True, slots=True)
class Sample:
    """A call in one language."""

    name: str
    title: str
    text: str


def samples(base_url: str, entity: str, action: str, params: Mapping[str, Any]) -> tuple[Sample, ...]:
    """The call in every language. *base_url* has no path (``https://crm.example.org``)."""
    safe = without_secrets(params)
    return (
        Sample("rest", "REST", rest(base_url, entity, action, safe)),
        Sample("jsonrpc", "JSON-RPC", jsonrpc(base_url, entity, action, safe)),
        Sample("curl", "curl", curl(base_url, entity, action, safe)),
        Sample("python", "Python", python(base_url, entity, action, safe)),
        Sample("php", "PHP", php(base_url, entity, action, safe)),
    )


def without_secrets(value: Any, name: str = "") -> Any:
    """The value with placeholders for secrets, found by their name or by the format of Mailchimp's keys."""
    if isinstance(value, Mapping):
        return {MAILCHIMP_KEY.sub(YOUR_MAILCHIMP_KEY, str(k)): without_secrets(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner, name) for inner in value]
    if SECRET_NAMES.search(name) and value not in ("", None):
        return f"THE_{name.upper()}"
    return _text_without_secrets(value) if isinstance(value, str) else value


def _text_without_secrets(text: str) -> str:
    """The same for a text, which may be JSON itself (the sync's configuration is)."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.dumps(without_secrets(json.loads(text)), ensure_ascii=False)
        except (ValueError, RecursionError):
            pass  # it only began like JSON
    return MAILCHIMP_KEY.sub(YOUR_MAILCHIMP_KEY, text)


def rest(base_url: str, entity: str, action: str, params: Mapping[str, Any]) -> str:
    """The HTTP request: GET for actions named ``get…``, POST for others."""
    where = urlsplit(base_url)
    form = _form(entity, action, params)
    if action.startswith("get"):
        head, tail = f"GET /civicrm/ajax/rest?{form} HTTP/1.1", ""
    else:
        head, tail = "POST /civicrm/ajax/rest HTTP/1.1", f"\nContent-Type: application/x-www-form-urlencoded\n\n{form}"
    return f"{head}\nHost: {where.netloc}\n{AUTH}{tail}"


def jsonrpc(base_url: str, entity: str, action: str, params: Mapping[str, Any]) -> str:
    """The HTTP request, with ``Entity.action`` as the method."""
    call = {"jsonrpc": "2.0", "method": f"{entity}.{action}", "params": dict(params), "id": 1}
    body = json.dumps(call, indent=2, ensure_ascii=False)
    host = urlsplit(base_url).netloc
    return f"POST /civicrm/jsonrpc HTTP/1.1\nHost: {host}\n{AUTH}\nContent-Type: application/json\n\n{body}"


def curl(base_url: str, entity: str, action: str, params: Mapping[str, Any]) -> str:
    """A command for a POSIX shell."""
    parts = [
        f"curl {shlex.quote(base_url + '/civicrm/ajax/rest')}",
        *(f"--header {shlex.quote(line)}" for line in HEADER_LINES),
        f"--data-urlencode {shlex.quote(f'entity={entity}')}",
        f"--data-urlencode {shlex.quote(f'action={action}')}",
        f"--data-urlencode {shlex.quote('json=' + json.dumps(dict(params), ensure_ascii=False))}",
    ]
    return " \\\n  ".join(parts)


def python(base_url: str, entity: str, action: str, params: Mapping[str, Any]) -> str:
    """A script that needs httpx."""
    return f"""import json

import httpx

params = {pprint.pformat(dict(params), sort_dicts=False)}
response = httpx.post(
    {base_url + "/civicrm/ajax/rest"!r},
    headers={CREDENTIALS!r},
    data={{"entity": {entity!r}, "action": {action!r}, "json": json.dumps(params)}},
)
print(response.json())
"""


def php(base_url: str, entity: str, action: str, params: Mapping[str, Any]) -> str:
    """A script for PHP with its curl extension."""
    return f"""<?php
$params = {php_literal(dict(params))};
$request = curl_init({php_text(base_url + "/civicrm/ajax/rest")});
curl_setopt_array($request, [
  CURLOPT_RETURNTRANSFER => TRUE,
  CURLOPT_HTTPHEADER => [{", ".join(php_text(line) for line in HEADER_LINES)}],
  CURLOPT_POSTFIELDS => http_build_query([
    'entity' => {php_text(entity)},
    'action' => {php_text(action)},
    'json' => json_encode($params),
  ]),
]);
$answer = json_decode(curl_exec($request), TRUE);
print_r($answer);
"""


def php_text(text: str) -> str:
    """A single-quoted PHP string, in which only backslash and quote are special."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def php_literal(value: Any, indent: int = 0) -> str:
    """A JSON value as PHP code. An empty map becomes an object: an empty PHP array would become a JSON list."""
    if isinstance(value, bool) or value is None:
        return {True: "TRUE", False: "FALSE", None: "NULL"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        if not value:
            return "new stdClass()"
        if all(str(key) == str(place) for place, key in enumerate(value)):  # PHP would encode it as a list
            return f"(object) {_php_array([(php_text(str(k)), v) for k, v in value.items()], indent)}"
        return _php_array([(php_text(str(key)), inner) for key, inner in value.items()], indent)
    if isinstance(value, list):
        return _php_array([("", inner) for inner in value], indent)
    return php_text(str(value))


def _php_array(items: list[tuple[str, Any]], indent: int) -> str:
    if not items:
        return "[]"
    inner, outer = "  " * (indent + 1), "  " * indent
    lines = [f"{inner}{f'{key} => ' if key else ''}{php_literal(value, indent + 1)},\n" for key, value in items]
    return f"[\n{''.join(lines)}{outer}]"


def _form(entity: str, action: str, params: Mapping[str, Any]) -> str:
    return urlencode({"entity": entity, "action": action, "json": json.dumps(dict(params), ensure_ascii=False)})
