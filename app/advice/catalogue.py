"""All warnings, as the documentation shows them."""

from app.advice.rules import RULES


def catalogue() -> str:
    """Give a Markdown table: code, fields, when."""
    params: dict[tuple[str, str], list[str]] = {}
    for rule in RULES:
        params.setdefault((rule.code, rule.when), []).append(f"`{rule.param}`")
    rows = [f"| `{code}` | {', '.join(names)} | {when} |" for (code, when), names in params.items()]
    return "\n".join(["| code | about | when |", "|---|---|---|", *rows])
