"""What an API teacher is told before anything is sent: the name of its key, its address, its prices."""

from pathlib import Path
from typing import Any

import pytest

from recbole_alkd.llm.api_key import find_key
from recbole_alkd.llm.prices import Price, default_price_file, read_prices
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings
from recbole_alkd.settings.reading import read_settings


def test_a_key_in_the_place_of_its_name_is_not_shown():
    with pytest.raises(AlkdError, match="not shown, it may be a key") as error:
        find_key(TeacherSettings(llm_api_key_env="mysecretpassword"))
    assert "mysecretpassword" not in str(error.value)


KEYS = [
    "sk-abcdef123456", "sk_live_abc", "not a name", "", "gsk_AbCdEf0123456789AbCdEf0123",
    "hf_QwErTyUiOpAsDfGhJkLzXcVb", "r8_abc",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv", "0123456789abcdef0123456789abcdef",
    "deadbeefdeadbeefdeadbeefdeadbeef",
    "AKIAIOSFODNN7EXAMPLE", "a1b2c3d4e5f6a7b8", "xai_1234", "ghp_abcdefghijklmnop", "DEADBEEF12345678",
    "eyJhbGciOiJIUzI1NiJ9",
    "MyS3cretT0ken99",
    "tgp_v1_abc",
    "qwertyuiopasdfghjklzxcvbnm", "hf_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 12345678901234, 1.5, ["sk-x"],
]  # fmt: skip


@pytest.mark.parametrize("value", KEYS, ids=str)
def test_a_key_as_setting_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(AlkdError) as error:
        read_settings({"llm_api_key_env": value})
    assert "llm_api_key_env: the value (not shown" in str(error.value)
    assert not value or str(value) not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "MY_KEY",
        "HF_TOKEN",
        "GSK_KEY",
        "my_key",
        "DEEPSEEK_API_KEY_2",
        "TOKEN",
        "key",
        "AZURE_OPENAI_KEY_EU1",
    ],
)
def test_names_of_variables_are_taken(name: str) -> None:
    assert read_settings({"llm_api_key_env": name}).teacher.llm_api_key_env == name


def test_a_variable_that_is_set_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("hf_key1a2b3c4d5", "x")
    assert read_settings({"llm_api_key_env": "hf_key1a2b3c4d5"})


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pass9@host/v1",
        "https://sekret9@host/v1",
        "https://h/v1?key=AIza9",
        "https://h/v1?api-key=x9",
        "http://h/?access_token=x9",
        "https://h/v1;token=x9",
        "https://h/v1%3Bkey%3Dx9",
        "https://h/v1#token=x9",
        "https://h/token=x9/v1",
        "https://h/sk-proj-x9x9x9x9x9x9x9x9x9x9/v1",
        "https://user%3Ax9%40h/v1",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(
        AlkdError, match=r"llm_base_url: the value .not shown, it holds a password or a key."
    ) as error:
        read_settings({"llm_base_url": url})
    assert "9" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://h/v1", "http://", "http://h:99999/v1", "http://[::1/v1", "v1"]
)
def test_an_address_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(AlkdError, match=r"llm_base_url: .* allowed: http:// or https:// with a host"):
        read_settings({"llm_base_url": url})


@pytest.mark.parametrize(
    "url",
    [
        "https://h/openai/?api-version=2024-02-01",
        "https://gateway.ai.cloudflare.com/v1/0123456789abcdef0123456789abcdef/name/openai",
        "https://h/openai/deployments/gpt-4o-mini;v=1/",
        "http://[::1]:8000/v1",
    ],
)
def test_an_address_may_have_a_path_and_a_query(url: str) -> None:
    assert read_settings({"llm_base_url": url}).teacher.llm_base_url == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "a mapping with the keys models and batch"),
        ("models: {a: {input: 1}}", "needed are input and output"),
        ("models: {a: {input: 1, output: -1}}", "a: output: -1.* a number of at least 0"),
        ("models: {a: {input: 1, output: 2, extra: 3}}", "allowed is cached_input"),
        ("models: [", "is not readable as YAML"),
    ],
)
def test_bad_price_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(AlkdError, match=words) as error:
        read_prices(tmp_path / "p.yaml")
    assert "p.yaml" in str(error.value)


def test_shipped_prices() -> None:
    prices = read_prices(default_price_file())
    assert prices["gpt-4-turbo-2024-04-09"] == Price(10.0, 30.0, None, 0.5)
    # the paper's 500 labels for 8.60 USD are about 1,000 prompt and 240 completion tokens each
    assert prices["gpt-4-turbo-2024-04-09"].usd(500_000, 120_000) == pytest.approx(8.6)
