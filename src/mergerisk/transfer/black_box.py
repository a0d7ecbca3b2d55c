"""Targets of which only the answers are known, as in the threat model of the paper (arXiv 2509.23689).

A Python callable, or a service asked over HTTP. Nothing here reads or writes a file.
"""

from __future__ import annotations

import base64
import io
import os
import re
import reprlib
import time
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import httpx2
import numpy as np
import torch
from PIL import Image

from mergerisk.errors import UserError, described, did_you_mean, shown_text
from mergerisk.tasks.class_names import Classes
from mergerisk.tasks.images import check_pixels
from mergerisk.transfer.exchanges import OVERHEAD, Exchanges, LargeError, LateError
from mergerisk.transfer.queries import LONGEST_TIMEOUT
from mergerisk.transfer.redaction import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from mergerisk.transfer.exchanges import Answer
    from mergerisk.transfer.queries import QueryBudget

_LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more is better asked another day."""

_SCORE_BYTES = 128
"""Of a score or a name in JSON, generously."""

_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)


class Said(NamedTuple):
    """What a target says of images.

    Attributes:
        labels: int64, N, on the CPU.
        scores: float64, N × classes, likewise; None of a target that says labels alone.
    """

    labels: torch.Tensor
    scores: torch.Tensor | None


class BlackBox(ABC):
    """A target that says labels, and nothing of how it finds them.

    Attributes:
        class_names: the task's, in the order of its labels.
        batch_size: images asked at a time.
    """

    class_names: Sequence[str]
    batch_size: int

    @property
    @abstractmethod
    def name(self) -> str:
        """How messages call it."""

    @abstractmethod
    def _answers(self, portions: Sequence[torch.Tensor]) -> Iterator[Said]:
        """What it says of each portion."""

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Predicted labels, int64, N, on the CPU; see :meth:`ask`."""
        return self.ask(images).labels

    def ask(self, images: torch.Tensor) -> Said:
        """What it says of images, each of which is a query.

        Args:
            images: floating point, N × 3 × H × W, in [0, 1].

        Raises:
            UserError: the images are something else, or the target does not answer as it should.
        """
        check_pixels(images, self.name)
        if images.shape[1] != 3:
            raise UserError(f"{self.name}: images must be N × 3 × H × W, got {tuple(images.shape)}")
        if not len(images):
            return Said(torch.empty(0, dtype=torch.int64), None)
        said = list(self._answers(images.split(self.batch_size)))
        scores = [one.scores for one in said if one.scores is not None]
        whole = torch.cat(scores) if len(scores) == len(said) else None
        return Said(torch.cat([one.labels for one in said]), whole)

    def _from_labels(self, labels: Sequence[object], count: int) -> Said:
        """What is said, from numbers or class names."""
        self._check_count(len(labels), count)
        classes = Classes(self.class_names, len(self.class_names))
        found = torch.tensor([self._from_label(label, classes) for label in labels], dtype=torch.int64)
        return Said(found, None)

    def _from_label(self, label: object, classes: Classes) -> int:
        match label:
            case bool():
                pass
            case int() if 0 <= label < len(self.class_names):
                return label
            case str() if len(found := classes.find(label)) == 1:
                return found[0]
        hint = did_you_mean(label, self.class_names) if isinstance(label, str) else ""
        raise UserError(
            f"{self.name}: label {self._quoted(label)} is neither the name of one class nor a number from 0 to "
            f"{len(self.class_names) - 1}{hint}"
        )

    def _from_scores(self, scores: object, count: int) -> Said:
        """What is said, from N × K scores; of equal scores the first counts."""
        array = _as_array(scores)
        if array is None or array.ndim != 2 or array.dtype.kind not in "iuf":
            raise UserError(f"{self.name}: scores must be {count} rows of {len(self.class_names)} numbers each")
        self._check_count(len(array), count)
        if array.shape[1] != len(self.class_names):
            raise UserError(
                f"{self.name}: {array.shape[1]} scores per image, but the task has {len(self.class_names)} classes"
            )
        if np.isnan(array).any():
            raise UserError(f"{self.name}: a score is NaN")
        return Said(torch.from_numpy(array.argmax(axis=1)), torch.from_numpy(array.astype(np.float64)))

    def _quoted(self, label: object) -> str:
        """A label that is none, as messages show it."""
        return reprlib.repr(label)

    def _check_count(self, given: int, count: int) -> None:
        if given != count:
            raise UserError(f"{self.name}: {given} answers for {count} images")


@dataclass(frozen=True)
class CallableTarget(BlackBox):
    """A Python callable.

    Args:
        function: images, float N × 3 × H × W in [0, 1] → N labels (numbers or class names) or N × K scores
            (logits, probabilities), as a tensor, an array or a list. It gets a copy, which it may change.
        class_names: the task's, in the order of its labels.
        batch_size: images per call.

    Raises:
        UserError: the batch size is not positive.
    """

    function: Callable[[torch.Tensor], Any]
    class_names: Sequence[str]
    _: KW_ONLY
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"{self.name}: batch_size must be at least 1, got {self.batch_size}")

    @property
    def name(self) -> str:
        named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return f"{named.__module__}:{named.__qualname__}"

    def _answers(self, portions: Sequence[torch.Tensor]) -> Iterator[Said]:
        for portion in portions:
            answer = self._ask(portion)
            array = _as_array(answer)
            if array is not None and array.ndim == 1:
                yield self._from_labels(array.tolist(), len(portion))
            elif array is not None and array.ndim == 2:
                yield self._from_scores(array, len(portion))
            else:
                raise UserError(
                    f"{self.name}: must return {len(portion)} labels or {len(portion)} × {len(self.class_names)} "
                    f"scores, got {_shown(answer)}"
                )

    def _ask(self, portion: torch.Tensor) -> object:
        try:
            with torch.no_grad():
                return self.function(portion.clone())
        except UserError:
            raise
        except Exception as error:  # somebody else's code: it may raise anything
            raise UserError(f"{self.name} fails: {described(error)}") from error


@dataclass(frozen=True)
class HttpTarget(BlackBox):
    """A service asked over HTTP.

    A request is a POST of JSON, ``{"images": [base64 of a PNG, …]}``; the answer is
    ``{"labels": [number or class name, …]}`` or ``{"scores": [[number, …], …]}``, one entry per image, in order.
    A PNG has 8 bits per channel, so pixels are rounded to the nearest of 256 levels: that is part of the black
    box.

    Connection errors, timeouts and the statuses 429 and 5xx are tried again, after a wait that doubles each time
    and is never shorter than ``Retry-After`` asks for. Every image of every attempt is reserved in ``queries``
    before it is sent, whether or not it arrives.

    Args:
        url: where to post; without a password in it.
        class_names: the task's, in the order of its labels.
        queries: the budget.
        answer: which of the two answers the service gives.
        batch_size: images per request.
        timeout: seconds for one exchange, from connecting to the last byte of the answer; a day at most.
        retries: how often one request is tried again.
        token_variable: environment variable with a token, sent as ``Authorization: Bearer …``.
        header_variables: header → environment variable with its value.
        backoff: seconds before the first retry.
        sleep: waits that many seconds.

    Raises:
        UserError: no http(s) address, a number out of range, or an environment variable that is not set.
    """

    url: str
    class_names: Sequence[str]
    _: KW_ONLY
    queries: QueryBudget
    answer: Literal["labels", "scores"] = "labels"
    batch_size: int = 32
    timeout: float = 30.0
    retries: int = 4
    token_variable: str | None = None
    header_variables: Mapping[str, str] = field(default_factory=dict)
    backoff: float = 1.0
    sleep: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        _check_url(self.url)
        if self.answer not in {"labels", "scores"}:
            raise UserError(f"{self.url}: answer must be 'labels' or 'scores', got {self.answer!r}")
        in_range = 0 < self.timeout <= LONGEST_TIMEOUT and 0 <= self.backoff <= _LONGEST_WAIT
        if self.batch_size < 1 or self.retries < 0 or not in_range:
            raise UserError(
                f"{self.url}: batch_size must be at least 1, retries at least 0, timeout above 0 and at most "
                f"{LONGEST_TIMEOUT:.0f} s, and backoff from 0 to {_LONGEST_WAIT:.0f} s"
            )
        self._headers()

    @property
    def name(self) -> str:
        return self.url

    def _headers(self) -> dict[str, str]:
        headers = {header: self._secret(variable) for header, variable in self.header_variables.items()}
        for header in headers:
            if not _HEADER_NAME.fullmatch(header):
                raise UserError(f"{self.url}: {header!r} is no name of a header")
        if self.token_variable is not None:
            headers["Authorization"] = f"Bearer {self._secret(self.token_variable)}"
        return headers

    def _secret(self, variable: str) -> str:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise UserError(f"{self.url}: environment variable {variable} is not set; set it before the run")
        if not (value.isascii() and value.isprintable()):
            raise UserError(f"{self.url}: environment variable {variable} holds what a header cannot")
        return value

    def _answers(self, portions: Sequence[torch.Tensor]) -> Iterator[Said]:
        # Refused as a whole at once, instead of in the middle with queries gone.
        self.queries.check(sum(len(portion) for portion in portions))
        with Exchanges(self._headers(), self.timeout) as exchanges:
            for portion in portions:
                yield self._read(self._ask(exchanges, portion), len(portion))

    def _ask(self, exchanges: Exchanges, portion: torch.Tensor) -> Answer:
        """The answer to one request, tried again while there is hope."""
        content = {"images": [_png(image) for image in _eight_bits(portion)]}
        room = OVERHEAD + len(portion) * len(self.class_names) * _SCORE_BYTES
        fault, asked = "", 0.0
        for attempt in range(self.retries + 1):
            if attempt:
                # Of what doubles for ever, a computer's numbers know no end.
                self.sleep(max(min(self.backoff * 2.0 ** min(attempt - 1, 60), _LONGEST_WAIT), asked))
            self.queries.spend(len(portion))
            try:
                answer = exchanges.post(self.url, content, room)
            except LateError:
                fault, asked = f"no whole answer within {self.timeout:g} s", 0.0
                continue
            except LargeError:
                raise UserError(
                    f"{self.url}: answers with more than {room / 2**20:.0f} MiB, which no answer for "
                    f"{len(portion)} images needs"
                ) from None
            except httpx2.TransportError as error:
                fault, asked = self._shown(error), 0.0
                continue
            except httpx2.HTTPError as error:
                raise UserError(f"{self.url}: {self._shown(error)}") from None
            if answer.is_success:
                return answer
            fault = f"status {answer.status}: {self._shown(answer.text)}"
            if answer.status != httpx2.codes.TOO_MANY_REQUESTS and not 500 <= answer.status < 600:
                raise UserError(f"{self.url}: {fault}")
            asked = _retry_after(answer.headers.get("retry-after", ""))
            if asked > _LONGEST_WAIT:
                raise UserError(f"{self.url}: asks to wait {asked:.0f} s; run again then ({fault})")
        raise UserError(
            f"{self.url}: no answer in {self.retries + 1} attempts, the last of which met {fault}; see that it "
            "runs, or allow more retries or a longer timeout"
        )

    def _read(self, answer: Answer, count: int) -> Said:
        try:
            content = answer.parsed()
        except (ValueError, RecursionError):
            raise UserError(f"{self.url}: answers with what is no JSON: {self._shown(answer.text)}") from None
        found = content.get(self.answer) if isinstance(content, dict) else None
        if not isinstance(found, list):
            raise UserError(
                f'{self.url}: must answer with {{"{self.answer}": […]}}, got {self._shown(answer.text)}'
            )
        return self._from_labels(found, count) if self.answer == "labels" else self._from_scores(found, count)

    def _shown(self, said: str | Exception) -> str:
        """The start of an answer, or of an error that may quote it, on one line and without what was sent in
        confidence."""
        text = said if isinstance(said, str) else f"{type(said).__name__}: {said}".removesuffix(": ")
        # Before anything is cut off: half of a secret is one too.
        return shown_text(Secrets(self._headers().values()).hidden(text))

    def _quoted(self, label: object) -> str:
        if isinstance(label, list | dict):
            return f"of the type {type(label).__name__}"
        return repr(self._shown(label)) if isinstance(label, str) else self._shown(repr(label))


def _check_url(url: str) -> None:
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"{url!r}: no address: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise UserError(f"{url!r}: no address; it must begin with http:// or https:// and name a host")
    if parts.userinfo:
        raise UserError(
            f"an address on {parts.host} holds a user name or password; take it out, and name an environment "
            "variable with `token_variable` or `header_variables`"
        )


def _eight_bits(images: torch.Tensor) -> NDArray[np.uint8]:
    """N × H × W × 3, rounded to nearest; in float64, so that half precision is rounded once."""
    pixels: NDArray[np.uint8] = (images.double() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _png(pixels: NDArray[np.uint8]) -> str:
    """H × W × 3 as the base64 of a PNG."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")


def _as_array(answer: object) -> NDArray[Any] | None:
    """What a target answers as an array; None for ragged lists and the like."""
    try:
        if isinstance(answer, torch.Tensor):
            # NumPy knows no bfloat16.
            plain = answer.detach().cpu()
            return (plain.double() if plain.is_floating_point() else plain).numpy()
        return np.asarray(answer)
    except (ValueError, TypeError, RuntimeError):
        return None


def _retry_after(header: str) -> float:
    """Seconds that a ``Retry-After`` asks for, written as a number or a date; 0 for anything else."""
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    # A date without a zone is in UTC.
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _shown(answer: object) -> str:
    shape = getattr(answer, "shape", None)
    return type(answer).__name__ if shape is None else f"{type(answer).__name__} of shape {tuple(shape)}"
