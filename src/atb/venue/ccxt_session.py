"""One ccxt client for public reads: where it points, how its failures are read, when a request is repeated.

Only ccxt's endpoint methods are called (`publicGetKlines`, ...), not its unified ones: these need every market loaded
first, and they turn an answer that is no candle list at all into an empty one, which looks like a gap.
"""

from __future__ import annotations

import email.utils
import enum
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from atb.core.errors import ExchangeRefused, ExchangeUnavailable, UsageError, nearest

VENUES: tuple[str, ...] = ("binance", "coinbase")
OFFLINE_HINT = "Use --provider simulated, --data FILE, or candles already in the store."
MAX_BACKOFF_S = 20.0
UNSAID_WAIT_S = 1.0  # after "too fast" without a time to wait (Coinbase counts by the second)

T = TypeVar("T")


class Verdict(enum.Enum):
    """What a failure says about asking again."""

    AGAIN = "may be repeated"
    LIMITED = "too fast: may be repeated after the time the exchange asks for"
    CLOSED = "no use in asking again now"
    REFUSED = "the request itself is wrong"
    BARRED = "this place or key is refused: another request changes nothing"
    UNKNOWN_SYMBOL = "the exchange has no such symbol"


# The one table of failures. What is looked up, first hit first: the HTTP status, the exchange's own code, the status'
# family ("4xx"), ccxt's class and its bases. The class comes last because it misleads: ccxt calls every 400 without a
# JSON body "not available" and some server errors "ExchangeError".
VERDICTS: dict[int | str, Verdict] = {
    403: Verdict.BARRED,  # the firewall in front of the exchange, or a key without the right
    408: Verdict.AGAIN,
    418: Verdict.CLOSED,  # banned for going on after 429; each further request makes the ban longer
    425: Verdict.AGAIN,
    429: Verdict.LIMITED,
    451: Verdict.BARRED,  # not served at this place
    -1000: Verdict.AGAIN,
    -1001: Verdict.AGAIN,
    -1003: Verdict.LIMITED,
    -1006: Verdict.AGAIN,
    -1007: Verdict.AGAIN,
    -1008: Verdict.AGAIN,
    -1016: Verdict.CLOSED,
    -1121: Verdict.UNKNOWN_SYMBOL,
    "NOT_FOUND": Verdict.UNKNOWN_SYMBOL,
    "rate_limit_exceeded": Verdict.LIMITED,
    "resource_exhausted": Verdict.LIMITED,
    "4xx": Verdict.REFUSED,
    "5xx": Verdict.AGAIN,
    "DDoSProtection": Verdict.LIMITED,
    "RateLimitExceeded": Verdict.LIMITED,
    "OperationFailed": Verdict.AGAIN,  # every network failure and time-out
    "RequestException": Verdict.AGAIN,  # of requests: TLS or decoding, which ccxt reports as a plain ExchangeError
    "BaseError": Verdict.REFUSED,
}


class Patience(NamedTuple):
    """How long to wait for an answer, and how often to ask."""

    timeout_s: float = 10.0
    attempts: int = 4
    backoff_s: float = 0.5  # before the second attempt; doubles after each
    max_wait_s: float = 65.0  # the longest Retry-After that is sat out; Binance counts by the minute


class Trouble(Exception):
    """A request that gave nothing usable; never leaves this package."""

    def __init__(self, verdict: Verdict, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason
        self.wait_s = wait_s


def unusable(reason: str) -> Trouble:
    """The trouble with an answer that arrived but does not have the shape it must have."""
    return Trouble(Verdict.AGAIN, reason)


class UnknownSymbol(ExchangeRefused):
    """The exchange says itself that it has no such symbol."""


class Barred(ExchangeRefused):
    """The exchange serves nobody from this place, or not with this key."""


class Session:
    """A client of one venue. `base_url` None is the real exchange, else a root such as http://127.0.0.1:9000.

    `hint` is what can be done without an answer.
    """

    def __init__(self, venue: str, base_url: str | None, patience: Patience, hint: str = OFFLINE_HINT) -> None:
        self.venue = venue
        self.patience = patience
        self.hint = hint
        self.client = open_client(venue, base_url, patience.timeout_s)
        api = self.client.urls["api"]
        self.host = host_of(api["public"] if venue == "binance" else api["rest"])

    def ask(self, what: str, endpoint: str, params: dict[str, Any], read: Callable[[Any], T]) -> T:
        """The answer of a ccxt endpoint method as `read` understands it; `what` names the purpose in errors.

        `read` raises `unusable(...)` for an answer of the wrong shape. Raises ExchangeUnavailable or ExchangeRefused.
        """
        import tenacity

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.patience.attempts),
            retry=tenacity.retry_if_exception(self._worth_repeating),
            wait=self._pause_s,
            reraise=True,
        )
        try:
            answer: T = retrying(self._once, endpoint, params, read)
            return answer
        except Trouble as trouble:
            asked = int(retrying.statistics.get("attempt_number", 1))
            raise self._error(what, trouble, asked) from None

    def exchange_ms(self) -> int | None:
        """The exchange's clock (ms UTC) as of its last answer: the Date header less the answer's age in a cache."""
        headers = self.client.last_response_headers or {}
        try:
            date = email.utils.parsedate_to_datetime(headers["Date"])
            return round((date.timestamp() - float(headers.get("Age", 0))) * 1000)
        except (KeyError, TypeError, ValueError):
            return None

    def close(self) -> None:
        """Close the connections."""
        if self.client.session is not None:
            self.client.session.close()

    def _once(self, endpoint: str, params: dict[str, Any], read: Callable[[Any], T]) -> T:
        try:
            answer = getattr(self.client, endpoint)(params)
        except _ccxt().BaseError as error:
            raise trouble_of(error) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise unusable("gave an answer that ccxt cannot read") from None
        return read(answer)

    def _worth_repeating(self, error: BaseException) -> bool:
        if not isinstance(error, Trouble):
            return False
        if error.verdict is Verdict.LIMITED:
            return error.wait_s <= self.patience.max_wait_s
        return error.verdict is Verdict.AGAIN

    def _pause_s(self, state: Any) -> float:
        longest: float = min(self.patience.backoff_s * 2.0 ** (state.attempt_number - 1), MAX_BACKOFF_S)
        error = state.outcome.exception()
        asked_s = 0.0
        if isinstance(error, Trouble) and error.verdict is Verdict.LIMITED:
            asked_s = error.wait_s or UNSAID_WAIT_S
        return max(asked_s, longest * random.uniform(0.5, 1.0))  # jitter: many clients must not come back together

    def _error(self, what: str, trouble: Trouble, asked: int) -> ExchangeUnavailable | ExchangeRefused:
        times = f" ({asked} attempts)" if asked > 1 else ""
        message = f"{what}: {self.host} {trouble.reason}{times}."
        if trouble.verdict is Verdict.UNKNOWN_SYMBOL:
            return UnknownSymbol(message)
        if trouble.verdict is Verdict.BARRED:
            return Barred(f"{message[:-1]}: this location or key is refused.", f"Ask from another network. {self.hint}")
        if trouble.verdict is Verdict.REFUSED:
            return ExchangeRefused(message)
        return ExchangeUnavailable(message, self.hint)


def _ccxt() -> Any:
    """ccxt itself, imported when it is needed: that costs 0.8 s."""
    import ccxt

    return ccxt


def open_client(venue: str, base_url: str | None, timeout_s: float) -> Any:
    """A ccxt client without keys."""
    if venue not in VENUES:
        raise UsageError(f"Unknown venue '{venue}'.", nearest(venue, list(VENUES)))
    config: dict[str, Any] = {"timeout": max(1, round(timeout_s * 1000)), "enableRateLimit": True}
    if venue == "binance":
        config["options"] = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}
    else:
        config["headers"] = {"Cache-Control": "no-cache"}  # else public answers may come from a cache
    if base_url is not None:
        root = _checked_root(base_url)
        binance = {"public": root + "/api/v3", "private": root + "/api/v3"}
        config["urls"] = {"api": binance if venue == "binance" else {"rest": root}}
    return getattr(_ccxt(), venue)(config)


def host_of(url: str) -> str:
    """Host and port of a URL, without the user and password that it may carry."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _checked_root(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("The exchange's base URL is not a URL.", "Write a root such as http://127.0.0.1:9000.")
    return base_url.rstrip("/")


def trouble_of(error: BaseException) -> Trouble:
    """What a ccxt exception means, by the table above."""
    causes = _causes(error)
    response = next((r for c in causes if (r := getattr(c, "response", None)) is not None), None)
    status = None if response is None else int(response.status_code)
    body = str(error) if response is None else response.text
    code = _code(body)
    keys: list[int | str | None] = [status, code, None if status is None else f"{status // 100}xx"]
    if status is None and any(_is(cause, "RequestException") for cause in causes):
        keys.append("RequestException")  # no answer came; an HTTPError has been judged by its status
    keys += [base.__name__ for base in type(error).__mro__]
    verdict = next((VERDICTS[key] for key in keys if key in VERDICTS), Verdict.REFUSED)
    wait_s = _retry_after_s(response) if verdict in (Verdict.LIMITED, Verdict.CLOSED) else 0.0
    return Trouble(verdict, _reason(causes, status, body, wait_s), wait_s)


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and what it came from: `requests` keeps the answer, urllib3 the reason."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < 8:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _is(error: BaseException, name: str) -> bool:
    return any(base.__name__ == name for base in type(error).__mro__)


def _code(body: str) -> int | str | None:
    """The exchange's own code: Binance's number, Coinbase's word."""
    if found := re.search(r'"code"\s*:\s*"?(-?\d+)', body):
        return int(found[1])
    found = re.search(r'"error"\s*:\s*"(\w+)"', body)
    return found[1] if found else None


def _retry_after_s(response: Any) -> float:
    """Seconds that the exchange asks to wait; 0 where it does not say."""
    asked = "" if response is None else response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        return 0.0


# What to say about a connection that failed, by the words that requests and the system use for it.
_CONNECTION = (
    ("Name or service not known|name resolution|getaddrinfo|NameResolution", "has no known address (DNS)"),
    ("Connection refused", "refused the connection"),
    ("timed out|Timeout", "did not answer in time"),
    ("CERTIFICATE|SSL", "could not be reached securely (TLS)"),
    ("reset|aborted|Broken pipe|IncompleteRead|broken", "broke the connection off"),
)


def _reason(causes: list[BaseException], status: int | None, body: str, wait_s: float) -> str:
    """The rest of a sentence that begins with the host. No URL: a query may carry a signature."""
    if status is None:
        text = " ".join(f"{type(c).__name__} {c}" for c in causes)
        known = (say for words, say in _CONNECTION if re.search(words, text, re.IGNORECASE))
        return next(known, "could not be reached") if len(causes) > 1 else f"answered {_own_words(body) or 'an error'}"
    wait = f" and asks to wait {wait_s:g} s" if wait_s else ""
    words = _own_words(body)
    return f"answered HTTP {status}{f' ({words})' if words else ''}{wait}"


def _own_words(body: str) -> str:
    """The exchange's own message in an error body, shortened."""
    found = re.search(r'"(?:msg|message|error_details)"\s*:\s*"([^"\x00-\x1f]{1,200})', body)
    return found[1].strip().rstrip(".") if found else ""
