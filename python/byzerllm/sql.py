"""The way from a client to Byzer's SQL engine: two HTTP calls with forms, answered with JSON."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from byzerllm.errors import UnavailableError, UpstreamError

_PREDICT = "http://127.0.0.1:9003/model/predict"
_SCRIPT = "http://127.0.0.1:9003/run/script"
_PATIENCE_SECONDS = 600


class SqlBridge:
    """What a `ByzerLLM` asks of Byzer's SQL engine."""

    byzer_engine_url: str | None

    def apply_sql_func(
        self,
        sql: str,
        data: list[dict[str, Any]],
        owner: str = "admin",
        url: str = _PREDICT,
    ) -> Any:
        """Runs a SQL expression over rows and returns the first of what the engine answers.

        Args:
            sql: the expression, such as `select upper(name) as name`.
            data: the rows.
            owner: the user of the SQL engine.
            url: where it answers; the client's `byzer_engine_url` stands in for the default. It has 600
                seconds.

        Raises:
            UpstreamError: the engine answered with an error.
            UnavailableError: nobody answers at the URL.

        Example:
            >>> llm.apply_sql_func("select upper(name) as name", [{"name": "ann"}])
            {'name': 'ANN'}
        """
        if url == _PREDICT and self.byzer_engine_url:
            url = self.byzer_engine_url
        form = {
            "sessionPerUser": "true",
            "sessionPerRequest": "true",
            "owner": owner,
            "dataType": "row",
            "sql": sql,
            "data": json.dumps(data, ensure_ascii=False),
        }
        answer = _post(url, form)
        if not isinstance(answer, list) or not answer:
            raise UpstreamError(f"{url} answered with no rows: {answer!r}")
        return answer[0]

    def _rest_byzer_script(self, sql: str, owner: str, url: str = _SCRIPT) -> Any:
        """Runs a script and returns what the engine answers, with the schema."""
        form = {
            "sessionPerUser": "true",
            "sessionPerRequest": "true",
            "owner": owner,
            "sql": sql,
            "includeSchema": "true",
        }
        return _post(url, form)


def _post(url: str, form: Mapping[str, str]) -> Any:
    request = Request(url, urlencode(form).encode("ascii"), method="POST")
    try:
        with urlopen(request, timeout=_PATIENCE_SECONDS) as response:
            text = response.read().decode("utf-8", "replace")
    except HTTPError as error:
        content = error.read().decode("utf-8", "replace")
        raise UpstreamError(f"{url} status:{error.code} content: {content}") from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UnavailableError(
            f"no SQL engine answers at {url}: {reason}; start Byzer, or give its url"
        ) from None
    try:
        return json.loads(text)
    except ValueError:
        shown = text if len(text) <= 200 else f"{text[:200]}…"
        raise UpstreamError(f"{url} answered with no JSON: {shown!r}") from None
