"""What a PromQL expression reads, by a parser of the language."""

from dataclasses import dataclass

import promql_parser
from promql_parser import AggregateExpr, BinaryExpr, Expr, VectorSelector

# As Grafana fills them in; `$model` stands in a regular expression of its own and may stay.
_GRAFANA = {"$__rate_interval": "1m", "$__range": "1h"}


@dataclass(frozen=True, slots=True)
class Reads:
    """metrics: by name, with the labels asked of each. labels: that are grouped by or matched on."""

    metrics: dict[str, set[str]]
    labels: set[str]


def reads(expr: str) -> Reads:
    """Raises ValueError where it is no PromQL."""
    found = Reads({}, set())

    def visit(node: Expr) -> None:
        if isinstance(node, VectorSelector):
            if node.name is None:
                raise ValueError(f"a selector without a name in {expr}")
            found.metrics.setdefault(node.name, set()).update(matcher.name for matcher in node.matchers.matchers)
        elif isinstance(node, AggregateExpr) and node.modifier is not None:
            found.labels.update(node.modifier.labels)
        elif isinstance(node, BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            found.labels.update(node.modifier.matching.labels)

    promql_parser.walk(promql_parser.parse(filled(expr)), visit)
    return found


def filled(expr: str) -> str:
    for variable, value in _GRAFANA.items():
        expr = expr.replace(variable, value)
    return expr
