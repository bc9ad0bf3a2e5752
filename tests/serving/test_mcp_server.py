"""The tools that an assistant is given, asked by the package's own client."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from process import ROOT, environment
from service_process import alone, table_bundle
from test_serving_alone import ALONE

from recbole_alkd.serving import Recommender

mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return table_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


def rows(result):
    assert not result.is_error, result
    return result.structured_content["result"]


def test_the_tools_over_stdin_and_stdout(bundle):
    code = ALONE + f"from recbole_alkd.cli import main; main(['mcp', '--bundle', {str(bundle)!r}])"
    how = mcp.StdioServerParameters(
        command=sys.executable, args=["-c", code], env=environment(PYTHONPATH=str(ROOT))
    )

    async def talk():
        async with mcp.stdio_client(how) as (read, write), mcp.ClientSession(read, write) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            best = await session.call_tool("recommend", {"history": ["3", "the 12. FILM"], "k": 4})
            why = await session.call_tool("explain", {"history": ["3", "12"], "item": rows(best)[0]["item"]})
            wrong = [
                await session.call_tool(*call)
                for call in (
                    ("recommend", {"history": ["The 12. flm"]}), ("recommend", {"history": ["3"], "k": 0}),
                    ("recommend", {"history": ["3"] * 101}), ("recommend", {"history": "3"}),
                    ("explain", {"history": [], "item": "no"}),
                )
            ]  # fmt: skip
            return tools, rows(best), rows(why), wrong

    tools, best, why, wrong = asyncio.run(talk())
    assert set(tools) == {"recommend", "explain"} and all(tool.description for tool in tools.values())
    here = Recommender.load(bundle)
    assert best == json.loads(json.dumps([one._asdict() for one in here.recommend(["3", "12"], 4)]))
    assert sum(part["weight"] for part in why) == pytest.approx(best[0]["score"], abs=1e-6)
    assert all(one.is_error for one in wrong)
    assert "did you mean 'The 12. film' (id 12)" in wrong[0].content[0].text


def test_without_its_package_it_says_what_to_install(bundle, tmp_path):
    done = alone(["mcp", "--bundle", str(bundle)], tmp_path, before="sys.modules['mcp'] = None")
    assert (
        done.returncode == 2
        and "pip install 'recbole-alkd[mcp]'" in done.stderr
        and len(done.stderr.splitlines()) == 1
    )
