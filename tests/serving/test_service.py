"""What the service answers, asked as an ASGI server asks it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re

import pytest
from service_process import MARKUP, table_bundle

from recbole_alkd.serving import Recommender

msgspec = pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from recbole_alkd.serving.card import verdict_words  # noqa: E402
from recbole_alkd.serving.service.app import Served, Service  # noqa: E402
from recbole_alkd.serving.service.limits import Limits  # noqa: E402
from recbole_alkd.serving.service.measures import Measures  # noqa: E402
from recbole_alkd.settings.error import AlkdError  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return table_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def service(bundle):
    return Service(Served.load(bundle))


def raw(service, method, target, body=b"", pieces=None, headers=()):
    """Status, headers and content of one request, whose body comes in ``pieces``."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": list(headers),
    }
    parts = [body] if pieces is None else pieces
    messages = [
        {"type": "http.request", "body": part, "more_body": k < len(parts) - 1}
        for k, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(service(scope, receive, send))
    if not sent:
        return None
    head, content = sent
    assert dict(head["headers"])[b"content-length"] == str(len(content["body"])).encode()
    return head["status"], dict(head["headers"]), content["body"]


def ask(service, path, body=None):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, headers, content_back = raw(
        service, "GET" if body is None else "POST", path, b"" if body is None else content
    )
    assert headers[b"x-content-type-options"] == b"nosniff"
    return status, json.loads(content_back) if headers[
        b"content-type"
    ] == b"application/json" else content_back.decode()


@pytest.mark.parametrize(
    "history", [["3", "7"], [], ["5"] * 30, ["no", "such"], [str(k) for k in range(1, 50)]]
)
@pytest.mark.parametrize(
    "more",
    [{}, {"k": 3}, {"exclude_history": False}, {"allowed": ["1", "7", "x"]}, {"blocked": ["1", "2", "3"]}],
)
def test_recommendations_are_those_of_the_recommender(service, bundle, history, more):
    here = Recommender.load(bundle)
    status, reply = ask(service, "/recommend", {"history": history, **more})
    assert status == 200
    wanted = here.recommend(history, **more)
    assert [(one["item"], one["title"]) for one in reply["recommendations"]] == [one[:2] for one in wanted]
    assert [one["score"] for one in reply["recommendations"]] == pytest.approx(
        [one.score for one in wanted], abs=1e-12
    )
    assert reply["unknown"] == here.ignored and reply["popular"] == (here.numbers(history).size == 0)


def test_ids_are_the_same_as_numbers_and_as_text(service):
    assert ask(service, "/recommend", {"history": [3, 7]}) == ask(
        service, "/recommend", {"history": ["3", "7"]}
    )
    assert ask(service, "/recommend", {"history": ["3"], "blocked": [5, 6]}) == ask(
        service, "/recommend", {"history": [3], "blocked": ["6", "5", "5"]}
    )
    assert ask(service, "/explain", {"history": [3], "item": 9}) == ask(
        service, "/explain", {"history": ["3"], "item": "9"}
    )


def test_other_recommenders(service, bundle, tmp_path):
    _, reply = ask(service, "/recommend", {"history": ["3"], "by": "popularity"})
    _, wanted = ask(service, "/recommend", {"history": [], "blocked": ["3"]})
    assert reply["recommendations"] == wanted["recommendations"] and reply["unknown"] == 0
    other = table_bundle(tmp_path / "other", seed=5)
    both = Service(Served.load(bundle, other))
    _, reply = ask(both, "/recommend", {"history": ["3", "9"], "by": "teacher"})
    assert [one["item"] for one in reply["recommendations"]] == [
        one.item for one in Recommender.load(other).recommend(["3", "9"])
    ]
    assert ask(both, "/health")[1]["recommenders"] == ["student", "popularity", "teacher"]
    status, reply = ask(service, "/recommend", {"history": [], "by": "teacher"})
    assert status == 422 and reply["error"] == "by: 'teacher': not allowed; allowed: student | popularity"


def test_reasons_sum_to_the_score(service, bundle):
    best = Recommender.load(bundle).recommend(["3", "7", "7"], 1)[0]
    status, reply = ask(service, "/explain", {"history": ["3", "7", "7"], "item": best.item})
    assert status == 200 and reply["item"] == best.item and reply["title"] == best.title
    assert reply["score"] == pytest.approx(best.score, abs=1e-6)
    assert reply["score"] == pytest.approx(sum(part["weight"] for part in reply["reasons"]))
    assert {part["source"] for part in reply["reasons"]} <= {"3", "7", None}
    for part in reply["reasons"]:
        if part["source"]:
            title = f"The {part['source']}. film {MARKUP if part['source'] == '7' else ''}".strip()
            assert part["title"] == title


def test_items_by_title(service, bundle):
    here = Recommender.load(bundle)
    _, reply = ask(service, "/items?q=the+12&limit=3")
    assert [one["item"] for one in reply["items"]] == [one.item for one in here.find("the 12", 3)] and reply[
        "items"
    ]
    _, reply = ask(service, "/items?limit=2")
    assert [one["item"] for one in reply["items"]] == [one.item for one in here.recommend([], 2)]
    _, reply = ask(service, "/items?q=onerror")
    assert reply["items"] and all(MARKUP in one["title"] for one in reply["items"]), (
        "titles are text, as they are"
    )


def test_health_says_what_is_served(service):
    assert ask(service, "/health")[1] == {
        "status": "ok", "student": "SessionKNN", "dataset": "films <b>", "items": 60, "created": "seed 0",
        "recommenders": ["student", "popularity"], "comparison": "",
    }  # fmt: skip


COMPARISON = {
    "against": "student_longer", "metric": "ndcg@10", "difference": 0.0012, "low": -0.0101, "high": 0.013,
    "sessions": 1328, "verdict": "no measurable difference",
}  # fmt: skip


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (
            COMPARISON,
            "Against the same student trained as long without labels: ndcg@10 +0.0012 [-0.0101, +0.0130]: "
            "no measurable difference on 1,328 test sessions.",
        ),
        # a manifest is a file that others can edit
        ({**COMPARISON, "low": "low"}, ""),
        ({**COMPARISON, "low": float("nan")}, ""),
        ({**COMPARISON, "sessions": float("inf")}, ""),
        ({"against": "student_longer"}, ""),
        ("better", ""),
    ],
)
def test_health_says_what_the_run_showed(tmp_path, comparison, words):
    served = Service(Served.load(table_bundle(tmp_path / "bundle", comparison=comparison)))
    assert ask(served, "/health")[1]["comparison"] == words
    if words:
        marked = {**comparison, "verdict": "better <img src=x>", "metric": "ndcg@10<b>"}
        assert "<" not in verdict_words(marked) and "better  img src x " in verdict_words(marked)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "body: not readable as JSON"),
        (b"{", 400, "body: not readable as JSON"),
        (b'{"history": ["\xff"]}', 400, "body: not readable as JSON"),
        (b"[" * 200_000, 422, "body: expected `object`, got `array`"),
        (b'{"history": []} {}', 400, "body: not readable as JSON"),
        (b"null", 422, "body: expected `object`, got `null`"),
        (b"[]", 422, "body: expected `object`, got `array`"),
        ({}, 422, "body: object missing required field `history`"),
        ({"history": "3 7"}, 422, "history: '3 7': expected `array`, got `str`"),
        ({"history": ["3", None]}, 422, "history[1]: None: expected `int | str`, got `null`"),
        ({"history": [True]}, 422, "history[0]: True: expected `int | str`, got `bool`"),
        ({"history": [1.5]}, 422, "history[0]: 1.5: expected `int | str`, got `float`"),
        ({"history": [["3"]]}, 422, "history[0]: ['3']: expected `int | str`, got `array`"),
        ({"history": ["3"] * 1001}, 422, "history: "),
        ({"history": [], "k": -1}, 422, "k: -1: expected `int` >= 1"),
        ({"history": [], "k": 0}, 422, "k: 0: expected `int` >= 1"),
        ({"history": [], "k": 1001}, 422, "k: 1001: expected `int` <= 1000"),
        ({"history": [], "k": "5"}, 422, "k: '5': expected `int`, got `str`"),
        (
            {"history": [], "exclude_history": "yes"},
            422,
            "exclude_history: 'yes': expected `bool`, got `str`",
        ),
        ({"history": [], "unknown": "die"}, 422, "unknown: 'die': not allowed; allowed: ignore | error"),
        ({"history": [], "allowed": "3"}, 422, "allowed: '3': expected `array | null`, got `str`"),
        ({"history": [], "blocked": ["1"] * 10_001}, 422, "blocked: "),
        ({"history": [], "kk": 5}, 422, "body: object contains unknown field `kk`"),
        ({"history": ["3", "nope"], "unknown": "error"}, 404, "history: 'nope' is not in the catalogue"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(service, body, status, words):
    code, answer = ask(service, "/recommend", body)
    assert code == status and answer["error"].startswith(words), answer
    assert len(answer["error"]) < 300 and "\n" not in answer["error"]


def test_integers_of_any_size_are_ids(service):
    for number in (10**18, 10**30, -5):
        status, reply = ask(service, "/recommend", {"history": [number]})
        assert status == 200 and reply["unknown"] == 1, number
    status, reply = ask(service, "/recommend", b'{"history": [' + b"9" * 5000 + b"]}")
    assert status in (200, 400, 422), "an id of 5,000 digits"


def test_a_whole_number_may_be_written_as_a_float(service):
    whole = ask(service, "/recommend", b'{"history": [3, "7"], "k": 4}')
    assert whole[0] == 200 and ask(service, "/recommend", b'{"history": [3.0, "7"], "k": 4.0}') == whole
    status, reply = ask(service, "/recommend", b'{"history": [3.0, 7.5], "k": 4.0}')
    assert status == 422 and reply["error"].startswith("history[") and "got `float`" in reply["error"]


def test_other_refusals(service):
    assert ask(service, "/explain", {"history": [], "item": "nope"})[0] == 404
    assert ask(service, "/nothing") == (
        404, {"error": "path: '/nothing' is not served; allowed: /recommend, /explain, /items, /health, "
                       "/metrics, /openapi.json, /"}
    )  # fmt: skip
    for query in ("limit=0", "limit=101", "limit=-1", "limit=", "limit=%C2%B2", "q=" + "a" * 101):
        assert ask(service, f"/items?{query}")[0] == 422, query
    assert ask(service, "/items?" + "q=a&" * 30)[0] == 422
    status, headers, _ = raw(service, "GET", "/recommend")
    assert status == 405 and headers[b"allow"] == b"POST"
    status, headers, _ = raw(service, "DELETE", "/health")
    assert status == 405 and headers[b"allow"] == b"GET, HEAD"
    assert raw(service, "HEAD", "/health")[0] == 200


def test_bodies_are_bounded_however_they_come(bundle):
    service = Service(Served.load(bundle), Limits(body=100))
    good = json.dumps({"history": ["3"]}).encode()
    assert raw(service, "POST", "/recommend", pieces=[good[:5], good[5:9], good[9:]])[0] == 200
    assert raw(service, "POST", "/recommend", good + b" " * (100 - len(good)))[0] == 200
    for pieces in ([b" " * 101], [b" " * 60, b" " * 41], [b" " * 50] * 1000):
        status, headers, content = raw(service, "POST", "/recommend", pieces=pieces)
        assert status == 413 and b"more than 100 bytes" in content and headers[b"connection"] == b"close"
    for headers in (
        [(b"content-length", b"101"), (b"expect", b"100-continue")],
        [(b"content-length", b"999999999999")],
    ):
        assert raw(service, "POST", "/recommend", pieces=[b"never read"] * 10**6, headers=headers)[0] == 413


def test_a_client_that_leaves_is_not_answered(service):
    scope_pieces = [b'{"history"', b": []"]

    async def go():
        sent, messages = (
            [],
            [{"type": "http.request", "body": piece, "more_body": True} for piece in scope_pieces],
        )
        messages.append({"type": "http.disconnect"})

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/recommend", "query_string": b"", "headers": []}
        await service(scope, receive, send)
        return sent

    assert asyncio.run(go()) == []


def test_what_nobody_foresaw_is_one_answer_and_a_line_in_the_log(bundle, capsys, monkeypatch):
    service = Service(Served.load(bundle))
    monkeypatch.setattr(service._served.student.student, "top", lambda *_: 1 / 0)
    status, reply = ask(service, "/recommend", {"history": ["3"]})
    assert status == 500 and reply == {"error": "the service has failed; its log says where"}
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_metrics(bundle):
    service = Service(Served.load(bundle))
    for body in (
        {"history": ["3"]},
        {"history": ["3", "x", "y"]},
        {"history": ["x"]},
        b"{",
        {"history": [], "k": 0},
    ):
        ask(service, "/recommend", body)
    for k in range(50):
        raw(service, "GET", f"/{k}")
    _, text = ask(service, "/metrics")
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    counted = {name: float(value) for name, value in samples.items()}
    assert counted['alkd_requests_total{path="/recommend",status="200"}'] == 3
    assert counted['alkd_requests_total{path="/recommend",status="400"}'] == 1
    assert counted['alkd_requests_total{path="/recommend",status="422"}'] == 1
    assert counted['alkd_requests_total{path="other",status="404"}'] == 50, "no client can add series"
    assert (
        counted["alkd_unknown_items_total"] == 3
        and counted["alkd_popular_total"] == 1
        and counted["alkd_items"] == 60
    )
    assert counted['alkd_request_seconds_count{path="/recommend"}'] == 5
    assert 0 < counted['alkd_request_seconds_sum{path="/recommend"}'] < 60


def test_measures_alone():
    measures = Measures(("/a",))
    measures.request("/a", 200, 0.0003)
    assert 'alkd_request_seconds_bucket{le="0.00025",path="/a"} 0.0' in measures.text().decode()
    assert 'alkd_request_seconds_bucket{le="0.0005",path="/a"} 1.0' in measures.text().decode()


def test_a_new_bundle_is_swapped_in(bundle, tmp_path):
    service = Service(Served.load(bundle))
    other = table_bundle(tmp_path / "other", seed=1, n_items=80)
    before = ask(service, "/recommend", {"history": ["3"]})
    service.replace(Served.load(other))
    assert ask(service, "/recommend", {"history": ["3"]}) != before
    assert ask(service, "/health")[1]["items"] == 80
    with pytest.raises(AlkdError, match="recommenders"):
        service.replace(Served.load(other, bundle))


def test_the_page_may_ask_nobody_else(service):
    status, headers, content = raw(service, "GET", "/")
    policy = headers[b"content-security-policy"].decode()
    assert status == 200 and headers[b"content-type"] == b"text/html; charset=utf-8"
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    for tag in ("script", "style"):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline[0]).digest()).decode()
        assert len(inline) == 1 and f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(rb"https?://|//[a-z]+\.|innerHTML|<script |style=|onclick", content)


def test_the_document_describes_what_is_served(service):
    status, document = ask(service, "/openapi.json")
    assert status == 200 and document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {
        "/recommend",
        "/explain",
        "/items",
        "/health",
        "/metrics",
        "/openapi.json",
        "/",
    }
    schemas = document["components"]["schemas"]
    assert (
        schemas["Recommend"]["required"] == ["history"]
        and schemas["Recommend"]["properties"]["history"]["maxItems"] == 1000
    )
    assert schemas["Recommend"]["properties"]["k"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "default": 10,
    }
    wanted = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert wanted <= set(schemas)
