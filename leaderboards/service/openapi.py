"""The API as OpenAPI, and as a page of our own: the usual viewers load their scripts from another host."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from advgym import __version__
from advgym.leaderboards.service import pages

SIGNED = ("/api/submissions", "/api/disputes", "/api/organise")  # what asks for a token


def schema(app: FastAPI) -> dict[str, Any]:
    """OpenAPI of what lies under /api; what asks for a token says so."""
    whole = get_openapi(title="advgym leaderboards", version=__version__, routes=app.routes)
    whole["paths"] = {path: calls for path, calls in whole["paths"].items() if path.startswith("/api/")}
    asked, parts = str(whole["paths"]), whole.setdefault("components", {})
    kept = ("HTTPValidationError", "ValidationError")
    parts["schemas"] = {
        name: shape for name, shape in parts.get("schemas", {}).items() if name in kept or f"schemas/{name}'" in asked
    }
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in whole["paths"].items():
        for told in methods.values():
            if signed(path):
                told["security"] = [{"token": []}]
    return whole


def signed(path: str) -> bool:
    """Whether a path asks for a token; the events of a submission do not, whoever knows its id may follow it."""
    return path.startswith(SIGNED) and not path.endswith("/events")


def api_page(app: FastAPI) -> str:
    """Every call with its parameters and an example."""
    whole = schema(app)
    paths = []
    for path, methods in whole["paths"].items():
        told = [(method, {**call, "fields": fields(call, whole), "example": example(method, path, call)})
                for method, call in methods.items()]  # fmt: skip
        paths.append((path, told))
    return pages.render("api.html.j2", "/api", paths=paths)


def fields(call: dict[str, Any], whole: dict[str, Any]) -> list[dict[str, str]]:
    """The parameters of a call: in its path, its query, its form."""
    found = [
        {"name": p["name"], "where": p["in"], "what": _what(p.get("schema", {}), p.get("required", False))}
        for p in call.get("parameters", ())
    ]
    for content in call.get("requestBody", {}).get("content", {}).values():
        body = whole["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        needed = body.get("required", ())
        found += [
            {"name": name, "where": "form", "what": _what(p, name in needed)} for name, p in body["properties"].items()
        ]
    return found


def _what(field: dict[str, Any], needed: bool) -> str:
    file = field.get("format") == "binary" or field.get("contentMediaType") == "application/octet-stream"
    bounds = {"maxLength": "at most {} characters", "minimum": "at least {}"}
    said = [said.format(field[key]) for key, said in bounds.items() if key in field]
    kind = {"string": "text", "integer": "a whole number"}.get(field.get("type", ""), field.get("type", "any"))
    return ", ".join(["a file" if file else kind, *said, *([] if needed else ["may be left out"])])


def example(method: str, path: str, call: dict[str, Any]) -> str:
    """A call by curl."""
    words = ["curl"]
    if method != "get":
        words.append(f"-X {method.upper()}")
    if signed(path):
        words.append('-H "Authorization: Bearer $ADVGYM_TOKEN"')
    words += {
        "/api/submissions": ["-F archive=@mine.tar", "-F board=image"] if method == "post" else [],
        "/api/disputes": ["-F result=@result.json", "-F against=ENTRY"],
    }.get(path, [])
    return " ".join([*words, f"$SERVER{path.replace('{id}', 'ID').replace('{name}', 'NAME')}"])
